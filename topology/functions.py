"""Functions: what a rule calls by name, translated: conversions, times, texts, has(), loops.

A loop variable has a spelling of ours, `x1` for the outer one, so that two ways to write a loop are one canonical text.
Loops count their steps in `s`, a list of one number that the function of the expression begins with.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from milepost.schemas.field_types import FieldType
from milepost.topology import meanings, patterns
from milepost.topology.by_library import has_value
from milepost.topology.cel import (
    Call,
    Comprehension,
    Const,
    ListOf,
    Node,
    Select,
    Struct,
    Syntax,
    as_loop,
    dotted,
    plain,
)
from milepost.topology.expression_part import Fault, Part, Refusal, element, fails, made
from milepost.topology.meanings import DATES, SPANS, Unsure

if TYPE_CHECKING:
    from milepost.topology.translate import Translator

LOOPS_MAX: Final = 3
"""Loops inside one another, at most."""

FUNCTIONS: Final = frozenset({"bool", "double", "duration", "int", "matches", "size", "string", "timestamp"})
METHODS: Final = frozenset({"contains", "endsWith", "matches", "size", "startsWith", *DATES})
_OTHERS: Final[dict[str, tuple[Refusal, str]]] = {
    "bytes": ("literal", "bytes have no place here: contracts have none"),
    "uint": ("literal", "unsigned numbers have no place here: all numbers are doubles"),
    "dyn": ("dynamic", "dyn() has no place here: kinds are known from the contract"),
    "type": ("dynamic", "type() has no place here: kinds are known from the contract"),
}


def function(translator: Translator, node: Call) -> Part:
    """A call by name."""
    name, count = node.function, len(node.args) + (node.target is not None)
    if name in ("_%_", "int", "size") or name in DATES:
        inner = whole(translator, node, name)
        return replace(inner, code=f"float({inner.code})", text=f"double({inner.text})", whole=True)
    if name in _TEXT_TESTS:
        return _text_test(translator, node)
    if name == "matches" and count == 2:
        return _matches(translator, node)
    if name in _CONVERSIONS and node.target is None and len(node.args) == 1:
        return _CONVERSIONS[name](translator, node, node.args[0])
    if name in FUNCTIONS | METHODS:
        form = f"text.{name}(text)" if name == "matches" else f"{name}(value)"
        raise Fault(f"write {form}", node.at, reason="function")
    if name in _OTHERS:
        reason, message = _OTHERS[name]
        raise Fault(message, node.at, reason=reason)
    raise Fault(f"no function is named {name!r}", node.at, reason="function", guess=_guess(name))


def whole(translator: Translator, node: Node, where: str) -> Part:
    """A part whose value is a whole number of CEL (int64): inside %, [ ], int() and size()."""

    def inside(one: Node) -> Part:
        return whole(translator, one, where)

    match node:
        case Const(kind="int", value=int(value)):
            return Part(f"({value})", f"({value})" if value < 0 else str(value), "number")
        case Call(target=None, function="size", args=(only,)) | Call(target=Node() as only, function="size", args=()):
            return _size(translator, node, translator.part(only))
        case Call(target=None, function="int", args=(only,)):
            return _int(translator, node, translator.part(only))
        case Call(target=Node() as target, function=name, args=zone) if name in DATES:
            return _of_time(translator, node, translator.part(target), zone)
        case Call(target=None, function="-_", args=(only,)):
            inner = inside(only)
            return replace(inner, code=f"_i64(-{inner.code})", text=f"(-{inner.text})", fails=True)
        case Call(target=None, function=("_%_" | "_+_" | "_-_" | "_*_" | "_/_") as function, args=(left, right)):
            a, b = inside(left), inside(right)
            sign = function.strip("_")
            helper = {"%": "_modulo", "/": "_quotient"}.get(sign)
            code = f"{helper}({a.code}, {b.code})" if helper else f"_i64({a.code} {sign} {b.code})"
            return made("number", code, f"({a.text} {sign} {b.text})", a, b, fails=True)
    names = dotted(node)
    fix = f"write int({'.'.join(names)})" if names is not None else "write int(…) around it"
    takes = "% takes whole numbers" if where in ("_%_", "%") else f"{where} takes a whole number"
    raise Fault(f"{takes}, and all numbers are doubles", node.at, fix)


def select(translator: Translator, node: Select, inner: Part) -> Part:
    """A field of an object, or whether it is there."""
    name = node.name
    text = f"{inner.text}.{name}" if plain(name) else f"{inner.text}[{json.dumps(name, ensure_ascii=False)}]"
    if inner.kind == "mixed":
        if node.test and not plain(name):
            raise Fault("has() of a name in back quotes", node.at, f"write {json.dumps(name)} in …", reason="name")
        if node.test:
            return made("boolean", "", f"has({text})", inner, fails=True)
        return made("mixed", "", text, inner, fails=True, nullable=True)
    if inner.kind == "map":
        if node.test:
            return made(
                "boolean",
                f"({name!r} in {inner.code})",
                f"({json.dumps(name, ensure_ascii=False)} in {inner.text})",
                inner,
            )
        found = translator.read(element(inner.of), f"{inner.code}[{name!r}]", text, inner)
        return replace(found, fails=True)
    if inner.kind != "record" or inner.of is None:
        message = f"{inner.name or 'this'} is {inner.said}, which has no fields"
        raise Fault(message, node.at)
    of = inner.of.fields.get(name) if plain(name) else None
    if of is None:
        guess = next(iter(difflib.get_close_matches(name, inner.of.fields, n=1)), "")
        raise Fault(f"the object has no field {name!r}", node.at, reason="name", guess=guess)
    code = f"{inner.code}[{name!r}]"
    if inner.nullable:
        code = f"_below({inner.code}, {name!r})"
        text = f"({inner.text} == null ? dyn(null) : dyn({text}))"
    found = translator.read(of, code, text, replace(inner, nullable=False), nullable=inner.nullable)
    if node.test:
        return made("boolean", f"({found.code} is not None)", f"({found.text} != null)", found, fails=found.fails)
    return found


def loop(translator: Translator, node: Comprehension) -> Part:
    """The macros all, exists, exists_one, filter and map."""
    known = as_loop(node)
    over = translator.part(known.over)
    if over.kind not in ("list", "map", "mixed"):
        raise Fault(f"{known.macro}() goes through a list, {over.name or 'this'} is {over.said}", node.at)
    if over.kind != "list" and known.macro in ("filter", "map"):
        fix = "all(), exists() and exists_one() go through an object's names"
        raise Fault(f"{known.macro}() of an object would be a list in no order", node.at, fix, reason="order")
    if translator.loops >= LOOPS_MAX:
        raise Fault(f"at most {LOOPS_MAX} loops stand inside one another", node.at, reason="bound")
    x = f"x{translator.loops + 1}"
    of = FieldType(kind="string") if over.kind == "map" else element(over.of)
    bare = Part("", "", "null", computed=over.computed, library=over.library)
    outer = dict(translator.bound)
    translator.bound[known.name] = replace(translator.read(of, x, x, bare), fails=False)
    translator.loops += 1
    test = translator.boolean(known.test) if known.test is not None else None
    to = translator.part(known.to) if known.to is not None else None
    translator.loops -= 1
    translator.bound = outer
    return _looped(known.macro, x, over, test, to, node.at)


def _looped(macro: str, x: str, over: Part, test: Part | None, to: Part | None, at: int) -> Part:
    items = f"_loop(s, {over.code})"
    inner = [one for one in (over, test, to) if one is not None]
    spelled = ", ".join(one.text for one in (test, to) if one is not None)
    text = f"{over.text}.{macro}({x}, {spelled})"
    failing = fails(*inner) or over.nullable
    if test is not None and macro in ("all", "exists"):
        if test.fails:
            code = f"{'_every' if macro == 'all' else '_any'}(lambda {x}: {test.code}, {items})"
        else:
            code = f"{'all' if macro == 'all' else 'any'}({test.code} for {x} in {items})"
        return made("boolean", code, text, *inner, fails=failing, traits={"loop"})
    chosen = f" if {test.code}" if test is not None else ""
    if macro == "exists_one":
        code = f"(sum(1 for {x} in {items}{chosen}) == 1)"
        return made("boolean", code, text, *inner, fails=failing, traits={"loop"})
    if to is None:
        code, of, computed = f"[{x} for {x} in {items}{chosen}]", over.of, over.computed
    else:
        if to.kind not in ("number", "string", "boolean", "mixed"):
            raise Fault(f"map() makes a list of numbers, text, true or false, not of {to.said}", at)
        code, computed = f"[{to.code} for {x} in {items}{chosen}]", to.computed
        of = FieldType(kind=to.kind, nullable=to.nullable)
    return made("list", code, text, *inner, fails=failing, computed=computed, of=of, traits={"loop"})


def what(node: Node) -> str:
    """How to name a node in a message."""
    match node:
        case Call(function=function):
            return f"{function}()" if function[0].isalpha() else function.replace("_", "").strip("@")
        case ListOf():
            return "a list"
        case Struct():
            return "an object"
        case Comprehension():
            return "a loop"
    return f"a {type(node).__name__.lower()}"


def _guess(name: str) -> str:
    return next(iter(difflib.get_close_matches(name, FUNCTIONS | METHODS, n=1)), "")


def _text(translator: Translator, node: Node, where: str) -> Part:
    inner = translator.part(node)
    if inner.kind not in ("string", "mixed"):
        raise Fault(f"{where} takes text, {inner.name or 'this'} is {inner.said}", node.at)
    return inner


_TEXT_TESTS: Final = {"startsWith": "startswith", "endsWith": "endswith", "contains": ""}


def _text_test(translator: Translator, node: Call) -> Part:
    if node.target is None or len(node.args) != 1:
        raise Fault(f"write text.{node.function}(text)", node.at, reason="function")
    left, right = (_text(translator, one, node.function) for one in (node.target, node.args[0]))
    method = _TEXT_TESTS[node.function]
    code = f"{left.code}.{method}({right.code})" if method else f"({right.code} in {translator.weighed(left)})"
    failing = True if "mixed" in (left.kind, right.kind) else None
    text = f"{left.text}.{node.function}({right.text})"
    traits = translator.searches() if node.function == "contains" else frozenset()
    return made("boolean", code, text, left, right, fails=failing, traits=traits)


def _matches(translator: Translator, node: Call) -> Part:
    target, pattern = (node.target, node.args[0]) if node.target is not None else node.args
    inner = _text(translator, target, "matches")
    if not isinstance(pattern, Const) or not isinstance(pattern.value, str):
        message = "a pattern is a text literal: from the data it would be the sender's program"
        raise Fault(message, node.at, reason="pattern")
    written = pattern.value
    if len(written.encode()) > patterns.PATTERN_MAX:
        raise Fault(f"a pattern has at most {patterns.PATTERN_MAX} bytes", pattern.at, reason="bound")
    _spend(translator, written, pattern)
    spelled = json.dumps(written, ensure_ascii=False)
    if not has_value(f'"".matches({spelled})'):
        raise Fault("the pattern is no regular expression of RE2", pattern.at, reason="pattern")
    failing = True if inner.kind == "mixed" else None
    text = f"{inner.text}.matches({spelled})"
    test = patterns.as_python(written)
    traits = translator.searches()
    if test is None:
        if translator.loops > 1:
            message = "a pattern that only the library reads, which it does anew each time, stands in one loop at most"
            raise Fault(message, pattern.at, reason="bound")
        why = "a pattern that Python may read otherwise"
        return made("boolean", "", text, inner, fails=failing, library=why, traits=traits)
    name = f"_k{len(translator.constants)}"
    translator.constants[name] = test
    return made("boolean", f"{name}({inner.code})", text, inner, fails=failing, traits=traits | {"unsure"})


def _spend(translator: Translator, written: str, at: Node) -> None:
    """The patterns of one expression are bounded together: the library reads each anew for each text."""
    for where, most in (("", patterns.SIZE_MAX), (" inside loops", patterns.LOOPED_SIZE_MAX)):
        if where and not translator.loops:
            continue
        translator.sizes[where] += patterns.size(written)
        if translator.sizes[where] > most:
            message = f"the patterns{where} have at most {most} characters once their repetitions are written out"
            raise Fault(message, at.at, reason="bound")


def _size(translator: Translator, node: Node, inner: Part) -> Part:
    if inner.kind == "mixed":
        return made("number", "", f"size({inner.text})", inner, fails=True)
    if inner.kind not in ("string", "list", "map"):
        raise Fault(f"size() takes text, a list or an object, {inner.name or 'this'} is {inner.said}", node.at)
    return made("number", f"len({inner.code})", f"size({inner.text})", inner)


def _int(translator: Translator, node: Node, inner: Part) -> Part:
    text = f"int({inner.text})"
    match inner.kind:
        case "number":
            return made("number", f"_int({inner.code})", text, inner, fails=True)
        case "string":
            if translator.formula:
                raise Fault("int() of text has no place in a formula", node.at, reason="formula")
            return made("number", f"_int_of({inner.code})", text, inner, fails=True, traits={"unsure"})
        case "timestamp":
            return made("number", f"({inner.code} // {meanings.SECOND})", text, inner)
        case "mixed":
            return made("number", "", text, inner, fails=True)
    raise Fault(f"int() takes a number, text or a time, {inner.name or 'this'} is {inner.said}", node.at)


def _of_time(translator: Translator, node: Call, inner: Part, zone: tuple[Node, ...]) -> Part:
    offset, spelled = 0, ""
    if zone:
        offset, spelled = _offset(zone, node)
    text = f"{inner.text}.{node.function}({spelled})"
    if inner.kind == "mixed":
        return made("number", "", text, inner, fails=True)
    if inner.kind == "timestamp":
        at = f"({inner.code} // {meanings.SECOND}{offset:+})"
        return made("number", DATES[node.function].format(at=at, ns=inner.code), text, inner)
    if inner.kind == "duration" and node.function in SPANS and not zone:
        unit, limit = SPANS[node.function]
        return made("number", f"_cut({inner.code}, {unit}, {limit})", text, inner)
    fix = f"timestamp({inner.name}).{node.function}()" if inner.kind == "string" and inner.name else ""
    raise Fault(f"{node.function}() is asked of a time, {inner.name or 'this'} is {inner.said}", node.at, fix)


def _offset(zone: tuple[Node, ...], node: Node) -> tuple[int, str]:
    """A zone's offset in seconds.  Only fixed ones: names are read from files of the machine, which differ."""
    only = zone[0] if len(zone) == 1 else None
    if isinstance(only, Const) and isinstance(only.value, str):
        found = patterns.ZONE.fullmatch(only.value)
        if only.value == "UTC":
            return 0, '"UTC"'
        if found is not None:
            seconds = (int(found[2]) * 60 + int(found[3])) * 60
            return -seconds if found[1] == "-" else seconds, json.dumps(only.value)
    message = "a zone is 'UTC' or a fixed offset: what a name means differs from machine to machine"
    raise Fault(message, node.at, "write '+01:00'", reason="zone")


