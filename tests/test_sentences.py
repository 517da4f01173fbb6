"""Sentences: what semantics S1, S2, S5, S6 and S9 say shall be tested, each a test that has the sentence as its docstring.

S1  a three-year-old event lands in its pane, the as-shown past …        here
    … within a second                                                    `make bench`, part `old`: ops/bench/meaning.py
    … its point of a series says `corrected`                             here
    … the chart marks the point corrected                                page/test_page_hands
    further ahead than `future_skew`: dead letter `future_event` …       here
    e1 at 10:00 known 10:01, then e2 known 12:00                         topology/test_revisions, agents/test_as_shown
    any permutation of arrival with the same k gives equal digests       topology/test_revisions
    max: 10 amended to 7 gives 7, and 10 as shown before                 topology/test_revisions
S2  random links and unlinks against the oracle at random T              here; the graph alone: topology/test_graph
    merge then unmerge leaves every answer as it was                     topology/test_identity, agents/test_merge_by_hand
    the digest of cells is the same before and after a merge             topology/test_identity
    as_shown before the merge still shows two                            topology/test_identity
    April stays with the April employer                                  topology/test_identity
S5  equality with the oracle under random merges                         here
S6  100 shuffles, identical histories                                    here; a year of flights: faults/test_shuffles
    a late login moves achieved_at three days back, …                    topology/test_recognition
    the source stops before the deadline: `unknown_stale`                topology/test_recognition
S9  DST days in Europe/Berlin, Asia/Kathmandu, America/St_Johns          ops/test_demo_year
    replaying 2013 data today                                            here
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG as AIRPORT
from milepost.ops.flights import FlightEvent, read_flights
from milepost.topology.bases import written
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.explain import Explanations
from milepost.topology.panes import PANE_MS
from milepost.topology.questions import Question, Questions
from milepost.topology.recognitions import Recognition
from milepost.topology.refusals import QuestionError
from milepost.topology.steps import run
from tests.oracle.oracle import Oracle, Refused
from tests.support import flights_expected as csv
from tests.support.invariants import Near, held, same_answers, same_number
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, by_hand, iso, visit
from tests.support.versus import oracle_over
from tests.topology.test_recognition import days, engine, plan, recognised

MINUTE: Final = 60_000
YEAR: Final = 365 * DAY
NOW: Final = T0 + 30 * DAY
Sent = tuple[dict[str, Any], int]


def asked(made: Driver, metric: str, now_ms: int = NOW, **more: Any) -> Mapping[str, Any]:
    return run(Questions(made.reader).value(Question(metric=metric, now_ms=now_ms, **more)))


# --- S1


def known(*sent: Sent, now_ms: int = NOW) -> Driver:
    """The small organisation's tables after these events, each known at its time, and a tick now."""
    made = Driver(SECRET, partitions=3)
    made.apply(ORG, FILES, T0 - 4 * YEAR)
    for event, k_ms in sent:
        made.produce(event, now_ms, known_ms=k_ms)
    made.run()
    made.tick(now_ms)
    made.run()
    return made


def test_a_three_year_old_event_lands_in_its_pane() -> None:
    """A three-year-old event lands in its pane, the as-shown past does not move, and the chart's point says `corrected`;
    what changed it says when, and which event."""
    then = T0 - 3 * YEAR
    day = {"from_ms": then - DAY, "to_ms": then + 2 * DAY}
    early, after = (visit("early", then + HOUR), then + HOUR), (visit("after", T0), T0)
    late = (visit("late", then + 2 * HOUR), T0 + DAY)
    before, behind = known(early, after), known(early, after, late)
    points = []
    for made in (before, behind):
        question = Question(metric="visits", now_ms=NOW)
        series = run(Questions(made.reader).series(question, day["from_ms"], day["to_ms"], "1d"))
        points.append([(one["value"], one["finality"]) for one in series["points"]])
        hour = run(Questions(made.reader).series(question, then + 2 * HOUR, then + 2 * HOUR + PANE_MS, "15m"))["points"]
        assert [one["value"] for one in hour] == [None if made is before else 1]
    assert points == [
        [(None, "final"), (1, "final"), (None, "final")], [(None, "final"), (2, "corrected"), (None, "final")],
    ]  # fmt: skip
    for at in (then + DAY, then + 2 * YEAR, T0, T0 + DAY):
        shown = [asked(made, "visits", at_ms=at, basis="as_shown")["value"] for made in (before, behind)]
        assert shown[0] == shown[1], iso(at)
    told = run(
        Explanations(behind.reader).diff(
            Question(metric="visits", now_ms=NOW, at_ms=then + DAY, basis="as_shown"),
            Question(metric="visits", now_ms=NOW, at_ms=then + DAY, basis="corrected"),
            None,
            10,
        )
    )
    assert told["operands"][0]["causes"]["late"]["added"] == 1
    assert [(one["id"], one["cause"], one["known"]) for one in told["rows"]] == [("late", "late", written(T0 + DAY))]


