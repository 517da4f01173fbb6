"""Explain and diff: the events behind a number are the oracle's, and what changed it adds up."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.topology import evidence
from milepost.topology.aggregates import scaled
from milepost.topology.bases import instant
from milepost.topology.driver import Driver
from milepost.topology.explain import Explanations
from milepost.topology.questions import Question
from milepost.topology.refusals import BadParameter, QuestionError
from milepost.topology.steps import run
from tests.oracle import behind
from tests.oracle.oracle import Refused
from tests.support.events import METRICS, NAMES, ORG, WINDOWS, ZONES, Scenario, seeded
from tests.support.small import DAY, FILES, HOUR, T0, visit
from tests.support.versus import engine_of, oracle_of
from tests.topology.test_revisions import MINUTE, TEN, amended, engine

SCENARIOS = st.builds(seeded, st.integers(0, 2**32), size=st.integers(20, 70), partitions=st.sampled_from((3, 1, 4)))
MANY = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@st.composite
def sides(draw: Any, scenario: Scenario) -> tuple[str, str | None, list[dict[str, Any]]]:
    """(metric, company, two questions about it)."""
    moments = scenario.moments
    shared = {"now": scenario.now_ms, "org": ORG, "window": draw(st.sampled_from(("all", "all", *WINDOWS)))}
    shared |= {"tz": draw(st.sampled_from(ZONES)), "dims": draw(st.sampled_from(({}, {}, {"region": "north"})))}
    asked = []
    for _ in range(2):
        basis = draw(st.sampled_from(("as_shown", "as_shown", "corrected", "latest")))
        at = {} if basis == "latest" else {"at": draw(st.sampled_from(moments)) + draw(st.sampled_from((0, HOUR, DAY)))}
        asked.append({**shared, "basis": basis, **at})
    return draw(st.sampled_from(METRICS)), draw(st.sampled_from((None, *NAMES))), asked


def question(metric: str, company: str | None, asked: dict[str, Any]) -> Question:
    return Question(
        metric=metric, company=company, now_ms=asked["now"], org=asked["org"], at_ms=asked.get("at"),
        basis=asked["basis"], window=asked["window"], tz=asked["tz"], dims=asked["dims"],
    )  # fmt: skip


def pages(made: Driver, limit: int, ask: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first answer and the rows of all pages."""
    first = told = run(ask(Explanations(made.reader), None, limit))
    rows = list(first["rows"])
    while told["next"] is not None:
        assert len(told["rows"]) == limit
        told = run(ask(Explanations(made.reader), told["next"], limit))
        rows += told["rows"]
    return first, rows


@MANY
@given(SCENARIOS, st.data(), st.sampled_from((1, 3, 1000)))
def test_the_events_behind_a_number_are_the_oracles(scenario: Scenario, data: st.DataObject, limit: int) -> None:
    """Every question is explained by the events that the oracle counts, page by page, and they add up to the number."""
    made, oracle = engine_of(scenario, chunk=7), oracle_of(scenario)
    for _ in range(4):
        metric, company, asked = data.draw(sides(scenario))
        try:
            expected = behind.events(oracle, metric, company, asked[0])
        except (LookupError, Refused):
            with pytest.raises(QuestionError):
                run(Explanations(made.reader).explain(question(metric, company, asked[0]), None, limit))
            continue
        one = question(metric, company, asked[0])
        first, rows = pages(made, limit, lambda of, behind_, many, one=one: of.explain(one, behind_, many))
        value = run(Explanations(made.reader).value(one))
        assert first["agrees"] is True and first["recomputed"] == first["value"] == value["value"]
        assert first["reason"] == value["reason"]
        found = [
            (name, (row["source"], row["id"], row["revision"], row["repair"]), _exact(row["adds"]))
            for row in rows
            for name in row["metrics"]
        ]
        assert len(found) == len(set(found)) and set(found) == expected
        times = [instant(row["time"]) for row in rows]
        assert times == sorted(times)


