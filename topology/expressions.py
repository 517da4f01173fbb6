"""Expressions: CEL compiled to Python functions.

    text -> parse (library) -> kinds, from the contract -> check (library) -> a Python function
                                    └── outside the common subset -> the library evaluates; `compiled` is False

The library takes 5 to 13 microseconds an evaluation, a generated function a tenth of one, and rules run for each event.
The subset: literals, paths of `data` and `event`, metrics; == != < <= > >= && || ! + - * / % ?: in; has() size() int()
startsWith endsWith contains.  `translate.py` holds its meaning; the tests prove it equal to the library's.

All numbers are doubles: `15` next to a field means `15.0`, and `1 / 2` is a half.  A nullable field that is null has no
value for an operator (RuleError), except for `== null`, `!= null`, `has()`, `in` and ==, which CEL defines on null.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from cel_expr_python import cel

from milepost.schemas.contracts import FieldType
from milepost.schemas.errors import RuleError
from milepost.topology import translate
from milepost.topology.cel import RESERVED, Comprehension, Node, Select, Syntax, as_syntax, children, dotted, parse
from milepost.topology.translate import DOUBLE_MAX, FAILURES, SAID, Fault, Outside, Part

Value = bool | float | str | None

EVENT_FIELDS: Final[Mapping[str, FieldType]] = {
    f"event.{name}": FieldType(kind="string") for name in ("type", "time", "source", "org")
}
"""What a rule sees of the envelope, beside `data`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A checked expression.

    text:      as written
    canonical: the same meaning in one spelling; what versions are made from
    paths:     what it reads: `data.x`, `event.type` (rules) or metric names (formulas), sorted
    kind:      of its value: number (a double), string, boolean
    nullable:  whether the value can be None (absent)
    compiled:  False when the library evaluates it
    evaluate:  (data, event) -> value; `data` as the contract's check returns it.  Raises RuleError.  Rules only.
    """

    text: str
    canonical: str
    paths: tuple[str, ...]
    kind: Literal["number", "string", "boolean"]
    nullable: bool
    compiled: bool
    evaluate: Callable[[Mapping[str, Any], Mapping[str, Any]], Value] = field(compare=False, repr=False)

    def value(self, operands: Mapping[str, float | int | None]) -> tuple[float | None, str | None]:
        """A formula's (value, None) or (None, reason): `no_events`, `division_by_zero`, `out_of_range` (semantics S9).

        A missing or None operand makes the formula null; the caller passes counts, sums and distincts without events
        as 0.
        """
        known: dict[str, float] = {}
        try:
            for name in self.paths:
                operand = operands.get(name)
                if operand is None:
                    return None, "no_events"
                known[name] = float(operand)
            result = self.evaluate(known, {})
        except ZeroDivisionError:
            return None, "division_by_zero"
        except OverflowError:
            return None, "out_of_range"
        assert isinstance(result, float)
        return result, None


class ExpressionFault(Exception):
    """An expression that does not hold.  offset: characters from its start; guess: the name probably meant; fix."""

    def __init__(self, message: str, offset: int = 0, guess: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.guess, self.fix = message, offset, guess, fix


def compile_expression(
    text: str,
    variables: Literal["rule", "formula"],
    *,
    data: Mapping[str, FieldType] | None = None,
    metrics: Iterable[str] = (),
    wants: Literal["boolean", "value", "number"] = "value",
) -> Expression:
    """Check and compile an expression.  Raises ExpressionFault.

    data:    a rule's fields by dotted path (`schemas.contracts.paths_of`)
    metrics: the names a formula may use
    wants:   what its value must be; `value` is a number, text, true or false
    """
    types = dict(EVENT_FIELDS) | dict(data or {}) if variables == "rule" else _numbers(metrics)
    if variables == "formula":
        wants = "number"
    try:
        tree = parse(text)
        paths = _paths(tree, types, variables)
    except Syntax as fault:
        raise ExpressionFault(fault.message, fault.offset, fix=_syntax_fix(text, types)) from None
    try:
        part = translate.translate(tree, types, formula=variables == "formula")
    except Fault as fault:
        raise ExpressionFault(fault.message, fault.offset, fix=fault.fix) from None
    except Outside as outside:
        if variables == "formula":
            message = f"{outside.what} has no place in a formula: it computes a number from metrics"
            raise ExpressionFault(message, outside.offset) from None
        return _by_library(text, tree, paths, types, wants)
    _check_kind(text, part.kind, wants)
    if part.kind not in ("number", "string", "boolean"):
        raise ExpressionFault(f"a value is a number, text, true or false; this is {SAID[part.kind]}")
    _check_by_library(text, part.text, paths, types)
    build = _formula if variables == "formula" else _rule
    return Expression(
        text=text,
        canonical=part.text,
        paths=paths,
        kind=part.kind,
        nullable=part.nullable and wants != "boolean",
        compiled=True,
        evaluate=build(text, part, boolean=wants == "boolean"),
    )


def library_environment(paths: Iterable[str], types: Mapping[str, FieldType], *, checked: bool) -> cel.Env:
    """The library's environment for these paths: each is a variable of its dotted name.

    checked: nullable values as wrapper types, as the type checker knows them; else as dynamic values, because the
             library takes no plain Python value for a wrapper.
    """
    return cel.NewEnv(variables={path: _cel_type(types[path], checked) for path in paths})


def library_values(paths: Iterable[str], data: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """The values of these paths as the library takes them: numbers as doubles; null below a null record."""
    values = {}
    for path in paths:
        root, *names = path.split(".")
        value: Any = data if root == "data" else event
        for name in names:
            value = None if value is None else value[name]
        values[path] = _doubles(value)
    return values


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, or ""."""
    # `data.` is in every path and would make any two of them look alike.
    plain = {one.removeprefix("data."): one for one in known}
    found = difflib.get_close_matches(name.removeprefix("data."), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else ""


def _numbers(metrics: Iterable[str]) -> dict[str, FieldType]:
    return {name: FieldType(kind="number") for name in metrics}


def _paths(tree: Node, types: Mapping[str, FieldType], variables: Literal["rule", "formula"]) -> tuple[str, ...]:
    """What an expression reads, each path known to `types`.  Raises ExpressionFault for any other name."""
    found: set[str] = set()

    def visit(node: Node, bound: frozenset[str]) -> None:
        names = dotted(node)
        if isinstance(node, Select) and node.test:
            names = dotted(Select(node.at, node.operand, node.name, False))
        if names is not None and names[0] not in bound:
            found.add(_known_path(names, node, types, variables))
            return
        if isinstance(node, Comprehension):
            bound = bound | frozenset(node.names)
        for child in children(node):
            visit(child, bound)

    visit(tree, frozenset())
    return tuple(sorted(found))


def _known_path(
    names: tuple[str, ...], node: Node, types: Mapping[str, FieldType], variables: Literal["rule", "formula"]
) -> str:
    start = node
    while isinstance(start, Select):
        start = start.operand
    if variables == "formula":
        if names[0] in types and len(names) == 1:
            return names[0]
        name = ".".join(names)
        raise ExpressionFault(f"no metric is named {name!r}", start.at, closest(name, types), _dash_fix(types))
    if names[0] not in ("data", "event") or len(names) == 1:
        guess = closest(f"data.{'.'.join(names)}", types) if names != ("data",) and names != ("event",) else ""
        message = f"a rule sees data.<field> and event.<field>, not {'.'.join(names)!r}"
        raise ExpressionFault(message, start.at, guess)
    for length in range(len(names), 1, -1):
        path = ".".join(names[:length])
        known = types.get(path)
        if known is not None and (length == len(names) or known.kind in ("map", "mixed")):
            return path
    path = ".".join(names)
    where = "the contract" if names[0] == "data" else "the event"
    raise ExpressionFault(f"{where} has no field {path!r}", start.at, closest(path, types))


def _dash_fix(types: Mapping[str, FieldType]) -> str:
    dashed = next((name for name in types if "-" in name), "")
    return f"a name in a formula has no dash: call {dashed!r} {dashed.replace('-', '_')!r}" if dashed else ""


def _syntax_fix(text: str, types: Mapping[str, FieldType]) -> str:
    words = {word for word in types if word in RESERVED and word in text}
    if words:
        return f"{min(words)!r} is a word of the language; give the metric another name"
    for wrong, right in (
        (" and ", "&&"),
        (" or ", "||"),
        ("not ", "!"),
        ("=<", "<="),
        ("=>", ">="),
        ("<>", "!="),
        ("===", "=="),
        (" = ", "=="),
    ):
        if wrong in text:
            return f"write {right} for {wrong.strip()}"
    return ""


def _check_kind(text: str, kind: str, wants: str) -> None:
    if wants == "boolean" and kind != "boolean":
        raise ExpressionFault(f"a condition is true or false; {text!r} is {SAID[kind]}")
    if wants == "number" and kind != "number":
        raise ExpressionFault(f"a number was expected; {text!r} is {SAID[kind]}")


def _check_by_library(text: str, canonical: str, paths: tuple[str, ...], types: Mapping[str, FieldType]) -> None:
    """The library's type checker has the last word."""
    try:
        library_environment(paths, types, checked=True).compile(canonical)
    except RuntimeError as error:
        raise ExpressionFault(as_syntax(error, text).message) from None


def _rule(text: str, part: Part, *, boolean: bool) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Value]:
    """The function of a rule's expression: generated source, from names and literals that were checked."""
    code = f"_boolean({part.code})" if boolean and part.nullable else part.code
    if part.kind == "number" and part.computed:
        finite = f"{-DOUBLE_MAX!r} <= v <= {DOUBLE_MAX!r}"
        body = f"  v = {code}\n  if v is None or {finite}: return v\n  raise OverflowError"
    else:
        body = f"  return {code}"
    source = f"def evaluate(d, e):\n try:\n{body}\n except _failures as error:\n  raise _failed(error) from None"
    return _function(source, _failed=lambda error: _rule_error(text, error))


