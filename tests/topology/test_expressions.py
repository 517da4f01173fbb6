"""Expressions: CEL as the library has it, faster.  The law: a compiled expression equals the library's evaluation."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.schemas.contracts import compile_contract, paths_of
from milepost.schemas.errors import RuleError
from milepost.topology import translate
from milepost.topology.by_library import plain
from milepost.topology.catalog import load_bundle
from milepost.topology.cel import parse
from milepost.topology.expressions import (
    EVENT_FIELDS,
    Expression,
    ExpressionFault,
    compile_expression,
    library_environment,
    library_values,
)
from milepost.topology.uncompiled import uncompiled
from tests.support.small import FILES

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "depth", "type": "double"}]}
FIELDS: dict[str, Any] = {
    "n": "double",
    "nn": ["null", "double"],
    "w": "long",
    "nw": ["null", "long"],
    "s": "string",
    "ns": ["null", "string"],
    "b": "boolean",
    "nb": ["null", "boolean"],
    "tags": {"type": "array", "items": "string"},
    "free": {"type": "map", "values": "double"},
    "inner": ["null", INNER],
}
SCHEMA = {"type": "record", "name": "All", "fields": [{"name": name, "type": kind} for name, kind in FIELDS.items()]}
CONTRACT = compile_contract("All", json.dumps(SCHEMA).encode())
TYPES = paths_of(CONTRACT.type)
EVENT = {"type": "t", "time": "2013-01-01T00:00:00Z", "source": "a", "org": "o"}
FULL = {
    "n": 2.0,
    "nn": 3.0,
    "w": 4,
    "nw": 5,
    "s": "a",
    "ns": "b",
    "b": True,
    "nb": False,
    "tags": ["a"],
    "free": {"k": 1},
}
FULL |= {"inner": {"depth": 1.0}}
BARE = {"n": 2.0, "w": 4, "s": "a", "b": True, "tags": [], "free": {}}


def rule(text: str, wants: Any = "value") -> Expression:
    return compile_expression(text, "rule", data=TYPES, wants=wants)


def judged(text: str, data: dict[str, Any], wants: Any = "value") -> Any:
    return rule(text, wants).evaluate(CONTRACT.check(data), EVENT)


def fault(text: str, wants: Any = "value") -> ExpressionFault:
    with pytest.raises(ExpressionFault) as raised:
        rule(text, wants)
    return raised.value


numbers = st.sampled_from(["0.0", "1.0", "-1.0", "2.5", "3", "7", "1e300", "data.n", "data.nn", "data.w", "data.nw"])
texts = st.sampled_from(["''", "'a'", '"ab"', "'é\\n😀'", "data.s", "data.ns", "event.source"])
truths = st.sampled_from(["true", "false", "data.b", "data.nb"])
nullable = st.sampled_from(["nn", "nw", "ns", "nb", "inner.depth"])


def wider(parts: tuple[st.SearchStrategy[str], st.SearchStrategy[str], st.SearchStrategy[str]]) -> Any:
    """One level more on top of numbers, texts and truths."""
    number, text, truth = parts
    number_2 = st.one_of(
        number,
        st.builds("({} {} {})".format, number, st.sampled_from("+-*/"), number),
        st.builds("-({})".format, number),
        st.builds("({} ? {} : {})".format, truth, number, number),
        st.builds("size({})".format, text),
        st.builds("(int({}) % size({}))".format, number, text),
        st.just("data.inner.depth"),
    )
    text_2 = st.one_of(
        text, st.builds("({} + {})".format, text, text), st.builds("({} ? {} : {})".format, truth, text, text)
    )
    compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    truth_2 = st.one_of(
        truth,
        st.builds("({} {} {})".format, number, compare, number),
        st.builds("({} {} {})".format, text, compare, text),
        st.builds("({} {} {})".format, truth, compare, truth),
        st.builds("({} {} {})".format, truth, st.sampled_from(["&&", "||"]), truth),
        st.builds("({} {} {})".format, truth, st.sampled_from(["&&", "||"]), truth),
        st.builds("!({})".format, truth),
        st.builds("({} ? {} : {})".format, truth, truth, truth),
        st.builds("({} in [{}, {}])".format, text, text, text),
        st.builds("({} in [{}, {}])".format, number, number, number),
        st.builds("({} in data.tags)".format, text),
        st.builds("({}.{}({}))".format, text, st.sampled_from(["startsWith", "endsWith", "contains"]), text),
        st.builds("has(data.{})".format, nullable),
        st.builds("(data.{} {} null)".format, nullable, st.sampled_from(["==", "!="])),
    )
    return number_2, text_2, truth_2


level = (numbers, texts, truths)
for _ in range(3):
    level = wider(level)

rows = st.fixed_dictionaries(
    {
        "n": st.sampled_from([0.0, 1.0, -1.0, 2.5, 1e300]),
        "nn": st.sampled_from([None, 0.0, 1.0, 2.5]),
        "w": st.sampled_from([0, 1, 7, -3, 2**53]),
        "nw": st.sampled_from([None, 0, 3]),
        "s": st.sampled_from(["", "a", "ab", "é\n😀"]),
        "ns": st.sampled_from([None, "", "a", "b"]),
        "b": st.booleans(),
        "nb": st.sampled_from([None, True, False]),
        "tags": st.lists(st.sampled_from(["", "a", "ab"]), max_size=2),
        "free": st.just({}),
        "inner": st.sampled_from([None, {"depth": 1.0}]),
    }
)


def by_library(text: str, paths: tuple[str, ...], data: dict[str, Any]) -> Any:
    """What the library says: a value, or "error"."""
    types = {**EVENT_FIELDS, **TYPES}
    checked = library_environment(paths, types, checked=True).compile(text)
    program = library_environment(paths, types, checked=False).deserialize(checked.serialize())
    result = program.eval(data=library_values(paths, data, EVENT))
    value = plain(result) if result.type().name() != "ERROR" else "error"
    return "error" if isinstance(value, float) and not math.isfinite(value) else value


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.one_of(level[2], level[0], level[1]), data=st.lists(rows, min_size=3, max_size=3))
def test_a_compiled_expression_equals_the_library(text: str, data: list[dict[str, Any]]) -> None:
    """For any expression of the subset and any data, the compiled function and the library agree, errors included."""
    try:
        expression = rule(text)
    except ExpressionFault as error:
        assert "levels" in error.message or "never null" in error.message, (text, error.message)
        return
    assert expression.compiled
    same_spelling = "has(" not in text and not any(word in text for word in ("size(", " % ", "3", "7"))
    for row in data:
        row = CONTRACT.check(row)
        try:
            ours: Any = expression.evaluate(row, EVENT)
        except RuleError:
            ours = "error"
        theirs = by_library(expression.canonical, expression.paths, row)
        assert ours == theirs and type(ours) is type(theirs), (text, expression.canonical, row)
        if same_spelling:
            assert by_library(text, expression.paths, row) == theirs, (text, expression.canonical, row)


def test_the_comparison_with_the_library_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with < and <= exchanged, the law above does not hold."""
    monkeypatch.setitem(translate._ORDER, "_<=_", "<")
    expression = rule("data.n <= 2.0")
    assert expression.evaluate(CONTRACT.check(BARE), EVENT) != by_library(
        "data.n <= 2.0", ("data.n",), CONTRACT.check(BARE)
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.n <= 15", True),
        ("data.w * 1 / 2", 2.0),
        ("1 / 2", 0.5),
        ("data.n + data.w", 6.0),
        ("int(data.n) % 3", 2.0),
        ("-7 % 3", -1.0),
        ("data.s in ['a', 'b']", True),
        ("'a' in data.tags", True),
        ("event.type == 't'", True),
        ("data.n > 1 ? data.s : null", "a"),
        ("data.n > 9 ? data.s : null", None),
        ("size(data.tags) == 1", True),
        ("data.s.startsWith('a') && !data.nb", True),
        ("data.inner.depth", 1.0),
        ("data.w", 4.0),
    ],
)
def test_numbers_are_doubles_and_whole_literals_fit_them(text: str, value: Any) -> None:
    """A whole literal beside a field is a double, and a whole field reads as one."""
    found = judged(text, FULL)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["data.nn <= 15.0", "data.nn + 1.0", "-data.nw", "data.ns < 'a'", "size(data.ns)"])
