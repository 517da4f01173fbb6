"""Records, reactions and the protection of identity: what a bundle says of them, and every fault."""

from __future__ import annotations

import pytest

from milepost.topology.catalog import Catalog, Protection, Record, Write
from milepost.topology.definitions import Expect
from tests.support.manual import MANUAL, bundle, findings, load

RECORD = "aircraft: {on: aircraft.listed, id: data.tailnum, op: upsert, fields: {model: data.model, seats: data.seats}}"
KEY = "- {entity: company, key: airline_name, from: data.name, label: true}"


def test_a_record_is_written_by_an_event() -> None:
    """The manual's record has one write, found by its event type."""
    catalog = load()
    write = Write(
        record="aircraft", on="aircraft.listed", id=("tailnum",), op="upsert", fields={"model": ("model",), "seats": ("seats",)}
    )  # fmt: skip
    assert catalog.records["aircraft"].writes == (write,) and catalog.writes == {"aircraft.listed": (write,)}


def test_several_events_may_write_one_type_of_record() -> None:
    """A list has one write for each type of event, each with an operation of its own."""
    record = written(
        "[{on: aircraft.listed, id: data.tailnum, op: create, fields: {model: data.model}}, "
        "{on: flight.departed, id: data.tailnum, op: patch, fields: {seats: data.seats}}, "
        "{on: flight.cancelled, id: data.tailnum, op: delete}]"
    ).records["aircraft"]
    assert [(one.on, one.op) for one in record.writes] == [
        ("aircraft.listed", "create"),
        ("flight.departed", "patch"),
        ("flight.cancelled", "delete"),
    ]
    assert isinstance(record, Record) and len(record.version) == 8


def written(text: str) -> Catalog:
    return load(RECORD, f"aircraft: {text}")


def test_what_a_source_promises_is_typed() -> None:
    """Freshness, volume and the share of unmatched events are numbers; a source that says nothing promises nothing."""
    catalog = load()
    assert catalog.sources["flights"].expect == Expect(
        freshness_ms=900_000, volume_per_ms=3_600_000, volume_min=1, unmatched_max=0.005
    )
    assert catalog.sources["registry"].expect == Expect()


def test_a_reaction_is_to_a_state_or_to_a_signal() -> None:
    """milestone.<state> names a state, anything else a signal."""
    assert load().reactions["tell"].state == "achieved" and load().reactions["tell"].signal is None
    reaction = load("on: milestone.achieved", "on: departed").reactions["tell"]
    assert (reaction.state, reaction.signal, reaction.on_replay) == (None, "departed", "suppress")
    assert load("on: milestone.achieved", "on: milestone.corrected").reactions["tell"].state == "corrected"


def test_protection_is_told_by_kind_of_key() -> None:
    """unique and limit of any source, blocked values of a key's name or of entity/key, and domains that nobody owns."""
    assert load().protection == Protection(limits={}, blocked={})
    text = MANUAL.replace(KEY, KEY[:-1] + ", unique: true}", 1).replace(
        "tailnum, from: data.tailnum", "tailnum, from: data.tailnum, limit: 3", 1
    )
    text += "identity:\n  blocked: {carrier_code: ['n/a', ''], device/tailnum: [UNKNOW]}\n  free_mail: {kinds: [airline_name], domains: [example.org]}\n"
    assert load(MANUAL, text).protection == Protection(
        unique=frozenset({("company", "airline_name")}),
        limits={("device", "tailnum"): 3},
        blocked={("company", "carrier_code"): frozenset({"n/a", ""}), ("device", "tailnum"): frozenset({"UNKNOW"})},
        free_mail=frozenset({("company", "airline_name")}),
        domains=frozenset({"example.org"}),
    )


