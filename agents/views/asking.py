"""Asking: a request's parameters, checked against its route, and answers as JSON.

Every parameter a route knows is in its row of the table; anything else is refused with a guess, so that a typing error
never changes an answer silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web

from milepost.agents.breathing import answered
from milepost.agents.views.services import Services
from milepost.ops.access import Principal, own
from milepost.schemas.errors import StoreError
from milepost.topology import bases, receipts
from milepost.topology.explain import Explanations
from milepost.topology.questions import Question
from milepost.topology.reading import Unavailable
from milepost.topology.record_questions import RecordQuestion
from milepost.topology.refusals import BadParameter, UnknownParameter, closest
from milepost.topology.standings import Standings
from milepost.topology.steps import Got, Part, Steps

PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""Under this name a request carries who sent it (admission.py)."""
T = TypeVar("T")
TwoMoments = TypeVar("TwoMoments", Question, RecordQuestion)

INCLUDED_S: Final = 5.0
"""How long a question waits for a receipt's effect, seconds."""
LIMIT_MAX: Final = 1_000
WAITING_MAX: Final = 256
"""Questions that wait for a partition at most; further ones are refused at once."""
TEXT_MAX: Final = 1_024
"""Longest value of a parameter, characters."""


class Late(Exception):
    """What a receipt stands for has not arrived in the answers in time: 503, ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a route.  `name` with a trailing `*` stands for all names that begin so (`dim.*`).

    many: it may be given several times
    schema: what a value is, for the description (JSON Schema); what is refused is decided where the value is read
    """

    name: str
    about: str
    required: bool = False
    place: str = "query"
    many: bool = False
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string", "maxLength": TEXT_MAX})