def _formula(text: str, part: Part, *, boolean: bool) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Value]:
    """The function of a formula: raises ZeroDivisionError and OverflowError, which `Expression.value` answers."""
    source = (
        f"def evaluate(d, e):\n v = {part.code}\n"
        f" if {-DOUBLE_MAX!r} <= v <= {DOUBLE_MAX!r}: return v\n raise OverflowError"
    )
    return _function(source)


def _function(source: str, **scope: object) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Value]:
    names: dict[str, object] = {"_failures": FAILURES, **translate.HELPERS, **scope}
    exec(compile(source, "<expression>", "exec"), names)
    return cast(Callable[[Mapping[str, Any], Mapping[str, Any]], Value], names["evaluate"])


def _rule_error(text: str, error: Exception) -> RuleError:
    match error:
        case TypeError() | AttributeError():
            why = "null stands where a value is needed"
        case OverflowError() | ValueError():
            why = "the number is not finite or too large"
        case ZeroDivisionError():
            why = "a division by zero"
        case _:
            why = "a field is missing"
    return RuleError(f"{text!r} has no value: {why}")


def _by_library(
    text: str, tree: Node, paths: tuple[str, ...], types: Mapping[str, FieldType], wants: str
) -> Expression:
    """An expression outside the subset: the library checks and evaluates it."""
    _bounded(tree, 0)
    try:
        checked = library_environment(paths, types, checked=True).compile(text)
    except RuntimeError as error:
        fault = as_syntax(error, text)
        fix = "numbers are doubles: write 15.0 for 15" if "int" in fault.message and "double" in fault.message else ""
        raise ExpressionFault(fault.message, fault.offset, fix=fix) from None
    kinds = {"BOOL": "boolean", "DOUBLE": "number", "INT": "number", "UINT": "number", "STRING": "string"}
    name = checked.return_type().name()
    kind = kinds.get(name.upper(), "number" if wants == "number" else "string")
    if name.upper() not in kinds and name.upper() != "DYN":
        raise ExpressionFault(f"a value is a number, text, true or false; this is {name.lower()}")
    if name.upper() != "DYN":
        _check_kind(text, kind, wants)
    elif wants == "boolean":
        kind = "boolean"
    program = library_environment(paths, types, checked=False).deserialize(checked.serialize())

    def evaluate(data: Mapping[str, Any], event: Mapping[str, Any]) -> Value:
        result = program.eval(data=library_values(paths, data, event))
        if result.type().name() == "ERROR":
            raise RuleError(f"{text!r} has no value: {str(result.value()).partition(':')[0].lower()}")
        value = result.plain_value()
        if wants == "boolean" and not isinstance(value, bool):
            raise RuleError(f"{text!r} is neither true nor false")
        if isinstance(value, bool | str) or value is None:
            return value
        if isinstance(value, int | float) and -DOUBLE_MAX <= value <= DOUBLE_MAX:
            return float(value)
        raise RuleError(f"{text!r} is no number, text, true or false")

    return Expression(
        text=text,
        canonical=text.strip(),
        paths=paths,
        kind=cast(Literal["number", "string", "boolean"], kind),
        nullable=wants != "boolean",
        compiled=False,
        evaluate=evaluate,
    )


