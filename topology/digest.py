"""The digest: SHA-256 over the sorted logical content of all tables, united over partitions.

Logical means: what follows from the set of records alone.  Offsets, `upto`, marks and origins are left out, member
numbers are written as leaves, of several partitions' values of one key the least known time counts.  Two engines
that took the same records in any order, in any chunks, over any number of partitions, have one digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import orjson

from milepost.schemas.record_change import NONE
from milepost.schemas.serde import wire
from milepost.topology.aggregates import Shape, decode
from milepost.topology.dedupe import unpack
from milepost.topology.reading import Reader
from milepost.topology.state import UPTO, Store
from milepost.topology.steps import Steps, gather, run

Rows = Iterator[tuple[bytes, bytes]]
Pair = tuple[bytes, bytes]
_ALL: Final = b"\xff" * 64
STEP_ROWS: Final = 500
PAGE_ROWS: Final = 2_000
PAGE_BYTES: Final = 4 * 1024 * 1024
TABLES: Final[Mapping[str, str]] = {
    "seen": "ingest", "keys": "ingest", "edges": "ingest",
    "facts": "measure", "cells": "measure", "days": "measure", "members": "measure", "named": "measure",
    "records": "record",
}  # fmt: skip
"""Table -> the leg that holds it."""


def digest(reader: Reader) -> dict[str, str]:
    """Table -> hex digest, and `total`.  Raises Unavailable when a partition is not here."""
    return run(digest_steps(reader))


def digest_steps(reader: Reader) -> Steps[dict[str, str]]:
    """The same in steps, so that a worker can answer others in between, and ask others for their partitions."""
    measures = [measure for catalog in reader.decisions.catalogs.values() for measure in catalog.measures]
    distinct = tuple(sorted({measure.version for measure in measures if measure.shape.distinct}))
    out: dict[str, str] = {}
    for name in sorted(TABLES):
        made = hashlib.sha256()
        last: bytes | None = None
        first = TableRows(partition=0, table=name, distinct=distinct, leg=TABLES[name])
        open_ = [_Pages(replace(first, partition=number)) for number in range(reader.partitions)]
        while True:
            empty = [one for one in open_ if not one.rows and one.more]
            for one, (rows, start) in zip(empty, (yield from gather(reader, [one.part for one in empty])), strict=True):
                one.filled(rows, start)
            open_ = [one for one in open_ if one.rows]
            if not open_:
                break
            # Up to the least of the pages' last keys everything is here: what lies in one partition only is most of it.
            until = min(one.rows[-1][0] for one in open_)
            merged = sorted(pair for one in open_ for pair in one.taken(until))
            pieces: list[bytes] = []
            for key, value in merged:
                # Of one key in several partitions the least value comes first, and only it counts.
                if key == last:
                    continue
                last = key
                pieces += (len(key).to_bytes(4, "big"), key, len(value).to_bytes(4, "big"), value)
            made.update(b"".join(pieces))
            yield None
        out[name] = made.hexdigest()
    total = hashlib.sha256("".join(f"{name} {out[name]}\n" for name in out).encode()).hexdigest()
    return {**out, "total": total}


class _Pages:
    """The rows of one partition's table, read page by page."""

    def __init__(self, part: TableRows) -> None:
        self.part = part
        self.rows: Sequence[Sequence[bytes]] = ()
        self.more = True

    def filled(self, rows: Sequence[Sequence[bytes]], start: bytes | None) -> None:
        self.rows, self.more = rows, start is not None
        if start is not None:
            self.part = replace(self.part, start=start)

    def taken(self, until: bytes) -> list[Pair]:
        """Take the rows up to and with `until`."""
        count = next((i for i, row in enumerate(self.rows) if row[0] > until), len(self.rows))
        taken, self.rows = self.rows[:count], self.rows[count:]
        return [(key, value) for key, value in taken]


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """A page of a table's logical content in one partition, in key order: (pairs, start of the next page).

    distinct: versions of the measures whose cells hold members
    """

    partition: int
    table: str
    distinct: tuple[bytes, ...]
    start: bytes = b""
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[list[Any]]:
        found: list[Pair] = []
        start, size = self.start, 0
        while True:
            stores = reader.stores(self.leg, self.partition)
            rows = list(islice(stores[self.table].scan(start, _ALL), STEP_ROWS))
            some = list(self._logical(stores, rows))
            found += some
            size += sum(len(key) + len(value) for key, value in some)
            if len(rows) < STEP_ROWS:
                return [found, None]
            start = rows[-1][0] + b"\x00"
            # A table that is passed over (numbers of members) has pages without rows; they are not sent as an end.
            if found and (len(found) >= PAGE_ROWS or size >= PAGE_BYTES):
                return [found, start]
            yield None

    def _logical(self, stores: Mapping[str, Store], rows: Sequence[Pair]) -> Rows:
        match self.table:
            case "seen":
                return _seen(rows)
            case "keys":
                return _keys(rows)
            case "edges":
                return _edges(rows)
            case "facts":
                return _facts(rows)
            case "members":
                return _members(rows)
            case "named":
                return _named(rows)
            case "records":
                return _changes(rows)
        return _cells(rows, frozenset(self.distinct), stores["members"])

    def pack(self, value: Any) -> Any:
        return value

    def unpack(self, data: Any) -> Any:
        return data


