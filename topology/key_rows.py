"""Key rows: the values of keys, for people to read, in ingest's store `keys`.

    event -> note (in the mark, a slice long) -> keep: leaf -> entity, key, value, label, source, first k

Of several arrivals the least (k, source) is kept, so the order of arrival does not show.
"""

from __future__ import annotations

from typing import Final

import orjson

from milepost.schemas.records import Event, Identified
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.state import Partition

REMEMBERED_MAX: Final = 200_000


def note(mark: IngestMark, k_ms: int, offset: int, event: Event, who: Identified) -> None:
    """What an event says of its keys, unless it is known to come too late to matter."""
    for key in who.keys:
        if mark.least_k.get(key.leaf, k_ms + 1) > k_ms:
            noted = mark.noted.get(key.leaf)
            if noted is None or (k_ms, event.source) < noted[:2]:
                mark.noted[key.leaf] = (k_ms, event.source, offset, event.org, key)


def keep(at: Partition, mark: IngestMark) -> None:
    """Put the rows of a slice's keys."""
    noted, mark.noted = mark.noted, {}
    if len(mark.least_k) + len(noted) >= REMEMBERED_MAX:
        mark.least_k.clear()
    leaves = list(noted)
    rows: dict[bytes, bytes] = {}
    for leaf, row in zip(leaves, at.stores["keys"].get_many(leaves), strict=True):
        k_ms, source, offset, org, key = noted[leaf]
        known = orjson.loads(row[8:]) if row is not None else None
        if known is None or (k_ms, source) < (known["k"], known["source"]):
            value = orjson.dumps(
                {"org": org, "entity": key.entity, "key": key.kind, "value": key.value, "label": key.label,
                 "source": source, "k": k_ms}, option=orjson.OPT_SORT_KEYS,
            )  # fmt: skip
            rows[leaf] = offset.to_bytes(8, "big") + value
        # Equal k of another source may still replace the row, so only k above the kept one is skipped.
        mark.least_k[leaf] = (k_ms if known is None else min(k_ms, known["k"])) + 1
    at.stores["keys"].put_many(rows)
