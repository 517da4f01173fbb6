"""Ingest: what becomes of a record, worked by hand through the driver."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from milepost.schemas import stamps
from milepost.schemas.keys import raw_place
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.driver import Driver, Message, new_partition
from milepost.topology.ingest import Ingest
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + DAY


def driver(**options: Any) -> Driver:
    made = Driver(SECRET, **options)
    made.apply(ORG, FILES, NOW)
    made.run()
    return made


def signals_of(made: Driver) -> list[dict[str, Any]]:
    header = wire("Signals").header
    return [
        wire("Signals").decode(m.value)
        for log in made.topics["signals"]
        for m in log
        if m.value and m.value[:10] == header
    ]


def reasons(made: Driver) -> list[str]:
    return sorted(letter["reason"] for letter in made.dead_letters)


def test_a_repeat_changes_nothing() -> None:
    """However often an event arrives, there is one message on signals, and the log ends with the first record again."""
    made = driver()
    event = visit("e1", T0)
    for i in range(3):
        partition, _ = made.produce(event, NOW + i)
    made.run()
    assert made.fates["ingest"]["accepted"] == 1 and made.fates["ingest"]["duplicate"] == 2
    assert len(signals_of(made)) == 1
    last = [m for m in made.topics["raw-events"][partition] if m.key == raw_place(ORG, "app", "e1", 0, 0, 4)[0]][-1]
    stamp = stamps.verified(made.org_keys[ORG], last.key, last.value, last.headers[0][1])
    assert stamp is not None and stamp.kind == stamps.AGAIN and stamp.k_ms == NOW
    assert not list(made.state["ingest", partition].stores["owed"].scan(b"", b"\xff" * 20))


def test_volatile_fields_do_not_make_a_conflict() -> None:
    """Two bodies that differ in a volatile field are the same event; the log keeps the first one's bytes."""
    made = driver()
    made.produce(visit("e1", T0, sent_at="10:00"), NOW)
    partition, _ = made.produce(visit("e1", T0, sent_at="10:05"), NOW + 1)
    made.run()
    assert made.fates["ingest"]["duplicate"] == 1 and not made.dead_letters
    last = made.topics["raw-events"][partition][-1]
    assert orjson.loads(last.value or b"")["data"]["sent_at"] == "10:00"


def test_another_body_under_one_id_is_a_conflict() -> None:
    """Of two bodies of one id the first counts; the second is a dead letter, and the first ends the log."""
    made = driver()
    made.produce(visit("e1", T0, minutes=5.0), NOW)
    partition, _ = made.produce(visit("e1", T0, minutes=6.0), NOW + 1)
    made.run()
    assert reasons(made) == ["id_conflict"]
    assert orjson.loads(made.topics["raw-events"][partition][-1].value or b"")["data"]["minutes"] == 5.0


def test_a_first_that_broke_its_contract_does_not_bar_a_resend() -> None:
    """An event that ended as a dead letter may be sent again, repaired, and then counts."""
    made = driver()
    made.produce(visit("e1", T0, minutes="many"), NOW)
    made.produce(visit("e1", T0, minutes=5.0), NOW + 1)
    made.run()
    assert reasons(made) == ["contract_violation"] and made.fates["ingest"]["accepted"] == 1


def test_a_bad_body_under_a_known_id_does_not_end_the_log() -> None:
    """When garbage comes under the key of an accepted event, the event's first record is appended again."""
    made = driver()
    partition, _ = made.produce(visit("e1", T0), NOW)
    made.append("raw-events", partition, raw_place(ORG, "app", "e1", 0, 0, 4)[0], b"\x00garbage", (), NOW + 1)
    made.run()
    assert reasons(made) == ["not_decodable"]
    assert orjson.loads(made.topics["raw-events"][partition][-1].value or b"")["id"] == "e1"


