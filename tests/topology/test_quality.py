"""Contracts in stream: what breaks a promise of a source, when that begins and ends, and that nothing else does."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from milepost.schemas.errors import BundleError
from milepost.topology import quality
from milepost.topology.bases import written
from milepost.topology.driver import Driver, land
from milepost.topology.quality_questions import QualityQuestion, QualityQuestions
from milepost.topology.refusals import UnknownSource
from milepost.topology.steps import run
from tests.support.promises import faults, promising
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

M = 60_000
EXPECT = "{freshness: 15m, volume: {per: 1h, min: 5}, unmatched_max: 10%}"
SEEDS = 15


def promised(expect: str = EXPECT) -> dict[str, bytes]:
    """The small organisation, whose source promises something and may leave out its first company key."""
    text = FILES["milepost.yaml"].decode().replace("data.company, required: true", "data.company")
    if expect:
        text = text.replace("    volatile:", f"    expect: {expect}\n    volatile:")
    return {**FILES, "milepost.yaml": text.encode()}


def made(expect: str = EXPECT, *, partitions: int = 3, chunk: int = 7, seed: int = 0) -> Driver:
    found = Driver(SECRET, partitions=partitions, chunk=chunk, seed=seed)
    found.apply(ORG, promised(expect), T0, k_ms=T0)
    return found


def sent(at: Driver, minutes: Sequence[int], **data: Any) -> None:
    """A visit in each of these minutes, known as it happens."""
    for minute in minutes:
        at.produce(visit(f"e{minute}", T0 + minute * M, **data), T0 + minute * M)


def told(at: Driver, minute: float, at_minute: int | None = None, basis: str | None = None) -> dict[str, Any]:
    """The answer about the source once the ticks have come to a minute."""
    now_ms = T0 + int(minute * M)
    at.tick(now_ms)
    at.run()
    at_ms = None if at_minute is None else T0 + at_minute * M
    question = QualityQuestion(now_ms=now_ms, at_ms=at_ms, basis=basis)
    answer = run(QualityQuestions(at.reader).states(question, 0, 10))
    (row,) = answer["sources"]
    assert isinstance(row, dict)
    return row


def spells(row: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(one["breach"], one["begin"][11:16], one["end"] and one["end"][11:16]) for one in row["history"]][::-1]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_promise_is_broken_when_the_oracle_says_so(seed: int) -> None:
    """Late events, amendments, voids, imports, missing ticks, other definitions: states and breaches are the oracle's."""
    assert faults(promising(seed), chunk=(1, 7, 500)[seed % 3], seed=seed) == []


def test_a_source_that_stops_is_stale_at_the_tick_and_heals_with_the_next_event() -> None:
    """Not a millisecond before `freshness` has passed, and from the next accepted event on no more."""
    at = made("{freshness: 15m}")
    sent(at, range(30))
    assert told(at, 29)["state"] == "ok"
    assert told(at, 44 - 1 / M)["state"] == "ok"
    row = told(at, 44)
    assert (row["state"], row["since"]) == ("stale", written(T0 + 44 * M))
    assert row["freshness"]["age_ms"] == 15 * M and row["freshness"]["ok"] is False
    sent(at, [50])
    row = told(at, 51)
    assert row["state"] == "ok" and spells(row) == [("stale", "00:44", "00:50")]


def test_without_ticks_nobody_falls_silent() -> None:
    """A partition whose tick is missing holds everything back: what it may still hold is not known."""
    at = made("{freshness: 15m}")
    sent(at, range(10))
    assert told(at, 10)["state"] == "ok"
    for partition in range(2):  # the third one's tick does not come
        header = at.topics["raw-events"][partition][-1].headers
        at.append("raw-events", partition, b"tick", b"", header, T0 + 5 * HOUR)
    at.run()
    question = QualityQuestion(now_ms=T0 + 5 * HOUR)
    answer = run(QualityQuestions(at.reader).states(question, 0, 10))
    assert answer["judged_to"] == written(T0 + 10 * M) and answer["sources"][0]["state"] == "ok"


