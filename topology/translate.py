"""Translate: the common subset of CEL, node by node, into Python source and canonical CEL.

Each node becomes a `Part`: Python source over `d` (data, or a formula's operands) and `e` (event), and CEL text in one
spelling that means the same to the library: literals as doubles, `has(x)` as `x != null`, every operator in brackets.

`fails` says whether evaluating a part can fail; && and || need it, because in CEL an error on one side is absorbed when
the other side decides (`error || true` is true).  Where one side cannot fail it is evaluated first, which is the same.

Source: the CEL specification, "Logical Operators", "Equality", "Numeric Values".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from milepost.schemas.field_types import FieldType, Kind
from milepost.topology.cel import Call, Const, ListOf, Node, Select, dotted

DOUBLE_MAX: Final = 1.7976931348623157e308
FAILURES: Final = (TypeError, AttributeError, KeyError, ZeroDivisionError, OverflowError, ValueError)
"""What generated code raises where CEL has an error."""

_ORDER: Final = {"_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_EQUAL: Final = {"_==_": "==", "_!=_": "!="}
_SUMS: Final = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/"}
SAID: Final = {
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "list": "a list",
    "record": "an object",
    "map": "an object",
    "mixed": "one of several kinds",
}


class Fault(Exception):
    """An expression that cannot hold: its kinds do not fit."""

    def __init__(self, message: str, offset: int, fix: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.fix = message, offset, fix


class Outside(Exception):
    """A node outside the subset.  what: how to name it."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what, self.offset = what, offset


@dataclass(frozen=True, slots=True)
class Part:
    """A translated node.

    code, text: Python source, canonical CEL
    kind:       of its value
    nullable:   the value can be None
    fails:      evaluating can raise one of FAILURES
    computed:   a number made by arithmetic, which may be infinite
    name:       how to speak of it in a message
    of:         the kind of a list's values
    """

    code: str
    text: str
    kind: Kind
    nullable: bool = False
    fails: bool = False
    computed: bool = False
    name: str = ""
    of: Kind | None = None


def translate(tree: Node, types: Mapping[str, FieldType], *, formula: bool) -> Part:
    """Translate a whole expression.  Raises Fault or Outside."""
    return _Translator(types, formula).part(tree)


