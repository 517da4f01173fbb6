"""Questions over the tables that the line makes, against plain computing on the events themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from milepost.schemas import keys
from milepost.topology import bitmaps
from milepost.topology.aggregates import Row, Shape, Total, encode
from milepost.topology.bases import FOREVER, instant, written
from milepost.topology.driver import Driver
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.questions import Question, Questions
from milepost.topology.refusals import (
    BadParameter,
    GrainTooCoarse,
    QuestionError,
    UnknownCompany,
    UnknownDimension,
    UnknownMetric,
    UnknownOrganisation,
    closest,
)
from milepost.topology.scans import Tally, after
from milepost.topology.steps import run

SECRET = b"a secret of thirty-two bytes long"
START = instant("2013-01-01T00:00:00Z")
NOW = instant("2013-06-01T00:00:00Z")

BUNDLE = {
    "milepost.yaml": b"""
sources:
  shop:
    types:
      sale: {schema: Sale}
    identities:
      - {entity: company, key: code, from: data.code}
      - {entity: company, key: name, from: data.name, label: true}
      - {entity: person, key: mail, from: data.mail}
      - {entity: person, key: phone, from: data.phone}
signals:
  sold: {on: sale, fields: {amount: data.amount, shop: data.shop, kind: data.kind, till: data.till}}
  dear: {on: sale, when: "data.amount != null && data.amount > 50.0", fields: {shop: data.shop}}
metrics:
  sales: {from: sold, aggregate: count, dimensions: [shop, kind, till]}
  dear_sales: {from: dear, aggregate: count, dimensions: [shop]}
  amount: {from: sold, aggregate: [sum(amount), avg(amount), min(amount), max(amount), last(amount)], dimensions: [shop]}
  buyers: {from: sold, aggregate: distinct(person), dimensions: [shop]}
  dear_rate: {formula: dear_sales / sales, unit: ratio}
  mean_twice: {formula: amount_avg * 2.0}
  daily: {from: sold, aggregate: count, grain: 1d}
