"""When milestones are reached, against a walk over every pane end."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.topology.definitions import Action, Date, Milestone, Need, Operator
from milepost.topology.milestones import COMPARE, Course, Standing, Step, holding, needed, standing
from milepost.topology.panes import PANE_MS

UNTIL = 40
STEPS = st.lists(
    st.tuples(st.integers(0, UNTIL + 5), st.none() | st.integers(-2, 4)), max_size=8, unique_by=lambda one: one[0]
).map(sorted)


def action(name: str, **given: object) -> Action:
    shape = {
        "metric": "m", "window": "all", "op": ">=", "value": 1.0, "sustain_ms": 0, "manual": None, "affects": True,
        "weight": 1.0,
    }  # fmt: skip
    return Action(name=name, **{**shape, **given})  # type: ignore[arg-type]


def milestone(
    kind: str = "achieve", need: Need | None = None, grace: int = 0, **actions: dict[str, object]
) -> Milestone:
    return Milestone(
        name="m", kind=kind, start=Date(text="1970-01-01T02:30Z"), deadline=Date(text="1970-01-01T07:30Z"),  # type: ignore[arg-type]
        grace_ms=grace * PANE_MS, need=need or Need(of="all"),
        actions={name: action(name, **given) for name, given in (actions or {"a": {}}).items()}, version=bytes(8),
    )  # fmt: skip


START, DEADLINE = 10, 30


def at_each(steps: list[Step], op: Operator, value: float, sustain: int) -> set[int]:
    """The pane ends at which a condition holds, by looking at each."""

    def plain(t: int) -> bool:
        now = [one for start, one in steps if start <= t]
        return bool(now) and now[-1] is not None and COMPARE[op](now[-1], value)

    first = min((start for start, _ in steps), default=0)
    return {t for t in range(first + sustain, UNTIL + 1) if all(plain(t - back) for back in range(sustain + 1))}


def points(spans: list[tuple[int, int]]) -> set[int]:
    return {t for start, stop in spans for t in range(start, stop)}


@given(STEPS, st.sampled_from(sorted(COMPARE)), st.integers(-1, 3), st.integers(0, 6))
def test_spans_are_the_pane_ends_at_which_it_holds(steps: list[Step], op: Operator, value: int, sustain: int) -> None:
    """Operator, value and sustain give the spans that a walk over all pane ends gives, ascending and apart."""
    spans = holding([one for one in steps if one[0] <= UNTIL], op, value, UNTIL, sustain)
    assert points(spans) == at_each(steps, op, value, sustain)
    assert all(stop < start for (_, stop), (start, _) in pairwise(spans))


NEEDS = [Need(of="all"), Need(of="at_least", amount=2), Need(of="weight", amount=0.6)]
WEIGHTS = {"a": 0.1, "b": 0.5, "c": 0.2}


@given(st.lists(STEPS, min_size=3, max_size=3), st.sampled_from(NEEDS))
def test_need_is_all_or_so_many_or_their_weight(steps: list[list[Step]], need: Need) -> None:
    """`all`, `at_least` and `weight` count the actions that affect the milestone at each pane end; others do not."""
    given_ = {name: {"weight": weight} for name, weight in WEIGHTS.items()}
    made = milestone(need=need, **given_, idle={"affects": False})
    held = {
        name: holding([one for one in some if one[0] <= UNTIL], ">=", 1, UNTIL)
        for name, some in zip(WEIGHTS, steps, strict=True)
    }
    each = {name: points(spans) for name, spans in held.items()}
    for t in range(UNTIL + 1):
        on = [name for name in WEIGHTS if t in each[name]]
        met = {"all": len(on) == 3, "at_least": len(on) >= 2, "weight": sum(WEIGHTS[name] for name in on) >= 0.6}[
            need.of
        ]
        assert (t in points(needed(made, held))) == met


def stands(kind: str, met: list[tuple[int, int]], at: int, *, complete: int | None = 99, clock: int = 99) -> Standing:
    made = milestone(kind, grace=4)
    return standing(made, Course.of(made, "UTC"), met, at, complete, clock)


def test_a_milestone_waits_for_its_start() -> None:
    """Before its start a milestone is pending, whatever holds; at its start what holds already is achieved."""
    assert stands("achieve", [(0, 99)], START - 1).state == "pending"
    assert stands("achieve", [(0, 99)], START) == Standing(state="achieved", achieved_at=START)


def test_an_achieved_one_stays_achieved() -> None:
    """`achieve` latches: what is lost later changes nothing, and the date is the first one."""
    for at in (15, 16, 25, 90):
        assert stands("achieve", [(15, 16), (20, 22)], at) == Standing(state="achieved", achieved_at=15)
    assert stands("achieve", [(DEADLINE, 99)], 90).achieved_at == DEADLINE
    assert stands("achieve", [(DEADLINE + 1, 99)], 90).state == "missed"


@pytest.mark.parametrize(("clock", "complete", "state"), [
    (DEADLINE + 3, 99, "in_progress"), (DEADLINE + 4, 99, "missed"), (DEADLINE + 4, DEADLINE, "missed"),
    (DEADLINE + 4, DEADLINE - 1, "unknown_stale"), (DEADLINE + 4, None, "unknown_stale"),
])  # fmt: skip
def test_missed_waits_for_grace_and_sources(clock: int, complete: int | None, state: str) -> None:
    """A milestone is missed once deadline and grace have passed and its sources are complete to the deadline; when the
    source stops before the deadline it is `unknown_stale`."""
    assert stands("achieve", [], 90, complete=complete, clock=clock).state == state


def test_a_maintained_one_lapses_and_comes_back() -> None:
    """`maintain` is achieved while the need is met, lapsed when it was, and says when it was lost."""
    met = [(12, 15), (18, 99)]
    assert stands("maintain", met[:1], 11).state == "in_progress"
    assert stands("maintain", met, 14) == Standing(state="achieved", achieved_at=12)
    assert stands("maintain", met, 16) == Standing(state="lapsed", achieved_at=None, lapses=(15,))
    assert stands("maintain", met, 20) == Standing(state="achieved", achieved_at=18, lapses=(15,))
    assert stands("maintain", met, 16, complete=15).state == "lapsed"
    assert stands("maintain", [], 90).state == "missed"


def test_a_loss_is_one_once_the_source_is_complete_to_it() -> None:
    """Until then a maintained milestone stands as it stood, for as long as its grace; then nobody knows."""
    met = [(12, 15)]
    assert stands("maintain", met, 16, complete=14, clock=16) == Standing(state="achieved", achieved_at=12)
    assert stands("maintain", met, 18, complete=14, clock=18).state == "achieved"
    assert stands("maintain", met, 19, complete=14, clock=19).state == "unknown_stale"
    assert stands("maintain", met, 19, complete=15, clock=19).state == "lapsed"
    assert stands("maintain", [(10, 11), (12, 15)], 16, complete=14, clock=16).lapses == (11,)


def test_after_its_deadline_a_maintained_one_stands_as_it_stood_then() -> None:
    """What happens behind the deadline is no matter of the milestone."""
    assert stands("maintain", [(12, DEADLINE + 1)], 90) == Standing(state="achieved", achieved_at=12)
    assert stands("maintain", [(12, 15), (DEADLINE + 1, 99)], 90).state == "lapsed"


def test_a_day_in_a_zone_is_its_own() -> None:
    """Dates without an offset are of the plan's zone."""
    made = milestone()
    local = Milestone(
        **{
            **{name: getattr(made, name) for name in made.__dataclass_fields__},
            "start": Date(text="2013-03-31"),
            "deadline": Date(text="2013-04-01"),
        }
    )
    here, there = Course.of(local, "UTC"), Course.of(local, "Europe/Berlin")
    assert here.deadline - here.start == 96 and there.deadline - there.start == 92  # the clocks lose an hour
    assert here.start - there.start == 4


