"""The law of expressions: whoever evaluates, the value, null or error is the same.  A sample here, 100,000 in the campaign.

Positive control: translations that are wrong in one place each, all found by the same comparison.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from cel_expr_python import cel

from milepost.topology import functions, meanings, patterns, translate
from milepost.topology.by_library import plain
from tests.support.expressions import CORNERS, ERROR, compare, judge, letters, same, spellings, texts
from tests.support.expressions import patterns as written_patterns

SEED = 2013
COUNT = 2000
EVENTS = 200  # of a corner: so many that each odd value meets each other

FEATURES = (
    "map(", "filter(", "all(", "exists(", "exists_one(", "matches(", "timestamp(", "duration(", "double(", "int(",
    "string(", "bool(", "size(", "startsWith(", "has(", " in ", " ? ", " % ", "[",
)  # fmt: skip


def test_compiled_and_library_are_one_language() -> None:
    """Expressions of every form on many events: compiled, canonical by the library, and as written by the library."""
    tally = compare(SEED, COUNT)
    assert not tally.wrong, "\n".join(tally.wrong[:3])
    met = tally.met
    assert met["compiled"] > 3 * met["by the library"] > 0
    assert sum(met[f"refused: {why}"] for why in ("bound", "null")) < COUNT / 50
    assert min(met[kind] for kind in ("error", "null", "bool", "float", "str")) >= COUNT / 100, met


def test_the_generator_writes_every_form() -> None:
    """What the law is tried on holds every operator and function there is."""
    written = "\n".join(texts(SEED, COUNT))
    assert [one for one in FEATURES if one not in written] == []


WRONG: Mapping[str, Any] = {
    "_and": lambda left, right: left() and right(),
    "_or": lambda left, right: left() or right(),
    "_any": lambda test, items: any(map(test, items)),
    "_every": lambda test, items: all(map(test, items)),
    "_divide": lambda left, right: left / right,
    "_modulo": lambda left, right: left % right,
    "_quotient": lambda left, right: left // right,
    "_i64": lambda value: value,
    "_int": lambda value: math.floor(value),
    "_at": lambda items, index: items[index],
    "_among": lambda value, items: value in items,
    "_floats": lambda values: values and list(values),
    "_boolean": bool,
    "_text": lambda value: value,
    "_below": lambda record, name: record[name],
    "_int_of": int,
    "_double_of": float,
    "_truth_of": lambda text: text == "true",
    "_text_of_number": str,
    "_text_of_truth": str,
    "_cut": lambda ns, unit, limit: ns // unit % (limit or 2**62),
    "_day": lambda seconds, right=meanings._day: right(seconds + 3600),
    "_from_seconds": lambda seconds: seconds * 1000,
    "_duration": lambda text: 0,
}
"""A helper of generated code as one would first write it, with Python's own operator or function."""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_meaning_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each helper is there for a reason: without it the comparison finds a difference."""
    monkeypatch.setitem(meanings.HELPERS, name, WRONG[name])
    assert _found(), f"{name} may be wrong, and nothing notices"


def _found() -> bool:
    """Whether the comparison finds something wrong, or an error that no rule may end with."""
    try:
        return any(judge((text,), Random(SEED), events=EVENTS).wrong for text in CORNERS)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return True


def test_right_meanings_are_found_right() -> None:
    """Negative control: what finds the wrong ones finds nothing in the right ones."""
    assert not _found()


