"""Mappings of repairs: what each step does, and that a wrong one is refused with its place, a guess and a fix."""

from __future__ import annotations

import time
from typing import Any

import pytest

from milepost.schemas.errors import BundleError
from milepost.topology.catalog import load_bundle
from milepost.topology.mapping import STEPS_MAX, Unfit, paths_in, read_mapping
from tests.support.small import FILES

FIELDS = load_bundle(FILES).sources["app"].types["visit"].type.fields


def made(steps: str, data: Any, **envelope: Any) -> dict[str, Any]:
    event = {"event": {"org": "acme", "source": "app", "id": "1", "type": "visit", **envelope}, "data": data}
    read_mapping(f"steps: [{steps}]").apply(event)
    return event


@pytest.mark.parametrize(
    ("steps", "before", "after"),
    [
        ("{rename: data.compani, to: company}", {"compani": "7", "x": 1}, {"company": "7", "x": 1}),
        ("{rename: data.compani, to: company}", {"x": 1}, {"x": 1}),
        ("{rename: data.a.b, to: c}", {"a": {"b": 1}}, {"a": {"c": 1}}),
        ("{move: data.flight.carrier, to: data.carrier}", {"flight": {"carrier": "UA"}}, {"flight": {}, "carrier": "UA"}),
        ("{move: data.carrier, to: data.flight.carrier}", {"carrier": "UA"}, {"flight": {"carrier": "UA"}}),
        ("{move: data.tail-num, to: data.tailnum}", {"tail-num": "N1"}, {"tailnum": "N1"}),
        ("{set: data.page, value: home}", {}, {"page": "home"}),
        ("{set: data.page, value: {a: [1, null, true]}}", {"page": 1}, {"page": {"a": [1, None, True]}}),
        ("{set: data.page, value: null}", {"page": 1}, {"page": None}),
        ("{set: data.a.b, value: 1}", {}, {"a": {"b": 1}}),
        ("{delete: data.x}", {"x": 1, "y": 2}, {"y": 2}),
        ("{delete: data.x.y}", {"x": 1}, {"x": 1}),
        ("{cast: data.minutes, as: number}", {"minutes": " 12.5 "}, {"minutes": 12.5}),
        ("{cast: data.minutes, as: number}", {"minutes": "-12"}, {"minutes": -12}),
        ("{cast: data.minutes, as: number}", {"minutes": None}, {"minutes": None}),
        ("{cast: data.minutes, as: integer}", {"minutes": 12.0}, {"minutes": 12}),
        ("{cast: data.minutes, as: text}", {"minutes": 12.5}, {"minutes": "12.5"}),
        ("{cast: data.minutes, as: text}", {"minutes": True}, {"minutes": "true"}),
        ("{cast: data.paid, as: boolean}", {"paid": "yes"}, {"paid": True}),
        ("{cast: data.paid, as: boolean}", {"paid": 0}, {"paid": False}),
        ("{set: data.minutes, cel: double(data.s) / 60.0}", {"s": "90"}, {"s": "90", "minutes": 1.5}),
        ("{set: data.minutes, cel: 'data.s * 2.0'}", {"s": 3}, {"s": 3, "minutes": 6.0}),
        ("{set: data.page, cel: 'has(data.p) ? data.p : \"home\"'}", {}, {"page": "home"}),
        ("{set: data.page, cel: 'event.type + \"-\" + data.p'}", {"p": "x"}, {"p": "x", "page": "visit-x"}),
        ("{set: data.page, cel: data.deep.er.p}", {"deep": {"er": {"p": "q"}}}, {"deep": {"er": {"p": "q"}}, "page": "q"}),
    ],
)  # fmt: skip
def test_a_step_does_what_it_says(steps: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """rename, move, set, delete and cast; what a step takes and does not find leaves the event as it is."""
    assert made(steps, before)["data"] == after


def test_the_envelope_gives_and_takes_what_does_not_name_the_event() -> None:
    """Time and type may be set, moved and cast; a time in seconds since 1970 becomes RFC 3339."""
    done = made("{move: event.ts, to: event.time}, {cast: event.time, as: unix}", {}, ts="1700000000.25")
    assert done["event"]["time"] == "2023-11-14T22:13:20.250Z" and "ts" not in done["event"]
    assert (
        made("{cast: event.time, as: unix_ms}", {}, time=1700000000250)["event"]["time"] == "2023-11-14T22:13:20.250Z"
    )
    assert made("{set: event.type, value: idle}", {})["event"]["type"] == "idle"


@pytest.mark.parametrize(
    ("steps", "data", "said"),
    [
        ("{rename: data.a, to: b}", {"a": 1, "b": 2}, "data.b is there already"),
        ("{move: data.a, to: data.b.c}", {"a": 1, "b": 2}, "lies below something that is no object"),
        ("{cast: data.a, as: number}", {"a": "secret words"}, "data.a cannot be made a number"),
        ("{cast: data.a, as: number}", {"a": "1e999"}, "cannot be made a number"),
        ("{cast: data.a, as: number}", {"a": True}, "cannot be made a number"),
        ("{cast: data.a, as: integer}", {"a": 1.5}, "cannot be made a whole number"),
        ("{cast: data.a, as: text}", {"a": [1]}, "cannot be made text"),
        ("{cast: data.a, as: boolean}", {"a": 2}, "cannot be made true or false"),
        ("{cast: data.a, as: unix}", {"a": -5}, "seconds since 1970 were expected"),
        ("{set: data.b, cel: double(data.a) / 60.0}", {"a": "secret words"}, "has no value"),
        ("{set: data.b, cel: data.a * 2.0}", {}, "has no value"),
    ],
)
def test_a_step_without_a_value_fails_for_its_event_and_shows_nothing_of_it(
    steps: str, data: dict[str, Any], said: str
) -> None:
    """Nothing is overwritten or guessed; the message names the field and never its value."""
    with pytest.raises(Unfit) as caught:
        made(steps, data)
    assert said in caught.value.said and "secret" not in caught.value.said and caught.value.step == 0


@pytest.mark.parametrize(
    ("text", "said", "help"),
    [
        ("steps: [{renam: data.a, to: b}]", "'renam' is no key of steps.0", "rename"),
        ("step: []", "'step' is no key of a mapping", "steps"),
        ("steps: {rename: data.a}", "a list was expected", ""),
        ("steps: [rename]", "a mapping was expected", ""),
        ("steps: [{to: b}]", "a step does one thing", "rename, move, set, cast, delete"),
        ("steps: [{rename: data.a, delete: data.b, to: c}]", "rename and delete came", ""),
        ("steps: [{rename: data.a}]", "'to' is missing", "add to:"),
        ("steps: [{rename: data.a, to: data.b}]", "a name within the same object", "{move: data.a, to: data.b}"),
        ("steps: [{move: data.a, to: company}]", "a path begins with data.", "write data.company"),
        ("steps: [{delete: dat.a}]", "a path begins with data.", "data.a"),
        ("steps: [{set: data.page}]", "set takes a value or a cel expression", "add value"),
        ("steps: [{set: data.page, value: 1, cel: '1.0'}]", "one of them", "add value"),
        ("steps: [{set: event.id, value: '2'}]", "is what the event is called by", "data."),
        ("steps: [{move: data.a, to: event.repair}]", "is what the event is called by", "event.time"),
        ("steps: [{cast: data.minutes, as: flaot}]", "was expected, 'flaot' came", ""),
        ("steps: [{cast: data.minutes}]", "'as' is missing", "add as:"),
        ("steps: [{delete: data.a, as: number}]", "delete takes no as", "nothing else"),
        ("steps: [{set: data.page, cel: 'dat.a + 1.0'}]", "a rule sees data.<field>", ""),
        ("steps: [{set: data.page, cel: 'data.a ++'}]", "", ""),
        ("steps: [{set: data.page, cel: 'now()'}]", "", ""),
        ("steps: [{set: data.pagee, value: x}]", "the contract has no field data.pagee", "data.page"),
        ("steps: [{move: data.c, to: data.compani}]", "the contract has no field data.compani", "data.company"),
        ("steps: [{move: data.a, to: data.a.b}]", "cannot go below itself", ""),
        ("steps: [{rename: data.a, to: a}]", "it is there already", "leave the step out"),
        ("steps: [{delete: event.data}]", "is data, not event.data", ""),
        ("steps: [{set: data.page, value: 2023-01-01}, {set: data.page, value: !!python/name:os.system x}]", "", ""),
        ("steps: [", "not YAML", ""),
        ("\x00", "", ""),
        ("steps: [" + "{delete: data.a}, " * (STEPS_MAX + 1) + "]", "at most 50 entries", ""),
        ("#" + "x" * 70_000, "at most 65536 bytes", ""),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_place_a_guess_and_a_fix(text: str, said: str, help: str) -> None:
    """Every wrong mapping is a finding with line and column; where something else was probably meant it says so."""
    with pytest.raises(BundleError) as caught:
        read_mapping(text, FIELDS)
    finding = caught.value.findings[0]
    whole = str(caught.value)
    assert finding.file == "mapping" and finding.line >= 1 and finding.column >= 1 and finding.message
    assert said in whole and help in whole


def test_a_field_that_a_later_step_takes_may_be_unknown_to_the_contract() -> None:
    """A step may put something aside for the next one."""
    text = (
        "steps: [{move: data.t.m, to: data.aside}, {set: data.minutes, cel: double(data.aside)}, {delete: data.aside}]"
    )
    event = {"event": {}, "data": {"t": {"m": "3"}}}
    assert read_mapping(text, FIELDS).apply(event) == 0b111 and event["data"] == {"t": {}, "minutes": 3.0}


def test_a_step_that_changes_nothing_at_all_is_a_mistake_with_a_guess() -> None:
    """A name that no event has is told with the one that was probably meant; what was done needs no word."""
    mapping = read_mapping("steps: [{rename: data.compny, to: company}, {delete: data.x}]")
    event = {"event": {}, "data": {"compani": "7", "x": 1}}
    touched = mapping.apply(event)
    (finding,) = mapping.idle(touched, paths_in({"event": {}, "data": {"compani": "7", "x": 1}}))
    assert finding.message == "no event of the problem has data.compny" and finding.guess == "data.compani"


def test_one_mapping_has_one_name_however_it_is_written() -> None:
    """YAML, JSON or plain data: the same repair; another value is another one."""
    yaml = read_mapping("steps:\n  - set: data.page\n    value: home\n")
    assert yaml.id == read_mapping({"steps": [{"value": "home", "set": "data.page"}]}).id
    assert yaml.id == read_mapping(b'{"steps": [{"set": "data.page", "value": "home"}]}').id
    assert yaml.id != read_mapping({"steps": [{"value": "house", "set": "data.page"}]}).id
    assert read_mapping("").id == read_mapping({}).id


def test_an_expression_is_bounded() -> None:
    """A bomb is refused or fails for its event within a second."""
    began = time.perf_counter()
    for text in ("data.a.map(x, data.a.map(y, data.a.map(z, x + y + z)))", "(" * 200 + "1.0" + ")" * 200):
        with pytest.raises(BundleError):
            read_mapping({"steps": [{"set": "data.page", "cel": text}]})
    with pytest.raises(Unfit):
        made('{set: data.page, cel: \'data.a.all(x, data.a.exists(y, y == x)) ? "a" : "b"\'}', {"a": list(range(3000))})
    assert time.perf_counter() - began < 10
