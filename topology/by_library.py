"""By library: CEL's own implementation, for what is not compiled, and as the last word of the type checker.

    canonical text -> environment (each path a variable) -> checked -> program -> value, or RuleError

The library bounds loops (10,000 steps) and nothing else, so what is handed to it is bounded here: where an expression
has a loop or joins texts, its values hold few characters and elements together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, cast

from cel_expr_python import cel

from milepost.schemas.errors import RuleError
from milepost.schemas.field_types import FieldType
from milepost.topology.cel import Syntax, as_syntax

Value = bool | float | str | None

DOUBLE_MAX: Final = 1.7976931348623157e308
UNITS_MAX: Final = 10_000
"""Characters and elements that an expression with a loop or a + of texts is evaluated over by the library, at most."""
SEARCHED_UNITS_MAX: Final = 1_000
"""The same where the loop searches for each element: the library goes through all of a list, reads a pattern anew."""


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


def evaluator(
    text: str,
    canonical: str,
    paths: tuple[str, ...],
    types: Mapping[str, FieldType],
    *,
    boolean: bool,
    units_max: int,
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Value]:
    """The function of a rule's expression, evaluated by the library.  Raises Syntax when its checker refuses it.

    boolean: the value must be true or false;  units_max: of its values, 0 for no bound
    """
    try:
        checked = library_environment(paths, types, checked=True).compile(canonical)
        program = library_environment(paths, types, checked=False).deserialize(checked.serialize())
    except RuntimeError as error:
        raise as_syntax(error, canonical) from None

    def evaluate(data: Mapping[str, Any], event: Mapping[str, Any]) -> Value:
        values = library_values(paths, data, event)
        if units_max and sum(map(_units, values.values())) > units_max:
            message = f"it goes through more than {units_max} characters and elements"
            raise RuleError(f"{text!r} has no value: {message}")
        try:
            result = program.eval(data=values)
        except (RuntimeError, ValueError) as error:  # its own bound, or a text that is no Unicode
            why = "its loops take too many steps" if "udget" in str(error) else "a value is not what CEL knows"
            raise RuleError(f"{text!r} has no value: {why}") from None
        kind = result.type().name()
        if kind == "ERROR":
            # Behind the colon stands what was not found, which may be personal.
            raise RuleError(f"{text!r} has no value: {str(result.value()).partition(':')[0].lower()}")
        value = plain(result)
        if boolean and kind != "BOOL":
            raise RuleError(f"{text!r} is neither true nor false")
        if kind in ("BOOL", "STRING", "NULL"):
            return cast(Value, value)
        if kind == "DOUBLE" and -DOUBLE_MAX <= cast(float, value) <= DOUBLE_MAX:
            return cast(Value, value)
        raise RuleError(f"{text!r} is no finite number, text, true or false")

    return evaluate


def plain(result: cel.Value) -> object:
    """A result as a Python value.

    The library (0.1.3) gives up a reference to None with each null that it hands out, which ends the process after some
    thousands of them (before Python 3.12): nulls are not asked for.
    """
    return None if result.type().name() == "NULL" else result.plain_value()


def has_value(constant: str) -> bool:
    """Whether an expression without variables has a value: a pattern that is RE2, a time that is one."""
    try:
        return str(_plain().compile(constant).eval(data={}).type().name()) != "ERROR"
    except RuntimeError:
        return False


def check(canonical: str, paths: tuple[str, ...], types: Mapping[str, FieldType]) -> None:
    """The library's type checker has the last word.  Raises Syntax."""
    try:
        library_environment(paths, types, checked=True).compile(canonical)
    except RuntimeError as error:
        raise as_syntax(error, canonical) from None


@cache
def _plain() -> cel.Env:
    return cel.NewEnv()


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


def _units(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_units, value), len(value))
        case dict():
            return sum(map(_units, value.values()), sum(map(len, value)) + len(value))
    return 1


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
    "DOUBLE_MAX",
    "UNITS_MAX",
    "Syntax",
    "Value",
    "check",
    "evaluator",
    "has_value",
    "library_environment",
    "plain",
]
__all__ += ["library_values"]
