"""Record change: the contract `RecordChange` as a typed value, and the key of a record.

A change is told once by each version of an event that writes a record, and by each that no longer does (op `none`).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

import msgspec

from milepost.schemas.errors import ContractError
from milepost.schemas.keys import lp
from milepost.schemas.serde import HEADER_BYTES, wire

RECORD_BYTES: Final = 16
NONE: Final = "none"
OPS: Final = frozenset({"upsert", "create", "update", "patch", "delete", NONE})
CHANGES_BITS: Final = 20
"""An event has less than 2^20 changes: at most a thousand versions, each with at most a write a type of record."""
T_MS_MAX: Final = 2**32 * 15 * 60_000
"""Panes are numbered in 32 bits."""

_object = msgspec.json.Decoder(dict[str, Any]).decode


class Higher(NamedTuple):
    """A higher version of an event, accepted before."""

    revision: int
    repair: int
    pane: int
    k_ms: int


class RecordChange(NamedTuple):
    """What one version of an event does to one record: the contract's fields, `fields` still as JSON."""

    record: bytes
    event: bytes
    revision: int
    repair: int
    op: str
    fields: bytes
    t_ms: int
    k_ms: int
    higher: tuple[Higher, ...]
    org: str
    type: str
    id: str
    version: bytes
    source: str
    event_id: str
    event_type: str
    raw_partition: int
    origin: int
    prev: int

    @property
    def rank(self) -> tuple[int, int]:
        return self.revision, self.repair

    @property
    def values(self) -> dict[str, Any]:
        """What is written, by field."""
        return _object(self.fields)


def record_key(org: str, type: str, id: str) -> bytes:
    """The key of a record: BLAKE2b-128 of its length-prefixed organisation, type and id."""
    parts = lp(org.encode()) + lp(type.encode()) + lp(id.encode())
    return hashlib.blake2b(parts, digest_size=RECORD_BYTES, person=b"milepost-record").digest()


def write(change: RecordChange) -> bytes:
    """The bytes of a change."""
    fields = change._asdict()
    fields["higher"] = [one._asdict() for one in change.higher]
    return wire("RecordChange").encode(fields)


def read(value: bytes | None) -> RecordChange | None:
    """The change in `value`, or None when it is none, or says what ingest could not have said."""
    if value is None or value[:HEADER_BYTES] != wire("RecordChange").header:
        return None
    try:
        found = wire("RecordChange").decode(value)
        found["higher"] = tuple(Higher(**one) for one in found["higher"])
        change = RecordChange(**found)
        sound = change.op in OPS and change.values is not None
    except (ContractError, msgspec.DecodeError, RecursionError):
        return None
    numbers = (change.revision, change.repair, change.raw_partition, change.origin, change.prev + 1)
    higher = all(0 <= one.pane < 2**32 and one.revision >= 0 <= one.repair for one in change.higher)
    return change if sound and higher and 0 <= change.t_ms < T_MS_MAX and min(numbers) >= 0 else None
