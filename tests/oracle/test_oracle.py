"""The oracle itself: small logs whose answers are computed by hand."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import Oracle, RawRecord, Refused, Stamp, avro, clock, definitions, expressions, keys
from tests.support import events, invariants

SECRET, ORG = events.SECRET, events.ORG
HOUR, DAY, QUARTER = clock.HOUR, clock.DAY, clock.QUARTER

YAML = """\
sources:
  app:
    owner: a@example.org
    types: {used: {schema: Used}}
    identities:
      - {entity: company, key: crm_id, from: data.crm}
      - {entity: company, key: name, from: data.name, label: true}
      - {entity: person, key: email, from: data.email}
    volatile: [data.trace]
signals:
  use: {on: used, fields: {n: data.n, kind: data.kind}}
metrics:
  uses: {from: use, aggregate: count, dimensions: [kind]}
  amount: {from: use, aggregate: [sum(n), min(n), max(n), avg(n), last(n)], scale: 2}
  people: {from: use, aggregate: distinct(person), dimensions: [kind]}
  rate: {formula: people / uses}
  mean_twice: {formula: amount_avg * 2.0}
  share: {formula: uses / (uses - people)}
"""
NAMES = ("crm?", "name?", "email?", "kind?", "trace?")
FIELDS = [{"name": one.rstrip("?"), "type": ["null", "string"], "default": None} for one in NAMES]
SCHEMA = {"type": "record", "name": "Used", "fields": [*FIELDS, {"name": "n", "type": ["null", "double"]}]}
BUNDLE = {"milepost.yaml": YAML.encode(), "schemas/Used.avsc": json.dumps(SCHEMA).encode()}
NEXT = {**BUNDLE, "milepost.yaml": YAML.replace("scale: 2", "scale: 3").encode()}


class Log:
    """Writes a raw log by hand.  Times are RFC 3339, or `10:01` on 3 June 2013."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.records: list[list[RawRecord]] = [[] for _ in range(partitions)]
        self.bundles: dict[bytes, Mapping[str, bytes]] = {}
        self.count = 0

    def apply(self, files: Mapping[str, bytes] = BUNDLE, k: str = "00:00", org: str = ORG) -> Log:
        one = events.bundle_id(files)
        self.bundles[one] = files
        key, value = b"marker%d" % len(self.records[0]), one + org.encode()
        stamp = Stamp(kind=keys.MARKER, k_ms=0, partition=0, offset=-1, bundle=keys.NO_BUNDLE)
        for partition in range(self.partitions):
            self.put(partition, key, value, k, (keys.seal(SECRET, "", stamp, key, value),))
        return self

    def event(self, t: str, k: str, *, backdated: bool = False, at: int | None = None, **data: Any) -> RawRecord:
        """Append an event of company `crm=A` (or as `data` says) and answer its record.  `at` misplaces it."""
        event = {"org": data.pop("org", ORG), "source": "app", "id": data.pop("id", f"e{self.count}"), "type": "used"}
        event |= {"time": clock.rfc3339(moment(t)), "data": {"crm": "A", **data}}
        event |= {name: data.pop(name) for name in ("revision", "void", "source") if name in data}
        self.count += 1
        value = json.dumps(event).encode()
        key = keys.raw_key(event["org"], event["source"], event["id"], event.get("revision", 0))
        headers = []
        if backdated:
            stamp = Stamp(kind=keys.BACKDATED, k_ms=moment(k), partition=0, offset=-1, bundle=keys.NO_BUNDLE)
            headers.append(keys.seal(SECRET, event["org"], stamp, key, value))
            k = "23:00"
        right = keys.raw_partition(event["org"], event["source"], event["id"], self.partitions)
        return self.put(right if at is None else at, key, value, k, headers)

    def put(
        self, partition: int, key: bytes | None, value: bytes | None, k: str, headers: Iterable[tuple[str, bytes]] = ()
    ) -> RawRecord:
        record = RawRecord(
            partition=partition,
            offset=len(self.records[partition]),
            timestamp_ms=moment(k),
            key=key,
            value=value,
            headers=tuple(headers),
        )
        self.records[partition].append(record)
        return record

    def oracle(self, records: Sequence[Sequence[RawRecord]] | None = None) -> Oracle:
        oracle = Oracle(SECRET, self.partitions, self.bundles)
        oracle.read(self.records if records is None else records)
        invariants.held(invariants.conservation(oracle.counts))
        return oracle


