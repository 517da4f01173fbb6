"""Absence: "no visit for 14 days" is a maintained milestone; a late visit takes it back, a silent source says nothing."""

from __future__ import annotations

from typing import Any

from milepost.topology.driver import Driver
from milepost.topology.standings import Asks, Standings, written
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + 60 * DAY
PLAN = f"""
milestones:
  active:
    kind: maintain
    start: {written(T0)}
    deadline: {written(T0 + 90 * DAY)}
    grace: 1d
    actions: {{seen: {{metric: visits, window: 14d, op: ">=", value: 1}}}}
plans:
  keep: {{bridge: "{ORG}/*", milestones: [active]}}
"""


def standing(*visits: tuple[str, int, int]) -> dict[str, Any]:
    """How c0 stands 40 days on, after visits: (company, when, known when)."""
    made = Driver(SECRET, partitions=2)
    made.apply(ORG, {**FILES, "milepost.yaml": FILES["milepost.yaml"] + PLAN.encode()}, T0 - HOUR)
    for number, (company, t_ms, k_ms) in enumerate(visits):
        made.produce(visit(f"e{number}", t_ms, company=company), NOW, known_ms=k_ms)
    made.tick(NOW)
    made.run()
    asks = Asks(now_ms=NOW, company="crm_id:c0", at_ms=T0 + 40 * DAY, basis="corrected")
    (row,) = run(Standings(made.reader).states(asks))["milestones"]
    found: dict[str, Any] = row
    return found


def test_who_stays_away_for_two_weeks_is_noticed() -> None:
    """The source goes on, of others: the absence is from the fourteenth day behind the last visit."""
    row = standing(("c0", T0 + HOUR, T0 + HOUR), ("c1", T0 + 50 * DAY, T0 + 50 * DAY))
    assert (row["state"], row["lapsed"]) == ("lapsed", 1)
    assert row["lapses"] == [written(T0 + HOUR + 14 * DAY + HOUR // 4)]


def test_a_late_visit_takes_the_absence_back() -> None:
    """What came weeks late but happened in time: nobody was away."""
    late = [("c0", T0 + days * DAY, T0 + 45 * DAY) for days in (10, 20, 30)]
    row = standing(("c0", T0 + HOUR, T0 + HOUR), ("c1", T0 + 50 * DAY, T0 + 50 * DAY), *late)
    assert (row["state"], row["lapsed"]) == ("achieved", 0)


def test_a_silent_source_is_no_absence() -> None:
    """When nothing at all has come any more, nobody knows who was away."""
    row = standing(("c0", T0 + HOUR, T0 + HOUR), ("c1", T0 + 2 * HOUR, T0 + 2 * HOUR))
    assert row["state"] == "unknown_stale"