def test_an_operator_on_null_is_a_rule_error(text: str) -> None:
    """A null field under an operator is an error with its reason, never a silent false."""
    with pytest.raises(RuleError) as raised:
        judged(text, BARE)
    assert raised.value.reason == "rule_error" and "null" in raised.value.detail


def test_null_can_be_asked_for_and_passed_on() -> None:
    """has() and == null work on a null field, a plain path to it is absent, and it equals no value."""
    assert judged("has(data.nn)", BARE) is False and judged("has(data.nn)", FULL) is True
    assert judged("data.nn == null", BARE) is True and judged("data.inner == null", BARE) is True
    assert judged("has(data.inner.depth)", BARE) is False
    assert judged("data.nn", BARE) is None and judged("data.inner.depth", BARE) is None
    assert judged("data.nn == 15.0", BARE) is False and judged("data.nn != 15.0", BARE) is True


@pytest.mark.parametrize("text", ["data.nn > 1.0 || data.b", "data.b || data.nn > 1.0"])
def test_an_error_is_absorbed_when_the_other_side_decides(text: str) -> None:
    """In CEL `error || true` is true, whatever the order; `error || false` is the error."""
    assert judged(text, BARE, "boolean") is True
    with pytest.raises(RuleError):
        judged(text, {**BARE, "b": False}, "boolean")


