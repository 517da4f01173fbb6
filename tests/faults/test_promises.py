"""F1 for what is counted of sources: whatever crashes, stops, lands late or is lost, nothing is counted twice or lost.

The histories are the simulator's, over logs whose bundles promise something; at their end the rows of `quality`, restored
from the cleaned changelogs, are those of an undisturbed run over the raw log.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.events import Scenario, seeded
from tests.support.promises import PROMISED
from tests.support.simulator.history import achieves, histories
from tests.support.simulator.judge import REPLAYED_EVERY, Live, _condemned, _decided, expected

Sized = Callable[[int, int], int]
MET = ("kill", "late batch", "lose", "records processed again", "old copy")
"""What must have happened, or the comparison says less than it seems."""

pytestmark = pytest.mark.slow


def scenario_of(seed: int) -> Scenario:
    """The input of a seed: a few dozen records of sources that promise something."""
    chance = random.Random(seed ^ 0xC0DE)
    size, partitions = chance.randint(12, 40), chance.choice((1, 2, 2, 3))
    return seeded(chance.randrange(1 << 30), size=size, partitions=partitions, editions=PROMISED)


def test_what_is_counted_of_a_source_survives_everything(sized: Sized) -> None:
    """The counts of a history that has come to rest are an undisturbed run's, row by row."""
    met: Counter[str] = Counter()
    rows = 0
    # Those that are folded anew from a cleaned log are left out: what was removed of dead letters is not counted there.
    # So are those in which `achieve` has work: there are no plans here.
    seeds = [one for one in range(sized(900, 60)) if one % REPLAYED_EVERY and not achieves(one)]
    for found in histories(seeds, scenario_of, keep=True):
        seed, world = found.seed, found.world
        assert found.wrong == [], f"seed {seed}: {found.wrong}"
        assert world is not None
        met.update(found.stats)
        if not _condemned(world):
            live, undisturbed = Live(world, _decided(world)), expected(world).reader
            for number in range(world.partitions):
                held = counted(live, number)
                assert held == counted(undisturbed, number), f"seed {seed}: raw partition {number}"
                rows += len(held)
        world.end_all()
    assert rows > 0 and [kind for kind in MET if not met[kind]] == []


def counted(reader: object, number: int) -> dict[bytes, bytes]:
    """The rows of `quality` without the offsets that they have absorbed."""
    store = reader.stores("ingest", number)["quality"]  # type: ignore[attr-defined]
    return {key: value[8:] for key, value in store.scan(b"", b"\xff" * 30)}
