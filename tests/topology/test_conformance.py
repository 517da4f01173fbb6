"""CEL, chapter by chapter: what the library answers, and how a rule takes the same text.

The library's package holds no conformance cases, so these are our own, after the specification; what each is worth is
confirmed against the library in every run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cel_expr_python import cel

from milepost.schemas.errors import RuleError
from milepost.topology.by_library import plain
from milepost.topology.expression_part import REFUSALS
from milepost.topology.expressions import ExpressionFault, compile_expression

FILE: Final = Path(__file__).with_name("conformance.txt")


class Case(NamedTuple):
    chapter: str
    text: str
    answer: str
    outcome: str


def cases() -> list[Case]:
    found, chapter = [], ""
    for line in FILE.read_text().splitlines():
        if line.startswith("[") and line.endswith("]") and " | " not in line:
            chapter = line.strip("[]")
        elif chapter and line:
            found.append(Case(chapter, *line.rsplit(" | ", 2)))
    return found


CASES: Final = cases()


def by_library(text: str) -> str:
    """The library's answer to a text as it stands."""
    try:
        program = cel.NewEnv().compile(text)
    except RuntimeError:
        return "invalid"
    try:
        result = program.eval(data={})
    except RuntimeError:
        return "error"
    return "error" if result.type().name() == "ERROR" else written(plain(result))


def written(value: object) -> str:
    """A value as JSON; whole numbers as doubles, and none that is not finite."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "error"
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return "other"


def by_rule(text: str) -> tuple[str, str, str]:
    """Who evaluates, or why it is refused; a rule's answer; and the library's to the canonical text."""
    try:
        expression = compile_expression(text, "rule", data={})
    except ExpressionFault as fault:
        return fault.reason, "", ""
    try:
        answer = written(expression.evaluate({}, {}))
    except RuleError:
        answer = "error"
    return "compiled" if expression.compiled else "library", answer, by_library(expression.canonical)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.chapter}: {case.text}"[:60])
def test_a_rule_says_what_cel_says_or_says_why_not(case: Case) -> None:
    """Each case is equal, refused with a reason of the closed list, or another number because all are doubles."""
    assert by_library(case.text) == case.answer
    outcome, answer, canonical = by_rule(case.text)
    if outcome in REFUSALS:
        assert case.outcome == outcome
        return
    assert answer == canonical
    assert case.outcome == (outcome if answer == case.answer else f"doubles: {answer}")


def test_what_differs_is_counted() -> None:
    """How many cases are compiled, the library's, another number, or refused, and why."""
    counts = Counter(case.outcome.partition(":")[0] for case in CASES)
    refused = {why: counts.pop(why) for why in sorted(counts) if why in REFUSALS}
    assert dict(counts) == COUNTS and refused == REFUSED


COUNTS: Final = {"compiled": 209, "doubles": 5, "library": 16}
REFUSED: Final = {
    "dynamic": 5,
    "function": 3,
    "keys": 4,
    "kind": 36,
    "literal": 9,
    "message": 1,
    "name": 3,
    "null": 1,
    "order": 2,
    "pattern": 3,
    "several_kinds": 4,
    "syntax": 11,
    "zone": 2,
}


def test_what_is_refused_without_need_is_known() -> None:
    """Of what CEL gives a value, a rule refuses only what has no place in it."""
    needless = {case.outcome for case in CASES if case.outcome in REFUSALS and case.answer not in ("invalid", "error")}
    assert needless <= {
        "literal",  # bytes, unsigned numbers, whole numbers that no double is equal to
        "dynamic",
        "message",
        "keys",
        "several_kinds",
        "order",
        "zone",
        "pattern",  # of several texts
        "kind",  # an empty list, a list of times or of lists
    }
