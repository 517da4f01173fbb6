"""Ingest's mark: what it carries from record to record in one partition, and how that is written with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from milepost.schemas.framing import Table
from milepost.schemas.records import Key

if TYPE_CHECKING:
    from milepost.topology.quality import Note


class _Mark(msgspec.Struct, kw_only=True):
    """Ingest's mark as it is written: see `IngestMark`."""

    k_ms: int
    prev: list[int]
    bundles: dict[str, bytes]
    progress: list[tuple[str, str, int, int]]
    record_prev: list[int] = []


_dump = msgspec.msgpack.Encoder().encode
_load = msgspec.msgpack.Decoder(_Mark).decode


@dataclass(slots=True)
class IngestMark:
    """What ingest carries from record to record in one partition.

    k_ms:     the largest known time so far: a clock step cannot move the past
    prev:     per signals partition the origin last sent there; -1: none
    bundles:  organisation -> bundle in force behind the last marker; "" -> the table of registered schemas (framing.py)
    record_prev: the same of `record-changes`, the number of the change included
    progress: (org, source) -> [largest event time, last known time], for the ticks
    least_k:  leaf -> least k written to `keys` (a memory of the store, bounded; not part of the mark)
    noted:    leaf -> (k, source, offset, org, key) of the slice in hand; empty between slices
    heard:    (org and source, bucket end, pane, offset) of events that may be steps (heard.py); empty between slices
    counted:  what is counted of records of sources that promise something (quality.py); empty between slices
    behind:   day of known time -> raw offset of what became known of it later (behind.py); empty between slices
    amends:   whether `amended` holds anything; None: not looked yet (a memory of the store)
    table:    that table; None where there is none, or it was not looked up yet (not part of the mark)
    """

    prev: list[int]
    record_prev: list[int]
    k_ms: int = 0
    bundles: dict[str, bytes] = field(default_factory=dict)
    progress: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    least_k: dict[bytes, int] = field(default_factory=dict)
    noted: dict[bytes, tuple[int, str, int, str, Key]] = field(default_factory=dict)
    heard: list[tuple[tuple[str, str], int, int, int]] = field(default_factory=list)
    counted: list[Note] = field(default_factory=list)
    behind: dict[int, int] = field(default_factory=dict)
    amends: bool | None = None
    table: Table | None = None

    @property
    def reached(self) -> Mapping[int, int]:
        """Signals partition -> the raw offset last sent there; behind those, each partition of `record-changes` that
        anything was sent to -> the origin last sent there."""
        found = dict(enumerate(self.prev))
        found.update((len(self.prev) + i, origin) for i, origin in enumerate(self.record_prev) if origin >= 0)
        return found


def load(data: bytes) -> IngestMark:
    mark = _load(data)
    progress = {(org, source): [t, k] for org, source, t, k in mark.progress}
    record_prev = mark.record_prev or [-1] * len(mark.prev)  # a mark of a release without records has none
    return IngestMark(prev=mark.prev, record_prev=record_prev, k_ms=mark.k_ms, bundles=mark.bundles, progress=progress)


def dump(mark: IngestMark) -> bytes:
    progress = [(org, source, t, k) for (org, source), (t, k) in sorted(mark.progress.items())]
    written = _Mark(
        k_ms=mark.k_ms, prev=mark.prev, bundles=mark.bundles, progress=progress, record_prev=mark.record_prev
    )
    return _dump(written)
