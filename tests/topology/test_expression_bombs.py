"""Attacks on rules: texts that break out, expressions that explode, events that make an honest rule work for ever.

What can be seen in the text is refused when it is planned, with its reason; what depends on the event ends as a
RuleError, which is a dead letter of (event, rule).  Each within a second: nothing hangs, nothing crashes.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milepost.schemas.contracts import compile_contract, paths_of
from milepost.schemas.errors import BundleError, RuleError
from milepost.topology.catalog import load_bundle
from milepost.topology.cel import DEPTH_MAX, NODES_MAX, TEXT_MAX
from milepost.topology.driver import Driver
from milepost.topology.expressions import ExpressionFault, compile_expression
from milepost.topology.meanings import STEPS_MAX
from milepost.topology.patterns import PATTERN_MAX, SIZE_MAX, size
from tests.support.expressions import CONTRACT, EVENT, TYPES, library
from tests.support.small import DAY, FILES, ORG, SECRET, T0, visit

SECONDS_MAX = 1.0

PLAIN: dict[str, Any] = {
    "n": 2.0, "nn": None, "w": 1, "nw": None, "s": "a", "ns": None, "b": True, "nb": None, "at": "", "inner": None,
    "tags": [], "marks": [], "counts": [], "more": None, "holes": None, "items": [], "free": {}, "words": None, "mixed": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    begun = time.process_time()
    yield
    assert time.process_time() - begun < SECONDS_MAX


def evaluate(text: str, **data: Any) -> Any:
    return compile_expression(text, "rule", data=TYPES).evaluate(CONTRACT.check({**PLAIN, **data}), EVENT)


def refused(text: str) -> ExpressionFault:
    with pytest.raises(ExpressionFault) as raised:
        compile_expression(text, "rule", data=TYPES)
    return raised.value


def nested(begin: str, middle: str, end: str) -> str:
    """As deep as brackets may go."""
    return begin * 60 + middle + end * 60


@pytest.mark.parametrize(
    "text",
    [
        "data.s == '" + "a" * TEXT_MAX + "'",
        "data.n in [" + "1," * (NODES_MAX + 1) + "1]",
        " + ".join(["data.n"] * (DEPTH_MAX + 1)) + " > 1.0",
        " && ".join(["data.b"] * 500),
        nested("(", "data.n", " + 1.0)"),
        nested("double(", "data.n", ")"),
        nested("[", "data.n", "]") + " == [1.0]",
        nested("data.tags.all(x, ", "true", ")"),
        "data.b ? 1.0 : " * 200 + "1.0",
        "data" + ".a" * 2000,
        "(" * 4000,
        "-(" * 60 + "1.0" + ")" * 60,
        "data.s" + ".size()" * 500,
        "data.tags.all(a, data.tags.all(b, data.tags.all(c, data.tags.all(d, a == d))))",
        "data.s.matches('" + "a" * (PATTERN_MAX + 1) + "')",
        "data.s.matches('((a{30}){30}){30}')",
        "data.s.matches('(((((a{9}){9}){9}){9}){9}')",
        "data.s.matches('" + "(a?){99}" * 20 + "')",
        r"data.s.matches('\\pL{500}')",
        "data.s.matches('a{600}') || data.s.matches('b{600}')",
        "data.tags.all(t, t.matches('a{200}'))",
        r"data.tags.all(t, t.matches('\\pL'))",
        "data.tags.all(t, data.tags.all(u, t.matches('(a|b)*c')))",
        "data.marks.all(x, data.mixed != x" + " && data.marks == data.marks" * 5 + ")",
        "data.tags.all(t, (data.s + t).matches('(a|b)*c'))",
        "data.tags.map(t, data.s + t).exists(x, double(x) > 1.0)",
    ],
    ids=lambda text: text[:30],
)
def test_what_explodes_is_refused_when_it_is_planned(text: str) -> None:
    """Length, levels, nodes, loops and patterns are bounded, and what only the library would do without bound."""
    assert refused(text).reason == "bound"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data.s.matches(data.ns)", "pattern"),
        ("data.s.matches('a' + data.s)", "pattern"),
        ("data.s.matches('(')", "pattern"),
        ("data.s.matches('(?=a)')", "pattern"),
        (r"data.s.matches('(a)\\1')", "pattern"),
        ("timestamp(event.time).getHours('Europe/Berlin') > 1.0", "zone"),
        ("timestamp(event.time).getHours(data.s) > 1.0", "zone"),
        ("data.free.map(name, name)[0]", "order"),
        ("data.__class__", "name"),
        ("data.tags.__class__", "name"),
        ("__import__('os').system('true')", "function"),
        ("event.type.format(data.s)", "function"),
        ("_steps", "name"),
        ("d['s']", "name"),
    ],
)
def test_what_reaches_out_is_refused(text: str, reason: str) -> None:
    """A pattern is no data, a zone no file of the machine, a name nothing of Python's."""
    assert refused(text).reason == reason


