"""Engine against oracle: one raw log through both, the same questions to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from milepost.schemas.serde import wire
from milepost.topology import bases
from milepost.topology.driver import Driver
from milepost.topology.questions import Question as Asked
from milepost.topology.questions import Questions
from milepost.topology.record_questions import RecordQuestion, RecordQuestions
from milepost.topology.refusals import QuestionError
from milepost.topology.steps import run
from tests.oracle import records as oracle_records
from tests.oracle.oracle import Answer, Oracle, Refused
from tests.support.events import PERCENTILES, SECRET, Question, Scenario
from tests.support.invariants import Near

REFUSED = "refused"


def engine_of(scenario: Scenario, *, chunk: int = 500, seed: int = 0, driver: Callable[..., Driver] = Driver) -> Driver:
    """The engine's tables after the scenario's log."""
    made = driver(SECRET, partitions=scenario.partitions, chunk=chunk, seed=seed)
    for org, applied in scenario.applied.items():
        for k_ms, bundle in applied:
            fields = {
                "org": org, "bundle": bundle, "attempt": f"{org}{k_ms}", "k_ms": k_ms, "files": dict(scenario.bundles[bundle]),
            }  # fmt: skip
            made.append("definitions", 0, f"{org}{k_ms}".encode(), wire("Bundle").encode(fields), (), k_ms)
    for records in scenario.log:
        for record in records:
            made.append("raw-events", record.partition, record.key, record.value, record.headers, record.timestamp_ms)
    made.now_ms = scenario.now_ms
    made.follow()
    made.run()
    return made


def oracle_of(scenario: Scenario) -> Oracle:
    made = Oracle(SECRET, scenario.partitions, scenario.bundles, scenario.applied)
    made.read(scenario.log)
    return made


def oracle_over(
    made: Driver,
    secret: bytes,
    bundles: Mapping[bytes, Mapping[str, bytes]],
    tables: Mapping[bytes, dict[int, Any]] | None = None,
) -> Oracle:
    """An oracle that has read the raw log of a driver."""
    oracle = Oracle(secret, made.partitions, bundles, tables=tables)
    oracle.read(
        [
            [
                SimpleNamespace(
                    partition=number, offset=one.offset, timestamp=one.timestamp, timestamp_ms=one.timestamp, key=one.key,
                    value=one.value, headers=one.headers,
                )
                for one in log
            ]
            for number, log in enumerate(made.topics["raw-events"])
        ]
    )  # fmt: skip
    return oracle


def ask_oracle(oracle: Oracle, question: Question) -> Any:
    try:
        answer = question.ask(oracle)
    except (LookupError, Refused):
        return REFUSED
    if question.kind == "value":
        return _expected(question, answer)
    if question.kind == "series":
        return {point.start_ms: _expected(question, point.answer) for point in answer}
    return {key: _expected(question, row) for key, row in answer.items()}


def _expected(question: Question, answer: Answer) -> tuple[float | Near | None, str | None]:
    """(number, reason); of a percentile the exact value at its rank, which the engine's is near."""
    return (Near(answer.value) if question.metric in PERCENTILES else answer.value), answer.reason


def ask_engine(driver: Driver, question: Question) -> Any:
    arguments, asked = question.arguments, asked_of(question)
    questions = Questions(driver.reader)
    try:
        if question.kind == "value":
            answer: Mapping[str, Any] = run(questions.value(asked))
            return answer["value"], answer["reason"]
        if question.kind == "series":
            answer = run(questions.series(asked, arguments["from_ms"], arguments["to_ms"], arguments["every"]))
            return {bases.instant(point["start"]): (point["value"], point["reason"]) for point in answer["points"]}
        answer = run(questions.breakdown(asked, arguments["by"]))
    except QuestionError:
        return REFUSED
    return {row["key"]: (row["value"], row["reason"]) for row in answer["rows"]}


def asked_of(question: Question) -> Asked:
    """A question as the engine takes it."""
    arguments: dict[str, Any] = dict(question.arguments)
    return Asked(
        metric=question.metric,
        now_ms=arguments["now"],
        org=arguments.get("org"),
        company=question.company,
        at_ms=arguments.get("at"),
        basis=arguments.get("basis"),
        window=arguments.get("window", "all"),
        tz=arguments.get("tz", "UTC"),
        dims=arguments.get("dims") or {},
    )


def records_of(oracle: Oracle, engine: Any, moments: Sequence[int], now_ms: int) -> list[str]:
    """Where a record that any event ever wrote differs: its history now, and its value at each moment on both bases."""
    told, questions, wrong = oracle.reading.events, RecordQuestions(engine.reader), list[str]()
    written = {(event.org, one.record, one.id) for event in told for one in event.writes}
    for org, type, id in sorted(written):
        if type not in engine.reader.decisions.history[org][-1].catalog.records:
            continue
        asked = RecordQuestion(type=type, id=id, now_ms=now_ms, org=org)
        rows = run(questions.history(asked, 0, 1000))["versions"]
        came = [(one["event"]["id"], one["revision"], one["op"], one["value"]) for one in rows if one["holds"]]
        expected: Any = [entry[2:] for entry in oracle_records.history(told, org, type, id)[::-1]]
        if came != expected:
            wrong.append(f"history of {type} {id} in {org}: {came}, expected {expected}")
        for at_ms in moments:
            for basis in ("corrected", "as_shown"):
                found = run(questions.value(replace(asked, at_ms=at_ms, basis=basis)))["value"]
                expected = oracle_records.value(told, org, type, id, basis, at_ms)
                if found != expected:
                    wrong.append(f"{type} {id} in {org} at {at_ms} {basis}: {found}, expected {expected}")
    return wrong


def counts_of(driver: Driver) -> dict[str, int]:
    """The engine's fates of records and pairs, under the oracle's names."""
    return {name: n for name, n in driver.fates["ingest"].items() if n}
