"""Key rows: the values of keys, for people to read, in ingest's store `keys`.

    event -> note (in the mark, a slice long) -> keep: leaf -> entity, key, value, label, source, first k

Of several arrivals the least (k, source) is kept, so the order of arrival does not show.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import orjson

from milepost.schemas.records import Event, Identified
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.state import Partition

REMEMBERED_MAX: Final = 200_000


def note(mark: IngestMark, k_ms: int, offset: int, event: Event, who: Identified) -> None:
    """What an event says of its keys, unless it is known to come too late to matter."""
    for key in who.keys:
        leaf = key.leaf
        least = mark.least_k.get(leaf)
        if least is None or least > k_ms:
            noted = mark.noted.get(leaf)
            if noted is None or (k_ms, event.source) < noted[:2]:
                mark.noted[leaf] = (k_ms, event.source, offset, event.org, key)


def keep(at: Partition, mark: IngestMark) -> None:
    """Put the rows of a slice's keys."""
    noted, mark.noted = mark.noted, {}
    if len(mark.least_k) + len(noted) >= REMEMBERED_MAX:
        mark.least_k.clear()
    leaves = list(noted)
    rows: dict[bytes, bytes] = {}
    least_k = mark.least_k
    for leaf, row in zip(leaves, at.stores["keys"].get_many(leaves), strict=True):
        k_ms, source, offset, org, key = noted[leaf]
        # Equal k of another source may still replace the row, so only k above the kept one is skipped.
        least_k[leaf] = k_ms + 1
        if row is not None:
            known = orjson.loads(row[8:])
            if (k_ms, source) >= (known["k"], known["source"]):
                least_k[leaf] = min(k_ms, known["k"]) + 1
                continue
        head, rest = _around(key.entity, key.kind, key.label, org, source)
        rows[leaf] = b"%b%b%d%b%b}" % (offset.to_bytes(8, "big"), head, k_ms, rest, orjson.dumps(key.value))
    at.stores["keys"].put_many(rows)


@lru_cache(maxsize=4096)
def _around(entity: str, kind: str, label: bool, org: str, source: str) -> tuple[bytes, bytes]:
    """What stands before and behind k in a row, a JSON object whose names are sorted; the value is its end."""
    rest = orjson.dumps({"key": kind, "label": label, "org": org, "source": source})
    return b'{"entity":' + orjson.dumps(entity) + b',"k":', b"," + rest[1:-1] + b',"value":'
