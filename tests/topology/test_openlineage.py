"""OpenLineage: the events have the shape of the published specification, and their datasets hang together."""

from __future__ import annotations

import re
from typing import Any

import pytest

from milepost.topology.catalog import load_bundle
from milepost.topology.openlineage import SPEC, events
from tests.topology.test_lineage import BUNDLES

REQUIRED = {
    "columnLineage": {"fields"},
    "documentation": {"description"},
    "jobType": {"processingType", "integration"},
    "ownership": {"owners"},
    "schema": {"fields"},
    "sourceCode": {"language", "sourceCode"},
    "version": {"datasetVersion"},
}
"""What each facet must have, by its published schema."""
FACET = re.compile(r"https://openlineage\.io/spec/facets/\d+-\d+-\d+/(\w+)\.json#/\$defs/\1")


def told(bundle: str) -> list[dict[str, Any]]:
    return events(load_bundle(BUNDLES[bundle]), "acme", at_ms=1_700_000_000_000, producer="urn:milepost:1")


def datasets(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [*event.get("inputs", []), *event.get("outputs", []), *([event["dataset"]] if "dataset" in event else [])]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_event_has_what_the_specification_wants(bundle: str) -> None:
    """Time, producer and schema; a job or a dataset and not both; facets with producer, schema and their own fields."""
    for event in told(bundle):
        assert event["eventTime"] == "2023-11-14T22:13:20Z" and event["producer"] == "urn:milepost:1"
        kind = event["schemaURL"].removeprefix(SPEC)
        assert {"JobEvent": "job", "DatasetEvent": "dataset"}[kind] in event
        assert ("job" in event) != ("dataset" in event) and "run" not in event
        for one in (*datasets(event), *([event["job"]] if "job" in event else [])):
            assert one["namespace"] == "milepost://acme" and one["name"]
            for name, facet in one.get("facets", {}).items():
                found = FACET.fullmatch(facet["_schemaURL"])
                assert found is not None and facet["_producer"] == "urn:milepost:1"
                assert REQUIRED[name] <= facet.keys()
                part = "Job" if one is event.get("job") else "Dataset"
                assert found[1].endswith(f"{part}Facet") and found[1][0].lower() + found[1][1:].removesuffix(
                    f"{part}Facet"
                ) in (name, f"dataset{name.capitalize()}")  # fmt: skip


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inputs_are_raw_events_or_what_a_job_before_made(bundle: str) -> None:
    """Each column is made of columns that their dataset has."""
    columns: dict[str, set[str]] = {}
    for event in told(bundle):
        for one in event.get("inputs", []):
            assert one["name"] in columns
        for one in event.get("outputs", []):
            lineage = one["facets"].get("columnLineage", {"fields": {}, "dataset": []})
            inputs = [each for field in lineage["fields"].values() for each in field["inputFields"]]
            for each in (*inputs, *lineage["dataset"]):
                assert each["field"] in columns[each["name"]], (one["name"], each)
                assert each["name"] in {known["name"] for known in event["inputs"]}
                assert {how["type"] for how in each["transformations"]} <= {"DIRECT", "INDIRECT"}
        for one in datasets(event):
            if "facets" in one:
                columns[one["name"]] = set(paths(one["facets"].get("schema", {}).get("fields", [])))
                made = one["facets"].get("columnLineage", {"fields": {}})
                assert made["fields"].keys() <= columns[one["name"]]
    catalog = load_bundle(BUNDLES[bundle])
    assert {f"metrics.{name}" for name in catalog.metrics} <= columns.keys()


def paths(fields: list[dict[str, Any]], before: str = "") -> list[str]:
    return [
        path
        for one in fields
        for path in (before + one["name"], *paths(one.get("fields", []), f"{before}{one['name']}."))
    ]


def test_a_condition_filters_and_a_field_is_taken() -> None:
    """What decides whether there is a signal is indirect; what a value is made of is direct."""
    (rule,) = (one for one in told("demo") if one.get("job", {}).get("name") == "rule.departed_on_time")
    lineage = rule["outputs"][0]["facets"]["columnLineage"]
    assert [(one["field"], one["transformations"][0]) for one in lineage["dataset"]] == [
        ("dep_delay", {"type": "INDIRECT", "subtype": "FILTER"})
    ]
    (origin,) = lineage["fields"]["origin"]["inputFields"]
    assert (origin["field"], origin["transformations"][0]["subtype"]) == ("origin", "IDENTITY")
    assert rule["job"]["facets"]["ownership"]["owners"] == [{"name": "ops@example.org", "type": "OWNER"}]