def _double(translator: Translator, node: Call, only: Node) -> Part:
    inner = translator.part(only)
    text = f"double({inner.text})"
    match inner.kind:
        case "number":
            return made("number", f"_number({inner.code})", text, inner) if inner.nullable else inner
        case "string" if not translator.formula:
            code = f"_double_of({inner.code})"
            return made("number", code, text, inner, fails=True, computed=True, traits={"unsure"})
        case "mixed":
            return made("number", "", text, inner, fails=True, computed=True)
    raise Fault(f"double() takes a number or text, {inner.name or 'this'} is {inner.said}", node.at)


def _bool(translator: Translator, node: Call, only: Node) -> Part:
    inner = translator.part(only)
    match inner.kind:
        case "boolean":
            code = f"_boolean({inner.code})"
            return made("boolean", code, f"bool({inner.text})", inner) if inner.nullable else inner
        case "string":
            code = f"_truth_of({inner.code})"
            return made("boolean", code, f"bool({inner.text})", inner, fails=True, traits={"unsure"})
        case "mixed":
            return made("boolean", "", f"bool({inner.text})", inner, fails=True)
    raise Fault(f"bool() takes true, false or text, {inner.name or 'this'} is {inner.said}", node.at)


def _string(translator: Translator, node: Call, only: Node) -> Part:
    computed = isinstance(only, Call) and (only.function in ("int", "size", "_%_") or only.function in DATES)
    if computed or (isinstance(only, Const) and only.kind == "int"):
        inner = whole(translator, only, "string()")
        return made("string", f"str({inner.code})", f"string({inner.text})", inner)
    inner = translator.part(only)
    text = f"string({inner.text})"
    match inner.kind:
        case "string":
            return made("string", f"_text({inner.code})", text, inner) if inner.nullable else inner
        case "boolean":
            return made("string", f"_text_of_truth({inner.code})", text, inner)
        case "number" if inner.name in translator.types and translator.types[inner.name].whole:
            code = f"str(_int({inner.code}))"  # as CEL writes a whole number; a double would be 1e+06
            return made("string", code, f"string(int({inner.text}))", inner, fails=True)
        case "number":
            return made("string", f"_text_of_number({inner.code})", text, inner, traits={"unsure"})
        case "mixed":
            return made("string", "", text, inner, fails=True)
        case "timestamp" | "duration":
            return made("string", "", text, inner, fails=True, library="a time written as text")
    raise Fault(
        f"string() takes a number, text, true, false or a time, {inner.name or 'this'} is {inner.said}", node.at
    )