def test_further_ahead_than_future_skew_is_a_dead_letter() -> None:
    """Further ahead than `future_skew` (default 10 min): dead letter `future_event`, repairable: sent again when its time
    has come, or repaired, it counts."""
    ahead = visit("ahead", T0 + 10 * MINUTE + 1)
    on_the_edge = visit("edge", T0 + 10 * MINUTE)
    made = known((ahead, T0), (on_the_edge, T0))
    assert [one["reason"] for one in made.dead_letters] == ["future_event"]
    assert asked(made, "visits")["value"] == 1
    assert asked(known((ahead, T0), (ahead, T0 + 1)), "visits")["value"] == 1
    repaired = {**ahead, "time": iso(T0), "repair": 1}
    assert asked(known((ahead, T0), (repaired, T0)), "visits")["value"] == 1


# --- S2 and S5: the small organisation, with persons

METRICS: Final = (
    "uses", "people", "minutes_sum", "minutes_avg", "minutes_min", "minutes_max", "minutes_last", "half", "rate",
)  # fmt: skip
MERGED: Final = {
    "milepost.yaml": b"""
sources:
  app:
    types: {use: {schema: Use}}
    identities:
      - {entity: company, key: code, from: data.code, required: true}
      - {entity: person, key: email, from: data.email}
signals:
  used: {on: use, fields: {minutes: data.minutes}}
  long: {on: use, when: data.minutes > 50.0}
metrics:
  uses: {from: used, aggregate: count}
  long_uses: {from: long, aggregate: count}
  minutes: {from: used, aggregate: [sum(minutes), avg(minutes), min(minutes), max(minutes), last(minutes)]}
  half: {from: used, aggregate: "percentile(minutes, 50)"}
  people: {from: used, aggregate: distinct(person)}
  rate: {formula: long_uses / uses}
""",
    "schemas/Use.avsc": b"""
{"type": "record", "name": "Use", "fields": [
  {"name": "code", "type": "string"},
  {"name": "email", "type": ["null", "string"], "default": null},
  {"name": "minutes", "type": "double", "default": 1.0}]}
""",
}
CODES, PEOPLE = ("A", "B", "C", "D"), tuple("pqrstu")


def use(chance: random.Random, number: int) -> list[Sent]:
    """An event, at times late, amended, moved or taken back."""
    t_ms = T0 + chance.randrange(0, 3 * DAY, MINUTE)
    k_ms = t_ms + chance.choice((0, MINUTE, 5 * HOUR, 2 * DAY))
    data = {"code": chance.choice(CODES), "email": chance.choice(PEOPLE), "minutes": float(chance.randrange(100))}
    event = {"org": ORG, "source": "app", "id": f"e{number}", "type": "use", "time": iso(t_ms), "data": data}
    if chance.random() < 0.7:
        return [(event, k_ms)]
    again = {**event, "revision": 1, "void": chance.random() < 0.4, "data": {**data, "minutes": 7.0, "email": "v"}}
    return [(event, k_ms), (again, k_ms + chance.randrange(DAY))]


