"""Everything that can be asked of a log, at random: the same question to the engine and to the oracle.

    one = asking(scenario, chance)
    answer, faults = differences(oracle, engine, scenario, one)

A question is plain data.  Both sides answer plain data, `REFUSED` for what does not exist or has no exact answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from milepost.topology.aggregates import scaled
from milepost.topology.asked import Question as Asked
from milepost.topology.bases import instant
from milepost.topology.companies import Companies
from milepost.topology.driver import Driver
from milepost.topology.explain import Explanations
from milepost.topology.latest_questions import SignalsAsked, latest
from milepost.topology.questions import Questions
from milepost.topology.record_questions import RecordQuestion, RecordQuestions
from milepost.topology.refusals import QuestionError
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.oracle import behind, clock, keys, standings
from tests.oracle import records as oracle_records
from tests.oracle import signals as oracle_signals
from tests.oracle.oracle import Oracle, Refused
from tests.support import events
from tests.support.events import ORG, SECRET, Question, Scenario, one_question
from tests.support.invariants import same_answers
from tests.support.planned import PLANS, RECORDS
from tests.support.versus import REFUSED, ask_engine, ask_oracle, asked_of

KINDS: Mapping[str, int] = {
    "metric": 7, "milestone": 5, "plan": 1, "portfolio": 1, "resolve": 2, "companies": 1, "record": 2, "explain": 1,
    "diff": 1, "complete": 1,
    "signals": 1,
}  # fmt: skip
"""How often a kind is asked; `metric` is a value, a series or a breakdown."""

STANDINGS = ("milestone", "plan", "portfolio")
LIMIT = 1000
"""Events and versions that one answer holds: more than a log has."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A question.  of: what the kind needs;  metric, other: questions of metrics, for kinds that are about numbers"""

    kind: str
    of: Mapping[str, Any]
    metric: Question | None = None
    other: Question | None = None


def asking(scenario: Scenario, chance: random.Random) -> Asking:
    """A question of any kind, at a moment at which something may have changed."""
    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
    if kind == "metric":
        return Asking(kind=kind, of={}, metric=_metric(scenario, chance))
    if kind in ("explain", "diff", "complete"):
        first = _number(scenario, chance)
        second = replace(first, arguments={**first.arguments, **_when(scenario, chance)})
        return Asking(kind=kind, of={}, metric=first, other=second if kind == "diff" else None)
    when = _when(scenario, chance, near=kind in STANDINGS)
    of: dict[str, Any] = {}
    if kind in STANDINGS:
        plan = chance.choice(("pilot", "pilot", "growth", "account"))
        of["plan"] = plan if kind != "portfolio" else chance.choice(("pilot", "account", "account"))
        of["milestone"] = chance.choice(PLANS[plan]) if kind == "milestone" else None
        of["company"] = None if kind == "portfolio" else _company(chance)
    elif kind == "resolve":
        of["entity"] = chance.choice(("company", "company", "device", "person"))
        of["key"] = _some_key(chance, of["entity"])
        when["at"] = chance.choice((None, chance.choice(scenario.moments)))
    elif kind == "signals":
        of["company"] = _company(chance)
        of["from"] = chance.choice((None, None, chance.choice(scenario.moments)))
        of["limit"] = chance.choice((1, 3, LIMIT))
    elif kind == "record":
        of["type"], of["id"] = chance.choice(RECORDS)
    return Asking(kind=kind, of={**of, **when})


def _metric(scenario: Scenario, chance: random.Random) -> Question:
    """Of a company that has more events than others, if of any."""
    one = one_question(scenario, chance)
    return one if one.company is None else replace(one, company=_company(chance))


def _number(scenario: Scenario, chance: random.Random) -> Question:
    while (one := _metric(scenario, chance)).kind != "value":
        pass
    return one


def _when(scenario: Scenario, chance: random.Random, *, near: bool = False) -> dict[str, Any]:
    """A moment and a basis.  near: mostly while the milestones of planned.py are decided"""
    basis = chance.choice(("latest", "corrected", "as_shown", "as_shown"))
    moments = scenario.moments
    if near and chance.random() < 0.7:
        begun = scenario.applied[ORG][0][0]
        moments = [one for one in moments if begun <= one <= begun + 36 * clock.HOUR]
    at = None if basis == "latest" else chance.choice(moments) + chance.choice((0, 0, clock.HOUR, 6 * clock.HOUR))
    return {"now": scenario.now_ms, "org": ORG, "basis": basis, "at": at}