""",
    "schemas/Sale.avsc": b"""{"type": "record", "name": "Sale", "fields": [
      {"name": "code", "type": ["null", "string"], "default": null},
      {"name": "name", "type": ["null", "string"], "default": null},
      {"name": "mail", "type": ["null", "string"], "default": null},
      {"name": "phone", "type": ["null", "string"], "default": null},
      {"name": "amount", "type": ["null", "double"], "default": null},
      {"name": "shop", "type": ["null", "string"], "default": null},
      {"name": "kind", "type": ["null", "string"], "default": null},
      {"name": "till", "type": ["null", "string"], "default": null}]}""",
}


def sale(id: str, t_ms: int, org: str = "acme", **data: Any) -> dict[str, Any]:
    return {"org": org, "source": "shop", "id": id, "type": "sale", "time": written(t_ms), "data": data}


def driven(events: list[tuple[dict[str, Any], int]], partitions: int = 3, orgs: tuple[str, ...] = ("acme",)) -> Driver:
    """The line run over (event, known time) pairs."""
    driver = Driver(SECRET, partitions=partitions)
    for org in orgs:
        driver.apply(org, BUNDLE, START, k_ms=START)
    for event, known_ms in events:
        driver.produce(event, NOW, known_ms=known_ms)
    driver.run()
    driver.tick(NOW)
    driver.run()
    assert not driver.dead_letters
    return driver


def value(driver: Driver, metric: str, **asked: Any) -> Any:
    return run(Questions(driver.reader).value(Question(metric=metric, now_ms=asked.pop("now_ms", NOW), **asked)))


def random_sales(seed: int, many: int) -> list[tuple[dict[str, Any], int]]:
    chance = random.Random(seed)
    out = []
    for i in range(many):
        t_ms = START + chance.randrange(40) * 7 * PANE_MS * chance.choice((1, 13)) + chance.choice((0, 1, PANE_MS - 1))
        late = chance.choice((0, 0, 0, PANE_MS, DAY_MS + 1, 20 * DAY_MS, 91 * DAY_MS))
        data = {
            "code": chance.choice(("A", "B", "C")), "mail": chance.choice(("x", "y", "z", None)),
            "amount": chance.choice((None, 1.5, 99.99, -3.0, 50.0, 1e6)), "shop": chance.choice(("north", "süd", "")),
            "kind": chance.choice(("k1", "k2")), "till": chance.choice(("1", "2")),
        }  # fmt: skip
        out.append((sale(f"e{i}", t_ms, **data), t_ms + late))
    return out


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    basis=st.sampled_from(["latest", "corrected", "as_shown"]),
    at=st.integers(0, 60 * 96),
    window=st.sampled_from(["all", "1d", "7d", "90m", "month", "week"]),
    tz=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
    company=st.sampled_from([None, "A"]),
    shop=st.sampled_from([None, "north", "süd", ""]),
)
def test_values_equal_plain_computing(
    seed: int, basis: str, at: int, window: str, tz: str, company: str | None, shop: str | None
) -> None:
    """Count, sum, mean, extremes, last and distinct equal a loop over the events that count."""
    events = random_sales(seed, 60)
    driver = driven(events)
    at_ms = START + at * PANE_MS
    asked: dict[str, Any] = {"basis": basis, "window": window, "tz": tz, "dims": {} if shop is None else {"shop": shop}}
    if basis == "latest":
        asked["now_ms"] = at_ms
    else:
        asked["at_ms"] = at_ms
    known = {event["data"]["code"] for event, _ in events}
    if company is not None and company in known:
        asked["company"] = f"code:{company}"
    questions = Questions(driver.reader)
    span = None if window == "all" and basis == "latest" else _window(window, at_ms, tz)

    def counts(event: dict[str, Any], k_ms: int) -> bool:
        t_ms = instant(event["time"])
        if span is not None and not span[0] <= t_ms < span[1]:
            return False
        if "company" in asked and event["data"]["code"] != company:
            return False
        if shop is not None and event["data"]["shop"] != shop:
            return False
        return basis != "as_shown" or _bucket_end(t_ms, k_ms) <= at_ms

    some = [event for event, k_ms in events if counts(event, k_ms)]
    amounts = [Fraction(str(event["data"]["amount"])) for event in some if event["data"]["amount"] is not None]
    mails = {event["data"]["mail"] for event in some if event["data"]["mail"] is not None}
    expected = {
        "sales": len(some) or None,
        "amount_sum": sum(amounts) if amounts else None,
        "amount_avg": sum(amounts) / len(amounts) if amounts else None,
        "amount_min": min(amounts, default=None),
        "amount_max": max(amounts, default=None),
        "buyers": len(mails) or None,
    }
    for metric, wanted in expected.items():
        got = run(questions.value(Question(metric=metric, now_ms=asked.get("now_ms", NOW), **_without_now(asked))))
        assert got["value"] == (None if wanted is None else pytest.approx(float(wanted), rel=1e-15)), metric
        assert got["reason"] == ("no_events" if wanted is None else None)


def _without_now(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in asked.items() if name != "now_ms"}


def _window(window: str, at_ms: int, tz: str) -> tuple[int, int]:
    if window == "all":
        return 0, at_ms
    if window[-1] in "dm" and window[:-1].isdigit():
        return at_ms - int(window[:-1]) * (DAY_MS if window[-1] == "d" else 60_000), at_ms
    local = datetime.fromtimestamp((at_ms - 1) / 1000, ZoneInfo(tz))
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    first = first.replace(day=1) if window == "month" else first - timedelta(days=first.weekday())
    return int(first.timestamp() * 1000), at_ms


def _bucket_end(t_ms: int, k_ms: int) -> int:
    pane_end = (t_ms // PANE_MS + 1) * PANE_MS
    width = PANE_MS if k_ms < pane_end + DAY_MS else 4 * PANE_MS if k_ms < pane_end + 90 * DAY_MS else DAY_MS
    return (k_ms // width + 1) * width


rows = st.builds(
    lambda n, values: (n, values),
    st.integers(1, 3),
    st.lists(st.integers(-(2**95), 2**95), min_size=1, max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.sampled_from(
        [
            Shape(),
            Shape(sum=True),
            Shape(extremes=True),
            Shape(sum=True, extremes=True),
            Shape(sum=True, last=True, extremes=True),
            Shape(sketch=True),
        ]
    ),
    cells=st.lists(
        st.dictionaries(st.integers(1, 50), st.lists(st.integers(-(2**95), 2**95), max_size=3), max_size=4), max_size=30
    ),
    until=st.sampled_from([FOREVER, 0, 10, 25, 50]),
)
def test_a_tally_is_a_total(shape: Shape, cells: list[dict[int, list[int]]], until: int) -> None:
    """Reading cells by the column gives what reading them one by one gives, to the last bit."""
    tally, total = Tally(shape), Total(shape)
    pairs = []
    for number, cell in enumerate(cells):
        made: dict[int, Row] = {}
        for end, values in cell.items():
            made[end] = Row()
            for i, one in enumerate(values):
                made[end].add_value(one, end * 1000 + i, bytes(16))
        encoded = encode(shape, 7, made)
        pairs.append((b"before" + number.to_bytes(4, "big"), encoded))
        total.add(encoded, until, 0)
    tally.add(pairs, 1, until, 0)
    assert tally.n == total.row.n
    if shape.sum:
        assert tally.sum == total.row.sum
    if shape.extremes:
        assert (tally.low, tally.high) == (total.row.low, total.row.high)
    if shape.last:
        assert tally.last == total.row.last
    if shape.sketch:
        assert tally.sketch == (total.row.sketch or {})
    assert Tally.unpack(shape, tally.pack()).pack() == tally.pack()


members = st.one_of(
    st.sets(st.integers(0, 300), min_size=1, max_size=5),
    st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    st.builds(
        lambda start, n: set(range(start, start + n)), st.integers(0, 100_000), st.sampled_from([100, 4096, 4097, 9000])
    ),
)


@settings(max_examples=80, deadline=None)
@given(
    cells=st.lists(st.dictionaries(st.integers(1, 50), members, max_size=4), max_size=20),
    until=st.sampled_from([FOREVER, 25]),
)
def test_members_read_by_the_column_are_the_members(cells: list[dict[int, set[int]]], until: int) -> None:
    """Every container of the roaring format is read, in whichever bucket it lies."""
    shape = Shape(distinct=True)
    tally, wanted, n = Tally(shape), set(), 0
    pairs = []
    for number, cell in enumerate(cells):
        made = {end: Row() for end in cell}
        for end, numbers in cell.items():
            made[end].members, made[end].n = BitMap(numbers), len(numbers)
            if end <= until:
                wanted |= numbers
                n += len(numbers)
        pairs.append((number.to_bytes(4, "big"), encode(shape, 0, made)))
    tally.add(pairs, 1, until, 5)
    assert set(tally.members.get(5, ())) == wanted and tally.n == n
    assert not len(bitmaps.buckets([]).ends)


def test_a_late_record_moves_the_corrected_past_only() -> None:
    """S1: as_shown 11:00 is 1 before and after the late record; corrected 11:00 goes from 1 to 2; as_shown 12:15 is 2."""
    day = instant("2013-03-01T00:00:00Z")
    hour = 4 * PANE_MS
    first = (sale("e1", day + 10 * hour, code="A"), day + 10 * hour + 60_000)
    late = (sale("e2", day + 10 * hour, code="A"), day + 12 * hour)
    for events, corrected in (([first], 1), ([first, late], 2), ([late, first], 2)):
        driver = driven(events)
        assert value(driver, "sales", at_ms=day + 11 * hour, basis="as_shown")["value"] == 1
        assert value(driver, "sales", at_ms=day + 11 * hour)["value"] == corrected
    assert value(driver, "sales", at_ms=day + 12 * hour + PANE_MS, basis="as_shown")["value"] == 2
    assert value(driver, "sales", at_ms=day + 12 * hour + PANE_MS - 1, basis="as_shown")["value"] == 1


def test_a_merge_joins_now_and_not_then() -> None:
    """Two companies become one by an event that names both keys; as_shown before it still shows two."""
    events = [(sale(f"a{i}", START + i * DAY_MS, code="A"), START + i * DAY_MS) for i in range(3)]
    events += [(sale(f"n{i}", START + i * DAY_MS, name="Alpha"), START + i * DAY_MS) for i in range(4)]
    merged = START + 10 * DAY_MS
    driver = driven([*events, (sale("both", merged, code="A", name="Alpha"), merged)])
    by_code, by_name = (value(driver, "sales", company=key) for key in ("code:A", "name:Alpha"))
    assert by_code == by_name and by_code["value"] == 8
    before = {"at_ms": merged - DAY_MS, "basis": "as_shown"}
    assert value(driver, "sales", company="code:A", **before)["value"] == 3
    assert value(driver, "sales", company="name:Alpha", **before)["value"] == 4
    rows = run(Questions(driver.reader).breakdown(Question(metric="sales", now_ms=NOW), "company"))["rows"]
    assert [(row["label"], row["value"]) for row in rows] == [("Alpha", 8)]
    then = run(Questions(driver.reader).breakdown(Question(metric="sales", now_ms=NOW, **before), "company"))["rows"]
    assert sorted(row["value"] for row in then) == [3, 4]


def test_distinct_is_exact_over_partitions() -> None:
    """Who buys from several companies counts once for all of them, whichever partitions they lie in."""
    events = [(sale(f"{c}{p}", START, code=c, mail=p), START) for c in "ABCDEF" for p in "xyz"]
    for partitions in (1, 4):
        driver = driven(events, partitions)
        assert value(driver, "buyers")["value"] == 3
        assert value(driver, "buyers", company="code:A")["value"] == 3
        rows = run(Questions(driver.reader).breakdown(Question(metric="buyers", now_ms=NOW), "company"))["rows"]
        assert [row["value"] for row in rows] == [3] * 6


def test_dimensions_by_every_family() -> None:
    """No, one, some and all dimensions: every choice equals counting, filters and breakdown alike."""
    events = random_sales(7, 90)
    driver = driven(events)
    questions = Questions(driver.reader)
    for fixed in (
        {},
        {"shop": "süd"},
        {"kind": "k1"},
        {"till": "2"},
        {"shop": "north", "till": "1"},
        {"shop": "", "kind": "k2", "till": "1"},
    ):
        some = [e["data"] for e, _ in events if all(e["data"][name] == one for name, one in fixed.items())]
        assert value(driver, "sales", dims=fixed)["value"] == (len(some) or None)
        for by in {"shop", "kind", "till"} - set(fixed):
            for window in ("all", "30d"):
                asked = Question(metric="sales", now_ms=NOW, dims=fixed, at_ms=START + 30 * DAY_MS, window=window)
                rows = run(questions.breakdown(asked, by))["rows"]
                wanted: dict[str, int] = {}
                for e, _ in events:
                    if (
                        all(e["data"][name] == one for name, one in fixed.items())
                        and instant(e["time"]) < START + 30 * DAY_MS
                    ):
                        wanted[e["data"][by]] = wanted.get(e["data"][by], 0) + 1
                assert {row["key"]: row["value"] for row in rows} == wanted


def test_a_series_is_its_values() -> None:
    """Each point equals the value of its window; points behind T are empty."""
    driver = driven(random_sales(11, 80))
    questions = Questions(driver.reader)
    for tz in ("UTC", "Asia/Kathmandu"):
        at_ms = START + 9 * DAY_MS + 6 * 3_600_000
        asked = Question(metric="sales", now_ms=NOW, at_ms=at_ms, tz=tz)
        points = run(questions.series(asked, START, START + 12 * DAY_MS, "1d"))["points"]
        assert len(points) == 12
        for point in points[:9]:
            end = instant(point["end"])
            assert point["value"] == value(driver, "sales", at_ms=end, window="1d")["value"]
        assert [point["value"] for point in points[10:]] == [None, None]


def test_formulas_take_nothing_as_zero_or_null() -> None:
    """A count without events is 0 in a formula and null alone; a mean without values makes a formula null."""
    driver = driven(
        [(sale("a", START, code="A", amount=3.0), START), (sale("b", START + DAY_MS, code="B"), START + DAY_MS)]
    )
    assert value(driver, "dear_sales") | {"value": None, "reason": "no_events"} == value(driver, "dear_sales")
    assert value(driver, "dear_rate")["value"] == 0.0
    assert value(driver, "dear_rate", window="1h")["reason"] == "division_by_zero"
    assert value(driver, "mean_twice")["value"] == 6.0
    assert value(driver, "mean_twice", company="code:B")["reason"] == "no_events"


def test_finality_follows_what_the_sources_have_sent() -> None:
    """open until the source has passed the end; provisional for 14 days; then final, or corrected by what came later."""
    events = [(sale(f"e{i}", START + i * DAY_MS, code="A"), START + i * DAY_MS) for i in range(31)]
    at = {"at_ms": START + 10 * DAY_MS}
    driver = driven(events)
    assert value(driver, "sales")["finality"] == "open"
    assert value(driver, "sales", at_ms=START + 31 * DAY_MS)["finality"] == "open"
    assert value(driver, "sales", **at, now_ms=START + 23 * DAY_MS)["finality"] == "provisional"
    assert value(driver, "sales", **at)["finality"] == "final"
    late = driven([*events, (sale("late", START + 5 * DAY_MS, code="A"), START + 40 * DAY_MS)])
    assert value(late, "sales", **at)["finality"] == "corrected"
    assert value(late, "sales", **at, basis="as_shown")["value"] == 10
    got = value(driver, "sales", **at)
    assert got["complete_to"] == written(START + 30 * DAY_MS) and got["version"] and got["unit"] is not None


def test_organisations_do_not_meet() -> None:
    """Two organisations with the same definitions and keys never see each other's numbers, companies or MetaKeys."""
    events = [(sale(f"e{i}", START, org, code="A", mail="x"), START) for i in range(3) for org in ("acme", "other")]
    events.append((sale("more", START, "other", code="B", mail="y"), START))
    driver = driven(events, orgs=("acme", "other"))
    assert value(driver, "sales", org="acme")["value"] == 3 and value(driver, "sales", org="other")["value"] == 4
    assert value(driver, "buyers", org="acme")["value"] == 1
    questions = Questions(driver.reader)
    assert len(run(questions.companies("acme").all())) == 1
    theirs = value(driver, "sales", org="other", company="code:A")["company"]
    with pytest.raises(UnknownCompany):
        value(driver, "sales", org="acme", company=theirs)
    with pytest.raises(UnknownCompany):
        value(driver, "sales", org="acme", company="code:B")
    with pytest.raises(UnknownOrganisation, match="say which"):
        value(driver, "sales")


