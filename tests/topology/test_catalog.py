"""The catalog: the bundle of the manual, what versions depend on, and every fault with its place, guess and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milepost.ops
from milepost.schemas.errors import BundleError
from milepost.topology.aggregates import Shape
from milepost.topology.catalog import Catalog, bundle_id, editor_schema, load_bundle
from tests.support.manual import MANUAL, PLACE, SCHEMAS, bundle, findings, load, schema


def test_the_manual_parses() -> None:
    """The definitions of the manual are a valid bundle, and mean what it says."""
    catalog = load()
    assert list(catalog.sources) == ["flights", "registry"] and list(catalog.rules) == ["departed", "departed_on_time"]
    flights = catalog.sources["flights"]
    assert flights.owner == "ops@example.org" and flights.future_skew_ms == 600_000
    assert [(one.entity, one.key, one.path, one.required) for one in flights.identities] == [
        ("company", "carrier_code", ("carrier",), True),
        ("device", "tailnum", ("tailnum",), False),
    ]
    assert catalog.sources["registry"].identities[1].label
    assert catalog.key_rank == {
        ("company", "carrier_code"): 0,
        ("device", "tailnum"): 1,
        ("company", "airline_name"): 2,
        ("source", "name"): 3,  # flights promises something: a source is a thing that events are about
    }
    assert [rule.name for rule in catalog.rules_by_type["flight.departed"]] == ["departed", "departed_on_time"]
    assert list(catalog.records) == ["aircraft"] and list(catalog.milestones) == ["punctual_month"]


def test_a_list_of_aggregates_is_one_measure_and_a_metric_each() -> None:
    """sum, avg and max of one field share their cells, under three metric names, in the order of the bundle."""
    catalog = load()
    assert list(catalog.metrics) == [
        "departures",
        "on_time_departures",
        "departure_delay_sum",
        "departure_delay_avg",
        "departure_delay_max",
        "aircraft_in_service",
        "on_time_rate",
    ]
    three = [catalog.metrics[f"departure_delay_{one}"] for one in ("sum", "avg", "max")]
    measure = three[0].measure
    assert measure is not None and all(one.measure is measure for one in three)
    assert measure.name == "departure_delay" and measure.shape == Shape(sum=True, extremes=True)
    assert measure.field == "delay" and measure.scale == 6 and measure.max_values == 1000
    assert [one.aggregate for one in three] == ["sum", "avg", "max"] and len({one.version for one in three}) == 3
    assert {one.name for one in catalog.measures_by_rule["departed"]} == {
        "departures",
        "departure_delay",
        "aircraft_in_service",
    }
    members = catalog.metrics["aircraft_in_service"].measure
    assert members is not None and members.entity == "device" and members.shape == Shape(distinct=True)


def test_several_fields_in_one_list_are_a_measure_each() -> None:
    """What is folded from different fields lies in different cells."""
    catalog = load("[sum(delay), avg(delay), max(delay)]", "[count, sum(delay), last(delay), distinct(device)]")
    measures = [one for one in catalog.measures if one.name.startswith("departure_delay")]
    assert [one.shape for one in measures] == [Shape(), Shape(sum=True, last=True), Shape(distinct=True)]
    assert len({one.version for one in measures}) == 3


def test_percentiles_of_a_field_share_a_measure() -> None:
    """Percentiles are named by their percent and lie in cells of their own, so that the other aggregates stay short."""
    text = '[sum(delay), "percentile(delay, 95)", "percentile(delay, 99.90)", "percentile(delay, 0.5)"]'
    catalog = load("[sum(delay), avg(delay), max(delay)]", text)
    measures = [one for one in catalog.measures if one.name.startswith("departure_delay")]
    assert [one.shape for one in measures] == [Shape(sum=True), Shape(sketch=True)]
    found = {name: one.percent for name, one in catalog.metrics.items() if name.startswith("departure_delay_p")}
    expected = {"departure_delay_p95": "95", "departure_delay_p99_9": "99.9", "departure_delay_p0_5": "0.5"}
    assert {name: str(percent) for name, percent in found.items()} == expected
    assert len({catalog.metrics[name].version for name in found}) == 3


def test_a_formula_has_what_its_operands_share() -> None:
    """A formula's dimensions are those of all its operands, its grain the coarsest; formulas may stand on formulas."""
    catalog = load(
        "on_time_rate: {formula: on_time_departures / departures, unit: ratio}",
        "on_time_rate: {formula: on_time_departures / departures}\n"
        "  daily: {from: departed, aggregate: max(delay), dimensions: [dest, origin], grain: 1d}\n"
        "  mixed: {formula: departure_delay_sum / daily + on_time_rate}",
    )
    mixed = catalog.metrics["mixed"]
    assert mixed.operands == ("daily", "departure_delay_sum", "on_time_rate")
    assert mixed.dimensions == ("origin",) and mixed.grain_ms == 86_400_000
    assert mixed.measure is None and mixed.aggregate is None and mixed.formula is not None


