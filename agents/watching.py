"""Watching: says when breaches of sources' contracts begin and end (topology/breach_records.py), and knows which last.

    the ticks of all raw partitions have passed T -> each source that promises something, judged up to T
        -> beginnings and ends since the turn before, of which a rule makes anything
        -> `sure`: what was known by T is counted -> those not said yet

What no rule names (`on: milepost.source_stale`) is not said: the log holds what somebody uses, and /v1/quality needs no
record.  A rule that is applied later finds the breaches of the week before it.

Who has the first partition of measure watches.  Nothing has to be kept: a breach follows from the log, and its record
from the breach, so whoever takes over looks a week back and says what `seen` does not hold.  Two watchers for a moment
say the same records, which count once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from milepost.agents.breathing import Read, answered
from milepost.agents.turns import for_ever
from milepost.agents.views.services import SendFailed
from milepost.schemas.errors import StoreError
from milepost.schemas.keys import raw_place
from milepost.topology import breaches
from milepost.topology.bases import FOREVER
from milepost.topology.breach_records import Kind, Turn, turns
from milepost.topology.parts import SeenRows
from milepost.topology.quality_questions import BACK_MS, judge
from milepost.topology.reading import Reader, Unavailable
from milepost.topology.state import Output
from milepost.topology.steps import Steps, gather

log = logging.getLogger("milepost.agents.watching")

PAUSE_S: Final = 5.0
"""How often sources are looked at, seconds."""
REST_S_MAX: Final = 1.0
SENT_MAX: Final = 1_000
"""Records that one turn sends at most; the next goes on where it stopped."""


class Watching:
    """The watcher of one worker.

    send:    appends to topics;  elected: whether this worker watches
    sure:    returns once all that was known by now is counted and decided; False: not yet, look again
    lasting: (organisation, source) -> the breaches that last, of all sources that promise something
    """

    def __init__(
        self,
        reader: Reader,
        read: Read,
        send: Callable[[Sequence[Output]], Awaitable[object]],
        elected: Callable[[], bool],
        sure: Callable[[], Awaitable[bool]],
    ) -> None:
        self.lasting: Mapping[tuple[str, str], Sequence[Kind]] = {}
        self._reader = reader
        self._read = read
        self._send = send
        self._elected = elected
        self._sure = sure
        self._told_ms: int | None = None  # everything up to then is said
        self._bundles = 0  # how many were applied by then

    async def run(self) -> None:
        """Watch for ever."""
        await for_ever(
            self.turn, log, "the watch over sources", pause_s=PAUSE_S, later=(Unavailable, StoreError, SendFailed)
        )

    async def turn(self) -> int:
        """Say what is new; answers how many records were sent.  Raises Unavailable, StoreError, SendFailed."""
        if not self._elected():
            self.lasting, self._told_ms = {}, None
            return 0
        until_ms = self._passed()
        if until_ms is None or (self._told_ms is not None and until_ms <= self._told_ms):
            return 0
        bundles = self._reader.decisions.applied
        after_ms = until_ms - BACK_MS if self._told_ms is None or bundles != self._bundles else self._told_ms
        lasting, found = await self._look(after_ms, until_ms)
        if found and self._unsaid(await self._seen(found), found):
            if not await self._sure():
                return 0
            lasting, found = await self._look(after_ms, until_ms)  # a copy of a misrouted record may have come
        unsaid = self._unsaid(await self._seen(found), found)[:SENT_MAX] if found else []
        if unsaid:
            await self._send([self._output(org, one) for org, one in unsaid])
            for org, one in unsaid:
                log.info("%s of %s: %s %s", one.source, org, one.kind, "begins" if one.holds else "ends")
        self.lasting = lasting
        if len(unsaid) < SENT_MAX:
            self._told_ms, self._bundles = until_ms, bundles
        return len(unsaid)

    def _passed(self) -> int | None:
        """The known time that every raw partition has passed; None: not all are heard of."""
        progress = self._reader.progress(0)
        if len(progress) < self._reader.partitions:
            return None
        return min(one.k_ms for one in progress.values()) - 1

    async def _look(
        self, after_ms: int, until_ms: int
    ) -> tuple[dict[tuple[str, str], Sequence[Kind]], list[tuple[str, Turn]]]:
        """What lasts at `until_ms`, and what began or ended since `after_ms`."""
        lasting: dict[tuple[str, str], Sequence[Kind]] = {}
        found: list[tuple[str, Turn]] = []
        for org, history in sorted(self._reader.decisions.history.items()):
            named = history[-1].catalog.rules_by_type
            for source in sorted({name for one in history for name in one.catalog.sources}):
                promised = breaches.phases(history, source)
                if not any(one.stop_ms > after_ms for one in promised):
                    continue
                began = time.perf_counter()
                steps = judge(
                    self._reader, (org, source), promised, until_ms, FOREVER, back_ms=max(1, until_ms - after_ms)
                )
                judged, _ = await answered(steps, self._read)
                if judged.phase is not None:
                    lasting[org, source] = breaches.lasting(judged.found)
                new = turns(source, judged.found, after_ms, until_ms)
                found += [(org, one) for one in new if one.type in named]
                await asyncio.sleep(min(REST_S_MAX, time.perf_counter() - began))
        return lasting, sorted(found, key=lambda one: (one[1], one[0]))

    async def _seen(self, found: Sequence[tuple[str, Turn]]) -> set[bytes]:
        """The raw keys, of those records, that are in the log already."""
        placed: dict[int, list[bytes]] = {}
        for org, one in found:
            key, partition = self._place(org, one)
            placed.setdefault(partition, []).append(key)

        def known() -> Steps[list[Any]]:
            parts = [SeenRows(partition=number, keys=tuple(some)) for number, some in placed.items()]
            return (yield from gather(self._reader, parts))

        rows, _ = await answered(known(), self._read)
        return {
            key
            for some, of in zip(placed.values(), rows, strict=True)
            for key, row in zip(some, of, strict=True)
            if row is not None
        }

    def _unsaid(self, seen: set[bytes], found: Sequence[tuple[str, Turn]]) -> list[tuple[str, Turn]]:
        return [(org, one) for org, one in found if self._place(org, one)[0] not in seen]

    def _place(self, org: str, one: Turn) -> tuple[bytes, int]:
        event = one.event(org)
        return raw_place(org, event["source"], event["id"], 0, 0, self._reader.partitions)

    def _output(self, org: str, one: Turn) -> Output:
        key, partition = self._place(org, one)
        return Output(topic="raw-events", partition=partition, key=key, value=orjson.dumps(one.event(org)))
