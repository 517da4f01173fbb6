"""Framed events: read by what their ids mean where they lie, and the same tables as without frames."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from milepost.schemas.errors import REASONS, ContractError
from milepost.schemas.framing import NO_TABLE, RegisteredSchema, event_fault, table_of
from milepost.schemas.keys import raw_place
from milepost.schemas.serde import wire
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, land, new_partition
from tests.support import framed
from tests.support.framed import ID, LIST, NARROW, SCHEMAS, TICK, UNKNOWN, WIDER
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit
from tests.support.versus import oracle_over

NOW = T0 + DAY


def send(made: Driver, event: Mapping[str, Any], value: bytes, now_ms: int, *, astray: int = 0) -> int:
    """Append bytes where the event belongs, or so many partitions beside it; answers the offset."""
    key, partition = raw_place(
        event["org"], event["source"], event["id"], event.get("revision", 0), event.get("repair", 0), made.partitions
    )
    return made.append("raw-events", (partition + astray) % made.partitions, key, value, (), now_ms)


def events(count: int, seed: int) -> list[tuple[dict[str, Any], int]]:
    """(event, how far astray): repeats, conflicts, amendments and voids among them."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        event = visit(
            f"e{chance.randrange(count // 2)}", T0 + chance.randrange(24) * HOUR, str(chance.randrange(3)), minutes=1.5
        )
        event |= {"revision": chance.choice((0, 0, 0, 1)), "void": number % 11 == 0}
        made.append((event, chance.choice((0, 0, 1, 2))))
    return made


def run(sent: Sequence[tuple[dict[str, Any], int]], how: Any, *, chunk: int, partitions: int = 3) -> Driver:
    made = Driver(SECRET, partitions=partitions, chunk=chunk)
    made.apply(ORG, FILES, NOW)
    made.register(framed.registered(*SCHEMAS), NOW)
    for number, (event, astray) in enumerate(sent):
        send(made, event, how(number, event), NOW + number, astray=astray)
        if number % 10 == 9:
            made.run()  # what is forwarded and appended again lies among what comes
    made.run()
    return made


@pytest.mark.parametrize("seed", range(4))
def test_frames_change_nothing(seed: int) -> None:
    """The same events framed, under either schema, and in single-object encoding: equal tables and equal fates, with
    repeats, conflicts and records astray, in any chunks."""
    sent = events(120, seed)
    for chunk in (1, 50):
        plain = run(sent, lambda _, event: framed.plain(event), chunk=chunk)
        made = run(sent, lambda n, event: framed.frame(event, (ID, WIDER)[n % 2]), chunk=chunk)
        assert digest(made.reader) == digest(plain.reader)
        assert made.fates == plain.fates
        assert made.fates["ingest"]["misrouted"] and made.fates["ingest"]["copy"]


def test_what_the_engine_writes_to_the_raw_log_has_no_frame() -> None:
    """Forwarded and appended again, an event is in single-object encoding: no table is needed to know our stamp."""
    made = run(events(80, 9), lambda _, event: framed.frame(event), chunk=5)
    ours = [
        one for log in made.topics["raw-events"] for one in log if one.headers and not one.key.startswith(b"marker")
    ]
    assert len(ours) > 10
    assert all(one.value[:10] == wire("RawEvent").header for one in ours)


def test_an_id_means_what_the_log_knows_where_the_record_lies() -> None:
    """Before the table a frame is no event; before its id is in the table its schema is unknown; behind, it is read.
    What was a dead letter stays one when the log is folded again by who knows everything, and its resend counts."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    send(made, visit("e0", T0), framed.frame(visit("e0", T0)), NOW)
    made.register(framed.registered(ID), NOW)
    send(made, visit("e1", T0), framed.frame(visit("e1", T0)), NOW)
    send(made, visit("e2", T0), framed.frame(visit("e2", T0), WIDER), NOW)
    made.register(framed.registered(WIDER), NOW)
    for id in ("e2", "e0"):
        send(made, visit(id, T0), framed.frame(visit(id, T0), WIDER), NOW)
    made.run()
    assert [(one["offset"], one["reason"]) for one in made.dead_letters] == [
        (1, "not_decodable"),
        (4, "unknown_schema"),
    ]
    assert made.fates["ingest"]["accepted"] == 3

    again = Driver(SECRET, partitions=1, chunk=1)
    again.topics["definitions"], again.topics["raw-events"] = made.topics["definitions"], made.topics["raw-events"]
    again.follow()
    again.run()
    assert digest(again.reader) == digest(made.reader)
    assert [one["reason"] for one in again.dead_letters] == ["not_decodable", "unknown_schema"]


def test_a_cleaned_log_of_framed_events_is_folded_again() -> None:
    """The cleaner has left the engine's copies: they say where the first records lay, without a table."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    made.register(framed.registered(ID), NOW)
    for n, number in enumerate((0, 1, 0, 1, 2)):
        event = visit(f"e{number}", T0 + number * HOUR)
        send(made, event, framed.frame(event), NOW + n)
    made.run()
    wanted = digest(made.reader)
    log = made.topics["raw-events"][0]
    last = {message.key: message.offset for message in log}
    cleaned = [message for message in log if last[message.key] == message.offset]
    assert len(cleaned) < len(log)
    ingest = made.legs["ingest"]
    at = made.state["ingest", 0] = new_partition("ingest", ingest, 0)
    ingest.announce(at, cleaned)
    for output in ingest.fold(at, cleaned).before:
        made.append(output.topic, output.partition, output.key, output.value, output.headers)
    for store in at.stores.values():
        land(store)
    made.run()
    assert digest(made.reader) == wanted


