"""Imports: the demo's events into the raw log, backdated, shuffled, some of them twice.

    event -> raw key, partition -> sealed `milepost-first` (kind b, k) -> the log

The import is part of the engine and backdates: each event carries a stamp that says when the log learned of it.  How
far an earlier import came is not noted anywhere: the raw log is read, and says which events it holds.  So a second
start sends nothing, an import that was cut short is completed, and a log that was lost is filled again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from milepost.ops.broker import Say
from milepost.ops.flights import ORG, REPEATS, Events, import_order
from milepost.ops.reader import partition_count, plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.keys import checked_secret, org_key, raw_place
from milepost.schemas.stamps import Stamp

SEED: Final = 2013
RAW_KEY_BYTES: Final = 16
"""Length of an event's key; markers and ticks have keys of other lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: events in the data, those that the log held before, and messages sent (with repeats)."""

    events: int
    held: int
    sent: int
    seconds: float


def import_flights(
    settings: Settings,
    events: Events,
    *,
    seed: int = SEED,
    repeats: float = REPEATS,
    say: Say,
    check: Callable[[], None] = lambda: None,
) -> Imported:
    """Send the events that the raw log does not hold yet, shuffled, a share of them twice; returns when acknowledged.

    The closing ones are sent once all others are acknowledged: what they say of a source holds for what lies before.
    check: called every two seconds; what it raises ends the import.
    """
    begun = time.monotonic()
    partitions = partition_count(settings, "raw-events")
    first_closing = len(events) - events.closing
    order = import_order(first_closing, seed=seed, repeats=repeats)
    order.extend(range(first_closing, len(events)))
    held = held_events(settings, events, partitions, say)
    if held:
        order = type(order)(order.typecode, (number for number in order if not held[number]))
    already = sum(held)
    if not order:
        say("the log holds the whole import: nothing is sent")
        return Imported(events=len(events), held=already, sent=0, seconds=time.monotonic() - begun)
    if already:
        say(f"{already:,} events are in the log, the other {len(events) - already:,} are sent")
    topic, sealing = settings.topic("raw-events"), org_key(checked_secret(settings.secret()), ORG)
    told = begun
    with Sender(settings.bootstrap) as sender:
        for count, number in enumerate(order):
            if number >= first_closing:
                sender.flush()
            event = events[number]
            key, partition = raw_place(ORG, event.source, event.id, 0, 0, partitions)
            value = event.body()
            stamp = Stamp(kind=stamps.BACKDATED, k_ms=event.k_ms)
            sender.send(topic, partition, key, value, (stamps.header(sealing, key, value, stamp),))
            if count % 2000 == 0 and time.monotonic() - told > 2:
                told = time.monotonic()
                say(f"import: {count:,} of {len(order):,} sent ({100 * count // len(order)} %)")
                check()
    seconds = time.monotonic() - begun
    say(f"import: {len(order):,} messages acknowledged in {seconds:.1f} s")
    return Imported(events=len(events), held=already, sent=len(order), seconds=seconds)


def held_events(settings: Settings, events: Events, partitions: int, say: Say) -> bytearray:
    """For each of `events` 1 if the raw log holds it; empty when the log is empty."""
    keys: set[bytes] = set()
    consumer = plain_consumer(settings.bootstrap)
    told = time.monotonic()
    try:
        for message in read_to_end(consumer, settings.topic("raw-events"), partitions):
            key = message.key()
            if key is not None and len(key) == RAW_KEY_BYTES:
                keys.add(key)
                if len(keys) % 20_000 == 0 and time.monotonic() - told > 2:
                    told = time.monotonic()
                    say(f"reading what the log holds: {len(keys):,} events")
    finally:
        consumer.close()
    if not keys:
        return bytearray()
    held = bytearray(len(events))
    for number in range(len(events)):
        key = raw_place(ORG, *events.identity(number), 0, 0, partitions)[0]
        if key in keys:
            held[number] = 1
            keys.discard(key)
    if keys:
        say(f"the log also holds {len(keys):,} events that are not of this data; --fresh starts without them")
    return held