def moment(text: str) -> int:
    return clock.ms(text if "T" in text else f"2013-06-03T{text}:00Z")


def uses(oracle: Oracle, *, at: str | None = None, basis: str | None = None, **rest: Any) -> Any:
    return oracle.value("uses", at=None if at is None else moment(at), basis=basis, **rest).value


def test_a_late_event_corrects_the_past_and_leaves_what_was_shown() -> None:
    """What was shown at 11:00 stays 1 when an event of 10:00 arrives at 12:00; corrected it becomes 2."""
    log = Log().apply()
    log.event("10:00", "10:01")
    before = log.oracle()
    log.event("10:00", "12:00")
    after = log.oracle()
    assert [uses(one, at="11:00", basis="as_shown") for one in (before, after)] == [1, 1]
    assert [uses(one, at="11:00", basis="corrected") for one in (before, after)] == [1, 2]
    assert uses(after, at="12:00", basis="as_shown") == 1
    assert uses(after, at="12:15", basis="as_shown") == 2
    assert uses(after) == 2


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_arrival_does_not_matter(order: list[int]) -> None:
    """Any permutation of arrivals with the same known times means the same."""
    contents = []
    for places in (range(6), order):
        log = Log(2).apply()
        for one in places:
            data = {"crm": "AB"[one % 2], "n": float(one), "id": f"x{one}", "name": ("a", None)[one % 2]}
            log.event(f"1{one}:00", f"1{one}:20", backdated=True, **data)
        contents.append(log.oracle().digest_rows())
    assert contents[0] == contents[1]


def test_one_second_on_one_known_time_is_seen() -> None:
    """A known time that differs by a second is another log: the control of the test above."""
    contents = []
    for k in ("2013-06-03T10:20:00Z", "2013-06-03T10:20:01Z"):
        log = Log().apply()
        log.event("10:00", k, backdated=True)
        contents.append(log.oracle().digest_rows())
    assert contents[0] != contents[1]


@pytest.mark.parametrize(
    ("k", "end"),
    [
        ("2013-06-03T10:01:00.000Z", "2013-06-03T10:15:00Z"),
        ("2013-06-03T10:14:59.999Z", "2013-06-03T10:15:00Z"),
        ("2013-06-03T10:15:00.000Z", "2013-06-03T10:30:00Z"),
        ("2013-06-04T10:14:59.999Z", "2013-06-04T10:15:00Z"),  # the last quarter of an hour below 24 h
        ("2013-06-04T10:15:00.000Z", "2013-06-04T11:00:00Z"),  # 24 h behind the pane: hours
        ("2013-09-01T10:14:59.999Z", "2013-09-01T11:00:00Z"),
        ("2013-09-01T10:15:00.000Z", "2013-09-02T00:00:00Z"),  # 90 d behind the pane: days
        ("2016-06-03T23:59:59.999Z", "2016-06-04T00:00:00Z"),
    ],
)
def test_buckets_of_known_time_widen_with_the_age_of_the_pane(k: str, end: str) -> None:
    """A bucket is 15 minutes wide, an hour from 24 h behind the pane's end, a day from 90 d."""
    assert clock.bucket_end(moment("10:00"), clock.ms(k)) == clock.ms(end)


@pytest.mark.parametrize(
    ("tz", "day", "start", "hours"),
    [
        ("Europe/Berlin", "2013-03-31", "2013-03-30T23:00:00Z", 23),
        ("Europe/Berlin", "2013-10-27", "2013-10-26T22:00:00Z", 25),
        ("Europe/Berlin", "2013-07-01", "2013-06-30T22:00:00Z", 24),
        ("Asia/Kathmandu", "2013-03-31", "2013-03-30T18:15:00Z", 24),
        ("America/St_Johns", "2013-03-10", "2013-03-10T03:30:00Z", 23),
        ("America/St_Johns", "2013-11-03", "2013-11-03T02:30:00Z", 25),
        ("America/St_Johns", "2010-11-07", "2010-11-07T02:30:00Z", 25),  # the clock went back over midnight, at 00:01
    ],
)
def test_a_local_day_is_as_long_as_the_zone_says(tz: str, day: str, start: str, hours: int) -> None:
    """Days of a zone begin at its midnight and are 23, 24 or 25 hours long, without a gap."""
    begin, end = clock.ms(start), clock.ms(start) + hours * HOUR
    for instant in (begin, begin + HOUR, begin + 90 * 60_000, end - 1):
        assert clock.unit_start("day", instant, tz) == begin, (day, instant)
    assert clock.unit_start("day", end, tz) == end
    assert clock.starts(begin, end, "1d", tz) == [begin, end]


