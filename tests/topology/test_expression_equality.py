"""The law of expressions: whoever evaluates, the value, null or error is the same.  A sample here, 100,000 in the campaign.

Positive control: translations that are wrong in one place each, all found by the same comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from milepost.topology import functions, meanings, patterns, translate
from tests.support.expressions import CORNERS, ERROR, compare, judge, same, texts

SEED = 2013
COUNT = 1200

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
    "_floats": lambda values: list(values),
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
        return bool(judge(CORNERS, Random(SEED), events=40).wrong)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return True


def test_right_meanings_are_found_right() -> None:
    """Negative control: what finds the wrong ones finds nothing in the right ones."""
    assert judge(CORNERS, Random(SEED), events=40).wrong == []


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


def test_zero_with_a_sign_counts() -> None:
    """The comparison tells 0.0 from -0.0, 1.0 from true, and an error from null."""
    assert not same(0.0, -0.0) and not same(1.0, True) and not same(None, ERROR) and same(-0.0, -0.0)
