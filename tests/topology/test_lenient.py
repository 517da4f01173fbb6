"""Lenient: a bundle that an older release applied and this one's checks refuse holds as far as it can, and stops nobody."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

from milepost.schemas.errors import BundleError
from milepost.schemas.serde import wire
from milepost.topology.catalog import Catalog, bundle_id, load_bundle
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.lenient import lenient_bundle, nothing_holds
from milepost.topology.questions import Question, Questions
from milepost.topology.refusals import QuestionError, UnknownMetric
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

MAIN = FILES["milepost.yaml"].decode()
PLANS = f"""
records:
  page: {{on: visit, id: data.page, op: upsert, fields: {{plan: data.plan}}}}
milestones:
  used: {{kind: achieve, start: 2023-11-01, deadline: 2024-11-01, actions: {{visits: {{metric: visits, op: ">=", value: 1}}}}}}
  long: {{kind: achieve, start: 2023-11-01, deadline: 2024-11-01, actions: {{some: {{metric: long_visits, op: ">=", value: 1}}}}}}
plans:
  growth: {{bridge: "{ORG}/*", milestones: [used], metrics: [visits]}}
  depth: {{bridge: "{ORG}/*", milestones: [long]}}
"""
WHOLE = MAIN + PLANS


def files(text: str) -> dict[str, bytes]:
    return {**FILES, "milepost.yaml": text.encode()}


def changed(*pairs: tuple[str, str]) -> dict[str, bytes]:
    text = WHOLE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return files(text)


LONG = "data.minutes != null && data.minutes > 30.0"
WITHOUT_LONG = {
    "rules": {"long_visit"},
    "metrics": {"long_visits", "long_rate"},
    "milestones": {"long"},
    "plans": {"depth"},
}
OLDER: list[Any] = [
    pytest.param([(LONG, "data.length > 30.0")], WITHOUT_LONG, id="a field that is not there"),
    pytest.param([(LONG, "data.minutes >> 30.0")], WITHOUT_LONG, id="no expression"),
    pytest.param([("long_visit: {on: visit,", "long_visit: {on: visit, within: 1h,")], WITHOUT_LONG, id="an unknown key"),
    pytest.param([(f"when: {LONG}", "when: !code x")], WITHOUT_LONG, id="a value that cannot be read"),
    pytest.param(
        [("long_visits: {from: long_visit, aggregate: count, dimensions: [page]}",
          "long_visits: {from: long_visit, aggregate: count, dimensions: [pages]}")],
        {**WITHOUT_LONG, "rules": set()}, id="an unknown dimension",
    ),
    pytest.param(
        [("devices: {from: visited, aggregate: distinct(device)}", "devices: {from: visited, aggregate: distinct(divice)}")],
        {"metrics": {"devices"}}, id="an unknown entity",
    ),
    pytest.param(
        [("minutes: {from: visited, aggregate: [sum", "minutes: {from: visited, scale: 13, aggregate: [sum")],
        {"metrics": {f"minutes_{one}" for one in ("sum", "avg", "min", "max", "last")}}, id="beyond a bound",
    ),
    pytest.param([("long_visits / visits", "long_rate / visits")], {"metrics": {"long_rate"}}, id="a circle"),
    pytest.param(
        [("used: {kind: achieve, start: 2023-11-01", "used: {kind: achieve, start: 2025-11-01")],
        {"milestones": {"used"}, "plans": {"growth"}}, id="dates out of order",
    ),
    pytest.param([("metrics: [visits]", "metrics: [visit]")], {"plans": {"growth"}}, id="an unknown metric in a plan"),
    pytest.param([("id: data.page", "id: data.sheet")], {"records": {"page"}}, id="a record without its id"),
    pytest.param([("op: upsert", "op: upset")], {"records": {"page"}}, id="an unknown operation"),
    pytest.param([("owner: app@example.org", "owner: [a, b]")], {}, id="an owner that is none"),
    pytest.param([("idle: {schema: Visit}", "idle: {schema: Idle}")], {}, id="a contract that is not there"),
    pytest.param([("\nplans:", "\nbridges: {}\nplans:")], {}, id="an unknown section"),
]  # fmt: skip
"""What was written, and what of the bundle then does not hold."""


def names(catalog: Catalog, section: str) -> set[str]:
    return set(getattr(catalog, section))


@pytest.mark.parametrize(("pairs", "gone"), OLDER)
def test_what_holds_is_as_it_was_and_the_rest_is_named(pairs: list[tuple[str, str]], gone: dict[str, set[str]]) -> None:
    """What has a fault and what is made of it is left out; everything else keeps its version, and with it its history."""
    bundle = changed(*pairs)
    with pytest.raises(BundleError) as refused:
        load_bundle(bundle)
    whole, found = load_bundle(files(WHOLE)), lenient_bundle(bundle)
    assert found.bundle_id == bundle_id(bundle) and not nothing_holds(found)
    assert refused.value.findings[0] in found.left_out
    for section in ("sources", "rules", "metrics", "milestones", "plans", "records", "reactions"):
        assert names(whole, section) - names(found, section) == gone.get(section, set()), section
        for name in names(found, section) - {"app"}:
            assert getattr(found, section)[name].version == getattr(whole, section)[name].version, name
    assert {one.name for one in found.measures} == {
        one.measure.name for one in found.metrics.values() if one.measure is not None
    }
    assert lenient_bundle(files(WHOLE)) is whole and whole.left_out == ()


def lived(older: dict[str, bytes], events: int = 30) -> Driver:
    """A whole bundle, half of the events, the older one, the other half."""
    made = Driver(SECRET, partitions=3, chunk=7)
    made.apply(ORG, files(WHOLE), T0)
    for i in range(events):
        if i == events // 2:
            made.apply(ORG, older, T0 + i * HOUR, checked=False)
        made.produce(visit(f"e{i}", T0 + i * HOUR, f"c{i % 3}", minutes=20.0 + i, device=f"d{i}"), T0 + i * HOUR)
    made.tick(T0 + DAY)
    made.run()
    return made


@cache
def usual() -> Driver:
    """Both bundles whole: what they say is the same, their bytes are not."""
    return lived(files(WHOLE + "#"))


def value(made: Driver, metric: str) -> Any:
    return run(Questions(made.reader).value(Question(metric=metric, now_ms=T0 + 9 * DAY)))["value"]


@pytest.mark.parametrize(("pairs", "gone"), OLDER)
def test_the_line_goes_on_behind_its_marker(pairs: list[tuple[str, str]], gone: dict[str, set[str]]) -> None:
    """Every event behind it is accepted and counts; what a rule or a record that does not hold would have made of it is a
    dead letter of the pair, with the reason."""
    made = lived(changed(*pairs))
    assert made.fates["ingest"]["accepted"] == 30 and value(made, "visits") == 30
    wanted = {name for section in ("rules", "records") for name in gone.get(section, ())}
    letters = made.dead_letters
    assert {one["rule"] for one in letters} == wanted and len(letters) == 15 * len(wanted)
    assert {one["reason"] for one in letters} <= {"rule_error"}
    assert all("does not hold in this release: " in one["detail"] for one in letters)
    for metric in names(load_bundle(files(WHOLE)), "metrics"):
        if metric in gone.get("metrics", ()):
            with pytest.raises(UnknownMetric) as refused:
                value(made, metric)
            assert "GET /readyz says which" in (refused.value.fix or "")
        else:
            assert value(made, metric) == value(usual(), metric)
    assert made.decisions.left_out() == {ORG: lenient_bundle(changed(*pairs)).left_out}


def test_a_part_that_is_left_out_touches_no_other() -> None:
    """Facts and cells are those of a bundle in which it was never written."""
    without = files(WHOLE.replace("  devices: {from: visited, aggregate: distinct(device)}\n", ""))
    with_fault = changed(("distinct(device)", "distinct(divice)"))
    tables = [digest(lived(one).reader) for one in (without, with_fault)]
    assert [one["cells"] for one in tables] == [tables[0]["cells"]] * 2
    assert tables[0]["cells"] != digest(lived(files(WHOLE)).reader)["cells"], "a control: devices has cells"


@pytest.mark.parametrize(
    "text", ["sources: [", "signals: {s: {on: no.such.type}}", "[]", "", "\x00", "sources: {app: 1}"]
)
def test_of_what_nothing_holds_no_question_knows(text: str) -> None:
    """Its marker stops nobody: events behind it are dead letters `unknown_source`, to be sent again; questions keep the
    definitions before it."""
    older = {"milepost.yaml": text.encode()}
    made = Driver(SECRET, partitions=2)
    made.apply(ORG, FILES, T0)
    made.produce(visit("before", T0), T0)
    fields = {"org": ORG, "bundle": bundle_id(older), "attempt": "x", "k_ms": 0, "files": older}
    catalogs = dict(made.decisions.catalogs)
    made.append("definitions", 0, b"x", wire("Bundle").encode(fields), (), T0 + HOUR)
    with pytest.raises(BundleError):
        made.follow()
    assert list(made.decisions.catalogs) == [*catalogs, bundle_id(older)]
    assert nothing_holds(made.decisions.catalogs[bundle_id(older)])
    made.topics["definitions"][0].pop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("milepost.topology.driver.add_definition", lambda *_: None)
        made.apply(ORG, older, T0 + HOUR, checked=False)
    made.produce(visit("behind", T0 + HOUR), T0 + HOUR)
    made.run()
    assert [one["reason"] for one in made.dead_letters] == ["unknown_source"] and value(made, "visits") == 1


def test_an_engine_that_checks_the_log_as_it_checks_an_apply_stops() -> None:
    """Positive control: with the strict reading the same log ends at the bundle."""
    made = Driver(SECRET, load=load_bundle)
    made.apply(ORG, files(WHOLE), T0)
    with pytest.raises(BundleError):
        made.apply(ORG, changed((LONG, "data.length > 30.0")), T0, checked=False)


def test_an_apply_is_checked_as_before() -> None:
    """Whoever applies such a bundle now is refused."""
    made = Driver(SECRET)
    with pytest.raises(BundleError):
        made.apply(ORG, changed((LONG, "data.length > 30.0")), T0)
    assert made.topics["definitions"][0] == []


@pytest.mark.parametrize("seed", range(16))
def test_whatever_lies_in_the_log_is_read(seed: int) -> None:
    """A bundle damaged anywhere is read without an error, twice alike, and events behind it come to an end."""
    chance = random.Random(seed)
    text = bytearray(WHOLE.encode())
    for _ in range(chance.choice((1, 2, 5, 20))):
        at = chance.randrange(len(text))
        match chance.randrange(3):
            case 0:
                text[at] = chance.choice(b"{}[],:#'\"x0 \n-&*!")
            case 1:
                del text[at : at + chance.randrange(1, 30)]
            case _:
                text[at:at] = text[chance.randrange(len(text)) :][: chance.randrange(1, 30)]
    damaged = {**FILES, "milepost.yaml": bytes(text)}
    found = lenient_bundle(damaged)
    assert found.bundle_id == bundle_id(damaged)
    if nothing_holds(found):
        return
    made = lived(damaged, 8)
    taken = made.fates["ingest"]
    ended = taken["accepted"] + sum(n for name, n in taken.items() if name.startswith("dead:"))
    assert taken["read"] == ended == 8
    for metric in found.metrics:
        try:
            value(made, metric)
        except QuestionError as refusal:
            assert refusal.detail, metric