@pytest.mark.parametrize(
    ("unit", "instant", "tz", "start"),
    [
        ("year", "2014-01-01T04:59:59.999Z", "America/New_York", "2013-01-01T05:00:00Z"),
        ("year", "2014-01-01T05:00:00.000Z", "America/New_York", "2014-01-01T05:00:00Z"),
        ("month", "2013-03-31T22:30:00Z", "Europe/Berlin", "2013-03-31T22:00:00Z"),
        ("week", "2013-03-31T21:59:59Z", "Europe/Berlin", "2013-03-24T23:00:00Z"),
        ("week", "2012-12-31T18:15:00Z", "Asia/Kathmandu", "2012-12-30T18:15:00Z"),
    ],
)
def test_calendar_units_begin_where_the_zone_says(unit: str, instant: str, tz: str, start: str) -> None:
    """Years, months and weeks (from Monday) are those of the zone."""
    assert clock.unit_start(unit, clock.ms(instant), tz) == clock.ms(start)


def test_a_zone_off_the_quarter_hours_is_refused() -> None:
    """Days that do not begin on a quarter of an hour have no exact answer."""
    with pytest.raises(Refused):
        clock.unit_start("day", clock.ms("1900-06-01T00:00:00Z"), "Europe/Amsterdam")


def test_a_window_is_half_open() -> None:
    """[T - N, T): an event at the start counts, one at the end does not."""
    log = Log().apply()
    for t in ("09:59", "10:00", "10:59", "11:00"):
        log.event(t, "12:00")
    oracle = log.oracle()
    assert uses(oracle, at="11:00", window="1h") == 2
    assert uses(oracle, at="11:14", window="60m") == 2  # `at` is floored
    assert uses(oracle, at="11:00") == 3
    assert uses(oracle, at="2013-06-04T00:00:00Z", window="day") == 4
    assert uses(oracle, at="2013-06-04T00:15:00Z", window="day") is None
    with pytest.raises(Refused):
        uses(oracle, at="11:00", window="20m")
    with pytest.raises(Refused):
        uses(oracle, at="11:00", basis="latest")


def test_latest_is_exact_to_the_record() -> None:
    """`latest` counts what lies ahead of now, a window of it ends at the next quarter of an hour."""
    log = Log().apply()
    log.event("10:07", "10:00")
    log.event("10:02", "10:03")
    oracle = log.oracle()
    assert uses(oracle) == 2
    assert uses(oracle, window="15m", now=moment("10:03")) == 2
    assert uses(oracle, window="15m", now=moment("10:15")) == 2
    assert uses(oracle, window="15m", now=moment("10:16")) is None
    assert uses(oracle, at="10:14") is None
    assert uses(oracle, at="10:15", basis="as_shown") == 2