def _company(chance: random.Random) -> str:
    often = ("code:c1", "code:c1", "code:c2", "code:c2", "name:n1", "name:n2")
    if chance.random() < 0.1:
        return keys.metakey(keys.leaf(SECRET, ORG, "company", "code", chance.choice(("c1", "c2", "nobody"))))
    return chance.choice((*often, chance.choice(events.NAMES)))


def _some_key(chance: random.Random, entity: str) -> str:
    if entity == "company":
        return chance.choice((*events.NAMES, "code:c1", "name:n1", "vat:v2"))
    if entity == "device":
        return f"serial:d{chance.randrange(5)}"
    return chance.choice((f"email:p{chance.randrange(4)}@a.example", f"login:l{chance.randrange(5)}"))


def differences(oracle: Oracle, engine: Driver, scenario: Scenario, one: Asking) -> tuple[Any, list[str]]:
    """What the oracle says, and where the engine says something else."""
    if one.metric is not None and one.kind == "metric":
        wanted = ask_oracle(oracle, one.metric)
        return wanted, same_answers({str(one): wanted}, {str(one): ask_engine(engine, one.metric)})
    wanted, came = expected(oracle, scenario, one), answered(engine, one)
    return wanted, [] if wanted == came else [f"I2: {one}: expected {wanted}, came {came}"]


# -- the oracle


def expected(oracle: Oracle, scenario: Scenario, one: Asking) -> Any:
    """What the oracle answers.  It has seen the whole log: the last tick is at the end."""
    try:
        return _expected(oracle, scenario, one)
    except (LookupError, Refused):
        return REFUSED


def _expected(oracle: Oracle, scenario: Scenario, one: Asking) -> Any:
    of, told = one.of, oracle.reading.events
    match one.kind:
        case kind if kind in STANDINGS:
            which = {name: of[name] for name in ("plan", "milestone", "company")}
            found = standings.rows(oracle, of, seen_ms=scenario.now_ms, **which)
            return {name: _row(row) for name, row in found.items()}
        case "resolve":
            kind, _, value = of["key"].partition(":")
            leaf = keys.leaf(SECRET, ORG, of["entity"], kind, value)
            if leaf not in oracle.reading.keys:
                return REFUSED
            return {keys.metakey(leaf): keys.metakey(oracle.root(leaf, of["at"]))}
        case "companies":
            return {
                each.metakey: (each.name, *sorted(f"{kind}:{value}" for kind, value in each.keys))
                for each in oracle.companies(ORG)
            }
        case "record":
            basis, at_ms = of["basis"], of["at"]
            history = oracle_records.history(told, ORG, of["type"], of["id"], basis, at_ms)
            return dict(enumerate(entry[2:] for entry in history[::-1]))
        case "signals":
            return oracle_signals.latest(oracle, of)
    assert one.metric is not None
    asked = (one.metric.metric, one.metric.company, one.metric.arguments)
    if one.kind == "complete":
        if one.metric.company is not None:
            oracle._leaf(one.metric.company, ORG)
        for name in one.metric.arguments["dims"]:
            oracle._has_dimension(oracle._asked(*_moment_of(one.metric))[0], name)
        return standings.complete_to(oracle, asked[0], asked[2], scenario.now_ms)
    if one.kind == "explain":
        found_events = behind.events(oracle, *asked)
        return {(name, place): adds for name, place, adds in found_events}
    assert one.kind == "diff" and one.other is not None
    causes = behind.causes(oracle, *asked, one.other.arguments)
    return {(name, cause): change for name, some in causes.items() for cause, change in some.items()}


def _moment_of(one: Question) -> tuple[Any, ...]:
    of = one.arguments
    return one.metric, None, of.get("at"), of["basis"], None, of["now"], of["org"]


def _row(row: standings.Row) -> tuple[Any, ...]:
    stood = row.outcome
    return (
        stood.achieved_ms, stood.state, stood.lapses, row.complete_ms,
        {name: (_figure(value), stood.held.get(name)) for name, value in stood.values.items()},
    )  # fmt: skip