def test_rules_evaluate_checked_data() -> None:
    """A rule of the manual says yes at 15 minutes and no at 16."""
    catalog = load()
    check = catalog.sources["flights"].types["flight.departed"].check
    when = catalog.rules["departed_on_time"].when
    assert when is not None
    row = {"carrier": "UA", "origin": "EWR", "dest": "IAH"}
    assert when.evaluate(check({**row, "dep_delay": 15}), {}) is True
    assert when.evaluate(check({**row, "dep_delay": 16}), {}) is False


def versions(catalog: Catalog) -> dict[str, bytes]:
    found = {f"rule {one.name}": one.version for one in catalog.rules.values()}
    found |= {f"measure {one.name}": one.version for one in catalog.measures if one.rule in catalog.rules}
    found |= {f"metric {one.name}": one.version for one in catalog.metrics.values()}
    found |= {f"milestone {one.name}": one.version for one in catalog.milestones.values()}
    found |= {f"plan {one.name}": one.version for one in catalog.plans.values()}
    return found | {f"record {one.name}": one.version for one in catalog.records.values()}


@pytest.mark.parametrize(
    ("old", "new", "touched"),
    [
        ("# who answers for it", "# someone", set()),
        ("owner: ops@example.org", "owner: me@example.org", set()),
        ("data.dep_delay <= 15.0", "(data.dep_delay<=15)", set()),
        (
            "data.dep_delay <= 15.0",
            "data.dep_delay < 15.0",
            {
                "rule departed_on_time",
                "measure on_time_departures",
                "metric on_time_departures",
                "metric on_time_rate",
                "milestone punctual_month",
                "plan on_time_2013",
            },
        ),
        ("unit: ratio", "unit: share", {"metric on_time_rate", "milestone punctual_month", "plan on_time_2013"}),
        ("grace: 2d", "grace: 48h", set()),
        ("value: 0.8", "value: 0.80", set()),
        ("value: 0.8", "value: 0.9", {"milestone punctual_month", "plan on_time_2013"}),
        ("deadline: 2013-03-01", "deadline: 2013-03-02", {"milestone punctual_month", "plan on_time_2013"}),
        ("port-authority/*", "another/*", {"plan on_time_2013"}),
        ("model: data.model, ", "", {"record aircraft"}),
        ("op: upsert", "op: patch", {"record aircraft"}),
        (
            "dimensions: [origin], unit: min",
            "dimensions: [origin], unit: min, scale: 2",
            {"measure departure_delay"} | {f"metric departure_delay_{one}" for one in ("sum", "avg", "max")},
        ),
        (
            "sum(delay), avg(delay), max(delay)",
            "sum(delay), max(delay)",
            {"metric departure_delay_avg"},
        ),
    ],
)
def test_a_change_gives_new_versions_to_what_depends_on_it_alone(old: str, new: str, touched: set[str]) -> None:
    """Untouched definitions keep their version whatever else changes in the bundle."""
    before, after = load(), load(old, new)
    assert before.bundle_id != after.bundle_id
    a, b = versions(before), versions(after)
    assert {name for name in a | b if a.get(name) != b.get(name)} == touched