def _bounded(node: Node, loops: int) -> None:
    """Loops do not nest (time), and `has` waits for the subset: the library sees null where a field is absent."""
    if isinstance(node, Comprehension):
        loops += 1
        if loops > 1:
            raise ExpressionFault("one loop inside another is not allowed in a rule", node.at)
    if isinstance(node, Select) and node.test:
        raise ExpressionFault("has() cannot stand in this expression", node.at, fix="compare with null: data.x != null")
    for child in children(node):
        _bounded(child, loops)


def _cel_type(of: FieldType, checked: bool) -> cel.Type:
    if of.nullable:
        wrappers = {"number": "DoubleValue", "string": "StringValue", "boolean": "BoolValue"}
        known = wrappers.get(of.kind) if checked else None
        return cel.Type(f"google.protobuf.{known}") if known else cel.Type.DYN
    match of.kind:
        case "number":
            return cel.Type.DOUBLE
        case "string":
            return cel.Type.STRING
        case "boolean":
            return cel.Type.BOOL
        case "list" if of.of is not None:
            return cel.Type.List(_cel_type(of.of, False))
        case "map" if of.of is not None:
            return cel.Type.Map(cel.Type.STRING, _cel_type(of.of, False))
    return cel.Type.DYN


def _doubles(value: Any) -> Any:
    match value:
        case bool() | str() | None | float():
            return value
        case int():
            return float(value)
        case list():
            return [_doubles(one) for one in value]
        case dict():
            return {key: _doubles(one) for key, one in value.items()}
    return value


__all__ = [
    "EVENT_FIELDS",
    "Expression",
    "ExpressionFault",
    "Value",
    "closest",
    "compile_expression",
    "library_environment",
    "library_values",
]