def _figure(value: Any) -> Any:
    """A formula's last digit is nobody's; two doubles that near are one figure."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


# -- the engine


def answered(engine: Driver, one: Asking) -> Any:
    """What the engine answers."""
    try:
        return _answered(engine, one)
    except QuestionError:
        return REFUSED


def _answered(engine: Driver, one: Asking) -> Any:
    of, reader = one.of, engine.reader
    match one.kind:
        case kind if kind in STANDINGS:
            asks = Asks(
                now_ms=of["now"], org=ORG, company=of["company"], at_ms=of["at"], basis=of["basis"], plan=of["plan"],
                milestone=of["milestone"],
            )  # fmt: skip
            if one.kind != "portfolio":
                rows = run(Standings(reader).states(asks))["milestones"]
                return {(row["plan"], row["milestone"], row["company"]): _told(row) for row in rows}
            found = {}
            for milestone in run(Standings(reader).portfolio(asks))["milestones"]:
                rows = milestone["companies"]
                assert milestone["states"] == {
                    state: sum(row["state"] == state for row in rows)
                    for state in sorted({row["state"] for row in rows})
                }
                found |= {(of["plan"], milestone["name"], row["company"]): _told(row) for row in rows}
            return found
        case "resolve":
            kind, _, value = of["key"].partition(":")
            told = run(_companies(engine).resolve(of["entity"], kind, value, of["at"]))
            ends = {told["leaf"]}
            for link in told["links"]:
                assert len(ends & {link["a"], link["b"]}) == 1, "a chain of links goes from one to the next"
                ends ^= {link["a"], link["b"]}
            assert ends == {told["metakey"]}, "and ends at the root"
            return {told["leaf"]: told["metakey"]}
        case "companies":
            return {
                keys.metakey(each.root): (each.name, *sorted(f"{row.kind}:{row.value}" for row in each.keys))
                for each in run(_companies(engine).all())
            }
        case "record":
            asked_record = RecordQuestion(
                type=of["type"], id=of["id"], now_ms=of["now"], org=ORG, at_ms=of["at"], basis=of["basis"]
            )
            versions = run(RecordQuestions(reader).history(asked_record, 0, LIMIT))["versions"]
            held = [
                (each["event"]["id"], each["revision"], each["op"], each["value"]) for each in versions if each["holds"]
            ]
            last = run(RecordQuestions(reader).value(asked_record))["value"]
            assert last == (held[0][-1] if held else None), "a record is what its last change made it"
            return dict(enumerate(held))
        case "signals":
            return _latest(engine, of)
    assert one.metric is not None
    asked = asked_of(one.metric)
    if one.kind == "complete":
        return _ms(run(Questions(reader).value(asked))["complete_to"])
    if one.kind == "explain":
        return _explained(engine, asked)
    assert one.kind == "diff" and one.other is not None
    told = run(Explanations(reader).diff(asked, asked_of(one.other), None, LIMIT))
    assert all(each["adds_up"] is not False for each in told["operands"]), "the causes add up to the difference"
    return {
        (each["metric"], cause): (change["added"], change["removed"], change["changed"], _exact(change["sum"]))
        for each in told["operands"]
        for cause, change in each["causes"].items()
    }


def _latest(engine: Driver, of: Mapping[str, Any]) -> list[Any]:
    """All pages, one behind the other."""
    asks = SignalsAsked(
        company=of["company"], now_ms=of["now"], org=ORG, at_ms=of["at"], basis=of["basis"], from_ms=of["from"],
        limit=of["limit"],
    )  # fmt: skip
    found: list[Any] = []
    while True:
        told = run(latest(engine.reader, asks))
        assert len(told["signals"]) <= of["limit"] and told["limited"] is None
        found += [
            (
                instant(row["time"]), row["source"], row["id"], row["revision"], row["repair"],
                sorted((one["name"], sorted(one["fields"].items())) for one in row["signals"]),
            )
            for row in told["signals"]
        ]  # fmt: skip
        assert [one[0] for one in found] == sorted((one[0] for one in found), reverse=True), "the newest first"
        if told["next"] is None:
            return sorted(found)
        asks = replace(asks, behind=told["next"])


def _explained(engine: Driver, asked: Asked) -> dict[Any, Fraction]:
    told = run(Explanations(engine.reader).explain(asked, None, LIMIT))
    assert told["agrees"] is True and told["next"] is None, "a number is the sum of its events"
    return {
        (name, (row["source"], row["id"], row["revision"], row["repair"])): _exact(row["adds"])
        for row in told["rows"]
        for name in row["metrics"]
    }


def _exact(value: float) -> Fraction:
    return Fraction(scaled(value, 6), 10**6)


def _companies(engine: Driver) -> Companies:
    return Companies(engine.reader, ORG, engine.decisions.history[ORG][-1].catalog.key_rank)


def _told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    figures = {
        one["name"]: (
            ((one["holds"], _ms(one["since"]), one["by"]), None)
            if "manual" in one
            else (_figure(one["value"]), (_ms(one["since"]), _ms(one["first_held"])))
        )
        for one in row["actions"]
    }
    return _ms(row["achieved_at"]), row["state"], row["lapsed"], _ms(row["complete_to"]), figures


def _ms(text: str | None) -> int | None:
    return None if text is None else instant(text)