def test_a_person_is_no_company() -> None:
    """The MetaKey of a person is refused where a company is asked for."""
    driver = driven([(sale("a", START, mail="x"), START)])
    leaf = keys.leaf(driver.org_keys["acme"], "person", "mail", "x")
    with pytest.raises(UnknownCompany, match="is a person"):
        value(driver, "sales", company=keys.metakey(leaf))
    assert value(driver, "sales")["value"] == 1
    assert run(Questions(driver.reader).breakdown(Question(metric="sales", now_ms=NOW), "company"))["rows"] == []


def test_a_coarse_grain_is_refused_where_it_does_not_fit() -> None:
    """A metric by the day answers days of UTC and nothing finer."""
    driver = driven([(sale("a", START, code="A"), START)])
    assert value(driver, "daily", at_ms=START + DAY_MS)["value"] == 1
    with pytest.raises(GrainTooCoarse):
        value(driver, "daily", at_ms=START + DAY_MS + 3_600_000)
    with pytest.raises(GrainTooCoarse):
        value(driver, "daily", at_ms=START + 2 * DAY_MS, window="day", tz="Europe/Berlin")


def test_formulas_of_formulas_are_computed_once() -> None:
    """Sixty formulas that each name the two before them are sixty computations, not two to the sixtieth."""
    lines = [f"  f{i}: {{formula: f{i - 1} + f{i - 2} * 0.0}}" for i in range(2, 60)]
    more = "\n".join(["  f0: {formula: sales * 1.0}", "  f1: {formula: f0 + 1.0}", *lines]).encode()
    driver = Driver(SECRET, partitions=2)
    driver.apply("acme", {**BUNDLE, "milepost.yaml": BUNDLE["milepost.yaml"] + more + b"\n"}, START, k_ms=START)
    driver.produce(sale("a", START, code="A"), NOW, known_ms=START)
    driver.run()
    assert value(driver, "f59")["value"] == 2.0


