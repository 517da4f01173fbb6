"""Expressions: CEL compiled to Python functions.

    text -> parse (library) -> kinds, from the contract -> Python and canonical CEL -> check (library) -> a function
                                                           └── not proven equal: the library evaluates the canonical CEL

The library takes 5 to 40 microseconds an evaluation, a generated function a tenth of one, and rules run for each event.
`translate.py` and `functions.py` say what each node means; the tests prove the two spellings equal.  What the library
evaluates is the canonical text too, so an expression means the same whoever evaluates it.

All numbers are doubles: `15` next to a field means `15.0`, and `1 / 2` is a half.  `int(x)` cuts off the decimals and
is a double again, except inside `%`, `[ ]` and `string()`, which take whole numbers of 64 bits.  A nullable field that
is null has no value for an operator (RuleError), except for `== null`, `!= null`, `has()`, `in` and ==, which CEL
defines on null.

Bounds: text, levels, nodes (`cel.py`), pattern (`patterns.py`), loops inside one another (`functions.py`) at the door;
steps and joined length (`meanings.py`), values given to the library (`by_library.py`) at each evaluation.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from milepost.schemas.contracts import FieldType
from milepost.schemas.errors import RuleError
from milepost.topology import by_library, meanings, translate
from milepost.topology.by_library import DOUBLE_MAX, Value, library_environment, library_values
from milepost.topology.cel import RESERVED, Comprehension, Node, Select, Syntax, children, dotted, parse
from milepost.topology.expression_part import SAID, Fault, Part, Refusal

EVENT_FIELDS: Final[Mapping[str, FieldType]] = {
    f"event.{name}": FieldType(kind="string") for name in ("type", "time", "source", "org")
}
"""What a rule sees of the envelope, beside `data`."""

_TYPES: Final = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A checked expression.

    text:      as written
    canonical: the same meaning in one spelling; what versions are made from
    paths:     what it reads: `data.x`, `event.type` (rules) or metric names (formulas), sorted
    kind:      of its value: number (a double), string, boolean
    nullable:  whether the value can be None (absent)
    whole:     a number without decimals, because int(), size(), % or a part of a time made it
    library:   why the library evaluates it, "" when it is compiled
    evaluate:  (data, event) -> value; `data` as the contract's check returns it.  Raises RuleError.  Rules only.
    """

    text: str
    canonical: str
    paths: tuple[str, ...]
    kind: Literal["number", "string", "boolean"]
    nullable: bool
    whole: bool
    library: str
    evaluate: Callable[[Mapping[str, Any], Mapping[str, Any]], Value] = field(compare=False, repr=False)

    @property
    def compiled(self) -> bool:
        return not self.library

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
    """An expression that does not hold.

    offset: characters from its start;  guess: the name probably meant;  fix: what to write;  reason: of a closed list
    """

    def __init__(
        self, message: str, offset: int = 0, guess: str = "", fix: str = "", *, reason: Refusal = "kind"
    ) -> None:
        super().__init__(message)
        self.message, self.offset, self.guess, self.fix = message, offset, guess, fix
        self.reason: Refusal = reason


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
    formula = variables == "formula"
    types = _numbers(metrics) if formula else dict(EVENT_FIELDS) | dict(data or {})
    wants = "number" if formula else wants
    try:
        tree = parse(text)
        paths = _paths(tree, types, variables)
        part, constants = translate.translate(tree, types, formula=formula)
    except Syntax as fault:
        reason: Refusal = "bound" if "at most" in fault.message or "too deep" in fault.message else "syntax"
        fix = _syntax_fix(text, types)
        raise ExpressionFault(fault.message, fault.offset, fix=fix, reason=reason) from None
    except Fault as fault:
        raise ExpressionFault(fault.message, fault.offset, fault.guess, fault.fix, reason=fault.reason) from None
    kind = _kind(text, part, wants)
    try:
        build = _formula if formula else _by_library if part.library else _rule
        evaluate = build(text, part, paths, types, constants, boolean=wants == "boolean")
    except Syntax as fault:
        reason = "bound" if "at most" in fault.message else "kind"
        raise ExpressionFault(fault.message, reason=reason) from None
    return Expression(
        text=text,
        canonical=part.text,
        paths=paths,
        kind=kind,
        nullable=part.nullable and wants != "boolean",
        whole=part.whole,
        library=part.library,
        evaluate=evaluate,
    )


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
            visit(node.over, bound)
            for child in node.inner:
                visit(child, bound | {node.name, node.result})
            return
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
        guess, fix = closest(name, types), _dash_fix(types)
        raise ExpressionFault(f"no metric is named {name!r}", start.at, guess, fix, reason="name")
    if names[0] in _TYPES:
        message = f"{names[0]!r} is a type; kinds are known from the contract"
        raise ExpressionFault(message, start.at, reason="dynamic")
    if names[0] not in ("data", "event") or len(names) == 1:
        guess = closest(f"data.{'.'.join(names)}", types) if names != ("data",) and names != ("event",) else ""
        message = f"a rule sees data.<field> and event.<field>, not {'.'.join(names)!r}"
        raise ExpressionFault(message, start.at, guess, reason="name")
    for length in range(len(names), 1, -1):
        path = ".".join(names[:length])
        known = types.get(path)
        if known is not None and (length == len(names) or known.kind in ("map", "mixed")):
            return path
    path = ".".join(names)
    where = "the contract" if names[0] == "data" else "the event"
    raise ExpressionFault(f"{where} has no field {path!r}", start.at, closest(path, types), reason="name")


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


