"""Key rows: what `keys` holds of a key."""

from __future__ import annotations

import random

import orjson

from milepost.topology.driver import Driver
from tests.support.small import DAY, FILES, ORG, SECRET, T0, visit


def test_a_row_is_sorted_json_of_the_first_that_was_known() -> None:
    """Whatever a value holds, its row is the offset and the JSON of its names in order, with the least k that came."""
    chance = random.Random(4)
    values = ['a"b', "ü\n", "\\", "1", "plain"]
    for seed in range(5):
        driver = Driver(SECRET, partitions=1, chunk=3, seed=seed)
        driver.apply(ORG, FILES, T0)
        first: dict[str, int] = {}
        for i in range(40):
            value, k_ms = chance.choice(values), T0 + DAY - chance.randrange(1000)
            driver.produce(visit(f"e{i}", T0, value), T0 + DAY, known_ms=k_ms)
            first[value] = min(first.get(value, k_ms), k_ms)
        driver.run()
        rows = [row[8:] for _, row in driver.state["ingest", 0].stores["keys"].scan(b"", b"\xff" * 17)]
        told = {one["value"]: one for one in map(orjson.loads, rows)}
        assert {value: one["k"] for value, one in told.items()} == first
        assert rows == [orjson.dumps(orjson.loads(row), option=orjson.OPT_SORT_KEYS) for row in rows]
        assert all((one["org"], one["key"], one["source"]) == (ORG, "crm_id", "app") for one in told.values())
