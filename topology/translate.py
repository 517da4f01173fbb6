"""Translate: CEL as rules may use it, node by node, into Python source and canonical CEL.

Canonical CEL is one spelling that means the same to the library: literals as doubles, `has(x)` as `x != null`, every
operator in brackets, loop variables `x1`, `x2`.  This module has the operators, literals and paths; `containers.py` has
lists and objects, `functions.py` what is called by name, loops included.

`fails` says whether evaluating a part can fail; && and || need it, because in CEL an error on one side is absorbed when
the other side decides (`error || true` is true).  Where one side cannot fail it is evaluated first, which is the same.

Source: the CEL specification, "Logical Operators", "Equality", "Numeric Values".
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from milepost.schemas.field_types import FieldType
from milepost.topology.by_library import DOUBLE_MAX
from milepost.topology.cel import Call, Comprehension, Const, Ident, ListOf, Node, Select, Struct, dotted
from milepost.topology.containers import SCALARS, TIMES, alike, both, exact, in_, in_literals, index, list_of, map_of
from milepost.topology.expression_part import Fault, Part, PartKind, Trait, element, fails, made
from milepost.topology.functions import FUNCTIONS, METHODS, function, loop, select, what

_ORDER: Final = {"_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_EQUAL: Final = {"_==_": "==", "_!=_": "!="}
_SUMS: Final = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/"}
_IN_FORMULAS: Final = frozenset(
    {*_ORDER, *_EQUAL, *_SUMS, "_&&_", "_||_", "!_", "-_", "_?_:_", "_%_", "@in", "int", "double", "size"}
    | {"startsWith", "endsWith", "contains"}
)
SEARCHES_MAX: Final = 4
"""Searches for each element of a loop, at most, where the library may evaluate: it counts no steps for them."""
_SUMS_OF_TIMES: Final[Mapping[tuple[str, str, str], tuple[PartKind, str]]] = {
    ("timestamp", "+", "duration"): ("timestamp", "_instant"),
    ("duration", "+", "timestamp"): ("timestamp", "_instant"),
    ("timestamp", "-", "duration"): ("timestamp", "_instant"),
    ("timestamp", "-", "timestamp"): ("duration", "_span"),
    ("duration", "+", "duration"): ("duration", "_span"),
    ("duration", "-", "duration"): ("duration", "_span"),
}


def translate(tree: Node, types: Mapping[str, FieldType], *, formula: bool) -> tuple[Part, dict[str, object]]:
    """Translate a whole expression: the part, and the constants that its code refers to by name.  Raises Fault."""
    translator = Translator(types, formula)
    part = translator.part(tree)
    if (part.library or "unsure" in part.traits) and translator.looped_searches > SEARCHES_MAX:
        message = (
            f"its loops search more than {SEARCHES_MAX} times for each element, beside what only the library knows"
        )
        raise Fault(message, tree.at, reason="bound")
    return part, translator.constants


class Translator:
    """One expression's translation.

    bound: the variables of the loops around a node, as parts;  loops: how many;  constants: values that the code names;
    sizes: of the patterns met so far;  looped_searches: how often a loop goes through a text or a list
    """

    def __init__(self, types: Mapping[str, FieldType], formula: bool) -> None:
        self.types = types
        self.formula = formula
        self.bound: dict[str, Part] = {}
        self.loops = self.looped_searches = 0
        self.sizes: Counter[str] = Counter()
        self.constants: dict[str, object] = {}

    def part(self, node: Node) -> Part:
        if self.formula:
            self._check_formula(node)
        match node:
            case Const():
                return self._const(node)
            case Ident(name=name) if name in self.bound:
                return self.bound[name]
            case Ident(name=name) if name in self.types:
                return self._path((name,))
            case Call(target=None, function="_&&_" | "_||_" as sign, args=(left, right)):
                return self._logic(sign, self.boolean(left), self.boolean(right))
            case Call(target=None, function="!_", args=(only,)):
                inner = self.boolean(only)
                return replace(inner, code=f"(not {inner.code})", text=f"(!{inner.text})", nullable=False)
            case Call(target=None, function="_?_:_", args=(condition, left, right)):
                return self._choice(node, self.boolean(condition), self.part(left), self.part(right))
            case Call(target=None, function=sign, args=(left, right)) if sign in _EQUAL:
                return self._equal(node, _EQUAL[sign], self.part(left), self.part(right))
            case Call(target=None, function=sign, args=(left, right)) if sign in _ORDER:
                return self._order(node, _ORDER[sign], self.part(left), self.part(right))
            case Call(target=None, function=sign, args=(left, right)) if sign in _SUMS:
                return self._sum(node, _SUMS[sign], self.part(left), self.part(right))
            case Call(target=None, function="-_", args=(only,)):
                inner = self.number(only, "-")
                return made("number", f"(-{inner.code})", f"(-{inner.text})", inner, computed=inner.computed)
            case Call(target=None, function="@in", args=(left, ListOf() as right)):
                return in_literals(self, node, self.part(left), right)
            case Call(target=None, function="@in", args=(left, right)):
                return in_(self, node, self.part(left), self.part(right))
            case Call(target=None, function="_[_]", args=(left, right)):
                return index(self, node, self.part(left), right)
            case ListOf():
                return list_of(self, node)
            case Struct():
                return map_of(self, node)
            case Comprehension():
                return loop(self, node)
            case Select():
                return self._select(node)
            case Call():
                return function(self, node)
        names = dotted(node)
        assert names is not None
        raise Fault(f"{names[0]!r} is an object: name one of its fields", node.at, reason="name")

    def boolean(self, node: Node) -> Part:
        inner = self.part(node)
        if inner.kind == "mixed":
            return replace(inner, kind="boolean", nullable=False, fails=True)
        if inner.kind != "boolean":
            raise Fault(f"true or false was expected, {inner.name or 'this'} is {inner.said}", node.at)
        if inner.nullable:
            return replace(inner, code=f"_boolean({inner.code})", nullable=False, fails=True)
        return inner

    def number(self, node: Node, where: str) -> Part:
        inner = self.part(node)
        if inner.kind == "mixed":
            return replace(inner, kind="number", nullable=False, fails=True)
        if inner.kind != "number":
            raise Fault(f"{where} takes a number, {inner.name or 'this'} is {inner.said}", node.at)
        return inner

    def weighed(self, inner: Part) -> str:
        """The code of what is searched through: inside a loop it costs steps."""
        return f"_weigh(s, {inner.code})" if self.loops else inner.code

    def searches(self) -> frozenset[Trait]:
        """The traits of what goes through a text or a list; inside loops they are counted."""
        self.looped_searches += bool(self.loops)
        return frozenset({"searches_in_loop"} if self.loops else ())

    def read(self, of: FieldType, code: str, text: str, *inner: Part, name: str = "", nullable: bool = False) -> Part:
        """A value taken out of a list or object: as its type says, whole numbers as doubles."""
        nullable = nullable or of.nullable
        if of.kind == "number" and of.whole:
            code = f"_float({code})" if nullable else f"float({code})"
        inside = of if of.kind == "record" else of.of
        kind, library = of.kind, "a field of several kinds" if of.kind == "mixed" else ""
        computed = any(one.computed for one in inner)
        found = made(kind, code, text, *inner, nullable=nullable, computed=computed, of=inside, library=library)
        return replace(found, name=name)

    def _check_formula(self, node: Node) -> None:
        if isinstance(node, Call) and node.function not in _IN_FORMULAS and node.function in FUNCTIONS | METHODS:
            beyond = True
        else:
            beyond = isinstance(node, ListOf | Struct | Comprehension) or what(node) == "[]"
        if beyond:
            message = f"{what(node)} has no place in a formula: it computes a number from metrics"
            raise Fault(message, node.at, reason="formula")

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
                    raise Fault("a number was expected that a double holds", node.at, reason="literal")
                text = f"({number!r})" if number < 0 else repr(number)
                return Part(text, text, "number", name=repr(number))
            case "uint", _:
                message = "unsigned numbers have no place here: all numbers are doubles"
                raise Fault(message, node.at, "leave out the u", reason="literal")
        raise Fault("bytes have no place here: contracts have none", node.at, "leave out the b", reason="literal")

    def _select(self, node: Select) -> Part:
        names = dotted(Select(node.at, node.operand, node.name, False))
        if names is None or names[0] in self.bound or ".".join(names) not in self.types:
            return select(self, node, self.part(node.operand))
        inner = self._path(names)
        if not node.test:
            return inner
        if not inner.nullable:
            return Part("True", "true", "boolean")
        return made("boolean", f"({inner.code} is not None)", f"({inner.text} != null)", fails=False)

    def _path(self, names: tuple[str, ...]) -> Part:
        name = ".".join(names)
        known = self.types[name]
        if self.formula:
            return Part(f"d[{name!r}]", name, "number", name=name)
        code = "d" if names[0] == "data" else "e"
        for length in range(2, len(names) + 1):
            inside = self.types.get(".".join(names[: length - 1]))
            field = names[length - 1]
            if inside is None or not inside.nullable:
                code = f"{code}[{field!r}]"
            elif code.startswith(("(", "_")):  # written in line once: each further time would double the code
                code = f"_below({code}, {field!r})"
            else:
                code = f"(None if {code} is None else {code}[{field!r}])"
        found = self.read(known, code, name, Part("", "", "null"), name=name)
        return replace(found, fails=False)

    def _logic(self, function: str, left: Part, right: Part) -> Part:
        word, sign = ("and", "&&") if function == "_&&_" else ("or", "||")
        text = f"({left.text} {sign} {right.text})"
        if left.fails and right.fails:
            return made("boolean", f"_{word}(lambda: {left.code}, lambda: {right.code})", text, left, right)
        first, second = (right, left) if left.fails else (left, right)
        return made("boolean", f"({first.code} {word} {second.code})", text, left, right)

    def _choice(self, node: Node, condition: Part, left: Part, right: Part) -> Part:
        code = f"({left.code} if {condition.code} else {right.code})"
        kind = left.kind if left.kind != "null" else right.kind
        of = left.of if left.of is not None else right.of
        if "mixed" in (left.kind, right.kind):
            kind, text = "mixed", f"({condition.text} ? dyn({left.text}) : dyn({right.text}))"
        elif "null" in (left.kind, right.kind):
            if not ({left.kind, right.kind} - {"null"}) <= {*SCALARS}:
                raise Fault("a choice between null and an object or a list", node.at)
            # The checker has no type for "text or null" written as literals; dyn() takes the question from it.
            text = f"({condition.text} ? dyn({left.text}) : dyn({right.text}))"
        elif left.kind != right.kind or (kind in ("list", "map", "record") and not alike(left.of, right.of)):
            raise Fault(f"both results of ?: are of one kind, here {left.said} and {right.said}", node.at)
        else:
            text = f"({condition.text} ? {left.text} : {right.text})"
            if kind in ("list", "map"):
                of = both(left, right)
        return made(
            kind,
            code,
            text,
            condition,
            left,
            right,
            fails=fails(condition, left, right),
            nullable=left.nullable or right.nullable,
            computed=left.computed or right.computed,
            of=of,
        )

    def _equal(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        failing = fails(left, right)
        text = f"({left.text} {sign} {right.text})"
        for one, other in ((left, right), (right, left)):
            if other.kind == "null":
                if not one.nullable:
                    name = one.name or "this"
                    fix = "leave the comparison out: the contract requires a value"
                    raise Fault(f"{name} is never null", node.at, fix, reason="null")
                code = f"({one.code} is {'not ' * (sign == '!=')}None)"
                return made("boolean", code, text, one, fails=failing)
        self._same(node, sign, left, right)
        library = ""
        codes = [left.code, right.code]
        if left.kind == "list":
            kinds = {element(left.of).kind, element(right.of).kind}
            if len(kinds) > 1 and right.kind == "list" and kinds <= set(SCALARS):
                raise Fault(f"{sign} compares lists of one kind", node.at)
            plain = element(left.of).kind in SCALARS and not (left.computed or right.computed)
            library = "" if plain and alike(left.of, right.of) else "a comparison of lists of objects"
            codes = [self.weighed(replace(one, code=exact(one))) for one in (left, right)]
        elif left.kind in ("map", "record"):
            library = "a comparison of objects"
        code = f"({codes[0]} {sign} {codes[1]})"
        traits = self.searches() if {left.kind, right.kind} - {*SCALARS, *TIMES} else frozenset()
        return made("boolean", code, text, left, right, fails=failing, library=library, traits=traits)

    def _order(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        self._same(node, sign, left, right)
        if left.kind not in (*SCALARS, *TIMES, "mixed"):
            raise Fault(f"{sign} compares numbers, text or times, not {left.said}", node.at)
        failing = True if "mixed" in (left.kind, right.kind) else None
        code = f"({left.code} {sign} {right.code})"
        return made("boolean", code, f"({left.text} {sign} {right.text})", left, right, fails=failing)

    def _same(self, node: Node, sign: str, left: Part, right: Part) -> None:
        if left.kind == right.kind or "mixed" in (left.kind, right.kind):
            return
        one, other = left.name or "the left side", right.name or "the right side"
        fix = ""
        for text, number in ((left, right), (right, left)):
            if text.kind == "string" and number.kind == "number" and _is_number(number.name):
                fix = f'text stands in quotes: "{number.name.removesuffix(".0")}"'
            if text.kind == "number" and number.kind == "string" and _is_number(number.name.strip('"')):
                fix = f"a number stands without quotes: {number.name.strip(chr(34))}"
            if text.kind == "string" and number.kind in TIMES and text.name:
                fix = f"a {number.kind} is made of text by {number.kind}({text.name})"
        raise Fault(f"{sign} compares one kind: {one} is {left.said}, {other} is {right.said}", node.at, fix)

    def _sum(self, node: Node, sign: str, left: Part, right: Part) -> Part:
        kinds = {left.kind, right.kind}
        text = f"({left.text} {sign} {right.text})"
        if "mixed" in kinds:
            kind = left.kind if left.kind != "mixed" else right.kind
            traits = self._joins() if sign == "+" and kind != "number" else frozenset()
            return made(kind, "", text, left, right, fails=True, computed=True, traits=traits)
        if sign == "+" and left.kind == right.kind and (kinds == {"string"} or kinds == {"list"}):
            return self._join(node, left, right, text)
        timed = _SUMS_OF_TIMES.get((left.kind, sign, right.kind))
        if timed is not None:
            kind, helper = timed
            code = f"{helper}({left.code} {sign} {right.code})"
            return made(kind, code, text, left, right, fails=True, traits={"unsure"})
        if kinds != {"number"}:
            takes = "two numbers or two texts" if sign == "+" else "two numbers"
            message = f"{sign} takes {takes}: {left.name or 'the left side'} is {left.said}"
            raise Fault(f"{message}, {right.name or 'the right side'} is {right.said}", node.at)
        # A formula answers a division by zero as null with its reason; a rule's doubles divide as CEL's do.
        divides = sign == "/" and not self.formula
        code = f"_divide({left.code}, {right.code})" if divides else f"({left.code} {sign} {right.code})"
        failing = True if sign == "/" and self.formula else None
        return made("number", code, text, left, right, fails=failing, computed=True)

    def _join(self, node: Node, left: Part, right: Part, text: str) -> Part:
        several = "mixed" in (element(left.of).kind, element(right.of).kind)
        if left.kind == "list" and several:
            why, mixed = "a list of several kinds", FieldType(kind="mixed", nullable=True)
            return made("list", "", text, left, right, fails=True, of=mixed, library=why, traits=self._joins())
        if left.kind == "list" and not alike(left.of, right.of):
            raise Fault("+ takes two lists of one kind", node.at, reason="several_kinds")
        code = f"_join({left.code}, {right.code})"
        if self.loops:
            code = f"_weigh(s, {code})"
        of = both(left, right) if left.kind == "list" else None
        computed = left.computed or right.computed
        return made(left.kind, code, text, left, right, computed=computed, of=of, traits=self._joins())

    def _joins(self) -> frozenset[Trait]:
        return frozenset({"joins", "joins_in_loop"} if self.loops else {"joins"})


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