BREAKING = (
    "'\"); raise SystemExit(1) #'",
    r"'\n raise SystemExit(1)\n'",
    r"'\\'",
    "\"'\\\"'''\"",
    r"'\u0000\u2028\x7f\r'",
    "'{d}{e}%s%(s)s'",
    "r'\\n'",
    "'''a'b\"c'''",
)


@pytest.mark.parametrize("literal", BREAKING)
def test_no_text_leaves_its_literal(literal: str) -> None:
    """Quotes, line breaks and escapes stay text: as a value, as a name in an object, in a list, as a pattern."""
    value = library(literal, ())({})
    assert evaluate(literal) == value
    assert evaluate(f"[{literal}][0]") == value and evaluate(f"data.s in [{literal}]", s=value) is True
    assert evaluate(f"{{{literal}: data.n}}[data.s]", s=value) == 2.0 and evaluate(f"data.s == {literal}", s=value)


def test_generated_code_sees_no_builtins_that_a_rule_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop's variable may be called as a function of Python's or a helper of ours; it is only a name."""
    monkeypatch.setattr(builtins, "evil", None, raising=False)
    for name in ("evil", "d", "e", "s", "_loop", "len", "any", "x1", "data"):
        assert evaluate(f"data.tags.exists({name}, {name} == 'b')", tags=["a", "b"]) is True


@pytest.mark.parametrize(
    "text",
    [
        "!" * 4000 + "data.b",
        "(" * 24 + "data.b" + ")" * 24,
        "(data.nn > 1.0 && " * 28 + "data.b" + ")" * 28,
        "(data.nn > 1.0 ? 1.0 : " * 14 + "data.n" + ")" * 14,
        "-(data.n * " * 14 + "data.n" + ")" * 14,
        "[" * 13 + "data.n" + "]" * 13 + "[0]" * 12 + " == [1.0]",
        "data.tags.filter(a, data.tags.filter(b, data.tags.filter(c, a == c).size() > 0).size() > 0).size() > 0",
        "data.tags.all(a, data.tags.all(b, data.tags.all(c, (data.nn > 1.0 || c == a) && (data.nn > 2.0 || b == c))))",
    ],
    ids=lambda text: text[:30],
)
def test_what_is_within_the_bounds_compiles(text: str) -> None:
    """Python's own bounds (brackets, blocks, recursion) lie beyond ours: what is accepted can be evaluated."""
    try:
        evaluate(text, tags=["a"])
    except RuleError as error:
        assert "no value" in error.detail


def objects(levels: int) -> Any:
    """Objects in one another that may each be null."""
    schema: Any = "double"
    for level in range(levels):
        schema = {"type": "record", "name": f"R{level}", "fields": [{"name": "a", "type": ["null", schema]}]}
    return schema


def test_a_long_path_of_nulls_is_a_short_function() -> None:
    """Null below null, thirty objects deep: neither the code nor the time doubles with each."""
    schema = json.dumps(objects(30)).encode()
    contract = compile_contract("R29", schema)
    expression = compile_expression("data" + ".a" * 30, "rule", data=paths_of(contract.type))
    assert expression.compiled and expression.evaluate(contract.check({"a": {"a": None}}), EVENT) is None