def test_a_misrouted_record_is_forwarded_once_with_its_first_stamp() -> None:
    """A record in the wrong partition counts where it belongs, with the known time and position of its first arrival."""
    made = driver()
    event = visit("e1", T0)
    key, place = raw_place(ORG, "app", "e1", 0, 0, 4)
    wrong = (place + 1) % 4
    made.append("raw-events", wrong, b"any key", orjson.dumps(event), (), NOW + 5)
    made.run()
    assert made.fates["ingest"]["misrouted"] == 1 and made.fates["ingest"]["accepted"] == 1
    [message] = signals_of(made)
    assert (message["k_ms"], message["first_partition"], message["first_offset"]) == (NOW + 5, wrong, 1)
    assert message["raw_partition"] == place and made.topics["raw-events"][place][-1].key == key


def test_a_foreign_tombstone_is_answered_by_the_first_record() -> None:
    """A tombstone that the engine did not write is counted, and the record it would remove is appended again."""
    made = driver()
    partition, _ = made.produce(visit("e1", T0), NOW)
    key = raw_place(ORG, "app", "e1", 0, 0, 4)[0]
    made.append("raw-events", partition, key, None, (), NOW + 1)
    made.append("raw-events", partition, b"unknown", None, (), NOW + 1)
    made.run()
    assert made.fates["ingest"]["foreign_tombstone"] == 2
    assert made.topics["raw-events"][partition][-1].key == key and made.topics["raw-events"][partition][-1].value


def test_a_clock_step_does_not_move_the_past() -> None:
    """Known time never goes back within a partition, whatever the broker's clock says."""
    made = driver(partitions=1)
    made.produce(visit("e1", T0), NOW + HOUR)
    made.produce(visit("e2", T0), NOW - HOUR)
    made.run()
    assert [message["k_ms"] for message in signals_of(made)] == [NOW + HOUR, NOW + HOUR]


def test_a_backdated_record_neither_obeys_nor_moves_the_maximum() -> None:
    """An import's known time is its header's, and live records around it keep theirs."""
    made = driver(partitions=1)
    made.produce(visit("e1", T0), NOW)
    made.produce(visit("e2", T0), NOW, known_ms=T0 + 5)
    made.produce(visit("e3", T0), NOW, known_ms=NOW + 10 * DAY)
    made.produce(visit("e4", T0), NOW + 1)
    made.run()
    assert [message["k_ms"] for message in signals_of(made)] == [NOW, T0 + 5, NOW + 10 * DAY, NOW + 1]


def test_a_forged_stamp_is_ignored() -> None:
    """A header without a right MAC says nothing: the record is known when it arrived, and it is counted."""
    made = driver(partitions=1)
    event = visit("e1", T0)
    key, _ = raw_place(ORG, "app", "e1", 0, 0, 1)
    forged = (stamps.HEADER, Stamp(kind=stamps.BACKDATED, k_ms=T0).pack() + bytes(16))
    made.append("raw-events", 0, key, orjson.dumps(event), (forged,), NOW + 7)
    made.run()
    [message] = signals_of(made)
    assert message["k_ms"] == NOW + 7 and made.fates["ingest"]["bad_stamp"] == 1


def test_definitions_hold_from_their_marker_on() -> None:
    """An event before the marker is judged by the old rules, one behind it by the new ones, in every partition."""
    made = driver()
    made.produce(visit("e1", T0, minutes=10.0), NOW)
    changed = {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"data.minutes > 30.0", b"data.minutes > 5.0")}
    made.apply(ORG, changed, NOW + 1)
    made.produce(visit("e2", T0, minutes=10.0), NOW + 2)
    made.run()
    found = {message["id"]: [signal["rule"] for signal in message["signals"]] for message in signals_of(made)}
    assert found == {"e1": ["visited"], "e2": ["visited", "long_visit"]}


def test_a_copy_keeps_the_definitions_of_its_first_position() -> None:
    """A misrouted record is judged by the definitions of its first position, though its copy lies behind a marker."""
    made = driver(chunk=1, seed=3)
    event = visit("e1", T0, minutes=10.0)
    _, place = raw_place(ORG, "app", "e1", 0, 0, 4)
    made.append("raw-events", (place + 1) % 4, b"any", orjson.dumps(event), (), NOW)
    changed = {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"data.minutes > 30.0", b"data.minutes > 5.0")}
    made.apply(ORG, changed, NOW + 1)
    made.run()
    [message] = signals_of(made)
    assert [signal["rule"] for signal in message["signals"]] == ["visited"]


