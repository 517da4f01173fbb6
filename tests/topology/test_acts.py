"""What people tick for plans: when it holds, what is known of it when, and whose it is."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.topology.bases import written
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.support.small import FILES, HOUR, ORG, SECRET, T0, by_hand, visit
from tests.topology.test_standings import DEADLINE, GRACE, NOW, START, text, tick

A, B = "crm_id:a", "crm_id:b"
SIGNED = START + 2 * HOUR
Sent = tuple[dict[str, Any], int]


def ticked(*sent: Sent) -> Driver:
    """Two companies with a visit at the start, and what else comes at its known times."""
    made = Driver(SECRET, partitions=3)
    made.apply(ORG, text(), T0 - HOUR)
    for company in ("a", "b"):
        made.produce(visit(company, START, company=company), START, known_ms=START)
    for event, k_ms in sent:
        made.produce(event, NOW, known_ms=k_ms)
    made.tick(NOW)
    made.run()
    return made


def row(made: Driver, at: int | None = None, basis: str | None = None, company: str = A, of: str = "kept") -> Any:
    asks = Asks(now_ms=NOW, at_ms=at, basis=basis, milestone=of, company=company)
    (found,) = run(Standings(made.reader).states(asks))["milestones"]
    return found


def review(made: Driver, at: int | None = None, basis: str | None = None, company: str = A) -> tuple[Any, Any]:
    """(since when the review is held, who ticked it last) at a moment."""
    (one,) = [one for one in row(made, at, basis, company)["actions"] if one["name"] == "review"]
    assert one["holds"] == (one["since"] is not None)
    return one["since"], one["by"]


def held(id: str, t_ms: int, done: bool = True, company: str = A, **more: Any) -> dict[str, Any]:
    return tick(id, t_ms, "kept/review", company, done, **more)


def test_it_holds_from_the_end_of_its_quarter_of_an_hour_until_it_is_unticked() -> None:
    """Ticked at 10:02 it holds from 10:15; unticked it does not, and says by whom."""
    made = ticked((held("ann", SIGNED + 120_000), SIGNED), (held("bob", SIGNED + HOUR, done=False), SIGNED + HOUR))
    since = SIGNED + PANE_MS
    assert review(made, SIGNED) == (None, None)
    assert review(made, since) == review(made, SIGNED + HOUR) == (written(since), "ann")
    assert review(made, SIGNED + HOUR + PANE_MS) == review(made) == (None, "bob")
    assert row(made, since)["state"] == "achieved" and row(made)["state"] == "lapsed"


def test_a_tick_before_the_start_counts_from_the_start_on() -> None:
    """It shows since when it is done, also while the milestone is still to begin."""
    made = ticked((held("ann", T0), T0))
    assert row(made, START - HOUR)["state"] == "pending"
    for at in (START - HOUR, START, DEADLINE, NOW):
        assert review(made, at) == (written(T0 + PANE_MS), "ann")
    assert row(made, START)["achieved_at"] == written(START)


def test_a_tick_alone_can_be_missed() -> None:
    """Nobody falls silent: what nobody has done by deadline and grace is missed, without a source that is complete."""
    made = ticked()
    assert row(made, DEADLINE + GRACE, "as_shown")["state"] == row(made)["state"] == "missed"
    assert row(made, DEADLINE + GRACE - PANE_MS, "as_shown")["state"] == "in_progress"


def test_a_late_tick_moves_the_past_and_not_what_was_shown() -> None:
    """Known a day later it holds since it was done; as shown before, it does not."""
    late = SIGNED + 5 * HOUR
    made = ticked((held("ann", SIGNED), late))
    assert review(made, SIGNED + HOUR, "corrected") == (written(SIGNED + PANE_MS), "ann")
    assert review(made, late, "as_shown") == (None, None)
    assert review(made, late + PANE_MS, "as_shown") == (written(SIGNED + PANE_MS), "ann")


def test_a_tick_is_amended_and_taken_back() -> None:
    """A void leaves what was ticked before it; a revision may change time and outcome; shown is what was known."""
    first, second = (held("ann", SIGNED), SIGNED), (held("bob", SIGNED + HOUR, done=False), SIGNED + HOUR)
    void = {**held("bob", SIGNED + HOUR, done=False), "revision": 1, "void": True}
    made = ticked(first, second, (void, SIGNED + 3 * HOUR))
    assert review(made) == (written(SIGNED + PANE_MS), "ann")
    assert review(made, SIGNED + 3 * HOUR, "as_shown") == (None, "bob")
    moved = {**held("bob", SIGNED + 2 * HOUR), "revision": 1}
    made = ticked(second, (moved, SIGNED + 2 * HOUR))
    assert review(made) == (written(SIGNED + 2 * HOUR + PANE_MS), "bob")


def test_a_tick_belongs_to_its_company() -> None:
    """Linked companies share it; taken apart, it is its own company's again, and it was so when it was shown."""
    at = SIGNED + 2 * HOUR
    link, unlink = by_hand("link", "l", at, keys=[A, B]), by_hand("unlink", "u", at, keys=[B])
    one = (held("ann", SIGNED), SIGNED)
    assert review(ticked(one), company=B) == (None, None)
    assert review(ticked(one, (link, at)), company=B) == (written(SIGNED + PANE_MS), "ann")
    made = ticked(one, (link, at), (unlink, at + HOUR))
    assert review(made, company=B) == (None, None) and review(made)[1] == "ann"
    assert review(made, at + PANE_MS, "as_shown", company=B)[1] == "ann"
    assert review(made, at - PANE_MS, "as_shown", company=B) == (None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": "growt"}, "no such plan"),
        ({"milestone": "kep"}, "no such milestone"),
        ({"action": "reviewed"}, "no action that is ticked by hand"),
        ({"milestone": "busy", "action": "visits"}, "told by a metric"),
        ({"company": "crm:a"}, "no key of that kind"),
        ({"done": "yes"}, "data.done"),
        ({"by": "x" * 300}, "by has at most"),
    ],
)
def test_what_nobody_agreed_on_is_a_dead_letter(change: dict[str, Any], said: str) -> None:
    """The letter says what is not there, and what would be."""
    event = held("ann", SIGNED)
    event["data"] |= change
    made = ticked((event, SIGNED))
    (letter,) = made.dead_letters
    assert letter["reason"] == "contract_violation" and said in letter["detail"]
    assert review(made) == (None, None)