def test_a_series_sums_what_lies_in_each_local_day() -> None:
    """The day that loses an hour ends an hour earlier."""
    log = Log().apply(k="2013-03-01T00:00:00Z")
    for t in ("2013-03-30T22:59:00Z", "2013-03-30T23:00:00Z", "2013-03-31T21:59:00Z", "2013-03-31T22:00:00Z"):
        log.event(t, "2013-04-02T00:00:00Z")
    start, end = clock.ms("2013-03-29T23:00:00Z"), clock.ms("2013-04-01T22:00:00Z")
    points = log.oracle().series("uses", from_ms=start, to_ms=end, every="1d", tz="Europe/Berlin")
    assert [(one.end_ms - one.start_ms) // HOUR for one in points] == [24, 23, 24]
    assert [one.answer.value for one in points] == [1, 2, 1]


def test_two_keys_of_one_company_add_up() -> None:
    """An event that names both keys merges them from its known time on; before it two companies were shown."""
    log = Log(3).apply()
    log.event("10:00", "10:01", n=1.0)
    log.event("10:05", "10:06", crm=None, name="Acme", n=2.0)
    before = log.oracle()
    log.event("12:00", "12:01", name="Acme", n=4.0)
    after = log.oracle()
    assert [len(one.companies()) for one in (before, after)] == [2, 1]
    (company,) = after.companies()
    assert company.name == "Acme"
    assert company.root == keys.leaf(SECRET, ORG, "company", "crm_id", "A")  # the first kind of the bundle
    for named in ("crm_id:A", "name:Acme", *(keys.metakey(leaf) for leaf in company.leaves)):
        assert after.value("amount_sum", named).value == 7
        assert after.value("amount_sum", named, at=moment("11:00")).value == 3
    at = moment("11:00")
    assert after.value("amount_sum", "crm_id:A", at=at, basis="as_shown").value == 1
    assert after.value("amount_sum", "name:Acme", at=at, basis="as_shown").value == 2
    shown = after.breakdown("amount_sum", "company", at=at, basis="as_shown")
    assert sorted(one.value or 0 for one in shown.values()) == [1, 2]
    assert {key: one.value for key, one in after.breakdown("amount_sum", "company").items()} == {company.metakey: 7}
    with pytest.raises(LookupError):
        after.value("uses", "crm_id:B")


def test_links_join_transitively_and_the_root_has_the_smallest_bytes() -> None:
    """Three codes linked over names are one company; of equal kinds the smallest leaf is the root."""
    log = Log().apply()
    for crm, name in (("A", "x"), ("B", "x"), ("B", "y"), ("C", "y"), ("D", "z")):
        log.event("10:00", "10:01", crm=crm, name=name)
    oracle = log.oracle()
    roots = sorted(keys.leaf(SECRET, ORG, "company", "crm_id", crm) for crm in "ABC")
    assert oracle.root(keys.leaf(SECRET, ORG, "company", "name", "y")) == roots[0]
    assert sorted(len(one.leaves) for one in oracle.companies()) == [2, 5]


def test_distinct_is_a_union_over_companies() -> None:
    """A person seen at two companies is one person of the organisation."""
    log = Log(3).apply()
    for crm, email in (("A", "p"), ("A", "q"), ("B", "q"), ("B", "q"), ("C", None)):
        log.event("10:00", "10:01", crm=crm, email=email)
    oracle = log.oracle()
    assert oracle.value("people").value == 2
    assert [oracle.value("people", f"crm_id:{crm}").value for crm in "ABC"] == [2, 1, None]


def test_an_event_without_a_company_counts_for_the_whole() -> None:
    """An event that names a person alone is stored under the person: no company has it, the organisation does."""
    log = Log().apply()
    log.event("10:00", "10:01", crm=None, email="p")
    oracle = log.oracle()
    assert uses(oracle) == 1
    assert oracle.companies() == []
    assert oracle.breakdown("uses", "company") == {}


def test_a_repeat_changes_nothing() -> None:
    """However often an event arrives, in whatever form, it counts once, and a volatile field is no difference."""
    log = Log().apply()
    for trace in ("1", "1", "2"):
        log.event("10:00", "10:01", id="x", trace=trace, n=1)
    log.event("10:00", "10:02", id="x", trace="3", n=1.0)
    oracle = log.oracle()
    assert (uses(oracle), oracle.counts["duplicate"]) == (1, 3)


def test_the_first_of_two_bodies_wins() -> None:
    """Another body under the same id is a dead letter, also when it comes again."""
    log = Log().apply()
    for n in (1.0, 2.0, 2.0):
        log.event("10:00", "10:01", id="x", n=n)
    oracle = log.oracle()
    assert oracle.value("amount_sum").value == 1
    assert [(one.offset, one.reason) for one in oracle.dead_letters] == [(2, "id_conflict"), (3, "id_conflict")]


def test_a_dead_letter_does_not_bar_a_resend() -> None:
    """After a first that missed its key or broke its contract the resend is the first."""
    log = Log().apply()
    log.event("10:00", "10:01", id="x", crm=None)
    log.event("10:00", "10:02", id="x", n="many")
    log.event("10:00", "10:31", id="x", n=1.0)
    oracle = log.oracle()
    assert [one.reason for one in oracle.dead_letters] == ["missing_key", "contract_violation"]
    assert [uses(oracle, at=at, basis="as_shown") for at in ("10:30", "10:45")] == [None, 1]


def test_known_time_never_goes_back() -> None:
    """A broker clock that steps back does not move the past; a backdated record neither obeys nor moves the clock."""
    log = Log().apply()
    log.event("09:00", "11:00")
    log.event("09:00", "10:00")
    log.event("09:00", "09:10", backdated=True)
    log.event("09:00", "11:20")
    oracle = log.oracle()
    assert [event.k_ms for event in oracle.reading.events] == [moment(k) for k in ("11:00", "11:00", "09:10", "11:20")]


def test_events_too_far_ahead_are_dead_letters() -> None:
    """Ten minutes ahead of its arrival an event is taken, a millisecond more and it is not."""
    log = Log().apply()
    log.event("2013-06-03T10:10:00.000Z", "10:00")
    log.event("2013-06-03T10:10:00.001Z", "10:00")
    oracle = log.oracle()
    assert (uses(oracle), oracle.counts["dead:future_event"]) == (1, 1)


def test_what_cannot_be_judged_has_its_reason() -> None:
    """Each kind of broken record ends with one reason of the closed list."""
    log = Log().apply()
    log.event("10:00", "10:01", source="nobody")
    for value in (b"", b"{", b"\xff", b'{"a":NaN}'):
        log.put(0, b"k", value, "10:01")
    for value in (b"[]", b'{"org":"acme"}', b"1"):
        log.put(0, b"k", value, "10:01")
    log.put(0, b"k", avro.MAGIC + bytes(8), "10:01")
    log.put(0, b"k", b" " * (1024 * 1024 + 1), "10:01")
    oracle = log.oracle()
    assert {name: n for name, n in oracle.counts.items() if name.startswith("dead:")} == {
        "dead:contract_violation": 3,
        "dead:unknown_source": 1,
        "dead:not_decodable": 4,
        "dead:unknown_schema": 1,
        "dead:too_large": 1,
    }
    assert uses(oracle) is None


def test_a_foreign_tombstone_is_a_drop() -> None:
    """A tombstone takes nothing back."""
    log = Log().apply()
    record = log.event("10:00", "10:01")
    log.put(0, record.key, None, "10:02")
    oracle = log.oracle()
    assert (uses(oracle), oracle.counts["foreign_tombstone"]) == (1, 1)


def test_a_misplaced_record_counts_once_in_its_place() -> None:
    """A record in the wrong partition or under a wrong key counts with its first stamp, forwarded or not yet."""
    log = Log(2).apply()
    right = keys.raw_partition(ORG, "app", "x", 2)
    record = log.event("10:00", "10:01", id="x", at=1 - right)
    other = log.event("10:00", "10:20", id="y")
    log.records[other.partition][-1] = replace(other, key=b"mine")
    unsent = log.oracle()
    for one, k in ((record, "10:01"), (other, "10:20")):
        bundle = next(iter(log.bundles))
        body = json.loads(one.value or b"")
        stamp = Stamp(kind=b"f", k_ms=moment(k), partition=one.partition, offset=one.offset, bundle=bundle)
        key = keys.raw_key(ORG, "app", body["id"])
        for _ in range(2):  # a crash may have sent it twice
            header = keys.seal(SECRET, ORG, stamp, key, one.value)
            log.put(keys.raw_partition(ORG, "app", body["id"], 2), key, one.value, "18:00", [header])
    sent = log.oracle()
    assert unsent.digest_rows() == sent.digest_rows()
    assert [event.k_ms for event in sent.reading.events] == [moment("10:01"), moment("10:20")]
    assert (sent.counts["misrouted"], sent.counts["copy"], unsent.counts["misrouted"]) == (2, 2, 2)


def test_compaction_changes_no_answer() -> None:
    """Where the cleaner has taken the first record, the engine's copy says what came first, wherever repeats stand."""
    log = Log().apply()
    record = log.event("09:00", "10:01", id="x", n=1.0)
    log.event("09:00", "11:01", id="x", n=1.0)
    log.event("09:00", "11:02", id="x", n=2.0)
    whole = log.oracle()
    stamp = Stamp(kind=b"a", k_ms=moment("10:01"), partition=0, offset=1, bundle=next(iter(log.bundles)))
    header = keys.seal(SECRET, ORG, stamp, record.key, record.value)
    log.put(0, record.key, record.value, "11:03", [header])
    marker, first, repeat, conflict, copy = log.records[0]
    for left in ([first, repeat, conflict, copy], [repeat, conflict, copy], [conflict, copy], [copy]):
        assert log.oracle([[marker, *left]]).digest_rows() == whole.digest_rows()


def test_a_stamp_without_a_right_mac_is_ignored() -> None:
    """A header that was guessed, or moved from another record, backdates nothing."""
    log = Log().apply()
    good = log.event("09:00", "09:01", backdated=True)
    log.event("09:00", "11:00")
    log.records[0][-1] = replace(log.records[0][-1], headers=good.headers)
    assert [event.k_ms for event in log.oracle().reading.events] == [moment("09:01"), moment("11:00")]


def test_definitions_hold_behind_their_marker() -> None:
    """Before the first marker no source is known; a changed metric counts from its marker on, the others go on."""
    log = Log().apply(org="someone else")
    log.event("10:00", "10:01")
    log.apply(k="10:02")
    log.event("10:00", "10:03", n=0.125)
    log.apply(NEXT, k="10:30")
    log.event("10:00", "10:31", n=0.125)
    oracle = log.oracle()
    assert oracle.counts["dead:unknown_source"] == 1
    assert uses(oracle, org=ORG) == 2
    assert oracle.value("amount_sum", org=ORG).value == 0.125
    # At 10:30 the new definition holds, of which nothing is shown before 10:45.
    for at, value in (("10:15", 0.12), ("10:30", None), ("10:45", 0.125)):
        assert oracle.value("amount_sum", at=moment(at), basis="as_shown", org=ORG).value == value


def test_the_first_position_decides_which_definitions_hold() -> None:
    """A record that was forwarded across a marker is judged by the definitions of where it first lay."""
    log = Log(2).apply()
    right = keys.raw_partition(ORG, "app", "x", 2)
    log.event("10:00", "10:01", id="x", n=0.125, at=1 - right)
    log.apply(NEXT, k="10:30")
    oracle = log.oracle()
    assert oracle.value("amount_sum").value is None
    assert oracle.value("amount_sum", at=moment("10:15"), basis="as_shown").value == 0.12


def test_aggregates_are_exact() -> None:
    """Values are rounded half-even at the metric's scale, from their shortest decimal form, and then added exactly."""
    assert [definitions.rounded(one, 2) for one in (0.125, 0.135, 2.675, -0.005, 7)] == [
        Fraction(12, 100),
        Fraction(14, 100),
        Fraction(268, 100),
        0,
        7,
    ]
    log = Log().apply()
    for n in (0.1, 0.2, 1e15, -1e15, None):
        log.event("10:00", "10:01", n=n)
    oracle = log.oracle()
    assert oracle.value("amount_sum").value == 0.3
    assert oracle.value("amount_avg").value == 0.075
    assert (oracle.value("amount_min").value, oracle.value("amount_max").value) == (-1e15, 1e15)
    assert uses(oracle) == 5


def test_last_is_by_event_time_and_then_by_event() -> None:
    """The last value is that of the latest event, however late it came."""
    log = Log().apply()
    log.event("10:02", "10:03", n=2.0)
    log.event("10:01", "12:00", n=1.0)
    assert log.oracle().value("amount_last").value == 2
    ties = {name: log.event("10:05", "12:00", id=name, n=n) for name, n in (("x", 3.0), ("y", 4.0))}
    greatest = max(ties, key=lambda name: ties[name].key or b"")
    assert log.oracle().value("amount_last").value == {"x": 3, "y": 4}[greatest]


def test_an_absent_value_is_null_with_a_reason() -> None:
    """Without events a count is null alone and 0 in a formula; an average makes the formula null; n / 0 is null."""
    log = Log().apply()
    log.event("10:00", "10:01", n=None)
    oracle = log.oracle()
    none = oracle.value("uses", at=moment("09:00"))
    assert (none.value, none.reason) == (None, "no_events")
    assert oracle.value("rate").value == 0  # no people, one use
    assert oracle.value("rate", at=moment("09:00")).reason == "division_by_zero"
    assert (oracle.value("amount_sum").value, oracle.value("amount_sum").reason) == (None, "no_events")
    assert (oracle.value("mean_twice").value, oracle.value("mean_twice").reason) == (None, "no_events")
    assert oracle.value("share").value == 1
    log.event("10:00", "10:01", email="p", n=1.0)
    log.event("10:00", "10:01", email="q", n=1.0)
    assert log.oracle().value("share").value == 3


def test_breakdowns_name_each_value() -> None:
    """Rows of a dimension add up to the total; an absent value has a name of its own."""
    log = Log().apply()
    for kind in ("a", "a", "b", None, "x" * 257):
        log.event("10:00", "10:01", kind=kind)
    oracle = log.oracle()
    rows = {name: one.value for name, one in oracle.breakdown("uses", "kind").items()}
    assert rows == {"a": 2, "b": 1, "__none__": 1, "__other__": 1}
    assert uses(oracle, dims={"kind": "a"}) == 2
    assert uses(oracle, dims={"kind": "c"}) is None
    for wrong in ("nothing", "crm"):
        with pytest.raises(LookupError):
            oracle.breakdown("uses", wrong)


def test_organisations_are_apart() -> None:
    """The same key in two organisations is two companies; an organisation renamed gives the same answers."""
    log = Log().apply().apply(org="beta")
    log.event("10:00", "10:01", n=1.0)
    log.event("10:00", "10:01", org="beta", n=2.0)
    oracle = log.oracle()
    assert [oracle.value("amount_sum", "crm_id:A", org=org).value for org in (ORG, "beta")] == [1, 2]
    with pytest.raises(Refused):
        oracle.value("uses")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 == 7.0", True),
        ("(1 + 2) * 3", 9.0),
        ("7 % 4 - 10 / 4", 0.5),
        ("-data.n < 0.0 && !data.no", True),
        ('data.s in ["x", "y"] || data.n in [1.0]', True),
        ("has(data.gone)", False),
        ("has(data.s)", True),
        ("data.none == null", True),
        ("data.none == 1.0", False),
        ("data.none > 1.0 || true", True),
        ("true || data.none > 1.0", True),
        ("data.none > 1.0 && false", False),
        ("false && data.none > 1.0", False),
        ("data.n > 2.0 ? 'much' : 'little'", "little"),
        ('event.type == "used" && data.s.startsWith("x") && size(data.s) == 2', True),
        ("data.s + 'z' == \"xyz\"", True),
        ("data.a.b.c", 5.0),
    ],
)
def test_expressions_mean_what_cel_says(text: str, value: Any) -> None:
    """The small evaluator agrees with CEL on its subset, errors absorbed by && and || included."""
    data = {"n": 1.0, "s": "xy", "none": None, "no": False, "a": {"b": {"c": 5.0}}}
    assert expressions.evaluate(expressions.parse(text), {"data": data, "event": {"type": "used"}}) == value