def _timestamp(translator: Translator, node: Call, only: Node) -> Part:
    inner = translator.part(only)
    if inner.kind == "timestamp":
        return inner
    if inner.kind == "number":
        known = translator.types.get(inner.name)
        number = Call(node.at, None, "int", (only,)) if known is not None and known.whole else only
        seconds = whole(translator, number, "timestamp()")
        text = f"timestamp({seconds.text})"
        return made("timestamp", f"_from_seconds({seconds.code})", text, seconds, fails=True, traits={"unsure"})
    return _read_time("timestamp", meanings._timestamp, inner, only, node)


def _duration(translator: Translator, node: Call, only: Node) -> Part:
    inner = translator.part(only)
    return inner if inner.kind == "duration" else _read_time("duration", meanings._duration, inner, only, node)


def _read_time(
    kind: Literal["timestamp", "duration"], read: Callable[[str], int], inner: Part, only: Node, node: Node
) -> Part:
    text = f"{kind}({inner.text})"
    if inner.kind == "mixed":
        return made(kind, "", text, inner, fails=True)
    if inner.kind != "string":
        raise Fault(f"{kind}() takes text, {inner.name or 'this'} is {inner.said}", node.at)
    if isinstance(only, Const) and isinstance(only.value, str):
        if not has_value(text):
            fix = "write '2013-01-31T12:00:00Z'" if kind == "timestamp" else "write '36h' or '90s'"
            raise Fault(f"{inner.name} is no {kind}", only.at, fix, reason="literal")
        try:
            return made(kind, f"({read(only.value)})", text)
        except Unsure:
            return made(kind, "", text, library="a time in a rare spelling")
    return made(kind, f"_{kind}({inner.code})", text, inner, fails=True, traits={"unsure"})


_CONVERSIONS: Final[dict[str, Callable[[Translator, Call, Node], Part]]] = {
    "bool": _bool,
    "double": _double,
    "duration": _duration,
    "string": _string,
    "timestamp": _timestamp,
}

__all__ = ["FUNCTIONS", "METHODS", "Syntax", "function", "loop", "select", "what", "whole"]