def _kind(text: str, part: Part, wants: str) -> Literal["number", "string", "boolean"]:
    """What the value is, if it is what is wanted.  Of a field of several kinds only each event tells."""
    if part.kind == "mixed":
        return "boolean" if wants == "boolean" else "number" if wants == "number" else "string"
    if wants == "boolean" and part.kind != "boolean":
        raise ExpressionFault(f"a condition is true or false; {text!r} is {part.said}")
    if wants == "number" and part.kind != "number":
        raise ExpressionFault(f"a number was expected; {text!r} is {part.said}")
    if part.kind not in ("number", "string", "boolean"):
        raise ExpressionFault(f"a value is a number, text, true or false; this is {SAID[part.kind]}")
    return part.kind


Evaluate = Callable[[Mapping[str, Any], Mapping[str, Any]], Value]


def _rule(
    text: str,
    part: Part,
    paths: tuple[str, ...],
    types: Mapping[str, FieldType],
    constants: Mapping[str, object],
    *,
    boolean: bool,
) -> Evaluate:
    """The function of a rule's expression: generated source, from names and literals that were checked."""
    code = f"_boolean({part.code})" if boolean and part.nullable else part.code
    lines = [" s = [_steps]"] if "loop" in part.traits else []
    lines.append(" try:")
    if part.kind == "number" and part.computed:
        lines += [f"  v = {code}", f"  if v is None or {-DOUBLE_MAX!r} <= v <= {DOUBLE_MAX!r}: return v"]
        lines.append("  raise OverflowError")
    else:
        lines.append(f"  return {code}")
    scope: dict[str, object] = {"_failed": lambda error: _rule_error(text, error), "_steps": meanings.STEPS_MAX}
    if "unsure" in part.traits:
        scope["_library"] = _by_library(text, part, paths, types, constants, boolean=boolean)
        lines += [" except _Unsure:", "  pass"]
    else:
        by_library.check(part.text, paths, types)
    lines += [" except _failures as error:", "  raise _failed(error) from None"]
    if "unsure" in part.traits:
        lines.append(" return _library(d, e)")
    return _function("\n".join(["def evaluate(d, e):", *lines]), **scope, **constants)


def _by_library(
    text: str,
    part: Part,
    paths: tuple[str, ...],
    types: Mapping[str, FieldType],
    constants: Mapping[str, object],
    *,
    boolean: bool,
) -> Evaluate:
    """What is not compiled, or not for every value.  The library bounds nothing but steps."""
    if "joins_in_loop" in part.traits:
        why = part.library or "a conversion of text"
        message = f"+ of texts or lists stands in a loop beside {why}, which only the library evaluates, without bound"
        raise ExpressionFault(message, reason="bound")
    units_max = by_library.UNITS_MAX if part.traits & {"loop", "joins"} else 0
    if "searches_in_loop" in part.traits:
        units_max = by_library.SEARCHED_UNITS_MAX
    return by_library.evaluator(text, part.text, paths, types, boolean=boolean, units_max=units_max)


def _formula(
    text: str,
    part: Part,
    paths: tuple[str, ...],
    types: Mapping[str, FieldType],
    constants: Mapping[str, object],
    *,
    boolean: bool,
) -> Evaluate:
    """The function of a formula: raises ZeroDivisionError and OverflowError, which `Expression.value` answers."""
    by_library.check(part.text, paths, types)
    source = (
        f"def evaluate(d, e):\n v = {part.code}\n"
        f" if {-DOUBLE_MAX!r} <= v <= {DOUBLE_MAX!r}: return v\n raise OverflowError"
    )
    return _function(source, **constants)


def _function(source: str, **scope: object) -> Evaluate:
    names: dict[str, object] = {"_failures": _CAUGHT, "_Unsure": meanings.Unsure, **meanings.HELPERS, **scope}
    exec(compile(source, "<expression>", "exec"), names)
    return cast(Evaluate, names["evaluate"])


_CAUGHT: Final = (*meanings.FAILURES, meanings.TooMuch)


def _rule_error(text: str, error: Exception) -> RuleError:
    match error:
        case meanings.TooMuch():
            why = str(error)
        case TypeError() | AttributeError():
            why = "null stands where a value is needed"
        case OverflowError() | ValueError():
            why = "the number is not finite or too large"
        case ZeroDivisionError():
            why = "a division by zero"
        case IndexError():
            why = "a list has no such index"
        case _:
            why = "a field is missing"
    return RuleError(f"{text!r} has no value: {why}")


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
