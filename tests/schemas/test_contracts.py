"""Contracts: what the check of a schema takes, makes and refuses."""

from __future__ import annotations

import io
import json
import math
import time
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.schemas.contracts import Contract, SchemaFault, compile_contract, field_at, paths_of
from milepost.schemas.errors import DROPS, REASONS, BundleError, ContractError, Finding, RuleError


def record(**fields: Any) -> dict[str, Any]:
    """A record schema; a field is a type, or a type with its default in a tuple."""
    rows = []
    for name, kind in fields.items():
        row = (
            {"name": name, "type": kind[0], "default": kind[1]}
            if isinstance(kind, tuple)
            else {"name": name, "type": kind}
        )
        rows.append(row)
    return {"type": "record", "name": "Made", "fields": rows}


def contract(schema: Any) -> Contract:
    return compile_contract("Made", json.dumps(schema).encode())


def refused(schema: dict[str, Any], data: Any) -> str:
    with pytest.raises(ContractError) as raised:
        contract(schema).check(data)
    assert raised.value.reason == "contract_violation"
    return raised.value.detail


FLIGHT = record(
    carrier="string",
    flight="long",
    tailnum=["null", "string"],
    delay="double",
    cabin={"type": "enum", "name": "Cabin", "symbols": ["Y", "C"]},
    legs={"type": "array", "items": {"type": "record", "name": "Leg", "fields": [{"name": "to", "type": "string"}]}},
    fares=({"type": "map", "values": "double"}, {}),
    seats=("int", 7),
)
DATA = {"carrier": "UA", "flight": 1545, "delay": 2, "cabin": "Y", "legs": [{"to": "IAH"}], "unknown": 1}


def test_checked_data_is_whole_and_in_the_kinds_of_the_schema() -> None:
    """The check fills defaults and nulls, makes doubles of whole numbers, and leaves out what is not declared."""
    checked = contract(FLIGHT).check(DATA)
    assert list(checked) == ["carrier", "flight", "tailnum", "delay", "cabin", "legs", "fares", "seats"]
    assert checked["tailnum"] is None and checked["fares"] == {} and checked["seats"] == 7
    assert type(checked["delay"]) is float and type(checked["flight"]) is int and "unknown" not in checked


def test_equal_data_gives_equal_bytes_whatever_its_spelling() -> None:
    """2 and 2.0, any order of keys, null and absent give one canonical form."""
    check = contract(FLIGHT).check
    other = {"legs": [{"to": "IAH"}], "tailnum": None, "cabin": "Y", "delay": 2.0, "flight": 1545.0, "carrier": "UA"}
    assert json.dumps(check(other)) == json.dumps(check(DATA))


def test_the_check_changes_nothing_in_what_it_reads() -> None:
    """Data and defaults are copied: a later change of the result changes neither."""
    made = contract(FLIGHT)
    data = {**DATA, "legs": [{"to": "IAH"}]}
    made.check(data)["legs"].append("x")
    made.check(data)["fares"]["x"] = 1.0
    assert data["legs"] == [{"to": "IAH"}] and made.check(data)["fares"] == {}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"carrier": None}, "data.carrier: text was expected, nothing or null came"),
        ({"carrier": 5}, "data.carrier: text was expected, a whole number came"),
        ({"flight": "1545"}, "data.flight: a whole number was expected, text came"),
        ({"flight": 1.5}, "data.flight: a whole number was expected, a number came"),
        ({"flight": 2**63}, "data.flight: 64 bits hold a whole number here, a larger came"),
        ({"flight": True}, "data.flight: a whole number was expected, a boolean came"),
        ({"seats": 2**31}, "data.seats: 32 bits hold a whole number here, a larger came"),
        ({"delay": math.nan}, "data.delay: a number was expected, a number that is not finite or too large came"),
        ({"delay": -math.inf}, "data.delay: a number was expected, a number that is not finite or too large came"),
        ({"delay": 2**53 + 1}, "data.delay: a whole number came that no double holds exactly"),
        ({"delay": 10**5000}, "data.delay: a whole number came that no double holds exactly"),
        ({"delay": False}, "data.delay: a number was expected, a boolean came"),
        ({"cabin": "Z"}, "data.cabin: one of Y, C was expected, text came"),
        ({"cabin": ["Y"]}, "data.cabin: one of Y, C was expected, a list came"),
        ({"legs": {}}, "data.legs: a list was expected, an object came"),
        ({"legs": [{"to": 1}]}, "data.legs[].to: text was expected, a whole number came"),
        ({"fares": {"Y": "1"}}, "data.fares[]: a number was expected, text came"),
    ],
)
def test_a_broken_field_is_named_and_its_value_is_not(change: dict[str, Any], detail: str) -> None:
    """A refusal says the field, what was expected and what kind of thing came."""
    assert refused(FLIGHT, {**DATA, **change}) == detail