def decision(chance: random.Random, number: int) -> Sent:
    """A link or unlink by hand, of companies or of persons."""
    k_ms = T0 + chance.randrange(4 * DAY)
    entity, kind, some = chance.choice((("company", "code", CODES), ("person", "email", PEOPLE)))
    what = chance.choice(("link", "link", "unlink"))
    keys = [f"{kind}:{one}" for one in chance.sample(some, 2 if what == "link" else 1)]
    return by_hand(what, f"d{number}", k_ms, entity=entity, keys=keys), k_ms


def merged(seed: int, *, decisions: int, chunk: int = 7) -> Driver:
    """Uses and decisions in an order of arrival of their own."""
    chance = random.Random(seed)
    sent = [one for number in range(30) for one in use(chance, number)]
    sent += [decision(chance, number) for number in range(decisions)]
    chance.shuffle(sent)
    made = Driver(SECRET, partitions=chance.choice((1, 3)), chunk=chunk, seed=seed)
    made.apply(ORG, MERGED, T0 - HOUR)
    for event, k_ms in sent:
        made.produce(event, NOW, known_ms=k_ms)
    made.run()
    return made


def differences(made: Driver, oracle: Oracle, moments: Sequence[tuple[str | None, int | None]]) -> list[str]:
    """Where an answer of any metric, of all or of one company, is another than the oracle's."""
    mine: dict[Any, Any] = {}
    theirs: dict[Any, Any] = {}
    for metric in METRICS:
        for company in (None, *(f"code:{one}" for one in CODES)):
            for basis, at in moments:
                question = metric, company, basis, at
                try:
                    answer = asked(made, metric, company=company, basis=basis, at_ms=at)
                    mine[question] = (answer["value"], answer["reason"])
                except QuestionError:
                    mine[question] = "refused"
                try:
                    wanted = oracle.value(metric, company, basis=basis, at=at, now=NOW, org=ORG)
                    value = Near(wanted.value) if metric == "half" else wanted.value
                    theirs[question] = (value, wanted.reason)
                except (LookupError, Refused):
                    theirs[question] = "refused"
    return same_answers(theirs, mine)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), ats=st.lists(st.integers(0, 5 * 96), min_size=2, max_size=2))
def test_random_links_and_unlinks_against_the_oracle_at_random_t(seed: int, ats: list[int]) -> None:
    """Random links and unlinks give the oracle's answers at random T."""
    made = merged(seed, decisions=14)
    oracle = oracle_over(made, SECRET, {made.load(MERGED).bundle_id: MERGED})
    moments = [(basis, T0 + at * PANE_MS) for at in ats for basis in ("corrected", "as_shown")]
    held(differences(made, oracle, moments))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), decisions=st.integers(1, 12))
def test_equality_with_the_oracle_under_random_merges(seed: int, decisions: int) -> None:
    """distinct, and the other states that do not add up, have equality with the oracle under random merges."""
    made = merged(seed, decisions=decisions)
    oracle = oracle_over(made, SECRET, {made.load(MERGED).bundle_id: MERGED})
    held(differences(made, oracle, [(None, None)]))


def test_what_these_merges_are_to_show_is_there() -> None:
    """Positive control: among a few seeds merges change answers of every metric, and a merge left out is found."""
    changed: set[str] = set()
    for seed in range(6):
        made, without = merged(seed, decisions=14), merged(seed, decisions=0)
        oracle = oracle_over(without, SECRET, {without.load(MERGED).bundle_id: MERGED})
        changed |= {
            one for one in METRICS if any(f"'{one}'" in fault for fault in differences(made, oracle, [(None, None)]))
        }
    assert changed == set(METRICS)


# --- S6