def test_a_marker_is_waited_for_until_its_table_is_read() -> None:
    """A worker that is behind in `definitions` does not pass a marker; a mark that was loaded finds its table again."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, NOW)
    made.register(framed.registered(ID), NOW)
    event = visit("e0", T0)
    send(made, event, framed.frame(event), NOW)
    log = made.topics["raw-events"][0]
    ingest, table = made.legs["ingest"], made.decisions.tables.popitem()
    assert ingest.ready(log) == 1
    made.decisions.tables[table[0]] = table[1]
    assert ingest.ready(log) == len(log)
    at = made.state["ingest", 0]
    ingest.fold(at, log[:2])
    at.mark = ingest.load_mark(ingest.dump_mark(at.mark))
    assert ingest.fold(at, log[2:]).fates["accepted"] == 1


def test_thirty_bad_frames_are_dead_letters_with_a_reason() -> None:
    """Each ends alone, with its reason, and what comes behind it is taken; the oracle says the same of each."""
    made = Driver(SECRET, partitions=1)
    named = made.apply(ORG, FILES, NOW)
    table = made.register(framed.registered(*SCHEMAS), NOW)
    wanted: dict[int, str] = {}
    for number, (name, value, reason) in enumerate(framed.bad(visit("bad", T0))):
        wanted[made.append("raw-events", 0, name.encode(), value, (), NOW)] = reason
        good = visit(f"good{number}", T0)
        send(made, good, framed.frame(good), NOW)
    assert len(wanted) >= 30
    made.run()
    assert {one["offset"]: one["reason"] for one in made.dead_letters} == wanted
    assert set(wanted.values()) <= REASONS and made.fates["ingest"]["accepted"] == len(wanted)
    oracle = oracle_over(made, SECRET, {named: FILES}, {table.id: {id: dict(one) for id, one in SCHEMAS.items()}})
    assert {one.offset: one.reason for one in oracle.reading.dead_letters} == wanted


def test_garbage_behind_a_frame_never_ends_the_line() -> None:
    """Ten thousand frames of random bodies under known ids: each is an event or a dead letter."""
    chance = random.Random(5)
    table = NO_TABLE.joined(framed.registered(*SCHEMAS))
    good = framed.frame(visit("e", T0))
    ends = Counter[str]()
    for _ in range(10_000):
        id = chance.choice((ID, WIDER, TICK, LIST, UNKNOWN))
        body = bytearray(good[5:])
        for _ in range(chance.randrange(4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            table.plain(b"\0" + id.to_bytes(4, "big") + bytes(body[: chance.randrange(len(body) + 1)]))
            ends["plain"] += 1
        except ContractError as error:
            ends[error.reason] += 1
    assert ends.keys() == {"plain", "not_decodable", "unknown_schema"}


@pytest.mark.parametrize(
    ("id", "why"), [(ID, ""), (WIDER, ""), (TICK, "named Tick"), (LIST, "nothings is not of a simple type"), (NARROW, "time is missing")]
)  # fmt: skip
def test_which_schemas_stand_for_an_event(id: int, why: str) -> None:
    """Those that hold the fields of RawEvent, and beside them fields of simple types."""
    (one,) = framed.registered(id)
    assert why in event_fault(one.text) if why else not event_fault(one.text)


def test_a_serializers_remarks_do_not_count() -> None:
    """Java's serializers write a text type as an object with a remark: the same schema."""
    text = framed.registered(ID)[0].text.replace('"string"', '{"type": "string", "avro.java.string": "String"}')
    table = NO_TABLE.joined([RegisteredSchema(id=ID, subject="s", version=1, text=text)])
    assert table.plain(framed.frame(visit("e", T0))) == framed.plain(visit("e", T0))


def test_an_id_never_means_two_things() -> None:
    """The same id for another schema is refused: it is another registry than the log knows."""
    table = NO_TABLE.joined(framed.registered(ID, WIDER))
    assert table.joined(framed.registered(WIDER)).id == table.id
    other = RegisteredSchema(id=ID, subject="raw-events-value", version=2, text=framed.registered(TICK)[0].text)
    with pytest.raises(ContractError, match=rf"schema {ID} is raw-events-value version 2 in the registry"):
        table.joined([other])
    many = [RegisteredSchema(id=n, subject="s", version=n, text="{}") for n in range(1001)]
    with pytest.raises(ContractError, match="at most 1000"):
        NO_TABLE.joined(many)


def test_a_table_is_named_by_what_it_holds() -> None:
    """Read from its record it is the same table, whatever the record calls it."""
    table = NO_TABLE.joined(framed.registered(ID, WIDER))
    told = [one.as_fields() for one in table.schemas.values()]
    read = table_of(
        wire("Registered").decode(wire("Registered").encode({"table": b"x" * 8, "attempt": "a", "schemas": told}))
    )
    assert read.id == table.id != NO_TABLE.id and read.schemas == table.schemas