@MANY
@given(SCENARIOS, st.data(), st.sampled_from(("day", "6h", "week")))
def test_a_point_of_a_series_is_explained(scenario: Scenario, data: st.DataObject, every: str) -> None:
    """Every point, on each basis and in each zone, is explained by events that happened in it and add up to it."""
    made = engine_of(scenario, chunk=7)
    metric, company, (asked, _) = data.draw(sides(scenario))
    one, day = question(metric, company, asked), data.draw(st.sampled_from(scenario.moments)) // DAY * DAY
    explanations = Explanations(made.reader)
    try:
        points = run(explanations.series(one, day - 3 * DAY, day + 4 * DAY, every))["points"]
    except QuestionError:
        with pytest.raises(QuestionError):
            run(explanations.explain(one, None, 1000, (day - 3 * DAY, day - 3 * DAY + HOUR // 2)))
        return
    for point in points:
        stretch = instant(point["start"]), instant(point["end"])
        told = run(explanations.explain(one, None, 1000, stretch))
        assert (told["value"], told["reason"], told["agrees"]) == (point["value"], point["reason"], True)
        assert all(stretch[0] <= instant(row["time"]) < stretch[1] for row in told["rows"])
        assert bool(told["rows"]) or not any(row["counted"] for row in told["operands"])


def test_a_stretch_that_cannot_be_read_is_refused() -> None:
    """One that ends before it begins, or that begins off the quarter hour."""
    made = engine()
    ask = Question(metric="visits", now_ms=T0 + 400 * DAY)
    for stretch in ((T0 + DAY, T0), (T0, T0), (T0 + MINUTE, T0 + HOUR)):
        with pytest.raises(BadParameter):
            run(Explanations(made.reader).explain(ask, None, 5, stretch))


@MANY
@given(SCENARIOS, st.data(), st.sampled_from((2, 1000)))
def test_what_changed_a_number_is_the_oracles(scenario: Scenario, data: st.DataObject, limit: int) -> None:
    """Between any two moments and bases the causes are the oracle's, and they add up to the difference."""
    made, oracle = engine_of(scenario, chunk=7), oracle_of(scenario)
    for _ in range(4):
        metric, company, asked = data.draw(sides(scenario))
        questions = [question(metric, company, one) for one in asked]
        try:
            expected = behind.causes(oracle, metric, company, *asked)
        except (LookupError, Refused):
            with pytest.raises(QuestionError):
                run(Explanations(made.reader).diff(*questions, None, limit))
            continue
        first, rows = pages(made, limit, lambda of, behind_, many, two=questions: of.diff(*two, behind_, many))
        found = {
            one["metric"]: {
                cause: (told["added"], told["removed"], told["changed"], _exact(told["sum"]))
                for cause, told in one["causes"].items()
            }
            for one in first["operands"]
        }
        assert found == expected
        assert [one["metric"] for one in first["operands"] if one["adds_up"] is False] == []
        for end, one in zip(("before", "after"), questions, strict=True):
            assert first[end]["value"] == run(Explanations(made.reader).value(one))["value"]
        totals: dict[tuple[str, str], Fraction] = {}
        for row in rows:
            for name in row["metrics"]:
                totals[name, row["cause"]] = totals.get((name, row["cause"]), Fraction(0)) + _exact(row["adds"])
        wanted = {(name, cause): told[3] for name, some in expected.items() for cause, told in some.items()}
        assert totals == wanted


def _exact(value: float) -> Fraction:
    return Fraction(scaled(value, 6), 10**6)


def diff(made: Driver, metric: str, at: int, to: int | None = None, **more: Any) -> dict[str, Any]:
    """What changed from what was shown at one moment to another, or to now."""
    before = Question(metric=metric, now_ms=T0 + 400 * DAY, at_ms=at, basis="as_shown", **more)
    after = Question(
        metric=metric, now_ms=T0 + 400 * DAY, at_ms=to, basis="latest" if to is None else "as_shown", **more
    )
    return run(Explanations(made.reader).diff(before, after, None, 100))


def test_each_cause_by_hand() -> None:
    """Late, amended, voided and merged events, and those of the time in between, each under its cause."""
    kept, amend, void = (visit(f"e{i}", TEN, minutes=10.0 * i + 10) for i in range(3))
    late, newer = visit("late", TEN, minutes=1.0), visit("newer", TEN + 3 * HOUR, minutes=2.0)
    other = visit("other", TEN, company="2", minutes=5.0, domain="a.example")
    link = visit("link", TEN + 3 * HOUR, minutes=0.5, domain="a.example")
    made = engine(
        *[(one, TEN + MINUTE) for one in (kept, amend, void, other)], (late, TEN + 4 * HOUR), (newer, TEN + 4 * HOUR),
        (amended(amend, 1, data={"minutes": 25.0}), TEN + 4 * HOUR), (amended(void, 1, void=True), TEN + 4 * HOUR),
        (link, TEN + 4 * HOUR),
    )  # fmt: skip
    told = diff(made, "minutes_sum", TEN + HOUR, company="crm_id:1")
    assert (told["before"]["value"], told["after"]["value"]) == (60, 43.5)
    (line,) = told["operands"]
    sums = {cause: (one["added"], one["removed"], one["sum"]) for cause, one in line["causes"].items()}
    assert sums == {
        "late": (1, 0, 1), "amended": (1, 1, 5), "voided": (0, 1, -30), "merged": (1, 0, 5), "period": (2, 0, 2.5),
    }  # fmt: skip
    assert line["adds_up"] is True
    back = diff(made, "minutes_sum", TEN + 9 * HOUR, TEN + HOUR, company="crm_id:1")["operands"][0]
    assert {cause: one["sum"] for cause, one in back["causes"].items()} == {
        "late": -1, "amended": -5, "voided": 30, "unmerged": -5, "period": -2.5,
    }  # fmt: skip
    assert back["adds_up"] is True


def test_another_definition_is_a_cause() -> None:
    """An event that only one definition counts changes the number by definition."""
    made = engine((visit("e1", TEN, minutes=20.0), TEN), (visit("e2", TEN, minutes=40.0), TEN))
    changed = {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"> 30.0", b"> 10.0")}
    made.apply("acme", changed, TEN + 2 * HOUR)
    made.produce(visit("e3", TEN, minutes=20.0), TEN + 3 * HOUR, known_ms=TEN + 3 * HOUR)
    made.run()
    told = diff(made, "long_visits", TEN + HOUR)
    assert told["before"]["version"] != told["after"]["version"]
    assert set(told["operands"][0]["causes"]) == {"definition"} and told["operands"][0]["adds_up"] is True


def test_a_definition_under_which_nothing_was_counted_has_a_cause_too() -> None:
    """Beside another organisation the leaves that have rows are read: where there are none, the causes still add up."""
    made = engine((visit("e1", TEN, minutes=20.0), TEN))
    for org in ("acme", "beta"):
        changed = {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"> 30.0", b"> 10.0")}
        made.apply(org, changed, TEN + 2 * HOUR)
    made.produce(visit("e2", TEN, minutes=20.0), TEN + 3 * HOUR, known_ms=TEN + 3 * HOUR)
    made.run()
    (line,) = diff(made, "long_visits", TEN + HOUR, org="acme")["operands"]
    assert (line["before"], line["after"], line["adds_up"]) == (None, 1, True)
    assert line["causes"]["definition"]["added"] == 1


def test_a_number_of_too_many_events_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the number stands, and nothing is claimed about it."""
    made = engine(*[(visit(f"e{i}", TEN), TEN) for i in range(12)], partitions=1)
    ask = Question(metric="visits", now_ms=T0 + 400 * DAY)
    assert run(Explanations(made.reader).explain(ask, None, 5))["agrees"] is True
    monkeypatch.setattr(evidence, "EVENTS_MAX", 11)
    told = run(Explanations(made.reader).explain(ask, None, 5))
    assert (told["value"], told["agrees"], told["recomputed"]) == (12, None, None) and "more than" in told["limited"]


def test_cells_that_do_not_agree_are_told() -> None:
    """Positive control: a fact that its cells do not count makes `agrees` false."""
    made = engine((visit("e", TEN), TEN), partitions=1)
    cells = made.state["measure", 0].stores["days"]
    for key, row in list(cells.scan(b"", b"\xff" * 64)):
        cells.put(key, row[:12] + (5).to_bytes(8, "big") + row[20:])
    assert (
        run(Explanations(made.reader).explain(Question(metric="visits", now_ms=T0 + 400 * DAY), None, 5))["agrees"]
        is False
    )


def test_a_page_begins_only_where_one_ended() -> None:
    """`next` is what an answer gave."""
    made = engine((visit("e", TEN), TEN))
    for text in ("12", "zz", "00" * 99):
        with pytest.raises(BadParameter, match="next"):
            run(Explanations(made.reader).explain(Question(metric="visits", now_ms=T0 + 400 * DAY), text, 5))
