"""Quarantine: records that the line passes over, because it was decided so and the decision stands in the log.

    crash after crash with one record in hand (agents/suspicion.py) -> Verdict -> a record of the same partition
    replay -> the verdicts are read before the log is folded        -> the same records are passed over

A verdict names a record by its key, a digest of its bytes and the offset from which it holds: the record itself, and
the same bytes sent again later.  It carries our stamp (kind `q`): nobody else can silence a record.  Verdicts are state
too (the store `poison`), so a worker that restores knows them without reading the log again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from milepost.schemas import stamps
from milepost.schemas.errors import REASONS, ContractError, Reason, StoreError
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.state import Output, Partition, Record

STORE: Final = "poison"
VERDICTS_MAX: Final = 10_000
"""Verdicts of one partition, which are held in memory.  More are not passed: somebody floods the topic."""
STAGE: Final = "quarantine"
"""The stage that dead letters of passed-over records name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A record that is passed over from `offset` on.  reason, detail: what its dead letter says."""

    offset: int
    key: bytes
    digest: bytes
    reason: Reason
    detail: str

    def dump(self) -> bytes:
        return wire("Verdict").encode(
            {
                "offset": self.offset,
                "key": self.key,
                "digest": self.digest,
                "reason": self.reason,
                "detail": self.detail,
            }
        )

    @classmethod
    def load(cls, data: bytes) -> Verdict:
        """ContractError when the bytes are no verdict."""
        fields = wire("Verdict").decode(data)
        if fields["reason"] not in REASONS:
            raise ContractError("not_decodable", "a verdict names a reason that is none")
        return cls(**fields)

    def covers(self, record: Record) -> bool:
        """Whether it holds for `record`.  Empty values say too little: there only the offset counts."""
        if record.offset <= self.offset or not record.value:
            return record.offset == self.offset
        return digest(record) == self.digest


class Judged:
    """What every leg does with verdicts.

    reads:    the topic they stand in
    org_keys: "" -> the key they are sealed with; without it none is believed
    """

    reads: str
    org_keys: Mapping[str, bytes]

    def rewind(self, mark: object, records: Sequence[Record]) -> None:
        """A leg that folds a record twice alike has nothing to do."""

    def repeats(self, at: Partition, record: Record) -> bool:
        """Whether these very bytes were folded before, so that they change nothing.  Most legs cannot say."""
        return False

    def heard(self, record: Record) -> Verdict | None:
        """The verdict that `record` holds, if it is one and ours."""
        stamp = stamps.find(record.headers) if record.headers else None
        if stamp is None or stamp[:1] != stamps.VERDICT or (key := self._key()) is None:
            return None
        if stamps.verified(key, record.key, record.value, stamp) is None:
            return None
        try:
            return Verdict.load(record.value or b"")
        except ContractError:
            return None  # ours, and of a release that wrote it otherwise: it holds for nothing that we could name

    def take_verdict(self, at: Partition, record: Record) -> bool:
        """Whether `record` is a verdict; then it holds from here on."""
        if (found := self.heard(record)) is not None:
            remember(at, found, record.offset)
        return found is not None

    def sentence(self, at: Partition, found: Verdict) -> Output:
        """The record that says it in the log.  Its key is the place: said twice it is one record, never removed."""
        key, value = b"verdict" + found.offset.to_bytes(8, "big"), found.dump()
        org_key = self._key()
        assert org_key is not None, "a worker has the deployment's secret"
        header = stamps.header(org_key, key, value, Stamp(kind=stamps.VERDICT))
        return Output(topic=self.reads, partition=at.number, key=key, value=value, headers=(header,))

    def _key(self) -> bytes | None:
        try:
            return self.org_keys[""]  # made on demand by `OrgKeys`, so it cannot be asked for with `in`
        except KeyError:
            return None


def verdict(record: Record, reason: Reason, detail: str) -> Verdict:
    return Verdict(offset=record.offset, key=record.key or b"", digest=digest(record), reason=reason, detail=detail)


def digest(record: Record) -> bytes:
    return hashlib.blake2b(record.value or b"", digest_size=16, person=b"milepost-verdict").digest()


def remember(at: Partition, found: Verdict, upto: int) -> None:
    """Take a verdict into the partition's state; a second time changes nothing."""
    if sum(map(len, at.poison.values())) >= VERDICTS_MAX:
        raise StoreError(
            f"partition {at.number} has {VERDICTS_MAX} verdicts on records that are passed over; "
            f"fix: see who writes them, offset {found.offset} is the next"
        )
    key = found.offset.to_bytes(8, "big")
    if at.stores[STORE].get(key) is None:
        at.stores[STORE].put(key, upto.to_bytes(8, "big") + found.dump())
    _index(at, found)


def load(at: Partition) -> None:
    """Fill `at.poison` from the store, when a partition is opened."""
    if STORE in at.stores:
        for _, row in at.stores[STORE].scan(b"", b"\xff" * 9):
            _index(at, Verdict.load(row[8:]))


def condemned(at: Partition, record: Record) -> Verdict | None:
    """The verdict that holds for `record`, if there is one."""
    for found in at.poison.get(record.key or b"", ()):
        if found.covers(record):
            return found
    return None


def clear(at: Partition, records: Sequence[Record]) -> int:
    """How many of `records` come before the first that is to be passed over."""
    return next((i for i, record in enumerate(records) if condemned(at, record) is not None), len(records))


def without(at: Partition, records: Iterable[Record]) -> Sequence[Record]:
    """`records` without those that are passed over."""
    return [record for record in records if condemned(at, record) is None]


def origin(record: Record) -> tuple[int, int, int] | None:
    """(raw partition, raw offset, prev) of a message on `signals`, or None when it is none."""
    try:
        fields = wire("Signals").decode(record.value or b"")
    except ContractError:
        return None
    return fields["raw_partition"], fields["raw_offset"], fields["prev"]


def _index(at: Partition, found: Verdict) -> None:
    known = at.poison.get(found.key, ())
    if found not in known:
        at.poison[found.key] = (*known, found)