def test_a_worker_that_heard_no_tick_says_that_it_does_not_know() -> None:
    """Without any tick nothing is judged: null and the reason, never `ok`."""
    at = made()
    at.run()
    (row,) = run(QualityQuestions(at.reader).states(QualityQuestion(now_ms=T0), 0, 10))["sources"]
    assert (row["state"], row["reason"], row["freshness"]["ok"]) == (None, "no_ticks", None)


def test_a_window_with_too_few_events_is_silent_until_one_has_enough() -> None:
    """Whole hours of UTC are judged at their ends; the first one that began before the source did is not."""
    at = made("{volume: {per: 1h, min: 5}}")
    sent(at, [30])
    assert told(at, 60)["volume"]["reason"] == "no_window"
    sent(at, range(60, 70))
    assert told(at, 120)["state"] == "ok"
    sent(at, [125, 126])
    assert told(at, 179)["state"] == "ok"
    row = told(at, 180)
    assert (row["state"], row["volume"]["events"], row["volume"]["ok"]) == ("silent", 2, False)
    sent(at, range(180, 186))
    row = told(at, 240)
    assert row["state"] == "ok" and spells(row) == [("silent", "03:00", "04:00")]
    assert [one["events"] for one in row["volume"]["windows"]] == [10, 2, 6]


def test_amendments_and_voids_are_signs_of_life_and_no_volume() -> None:
    """A source that only corrects is not stale, and its hour is empty; a repeat is nothing at all."""
    at = made("{freshness: 15m, volume: {per: 1h, min: 1}}")
    sent(at, [0, 60])
    for minute in range(70, 130, 10):
        event = visit("e60", T0 + 60 * M, minutes=float(minute))
        at.produce({**event, "revision": minute, "void": minute == 120}, T0 + minute * M)
    row = told(at, 134)
    assert "stale" not in row["breaches"] and row["types"] == {"visit": 2}
    at.produce(visit("e60", T0 + 60 * M), T0 + 134 * M)
    assert told(at, 135)["state"] == "stale"  # the repeat has not moved it
    assert told(at, 180)["breaches"] == ["stale", "silent"]


def test_late_events_count_when_they_become_known() -> None:
    """An event of three years ago says that its source lives, now; what was judged before stays."""
    at = made("{freshness: 15m}")
    sent(at, [0])
    assert told(at, 20)["state"] == "stale"
    at.produce(visit("late", T0 - 3 * 365 * DAY), T0 + 25 * M)
    row = told(at, 30)
    assert row["state"] == "ok" and spells(row) == [("stale", "00:15", "00:25")]
    assert row["freshness"]["newest_event"] == written(T0)


def test_an_import_says_nothing_of_its_source() -> None:
    """Backdated events neither begin the waiting nor end a silence: the source is `waiting` for its first own event."""
    at = made()
    for minute in range(0, 600, 100):
        at.produce(visit(f"b{minute}", T0 - minute * M), T0, known_ms=T0 - minute * M)
    row = told(at, 600)
    assert (row["state"], row["reason"], row["history"]) == ("waiting", "no_events", [])
    assert row["freshness"]["newest_known"] is not None
    sent(at, [601])
    at.produce(visit("again", T0), T0 + 650 * M, known_ms=T0 + 640 * M)
    assert told(at, 650)["state"] == "stale"


def test_a_deploy_that_breaks_the_schema_is_told_at_once_and_heals() -> None:
    """From the first record that broke the contract's form, until a whole quarter of an hour had none."""
    at = made("{freshness: 30m}")
    sent(at, range(20))
    assert told(at, 20 - 1 / M)["state"] == "ok"
    for minute in range(20, 32):
        at.produce({**visit(f"x{minute}", T0 + minute * M), "data": {"company": 7}}, T0 + minute * M)
    row = told(at, 31)
    assert (row["state"], row["since"]) == ("schema", written(T0 + 20 * M))
    sent(at, range(32, 70))
    row = told(at, 69)
    assert row["state"] == "ok" and spells(row) == [("schema", "00:20", "01:00")]
    (reason,) = row["schema"]["by_reason"]
    assert (reason["reason"], reason["records"], reason["breach"]) == ("contract_violation", 12, True)
    position = reason["receipt"].removeprefix("raw-events/").split("@")
    record = at.topics["raw-events"][int(position[0])][int(position[1])]
    assert b'"x20"' in (record.value or b"")