@pytest.mark.parametrize(("sign", "wrong"), [("_<=_", "<"), ("_>_", ">=")])
def test_a_wrong_operator_is_found(sign: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With < for <=, the law does not hold."""
    monkeypatch.setitem(translate._ORDER, sign, wrong)
    texts = ("data.n <= data.nn", "data.n > data.nn")
    assert judge(texts, Random(SEED), events=60).wrong


def test_a_wrong_table_of_dates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Months that begin at one, as Python's do, are found."""
    monkeypatch.setitem(functions.DATES, "getMonth", "_day({at}).month")
    assert _found()


def test_a_pattern_read_as_it_is_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's classes and its `$` are not RE2's."""

    def naive(pattern: str) -> Any:
        search = re.compile(pattern).search
        return lambda text: search(text) is not None

    monkeypatch.setattr(patterns, "as_python", naive)
    assert judge([r"'b\n'.matches('b$')", r"'٣'.matches('\\d')"], Random(SEED), events=1).wrong


def _patterns_that_differ(seed: int, count: int) -> tuple[int, list[tuple[str, str]]]:
    """How many patterns Python takes, and where it says something else than the library."""
    random, taken, wrong = Random(seed), 0, []
    env = cel.NewEnv(variables={"s": cel.Type.STRING})
    for pattern in written_patterns(random, count):
        program = env.compile(f"s.matches({json.dumps(pattern)})")
        test = patterns.as_python(pattern) if program.eval(data={"s": ""}).type().name() == "BOOL" else None
        if test is None:
            continue
        taken += 1
        for text in letters(random, 25):
            if test(text) != plain(program.eval(data={"s": text})):
                wrong.append((pattern, text))
    return taken, wrong


def test_a_pattern_that_python_takes_means_the_same() -> None:
    """Patterns at random, broken ones among them, on texts of what engines tell apart: Python and RE2 agree."""
    taken, wrong = _patterns_that_differ(SEED, 3000)
    assert taken > 300 and wrong == []


def test_a_pattern_that_means_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with Python's own classes, they do not agree."""
    monkeypatch.setitem(patterns._CLASSES, "s", r"\s")
    assert _patterns_that_differ(SEED, 3000)[1]


CONVERSIONS: dict[str, Any] = {
    "int(s)": meanings._int_of,
    "double(s)": meanings._double_of,
    "bool(s)": meanings._truth_of,
    "int(timestamp(s))": lambda text: meanings._timestamp(text) // meanings.SECOND,
    "timestamp(s).getMilliseconds()": lambda text: meanings._timestamp(text) // 1_000_000 % 1000,
    "duration(s).getMilliseconds() + duration(s).getSeconds() * 1000": lambda text: (
        meanings._duration(text) // 1_000_000
    ),
}
"""What the library is asked -> what a compiled conversion says to a text, if it is sure."""


def _conversions_that_differ(seed: int, count: int) -> tuple[int, list[tuple[str, str]]]:
    env = cel.NewEnv(variables={"s": cel.Type.STRING})
    programs = {question: env.compile(question) for question in CONVERSIONS}
    sure, wrong = 0, []
    for text in spellings(Random(seed), count):
        for question, convert in CONVERSIONS.items():
            try:
                ours = convert(text)
            except meanings.Unsure:
                continue
            sure += 1
            result = programs[question].eval(data={"s": text})
            if result.type().name() == "ERROR" or not same(ours, plain(result)):
                wrong.append((question, text))
    return sure, wrong


def test_a_conversion_that_is_sure_is_right() -> None:
    """Numbers, times and durations in right and wrong spellings: what is not left to the library equals it."""
    sure, wrong = _conversions_that_differ(SEED, 4000)
    assert sure > 1000 and wrong == []


@pytest.mark.parametrize(
    ("question", "naive"),
    [("int(s)", int), ("double(s)", float), ("bool(s)", lambda text: text.lower() in ("true", "t", "1"))],
)
def test_a_conversion_of_pythons_is_found(question: str, naive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: Python reads some texts that CEL does not, and the other way round."""

    def careless(text: str) -> Any:
        try:
            return naive(text)
        except ValueError:
            raise meanings.Unsure from None

    monkeypatch.setitem(CONVERSIONS, question, careless)
    assert _conversions_that_differ(SEED, 4000)[1]


def test_zero_with_a_sign_counts() -> None:
    """The comparison tells 0.0 from -0.0, 1.0 from true, and an error from null."""
    assert not same(0.0, -0.0) and not same(1.0, True) and not same(None, ERROR) and same(-0.0, -0.0)