@dataclass(slots=True)
class Doors:
    """What handlers share: the worker's services and the questions over its tables.

    waiting: how many questions wait for a partition that is being handed over
    streams: how many streams are open
    holds:   whether somebody who came in may stay
    repairing: one repair (or its preview) at a time: each holds what it judges
    """

    services: Services
    questions: Explanations
    standings: Standings
    waiting: int = 0
    streams: Callable[[], int] = lambda: 0
    holds: Callable[[Principal], bool] = lambda _: True
    repairing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Query:
    """What is asked: a path's parts and a checked query, of a request or of a stream (streams.py).

    lag_ms:  by how much what was found for it may lag
    patient: whether it waits for a partition that is being handed over
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    lag_ms: int = field(default=0, init=False)
    patient: bool = field(default=True, init=False)

    def text(self, name: str) -> str | None:
        """A parameter; None when it is absent or empty."""
        return self.query.get(name) or None

    def needed(self, name: str) -> str:
        value = self.query.get(name)
        if not value:
            raise BadParameter(f"{name} is missing", fix=f"{name}=…")
        return value

    def instant(self, name: str) -> int | None:
        value = self.text(name)
        return None if value is None else bases.instant(value, name)

    def stale_ms(self) -> int | None:
        """How much the answer may lag, ms; None: not at all."""
        text = self.query.get("stale_ms", "")
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise BadParameter(f"stale_ms is a whole number of milliseconds, not {text[:32]!r}")
        return int(text)

    def answer(self, body: dict[str, Any]) -> web.Response:
        """The answer; how much it lags is said where the question allowed it to."""
        if self.stale_ms() is not None:
            body = {**body, "lag_ms": self.lag_ms}
        return answer(body)

    def dims(self) -> dict[str, str]:
        """The dimension filters: `dim.origin=JFK`.  An empty value is a value."""
        return {name[4:]: value for name, value in self.query.items() if name.startswith("dim.")}

    def page(self) -> tuple[int, int]:
        """(offset, limit) of a paged list."""
        offset = self.query.get("next", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 10):
            raise BadParameter("next is the value of next in the answer before")
        return int(offset), self.limit()

    def limit(self) -> int:
        """How many rows a page has at most."""
        limit = self.query.get("limit", str(LIMIT_MAX))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= LIMIT_MAX):
            raise BadParameter(f"limit is a whole number from 1 to {LIMIT_MAX}, not {limit[:32]!r}")
        return int(limit)

    def question(self, metric: str, now_ms: int) -> Question:
        """The question that value, series and breakdown have in common."""
        return Question(
            metric=metric,
            now_ms=now_ms,
            org=self.text("org"),
            company=self.text("company"),
            at_ms=self.instant("at"),
            basis=self.text("basis"),
            window=self.text("window") or "all",
            tz=self.text("tz") or "UTC",
            dims=self.dims(),
        )

    def two_moments(self, asked: TwoMoments) -> tuple[TwoMoments, TwoMoments]:
        """What is asked, and the same at `to`: both as shown then, unless it is said otherwise."""
        to_ms = self.instant("to")
        before = replace(asked, basis=asked.basis or (None if asked.at_ms is None else "as_shown"))
        return before, replace(
            asked, at_ms=to_ms, basis=self.text("to_basis") or (None if to_ms is None else "as_shown")
        )


@dataclass(slots=True)
class Asking(Query):
    """One request.

    lists: the values of the parameters that may be given several times, in their order
    who:   who asks (admission.py); None: nobody looked
    """

    request: web.Request
    lists: Mapping[str, Sequence[str]]
    who: Principal | None = None


def ask(request: web.Request, parameters: Sequence[Parameter]) -> Asking:
    """The request with its query checked: known names, each once, of bounded length."""
    known = [one.name for one in parameters if one.place == "query"]
    many = {one.name for one in parameters if one.many}
    query: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for name, value in request.query.items():
        if name not in known and not any(one.endswith("*") and name.startswith(one[:-1]) for one in known):
            raise UnknownParameter(
                f"{name[:64]!r} is no parameter of this call",
                guess=closest(name, known),
                fix=f"one of {', '.join(known)}" if known else "this call has none",
            )
        if name in query:
            raise BadParameter(f"{name[:64]} is given twice")
        if len(value) > TEXT_MAX:
            raise BadParameter(f"{name[:64]} is longer than {TEXT_MAX} characters")
        if name in many:
            lists.setdefault(name, []).append(value)
        else:
            query[name] = value
    who: Principal | None = request.get(PRINCIPAL)
    if "org" in known and (org := own(who, query.get("org"))) is not None:
        query["org"] = org
    return Asking(dict(request.match_info), query, request, lists, who)


def whose(asking: Asking) -> str | None:
    """The only organisation that whoever asks reaches; None: all."""
    return None if asking.who is None else asking.who.org


def hidden(asking: Asking, org: str | None) -> bool:
    """Whether what is of `org` (None: nobody can say) is not for whoever asks: as if it were not there."""
    return whose(asking) not in (None, org)


async def found(doors: Doors, asking: Query, make: Callable[[], Steps[T]]) -> T:
    """The result of the steps that `make` gives, each part from its owner; it includes what `after=` names.

    A partition that is being handed over is asked for again, the whole question anew, for as long as the services have
    patience; then Unavailable is raised."""
    services = doors.services
    stale_ms = asking.stale_ms()
    if (text := asking.text("after")) is not None:
        await included(doors, text, stale_ms)
    until = time.monotonic() + (services.patience_s if asking.patient else 0.0)
    pause_s = 0.02

    async def read(parts: Sequence[Part]) -> Sequence[Got]:
        return await services.gather(parts, stale_ms)

    while True:
        try:
            value, lag_ms = await answered(make(), read)
        except (Unavailable, StoreError):
            if time.monotonic() + pause_s > until or doors.waiting >= WAITING_MAX:
                raise
        else:
            asking.lag_ms = max(asking.lag_ms, lag_ms)
            return value
        doors.waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            doors.waiting -= 1
        pause_s = min(0.25, pause_s * 2)


async def included(doors: Doors, text: str, stale_ms: int | None) -> None:
    """Wait until the effect of a receipt is in the answers.  Raises Late."""
    services = doors.services
    if stale_ms is not None:
        raise BadParameter("after asks for what is newest, stale_ms allows what is not", fix="leave one of them out")
    one = receipts.receipt(text, services.reader.partitions)
    needed: dict[int, int] | None = None
    until, pause_s = time.monotonic() + INCLUDED_S, 0.005
    while True:
        # Whoever owns the partitions is asked anew each time; while nobody does, time runs.
        with contextlib.suppress(Unavailable, StoreError):
            if needed is None:
                needed, _ = await answered(receipts.sent(services.reader, one), services.gather)
            if (
                needed is not None
                and (await answered(receipts.taken(services.reader, one, needed), services.gather))[0]
            ):
                return
        if time.monotonic() + pause_s > until or doors.waiting >= WAITING_MAX:
            raise Late(f"{one} is not in the answers yet")
        doors.waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            doors.waiting -= 1
        pause_s = min(0.1, pause_s * 2)


def paged(rows: Sequence[T], offset: int, limit: int) -> tuple[Sequence[T], str | None]:
    """A page of a list, and what `next` asks for the page behind it."""
    end = offset + limit
    return rows[offset:end], str(end) if end < len(rows) else None


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