def test_both_sides_that_can_fail_absorb_each_other() -> None:
    """`a && b` is false when either is false, even when the other has no value."""
    text = "data.nn > 1.0 && data.nw > 1"
    assert judged(text, {**BARE, "nw": 0}, "boolean") is False
    assert judged(text, {**BARE, "nn": 0.0}, "boolean") is False
    with pytest.raises(RuleError):
        judged(text, {**BARE, "nw": 5}, "boolean")


def test_a_condition_that_is_null_is_a_rule_error() -> None:
    """A nullable field as a condition is true, false or an error."""
    assert judged("data.nb", {**BARE, "nb": True}, "boolean") is True
    with pytest.raises(RuleError):
        judged("data.nb", BARE, "boolean")


def test_a_field_that_is_not_finite_is_a_rule_error() -> None:
    """Doubles divide by zero as CEL's do, but an infinite number is no field of a signal."""
    assert judged("data.n / 0.0 > 1.0", BARE) is True
    for text in ("data.n / 0.0", "0.0 / 0.0", "1e308 * 10.0 * data.n"):
        with pytest.raises(RuleError):
            judged(text, BARE)


@pytest.mark.parametrize(
    ("text", "message", "offset", "guess", "fix"),
    [
        ("data.nm > 1", "no field 'data.nm'", 0, "data.n", ""),
        ("data.s > 15", "data.s is text, 15.0 is a number", 7, "", 'text stands in quotes: "15"'),
        ("data.n > '15'", "data.n is a number", 7, "", "a number stands without quotes: 15"),
        ("n > 1", "data.<field>", 0, "data.n", ""),
        ("event.typ == 'a'", "no field 'event.typ'", 0, "event.type", ""),
        ("data.n = 1", "", 7, "", "write == for ="),
        ("data.b and data.nb", "", 7, "", "write && for and"),
        ("data.n == null", "never null", 7, "", "leave the comparison out"),
        ("data.n % 2 == 0", "whole numbers", 0, "", "write int(data.n)"),
        ("data.n > 1u", "unsigned", 9, "", "leave out the u"),
        ("data.n > 1e400", "a double holds", 9, "", ""),
        ("data.n", "a condition is true or false", 0, "", ""),
        ("", "nothing came", 0, "", ""),
        ("(" * 100 + "1" + ")" * 100, "nested too deeply", 64, "", ""),
        ("1" + " + 1" * 40 + " > 2", "32", 0, "", ""),
        ("data.s == '" + "a" * 5000 + "'", "4096 bytes", 0, "", ""),
        ("now() > 1", "no function is named 'now'", 0, "", ""),
        ("data.s.startWith('a')", "no function is named 'startWith'", 0, "startsWith", ""),
        ("event.time > timestamp('2013-01-01T00:00:00Z')", "is text", 11, "", "timestamp(event.time)"),
        ("data.tags[data.w] == 'a'", "takes a whole number", 0, "", "write int(data.w)"),
        ("timestamp('2013-01-01') < timestamp(event.time)", "is no timestamp", 10, "", "write '2013-01-31T"),
    ],
)
def test_a_wrong_expression_is_told_with_place_guess_and_fix(
    text: str, message: str, offset: int, guess: str, fix: str
) -> None:
    """What cannot hold is refused before it runs, at its place, with what was probably meant."""
    found = fault(text, "boolean")
    assert message in found.message and guess in found.guess and fix in found.fix
    assert abs(found.offset - offset) <= 4 or not offset


