"""Rebuilding: an ingest without state folds a cleaned log again, beside a measure that has seen it all."""

from __future__ import annotations

from milepost.schemas.serde import wire
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, Message, land, new_partition
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + DAY


def test_an_event_told_again_from_its_copy_counts_once() -> None:
    """The cleaner has left the engine's copy of the first record; its signal has another origin and changes nothing."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    for number in (0, 1, 0):  # the repeat is owed the first record again, behind everything else
        made.produce(visit(f"e{number}", T0 + number * HOUR), NOW + number)
    made.run()
    wanted = digest(made.reader)
    log = made.topics["raw-events"][0]
    last = {message.key: message.offset for message in log}
    cleaned = [message for message in log if last[message.key] == message.offset]
    assert len(cleaned) < len(log)

    ingest = made.legs["ingest"]
    at = made.state["ingest", 0] = new_partition("ingest", ingest, 0)
    ingest.announce(at, cleaned)
    told = ingest.fold(at, cleaned)
    for store in at.stores.values():
        land(store)
    before = len(made.topics["signals"][0])
    for output in told.before:
        made.append(output.topic, output.partition, output.key, output.value, output.headers)
    assert len(made.topics["signals"][0]) > before
    made.run()
    assert digest(made.reader) == wanted


def test_a_forwarded_event_that_came_out_of_turn_is_still_to_be_taken() -> None:
    """A message behind a gap leaves its fact at a restore; sent again in turn, it counts, wherever it lay first."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    made.produce(visit("e0", T0), NOW)
    made.produce(visit("e1", T0 + HOUR), NOW + 1)
    made.run()
    first, second = (wire("Signals").decode(message.value or b"") for message in made.topics["signals"][0])
    second["first_partition"], second["first_offset"] = 7, 77
    messages = [
        Message(offset, NOW, b"key", wire("Signals").encode(told))
        for offset, told in enumerate((second, first, second))
    ]
    measure = made.legs["measure"]
    at = new_partition("measure", measure, 0)
    assert measure.fold(at, messages[:1]).fates["gap"] == 1
    for _, key, value in measure.from_source(messages[:1]):
        at.stores["facts"].put(key, value)
    assert measure.fold(at, messages[1:]).fates["taken"] == 2


def test_a_revision_told_again_before_the_copy_of_what_it_replaces() -> None:
    """The cleaner has left a void before the copy of its event.  An ingest without state tells the void first; a measure
    without state has heard of the event, and of the void only out of turn: the event does not count."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    first = visit("e0", T0)
    for number, event in enumerate((first, visit("e1", T0 + HOUR), {**first, "revision": 1, "void": True}, first)):
        made.produce(event, NOW + number)
    made.run()
    wanted = digest(made.reader)
    log = made.topics["raw-events"][0]
    last = {message.key: message.offset for message in log}
    cleaned = [message for message in log if last[message.key] == message.offset]

    ingest = made.legs["ingest"]
    at = made.state["ingest", 0] = new_partition("ingest", ingest, 0)
    ingest.announce(at, cleaned)
    told = [output for output in ingest.fold(at, cleaned).before if output.topic == "signals"]
    assert len(told) == 3
    # What is told again stands in the place of what was: of the event between the two only that is left.
    ids = [wire("Signals").decode(message.value or b"")["id"] for message in made.topics["signals"][0][:3]]
    assert ids == ["e0", "e1", "e0"]
    heard = [made.topics["signals"][0][number].value for number in (0, 2)] + [output.value for output in told]
    messages = [Message(offset, NOW, b"key", value) for offset, value in enumerate(heard)]
    for chunk in (1, len(messages)):
        measure = made.legs["measure"]
        again = made.state["measure", 0] = new_partition("measure", measure, 0)
        for start in range(0, len(messages), chunk):
            measure.fold(again, messages[start : start + chunk])
        assert digest(made.reader) == wanted