def test_events_that_nobody_is_known_for_are_a_share_with_examples() -> None:
    """Without a company's key, or with one that means nothing; an example says which key, never its value."""
    at = made("{unmatched_max: 10%}")
    sent(at, [0])
    sent(at, range(60, 100))
    sent(at, range(100, 104), company="unknown", device="d1")
    assert told(at, 120)["state"] == "ok"  # 4 of 44
    sent(at, range(121, 140))
    sent(at, range(140, 143), company="unknown", device="d1")
    row = told(at, 180)
    assert row["state"] == "unmatched" and (row["unmatched"]["events"], row["unmatched"]["of"]) == (3, 22)
    assert {(one["key"], one["why"]) for one in row["unmatched"]["examples"]} == {("company/crm_id", "blocked")}
    assert "unknown" not in str(row["unmatched"]["examples"])


def test_records_without_a_required_key_are_unmatched_too() -> None:
    """They are dead letters `missing_key`: of a source that promises, part of the share and no breach of the schema."""
    at = made("{unmatched_max: 50%}")
    at.apply(ORG, {**FILES, "milepost.yaml": promised("{unmatched_max: 50%}")["milepost.yaml"].replace(
        b"data.company}", b"data.company, required: true}")}, T0, k_ms=T0)  # fmt: skip
    sent(at, [0, 60])
    sent(at, [61, 62], company="unknown")
    row = told(at, 120)
    assert row["breaches"] == ["unmatched"] and row["unmatched"]["share"] == 2 / 3
    assert [(one["reason"], one["breach"]) for one in row["schema"]["by_reason"]] == [("missing_key", False)]


def test_the_past_is_told_as_it_was_shown_and_as_today_would_have_it() -> None:
    """as_shown has the promise of then, corrected today's; neither moves with what comes later."""
    at = made("{freshness: 15m}")
    sent(at, range(10))
    at.run()
    at.apply(ORG, promised("{freshness: 2h}"), T0 + 100 * M, k_ms=T0 + 100 * M)
    before = told(at, 200, 60, "as_shown")
    assert (before["state"], before["since"]) == ("stale", written(T0 + 24 * M))
    assert before["freshness"]["heard_to"] == written(T0 + 15 * M)
    assert told(at, 200, 60, "corrected")["state"] == "ok"
    assert spells(told(at, 200, 195, "as_shown")) == [("stale", "00:24", "01:40"), ("stale", "02:09", None)]
    sent(at, [201])
    assert told(at, 202, 60, "as_shown") == before


def test_a_source_that_promises_nothing_costs_nothing() -> None:
    """No row is written for it, and the answer says that nothing is expected."""
    at = made("")
    sent(at, range(10))
    row = told(at, 60)
    assert (row["state"], row["reason"], row["freshness"]["ok"]) == ("unwatched", "no_expectation", None)
    assert row["freshness"]["newest_known"] == written(T0 + 9 * M)
    assert all(not list(at.state["ingest", one].stores["quality"].scan(b"", b"\xff" * 30)) for one in range(3))


def test_a_promise_that_is_taken_back_is_judged_no_more() -> None:
    """The breach ends with the promise; when it is given again, the source is waited for anew."""
    at = made("{freshness: 15m}")
    sent(at, [0])
    at.apply(ORG, promised(""), T0 + 60 * M, k_ms=T0 + 60 * M)
    assert told(at, 70)["state"] == "unwatched"
    at.apply(ORG, promised("{freshness: 15m}"), T0 + 120 * M, k_ms=T0 + 120 * M)
    row = told(at, 200)
    assert row["state"] == "waiting" and spells(row) == [("stale", "00:15", "01:00")]
    sent(at, [201])
    assert spells(told(at, 230)) == [("stale", "00:15", "01:00"), ("stale", "03:36", None)]


def test_a_promise_of_seconds_is_judged_as_one_of_a_minute() -> None:
    """What is counted is counted by the minute, and a window of no length is one of a minute."""
    at = made("{freshness: 1s, volume: {per: 0s, min: 1}}")
    sent(at, [0, 1, 2])
    assert told(at, 2.5)["breaches"] == []
    assert told(at, 3)["breaches"] == ["stale"]
    assert told(at, 4)["breaches"] == ["stale", "silent"]