def test_what_is_no_object_is_refused() -> None:
    """`data` is one object; an empty one lacks what is required."""
    assert refused(FLIGHT, []) == "data: an object was expected, a list came"
    assert refused(FLIGHT, {}) == "data.carrier: text was expected, nothing or null came"


def test_no_value_of_data_is_in_a_refusal() -> None:
    """A refusal travels to logs and answers, so a canary in any field is not in it."""
    canary = "canary@example.org"
    for name in FLIGHT["fields"]:
        for value in (canary, [canary], {canary: canary}):
            try:
                contract(FLIGHT).check({**DATA, name["name"]: value})
            except ContractError as error:
                assert canary not in str(error)


def test_a_union_takes_each_of_its_kinds() -> None:
    """A union of kinds that JSON tells apart is checked by the kind that came."""
    made = contract(record(v=["null", "boolean", "long", "double", "string", {"type": "array", "items": "long"}]))
    for value in (None, True, 7, 1.5, "x", [1]):
        assert made.check({"v": value})["v"] == value
    assert field_at(made.type, ("v",)) is not None and paths_of(made.type)["data.v"].kind == "mixed"
    with pytest.raises(ContractError):
        made.check({"v": {}})


def test_a_path_below_a_nullable_record_is_nullable() -> None:
    """A field of a record that may be null may be null itself, for a rule."""
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "double"}]}
    made = contract(record(a=["null", inner], b="Inner"))
    types = paths_of(made.type)
    assert types["data.a.x"].nullable and not types["data.b.x"].nullable
    assert field_at(made.type, ("a", "x")) == types["data.a.x"] and field_at(made.type, ("a", "y")) is None


@pytest.mark.parametrize(
    ("schema", "message", "path"),
    [
        ("string", "a contract is one record", ()),
        ({"type": "array", "items": "string"}, "a contract is one record", ()),
        (record(x="strin"), "'strin' is no Avro type", ("fields", 0, "type")),
        (record(x="bytes"), "no bytes", ("fields", 0, "type")),
        (record(x={"type": "fixed", "name": "F", "size": 2}), "no bytes", ("fields", 0, "type", "type")),
        (record(x=["null", "Made"]), "holds itself", ("fields", 0, "type", 1)),
        (record(x=["int", "long"]), "cannot tell", ("fields", 0, "type", 1)),
        (record(x=["null", ["null"]]), "does not hold a union", ("fields", 0, "type", 1)),
        (record(x=[]), "at least one branch", ("fields", 0, "type")),
        (record(x=("long", None)), "the default is null", ("fields", 0, "default")),
        (record(x=("int", "five")), "not an Avro schema", ()),
        (record(**{"bad name": "int"}), "letters, digits", ("fields", 0)),
        ({"type": "record", "name": "M", "fields": 5}, "lists its fields", ("fields",)),
        ({"type": "record", "fields": []}, "a name of letters", ("name",)),
        (record(x={"type": "enum", "name": "E", "symbols": []}), "lists its symbols", ("fields", 0, "type", "symbols")),
        (record(x=7), "an Avro type was expected", ("fields", 0, "type")),
        (record(**{f"f{i}": "int" for i in range(1001)}), "at most 1000 fields", ("fields", 1000)),
    ],
)
def test_a_schema_that_cannot_be_a_contract_is_told_with_its_place(schema: Any, message: str, path: Any) -> None:
    """A schema's fault says what was expected, and the way to it from the root."""
    with pytest.raises(SchemaFault) as raised:
        contract(schema)
    assert message in raised.value.message and raised.value.path == path


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b'{"type": "record", "type": "record"}', b"[" * 100_000, b"NaN", b" " * 300_000],
)
def test_bytes_that_are_no_schema_are_told(text: bytes) -> None:
    """Whatever lies in a schema's file, the answer is a fault, not a crash."""
    with pytest.raises(SchemaFault):
        compile_contract("Made", text)