FAULTS: list[tuple[str, str, str, str, str]] = [
    # what is replaced, by what, words of the message, guess, words of the fix
    ("id: data.tailnum, op", "id: data.tailnumber, op", "has no field data.tailnumber", "data.tailnum", ""),
    ("on: aircraft.listed, id: data.tailnum", "on: flight.departed, id: data.dep_delay", "a record's id is text or a whole number", "", ""),
    ("{model: data.model, ", "{model: data.modl, ", "has no field data.modl", "data.model", ""),
    ("op: upsert", "op: upsrt", "was expected, 'upsrt' came", "upsert", ""),
    ("op: upsert", "op: delete", "what is deleted has no fields", "", "leave fields out"),
    (", fields: {model: data.model, seats: data.seats}", "", "upsert writes fields, none came", "", "add fields"),
    ("op: upsert", "op: upsert, filds: {}", "'filds' is no key of records.aircraft", "fields", ""),
    (RECORD, f"aircraft: [{RECORD[10:]}, {RECORD[10:]}]", "aircraft is written twice by aircraft.listed", "", "keep one"),
    (RECORD, "aircraft: [{on: aircraft.listed, op: delete}]", "'id' is missing in records.aircraft.0", "", "add id:"),
    ("{schema: AircraftListed}}", "{schema: AircraftListed}}\n    pii: [data.model]", "data.model is listed under pii of registry; records do not read it", "", "leave it out"),
    ("on: milestone.achieved", "on: milestone.achived", "a milestone is never 'achived'", "milestone.achieved", ""),
    ("on: milestone.achieved", "on: departd", "no signal is named 'departd'", "departed", ""),
    ("label: true}", "label: true, unique: true, limit: 2}", "unique is limit: 1, and limit is 2", "", "keep one"),
    ("label: true}", "label: true, limit: 0}", "greater than or equal to 1", "", ""),
    ("required: true}", "required: true, limit: 2}\n      - {entity: company, key: carrier_code, from: data.origin, limit: 3}", "has limit: 2 in another place, 3 here", "", "limit: 2"),
    ("records:", "identity: {blocked: {carrier: [x]}}\nrecords:", "no source has a key of the kind 'carrier'", "carrier_code", ""),
    ("records:", "identity: {blocked: {company/tailnum: [x]}}\nrecords:", "no source has a key of the kind", "device/tailnum", ""),
    ("records:", "identity: {free_mail: {kinds: [airline_nam], domains: [a.org]}}\nrecords:", "of the kind 'airline_nam'", "airline_name", ""),
    ("records:", "identity: {free_mail: {kinds: [airline_name], domains: [gmail]}}\nrecords:", "a domain in small letters", "", ""),
    ("records:", "identity: {blocked: {Carrier: [x]}}\nrecords:", "a kind of key, as in crm_id", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message", "guess", "fix"), FAULTS, ids=[one[1][:40] for one in FAULTS])
def test_a_fault_is_told_with_its_line_guess_and_fix(old: str, new: str, message: str, guess: str, fix: str) -> None:
    """Each fault has a finding at its place, with what was meant and what to write."""
    text = MANUAL.replace(old, new, 1)
    assert text != MANUAL
    found = findings(bundle(text))
    hits = [one for one in found if message in one.message and guess == one.guess and fix in one.fix]
    assert hits, found
    line = MANUAL[: MANUAL.index(old)].count("\n") + 1
    if "pii" not in message:
        assert line <= hits[0].line <= line + 1 and hits[0].column >= 1


def test_personal_data_is_in_no_field_dimension_or_record() -> None:
    """A field that holds a person's data, its parts, and what holds it, are refused in rules and records alike."""
    text = MANUAL.replace("pii: []", "pii: [data.origin]", 1).replace(
        RECORD, "seen: {on: flight.departed, id: data.origin, op: upsert, fields: {at: data.dest}}", 1
    )
    places = {text.split("\n")[one.line - 1].split(":")[0].strip() for one in findings(bundle(text))}
    assert places == {"departed", "departed_on_time", "seen"}


def test_the_source_of_decisions_is_ours() -> None:
    """A bundle cannot declare the source under which links by hand come, whatever they are."""
    (one,) = findings(bundle(MANUAL.replace("  registry:", "  milepost:")))
    assert (one.line, "ours" in one.message) == (12, True)
