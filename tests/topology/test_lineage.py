"""Lineage: what is made of what, held against what really no longer holds when a part of the bundle is taken out."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from milepost.schemas.contracts import paths_of
from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.lenient import lenient_bundle
from milepost.topology.lineage import Lineage, Node, since, unowned, versions_of
from tests.support import documented, small

Files = dict[str, bytes]
OPS = Path(__file__).resolve().parents[2] / "ops"


def folder(name: str) -> Files:
    """A bundle that travels in the package, read as files: the tests of this room need no other."""
    files = [OPS / name / "milepost.yaml", *sorted((OPS / name / "schemas").iterdir())]
    return {file.relative_to(OPS / name).as_posix(): file.read_bytes() for file in files}


BUNDLES: dict[str, Files] = {
    "demo": folder("demo_bundle"),
    "shop": folder("starter_bundle"),
    "git": folder("git_bundle"),
    "small": small.FILES,
    "documented": documented.FILES,
}
SECTIONS = {"rule": "rules", "metric": "metrics", "record": "records", "milestone": "milestones", "plan": "plans"}


@cache
def graph(bundle: str) -> Lineage:
    return Lineage(load_bundle(BUNDLES[bundle]))


@cache
def main(bundle: str) -> Any:
    return YAML(typ="safe", pure=True).load(BUNDLES[bundle]["milepost.yaml"].decode())


def with_main(bundle: str, document: Any) -> Files:
    return {**BUNDLES[bundle], "milepost.yaml": json.dumps(document, default=str).encode()}


def lost(bundle: str, files: Files) -> set[str]:
    """The definitions that do not hold any more, as the engine itself says."""
    whole, left = load_bundle(BUNDLES[bundle]), lenient_bundle(files)
    return {
        f"{what}-{name}"
        for what, section in SECTIONS.items()
        for name in set(getattr(whole, section)) - set(getattr(left, section))
    }


def broken(bundle: str, *ids: str) -> set[str]:
    """The same as the lineage says, for nodes that go together."""
    lineage = graph(bundle)
    found = {one for id in ids for one in (lineage.nodes[id], *lineage.breaks(lineage.nodes[id]))}
    return {one.id for one in found if one.what in SECTIONS}


def fields() -> Iterator[Any]:
    for bundle, files in BUNDLES.items():
        for name, contract in contracts(load_bundle(files)).items():
            for path in paths_of(contract.type):
                yield pytest.param(bundle, name, path, id=f"{bundle}-{name}-{path}")


def contracts(catalog: Catalog) -> dict[str, Any]:
    return {one.schema_name: one for source in catalog.sources.values() for one in source.types.values()}


def without_field(bundle: str, contract: str, path: str) -> Files:
    """The bundle with a field of a contract taken out."""
    file = f"schemas/{contract}.avsc"
    schema = json.loads(BUNDLES[bundle][file])
    *above, last = path.split(".")[1:]
    record = schema
    for name in above:
        record = next(one["type"] for one in record["fields"] if one["name"] == name)
    record["fields"] = [one for one in record["fields"] if one["name"] != last]
    return {**BUNDLES[bundle], file: json.dumps(schema).encode()}


@pytest.mark.parametrize(("bundle", "contract", "path"), list(fields()))
def test_what_breaks_by_a_field_is_what_does_not_hold_without_it(bundle: str, contract: str, path: str) -> None:
    """A field is taken out of its schema; the definitions that are left out then are those that the lineage names."""
    said = broken(bundle, f"field-{contract}{path.removeprefix('data')}")
    really = lost(bundle, without_field(bundle, contract, path))
    catalog = load_bundle(BUNDLES[bundle])
    held = [
        (event_type, source)
        for source in catalog.sources.values()
        for event_type, one in source.types.items()
        if one.schema_name == contract
        if any(identity.required and ".".join(("data", *identity.path)) == path for identity in source.identities)
    ]
    if not held:
        assert said == really
        return
    # Without a required key every event of the type is a dead letter, whatever its rules say.
    assert really <= said
    for event_type, _ in held:
        senders = [one for one in catalog.sources.values() if event_type in one.types]
        for rule in catalog.rules_by_type.get(event_type, ()):
            assert (f"rule-{rule.name}" in said) == (len(senders) == 1 or f"rule-{rule.name}" in really)


def definitions() -> Iterator[Any]:
    for bundle in BUNDLES:
        document = main(bundle)
        for section in ("sources", "signals", "metrics", "milestones", "plans"):
            for name in document.get(section, {}):
                yield pytest.param(bundle, section, name, id=f"{bundle}-{section}-{name}")


@pytest.mark.parametrize(("bundle", "section", "name"), list(definitions()))
def test_what_breaks_by_a_definition_is_what_does_not_hold_without_it(bundle: str, section: str, name: str) -> None:
    """A source, rule, metric, milestone or plan is taken out of the bundle; the same holds for what is left out then."""
    document = copy.deepcopy(main(bundle))
    gone = document[section].pop(name)
    if section == "metrics" and isinstance(gone.get("aggregate"), list):
        ids = [
            one.id for one in graph(bundle).nodes.values() if one.what == "metric" and one.name.startswith(f"{name}_")
        ]
        ids = [one for one in ids if one.removeprefix("metric-") not in document["metrics"]]
    else:
        ids = [f"{'rule' if section == 'signals' else section[:-1]}-{name}"]
    assert broken(bundle, *ids) == lost(bundle, with_main(bundle, document))


def test_a_lineage_that_forgets_formulas_is_seen() -> None:
    """Positive control: without the edges between metrics the comparison fails."""
    lineage = Lineage(load_bundle(BUNDLES["demo"]))
    node = lineage.nodes["metric-departures"]
    lineage.above[node] = [one for one in lineage.above[node] if one.how != "formula"]
    document = copy.deepcopy(main("demo"))
    del document["metrics"]["departures"]
    said = {one.id for one in (node, *lineage.breaks(node)) if one.what in SECTIONS}
    assert said < lost("demo", with_main("demo", document))


def test_fields_are_read_from_the_tree_and_not_from_the_text() -> None:
    """A literal that spells a field, and the name that a loop binds, are no reads of it; a field inside another is."""
    lineage = graph("documented")
    (visited,) = (one for one in lineage.nodes.values() if one.id == "rule-visited")
    read = {(edge.start.name, edge.how) for edge in lineage.below[visited] if edge.start.what == "field"}
    assert {one for one in read if one[1] == "when"} == {("Visit.address.city", "when"), ("Visit.tags", "when")}
    assert ("Visit.minutes", "field minutes") in read and ("Visit.minutes", "field length") in read


def test_both_directions_are_the_same_graph() -> None:
    """What a node is made of leads to it, for all pairs; keys are where ways end, in both directions."""
    for bundle in BUNDLES:
        lineage = graph(bundle)
        plain = [one for one in lineage.nodes.values() if one.what != "key"]
        up = {(below, node) for node in plain for below in lineage.made_of(node) if below.what != "key"}
        down = {(node, above) for node in plain for above in lineage.leads_to(node) if above.what != "key"}
        assert up == down and up
        for node in plain:
            assert set(lineage.breaks(node)) <= set(lineage.leads_to(node))
            for one in lineage.leads_to(node):
                way = lineage.path(node, one)
                assert (way[0], way[-1]) == (node, one)


def test_a_kind_of_key_does_not_join_its_sources() -> None:
    """Flights and the registry hold keys of one kind; a milestone made of flights is not made of the registry."""
    lineage = graph("demo")
    assert [one.name for one in lineage.sources_of(lineage.nodes["milestone-punctual_month"])] == ["flights"]
    assert lineage.owners_of(lineage.nodes["key-company/carrier_code"]).keys() == {
        "ops@example.org",
        "registry@example.org",
    }


def test_a_second_source_of_a_type_keeps_what_is_made_of_it() -> None:
    """Nothing breaks without the shop, whose orders the app sends too; without the app what only it sends does."""
    lineage = graph("documented")
    shop = lineage.nodes["source-shop"]
    assert lineage.breaks(shop) == [] and lineage.nodes["metric-worth"] in lineage.leads_to(shop)
    broken_by_app = {one.id for one in lineage.breaks(lineage.nodes["source-app"])}
    assert "rule-visited" in broken_by_app and "rule-ordered" not in broken_by_app


def test_a_version_holds_since_it_came_and_again_since_it_came_back() -> None:
    """Since when: the first bundle of the unbroken row in which a definition had the version of now."""
    first = load_bundle(small.FILES)
    text = small.FILES["milepost.yaml"].decode().replace("data.minutes > 30.0", "data.minutes > 60.0")
    second = load_bundle({**small.FILES, "milepost.yaml": text.encode()})
    assert versions_of(first).keys() == versions_of(second).keys()
    once = since([(1, first), (2, second)])
    assert (once["rule-visited"], once["rule-long_visit"], once["metric-long_rate"]) == (1, 2, 2)
    again = since([(1, first), (2, second), (3, first)])
    assert (again["rule-visited"], again["rule-long_visit"], again["contract-Visit"]) == (1, 3, 1)
    assert since([]) == {}


def test_a_source_that_nobody_answers_for_is_named() -> None:
    """Also one person who answers for all of several sources; one source with an owner is no finding."""
    catalog = load_bundle(documented.FILES)
    assert unowned(catalog.sources.values()) == ("source shop has no owner: nobody is asked when it falls silent",)
    assert unowned(load_bundle(BUNDLES["demo"]).sources.values()) == ()
    assert unowned(load_bundle(small.FILES).sources.values()) == ()
    one = dict(BUNDLES["demo"])
    for name in (b"registry@", b"weather@"):
        one["milepost.yaml"] = one["milepost.yaml"].replace(name, b"ops@")
    (said,) = unowned(load_bundle(one).sources.values())
    assert "ops@example.org owns all 3 sources" in said


def test_a_way_leads_from_an_owner_to_what_he_answers_for() -> None:
    """The path names each step of the line; there is none where nothing leads."""
    lineage = graph("demo")
    way = lineage.path(lineage.nodes["source-flights"], lineage.nodes["metric-on_time_rate"])
    assert [one.what for one in way] == ["source", "type", "rule", "metric", "metric"]
    assert lineage.path(lineage.nodes["source-weather"], lineage.nodes["metric-on_time_rate"]) == ()
    assert Node("metric", "departures").id == "metric-departures"