def test_a_window_beyond_a_month_is_not_judged_and_says_so() -> None:
    """The bound is in the answer, not in a silence."""
    at = made("{volume: {per: 60d, min: 1}}")
    sent(at, [0])
    row = told(at, 90 * 24 * 60)
    assert (row["state"], row["volume"]["ok"], row["volume"]["reason"]) == ("ok", None, "window_too_long")


def test_counts_are_the_same_however_the_log_is_read() -> None:
    """In chunks of one or all, whichever leg goes first: the rows are equal to the byte."""
    found = set()
    for chunk, seed in ((1, 0), (7, 1), (500, 2)):
        at = made(partitions=2, chunk=chunk, seed=seed)
        chance = random.Random(1)
        for i in range(200):
            company = chance.choice(("1", "2", "unknown"))
            event = visit(f"e{chance.randrange(150)}", T0 + i * M, company=company, device="d1")
            at.produce({**event, "type": chance.choice(("visit", "visit", "idle", "none"))}, T0 + i * M)
        at.run()
        found.add(tuple(tuple(at.state["ingest", one].stores["quality"].scan(b"", b"\xff" * 30)) for one in range(2)))
    assert len(found) == 1 and all(next(iter(found)))


def test_what_a_row_holds_already_is_not_counted_twice() -> None:
    """After a take-over a row may be ahead of the mark (a dead owner's late bytes): what it absorbed is passed over."""
    at = made("{freshness: 15m}", partitions=1, chunk=3)
    sent(at, range(12))
    at.run()
    partition = at.state["ingest", 0]
    rows = dict(partition.stores["quality"].scan(b"", b"\xff" * 30))
    again = made("{freshness: 15m}", partitions=1, chunk=5)
    for key, value in rows.items():
        again.state["ingest", 0].stores["quality"].put(key, value)
    land(again.state["ingest", 0].stores["quality"])
    sent(again, range(12))
    again.run()
    assert dict(again.state["ingest", 0].stores["quality"].scan(b"", b"\xff" * 30)) == rows


def test_a_refused_record_that_is_forwarded_twice_counts_once() -> None:
    """Who forwards may crash and do it again: the copies say where the record first came, so they are one."""
    at = made("{freshness: 15m}")
    partition, offset = at.produce({**visit("bad", T0 + M), "type": "none"}, T0 + M)
    record = at.topics["raw-events"][partition].pop(offset)
    astray = (partition + 1) % 3
    at.append("raw-events", astray, record.key, record.value, (), T0 + M)
    at.run()
    copy = at.topics["raw-events"][partition][-1]
    assert copy.value == record.value and copy.headers
    at.append("raw-events", partition, copy.key, copy.value, copy.headers, T0 + 2 * M)
    (reason,) = told(at, 10)["schema"]["by_reason"]
    assert (reason["records"], at.fates["ingest"]["dead:unknown_type"]) == (1, 2)


def test_a_quarter_of_an_hour_keeps_few_examples() -> None:
    """A row is bounded whatever comes: three examples, a count a type and reason, fifteen minutes."""
    at = made("{unmatched_max: 1%}", partitions=1)
    for i in range(300):
        at.produce(visit(f"u{i}", T0 + i * 2_000, company="unknown", device="d1"), T0 + i * 2_000)
    at.run()
    sizes = [len(value) for _, value in at.state["ingest", 0].stores["quality"].scan(b"", b"\xff" * 30)]
    assert max(sizes) < 400
    assert len(told(at, 20)["unmatched"]["examples"]) == quality.EXAMPLES_MAX


def test_a_source_that_nobody_knows_is_refused_with_a_guess() -> None:
    """404 with the nearest name, as for metrics."""
    at = made()
    with pytest.raises(UnknownSource) as refused:
        run(QualityQuestions(at.reader).states(QualityQuestion(now_ms=T0, source="ap"), 0, 10))
    assert refused.value.guess == "app"
    with pytest.raises(BundleError):
        promised_badly = promised("{freshness: soon}")
        Driver(SECRET).apply(ORG, promised_badly, T0)
