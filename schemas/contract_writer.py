"""Contract writer: an Avro schema as the source of a Python function that checks and coerces JSON data.

One function for each record, list, map and mixed union, called from the one above; scalars are checked in line, because
a call costs more than the check.  Only the templates of this module, names that match a pattern, and reprs of text and
numbers enter the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn, cast

from milepost.schemas.errors import ContractError
from milepost.schemas.field_types import FieldType, SchemaFault, or_null

Check = Callable[[dict[str, Any]], dict[str, Any]]

FIELDS_MAX: Final = 1000
DEPTH_MAX: Final = 32
DOC_MAX: Final = 500
"""Letters of a `doc` that are kept."""
_DOUBLE_MAX: Final = 1.7976931348623157e308
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A schema node, understood.

    check:     source lines that bring the variable `v` (a placeholder) into its kind, or raise; `{v}` and `{at}` are
               filled in
    call:      the name of the function that checks it, for nodes that have one
    canonical: JSON of what matters
    branch:    the JSON kinds it takes: what a union is told apart by
    """

    type: FieldType
    condition: str = ""
    convert: str = ""
    call: str = ""
    canonical: object
    branch: frozenset[str]


_PRIMITIVES: Final[Mapping[str, Known]] = {
    "null": Known(type=FieldType(kind="null", nullable=True), canonical="null", branch=frozenset({"null"})),
    "boolean": Known(
        type=FieldType(kind="boolean"),
        condition="type({v}) is not bool",
        convert="_refuse({at}, 'a boolean', {v})",
        canonical="boolean",
        branch=frozenset({"boolean"}),
    ),
    "int": Known(
        type=FieldType(kind="number", whole=True),
        condition="type({v}) is not int or not -2147483648 <= {v} <= 2147483647",
        convert="_whole({v}, {at}, 31)",
        canonical="int",
        branch=frozenset({"whole"}),
    ),
    "long": Known(
        type=FieldType(kind="number", whole=True),
        condition="type({v}) is not int or not -9223372036854775808 <= {v} <= 9223372036854775807",
        convert="_whole({v}, {at}, 63)",
        canonical="long",
        branch=frozenset({"whole"}),
    ),
    "float": Known(
        type=FieldType(kind="number"),
        condition="type({v}) is not float or not -3.4028234663852886e38 <= {v} <= 3.4028234663852886e38",
        convert="_double({v}, {at}, 3.4028234663852886e38)",
        canonical="float",
        branch=frozenset({"number"}),
    ),
    "double": Known(
        type=FieldType(kind="number"),
        condition=f"type({{v}}) is not float or not -{_DOUBLE_MAX!r} <= {{v}} <= {_DOUBLE_MAX!r}",
        convert=f"_double({{v}}, {{at}}, {_DOUBLE_MAX!r})",
        canonical="double",
        branch=frozenset({"number"}),
    ),
    "string": Known(
        type=FieldType(kind="string"),
        condition="type({v}) is not str",
        convert="_refuse({at}, 'text', {v})",
        canonical="string",
        branch=frozenset({"text"}),
    ),
}