def test_null_below_null_does_not_double_for_ever() -> None:
    """Each object that may be null doubles the canonical text of what is below it; that has an end, too."""
    items = {"type": "array", "items": objects(14)}
    contract = compile_contract(
        "T", json.dumps({"type": "record", "name": "T", "fields": [{"name": "l", "type": items}]}).encode()
    )
    with pytest.raises(ExpressionFault) as raised:
        compile_expression("data.l[0]" + ".a" * 14, "rule", data=paths_of(contract.type))
    assert raised.value.reason == "bound"


LONG = "a" * 1_000_000

AT_WORK: dict[str, tuple[str, dict[str, Any], str]] = {
    "a long list": ("data.tags.all(t, t != 'b')", {"tags": ["a"] * (STEPS_MAX + 1)}, "steps"),
    "a loop in a loop": ("data.tags.all(t, data.tags.all(u, t == u))", {"tags": ["a"] * 200}, "steps"),
    "three of them": (
        "data.tags.all(t, data.tags.all(u, data.tags.all(v, t == v)))",
        {"tags": ["a"] * 40},
        "steps",
    ),
    "loops beside each other": (
        "data.tags.all(t, t != 'b') && data.tags.all(t, t != 'c')",
        {"tags": ["a"] * 6000},
        "steps",
    ),
    "a search in a loop": ("data.tags.all(t, t in data.tags)", {"tags": [str(i) for i in range(5000)]}, "steps"),
    "a search in a text": ("data.tags.exists(t, data.s.contains(t))", {"s": LONG, "tags": ["b"] * 5000}, "steps"),
    "a text that doubles": ("size((data.s + data.s) + (data.s + data.s))", {"s": LONG}, "longer"),
    "a list that doubles": ("size(data.tags + data.tags)", {"tags": ["a"] * 50_000}, "longer"),
    "texts made in a loop": ("data.tags.map(t, data.s + t).size()", {"s": "a" * 60_000, "tags": ["b"] * 9000}, "steps"),
    "one error away from the end": (
        "data.nn > 1.0 || data.tags.all(t, data.tags.all(u, t == u))",
        {"tags": ["a"] * 200},
        "steps",
    ),
    "a loop by the library": ("data.tags.all(t, t.matches('(a|b)*c'))", {"tags": ["a" * 100] * 5000}, "goes through"),
    "a loop in a loop by the library": (
        "data.tags.exists(t, data.tags.exists(u, t == 'x' && data.mixed == u))",
        {"tags": ["a"] * 150},
        "steps",
    ),
    "lists compared in a loop": (
        "data.counts.exists(x, data.counts != data.counts)",
        {"counts": list(range(4900))},
        "steps",
    ),
    "lists compared in a loop by the library": (
        "data.marks.exists(x, data.marks != data.marks && data.mixed == x)",
        {"marks": [0.5] * 4900},
        "goes through",
    ),
    "a search in a loop by the library": (
        "data.marks.exists(x, x + 1.0 in data.marks && data.mixed == x)",
        {"marks": [0.5] * 4900},
        "goes through",
    ),
    "a pattern in a loop": ("data.tags.exists(t, t.matches('(?i)(é|ü|ß){8}'))", {"tags": ["a"] * 600}, "goes through"),
    "a pattern in a loop, once": (
        "data.tags.exists(t, t.matches('^[a-z]+$'))",
        {"tags": ["A" * 300] * 9},
        "goes through",
    ),
    "a text for the library": ("(data.s + data.s).matches('(a|b)*c')", {"s": LONG}, "goes through"),
    "a value that only the library knows": (
        "data.tags.exists(t, data.tags.exists(u, double(t) > double(u)))",
        {"tags": ["1e3"] * 150},
        "steps",
    ),
}


@pytest.mark.parametrize("name", AT_WORK)
def test_what_explodes_at_work_is_a_rule_error(name: str) -> None:
    """Whatever the event holds, an evaluation ends soon, and says which bound it met; no other side absorbs that."""
    text, data, why = AT_WORK[name]
    with pytest.raises(RuleError) as raised:
        evaluate(text, **data)
    assert why in raised.value.detail and "aaa" not in raised.value.detail


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.s.matches('^(a|a)*$')", True),
        ("data.s.matches('(a*)*b')", False),
        ("data.s.matches('^a*a*b')", False),
        ("data.s.matches('a+b')", False),
        ("data.s.matches('(x+x+)+y')", False),
        ("data.s.matches('" + "a?" * 60 + "a" * 60 + "$')", True),
        ("data.s.matches('.*.*.*.*z')", False),
        ("data.s.contains('" + "a" * 2000 + "b')", False),
        ("data.s.endsWith('ab')", False),
        ("size(data.s)", 1e6),
    ],
)
def test_a_long_text_is_searched_in_linear_time(text: str, value: Any) -> None:
    """Patterns that make others go back for ever take a million letters in a moment."""
    assert evaluate(text, s=LONG) == value
    assert evaluate(text, s="a" * 60) == (60.0 if "size" in text else value)


