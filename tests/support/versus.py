"""Engine against oracle: one raw log through both, the same questions to both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.schemas.serde import wire
from milepost.topology import bases
from milepost.topology.driver import Driver
from milepost.topology.questions import Question as Asked
from milepost.topology.questions import Questions
from milepost.topology.refusals import QuestionError
from milepost.topology.steps import run
from tests.oracle.oracle import Answer, Oracle, Refused
from tests.support.events import PERCENTILES, SECRET, Question, Scenario
from tests.support.invariants import Near

REFUSED = "refused"


def engine_of(scenario: Scenario, *, chunk: int = 500, seed: int = 0, driver: type[Driver] = Driver) -> Driver:
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
    arguments: dict[str, Any] = dict(question.arguments)
    asked = Asked(
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


def counts_of(driver: Driver) -> dict[str, int]:
    """The engine's fates of records and pairs, under the oracle's names."""
    return {name: n for name, n in driver.fates["ingest"].items() if n}