class _Translator:
    def __init__(self, types: Mapping[str, FieldType], formula: bool) -> None:
        self.types = types
        self.formula = formula

    def part(self, node: Node) -> Part:
        match node:
            case Const():
                return self._const(node)
            case Select(test=True):
                return self._has(node)
            case Call(target=None, function="_&&_" | "_||_" as function, args=(left, right)):
                return self._logic(function, self._boolean(left), self._boolean(right))
            case Call(target=None, function="!_", args=(only,)):
                inner = self._boolean(only)
                return replace(inner, code=f"(not {inner.code})", text=f"(!{inner.text})", nullable=False)
            case Call(target=None, function="_?_:_", args=(condition, left, right)):
                return self._choice(node, self._boolean(condition), self.part(left), self.part(right))
            case Call(target=None, function=function, args=(left, right)) if function in _EQUAL:
                return self._equal(node, _EQUAL[function], self.part(left), self.part(right))
            case Call(target=None, function=function, args=(left, right)) if function in _ORDER:
                return self._order(node, _ORDER[function], self.part(left), self.part(right))
            case Call(target=None, function=function, args=(left, right)) if function in _SUMS:
                return self._sum(node, _SUMS[function], self.part(left), self.part(right))
            case Call(target=None, function="-_", args=(only,)):
                inner = self._number(only, "-")
                fails = inner.fails or inner.nullable
                return Part(f"(-{inner.code})", f"(-{inner.text})", "number", fails=fails, computed=inner.computed)
            case Call(target=None, function="@in", args=(left, ListOf() as right)):
                return self._in_literals(node, self.part(left), right)
            case Call(target=None, function="@in", args=(left, right)):
                return self._in_list(node, self.part(left), self.part(right))
            case Call(function="startsWith" | "endsWith" | "contains"):
                return self._text_test(node)
            case Call(target=None, function="_%_" | "int") | Call(function="size"):
                whole = self._whole(node)
                return replace(whole, code=f"float({whole.code})", text=f"double({whole.text})")
            case Call(target=None, function="double", args=(only,)):
                return self._number(only, "double()")
        names = dotted(node)
        if names is not None:
            return self._path(names, node)
        raise Outside(_what(node), node.at)

    def _const(self, node: Const) -> Part:
        match node.kind, node.value:
            case "null", _:
                return Part("None", "null", "null", nullable=True, name="null")
            case "bool", bool(value):
                return Part(repr(value), "true" if value else "false", "boolean", name=str(value).lower())
            case "string", str(value):
                text = json.dumps(value, ensure_ascii=False)
                return Part(repr(value), text, "string", name=text)
            case (("int" | "double"), (int() | float() as value)):
                number = float(value)
                if number != value or not -DOUBLE_MAX <= number <= DOUBLE_MAX:
                    raise Fault("a number was expected that a double holds", node.at)
                text = f"({number!r})" if number < 0 else repr(number)
                return Part(text, text, "number", name=repr(number))
            case "uint", _:
                raise Fault("unsigned numbers have no place here: all numbers are doubles", node.at, "leave out the u")
        raise Outside(f"a literal of {node.kind}", node.at)

    def _path(self, names: tuple[str, ...], node: Node) -> Part:
        name = ".".join(names)
        known = self.types.get(name)
        if known is None:
            raise Outside(f"{name} inside an object of free form", node.at)
        if self.formula:
            return Part(f"d[{name!r}]", name, "number", name=name)
        code = "d" if names[0] == "data" else "e"
        for length in range(2, len(names) + 1):
            inside = self.types.get(".".join(names[: length - 1]))
            step = f"{code}[{names[length - 1]!r}]"
            code = f"(None if {code} is None else {step})" if inside is not None and inside.nullable else step
        if known.kind == "number" and known.whole:
            code = f"_float({code})" if known.nullable else f"float({code})"
        of = known.of.kind if known.of is not None else None
        return Part(code, name, known.kind, nullable=known.nullable, name=name, of=of)

    def _has(self, node: Select) -> Part:
        names = dotted(Select(node.at, node.operand, node.name, False))
        if names is None:
            raise Outside("has() of something that is no path", node.at)
        inner = self._path(names, node)
        if not inner.nullable:
            return Part("True", "true", "boolean")
        return Part(f"({inner.code} is not None)", f"({inner.text} != null)", "boolean")

    def _boolean(self, node: Node) -> Part:
        inner = self.part(node)
        if inner.kind != "boolean":
            raise Fault(f"true or false was expected, {inner.name or 'this'} is {SAID[inner.kind]}", node.at)
        if inner.nullable:
            return replace(inner, code=f"_boolean({inner.code})", fails=True)
        return inner

    def _number(self, node: Node, what: str) -> Part:
        inner = self.part(node)
        if inner.kind != "number":
            raise Fault(f"{what} takes a number, {inner.name or 'this'} is {SAID[inner.kind]}", node.at)
        return inner

    def _logic(self, function: str, left: Part, right: Part) -> Part:
        word, sign = ("and", "&&") if function == "_&&_" else ("or", "||")
        text = f"({left.text} {sign} {right.text})"
        fails = left.fails or right.fails
        if left.fails and right.fails:
            return Part(f"_{word}(lambda: {left.code}, lambda: {right.code})", text, "boolean", fails=True)
        if left.fails:
            left, right = right, left
        return Part(f"({left.code} {word} {right.code})", text, "boolean", fails=fails)

    def _choice(self, node: Node, condition: Part, left: Part, right: Part) -> Part:
        code = f"({left.code} if {condition.code} else {right.code})"
        kind = left.kind if left.kind != "null" else right.kind
        if "null" in (left.kind, right.kind):
            if not ({left.kind, right.kind} - {"null"}) <= {"number", "string", "boolean"}:
                raise Outside("a choice between objects", node.at)
            # The checker has no type for "text or null" written as literals; dyn() takes the question from it.
            text = f"({condition.text} ? dyn({left.text}) : dyn({right.text}))"
        elif left.kind != right.kind:
            raise Fault(f"both results of ?: are of one kind, here {SAID[left.kind]} and {SAID[right.kind]}", node.at)
        else:
            text = f"({condition.text} ? {left.text} : {right.text})"
        return Part(
            code,
            text,
            kind,
            nullable=left.nullable or right.nullable,
            fails=condition.fails or left.fails or right.fails,
            computed=left.computed or right.computed,
            of=left.of,
        )

    def _equal(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        fails = left.fails or right.fails
        text = f"({left.text} {sign} {right.text})"
        for one, other in ((left, right), (right, left)):
            if other.kind == "null":
                if not one.nullable:
                    name = one.name or "this"
                    fix = "leave the comparison out: the contract requires a value"
                    raise Fault(f"{name} is never null", node.at, fix)
                return Part(f"({one.code} is {'not ' * (sign == '!=')}None)", text, "boolean", fails=fails)
        if left.kind not in ("number", "string", "boolean") or right.kind not in ("number", "string", "boolean"):
            raise Outside("a comparison of lists or objects", node.at)
        self._same(node, sign, left, right)
        return Part(f"({left.code} {sign} {right.code})", text, "boolean", fails=fails)

    def _order(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        self._same(node, sign, left, right)
        if left.kind not in ("number", "string", "boolean"):
            raise Fault(f"{sign} compares numbers or text, not {SAID[left.kind]}", node.at)
        fails = left.fails or right.fails or left.nullable or right.nullable
        code = f"({left.code} {sign} {right.code})"
        return Part(code, f"({left.text} {sign} {right.text})", "boolean", fails=fails)

    def _same(self, node: Node, sign: str, left: Part, right: Part) -> None:
        if "mixed" in (left.kind, right.kind):
            raise Outside("a comparison of a field of several kinds", node.at)
        if left.kind == right.kind:
            return
        one, other = left.name or "the left side", right.name or "the right side"
        fix = ""
        for text, number in ((left, right), (right, left)):
            if text.kind == "string" and number.kind == "number" and _is_number(number.name):
                fix = f'text stands in quotes: "{number.name.removesuffix(".0")}"'
            if text.kind == "number" and number.kind == "string" and _is_number(number.name.strip('"')):
                fix = f"a number stands without quotes: {number.name.strip(chr(34))}"
        message = f"{sign} compares one kind: {one} is {SAID[left.kind]}, {other} is {SAID[right.kind]}"
        raise Fault(message, node.at, fix)

    def _sum(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        kinds = {left.kind, right.kind}
        if not (kinds == {"number"} or (sign == "+" and kinds == {"string"})):
            if "mixed" in kinds or kinds == {"list"}:
                raise Outside(f"{sign} of lists or of a field of several kinds", node.at)
            what = "two numbers or two texts" if sign == "+" else "two numbers"
            message = f"{sign} takes {what}: {left.name or 'the left side'} is {SAID[left.kind]}"
            raise Fault(f"{message}, {right.name or 'the right side'} is {SAID[right.kind]}", node.at)
        # A formula answers a division by zero as null with its reason; a rule's doubles divide as CEL's do.
        divides = sign == "/" and not self.formula
        code = f"_divide({left.code}, {right.code})" if divides else f"({left.code} {sign} {right.code})"
        fails = left.fails or right.fails or left.nullable or right.nullable or (sign == "/" and self.formula)
        return Part(code, f"({left.text} {sign} {right.text})", left.kind, fails=fails, computed=left.kind == "number")

    def _in_literals(self, node: Node, left: Part, right: ListOf) -> Part:
        parts = [self.part(one) for one in right.elements]
        if left.kind not in ("number", "string", "boolean"):
            raise Outside("in of lists or objects", node.at)
        for one in parts:
            if one.kind != left.kind:
                message = f"in looks for {SAID[left.kind]}, {one.name or 'an element'} is {SAID[one.kind]}"
                raise Fault(message, node.at)
        fails = left.fails or any(one.fails for one in parts)
        text = f"({left.text} in [{', '.join(one.text for one in parts)}])"
        if not parts:
            raise Fault("in looks in a list that is empty", node.at)
        constant = all(isinstance(one, Const) for one in right.elements)
        codes = ", ".join(one.code for one in parts)
        code = f"({left.code} in {{{codes}}})" if constant else f"({left.code} in ({codes},))"
        return Part(code, text, "boolean", fails=fails)

    def _in_list(self, node: Node, left: Part, right: Part) -> Part:
        if right.kind != "list" or left.kind not in ("number", "string", "boolean") or right.of != left.kind:
            raise Outside("in of something else than a list of one kind", node.at)
        fails = left.fails or right.fails or right.nullable
        return Part(f"({left.code} in {right.code})", f"({left.text} in {right.text})", "boolean", fails=fails)

    def _text_test(self, node: Call) -> Part:
        if node.target is None or len(node.args) != 1:
            raise Fault(f"write text.{node.function}(text)", node.at)
        left, right = self.part(node.target), self.part(node.args[0])
        for one in (left, right):
            if one.kind == "mixed":
                raise Outside("a field of several kinds", node.at)
            if one.kind != "string":
                raise Fault(f"{node.function} takes text, {one.name or 'this'} is {SAID[one.kind]}", node.at)
        methods = {"startsWith": "startswith", "endsWith": "endswith"}
        if node.function == "contains":
            code = f"({right.code} in {left.code})"
        else:
            code = f"{left.code}.{methods[node.function]}({right.code})"
        fails = left.fails or right.fails or left.nullable or right.nullable
        return Part(code, f"{left.text}.{node.function}({right.text})", "boolean", fails=fails)

    def _whole(self, node: Node) -> Part:
        """A part whose value is a whole number of CEL (int64): inside %, int() and size()."""
        match node:
            case Const(kind="int", value=int(value)):
                return Part(f"({value})", f"({value})" if value < 0 else str(value), "number")
            case (
                Call(target=None, function="size", args=(only,)) | Call(target=Node() as only, function="size", args=())
            ):
                inner = self.part(only)
                if inner.kind not in ("string", "list"):
                    raise (Outside if inner.kind in ("map", "mixed") else Fault)(
                        f"size() takes text or a list, {inner.name or 'this'} is {SAID[inner.kind]}", node.at
                    )
                fails = inner.fails or inner.nullable
                return Part(f"len({inner.code})", f"size({inner.text})", "number", fails=fails)
            case Call(target=None, function="int", args=(only,)):
                inner = self._number(only, "int()")
                return Part(f"_int({inner.code})", f"int({inner.text})", "number", fails=True)
            case Call(target=None, function="-_", args=(only,)):
                inner = self._whole(only)
                return replace(inner, code=f"_i64(-{inner.code})", text=f"(-{inner.text})", fails=True)
            case Call(target=None, function=("_%_" | "_+_" | "_-_" | "_*_" | "_/_") as function, args=(left, right)):
                a, b = self._whole(left), self._whole(right)
                sign = function.strip("_")
                helper = {"%": "_modulo", "/": "_quotient"}.get(sign)
                code = f"{helper}({a.code}, {b.code})" if helper else f"_i64({a.code} {sign} {b.code})"
                return Part(code, f"({a.text} {sign} {b.text})", "number", fails=True)
        if dotted(node) is not None:
            name = ".".join(dotted(node) or ())
            raise Fault("% takes whole numbers, and all numbers are doubles", node.at, f"write int({name})")
        raise Outside(_what(node), node.at)


def _what(node: Node) -> str:
    match node:
        case Call(function=function):
            return f"{function.strip('_@')}()" if function[0].isalpha() else function.strip("_@")
        case ListOf():
            return "a list"
    return f"a {type(node).__name__.lower()}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _and(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    try:
        decided = left()
    except FAILURES:
        if right():
            raise
        return False
    return decided and right()


def _or(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    try:
        decided = left()
    except FAILURES:
        if right():
            return True
        raise
    return decided or right()


def _boolean(value: bool | None) -> bool:
    if value is None:
        raise TypeError("null is neither true nor false")
    return value


def _float(value: int | float | None) -> float | None:
    return None if value is None else float(value)


def _divide(left: float, right: float) -> float:
    try:
        return left / right
    except ZeroDivisionError:
        if left == 0 or left != left:
            return float("nan")  # a new one: `in` finds the same object even when it is not equal to itself
        return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _int(value: float) -> int:
    whole = int(value)
    if not -(2**63) < whole < 2**63:
        raise OverflowError("beyond 64 bits")
    return whole


def _i64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("beyond 64 bits")
    return value


def _quotient(left: int, right: int) -> int:
    return _i64(abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1))


def _modulo(left: int, right: int) -> int:
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


HELPERS: Final[Mapping[str, object]] = {
    one.__name__: one for one in (_and, _or, _boolean, _float, _divide, _int, _i64, _quotient, _modulo)
}
"""What generated code may call."""