def test_what_is_not_proven_equal_the_library_evaluates() -> None:
    """Rare patterns and fields of several kinds work through the library, with a reason, and with the same errors."""
    for text, value, why in (
        ("data.s.matches('(a|b)*')", True, "a pattern"),
        ("string(duration('90s')) == '90s'", True, "a time written as text"),
        ("data.inner == data.inner", True, "a comparison of objects"),
    ):
        expression = rule(text, "boolean")
        assert not expression.compiled and why in expression.library
        assert expression.evaluate(CONTRACT.check(FULL), EVENT) is value
    with pytest.raises(RuleError):
        judged("data.ns.matches('(a|b)*')", BARE, "boolean")


def test_a_value_that_only_the_library_knows_is_asked_of_it() -> None:
    """Compiled conversions take plain spellings; another one goes to the library, for this event alone."""
    for text, value, answer in (
        ("double(data.s)", "1e3", 1000.0),
        ("int(data.s)", " 12", 12.0),
        ("bool(data.s)", "t", True),
        ("timestamp(data.s).getSeconds()", "2013-01-01T00:00:60Z", 0.0),
        ("duration(data.s).getMinutes()", "1.5h", 90.0),
        ("data.s.matches('^a+b')", "a" * 300 + "b", True),
    ):
        assert rule(text).compiled
        assert judged(text, {**BARE, "s": value}) == answer
    with pytest.raises(RuleError):
        judged("double(data.s)", {**BARE, "s": "1.0.0"})


def test_nulls_from_the_library_keep_the_process() -> None:
    """The library miscounts each null it hands out; enough of them would end the process, so none is asked for."""
    evaluate, data = rule("data.inner == data.inner ? data.nn : null").evaluate, CONTRACT.check(BARE)
    assert evaluate(data, EVENT) is None
    before = sys.getrefcount(None)
    for _ in range(2000):
        evaluate(data, EVENT)
    assert sys.getrefcount(None) > before - 1000


def test_a_number_in_a_rule_means_the_same_whoever_evaluates_it() -> None:
    """Whole literals are doubles beside what the library evaluates, too: 1 / 2 is a half."""
    text = "data.inner == data.inner && 1 / 2 == 0.5 && data.free.k + 1 == 2"
    assert not rule(text).compiled and judged(text, FULL, "boolean") is True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("int(data.n / 2.0 + 1.7)", 2.0),
        ("int(-2.7)", -2.0),
        ("int(data.n) / 4", 0.5),
        ("string(int(1e6))", "1000000"),
        ("string(data.w)", "4"),
        ("string(1e6)", "1e+06"),
        ("data.tags[int(data.n) % 2]", "a"),
        ("data.tags.filter(t, t != 'a').size()", 0.0),
        ("data.tags.map(t, t + '!')[0]", "a!"),
        ("{'a': 'first', 'b': 'second'}[data.s]", "first"),
        ("data.s in {'a': 1}", True),
        ("has(data.free.k) && !has(data.free.x)", True),
        ("data.free.all(name, data.free[name] > 0.5)", True),
        ("timestamp(event.time).getFullYear('-05:00')", 2012.0),
        ("timestamp(event.time) - timestamp('2012-12-31T12:00:00Z') == duration('12h')", True),
        ("timestamp(data.w).getSeconds()", 4.0),
    ],
)
def test_what_a_rule_may_say(text: str, value: Any) -> None:
    """Lists, objects, loops, times and conversions; int() is a double again, except where CEL wants a whole number."""
    found = judged(text, FULL)
    assert found == value and type(found) is type(value)


