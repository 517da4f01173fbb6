"""Outcomes: what became of a receipt.

receipt -> taken by ingest and measure? -> its record in the raw log, its row in `seen`, its dead letters, its signals

accepted     it is the first of its id and revision; with its signals, and the rules that failed
duplicate    another record came first under its id and revision (`first` says which)
dead_letter  it broke its contract; with the reason
misrouted    it lay under a key or in a partition of its own choice, and was forwarded
unknown      the log holds no record there any more (compaction keeps the first), or none of an event
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer, found, hidden, included
from milepost.schemas import keys
from milepost.schemas.keys import raw_key, raw_place
from milepost.schemas.records import Envelope
from milepost.topology import bases, decode, dedupe, receipts
from milepost.topology.parts import SeenRows
from milepost.topology.receipts import Receipt, SignalsOf
from milepost.topology.steps import Steps, gather

LETTER_TRIES: Final = 8
LETTER_PAUSE_S: Final = 0.2
"""A dead letter is sent when its record is folded and acknowledged with the checkpoint: it may come a moment later."""


async def outcome(doors: Doors, asking: Asking) -> web.Response:
    """What became of a receipt; waits like `after=`."""
    services = doors.services
    one = receipts.receipt(f"raw-events/{asking.path['position']}", services.reader.partitions)
    await included(doors, str(one), None)
    record = await services.raw(one.partition, one.offset)
    envelope = (
        None if record is None or record.value is None else decode.read(record.value, services.reader.decisions.table)
    )
    if hidden(asking, envelope.org if isinstance(envelope, Envelope) else None):
        return answer({"receipt": str(one), "outcome": "unknown", "failed_rules": []})
    told: dict[str, Any] = {"outcome": "unknown"}
    if record is not None and isinstance(envelope, Envelope):
        key, place = _place(envelope, services.reader.partitions)
        if (record.key, one.partition) != (key, place):
            told = {"outcome": "misrouted"}
        else:
            raw = hashlib.blake2b(record.value or b"", digest_size=8).digest()
            told = await found(doors, asking, lambda: _judged(doors, one, envelope, key, raw))
    none = told["outcome"] in ("accepted", "misrouted") or told.pop("same_bytes", False)
    letters = await _letters(doors, one, none=none)
    whole = next((letter for letter in letters if not letter["rule"]), None)
    if whole is not None:
        told = {"outcome": "dead_letter", "reason": whole["reason"], "stage": whole["stage"], "detail": whole["detail"]}
    failed = [{name: letter[name] for name in ("rule", "reason", "detail")} for letter in letters if letter["rule"]]
    return answer({"receipt": str(one), **told, "failed_rules": failed})


def _place(envelope: Envelope, partitions: int) -> tuple[bytes, int]:
    return raw_place(envelope.org, envelope.source, envelope.id, envelope.revision, envelope.repair, partitions)


def _judged(doors: Doors, one: Receipt, envelope: Envelope, key: bytes, raw: bytes) -> Steps[dict[str, Any]]:
    """What `seen` says of a record that lies in its place, and the signals it led to."""
    reader = doors.services.reader
    ((row,),) = yield from gather(reader, [SeenRows(partition=one.partition, keys=(key,))])
    known = None if row is None else dedupe.unpack(row)
    if known is None or known.taken == dedupe.ANNOUNCED:
        return {"outcome": "unknown"}
    first = Receipt(partition=known.partition, offset=known.offset)
    if one.offset not in (known.taken, known.at) and first != one:
        return {"outcome": "duplicate", "first": str(first), "same_bytes": known.raw == raw}
    event = raw_key(envelope.org, envelope.source, envelope.id)
    parts = [
        SignalsOf(
            partition=number, half=known.leaf, pane=known.pane, event=event, revision=envelope.revision,
            repair=envelope.repair,
        )
        for number in range(reader.partitions)
    ]  # fmt: skip
    lies = next((told for told in (yield from gather(reader, parts)) if told is not None), None)
    signals: Sequence[Any] = () if lies is None else lies[1]
    return {
        "outcome": "accepted",
        "first": str(first),
        "known": bases.written(known.k_ms),
        "leaf": None if lies is None else keys.metakey(lies[0]),
        "signals": [
            {"rule": rule, "version": version.hex(), "fields": msgspec.json.decode(fields)}
            for rule, version, fields in signals
        ],
    }


async def _letters(doors: Doors, one: Receipt, *, none: bool) -> Sequence[Mapping[str, Any]]:
    """The dead letters of a record.  none: there may well be none, so they are not waited for."""
    for number in range(LETTER_TRIES):
        letters = await doors.services.letters(one.partition, one.offset)
        if letters or none:
            return letters
        if number + 1 < LETTER_TRIES:
            await asyncio.sleep(LETTER_PAUSE_S)
    return ()
