"""The bench's job is the one it says: four rules, four cells a signal, events of about 330 bytes."""

from __future__ import annotations

import orjson

from milepost.ops.bench import ORG, bundle, generate
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver


def test_the_job_is_what_it_says() -> None:
    """Four rules over five types, one measure of two dimensions each; every event is accepted."""
    catalog = load_bundle(bundle())
    assert len(catalog.rules) == 4
    assert {len(measures) for measures in catalog.measures_by_rule.values()} == {1}
    assert {measure.dimensions for measure in catalog.measures} == {("plan", "country")}
    driver = Driver(b"a secret of the bench's test", partitions=2)
    now_ms = 1_760_000_000_000
    driver.apply(ORG, bundle(), now_ms)
    events = list(generate(500))
    assert events == list(generate(500))
    assert 300 < sum(len(body) for _, body in events) / len(events) < 345
    for _, body in events:
        driver.produce(orjson.loads(body), now_ms)
    driver.run()
    fates = driver.fates["ingest"]
    assert (fates["read"], fates["accepted"]) == (500, 500)
    assert driver.dead_letters == []
    assert 300 < fates["signal"] < 400