def _seen(rows: Sequence[Pair]) -> Rows:
    for key, row in rows:
        known = unpack(row)
        yield key, known.k_ms.to_bytes(8, "big", signed=True) + known.body


def _keys(rows: Sequence[Pair]) -> Rows:
    for key, row in rows:
        fields = orjson.loads(row[8:])
        # k first, so that the least of several partitions' rows is the one known first
        yield key, int(fields["k"]).to_bytes(8, "big", signed=True) + fields["source"].encode() + b"\0" + row[8:]


def _edges(rows: Sequence[Pair]) -> Rows:
    for key, row in rows:
        yield key, row[8:16]


def _facts(rows: Sequence[Pair]) -> Rows:
    for key, row in rows:
        fields = wire("Signals").decode(row[8:])
        names = ("org", "source", "id", "type", "t_ms", "k_ms", "revision", "repair", "void")
        told = [fields[name] for name in names]
        members = sorted([member["entity"], member["leaf"].hex()] for member in fields["members"])
        signals = [[s["rule"], s["version"].hex(), s["fields"].decode()] for s in fields["signals"]]
        yield key, orjson.dumps([told, members, signals])


_DISTINCT: Final = Shape(distinct=True)


def _cells(rows: Sequence[Pair], distinct: frozenset[bytes], members: Store) -> Rows:
    decoded = {key: list(decode(_DISTINCT, value)) for key, value in rows if key[:8] in distinct}
    numbers = sorted({one for cell in decoded.values() for _, row in cell for one in row.members or ()})
    named = members.get_many([b"N" + number.to_bytes(4, "big") for number in numbers]) if numbers else []
    leaves = {number: (row or b"")[UPTO:].hex() for number, row in zip(numbers, named, strict=True)}
    for key, value in rows:
        if key not in decoded:
            yield key, value[8:]
            continue
        buckets = [[end, row.n, sorted(leaves[one] for one in row.members or ())] for end, row in decoded[key]]
        yield key, orjson.dumps(buckets)


def _named(rows: Sequence[Pair]) -> Rows:
    for key, row in rows:
        yield key, row[8:]


def _changes(rows: Sequence[Pair]) -> Rows:
    """What is written.  Which changes `none` there are depends on the order of arrival, and no answer on that."""
    for key, row in rows:
        change = wire("RecordChange").decode(row[8:])
        if change["op"] != NONE:
            names = ("op", "t_ms", "k_ms", "org", "type", "id", "source", "event_id", "event_type")
            yield key, orjson.dumps([[change[name] for name in names], change["fields"].decode()])


def _members(rows: Sequence[Pair]) -> Rows:
    for key, _ in rows:
        if key[:1] == b"L":
            yield key[1:], b""
