"""How complete sources are said to be: by whom it is believed, from when on, and what it decides."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology.bases import written
from milepost.topology.completions import COMPLETIONS_MAX, Completions
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.support.small import DAY, HOUR, ORG, SECRET, T0, by_hand, iso, visit
from tests.topology.test_standings import DEADLINE, GRACE, NOW, START, text

MINUTE = 60_000
SAID = DEADLINE + 4 * HOUR


def completion(until_ms: int, id: str = "c", **data: Any) -> dict[str, Any]:
    return by_hand("source_complete", id, SAID, **{"source": "app", "until": iso(until_ms), **data})


def stopped(*events: tuple[dict[str, Any], int]) -> Driver:
    """A source that sent one visit before the deadline and nothing since, and what else is in the log."""
    made = Driver(SECRET, partitions=3)
    made.apply(ORG, text(), T0 - HOUR)
    for event, k_ms in ((visit("e", START + HOUR, company="a"), START + HOUR), *events):
        made.produce(event, k_ms)
    made.tick(NOW)
    made.run()
    return made


def state(made: Driver, at: int | None = None, basis: str | None = None) -> str:
    """How the milestone `busy` stands, which one visit does not reach."""
    asks = Asks(now_ms=NOW, at_ms=at, basis=basis, milestone="busy")
    (row,) = run(Standings(made.reader).states(asks))["milestones"]
    found: str = row["state"]
    return found


def test_a_milestone_is_missed_once_its_source_is_complete() -> None:
    """Without a word of the source it is not known; with it the milestone is missed, as shown from that word on."""
    assert state(stopped()) == "unknown_stale"
    made = stopped((completion(DEADLINE), SAID))
    assert state(made) == state(made, NOW, "corrected") == "missed"
    assert state(made, SAID + HOUR, "as_shown") == "missed"
    assert DEADLINE + GRACE < SAID and state(made, SAID - HOUR, "as_shown") == "unknown_stale"
    assert state(stopped((completion(DEADLINE - MINUTE), SAID))) == "unknown_stale"


def test_it_never_takes_back_how_complete_a_source_is() -> None:
    """What is said later of an earlier time changes nothing, nor does what lies before the latest event."""
    for until_ms in (START, DEADLINE + MINUTE):
        made = stopped((completion(until_ms), SAID), (completion(START, "d"), SAID + MINUTE))
        answer = run(Questions(made.reader).value(Question(metric="visits", now_ms=NOW)))
        assert answer["complete_to"] == written(max(until_ms, START + HOUR))


def test_it_counts_in_a_partition_when_every_raw_partition_has_passed_it() -> None:
    """Before a tick behind it has come from everywhere, events sent before it may still be on their way."""
    made = Driver(SECRET, partitions=3)
    made.apply(ORG, text(), T0 - HOUR)
    made.produce(visit("e", START, company="a"), START)
    made.tick(SAID)
    made.produce(completion(DEADLINE), SAID)
    made.run()
    assert state(made) == "unknown_stale"
    made.tick(SAID + 1)
    made.run()
    assert state(made) == "missed"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (completion(DEADLINE, source="apps"), "unknown_source"),
        (completion(DEADLINE, source="milepost"), "unknown_source"),
        (completion(SAID + 10 * MINUTE + 1), "future_event"),
        (completion(0, until="1969-12-31T00:00:00Z"), "contract_violation"),
        (completion(0, until="soon"), "contract_violation"),
        (completion(DEADLINE, by="x" * 300), "contract_violation"),
        ({**completion(DEADLINE), "revision": 1}, "contract_violation"),
        ({**completion(DEADLINE), "void": True}, "contract_violation"),
    ],
)
def test_what_nobody_can_know_is_a_dead_letter(event: dict[str, Any], reason: str) -> None:
    """A source that is not declared, a time that has not come: the letter says which, and nothing is believed."""
    made = stopped((event, SAID))
    (letter,) = made.dead_letters
    assert letter["reason"] == reason and letter["detail"]
    assert made.decisions.completions(ORG).until("app", NOW) is None


def test_the_skew_of_the_source_is_allowed() -> None:
    """`until` may lie as far ahead as the source's clocks may."""
    made = stopped((completion(SAID + 10 * MINUTE), SAID))
    assert made.dead_letters == [] and made.decisions.completions(ORG).until("app", NOW) == SAID + 10 * MINUTE


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_they_come_changes_nothing(seed: int) -> None:
    """For every moment it is the furthest time of those known before, however they were shuffled."""
    chance = random.Random(seed)
    said = [(chance.randrange(30), chance.randrange(30)) for _ in range(chance.randrange(12))]
    made = Completions()
    for k_ms, until_ms in said:
        made.add("app", k_ms, until_ms)
    for moment in range(32):
        expected = max((until_ms for k_ms, until_ms in said if k_ms < moment), default=None)
        assert made.until("app", moment) == expected
    assert made.until("other", DAY) is None


def test_they_are_bounded() -> None:
    """Of more than 100,000 that go further and further the last known are kept."""
    made = Completions()
    for number in range(COMPLETIONS_MAX + 5):
        made.add("app", number, number)
    assert made.until("app", 5) is None and made.until("app", 6) == 5
    assert made.until("app", DAY) == COMPLETIONS_MAX + 4
