"""The digest: SHA-256 over the sorted logical content of all tables, united over partitions.

Logical means: what follows from the set of records alone.  Offsets, `upto`, marks and origins are left out, member
numbers are written as leaves, of several partitions' values of one key the least known time counts.  Two engines
that took the same records in any order, in any chunks, over any number of partitions, have one digest.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from milepost.schemas.serde import wire
from milepost.topology.aggregates import Shape, decode
from milepost.topology.dedupe import unpack
from milepost.topology.reading import Reader
from milepost.topology.scans import Steps, run
from milepost.topology.state import Store

Rows = Iterator[tuple[bytes, bytes]]
_ALL: Final = b"\xff" * 64
STEP_ROWS: Final = 1_000


def digest(reader: Reader) -> dict[str, str]:
    """Table -> hex digest, and `total`.  Raises Unavailable when a partition is not here."""
    return run(digest_steps(reader))


def digest_steps(reader: Reader) -> Steps[dict[str, str]]:
    """The same in steps of 1,000 rows, so that a worker can answer others in between."""
    shapes = {
        measure.version: measure.shape for catalog in reader.decisions.catalogs.values() for measure in catalog.measures
    }
    parts: dict[str, list[Rows]] = {}
    for number in range(reader.partitions):
        ingest, measure = reader.stores("ingest", number), reader.stores("measure", number)
        leaves = _leaf_of(measure["members"])
        for name, rows in (
            ("seen", _seen(ingest["seen"])),
            ("keys", _keys(ingest["keys"])),
            ("edges", _edges(ingest["edges"])),
            ("facts", _facts(measure["facts"])),
            ("cells", _cells(measure["cells"], shapes, leaves)),
            ("days", _cells(measure["days"], shapes, leaves)),
            ("members", _members(measure["members"])),
            ("named", _named(measure["named"])),
        ):
            parts.setdefault(name, []).append(rows)
    out: dict[str, str] = {}
    for name in sorted(parts):
        made = hashlib.sha256()
        last: bytes | None = None
        pieces: list[bytes] = []
        # Merged as pairs: of one key in several partitions the least value comes first, and only it counts.
        for key, value in heapq.merge(*parts[name]):
            if key == last:
                continue
            last = key
            pieces += (len(key).to_bytes(4, "big"), key, len(value).to_bytes(4, "big"), value)
            if len(pieces) >= 4 * STEP_ROWS:
                made.update(b"".join(pieces))
                pieces.clear()
                yield
        made.update(b"".join(pieces))
        out[name] = made.hexdigest()
    total = hashlib.sha256("".join(f"{name} {out[name]}\n" for name in out).encode()).hexdigest()
    return {**out, "total": total}


def _seen(store: Store) -> Rows:
    for key, row in store.scan(b"", _ALL):
        known = unpack(row)
        yield key, known.k_ms.to_bytes(8, "big", signed=True) + known.body


def _keys(store: Store) -> Rows:
    for key, row in store.scan(b"", _ALL):
        fields = orjson.loads(row[8:])
        # k first, so that the least of several partitions' rows is the one known first
        yield key, int(fields["k"]).to_bytes(8, "big", signed=True) + fields["source"].encode() + b"\0" + row[8:]


def _edges(store: Store) -> Rows:
    for key, row in store.scan(b"", _ALL):
        yield key, row[8:16]


def _facts(store: Store) -> Rows:
    for key, row in store.scan(b"", _ALL):
        fields = wire("Signals").decode(row[8:])
        told = [fields["org"], fields["source"], fields["id"], fields["type"], fields["t_ms"], fields["k_ms"]]
        members = sorted([member["entity"], member["leaf"].hex()] for member in fields["members"])
        signals = [[s["rule"], s["version"].hex(), s["fields"].decode()] for s in fields["signals"]]
        yield key, orjson.dumps([told, members, signals])


def _leaf_of(store: Store) -> Mapping[int, bytes]:
    return {int.from_bytes(key[1:], "big"): row[8:] for key, row in store.scan(b"N", b"O")}


def _cells(store: Store, shapes: Mapping[bytes, Shape], leaves: Mapping[int, bytes]) -> Rows:
    for key, value in store.scan(b"", _ALL):
        shape = shapes[key[:8]]
        if not shape.distinct:
            yield key, value[8:]
            continue
        rows = [
            [end, row.n, sorted(leaves[number].hex() for number in row.members or ())]
            for end, row in decode(shape, value)
        ]
        yield key, orjson.dumps(rows)


def _named(store: Store) -> Rows:
    for key, row in store.scan(b"", _ALL):
        yield key, row[8:]


def _members(store: Store) -> Rows:
    for key, _ in store.scan(b"L", b"M"):
        yield key[1:], b""