def test_a_rule_depends_on_its_contract() -> None:
    """A new field in a contract is a new version of its rules and of what is folded from them, and of nothing else."""
    wider = schema("FlightDeparted", **PLACE, dep_delay="double", seats=["null", "long"], gate=["null", "string"])
    a, b = versions(load()), versions(load(FlightDeparted=wider))
    assert [name for name in a if a[name] == b[name]] == ["record aircraft"]
    other = schema("FlightCancelled", **PLACE, why=["null", "string"])
    assert versions(load(FlightCancelled=other)) == a


def test_two_metrics_of_one_text_have_two_versions() -> None:
    """Cells are told apart by version, so equal definitions under two names do not share one."""
    catalog = load(
        "  aircraft_in_service:",
        "  again: {from: departed, aggregate: count, dimensions: [origin, dest]}\n  aircraft_in_service:",
    )
    one, other = catalog.metrics["departures"].measure, catalog.metrics["again"].measure
    assert one is not None and other is not None and one.version != other.version


def test_the_id_of_a_bundle_is_of_its_files() -> None:
    """The order of files does not matter to a bundle's id, a byte does."""
    files = bundle()
    backwards = dict(reversed(list(files.items())))
    assert load_bundle(files).bundle_id == load_bundle(backwards).bundle_id == bundle_id(files)
    assert len(bundle_id(files)) == 8
    assert bundle_id({"a": b"bc"}) != bundle_id({"ab": b"c"})


