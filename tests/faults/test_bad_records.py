"""F13-F15 by the thousand: bytes of every kind among good events, records at each limit, and one company that is all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from milepost.ops.settings import Settings
from tests.support.hostile_records import Sent, append, bad, driven, good, kinds, mixed, one_company
from tests.support.invariants import conservation, held
from tests.support.keeper import control, dealt, firsts
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PARTITIONS: Final = 2
COUNTED: Final = ("read", "accepted", "duplicate", "signal")


def as_driven(settings: Settings, records: Sequence[Sent]) -> dict[str, int]:
    """A worker takes `records`; digest and fates are the driver's, also after a lost folder; returns ingest's fates."""
    wanted, counts = driven(records, PARTITIONS)
    with Deployment(settings, partitions=PARTITIONS) as deployment:
        deployment.apply()
        deployment.start()
        append(deployment.settings, records)
        status = deployment.settle()
        pid = deployment.worker.process.pid
        fates: dict[str, int] = status["fates"]["ingest"]
        dead = {name for name in (*counts, *fates) if name.startswith("dead")}
        assert {n: fates.get(n, 0) for n in (*COUNTED, *dead)} == {n: counts.get(n, 0) for n in (*COUNTED, *dead)}
        held(conservation(fates))
        assert deployment.digest() == wanted
        assert deployment.worker.alive and deployment.worker.process.pid == pid
        deployment.kill()
        deployment.lose_state()
        deployment.start()
        deployment.settle()
        assert deployment.digest() == wanted
    return fates


@dealt("F13", "poison: deadly records, bytes of every kind", 54)
def test_one_bad_record_in_a_hundred_hurts_no_good_one(settings: Settings) -> None:
    """Every kind once, spread over the events: each ends as the driver says, no process ends, every table is right."""
    records = mixed(good(firsts(4000), PARTITIONS), bad(1, PARTITIONS), 70)
    fates = as_driven(settings, records)
    assert len(list(kinds(0))) >= 30
    assert sum(n for name, n in fates.items() if name.startswith("dead:")) >= 30


@pytest.mark.campaign
@dealt("F13", "poison: deadly records, bytes of every kind", 1000)
def test_a_thousand_bad_records_in_a_row_hurt_no_good_one(settings: Settings) -> None:
    """All kinds again and again between two halves of the events: one dead letter each, and the line goes on."""
    events = good(firsts(1000), PARTITIONS)
    row = [one for one in bad(22, PARTITIONS) if len(one.value or b"") < 200_000]
    assert len(row) >= 1000
    fates = as_driven(settings, [*events[:500], *row, *events[500:]])
    assert sum(n for name, n in fates.items() if name.startswith("dead:")) >= 500


@pytest.mark.campaign
@dealt("F15", "99 % of events on one company")
def test_one_company_that_is_nearly_everything_is_folded_right(settings: Settings) -> None:
    """With 99 % of the events on one leaf every table is the driver's, and its answer is asked of one partition."""
    events = one_company(firsts(5000), 0.99)
    fates = as_driven(settings, good(events, PARTITIONS))
    assert fates["accepted"] == 5000


@pytest.mark.campaign
@control("bad records dropped without a dead letter")
def test_a_reader_of_the_log_that_drops_what_it_cannot_read_is_noticed(settings: Settings) -> None:
    """Positive control: bad records that vanish without a dead letter break the count of what was read."""
    records = mixed(good(firsts(300), PARTITIONS), bad(1, PARTITIONS), 10)
    _, counts = driven(records, PARTITIONS)
    silent = (
        "from milepost.topology.ingest import Ingest\n"
        "Ingest._dead = lambda self, at, a, stage, reject, out, rule='': None"
    )
    with Deployment(settings, partitions=PARTITIONS) as deployment:
        deployment.apply()
        deployment.start(mutant=silent)
        append(deployment.settings, records)
        fates = deployment.settle()["fates"]["ingest"]
    assert fates["read"] == counts["read"] and conservation(fates) != []