class Writer:
    """Reads a schema and writes the source of its check, one function a record, list, map or mixed union."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Known] = {}
        self.open: set[str] = set()
        self.scope: dict[str, object] = {
            "_refuse": _refuse,
            "_double": _double,
            "_whole": _whole,
            "_absent": _absent,
        }
        self.fields = 0

    def build(self, call: str) -> Check:
        exec(compile("\n".join(self.lines), "<contract>", "exec"), self.scope)
        checked = cast(Callable[[object, str], object], self.scope[call])
        self.scope["_top"] = checked
        exec(compile("def _check(data):\n return _top(data, 'data')", "<contract>", "exec"), self.scope)
        return cast(Check, self.scope["_check"])

    def type_of(self, schema: object, path: tuple[str | int, ...], namespace: str = "") -> Known:
        if len(path) > 4 * DEPTH_MAX:
            raise SchemaFault(f"nested deeper than {DEPTH_MAX}", path[:8])
        if isinstance(schema, str):
            return self._named(schema, path, namespace)
        if isinstance(schema, list):
            return self._union(schema, path, namespace)
        if not isinstance(schema, dict) or "type" not in schema:
            raise SchemaFault(f"an Avro type was expected, {said(schema)} came", path)
        match schema["type"]:
            case "record":
                return self._record(schema, path, namespace)
            case "enum":
                return self._enum(schema, path, namespace)
            case "array":
                return self._many("list", "items", schema, path, namespace)
            case "map":
                return self._many("map", "values", schema, path, namespace)
            case "bytes" | "fixed":
                raise SchemaFault("JSON data holds no bytes: declare a string", (*path, "type"))
            case inner:
                return self._logical(schema, inner, path, namespace)

    def _named(self, name: str, path: tuple[str | int, ...], namespace: str) -> Known:
        if name in _PRIMITIVES:
            return _PRIMITIVES[name]
        if name in ("bytes", "fixed"):
            raise SchemaFault("JSON data holds no bytes: declare a string", path)
        for full in (name, f"{namespace}.{name}"):
            if full in self.open:
                raise SchemaFault(f"the type {name!r} holds itself: a contract is finite", path)
            if full in self.names:
                return self.names[full]
        raise SchemaFault(f"{name!r} is no Avro type and no type declared before this place", path)

    def _logical(self, schema: Mapping[str, object], inner: object, path: tuple[str | int, ...], space: str) -> Known:
        known = self.type_of(inner, (*path, "type"), space)
        logical = schema.get("logicalType")
        if logical is None:
            return known
        return Known(
            type=known.type,
            condition=known.condition,
            convert=known.convert,
            call=known.call,
            canonical={"type": known.canonical, "logicalType": logical},
            branch=known.branch,
        )

    def _declare(self, schema: Mapping[str, object], path: tuple[str | int, ...], namespace: str) -> tuple[str, str]:
        name = schema.get("name")
        if not isinstance(name, str) or not all(_NAME.fullmatch(part) for part in name.split(".")):
            raise SchemaFault(f"a name of letters, digits and _ was expected, {said(name)} came", (*path, "name"))
        space = schema.get("namespace", namespace)
        if not isinstance(space, str):
            raise SchemaFault("a namespace is text", (*path, "namespace"))
        full = name if "." in name or not space else f"{space}.{name}"
        if full in self.names or full in self.open:
            raise SchemaFault(f"the type {full!r} is declared twice", (*path, "name"))
        return full, full.rpartition(".")[0]

    def _record(self, schema: Mapping[str, object], path: tuple[str | int, ...], namespace: str) -> Known:
        full, space = self._declare(schema, path, namespace)
        self.open.add(full)
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaFault("a record lists its fields", (*path, "fields"))
        types: dict[str, FieldType] = {}
        canonical: list[object] = []
        body: list[str] = []
        # Written last, so that the functions of inner types stand before it.
        for i, one in enumerate(fields):
            here = (*path, "fields", i)
            if not isinstance(one, dict) or "type" not in one:
                raise SchemaFault("a field has a name and a type", here)
            name = one.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise SchemaFault(f"a field's name of letters, digits and _ was expected, {said(name)} came", here)
            if name in types:
                raise SchemaFault(f"the field {name!r} is declared twice", (*here, "name"))
            self.fields += 1
            if self.fields > FIELDS_MAX:
                raise SchemaFault(f"a contract has at most {FIELDS_MAX} fields", here)
            known = self.type_of(one["type"], (*here, "type"), space)
            types[name] = replace(known.type, doc=_doc(one)) if "doc" in one else known.type
            default = self._default(known, one, here)
            body += _field_lines(i, name, known, default)
            about: dict[str, object] = {"name": name, "type": known.canonical}
            canonical.append(about | {"default": one["default"]} if "default" in one else about)
        self.open.discard(full)
        call = f"_record_{len(self.names)}"
        pairs = ", ".join(f"{name!r}: v{i}" for i, name in enumerate(types))
        self.lines += [
            f"def {call}(data, at):",
            " if type(data) is not dict: _refuse(at, 'an object', data)",
            " get = data.get",
            *body,
            f" return {{{pairs}}}",
        ]
        self.names[full] = Known(
            type=FieldType(kind="record", fields=types, doc=_doc(schema)),
            condition="True",
            convert=f"{call}({{v}}, {{at}})",
            call=call,
            canonical={"type": "record", "name": full, "fields": canonical},
            branch=frozenset({"object"}),
        )
        return self.names[full]

    def _default(self, known: Known, one: Mapping[str, object], path: tuple[str | int, ...]) -> str:
        """The source of a field's default: `None` where there is none."""
        if "default" not in one:
            return "None"
        value = one["default"]
        if value is None:
            if not known.type.nullable:
                raise SchemaFault("the default is null, the type is not", (*path, "default"))
            return "None"
        if isinstance(value, list | dict):
            name = f"_default_{len(self.scope)}"
            self.scope[name] = value
            return name
        return repr(value)

    def _enum(self, schema: Mapping[str, object], path: tuple[str | int, ...], namespace: str) -> Known:
        full, _ = self._declare(schema, path, namespace)
        symbols = schema.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(one, str) for one in symbols):
            raise SchemaFault("an enum lists its symbols", (*path, "symbols"))
        if len(symbols) > FIELDS_MAX:
            raise SchemaFault(f"an enum has at most {FIELDS_MAX} symbols", (*path, "symbols"))
        name = f"_symbols_{len(self.names)}"
        self.scope[name] = frozenset(symbols)
        self.names[full] = Known(
            type=FieldType(kind="string"),
            condition=f"type({{v}}) is not str or {{v}} not in {name}",
            convert=f"_refuse({{at}}, {_one_of(symbols)!r}, {{v}})",
            canonical={"type": "enum", "name": full, "symbols": symbols},
            branch=frozenset({"text"}),
        )
        return self.names[full]

    def _many(
        self,
        kind: Literal["list", "map"],
        key: str,
        schema: Mapping[str, object],
        path: tuple[str | int, ...],
        space: str,
    ) -> Known:
        if key not in schema:
            raise SchemaFault(f"an Avro {schema.get('type', kind)} says its {key}", path)
        of = self.type_of(schema[key], (*path, key), space)
        call = f"_{kind}_{len(self.lines)}"
        at = "at + '[]'"
        one = _value_lines("v", of, at, "  ")
        if kind == "list":
            head = [" if type(data) is not list: _refuse(at, 'a list', data)", " out = []", " for v in data:"]
            tail = ["  out.append(v)", " return out"]
        else:
            head = [" if type(data) is not dict: _refuse(at, 'an object', data)", " out = {}"]
            head += [" for k in sorted(data):", "  v = data[k]"]  # sorted: equal maps give equal dicts
            tail = ["  out[k] = v", " return out"]
        self.lines += [f"def {call}(data, at):", *head, *one, *tail]
        return Known(
            type=FieldType(kind=kind, of=of.type),
            condition="True",
            convert=f"{call}({{v}}, {{at}})",
            call=call,
            canonical={"type": "array" if kind == "list" else "map", key: of.canonical},
            branch=frozenset({"list" if kind == "list" else "object"}),
        )

    def _union(self, branches: list[object], path: tuple[str | int, ...], space: str) -> Known:
        if not branches:
            raise SchemaFault("a union has at least one branch", path)
        known = [self.type_of(one, (*path, i), space) for i, one in enumerate(branches)]
        some = [one for one in known if one.type.kind != "null"]
        seen: set[str] = set()
        for i, one in enumerate(known):
            if isinstance(branches[i], list):
                raise SchemaFault("a union does not hold a union", (*path, i))
            if seen & one.branch:
                raise SchemaFault("JSON cannot tell two branches of this union apart", (*path, i))
            seen |= one.branch
        canonical = [one.canonical for one in known]
        if not some:
            return _PRIMITIVES["null"]
        if len(some) == 1:
            only = some[0]
            nullable = len(known) > 1
            return Known(
                type=or_null(only.type) if nullable else only.type,
                condition=only.condition,
                convert=only.convert,
                call=only.call,
                canonical=canonical,
                branch=only.branch | ({"null"} if nullable else set()),
            )
        call = f"_mixed_{len(self.lines)}"
        tests = {
            "boolean": "type(data) is bool",
            "whole": "type(data) is int or type(data) is float and data.is_integer()",
            "number": "type(data) is float or type(data) is int",
            "text": "type(data) is str",
            "object": "type(data) is dict",
            "list": "type(data) is list",
        }
        body = []
        for branch, test in tests.items():
            for one in some:
                if branch in one.branch:
                    body += [f" if {test}:", *_value_lines("data", one, "at", "  "), "  return data"]
        self.lines += [f"def {call}(data, at):", *body, " _refuse(at, 'one of the declared types', data)"]
        return Known(
            type=FieldType(kind="mixed", nullable=len(some) < len(known)),
            condition="True",
            convert=f"{call}({{v}}, {{at}})",
            call=call,
            canonical=canonical,
            branch=frozenset(seen),
        )