def test_chance_finds_no_difference() -> None:
    """A thousand random histories: the state is the one that a walk over the pane ends gives."""
    for seed in range(1000):
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(60), 2 * chance.randrange(5)))
        met = list(zip(cuts[::2], cuts[1::2], strict=True))
        on = points(met)
        at, complete, clock = chance.randrange(60), chance.choice((None, 20, 30, 50)), chance.randrange(60)
        for kind in ("achieve", "maintain"):
            found = stands(kind, met, at, complete=complete, clock=clock)
            until = min(at, DEADLINE)
            walked = [t for t in range(START, until + 1) if t in on]
            known = complete is not None and complete >= until
            lost = walked[-1] + 1 if walked else 0
            late = clock >= DEADLINE + 4 and at >= DEADLINE
            if at < START:
                expected = "pending"
            elif walked and (kind == "achieve" or walked[-1] == until):
                expected = "achieved"
            elif walked and complete is not None and complete >= lost:
                expected = "lapsed"
            elif walked:
                expected = "achieved" if clock < lost + 4 else "unknown_stale"
            elif not late:
                expected = "in_progress"
            else:
                expected = "missed" if known else "unknown_stale"
            assert found.state == expected, (seed, kind)
            if found.state == "achieved":
                runs = [t for t in walked if t - 1 not in on or t == START]
                assert found.achieved_at == (walked[0] if kind == "achieve" else runs[-1])