def test_two_company_keys_propose_a_link() -> None:
    """An event that carries two company keys lies under the first of them and proposes that they are one company."""
    made = driver()
    made.produce(visit("e1", T0, company="1", domain="one.example"), NOW)
    made.run()
    [link] = [wire("Link").decode(m.value) for m in made.topics["identity-links"][0] if m.value]
    assert {link["key_a"], link["key_b"]} == {"crm_id", "domain"} and link["k_ms"] == NOW
    [message] = signals_of(made)
    first = made.decisions.graph(ORG).at(None).root(message["leaf"])
    assert first == message["leaf"], "crm_id ranks above domain, so its leaf is the root"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "nowhere"}, "unknown_source"),
        ({"type": "nothing"}, "unknown_type"),
        ({"time": "2013-02-30T00:00:00Z"}, "contract_violation"),
        ({"time": "2013-02-01T00:00:60Z"}, "contract_violation"),
        ({"time": "2013-02-01T00:00:00"}, "contract_violation"),
        ({"time": "1969-12-31T23:59:59Z"}, "contract_violation"),
        ({"time": "1700000000"}, "contract_violation"),
        ({"time": "9999-12-31T23:59:59Z"}, "future_event"),
        ({"revision": -1}, "contract_violation"),
        ({"data": {"company": ""}}, "missing_key"),
        ({"data": {}}, "contract_violation"),
        ({"data": {"company": "1", "minutes": 1e31}}, None),
    ],
)
def test_every_breach_has_its_reason(change: dict[str, Any], reason: str | None) -> None:
    """An event that breaks its contract becomes one dead letter with the reason of the closed list."""
    made = driver()
    made.produce({**visit("e1", T0), **change}, NOW)
    made.run()
    if reason is None:
        assert reasons(made) == ["out_of_range"] and made.fates["ingest"]["accepted"] == 1
    else:
        assert reasons(made) == [reason] and "accepted" not in made.fates["ingest"]


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b'{"org":"acme"}', b"\xff\xfe{\x00}\x00", b"\xc3\x01" + bytes(20),
     b'{"org":"acme","source":"app","id":"\\ud800","type":"visit","time":"2013-01-01T00:00:00Z","data":{}}',
     b'{"org":"acme","source":"app","id":"x","type":"visit","time":"2013-01-01T00:00:00Z","data":{"company":"1","minutes":NaN}}',
     b'{"org":"acme","source":"app","id":"x","type":"visit","time":"2013-01-01T00:00:00Z","data":{"company":"1","minutes":1e400}}',
     b'{"org":"acme","source":"app","id":"x","type":"visit","time":"2013-01-01T00:00:00Z","data":' + b'{"a":' * 100 + b"1" + b"}" * 101],
)  # fmt: skip
def test_any_bytes_end_as_one_dead_letter(value: bytes) -> None:
    """Whatever bytes lie in the log, the line answers with one dead letter and goes on."""
    made = driver()
    made.append("raw-events", 1, b"k", value, (), NOW)
    made.produce(visit("e1", T0), NOW)
    made.run()
    assert len(made.dead_letters) == 1 and made.fates["ingest"]["accepted"] == 1


def test_garbage_on_signals_is_a_dead_letter() -> None:
    """Bytes on signals that are not ours are never taken and never stop measure."""
    made = driver()
    made.append("signals", 2, b"k", b"garbage", (), NOW)
    made.append("signals", 2, b"k", None, (), NOW)
    made.produce(visit("e1", T0), NOW)
    made.run()
    assert reasons(made) == ["not_decodable", "not_decodable"] and made.fates["measure"]["taken"] == 1


