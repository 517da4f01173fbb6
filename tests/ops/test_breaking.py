"""Breaking: a contract made incompatible is refused, with what would break and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from milepost.ops.apply import checked, demo_bundle
from milepost.schemas.errors import BundleError
from milepost.topology.breaking import Version, broken, changed, findings, follow, touched
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from tests.support.small import FILES, ORG, SECRET, T0

VISIT = "schemas/Visit.avsc"


def edited(files: Mapping[str, bytes], name: str, **changes: Any) -> dict[str, bytes]:
    """A bundle with a field of a contract changed, or (None) taken out."""
    path = f"schemas/{name}.avsc"
    schema = json.loads(files[path])
    for field, change in changes.items():
        schema["fields"] = [one for one in schema["fields"] if one["name"] != field]
        schema["fields"] += [] if change is None else [{"name": field, **change}]
    return {**files, path: json.dumps(schema, indent=1).encode()}


def versions(*bundles: Mapping[str, bytes]) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for one in bundles:
        follow(found, one, load_bundle(one).bundle_id)
    return found


def test_a_field_that_reads_otherwise_is_refused_with_all_that_it_breaks() -> None:
    """Delays become whole numbers: the finding stands at the field and names rules, metrics, milestones, plans."""
    files = demo_bundle()
    before = load_bundle(files)
    narrowed = edited(files, "FlightDeparted", dep_delay={"type": ["null", "long"], "default": None})
    with pytest.raises(BundleError) as refused:
        checked(narrowed, "port-authority", before, versions(files), lambda *_: {"FlightDeparted": "7 of 9 could not"})
    (one,) = [one for one in refused.value.findings if "could not be read" in one.message]
    assert one.file == "schemas/FlightDeparted.avsc" and one.line > 1 and "new type of event" in one.fix
    for said in ("data.dep_delay", "signal departed_on_time", "metric on_time_rate", "milestone ", "plan ", "7 of 9"):
        assert said in one.message, said
    assert "record aircraft" not in one.message, "what does not read the field is not touched"


def test_a_field_that_goes_is_told_with_the_rules_that_read_it() -> None:
    """Both are findings: the rule that has no field any more, and all that the field fed."""
    files = demo_bundle()
    with pytest.raises(BundleError) as refused:
        checked(edited(files, "FlightDeparted", origin=None), "port-authority", load_bundle(files), versions(files))
    said = "\n".join(one.message for one in refused.value.findings)
    assert "data.origin" in said and "metric departures" in said and len(refused.value.findings) >= 2
    keys = touched(load_bundle(files), "FlightDeparted", ("carrier",))
    assert "the key company/carrier_code of flights" in keys and "metric departures" in keys


def test_every_version_of_the_log_is_asked_and_what_was_let_through_is_history() -> None:
    """A field that one earlier bundle had is bound to its type for good; a version that broke others begins anew."""
    files, extra = FILES, edited(FILES, "Visit", seats={"type": "long", "default": 0})
    again = edited(FILES, "Visit", seats={"type": "string", "default": ""})
    past = versions(files, extra, files)
    assert [one.text for one in past["Visit"]] == [extra[VISIT], files[VISIT]]
    found = broken(past, again)
    assert {one.found.path for one in found} == {("seats",)} and len(found) == 2
    assert {one.bundle for one in found} == {load_bundle(extra).bundle_id.hex()}
    assert not broken(past, extra) and not changed(past, files)
    required = edited(FILES, "Visit", must={"type": "string"})
    let_through = versions(files, required)
    assert not broken(let_through, edited(required, "Visit", more={"type": "long", "default": 0}))
    assert broken(let_through, files)


def test_what_was_sent_before_it_was_declared_counts_too() -> None:
    """A new field with a default breaks no version, but records that held something else under its name are told."""
    before = load_bundle(FILES)
    more = edited(FILES, "Visit", seats={"type": "long", "default": 0})
    assert checked(more, ORG, before, versions(FILES)).bundle_id == load_bundle(more).bundle_id
    with pytest.raises(BundleError, match=r"Visit\.avsc:1:1: 3 of 5 retained"):
        checked(more, ORG, before, versions(FILES), lambda *_: {"Visit": "3 of 5 retained records could not be read"})
    assert findings([], before, more, {}) == []


def test_the_worker_knows_every_version_from_the_log() -> None:
    """Who follows `definitions` knows what contracts said, each text once, the one in force last."""
    made = Driver(SECRET, partitions=1)
    extra = edited(FILES, "Visit", seats={"type": "long", "default": 0})
    for number, files in enumerate((FILES, extra, FILES)):
        made.apply(ORG, files, T0 + number)
    assert [one.text for one in made.decisions.contracts[ORG]["Visit"]] == [extra[VISIT], FILES[VISIT]]
