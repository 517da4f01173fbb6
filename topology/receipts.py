"""Receipts: whether what a receipt stands for is in the answers (read your writes).

    raw-events/3@1288 -> ingest 3 has passed 1288? -> what it had sent by then -> measure, record have taken all of it?

Ingest's mark says, for each signals partition, which raw offset it last sent there; measure's mark, for each raw
partition, which it last took.  Signals of one raw partition are taken in order, so once measure has taken what ingest
had last sent when it was first seen beyond the receipt, the receipt's signals are in its cells; changes of records are
taken by the leg record, the same way.  An event that leads to nothing (a repeat, a dead letter, no rule) is included as
soon as ingest has passed it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from milepost.schemas import keys
from milepost.schemas.serde import wire
from milepost.topology import metrics
from milepost.topology.reading import Reader
from milepost.topology.refusals import BadParameter
from milepost.topology.scans import after
from milepost.topology.state import UPTO
from milepost.topology.steps import Steps, gather

_RECEIPT: Final = re.compile(r"raw-events/([0-9]{1,6})@([0-9]{1,18})")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The position of a record in the raw log."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"raw-events/{self.partition}@{self.offset}"


def receipt(text: str, partitions: int) -> Receipt:
    """The receipt that a text is.  Raises BadParameter."""
    found = _RECEIPT.fullmatch(text)
    if found is None or int(found[1]) >= partitions:
        raise BadParameter(
            f"{text[:64]!r} is no receipt of this deployment", fix="raw-events/PARTITION@OFFSET, as raw-events/3@1288"
        )
    return Receipt(partition=int(found[1]), offset=int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Reached:
    """(next offset, partition -> origin last sent there) of ingest; of the others the second is raw partition ->
    origin last taken."""

    partition: int
    leg: str

    def read(self, reader: Reader) -> Steps[tuple[int, dict[int, int]]]:
        yield from ()
        next_offset, others = reader.reached(self.leg, self.partition)
        return next_offset, dict(others)

    def pack(self, value: tuple[int, Mapping[int, int]]) -> Any:
        return [value[0], [[number, offset] for number, offset in value[1].items()]]

    def unpack(self, data: Any) -> tuple[int, dict[int, int]]:
        return data[0], dict(data[1])


def sent(reader: Reader, one: Receipt) -> Steps[dict[int, int] | None]:
    """Partition -> the origin that measure must have taken there; behind the partitions of `signals` those of
    `record-changes`, for the leg record.  None: ingest has not come so far."""
    ((next_offset, last),) = yield from gather(reader, [Reached(partition=one.partition, leg="ingest")])
    if next_offset <= one.offset:
        return None
    return {number: offset for number, offset in last.items() if offset >= 0}


def taken(reader: Reader, one: Receipt, needed: Mapping[int, int]) -> Steps[bool]:
    """Whether measure and record have taken all of that."""
    count = reader.partitions
    got = yield from gather(
        reader,
        [Reached(partition=number % count, leg="measure" if number < count else "record") for number in needed],
    )
    return all(
        origins.get(one.partition, -1) >= offset for (_, origins), offset in zip(got, needed.values(), strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class SignalsOf:
    """(company leaf, [rule, version, fields as JSON] of each signal) of an accepted event; None: none lies here.

    half: the first half of the leaf that it lies under, all that `seen` knows of it
    """

    partition: int
    half: bytes
    pane: int
    event: bytes
    revision: int
    repair: int
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[list[Any] | None]:
        facts = reader.stores("measure", self.partition)["facts"]
        at = self.half
        while True:
            found = next(facts.scan(at, after(self.half)), None)
            if found is None:
                return None
            leaf = found[0][: keys.LEAF_BYTES]
            row = facts.get(metrics.fact_key(leaf, self.pane, self.event, self.revision, self.repair))
            if row is not None:
                told = wire("Signals").decode(row[UPTO:])
                return [leaf, [[one["rule"], one["version"], one["fields"]] for one in told["signals"]]]
            at = after(leaf)
            yield None

    def pack(self, value: Any) -> Any:
        return value

    def unpack(self, data: Any) -> Any:
        return data