@pytest.mark.parametrize(
    "change",
    [{"t_ms": -1}, {"t_ms": 2**60}, {"fields": b"no json"}, {"fields": b"[1]"}, {"fields": b'{"minutes": 1e300}'}],
)
def test_a_forged_message_on_signals_does_not_stop_measure(change: dict[str, Any]) -> None:
    """A message that has our contract and says what ingest never would is a dead letter, or counts for nothing."""
    made = driver(partitions=1)
    made.produce(visit("e1", T0), NOW)
    made.run()
    [forged] = signals_of(made)
    forged |= {"raw_offset": 1000, "prev": forged["raw_offset"], **{k: v for k, v in change.items() if k != "fields"}}
    for signal in forged["signals"]:
        signal["fields"] = change.get("fields", signal["fields"])
    made.append("signals", 0, b"k", wire("Signals").encode(forged), (), NOW)
    made.run()
    assert made.state["measure", 0].next_offset == len(made.topics["signals"][0])


def test_signals_that_would_not_fit_are_a_dead_letter() -> None:
    """An event whose rules would copy a large field too often becomes a dead letter; the line goes on."""
    rules = "\n".join(f"  copy_{i}: {{on: visit, fields: {{page: data.page}}}}" for i in range(4))
    files = {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"signals:\n", f"signals:\n{rules}\n".encode())}
    made = Driver(SECRET)
    made.apply(ORG, files, NOW)
    made.produce(visit("e1", T0, page="p" * 600_000), NOW)
    made.produce(visit("e2", T0), NOW)
    made.run()
    assert reasons(made) == ["too_large"] and made.fates["measure"]["taken"] == 1


def compacted(log: list[Message], clean_to: int) -> list[Message]:
    """What Kafka's cleaner leaves: below `clean_to` only the last record of each key that lies below it."""
    last = {message.key: message.offset for message in log if message.offset < clean_to}
    return [m for m in log if m.offset >= clean_to or m.key is None or last[m.key] == m.offset]


def refolded(made: Driver, log: list[Message], announce: bool = True) -> tuple[dict[bytes, Any], dict[str, int]]:
    """Signals and fates of an empty engine that folds `log` as partition 0."""
    leg = Ingest(1, made.decisions, made.org_keys)
    at = new_partition("ingest", leg, 0)
    if announce:
        leg.announce(at, log)
    fold = leg.fold(at, log)
    sent = [output for output in fold.before if output.topic == "signals"]
    return {output.key: wire("Signals").decode(output.value or b"") for output in sent}, fold.fates


def test_a_compacted_log_gives_the_same_signals() -> None:
    """Wherever the cleaner's boundary falls, an empty engine takes the first body and its known time, not a repeat's."""
    made = driver(partitions=1, chunk=3)
    for i in range(6):
        clock = NOW + i * HOUR - (2 * HOUR if i == 3 else 0)  # the broker's clock steps back once
        made.produce(visit(f"e{i}", T0, minutes=1.0), clock)
        made.run()
        made.produce(visit(f"e{i}", T0, minutes=1.0 if i % 2 else 2.0), clock + 1)
        made.append("raw-events", 0, raw_place(ORG, "app", f"e{i}", 0, 0, 1)[0], None, (), clock + 2)
        made.run()
    log = made.topics["raw-events"][0]
    whole = {message["leaf"] + message["event"]: message for message in signals_of(made)}
    assert len({message["k_ms"] for message in whole.values()}) == 6

    def told(signals: dict[bytes, Any]) -> dict[bytes, Any]:
        places = ("raw_offset", "prev")
        return {key: {name: value for name, value in m.items() if name not in places} for key, m in signals.items()}

    wrong = 0
    for boundary in range(len(log) + 1):
        kept = compacted(log, boundary)
        again, fates = refolded(made, kept)
        assert told(again) == told(whole), boundary
        assert fates["accepted"] == 6
        wrong += told(refolded(made, kept, announce=False)[0]) != told(whole)
    assert wrong > 0, "positive control: without the announcement some boundary gives another answer"