@pytest.mark.parametrize(
    "text", ["data.none > 1.0", "true && data.none > 1.0", "data.gone", "!data.n", "1 / 0", "'a' < 1.0", "data.n + 's'"]
)
def test_expressions_fail_rather_than_guess(text: str) -> None:
    """What CEL cannot evaluate is an error and never false."""
    with pytest.raises(expressions.EvaluationError):
        expressions.evaluate(expressions.parse(text), {"data": {"n": 1.0, "none": None}})


@pytest.mark.parametrize("text", ["", "1 +", "a b", "(1", "matches(a)", "1 ; 2", "[1,"])
def test_what_is_outside_the_subset_is_refused(text: str) -> None:
    """The parser does not read past what it knows."""
    with pytest.raises(ValueError):
        expressions.parse(text)


def test_avro_by_hand_equals_a_library() -> None:
    """The envelope in Avro has the bytes and the fingerprint that fastavro gives."""
    schema = avro.schema("RawEvent")
    event = {"org": "ä", "source": "s", "id": "1", "type": "t", "time": "x", "revision": -70000, "void": True}
    event |= {"repair": 1, "data": b"{}"}
    text = fastavro.schema.to_parsing_canonical_form(schema)
    assert avro.fingerprint(schema).hex() == fastavro.schema.fingerprint(text, "CRC-64-AVRO")
    assert avro.decode(schema, avro.encode(schema, event)) == event
    for wrong in (avro.encode(schema, event)[:-1], avro.encode(schema, event) + b"x"):
        with pytest.raises(ValueError):
            avro.decode(schema, wrong)