def test_deep_schemas_are_refused() -> None:
    """A schema nested beyond the bound is refused before Python's own limit."""
    schema: Any = "string"
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaFault, match="nested deeper"):
        contract(record(x=schema))


def test_only_meaning_is_in_the_canonical_text() -> None:
    """Documentation and the order of keys do not change a contract's canonical text; a field does."""
    plain = contract(record(a="string"))
    told = contract({"doc": "told", **record(a="string")})
    assert plain.canonical == told.canonical != contract(record(a="string", b=["null", "int"])).canonical


scalars = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(st.characters(exclude_categories=["Cs"])),
}
kinds = st.recursive(
    st.sampled_from(sorted(scalars)).map(lambda name: (name, scalars[name])),
    lambda inner: st.one_of(
        inner.map(lambda one: ({"type": "array", "items": one[0]}, st.lists(one[1], max_size=3))),
        inner.map(
            lambda one: ({"type": "map", "values": one[0]}, st.dictionaries(scalars["string"], one[1], max_size=3))
        ),
        inner.map(lambda one: one if isinstance(one[0], list) else (["null", one[0]], st.none() | one[1])),
    ),
    max_leaves=3,
)


@settings(max_examples=150, deadline=None)
@given(pairs=st.lists(kinds, max_size=5), draw=st.data())
def test_what_avro_writes_and_reads_the_check_takes_unchanged(pairs: list[Any], draw: st.DataObject) -> None:
    """For generated schemas and data the check agrees with fastavro: data that it can write is taken, and equal."""
    schema = record(**{f"f{i}": kind for i, (kind, _) in enumerate(pairs)})
    data = {f"f{i}": draw.draw(values) for i, (_, values) in enumerate(pairs)}
    buffer = io.BytesIO()
    parsed = fastavro.parse_schema(schema)
    fastavro.schemaless_writer(buffer, parsed, data)
    buffer.seek(0)
    assert contract(schema).check(data) == fastavro.schemaless_reader(buffer, parsed, parsed) == data


@settings(max_examples=150, deadline=None)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(DATA)), inner, max_size=8),
        max_leaves=12,
    )
)
def test_any_json_is_taken_or_refused(data: Any) -> None:
    """Whatever JSON comes, the check returns a dict that it takes again unchanged, or raises ContractError."""
    check = contract(FLIGHT).check
    try:
        checked = check(data)
    except ContractError:
        return
    assert check(checked) == checked


def test_a_check_is_fast() -> None:
    """A contract of ten fields is checked in about a microsecond (a generous bound, for busy machines)."""
    made = contract(record(**{f"f{i}": "string" for i in range(5)}, **{f"g{i}": ["null", "double"] for i in range(5)}))
    data = {f"f{i}": "x" for i in range(5)} | {f"g{i}": 1.5 for i in range(5)}
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            made.check(data)
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 6e-6


def test_reasons_are_the_closed_lists() -> None:
    """A record ends for one of thirteen reasons or five drops, and no reason is in both lists."""
    assert len(REASONS) == 13 and len(DROPS) == 5 and not REASONS & DROPS


def test_errors_say_what_where_and_how_to_mend() -> None:
    """A contract error ends with its position; a bundle error is its findings in order of place."""
    error = ContractError("too_large", "at most 5 bytes were expected, 6 came", at="raw-events/3@1288")
    assert str(error) == "too_large: at most 5 bytes were expected, 6 came (raw-events/3@1288)"
    assert RuleError("x").reason == "rule_error"
    second = Finding(file="milepost.yaml", line=2, column=1, message="b", guess="c", fix="d")
    first = Finding(file="milepost.yaml", line=1, column=3, message="a")
    assert str(BundleError([second, first])).split("\n") == [
        "milepost.yaml:1:3: a",
        "milepost.yaml:2:1: b; did you mean 'c'?",
        "    fix: d",
    ]
