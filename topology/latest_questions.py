"""Latest questions: the signals of a company, the newest event first, page by page.

company -> its leaves, and the stays of persons with it -> of each partition the newest facts that count -> a page
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.asked import organisation
from milepost.topology.bases import FOREVER, Moment, written
from milepost.topology.companies import Companies
from milepost.topology.graph import Components
from milepost.topology.latest import FACTS_MAX, ORDER_BYTES, LatestSignals, newest
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refusals import BadParameter
from milepost.topology.steps import Steps, gather

PLACES_A_PART: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsAsked:
    """What is asked: a company, a moment, from which event time on (ms), behind which place, how many events."""

    company: str
    now_ms: int
    org: str | None = None
    at_ms: int | None = None
    basis: str | None = None
    from_ms: int | None = None
    behind: str | None = None
    limit: int = 100


def latest(reader: Reader, asks: SignalsAsked) -> Steps[dict[str, Any]]:
    """`{org, company, at, basis, signals: [...], limited, next}`.  Raises QuestionError, Unavailable."""
    before = _place(asks.behind)
    moment = bases.moment(asks.basis, asks.at_ms, asks.now_ms)
    org = organisation(reader, asks.org)
    components = yield from reader.decisions.components(org, moment.decided_at)
    companies = Companies(reader, org, reader.decisions.history[org][-1].catalog.key_rank)
    root = components.root((yield from companies.leaf(asks.company)))
    first = 0 if asks.from_ms is None else max(0, asks.from_ms // PANE_MS)
    parts = [
        LatestSignals(
            partition=number,
            places=tuple(some[at : at + PLACES_A_PART]),
            until=FOREVER if moment.known_until is None else max(moment.known_until, 0),
            before=before,
            take=asks.limit + 1,
        )
        for number, some in sorted(_places(reader, org, components, root, moment, first).items())
        for at in range(0, len(some), PLACES_A_PART)
    ]
    told = yield from gather(reader, parts)
    page = newest([one for _, some in told for one in some], asks.limit + 1)
    shown = [one for one in page[: asks.limit] if asks.from_ms is None or one.t_ms >= asks.from_ms]
    names = yield from companies.rows({one.leaf for one in shown})
    more = len(shown) == asks.limit < len(page)
    return {
        "org": org,
        "company": keys.metakey(root),
        "at": written(moment.at_ms),
        "basis": moment.basis,
        "signals": [
            {
                "time": written(one.t_ms),
                "known": written(one.k_ms),
                "source": one.source,
                "id": one.id,
                "type": one.type,
                "revision": one.revision,
                "repair": one.repair,
                "position": f"raw-events/{one.partition}@{one.offset}",
                "key": None if (row := names.get(one.leaf)) is None else f"{row.kind}:{row.value}",
                "signals": [
                    {"name": name, "version": version.hex(), "fields": orjson.loads(fields)}
                    for name, version, fields in one.signals
                ],
            }
            for one in shown
        ],
        "limited": None if all(whole for whole, _ in told) else f"more than {FACTS_MAX} events were gone through",
        "next": page[asks.limit - 1].order.hex() if more else None,
    }


def _places(
    reader: Reader, org: str, components: Components, root: bytes, moment: Moment, first: int
) -> dict[int, list[tuple[bytes, int, int]]]:
    """Partition -> the (leaf, start, stop) in it whose events are the company's."""
    leaves = components.leaves(root)
    stays = reader.decisions.memberships(org).stays(leaves, components, moment.decided_at)
    found: dict[int, list[tuple[bytes, int, int]]] = {}
    for leaf, start, stop in [
        *((one, 0, FOREVER) for one in leaves),
        *((one.leaf, one.start, one.stop) for one in stays),
    ]:
        start, stop = max(start, first), min(stop, moment.bound)
        if start < stop:
            found.setdefault(keys.leaf_partition(leaf, reader.partitions), []).append((leaf, start, stop))
    return found


def _place(text: str | None) -> bytes:
    try:
        found = bytes.fromhex(text or "")
    except ValueError:
        found = b"?"
    if len(found) not in (0, ORDER_BYTES):
        raise BadParameter("next is the value of next in the answer before")
    return found