def test_the_bounds_themselves_are_within() -> None:
    """One element, one level, one repetition less, and the rule has a value."""
    assert evaluate("data.tags.all(t, t != 'b')", tags=["a"] * STEPS_MAX) is True
    assert evaluate(" + ".join(["data.n"] * (DEPTH_MAX - 1))) == 62.0
    assert evaluate("data.s.matches('a{1000}')", s="a" * 1000) is True


@pytest.mark.parametrize(
    ("pattern", "weight"),
    [
        ("abc", 3),
        ("a{10}", 10),
        ("(ab){10}", 40),
        ("[a-z]{5}", 9),
        ("((a{5}){4}){3}", 90),
        (r"\pL{3}", 900),
        (r"\p{Greek}{2}", 600),
    ],
)
def test_the_size_of_a_pattern_counts_repetitions(pattern: str, weight: int) -> None:
    """What is repeated n times counts n times, groups inside groups too; never less than RE2 makes of it."""
    assert size(pattern) == weight <= SIZE_MAX


def test_a_lone_surrogate_is_no_crash() -> None:
    """Text that is no Unicode cannot come out of JSON; if it did, the pair would be a dead letter."""
    with pytest.raises(RuleError):
        evaluate("data.s.matches('(a|b)*c')", s="\ud800")


def bundle(when: str) -> dict[str, bytes]:
    """The small organisation, its rule for long visits with another condition."""
    old = b"data.minutes != null && data.minutes > 30.0"
    return {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(old, json.dumps(when).encode())}


def test_a_bomb_is_a_dead_letter_of_its_rule_alone() -> None:
    """The pair (event, rule) is told; the event's other rule makes its signal, and the line goes on."""
    made = Driver(SECRET)
    made.apply(ORG, bundle("[data.page].exists(p, size(p + p) > 4)"), T0 + DAY)
    made.run()
    made.produce(visit("e1", T0, page="p" * 60_000), T0 + DAY)
    made.produce(visit("e2", T0, page="pages"), T0 + DAY + 1)
    made.run()
    assert [(one["reason"], one["rule"]) for one in made.dead_letters] == [("rule_error", "long_visit")]
    assert "pppp" not in made.dead_letters[0]["detail"]
    assert made.fates["ingest"]["accepted"] == 2


def test_a_bomb_in_a_bundle_is_a_finding_at_its_place() -> None:
    """Plan says where it stands."""
    with pytest.raises(BundleError) as raised:
        load_bundle(bundle("data.page.matches('((a{30}){30}){30}')"))
    (finding,) = raised.value.findings
    assert finding.file == "milepost.yaml" and "at most 1000" in finding.message and finding.line > 1


def test_rules_do_not_set_off_rules() -> None:
    """A rule is on an event type of a source; what a rule makes, and what is ours, is none: no loop can be declared."""
    for on in ("visited", "long_visit", "milepost.tick", "signals"):
        text = FILES["milepost.yaml"].replace(b"{on: visit, when:", f"{{on: {on}, when:".encode())
        with pytest.raises(BundleError) as raised:
            load_bundle({**FILES, "milepost.yaml": text})
        assert any("no source has the event type" in str(one) for one in raised.value.findings)


def test_the_clock_of_these_tests_is_right() -> None:
    """Positive control: what would hang is seen to take too long."""
    call: Callable[[], None] = lambda: library("data.tags.map(t, data.s + t).size()", ("data.s", "data.tags"))(  # noqa: E731
        {"s": "a" * 100_000, "tags": ["b"] * 3000}
    )
    begun = time.process_time()
    call()
    assert time.process_time() - begun > 0.02
