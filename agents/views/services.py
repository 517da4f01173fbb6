"""Services: what the views need of the worker that serves them.  `agents/app.py` gives it a running body."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from milepost.agents.peers import Refused, Sealer
from milepost.ops.access import Book
from milepost.ops.settings import Settings
from milepost.ops.telemetry import Observed
from milepost.topology.problems import Problems
from milepost.topology.reading import Reader
from milepost.topology.recognitions import Recognition
from milepost.topology.state import Output, Record
from milepost.topology.steps import Got, Part


class SendFailed(Exception):
    """The broker did not acknowledge what was to be sent: 503, and the sender sends again (ids make that harmless)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What decides whether the worker is ready.

    restoring:      partitions that are being restored or handed over, as `measure/3`
    decisions:      whether the decision topics have been read to the end they had at the start
    stalled:        why partitions cannot go on (a full disk), a sentence each
    ingest_lag_ms:  age of the oldest raw record that is not taken yet; None: not known
    left_out:       what of the bundles in force does not hold in this release; no reason not to be ready
    """

    restoring: Sequence[str] = ()
    decisions: bool = True
    stalled: Sequence[str] = ()
    ingest_lag_ms: int | None = None
    left_out: Sequence[str] = ()


class Services(Protocol):
    """The worker, as the views see it.  Times in ms since the epoch."""

    @property
    def settings(self) -> Settings: ...

    @property
    def reader(self) -> Reader: ...

    @property
    def sealer(self) -> Sealer: ...

    @property
    def book(self) -> Book:
        """The tokens that open the doors."""
        ...

    async def note(self, change: Mapping[str, Any]) -> None:
        """Append a line (the fields of the contract Change) to the audit, acknowledged.  Raises SendFailed."""
        ...

    @property
    def patience_s(self) -> float:
        """How long a question waits for a partition that is being handed over, seconds."""
        ...

    @property
    def landings(self) -> int:
        """How many checkpoints and decisions of others this worker has taken: while it stays, no answer changes that is
        made of its own partitions alone, but by what is folded and has not landed yet."""
        ...

    def now_ms(self) -> int: ...

    async def gather(self, parts: Sequence[Part], stale_ms: int | None = None) -> Sequence[Got]:
        """What each part holds, read wherever its partition is.  Raises Unavailable."""
        ...

    async def here(self, parts: Sequence[Part], stale_ms: int | None) -> Sequence[Got | Refused]:
        """What this worker itself has of each part."""
        ...

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        """Append to topics (named as in the line) and wait for the broker's acknowledgement: the offsets, in order.

        Raises SendFailed."""
        ...

    async def raw(self, partition: int, offset: int) -> Record | None:
        """The record at a position of the raw log; None: there is none, or compaction has removed it."""
        ...

    async def letters(self, partition: int, offset: int) -> Sequence[Mapping[str, Any]]:
        """The dead letters of a position of the raw log, among the newest."""
        ...

    async def recognitions(self, companies: Collection[bytes]) -> Sequence[Recognition]:
        """What was said of milestones of companies (root leaves, then or now), in the order of its known time."""
        ...

    async def problems(self) -> Problems:
        """The dead letters of all partitions as problems, and what was done about them, as of now."""
        ...

    async def raw_records(self, places: Sequence[int]) -> Sequence[tuple[int, bytes | None]]:
        """The bytes of records of the raw log by their places (topology/problems.py), of the first some of them; None:
        compaction has removed it."""
        ...

    def topology(self) -> Mapping[str, Any]:
        """The line as this worker has it bound: topics, legs, stores, agents."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Fates by leg, lag and positions by partition, what is restored; what a reader of /v1/status should see."""
        ...

    def observed(self) -> Observed:
        """What telemetry tells of the worker at a scrape."""
        ...

    def health(self) -> Health: ...
