"""Asking: a request's parameters, checked against its route, and answers as JSON.

Every parameter a route knows is in its row of the table; anything else is refused with a guess, so that a typing error
never changes an answer silently.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web

from milepost.agents.views.services import Services
from milepost.topology import bases
from milepost.topology.questions import Question, Questions
from milepost.topology.refusals import BadParameter, UnknownParameter, closest
from milepost.topology.scans import Steps

T = TypeVar("T")

BREATH_S: Final = 0.002
"""After so long a question lets the loop fold the log, seconds."""
LIMIT_MAX: Final = 1_000
TEXT_MAX: Final = 1_024
"""Longest value of a parameter, characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a route.  `name` with a trailing `*` stands for all names that begin so (`dim.*`)."""

    name: str
    about: str
    required: bool = False
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Doors:
    """What handlers share: the worker's services and the questions over its tables."""

    services: Services
    questions: Questions


@dataclass(frozen=True, slots=True)
class Asking:
    """One request: its path's parts and its checked query."""

    request: web.Request
    path: Mapping[str, str]
    query: Mapping[str, str]

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

    def dims(self) -> dict[str, str]:
        """The dimension filters: `dim.origin=JFK`.  An empty value is a value."""
        return {name[4:]: value for name, value in self.query.items() if name.startswith("dim.")}

    def page(self) -> tuple[int, int]:
        """(offset, limit) of a paged list."""
        limit, offset = self.query.get("limit", str(LIMIT_MAX)), self.query.get("next", "0")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= LIMIT_MAX):
            raise BadParameter(f"limit is a whole number from 1 to {LIMIT_MAX}, not {limit[:32]!r}")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 10):
            raise BadParameter("next is the value of next in the answer before")
        return int(offset), int(limit)

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


def ask(request: web.Request, parameters: Sequence[Parameter]) -> Asking:
    """The request with its query checked: known names, each once, of bounded length."""
    known = [one.name for one in parameters if one.place == "query"]
    query: dict[str, str] = {}
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
        query[name] = value
    return Asking(request, dict(request.match_info), query)


async def breathing(steps: Steps[T]) -> T:
    """The result of steps, letting the loop go on every 2 ms."""
    began = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if time.perf_counter() - began > BREATH_S:
            await asyncio.sleep(0)
            began = time.perf_counter()


def paged(rows: Sequence[T], offset: int, limit: int) -> tuple[Sequence[T], str | None]:
    """A page of a list, and what `next` asks for the page behind it."""
    end = offset + limit
    return rows[offset:end], str(end) if end < len(rows) else None


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
