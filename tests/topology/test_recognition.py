"""What is said of milestones, at each bucket end, against a walk over all of them over the raw log."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from milepost.schemas import keys
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from milepost.topology.recognitions import OF_STATES, Recognition, load
from tests.oracle.recognition import Teller
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, iso, visit
from tests.support.versus import oracle_over
from tests.support.walking import walked
from tests.topology.test_standings import DEADLINE, GRACE, MILESTONES, NOW, START, ZONE, date, history, text

CORRECTION = "milestone.corrected"
FIRST, LAST = (T0 - HOUR) // PANE_MS, NOW // PANE_MS
Sent = Sequence[tuple[dict[str, Any], int]]


def engine(sent: Sent, files: dict[str, bytes] | None = None, *, seed: int = 0) -> Driver:
    made = Driver(SECRET, partitions=3, chunk=7, seed=seed)
    made.apply(ORG, files or text(), T0 - HOUR)
    for event, k_ms in sent:
        made.produce(event, NOW, known_ms=k_ms)
    made.run()
    made.tick(NOW)
    made.run()
    return made


def recognised(made: Driver, cuts: Sequence[int] = (LAST,), first: int = FIRST, org: str = ORG) -> list[Recognition]:
    """Everything that is said up to each of `cuts`, one walk after the other, as a worker goes on."""
    return walked(made.reader, org, cuts, first)


def of(found: Sequence[Recognition], milestone: str, company: str = "c0") -> list[Recognition]:
    root = keys.leaf(keys.org_key(SECRET, ORG), "company", "crm_id", company)
    return [one for one in found if one.subject.milestone == milestone and one.subject.company == root]


Lines = dict[bytes, list[tuple[Any, ...]]]


def lines(found: Iterable[Recognition], name: str) -> Lines:
    """What was said of a milestone, by company."""
    mine: Lines = {}
    for one in sorted(found, key=lambda one: one.k):
        if one.subject.milestone == name:
            now = one.now
            mine.setdefault(one.subject.company, []).append(
                (one.k, one.kind, now.state, now.achieved_at, now.lapsed, one.recognised_at, one.first, one.heir)
            )
    return mine


def oracle_lines(made: Driver, name: str, last: int = LAST) -> Lines:
    """The same by the oracle's walk over every bucket end of the raw log."""
    oracle = oracle_over(made, SECRET, {made.load(text()).bundle_id: text()})
    milestone = {**MILESTONES[name], "name": ("growth", name), "start": START, "deadline": DEADLINE, "grace": GRACE}
    teller = Teller(oracle, milestone, ZONE, NOW)
    teller.walk(FIRST * PANE_MS, last * PANE_MS)
    return {
        root: [
            (
                one.k_ms // PANE_MS, one.kind, one.state,
                None if one.achieved_ms is None else one.achieved_ms // PANE_MS, one.lapses,
                one.recognised_ms // PANE_MS, one.first, one.heir,
            )
            for one in told
        ]
        for root, told in teller.told.items()
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_what_is_said_is_what_a_walk_over_all_bucket_ends_says(seed: int) -> None:
    """Kind, state, date, losses and recognised_at of each transition are the oracle's, whatever the order of arrival,
    through merges and their opposite, completions, ticks by hand, amendments and voids."""
    sent = history(seed)
    random.Random(seed).shuffle(sent)
    made = engine(sent, seed=seed)
    name = list(MILESTONES)[seed % len(MILESTONES)]
    assert lines(recognised(made), name) == oracle_lines(made, name), name


@pytest.mark.parametrize("seed", range(12))
def test_a_history_does_not_depend_on_order_or_on_when_it_is_looked_at(seed: int) -> None:
    """Shuffled arrivals with the same known times, and walks cut anywhere, say the same records."""
    sent = history(seed)
    whole = recognised(engine(sent))
    chance = random.Random(seed)
    chance.shuffle(sent)
    cuts = sorted({*chance.sample(range(FIRST, LAST), 5), LAST})
    again = recognised(engine(sent, seed=seed), cuts)
    outputs = [sorted(one.output(3) for one in found) for found in (whole, again)]
    assert outputs[0] == outputs[1] and len(outputs[0]) > len(MILESTONES)
    assert len({one.key for one in outputs[0]}) == len(outputs[0])
    assert [load(one.value or b"") for one in outputs[0]] == sorted(
        whole, key=lambda one: (one.output(3).topic, one.output(3).partition, one.key)
    )


def test_each_quarter_looked_at_says_the_same_as_leaps() -> None:
    """A walk that skips what nothing happened at says what a look at each bucket end says."""
    made = engine(history(5))
    each, leaps = recognised(made, range(FIRST, LAST + 1)), recognised(made)
    assert sorted(one.output(3) for one in each) == sorted(one.output(3) for one in leaps)


# --- by hand: three visits within five days


DEADLINE_MS, GRACE_MS = T0 + 5 * DAY, DAY
FINAL = (DEADLINE_MS + GRACE_MS) // PANE_MS


def plan(value: int = 3, op: str = ">=") -> dict[str, bytes]:
    """The small organisation with one milestone: so many visits, by the fifth day."""
    lines = f"""
milestones:
  used: {{kind: achieve, start: {date(T0)}, deadline: {date(DEADLINE_MS)}, grace: 1d, need: all,
         actions: {{visits: {{metric: visits, op: "{op}", value: {value}}}}}}}
plans:
  growth: {{bridge: "{ORG}/*", milestones: [used]}}
"""
    return {**FILES, "milepost.yaml": FILES["milepost.yaml"] + lines.encode()}


def days(*at: float, company: str = "c0", **data: Any) -> list[tuple[dict[str, Any], int]]:
    """Visits at so many days, known a minute later."""
    return [
        (visit(f"{company}-{day}", T0 + int(day * DAY), company, **data), T0 + int(day * DAY) + 60_000) for day in at
    ]


def bucket(day: float) -> int:
    """The bucket end that holds what becomes known a minute after so many days."""
    return (T0 + int(day * DAY) + 60_000) // PANE_MS + 1


def told(sent: Sent, *, until: float = 30, files: dict[str, bytes] | None = None) -> list[Recognition]:
    return of(recognised(engine(sent, files or plan()), [(T0 + int(until * DAY)) // PANE_MS]), "used")


def line(one: Recognition) -> tuple[str, str, int | None, int]:
    return one.kind, one.now.state, one.now.achieved_at, one.recognised_at


HOUR_4_5 = (T0 + int(4.5 * DAY) + HOUR) // PANE_MS
"""What comes more than a day late lies in a bucket of an hour."""


def test_a_late_login_moves_achieved_at_three_days_back() -> None:
    """A late login moves achieved_at three days back, recognised_at = its bucket; what was said stays in the log, and the
    correction says before, after and cause."""
    late = (visit("late", T0 + HOUR, "c0"), T0 + int(4.5 * DAY))
    found = told([*days(0.5, 1, 4), late])
    assert [line(one) for one in found] == [
        ("in_progress", "in_progress", None, bucket(0.5)),
        ("achieved", "achieved", bucket(4), bucket(4)),
        ("corrected", "achieved", bucket(1), HOUR_4_5),
    ]
    assert bucket(4) - bucket(1) == 3 * 96
    corrected = found[-1]
    assert corrected.cause == "late" and corrected.before == found[1].now and not corrected.dispute
    assert [one.first for one in found] == [True, True, False]


def test_what_falls_silent_before_the_deadline_is_not_missed() -> None:
    """The source stops before the deadline: `unknown_stale`, at deadline and grace; what it sends later tells that it was
    missed."""
    assert [line(one) for one in told(days(0.5, 1))] == [
        ("in_progress", "in_progress", None, bucket(0.5)),
        ("unknown_stale", "unknown_stale", None, FINAL),
    ]
    assert [line(one) for one in told([*days(0.5, 1), *days(8, company="c1")])][1:] == [
        ("unknown_stale", "unknown_stale", None, FINAL),
        ("missed", "missed", None, bucket(8)),
    ]
    assert line(told([*days(0.5, 1), *days(5.5, company="c1")])[1]) == ("missed", "missed", None, FINAL)


def test_who_comes_after_the_end_is_told_what_was_then() -> None:
    """A company that is first known when all is over has the verdict of that time, and its recognition too."""
    found = told([*days(1, 5.5, company="c1"), *days(9)])
    assert [line(one) for one in found] == [("missed", "missed", None, FINAL)] and found[0].k == bucket(9)


def test_a_correction_after_all_is_final_opens_a_dispute() -> None:
    """Fourteen days after deadline and grace a correction is told all the same, and says that it is in dispute."""
    missed = [*days(0.5, 1), *days(6, company="c1")]
    for day, dispute in ((8, False), (19.9, False), (20.5, True)):
        late = (visit("late", T0 + HOUR, "c0"), T0 + int(day * DAY))
        last = told([*missed, late])[-1]
        assert (last.kind, last.now.state, last.cause, last.dispute) == ("corrected", "achieved", "late", dispute)
        assert last.as_dict()["dispute"] == ("open" if dispute else None)
        assert last.as_dict()["before"]["state"] == "missed"


@pytest.mark.parametrize(("void", "cause"), [(True, "void"), (False, "amend")])
def test_what_is_taken_back_is_corrected(void: bool, cause: str) -> None:
    """A void or an amendment undoes what was achieved; achieved again, it is a correction too."""
    first, second, third = days(0.5, 1, 2)
    moved = visit("c0-2", T0 + int(6.5 * DAY), "c0")
    revision = ({**third[0], "revision": 1, "void": True}, T0 + int(2.5 * DAY))
    if not void:
        revision = ({**moved, "revision": 1}, T0 + 7 * DAY)
    found = told([first, second, third, revision, (visit("again", T0 + 3 * DAY, "c0"), T0 + int(7.5 * DAY))])
    undone = ("corrected", "in_progress", cause) if void else ("corrected", "missed", cause)
    assert [(one.kind, one.now.state, one.cause) for one in found] == [
        ("in_progress", "in_progress", None),
        ("achieved", "achieved", None),
        undone,
        *([("unknown_stale", "unknown_stale", None)] if void else []),
        ("corrected", "achieved", "late"),
    ]
    assert found[2].before == found[1].now and not found[-1].first


def test_another_definition_corrects_once() -> None:
    """A milestone that asks for more takes back what was said, with the definition as its cause."""
    made = engine(days(0.5, 1, 2), plan())
    made.apply(ORG, plan(4), NOW, k_ms=T0 + 3 * DAY)
    made.run()
    found = of(recognised(made, [bucket(10)]), "used")
    assert [(one.kind, one.now.state, one.cause) for one in found] == [
        ("in_progress", "in_progress", None),
        ("achieved", "achieved", None),
        ("corrected", "in_progress", "definition"),
        ("unknown_stale", "unknown_stale", None),
    ]
    assert found[2].k == (T0 + 3 * DAY) // PANE_MS
    assert found[2].before is not None and found[2].before.version != found[2].now.version


def decided(what: str, day: float, *values: str) -> tuple[dict[str, Any], int]:
    k_ms = T0 + int(day * DAY)
    data = {"keys": [f"crm_id:{one}" for one in values]}
    event = {"org": ORG, "source": "milepost", "id": f"{what}-{day}", "type": f"milepost.{what}", "time": iso(k_ms)}
    return {**event, "data": data}, k_ms


def test_a_merge_and_an_unmerge_correct_what_they_change() -> None:
    """A company that is one with another has its events too, and had them; taken apart, it stands as it stood."""
    sent = [*days(0.5, 1, 3), *days(0.6, company="c1"), decided("link", 4, "c0", "c1"), decided("unlink", 5, "c1")]
    found = recognised(engine(sent, plan()), [bucket(4.5), bucket(9)])
    assert [(one.kind, one.now.achieved_at, one.cause) for one in of(found, "used")] == [
        ("in_progress", None, None),
        ("achieved", bucket(3), None),
        ("corrected", bucket(1), "merge"),
        ("corrected", bucket(3), "unmerge"),
    ]
    assert [(one.kind, one.now.state, one.cause) for one in of(found, "used", "c1")] == [
        ("in_progress", "in_progress", None),
        ("closed", "in_progress", "merge"),
        ("resumed", "in_progress", "unmerge"),
        ("unknown_stale", "unknown_stale", None),
    ]
    (root,) = {one.subject.company for one in of(found, "used")}
    assert [one.heir for one in of(found, "used", "c1")] == [None, root, None, None]


def test_the_histories_hold_what_they_are_to_show() -> None:
    """Positive control: among the random ones there are losses, corrections of every kind and verdicts of time."""
    kinds = {(one.kind, one.cause) for seed in range(4) for one in recognised(engine(history(seed)))}
    assert {(state, None) for state in ("achieved", "lapsed", "missed", "unknown_stale")} <= kinds
    assert {cause for kind, cause in kinds if kind == "corrected"} >= {"late", "void"}


@pytest.mark.parametrize("seed", range(3))
def test_a_state_is_announced_once_and_each_correction_once_with_its_cause(seed: int) -> None:
    """Of a milestone of a company each state that was ever told is announced once, whatever else is told of it."""
    found = recognised(engine(history(seed)))
    announced = [(one.subject, event) for one in found for event, _ in one.announcements if event != CORRECTION]
    assert sorted(announced) == sorted({(one.subject, f"milestone.{one.now.state}") for one in found})
    corrections = [one for one in found if one.kind not in OF_STATES]
    assert [event for one in corrections for event, _ in one.announcements].count(CORRECTION) == len(corrections) > 0
    assert all(one.cause is not None and one.before is not None and one.after is not None for one in corrections)
    ids = [id for one in found for _, id in one.announcements]
    assert len(set(ids)) == len(ids) == len(announced) + len(corrections)
    assert all(one.cause is None and one.after is None for one in found if one.kind in OF_STATES)