def test_metakeys_are_leaves_as_people_read_them() -> None:
    """mk_ and 26 letters, and back."""
    leaf = keys.leaf(SECRET, ORG, "company", "crm_id", "A")
    assert len(keys.metakey(leaf)) == 29
    assert keys.leaf_of_metakey(keys.metakey(leaf)) == leaf


def test_the_oracle_shares_no_code_with_the_engine() -> None:
    """Neither the oracle nor the generators import anything of milepost."""
    root = Path(__file__).parents[1]
    files = [*root.glob("oracle/*.py"), root / "support/events.py", root / "support/invariants.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("milepost", "asyncio")], file


# -- generators and invariants


def read(scenario: events.Scenario) -> Oracle:
    oracle = Oracle(SECRET, scenario.partitions, scenario.bundles, scenario.applied)
    oracle.read(scenario.log)
    return oracle


def test_generated_logs_hold_the_hard_cases() -> None:
    """Each hard case makes at least a twentieth of what is generated, every kind occurs, and nothing is lost."""
    labels: dict[str, int] = {}
    reasons: set[str] = set()
    records = 0
    for seed in range(12):
        scenario = events.seeded(seed, partitions=2 + seed % 4)
        records += scenario.size
        for name, n in scenario.labels.items():
            labels[name] = labels.get(name, 0) + n
        oracle = read(scenario)
        reasons |= set(oracle.counts)
        invariants.held(invariants.conservation(oracle.counts))
    assert min(events.share(labels, records).values()) >= 0.05
    assert reasons >= {
        "accepted", "duplicate", "misrouted", "foreign_tombstone", "no_rule", "signal", "rule_declined", "tick",
        "dead:id_conflict", "dead:future_event", "dead:not_decodable", "dead:unknown_type", "dead:unknown_source",
        "dead:unknown_schema", "dead:missing_key", "dead:contract_violation", "dead_pair:rule_error",
        "dead_pair:out_of_range", "marker",
    }  # fmt: skip


def test_a_seed_is_one_log() -> None:
    """The same seed writes the same log, another seed another one."""
    assert events.seeded(3).log == events.seeded(3).log != events.seeded(4).log


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_event_twice_is_every_event_once(data: st.DataObject) -> None:
    """A log in which each partition's records are repeated at its end means the same, whatever is asked."""
    scenario = data.draw(events.scenarios(size_max=25))
    once = read(scenario)
    log = []
    for records in scenario.log:
        good = [one for one in records if not one.headers and (one.partition, one.offset) not in _ended(once)]
        log.append([*records, *(replace(one, offset=len(records) + i) for i, one in enumerate(good))])
    twice = read(replace(scenario, log=log))
    assert twice.digest_rows() == once.digest_rows()
    question = data.draw(events.questions(scenario))
    try:
        expected = question.ask(once)
    except LookupError:
        return
    assert question.ask(twice) == expected


def _ended(oracle: Oracle) -> set[tuple[int, int]]:
    return {(one.partition, one.offset) for one in oracle.dead_letters if one.rule is None}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_add_up_to_the_whole(data: st.DataObject) -> None:
    """Counts by company, by dimension and by day add up to the count of everything."""
    scenario = data.draw(events.scenarios(size_max=30))
    oracle = read(scenario)
    basis = data.draw(st.sampled_from(("corrected", "as_shown")))
    asked = {"basis": basis, "at": data.draw(st.sampled_from(scenario.moments)), "org": ORG}
    whole = oracle.value("visitors", **asked).value or 0
    for by in ("company", "region"):
        assert sum(one.value or 0 for one in oracle.breakdown("visitors", by, **asked).values()) == whole
    start = clock.unit_start("day", min([*scenario.moments, asked["at"]]) - 3 * DAY, "Europe/Berlin")
    points = oracle.series("visitors", from_ms=start, to_ms=asked["at"], every="1d", tz="Europe/Berlin", **asked)
    assert sum(one.answer.value or 0 for one in points) == whole


def test_the_invariants_can_fail() -> None:
    """Each invariant names a planted fault and is silent without one."""
    good = {"read": 4, "accepted": 2, "duplicate": 1, "dead:poison": 1, "signal": 2, "rule_pairs": 2}
    assert not invariants.conservation(good)
    assert invariants.conservation(good | {"read": 5})
    assert invariants.conservation(good | {"rule_pairs": 3})
    assert not invariants.same_counts({"a": 1, "b": 0}, {"a": 1})
    assert invariants.same_counts({"a": 1}, {"a": 2})
    same = {"q": (1.0, None), "r": {"x": 0.1 + 0.2}, "s": None}
    assert not invariants.same_answers(same, {"q": (1, None), "r": {"x": 0.3}, "s": None})
    for change in ({"q": (1.0, "no_events")}, {"q": (1.1, None)}, {"r": {"x": 0.3, "y": 1}}, {"s": 0}, {"t": 1}):
        assert invariants.same_answers(same, same | change)
    assert not invariants.unique_signals([{"id": 1, "k": 1}, {"id": 1, "k": 1}])
    assert invariants.unique_signals([{"id": 1, "k": 1}, {"id": 1, "k": 2}])
    with pytest.raises(AssertionError):
        invariants.held(["a fault"])