FAULTS: list[tuple[str, str, str, str, str]] = [
    # what is replaced, by what, words of the message, guess, words of the fix
    ("sources:", "source:", "'source' is no key of a bundle", "sources", ""),
    ("    owner: ops", "    ovner: ops", "'ovner' is no key of sources.flights", "owner", ""),
    ("required: true", "requird: true", "'requird' is no key", "required", ""),
    ("required: true", "required: yes", "true or false was expected, 'yes' came", "", ""),
    ("on: flight.departed, fields", "fields", "'on' is missing in signals.departed", "", "add on:"),
    ("{schema: FlightDeparted}", "{schema: FlightDepartd}", "no schemas/FlightDepartd.avsc", "FlightDeparted", "add"),
    (
        "from: data.carrier, req",
        "from: data.carier, req",
        "no contract of the source has the field",
        "data.carrier",
        "",
    ),
    ("from: data.carrier, req", "from: carrier, req", "a field of data", "", "write data.carrier"),
    ("from: data.carrier, req", "from: data.dep_delay, req", "a key is text or a whole number", "", ""),
    ("from: data.tailnum}", "from: data.seats, required: true}", "the key is required", "", "required: false"),
    ("pii: []", "pii: [data.origin]", "pii of flights; rules do not read it", "", "leave it out"),
    ("pii: []", "volatile: [data.nothing]", "no contract of the source has the field data.nothing", "", ""),
    ("pii: []", "future_skew: 10 minutes", "a duration as in 15m", "", ""),
    ("unmatched_max: 0.5%", "unmatched_max: 0.5", "text was expected, the number 0.5 came", "", '"0.5"'),
    (
        "departed: {on: flight.departed",
        "departed: {on: flight.departd",
        "no source has the event type",
        "flight.departed",
        "",
    ),
    (
        "delay: data.dep_delay",
        "delay: data.dep_dely",
        "the contract has no field 'data.dep_dely'",
        "data.dep_delay",
        "",
    ),
    (
        "when: data.dep_delay <= 15.0",
        "when: data.origin <= 15.0",
        "data.origin is text, 15.0 is a number",
        "",
        "quotes",
    ),
    ("when: data.dep_delay <= 15.0", "when: data.dep_delay", "a condition is true or false", "", ""),
    ("when: data.dep_delay <= 15.0", "when: true", "text was expected, true came", "", '"true"'),
    ("when: data.dep_delay <= 15.0", "when: data.dep_delay =< 15.0", "token recognition", "", "write <="),
    ("  departed: {on", "  Departed Flights: {on", "a name of small letters", "", "write departed_flights"),
    (
        "{from: departed, aggregate: count,",
        "{from: departd, aggregate: count,",
        "no signal is named 'departd'",
        "departed",
        "",
    ),
    (
        "aggregate: count, dimensions: [origin, dest]",
        "aggregate: count, dimensions: [orign]",
        "no field 'orign'",
        "origin",
        "add it",
    ),
    (
        "aggregate: count, dimensions: [origin, dest]",
        "aggregate: count, dimensions: [delay]",
        "a number with decimals",
        "",
        "int(data.x)",
    ),
    (
        "aggregate: count, dimensions: [origin, dest]",
        "aggregate: count, dimensions: origin",
        "a list was expected",
        "",
        "[origin]",
    ),
    (
        "aggregate: count, dimensions: [origin, dest]",
        "aggregate: count, dimensions: [dest, dest]",
        "stands twice",
        "",
        "",
    ),
    ("aggregate: count,", "aggregate: cout,", "an aggregate is count, sum(field)", "count", ""),
    ("[sum(delay), avg", "[percentile(delay, 95), avg", "is cut", "", 'write "percentile(delay, 95)", in quotes'),
    ("sum(delay), avg", '"percentile(delay, 100)", avg', "above 0 and below 100", "", "write percentile(delay, 95)"),
    ("sum(delay), avg", "percentile(delay), avg", "above 0 and below 100", "", "write percentile(delay, 95)"),
    ("sum(delay), avg", '"sum(delay, 95)", avg', "sum takes one name", "", "write sum(delay)"),
    ("sum(delay), avg", '"percentil(delay, 95)", avg', "an aggregate is count, sum(field)", "percentile", ""),
    ("aggregate: count,", "aggregate: count(delay),", "count takes nothing", "", "write count"),
    ("aggregate: count,", "aggregate: count, scale: 13,", "less than or equal to 12", "", ""),
    ("aggregate: count,", "aggregate: count, grain: 30m,", "'15m', '1h' or '1d' was expected", "", ""),
    ("aggregate: count,", "aggregate: count, values: {orign: [EWR]},", "no dimension of this metric", "origin", ""),
    ("aggregate: count,", "aggregate: count, values: {origin: [1]},", "text was expected, the number 1", "", '"1"'),
    ("sum(delay), ", "sum(dely), ", "signal departed has no field 'dely'", "delay", ""),
    ("sum(delay), ", "sum(origin), ", "sum takes a number", "", ""),
    ("sum(delay), ", "max(delay), ", "max stands twice", "", "two metrics"),
    ("sum(delay), ", "sum, ", "sum takes a field", "", "sum(name)"),
    ("distinct(device)", "distinct(devise)", "no key of the entity 'devise'", "device", ""),
    ("distinct(device)", "distinct(company)", "not the company itself", "", "breakdown"),
    ("  aircraft_in_service: {from", "  departure_delay_sum: {from", "declared twice", "", ""),
    (
        "formula: on_time_departures / departures",
        "formula: on_time_departures / departurs",
        "no metric is named",
        "departures",
        "",
    ),
    (
        "formula: on_time_departures / departures",
        "formula: departure_delay / departures",
        "no metric",
        "departure_delay_sum",
        "",
    ),
    ("formula: on_time_departures / departures", "formula: on_time_rate / departures", "reads itself", "", ""),
    ("formula: on_time_departures / departures", "formula: departures > 0", "a number was expected", "", ""),
    ("formula: on_time_departures / departures", "formula: 1 + 1", "names none", "", ""),
    ("unit: ratio", "unit: ratio, scale: 3", "a formula takes only unit", "", ""),
    ("on: aircraft.listed, id", "on: aircraft.liste, id", "no event type is named", "aircraft.listed", ""),
    ("{metric: on_time_rate", "{metric: on_time_rat", "no metric is named", "on_time_rate", ""),
    ("milestones: [punctual_month]", "milestones: [punctual]", "no milestone is named", "punctual_month", ""),
    ("start: 2013-02-01", "start: 1 February", "a date", "", ""),
    ("kind: achieve", "kind: achive", "'achieve' or 'maintain' was expected", "achieve", ""),
]