def shuffled(sent: Sequence[Sent], seed: int) -> list[Recognition]:
    """Everything that is said of a milestone when the same events come in another order."""
    order = list(sent)
    random.Random(seed).shuffle(order)
    found = recognised(engine(order, plan(), seed=seed), [(T0 + 25 * DAY) // PANE_MS])
    return sorted(found, key=lambda one: one.output(3))


def test_100_shuffles_have_identical_histories() -> None:
    """100 shuffles, identical histories: what is said of milestones does not depend on the order of arrival."""
    first, second, third = days(0.5, 1, 2)
    sent = [
        first, second, third, ({**third[0], "revision": 1, "void": True}, T0 + int(2.5 * DAY)),
        (visit("late", T0 + 2 * HOUR), T0 + 4 * DAY), (visit("c0-late", T0 + 2 * HOUR, "c0"), T0 + 9 * DAY),
        *days(0.7, 1.2, company="c1"), *days(3, 3.1, 3.2, company="c2"), *days(8, company="c3"),
        (by_hand("link", "link", T0 + 4 * DAY, keys=["crm_id:c0", "crm_id:c1"]), T0 + 4 * DAY),
        (by_hand("unlink", "unlink", T0 + 7 * DAY, keys=["crm_id:c1"]), T0 + 7 * DAY),
    ]  # fmt: skip
    one = shuffled(sent, 0)
    for seed in range(1, 100):
        assert shuffled(sent, seed) == one, f"seed {seed}"
    assert {said.cause for said in one} == {None, "late", "void", "merge", "unmerge"} and len(one) > 10
    assert shuffled(sent[:-1], 1) != one, "a control: without the unlink it is another history"


# --- S9

FIRST: Final = 1_357_000_000_000
YEAR_2013: Final = 1_356_998_400_000
TODAY: Final = 1_790_000_000_000
AIRLINES: Final = ("HA", "US")


@cache
def january() -> tuple[FlightEvent, ...]:
    """The first week's flights of two airlines."""
    return tuple(one for one in read_flights(week=True) if one.data.get("carrier") in AIRLINES)


def folded(clock_ms: int, known: Callable[[FlightEvent], int | None]) -> Driver:
    """The flights through an empty engine whose broker's clock stands at `clock_ms`."""
    made = Driver(SECRET, partitions=2, chunk=4000)
    made.apply(AIRPORT, demo_bundle(), clock_ms, k_ms=FIRST)
    for event in january():
        made.produce(orjson.loads(event.body()), clock_ms, known_ms=known(event))
    made.run()
    made.tick(clock_ms)
    made.run()
    return made


@cache
def in_2013() -> Driver:
    return folded(1_358_000_000_000, lambda one: one.k_ms)


@pytest.mark.parametrize("clock_ms", [TODAY, TODAY + 60 * YEAR], ids=["today", "in sixty years"])
def test_replaying_2013_data_today(clock_ms: int) -> None:
    """Replaying 2013 data today gives the numbers of 2013: nothing expires by the wall clock, nothing is too late, and
    what was shown then is shown again."""
    then, now = in_2013(), folded(clock_ms, lambda one: one.k_ms)
    assert digest(now.reader) == digest(then.reader)
    fresh = folded(clock_ms, lambda _: None)  # taken in today for the first time
    frame = csv.first_week(csv.read_csv())
    wanted = csv.expected(frame.filter(frame["carrier"].is_in(AIRLINES)))
    for carrier, numbers in wanted.by_company.items():
        for metric, value in numbers.items():
            for made in (now, fresh):
                answer = asked(made, metric, now_ms=clock_ms, company=f"carrier_code:{carrier}")
                assert same_number(value, answer["value"]), (carrier, metric)
    at = 1_357_300_800_000
    shown = [
        asked(made, "departures", now_ms=clock_ms, at_ms=at, basis="as_shown")["value"] for made in (then, now, fresh)
    ]
    assert shown[0] == shown[1] and shown[0] > 100 and shown[2] is None
    series = [
        run(Questions(made.reader).series(
            Question(metric="departures", now_ms=clock_ms, tz="America/St_Johns"), YEAR_2013 - DAY, YEAR_2013 + 9 * DAY, "1d"
        ))["points"]
        for made in (then, now, fresh)
    ]  # fmt: skip
    values = [[one["value"] for one in points] for points in series]
    assert values[0] == values[1] == values[2] and sum(one or 0 for one in values[0]) == wanted_departures(wanted)


def wanted_departures(wanted: csv.Expected) -> float:
    return sum(one["departures"] or 0 for one in wanted.by_company.values())
