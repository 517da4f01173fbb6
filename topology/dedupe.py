"""Dedupe: the first record of a raw key counts, whatever comes later, without a horizon.

    absent in `seen`                        -> FIRST
    the very record that was taken as first -> FIRST (the same once more, after a crash: same record, same result)
    the engine's own copy of it             -> COPY  (what is owed to the log has been paid)
    another with an equal body              -> REPEAT
    another with another body               -> CONFLICT

A log that is folded from its beginning may have lost a first record to compaction and kept a repeat before the copy.
So the copies are announced before: a record of an announced key that is not the first is a repeat of what comes.

After a repeat or a conflict the log would end with another record than the first, so the first is appended again once
the checkpoint is committed (design §3).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from milepost.schemas import stamps
from milepost.schemas.stamps import Stamp

ANNOUNCED: Final = -1

_SEEN = struct.Struct(">Qqiqqq8s8s8s8sI")


class Verdict(Enum):
    FIRST = "first"
    COPY = "copy"
    REPEAT = "repeat"
    CONFLICT = "conflict"


class Seen(NamedTuple):
    """What is known of a raw key.

    upto:             offset that last changed this row
    k_ms:             known time of the first record
    partition,offset: its first position
    taken:            offset in this partition at which it was taken as first; ANNOUNCED: it is still to come
    at:               latest offset in this partition where a good copy of it lies
    body:             hash of its canonical form;  raw: hash of its bytes;  bundle: definitions in force
    leaf:             the first half of the leaf it lies under;  pane: the pane it lies in (both for its revisions)
    """

    upto: int
    k_ms: int
    partition: int
    offset: int
    taken: int
    at: int
    body: bytes
    raw: bytes
    bundle: bytes
    leaf: bytes
    pane: int

    def pack(self) -> bytes:
        return _SEEN.pack(*self)

    def stamp(self) -> Stamp:
        """What `milepost-first` says on the record that is appended again."""
        return Stamp(
            kind=stamps.AGAIN, k_ms=self.k_ms, partition=self.partition, offset=self.offset, bundle=self.bundle
        )


def unpack(row: bytes) -> Seen:
    return Seen._make(_SEEN.unpack(row))


def taken_row(
    k_ms: int, partition: int, offset: int, taken: int, body: bytes, value: bytes, bundle: bytes, leaf: bytes, pane: int
) -> bytes:
    """The row of a key whose first record, first at (partition, offset), is taken at `taken`, where it lies."""
    return _SEEN.pack(
        taken, k_ms, partition, offset, taken, taken, body, raw_hash(value), bundle, leaf, pane
    )  # fmt: skip


def raw_hash(value: bytes) -> bytes:
    """What `Seen.raw` holds of a record's bytes."""
    return hashlib.blake2b(value, digest_size=8).digest()


def judge(known: Seen | None, partition: int, offset: int, at: int, body: bytes) -> Verdict:
    """What a record is, whose first position is (partition, offset) and that lies at `at` in this partition."""
    if known is None or known.taken == at:
        return Verdict.FIRST
    if known.partition == partition and known.offset == offset:
        return Verdict.COPY
    return Verdict.REPEAT if known.body == body else Verdict.CONFLICT


def copies(known: Seen, headers: Sequence[tuple[str, bytes]], raw: bytes) -> bool:
    """Whether a record with these headers and this hash of its bytes is the engine's own copy of the first one."""
    stamp = stamps.find(headers) if headers else None
    return stamp is not None and stamp[:1] == stamps.AGAIN and raw == known.raw