@pytest.mark.parametrize(("old", "new", "message", "guess", "fix"), FAULTS, ids=[one[1].strip() for one in FAULTS])
def test_a_fault_is_told_with_its_line_guess_and_fix(old: str, new: str, message: str, guess: str, fix: str) -> None:
    """Each fault has a finding in the line where it stands, with what was meant and what to write."""
    text = MANUAL.replace(old, new, 1)
    assert text != MANUAL
    found = findings(bundle(text))
    line = MANUAL[: MANUAL.index(old)].count("\n") + 1
    hits = [one for one in found if message in one.message and guess == one.guess and fix in one.fix]
    assert hits, found
    if "reads itself" not in message and "pii" not in message and "declared twice" not in message:
        assert hits[0].line == line, hits[0]
        assert 1 <= hits[0].column <= len(text.split("\n")[line - 1]) + 1


def test_one_fault_has_one_finding() -> None:
    """What refers to something broken is not told as broken itself."""
    found = findings(bundle(MANUAL.replace("delay: data.dep_delay", "delay: data.dep_dely", 1)))
    assert len(found) == 1 and found[0].line == MANUAL[: MANUAL.index("delay: data")].count("\n") + 1


def test_the_column_of_a_fault_in_an_expression_is_that_of_the_word() -> None:
    """A finding inside an expression points at the word, not only at the line."""
    text = MANUAL.replace("data.dep_delay <= 15.0", "15.0 >= data.dep_dely", 1)
    (one,) = findings(bundle(text))
    assert text.split("\n")[one.line - 1][one.column - 1 :].startswith("data.dep_dely")


def test_all_faults_are_found_at_once() -> None:
    """A bundle with three faults has three findings, in order of place."""
    text = MANUAL.replace("data.tailnum}", "data.tailnumber}", 1).replace("<= 15.0", "<= '15'", 1)
    found = findings(bundle(text.replace("distinct(device)", "distinct(person)", 1)))
    assert len(found) == 3 and [one.line for one in found] == sorted(one.line for one in found)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("- a", 1, "a mapping of sources, signals"),
        ("sources:\n  a: 1\n  a: 2", 3, "the key 'a' stands twice, first in line 2"),
        ("sources:\n\tflights: {}", 2, "not YAML"),
        ("sources: {a: {owner: 'x}}", 1, "not YAML"),
        ("sources: [1", 1, "not YAML"),
        ("1: {}", 1, "a key is text, '1' came"),
        ("true: {}", 1, "a key is text, 'true' came"),
        ("sources: !!python/object/apply:os.system [ls]", 1, "has no place in a bundle"),
        ("sources: &a [*a]", 1, "nested deeper"),
        ("sources: " + "[" * 100_000, 1, "nested deeper"),
        (
            "a: &a [1]\n"
            + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)),
            1,
            "100000 values",
        ),
        ("sources: {}\n---\nsources: {}", 2, "not YAML"),
        ("metrics: {a: {scale: 012}}", 1, "two ways"),
        ("metrics: {a: {scale: .nan}}", 1, "two ways"),
        ("sources: \x07", 1, "not YAML"),
        ('sources: "\\ud800"', 1, "half a letter"),
        ('"\\udfff": {}', 1, "half a letter"),
        ("sources: 5", 1, "a mapping was expected, the number 5 came"),
        ("reactions:\n  tell: {on: milestone.achieved, webhook: ftp://example.org}", 2, "was expected"),
    ],
)
def test_broken_yaml_is_told_with_its_line(text: str, line: int, message: str) -> None:
    """Whatever the text is, the answer is a finding with a line, never another error."""
    found = findings(bundle(text))
    assert any(message in one.message for one in found), found
    if "100000" not in message:
        assert found[0].line == line


def test_yaml_1_2_has_few_surprises() -> None:
    """`on`, `NO` and a date without quotes are text."""
    catalog = load("aggregate: count,", "aggregate: count, values: {origin: [NO, on, 2013-01-01, yes]},")
    measure = catalog.metrics["departures"].measure
    assert measure is not None and measure.values == {"origin": frozenset({"NO", "on", "2013-01-01", "yes"})}