def _doc(schema: Mapping[str, object]) -> str:
    """What a schema says about itself, in one line."""
    doc = schema.get("doc", "")
    return " ".join(doc.split())[:DOC_MAX] if isinstance(doc, str) else ""


def _field_lines(i: int, name: str, known: Known, default: str) -> list[str]:
    v = f"v{i}"
    get = f" {v} = get({name!r})" if default == "None" else f" {v} = get({name!r}, {default})"
    return [get, *_value_lines(v, known, f"at + {'.' + name!r}", " ")]


def _value_lines(v: str, known: Known, at: str, indent: str) -> list[str]:
    """Source that brings variable `v` into the node's kind; nothing for a value that may be anything it is."""
    if known.type.kind == "null":
        return [f"{indent}if {v} is not None: _refuse({at}, 'null', {v})"]
    condition, convert = known.condition.format(v=v), known.convert.format(v=v, at=at)
    act = convert if convert.startswith("_refuse") else f"{v} = {convert}"
    if known.type.nullable:
        condition = f"{v} is not None" if condition == "True" else f"{v} is not None and ({condition})"
    elif condition == "True":
        return [f"{indent}if {v} is None: _absent({at})", f"{indent}{act}"]
    return [f"{indent}if {condition}: {act}"]


def _refuse(at: str, expected: str, value: object) -> NoReturn:
    raise ContractError("contract_violation", f"{at}: {expected} was expected, {said(value)} came")


def _absent(at: str) -> NoReturn:
    raise ContractError("contract_violation", f"{at}: a value was expected, nothing or null came")


def _double(value: object, at: str, limit: float) -> float:
    if type(value) is int:
        try:
            double = float(value)
        except OverflowError:
            double = float("inf")
        if double == value and -limit <= double <= limit:
            return double
        raise ContractError("contract_violation", f"{at}: a whole number came that no double holds exactly")
    _refuse(at, "a number", value)


def _whole(value: object, at: str, bits: int) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int:
        if -(1 << bits) <= value < 1 << bits:
            return value
        raise ContractError("contract_violation", f"{at}: {bits + 1} bits hold a whole number here, a larger came")
    _refuse(at, "a whole number", value)


def said(value: object) -> str:
    """What a value is, without saying the value."""
    match value:
        case None:
            return "nothing or null"
        case bool():
            return "a boolean"
        case int():
            return "a whole number"
        case float():
            return "a number" if -_DOUBLE_MAX <= value <= _DOUBLE_MAX else "a number that is not finite or too large"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def _one_of(symbols: list[str]) -> str:
    shown = ", ".join(symbols[:8])
    return f"one of {shown}{', …' if len(symbols) > 8 else ''}".replace("{", "{{").replace("}", "}}")