def test_another_company_is_another_tick() -> None:
    """A revision for another company is refused: it would be lost under the first one's leaf."""
    made = ticked((held("ann", SIGNED), SIGNED), ({**held("ann", SIGNED, company=B), "revision": 1}, SIGNED + HOUR))
    (letter,) = made.dead_letters
    assert letter["reason"] == "identity_changed" and review(made)[1] == "ann"


def test_a_tick_of_a_plan_that_is_gone_can_be_taken_back() -> None:
    """A void names no action that must still be planned."""
    made = ticked((held("ann", SIGNED), SIGNED))
    made.apply(ORG, FILES, NOW)
    made.produce({**held("ann", SIGNED), "revision": 1, "void": True}, NOW)
    made.produce(held("bob", SIGNED), NOW)
    made.apply(ORG, text(), NOW)
    made.run()
    assert [one["reason"] for one in made.dead_letters] == ["contract_violation"] and review(made) == (None, None)


def test_who_has_no_such_plan_pays_nothing() -> None:
    """The rule and measure of ticks are there only where a plan on a bridge has an action to tick."""
    assert "milepost.action" not in load_bundle(FILES).rules_by_type
    catalog = load_bundle(text())
    assert "milepost.action" in catalog.rules_by_type and "milepost.action" not in catalog.rules
    assert "milepost.action" not in catalog.metrics