REFUSED: list[tuple[type[QuestionError], dict[str, Any], str | None]] = [
    (UnknownMetric, {"metric": "sale"}, "sales"),
    (UnknownMetric, {"metric": "x" * 10_000}, None),
    (UnknownCompany, {"company": "code:AA"}, "code:A"),
    (UnknownCompany, {"company": "cod:A"}, "code:A"),
    (UnknownCompany, {"company": ""}, None),
    (UnknownDimension, {"dims": {"shops": "north"}}, "shop"),
    (BadParameter, {"dims": {"shop": "\ud800"}}, None),
    (BadParameter, {"dims": {"shop": "x" * 257}}, None),
    (BadParameter, {"company": "code:\ud800"}, None),
    (UnknownOrganisation, {"org": "acm"}, "acme"),
]


@pytest.mark.parametrize(("error", "asked", "guess"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_unknown_is_refused_with_a_guess(
    error: type[QuestionError], asked: dict[str, Any], guess: str | None
) -> None:
    """An unknown name is refused by its class, with what was probably meant."""
    driver = driven([(sale("a", START, code="A", shop="north"), START)])
    with pytest.raises(error) as refused:
        value(driver, asked.pop("metric", "sales"), **asked)
    assert refused.value.guess == guess


def test_guesses_are_bounded() -> None:
    """A guess is sought among a bounded number of names, and never for a text that is too long to be one."""
    assert closest("departure", ["departures", "arrivals"]) == "departures"
    assert closest("x" * 1000, ["x" * 999]) is None
    names: Iterator[str] = (f"name{i}" for i in iter(int, 1))
    assert closest("zzzz", names) is None


def test_the_least_key_behind_a_prefix() -> None:
    """`after` bounds every key that begins with a prefix and no other."""
    assert after(b"a") == b"b" and after(b"a\xff\xff") == b"b"
    assert after(b"\xff" * 8) > b"\xff" * 60


def test_definitions_before_the_first_are_said_to_be_backfilled() -> None:
    """as_shown before the first definition uses the first one and says so."""
    driver = driven([(sale("a", START, code="A"), START)])
    assert value(driver, "sales", basis="as_shown", at_ms=START - DAY_MS)["definition"] == "backfilled"
    assert value(driver, "sales", basis="as_shown", at_ms=START + DAY_MS)["definition"] == "current"