def test_spelling_does_not_change_the_canonical_text() -> None:
    """Versions are made from one spelling: blanks, brackets and whole literals do not matter."""
    assert rule("data.n<=15").canonical == rule(" ( data.n  <= 15.0 ) ").canonical
    assert rule("data.n<15").canonical != rule("data.n<=15").canonical


def formula(text: str) -> Expression:
    return compile_expression(text, "formula", metrics=["a", "b", "on-time"])


def test_a_formula_is_null_with_a_reason() -> None:
    """A division by zero, a missing operand and an infinite result are null, each with its own reason (S9)."""
    assert formula("a / b").value({"a": 1, "b": 2}) == (0.5, None)
    assert formula("a / b").value({"a": 1, "b": 0}) == (None, "division_by_zero")
    assert formula("a / b").value({"a": 0, "b": 0}) == (None, "division_by_zero")
    assert formula("a / b").value({"a": None, "b": 2}) == (None, "no_events")
    assert formula("a * 1e308 * 10").value({"a": 5.0}) == (None, "out_of_range")
    assert formula("b == 0 ? 0 : 100 * a / b").value({"a": 1, "b": 0}) == (0.0, None)
    assert formula("a / b").paths == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message", "guess"),
    [
        ("a > b", "a number was expected", ""),
        ("aa / b", "no metric is named 'aa'", "a"),
        ("on-time / b", "no metric is named 'on'", ""),
        ("data.n / b", "no metric is named 'data.n'", ""),
        ("[a, b][0]", "no place in a formula", ""),
        ("a ? b : a", "true or false was expected", ""),
    ],
)
def test_a_wrong_formula_is_told(text: str, message: str, guess: str) -> None:
    """A formula computes a number from metrics, and from nothing else."""
    with pytest.raises(ExpressionFault) as raised:
        formula(text)
    assert message in raised.value.message and guess in raised.value.guess


def test_the_tree_knows_places() -> None:
    """Every node says where it stands in the text, so that a finding can point at it."""
    assert parse("data.n > 15").at == 7


def test_a_rule_is_fast() -> None:
    """A compiled rule takes about a microsecond at most (a generous bound, for busy machines)."""
    evaluate, data = rule("data.n <= 15 && data.s == 'a'", "boolean").evaluate, CONTRACT.check(FULL)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            evaluate(data, EVENT)
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 2e-6


def test_a_number_made_whole_is_known_to_be() -> None:
    """A dimension may be a whole number; one that text or arithmetic made has decimals, for all anybody knows."""
    for text in ("int(data.n)", "size(data.tags)", "int(data.n) % 3", "timestamp(event.time).getHours()"):
        assert rule(text).whole, text
    for text in ("double(data.s)", "double(data.nn)", "int(data.n) / 2", "-int(data.n) * 1.5", "data.n"):
        assert not rule(text).whole, text


def test_a_name_in_back_quotes_is_one_name() -> None:
    """A name that holds a dot is looked up whole, never as a path, whoever evaluates."""
    data = {**FULL, "free": {"a.b": 3, "a": 1}}
    assert judged("data.free.`a.b`", data) == 3.0 and judged("has(data.free.`a.b`)", data) is True
    assert judged("data.free.`a.b` > 1.0 && data.inner == data.inner", data, "boolean") is True
    for text in ("data.`inner.depth` > 0.0", "data.`n.n` > 0.0", "`data.n` > 0.0"):
        assert fault(text, "boolean").reason in ("name", "syntax")


def test_plan_can_say_which_expressions_are_not_compiled() -> None:
    """Of a catalog's rules, those that the library evaluates: rule, place, text and why."""
    text = FILES["milepost.yaml"].replace(
        b"{on: visit, fields: {minutes: data.minutes,",
        b"{on: visit, when: \"data.page.matches('^(a|b)*$')\", fields: {minutes: data.minutes,",
    )
    assert uncompiled(load_bundle(FILES).rules) == ()
    (one,) = uncompiled(load_bundle({**FILES, "milepost.yaml": text}).rules)
    assert (one.rule, one.place) == ("visited", "when") and "matches" in one.text and "pattern" in one.why
    assert str(one).startswith("by the library: visited when: data.page.matches(")
