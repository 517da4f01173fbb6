"""Records in the oracle: what a record was at a moment, from all events that ever wrote it.

Of each event the version counts that is the highest of those known by the moment; what those say of the record is done
to it one after the other, by event time, then known time, then the event's key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.oracle import clock
from tests.oracle.log import Event, Wrote

Entry = tuple[int, int, str, int, str, dict[str, Any] | None]
"""(event time, known time, event's id, revision, operation, the record behind it)."""


def history(
    events: Iterable[Event], org: str, record: str, id: str, basis: str = "latest", at_ms: int | None = None
) -> list[Entry]:
    """What was done to a record, in order, as of a moment."""
    until = None if at_ms is None else clock.floor(at_ms)
    versions: dict[bytes, list[Event]] = {}
    for event in events:
        shown = basis != "as_shown" or clock.bucket_end(event.t_ms, event.k_ms) <= (until or 0)
        if event.org == org and shown:
            versions.setdefault(event.key, []).append(event)
    holding = [max(of, key=lambda one: one.rank) for of in versions.values()]
    if until is not None:
        holding = [one for one in holding if one.t_ms < until]
    entries: list[Entry] = []
    value: dict[str, Any] | None = None
    for event in sorted(holding, key=lambda one: (one.t_ms, one.k_ms, one.key)):
        for wrote in event.writes:
            if (wrote.record, wrote.id) == (record, id):
                value = _done(value, wrote)
                entries.append((event.t_ms, event.k_ms, event.id, event.rank[0], wrote.op, value))
    return entries


def value(
    events: Iterable[Event], org: str, record: str, id: str, basis: str = "latest", at_ms: int | None = None
) -> dict[str, Any] | None:
    """A record at a moment; None: there is none."""
    entries = history(events, org, record, id, basis, at_ms)
    return entries[-1][-1] if entries else None


def _done(before: dict[str, Any] | None, wrote: Wrote) -> dict[str, Any] | None:
    if wrote.op == "upsert":
        return dict(wrote.fields)
    if wrote.op == "delete":
        return None
    if wrote.op == "create":
        return dict(wrote.fields) if before is None else before
    if before is None:  # update and patch do nothing where there is no record
        return None
    if wrote.op == "update":
        return dict(wrote.fields)
    return before | {name: one for name, one in wrote.fields.items() if one is not None}
