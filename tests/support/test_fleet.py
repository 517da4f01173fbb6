"""The fleet that the faults are tried on: what it holds, and that what is expected of it is what the oracle says."""

from __future__ import annotations

from collections import Counter

import pytest

from milepost.schemas.record_change import NONE, read
from milepost.topology.digest import digest
from milepost.topology.panes import DAY_MS, HOUR_MS, PANE_MS
from milepost.topology.recognitions import Recognition, load
from tests.oracle.recognition import Teller
from tests.support.fleet import Fleet, recognised
from tests.support.versus import oracle_over, records_of
from tests.support.workers import SECRET

FIRST_MS = 1_700_006_400_000
"""Midnight of a day in November 2023, UTC."""
NOW_MS = FIRST_MS + 3 * DAY_MS
LAST = NOW_MS // PANE_MS - 1
WALKED = (FIRST_MS + 12 * HOUR_MS) // PANE_MS
"""Up to where the oracle walks, which looks at all events at each bucket end."""
FLEET = Fleet(seed=1, first_ms=FIRST_MS)
LONG_HAUL = {
    "kind": "achieve", "need": "all", "name": ("season", "long_haul"), "start": FIRST_MS,
    "deadline": FLEET.deadline_ms, "grace": 6 * HOUR_MS,
    "actions": {"far": {"metric": "minutes_sum", "window": "6h", "op": ">=", "value": 3000}},
}  # fmt: skip


def test_it_has_what_the_legs_must_survive() -> None:
    """Records of each operation and changes that withdraw one, every state of milestones that can be wrong, corrections."""
    made = FLEET.driver(NOW_MS)
    assert not made.dead_letters
    changes = [read(one.value) for log in made.topics["record-changes"] for one in log]
    ops = Counter(one.op for one in changes if one is not None)
    assert set(ops) == {"upsert", "create", "update", "patch", "delete", NONE} and min(ops.values()) >= 3, ops
    assert sum(one.revision > 0 for one in changes if one is not None) >= 10
    said = [one for one in map(load, FLEET.said(3, LAST).values()) if isinstance(one, Recognition)]
    assert {"achieved", "lapsed", "missed", "corrected"} <= {one.kind for one in said}
    assert {one.subject.milestone for one in said} == {"ten_flights", "busy", "long_haul", "reviewed"}
    assert all(len(versions) > 2 for versions in FLEET.undisturbed().records.values())


@pytest.mark.parametrize("seed", range(2))
def test_order_and_repeats_change_neither_tables_nor_what_is_said(seed: int) -> None:
    """Shuffled, a third twice, over another number of partitions: one digest, and one history of milestones."""
    made = FLEET.driver(NOW_MS, seed=seed, shuffled=True, partitions=2 + seed)
    assert digest(made.reader) == FLEET.undisturbed().digest
    assert {one.key: one.output(3).value for one in recognised(made.reader, LAST)} == FLEET.said(3, LAST)


def test_one_change_of_a_record_and_one_tick_show() -> None:
    """Positive control: without one patch the digest of the records differs, without one tick what is said does."""
    events = FLEET.events()
    patch = next(one.event["id"] for one in events if one.event["type"] == "refitted")
    tick = next(one.event["id"] for one in events if one.event["data"].get("done"))
    for left_out, table in ((patch, "records"), (tick, "facts")):
        made = FLEET.driver(NOW_MS, without={left_out})
        wanted = FLEET.undisturbed().digest
        found = digest(made.reader)
        assert table in {name for name in found if found[name] != wanted[name]}
        if left_out == tick:
            assert {one.key for one in recognised(made.reader, LAST)} != FLEET.said(3, LAST).keys()


def test_records_and_what_is_said_are_the_oracles() -> None:
    """Every record's history and its value at four moments on both clocks, and each transition of a milestone.  (The
    oracle knows no records that are written by hand.)"""
    made = FLEET.driver(NOW_MS, without={f"r{number}" for number in range(6)})
    oracle = oracle_over(made, SECRET.encode(), {made.load(FLEET.files()).bundle_id: FLEET.files()})
    moments = [FIRST_MS + hours * HOUR_MS for hours in (5, 17, 30, 60)]
    assert records_of(oracle, made, moments, NOW_MS) == []
    teller = Teller(oracle, LONG_HAUL, "UTC", NOW_MS)
    teller.walk(FLEET.decided_ms, WALKED * PANE_MS)
    mine: dict[bytes, list[tuple[object, ...]]] = {}
    for one in recognised(made.reader, WALKED):
        if one.subject.milestone == "long_haul":
            told = (one.k * PANE_MS, one.kind, one.now.state, one.now.achieved_at, one.recognised_at * PANE_MS)
            mine.setdefault(one.subject.company, []).append(told)
    assert (
        mine
        == {
            root: [
                (one.k_ms, one.kind, one.state, one.achieved_ms and one.achieved_ms // PANE_MS, one.recognised_ms)
                for one in some
            ]
            for root, some in teller.told.items()
        }
        != {}
    )
