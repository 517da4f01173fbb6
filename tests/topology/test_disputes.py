"""What holds of a milestone behind `final`: what stood then, until a correction of it is accepted."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology import disputes
from milepost.topology.acceptances import Acceptances
from milepost.topology.driver import Driver
from milepost.topology.recognitions import Recognition
from tests.oracle.oracle import Oracle
from tests.support.small import DAY, HOUR, ORG, SECRET, T0, by_hand, visit
from tests.support.versus import counts_of, oracle_over
from tests.topology.test_recognition import Sent, bucket, days, engine, of, plan, recognised
from tests.topology.test_standings import NOW

MISSED: Sent = [*days(0.5, 1), *days(6, company="c1")]
LATE = (visit("late", T0 + HOUR, "c0"), T0 + int(20.5 * DAY))
UNDONE = ({**LATE[0], "revision": 1, "void": True}, T0 + int(22.5 * DAY))


def said(made: Driver) -> list[Recognition]:
    return of(recognised(made, [bucket(40)]), "used")


def acceptance(id: str, dispute: str, day: float, **more: Any) -> tuple[dict[str, Any], int]:
    k_ms = T0 + int(day * DAY)
    data = {"plan": "growth", "milestone": "used", "company": "crm_id:c0", "dispute": dispute, "by": id}
    return {**by_hand("dispute_accepted", id, k_ms, **{**data, **more.pop("data", {})}), **more}, k_ms


def take(made: Driver, *sent: tuple[dict[str, Any], int]) -> Driver:
    for event, k_ms in sent:
        made.produce(event, NOW, known_ms=k_ms)
    made.run()
    return made


def held(made: Driver, records: list[Recognition], day: float) -> tuple[str | None, str | None, bool]:
    """(state that holds, who accepted it, whether a dispute is open) as of a day."""
    until = bucket(day)
    known = made.decisions.acceptances(ORG)
    found = disputes.verdict(
        [one for one in records if one.k <= until], lambda dispute: known.of(dispute, T0 + int(day * DAY))
    )
    assert found is not None
    return None if found.holds is None else found.holds.state, None if found.by is None else found.by.by, found.open


def test_a_correction_behind_final_holds_once_it_is_accepted() -> None:
    """Missed at final stands with a dispute, from its acceptance on it is achieved; each as of its own time."""
    made = engine([*MISSED, LATE], plan())
    records = said(made)
    take(made, acceptance("ann", records[-1].key.hex(), 25), acceptance("bob", records[-1].key.hex(), 26))
    assert held(made, records, 19) == ("missed", None, False)
    assert held(made, records, 21) == held(made, records, 24.9) == ("missed", None, True)
    assert held(made, records, 25) == held(made, records, 30) == ("achieved", "ann", False)


def test_an_acceptance_is_taken_back_and_given_again() -> None:
    """A void opens the dispute again from its own known time on; before, it was accepted, as it was shown."""
    made = engine([*MISSED, LATE], plan())
    records = said(made)
    dispute = records[-1].key.hex()
    take(
        made,
        acceptance("ann", dispute, 25),
        acceptance("ann", dispute, 27, revision=1, void=True),
        acceptance("ann", dispute, 29, revision=2, data={"by": "eve"}),
    )
    told = [held(made, records, day) for day in (24, 26, 28, 30)]
    assert told == [
        ("missed", None, True), ("achieved", "ann", False), ("missed", None, True), ("achieved", "eve", False),
    ]  # fmt: skip


def test_what_follows_a_dispute_is_in_dispute_and_one_that_is_undone_is_overtaken() -> None:
    """Missed, achieved by a late event, and not achieved again since that was void: nothing is left to accept."""
    made = engine([*MISSED, LATE, UNDONE], plan())
    records = said(made)
    assert [(one.now.state, one.dispute) for one in records[-3:]] == [
        ("missed", False), ("achieved", True), ("missed", True),
    ]  # fmt: skip
    known = Acceptances()
    listed = disputes.told(records, lambda dispute: known.of(dispute, None))
    assert [one["dispute"] for one in listed[-3:]] == [None, "overtaken", "overtaken"]
    assert held(made, records, 21) == ("missed", None, True) and held(made, records, 23) == ("missed", None, False)
    take(made, acceptance("ann", records[-1].key.hex(), 25))
    accepted = made.decisions.acceptances(ORG)
    listed = disputes.told(records, lambda dispute: accepted.of(dispute, None))
    assert [one["dispute"] for one in listed[-3:]] == [None, "overtaken", "accepted"]
    assert listed[-1]["accepted"]["by"] == "ann"


@pytest.mark.parametrize("seed", range(4))
def test_acceptances_are_the_same_in_any_order(seed: int) -> None:
    """However revisions of several acceptances arrive, with or without repeats, each moment shows the same."""
    made = engine([*MISSED, LATE], plan())
    records = said(made)
    dispute, other = records[-1].key.hex(), "0" * 32
    sent = [
        acceptance("ann", dispute, 25), acceptance("ann", other, 27, revision=1), acceptance("bob", dispute, 28),
        acceptance("bob", dispute, 30, revision=1, void=True), acceptance("eve", other, 22),
        acceptance("eve", dispute, 31, revision=2), acceptance("eve", dispute, 30.5, revision=1, void=True),
    ]  # fmt: skip
    chance = random.Random(seed)
    shuffled = [*sent, *chance.sample(sent, 3)]
    chance.shuffle(shuffled)
    take(made, *shuffled)
    told = [held(made, records, day)[1] for day in (24, 26, 27.5, 29, 30.7, 32)]
    assert told == [None, "ann", None, "bob", None, "eve"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan": "grow"}, {"milestone": "user"}, {"company": "c0"}, {"company": "crm:c0"}, {"dispute": "abc"},
        {"dispute": "F" * 32}, {"by": "x" * 300},
    ],
)  # fmt: skip
def test_an_acceptance_of_nothing_is_a_dead_letter(wrong: dict[str, str]) -> None:
    """It names a milestone that is agreed on, a company's key and an id as it is written; a void need not."""
    made = engine(MISSED, plan())
    take(made, acceptance("ann", "0" * 32, 25, data=wrong))
    assert [one["reason"] for one in made.dead_letters] == ["contract_violation"]
    if wrong.keys() & {"plan", "milestone"}:
        take(made, acceptance("bob", "0" * 32, 25, data=wrong, revision=1, void=True))
        assert len(made.dead_letters) == 1


def test_the_oracle_takes_and_refuses_the_same() -> None:
    """Accepted acceptances and dead letters are counted as the oracle counts them over the raw log."""
    files = plan()
    made = engine([*MISSED, LATE], files)
    sent = [acceptance("ann", "0" * 32, 25), acceptance("bob", "zz", 25), acceptance("eve", "1" * 32, 26)]
    take(made, *sent, *sent[:1], acceptance("eve", "1" * 32, 27, revision=1, void=True))
    oracle: Oracle = oracle_over(made, SECRET, {made.load(files).bundle_id: files})
    for name in ("accepted", "duplicate", "dead:contract_violation"):
        assert counts_of(made).get(name, 0) == oracle.counts[name] > 0, name
