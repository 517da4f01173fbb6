"""Streams: the questions that open streams have in common, asked again when something has landed, and told to each.

    landed here, or with another worker -> each question once -> its pieces -> what changed is marked with each client
                                           (503: later)                         which takes the newest when it can write

Questions go the way of GET, so a stream never shows what an answer would not; while a partition is being handed over
nothing is sent but a comment.

Rounds are paced by their own cost: what is asked takes at most about a quarter of the loop, a heavy question a ninth.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from milepost.agents.views import frames, plans, queries
from milepost.agents.views.asking import LIMIT_MAX, Doors, Query
from milepost.agents.views.clients import Client, Shared
from milepost.agents.views.frames import Piece
from milepost.agents.views.problems import Problem, from_exception
from milepost.schemas.errors import StoreError
from milepost.topology.reading import Unavailable
from milepost.topology.receipts import Reached
from milepost.topology.refusals import BadParameter
from milepost.topology.steps import Part

log = logging.getLogger(__name__)

CLIENTS_MAX: Final = 1_000
QUESTIONS_MAX: Final = 50
"""Questions of one client at most."""
SHARED_MAX: Final = 5_000
"""Different questions of all clients at most."""
ASKED_AT_ONCE: Final = 4
PAUSE_S: Final = 0.25
"""How long after a round the next begins at the earliest, seconds."""
POLL_S: Final = 0.5
"""So often the partitions of other workers are looked at."""
REST: Final = 3
"""A round is followed by a pause of so many times its length, a question by eight times its own."""
AWAY_S: Final = 1.0
"""When a question is asked again that could not be answered."""
LEGS: Final = ("ingest", "measure")
AWAY: Final = frames.comment("some answers wait for a partition that is being restored or handed over")


class Streams:
    """The open streams of this worker.  Its two tasks live as long as there are any.

    expire: called once a second
    """

    def __init__(self, doors: Doors, expire: Callable[[float], None]) -> None:
        self.clients: set[Client] = set()
        self.shared: dict[bytes, Shared] = {}
        self._doors = doors
        self._expire = expire
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._state: object = None
        self._elsewhere: object = None
        self._polled_at = float("-inf")
        self._spent_s = 0.0  # on answers since the last round

    async def open(self, client: Client, wanted: Sequence[tuple[str | None, Mapping[str, str]]]) -> None:
        """Take a client in; its questions have been asked once.  Raises Problem, QuestionError."""
        self._check_open()
        if len(self.clients) >= CLIENTS_MAX:
            for one in self.clients:
                one.look(time.monotonic())
        if sum(not one.ended for one in self.clients) >= CLIENTS_MAX:
            raise Problem(
                429, "too many streams", f"this worker has {CLIENTS_MAX}", fix="close some, or ask another worker"
            )
        self.clients.add(client)
        try:
            for metric, query in wanted:
                client.questions.append(self._join(client, Shared.of(metric, query)))
            for shared in client.questions:
                await self._first(shared)
                if shared.away:
                    client.aside("away", AWAY)
                else:
                    client.told(shared, {})
            self._check_open()
        except BaseException:
            self.leave(client)
            raise
        self._run()

    def _check_open(self) -> None:
        if self._closed:
            raise Problem(503, "the worker stops", "come back")

    def leave(self, client: Client) -> None:
        client.end()
        self.clients.discard(client)
        for shared in client.questions:
            shared.clients.discard(client)
            if not shared.clients and self.shared.get(shared.key) is shared:
                del self.shared[shared.key]
        if not self.clients:
            self._stop()

    def recheck(self) -> None:
        """End the streams of whoever has lost what opened them; called when tokens change."""
        for client in list(self.clients):
            if not client.holds():
                client.end()

    async def close(self) -> None:
        """End every stream: the worker stops, and its clients come back to another, or to the next life of this one."""
        self._closed = True
        for client in self.clients:
            client.end()
        await asyncio.gather(*self._stop(), return_exceptions=True)

    def _stop(self) -> list[asyncio.Task[None]]:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return tasks

    # -- asking

    def _join(self, client: Client, wanted: Shared) -> Shared:
        shared = self.shared.get(wanted.key)
        if shared is None:
            if len(self.shared) >= SHARED_MAX:
                raise Problem(
                    429, "too many questions", f"the streams of this worker ask {SHARED_MAX}", fix="ask another worker"
                )
            shared = self.shared[wanted.key] = wanted
        shared.clients.add(client)
        return shared

    async def _first(self, shared: Shared) -> None:
        """Have an answer that was asked for from now on: the client may have seen newer ones elsewhere than the last
        round's, and no answer goes back.  Who waits here meanwhile shares it.  Raises what refuses the question."""
        came = time.monotonic()
        async with shared.turn:
            if shared.problem is None and (shared.away or shared.began >= came):
                return
            if (error := await self._ask(shared)) is not None:
                raise error

    async def _ask(self, shared: Shared) -> Exception | None:
        """Ask, and tell the clients what is new; what refuses the question for good is returned."""
        shared.due = False
        async with self._asking:
            began = time.monotonic()
            query = Query({} if shared.metric is None else {"metric": shared.metric}, shared.query)
            query.patient = False
            before, error = shared.pieces or {}, None
            try:
                pieces = await self._pieces(shared, query)
                shared.problem = None
            except Exception as failed:  # noqa: BLE001  the boundary, as in the middleware
                answer = from_exception(failed)
                if answer.status >= 500:
                    shared.due, shared.not_before = True, time.monotonic() + AWAY_S
                    if not shared.away:
                        shared.away = True
                        for client in shared.clients:
                            client.aside("away", AWAY)
                    return None
                assert isinstance(answer.body, bytes)
                pieces, error, shared.problem = {}, failed, orjson.loads(answer.body)
            spent_s = time.monotonic() - began
            self._spent_s += spent_s
            shared.not_before = began + 9 * spent_s
        was_away, shared.away, shared.pieces, shared.began = shared.away, False, pieces, began
        if (
            was_away
            or any(key not in before or before[key].digest != one.digest for key, one in pieces.items())
            or (before.keys() - pieces.keys())
        ):
            for client in shared.clients:
                client.told(shared, before)
        if error is not None and was_away and not before:
            told = orjson.dumps({**orjson.loads(shared.key), "problem": shared.problem})
            for client in shared.clients:
                client.aside(f"refused {shared.key!r}", frames.frame("revoked", told))
        return error

    async def _pieces(self, shared: Shared, query: Query) -> dict[bytes, Piece]:
        """The answer, by the same handlers that GET has."""
        handler = plans.milestones if shared.metric is None else queries.value
        response = await handler(self._doors, query)
        assert isinstance(response.body, bytes)
        answer = orjson.loads(response.body)
        if shared.metric is not None:
            return frames.value_pieces({**shared.query, "metric": shared.metric}, answer)
        if answer["next"] is not None:
            raise BadParameter(f"a stream tells at most {LIMIT_MAX} milestones a question", fix="company=…")
        return frames.milestone_pieces(answer)

    # -- rounds

    def _run(self) -> None:
        if not self._tasks:
            self._state = None
            self._tasks = [
                asyncio.create_task(self._rounds(), name="streams"),
                asyncio.create_task(self._watch(), name="streams' clients"),
            ]
            for task in self._tasks:
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that fails takes the streams with it: the clients come back."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the streams end: %s", error, exc_info=error)
            self._stop()
            for client in self.clients:
                client.end()

    async def _rounds(self) -> None:
        while self.clients:
            began = time.monotonic()
            if await self._changed():
                for shared in self.shared.values():
                    shared.due = True
            due = [one for one in self.shared.values() if one.due and one.not_before <= began]
            await asyncio.gather(*(self._again(one) for one in due))
            # Of what was asked at one time each took as long as all; what could not be answered was waiting, no load.
            spent_s, self._spent_s = self._spent_s / ASKED_AT_ONCE, 0.0
            await asyncio.sleep(max(PAUSE_S, REST * spent_s))

    async def _again(self, shared: Shared) -> None:
        async with shared.turn:
            if shared.clients and shared.due:
                await self._ask(shared)

    async def _changed(self) -> bool:
        """Whether an answer may have changed since this was asked last.

        Here it is counted what lands; the partitions of others are asked how far they are, and by which owner."""
        services = self._doors.services
        here, away = self._places()
        if away and time.monotonic() - self._polled_at >= POLL_S:
            self._polled_at = time.monotonic()
            try:
                self._elsewhere = [(one.epoch, one.value[0]) for one in await services.gather(away)]
            except (Unavailable, StoreError):
                self._elsewhere = object()  # not known: it may have changed
        state = (services.landings, here, self._elsewhere if away else None)
        before, self._state = self._state, state
        return state != before

    def _places(self) -> tuple[list[int], list[Part]]:
        """Under which ownership the partitions are that are here, and those that are not."""
        reader = self._doors.services.reader
        here: list[int] = []
        away: list[Part] = []
        for leg in LEGS:
            for number in range(reader.partitions):
                try:
                    here.append(reader.epoch(leg, number))
                except Unavailable:
                    away.append(Reached(partition=number, leg=leg))
        return here, away

    async def _watch(self) -> None:
        while self.clients:
            now = time.monotonic()
            for client in list(self.clients):
                client.look(now)
            self._expire(now)
            await asyncio.sleep(1.0)
