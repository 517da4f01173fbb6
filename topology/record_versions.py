"""Record versions: what the changes of one record say of it, at a moment.

rows of the record -> of each event the highest version known by the moment -> by (event time, known time, event)
                   -> folded from the first to the last -> its versions, each with the value behind it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from milepost.schemas.record_change import NONE, RECORD_BYTES, RecordChange
from milepost.topology.panes import PANE_MS, bucket_end
from milepost.topology.reading import Reader
from milepost.topology.scans import pieces
from milepost.topology.state import UPTO
from milepost.topology.steps import Steps

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Changes that one part answers with: beyond that a page ends behind the piece of a thousand rows in hand."""


@dataclass(frozen=True, kw_only=True)
class RecordRows:
    """A page of the changes of a record as they were told: (changes, start of the next page)."""

    partition: int
    record: bytes
    start: bytes = b""
    leg: str = "record"

    def read(self, reader: Reader) -> Steps[list[Any]]:
        found: list[bytes] = []
        size, stop = 0, self.record + b"\xff" * (RECORD_BYTES + 9)
        for rows in pieces(reader.stores("record", self.partition)["records"], self.start or self.record, stop):
            found += [row[UPTO:] for _, row in rows]
            size += sum(len(row) for _, row in rows)
            if size >= PAGE_BYTES:
                return [found, rows[-1][0] + b"\x00"]
            yield None
            reader.stores("record", self.partition)  # still here
        return [found, None]

    def pack(self, value: Any) -> Any:
        return value

    def unpack(self, data: Any) -> Any:
        return data


class Version(NamedTuple):
    """A change of a record, and what the record is behind it.

    holds:    whether it is the highest version of its event that is known by the moment
    ended_ms: known time from which a higher version holds in its place; None: none does
    effect:   whether it did something: `create` does nothing to a record that is there; `update`, `patch` and `delete`
              do nothing where there is none
    value:    the record behind it; None: there is none
    """

    change: RecordChange
    holds: bool
    ended_ms: int | None
    effect: bool
    value: Mapping[str, Any] | None


def versions(changes: Iterable[RecordChange], known_until: int | None, before_ms: int | None) -> list[Version]:
    """The changes of a record that are known by a moment, in the order in which they happened.

    known_until: a change counts when its bucket of known time ends by then (quarter hours); None: all do
    before_ms:   events at or behind this time do not count; None: all do
    """
    told = list(changes)
    ranks: dict[bytes, dict[tuple[int, int], tuple[int, int]]] = {}  # event -> version -> (pane, known time)
    for one in told:
        of = ranks.setdefault(one.event, {})
        of[one.rank] = (one.t_ms // PANE_MS, one.k_ms)
        for other in one.higher:
            of.setdefault((other.revision, other.repair), (other.pane, other.k_ms))
    found: list[Version] = []
    value: Mapping[str, Any] | None = None
    for one in sorted(told, key=_order):
        of = ranks[one.event]
        if one.op == NONE or (before_ms is not None and one.t_ms >= before_ms):
            continue
        if not _known(*of[one.rank], known_until):
            continue
        above = [k_ms for rank, (pane, k_ms) in of.items() if rank > one.rank and _known(pane, k_ms, known_until)]
        after = value if above else _applied(value, one)
        found.append(Version(one, not above, min(above, default=None), not above and after is not value, after))
        value = after
    return found


def _known(pane: int, k_ms: int, until: int | None) -> bool:
    return until is None or bucket_end(pane, k_ms) <= until


def _order(change: RecordChange) -> tuple[int, int, bytes, tuple[int, int]]:
    """When it happened; of changes at one time the one known later counts, then the one of the greater event.

    The event and not its place in the log: places depend on the order of arrival."""
    return change.t_ms, change.k_ms, change.event, change.rank


def _applied(value: Mapping[str, Any] | None, change: RecordChange) -> Mapping[str, Any] | None:
    """The record after a change; the very same object where the change does nothing."""
    match change.op, value:
        case "upsert", _:
            return change.values
        case "create", None:
            return change.values
        case "update", dict():
            return change.values
        case "patch", dict():
            return {**value, **{name: one for name, one in change.values.items() if one is not None}}
        case "delete", dict():
            return None
        case _:
            return value