@pytest.mark.parametrize(
    ("files", "message", "guess"),
    [
        ({}, "no milepost.yaml", ""),
        ({"milepost.yml": b"sources: {}"}, "nothing else", "milepost.yaml"),
        ({"milepost.yaml": b"sources: {}", "../x.avsc": b"{}"}, "nothing else", ""),
        ({"milepost.yaml": b"sources: {}", "schemas/a/b.avsc": b"{}"}, "nothing else", ""),
        ({"milepost.yaml": b"\xff"}, "not UTF-8", ""),
        ({"milepost.yaml": b"#" * 2**20 + b"\nsources: {}"}, "at most 1048576 bytes", ""),
    ],
)
def test_files_that_are_no_bundle_are_told(files: dict[str, bytes], message: str, guess: str) -> None:
    """A bundle is one YAML file, its schemas, and nothing else, within a bound."""
    assert any(message in one.message and guess == one.guess for one in findings(files))


def test_a_broken_schema_is_told_at_its_place_in_its_file() -> None:
    """A schema's fault has the schema's file, line and column."""
    wrong = SCHEMAS["schemas/FlightCancelled.avsc"].replace(
        b'"name": "dest",\n   "type": "string"', b'"name": "dest",\n   "type": "strin"'
    )
    (one,) = findings(bundle(FlightCancelled=wrong))
    assert one.file == "schemas/FlightCancelled.avsc" and "'strin'" in one.message
    assert wrong.decode().split("\n")[one.line - 1][one.column - 1 :].startswith("strin")
    (two,) = findings(bundle(FlightCancelled=b'{"type": "record",\n "name": }'))
    assert two.line == 2 and "not JSON" in two.message


def test_one_event_type_of_two_sources_must_fit_both() -> None:
    """A rule holds for each source that has its event type, so it sees what their contracts share."""
    both = "airline.listed: {schema: AirlineListed}, flight.departed: {schema: Other}, "
    other = schema(
        "Other", carrier="string", tailnum=["null", "string"], origin="string", dest="string", dep_delay="long"
    )
    catalog = load("airline.listed: {schema: AirlineListed}, ", both, Other=other)
    assert catalog.rules["departed"].fields["delay"].evaluate({"dep_delay": 3}, {}) == 3.0
    narrow = schema("Other", carrier="string", origin="string", dest="string", dep_delay="string")
    text = MANUAL.replace("airline.listed: {schema: AirlineListed}, ", both, 1)
    assert any("data.dep_delay" in one.message for one in findings(bundle(text, Other=narrow)))


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(MANUAL) - 1), cut=st.integers(0, 12), put=st.text("{}[]:,-'\"# \n\tab1&*!|>", max_size=4))
def test_any_damage_to_a_bundle_is_a_catalog_or_findings(at: int, cut: int, put: str) -> None:
    """Whatever is typed into a bundle, loading it gives a catalog or findings, and each finding lies in the file."""
    text = MANUAL[:at] + put + MANUAL[at + cut :]
    try:
        load_bundle(bundle(text))
    except BundleError as error:
        assert error.findings
        for one in error.findings:
            assert one.message and one.column >= 1 and 1 <= one.line <= text.count("\n") + 2


def test_the_demo_bundle_loads() -> None:
    """The demo's definitions are the manual's, with landings under contract, cancellations counted, and the weather."""
    folder = Path(str(milepost.ops.__file__)).parent / "demo_bundle"
    files = [folder / "milepost.yaml", *folder.glob("schemas/*.avsc")]
    catalog = load_bundle({one.relative_to(folder).as_posix(): one.read_bytes() for one in files})
    weather = {"visibility_min", "visibility_avg", "wind_speed_max", "wind_speed_avg", "precipitation"}
    assert set(load().metrics) | {"cancellations"} | weather == set(catalog.metrics)
    assert not catalog.rules_by_type.get("flight.landed") and "flight.landed" in catalog.sources["flights"].types
    check = catalog.sources["flights"].types["flight.departed"].check
    assert check({"carrier": "UA", "origin": "EWR", "dest": "IAH", "dep_delay": 2})["tailnum"] is None
    for one in [*catalog.rules.values()]:
        assert all(field.compiled for field in one.fields.values()) and (one.when is None or one.when.compiled)


def test_the_schema_for_editors_names_every_section() -> None:
    """Editors get a JSON Schema with the keys as they are written."""
    published = editor_schema()
    assert set(published["properties"]) >= {"sources", "signals", "metrics", "milestones"}
    assert "from" in published["$defs"]["MetricText"]["properties"]
