"""Mapping: what a repair does to an event, as data.

    steps:
      - {rename: data.carier, to: carrier}               # within the same object
      - {move: data.flight.carrier, to: data.carrier}
      - {set: data.origin, value: JFK}                   # the same for all
      - {set: data.delay, cel: "double(data.delay_s) / 60.0"}
      - {cast: data.delay, as: number}                   # text, number, integer, boolean, unix, unix_ms
      - {delete: data.debug}

A path is `data.…`, `event.time` or `event.type`; rename, move and delete may also take anything else of the envelope
(`event.timestamp`) away.  Organisation, source, id, revision and repair are what the event is called by: they stay.
Without steps an event is sent again as it is, under the definitions in force now.

What a step takes and finds nothing of leaves the event alone; a target that is there already is never overwritten but
by `set`.  A step that has no value for an event fails for that event (`Unfit`), and names no value of it.

No step reads anything but its event.  Bounds: 50 steps, 64 KiB of text, those of expressions (`expressions.py`), of
which every field is read as one of several kinds, because a broken event keeps no contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from milepost.schemas.contracts import FieldType
from milepost.schemas.errors import BundleError, Finding, RuleError
from milepost.topology.cel import Comprehension, Node, Syntax, children, dotted, parse
from milepost.topology.definitions import version
from milepost.topology.document import Document, Findings
from milepost.topology.document import Path as Where
from milepost.topology.expressions import Expression, ExpressionFault, closest, compile_expression
from milepost.topology.faults import PATH, Shape, read_model

FILE: Final = "mapping"
BYTES_MAX: Final = 64 * 1024
STEPS_MAX: Final = 50
DEPTH_MAX: Final = 31
VERBS: Final = ("rename", "move", "set", "cast", "delete")
STAYS: Final = frozenset({"org", "source", "id", "revision", "repair", "void"})
_SETTABLE: Final = ("event.time", "event.type")
_TAKEN: Final = re.compile(r"^(data|event)(\.[^.\x00-\x1f]{1,128}){1,31}$")
_TARGET: Final = re.compile(PATH)
_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_MANY: Final = FieldType(kind="mixed", nullable=True)
_FLAGS: Final = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
_EPOCH_MS_MAX: Final = 253_402_300_799_999

Names = tuple[str, ...]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Kind = Literal["text", "number", "integer", "boolean", "unix", "unix_ms"]


class Unfit(ValueError):
    """A step has no value for an event.  `said` holds no values of it."""

    def __init__(self, step: int, said: str) -> None:
        super().__init__(step, said)
        self.step, self.said = step, said


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


class StepText(_Model):
    rename: Text | None = None
    move: Text | None = None
    set: Text | None = None
    cast: Text | None = None
    delete: Text | None = None
    to: Text | None = None
    value: Any = None
    cel: Text | None = None
    kind: Kind | None = Field(None, alias="as")


class MappingText(_Model):
    steps: Annotated[list[StepText], Field(max_length=STEPS_MAX)] = []


SHAPE: Final = Shape(whole="a mapping", models={(): MappingText, ("steps", "*"): StepText}, patterns={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step, ready.  at: what it takes or sets;  to: where it goes;  reads: the paths that it looks at"""

    verb: str
    at: Names
    to: Names = ()
    value: Any = None
    expression: Expression | None = None
    kind: Kind | None = None
    reads: tuple[Names, ...] = ()

    @property
    def target(self) -> Names:
        """What it gives a value; () when it gives none."""
        return self.at if self.verb in ("set", "cast") else self.to


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMapping:
    """A mapping that holds.  canonical: its one spelling, JSON;  id: hash of that"""

    steps: tuple[Step, ...]
    canonical: str
    document: Document

    @property
    def id(self) -> bytes:
        return version(self.canonical)

    def apply(self, event: dict[str, Any]) -> int:
        """Change an event `{"event": envelope, "data": …}` in its place; the steps that changed it, as bits.

        Raises Unfit."""
        touched = 0
        for number, step in enumerate(self.steps):
            if _VERBS[step.verb](number, step, event):
                touched |= 1 << number
        return touched

    def idle(self, touched: int, seen: Iterable[Names]) -> list[Finding]:
        """A finding for each step that changed none of a problem's events, with what was probably meant.

        seen: paths that the events have"""
        known = {".".join(one) for one in seen}
        found = Findings(self.document)
        for number, step in enumerate(self.steps):
            if touched >> number & 1 or step.verb == "set":
                continue
            path = ".".join(step.at)
            if step.verb == "cast" and path in known:
                continue  # all of them are what they are to be
            guess = closest(path, known - {path})
            found.add(("steps", number, step.verb), f"no event of the problem has {path}", guess=guess)
        return found.found


def read_mapping(text: bytes | str | Mapping[str, Any], fields: Mapping[str, FieldType] | None = None) -> EventMapping:
    """The mapping that a text (YAML or JSON) or plain data is.  Raises BundleError with every finding.

    fields: of `data` under the contract that the events shall keep; None: not known
    """
    if isinstance(text, Mapping):
        text = orjson.dumps(text, option=orjson.OPT_INDENT_2)
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    if len(raw) > BYTES_MAX:
        said = f"a mapping has at most {BYTES_MAX} bytes, {len(raw)} came"
        raise BundleError([Finding(file=FILE, line=1, column=1, message=said)])
    held, document = read_model(FILE, raw or b"{}", MappingText, SHAPE)
    findings = Findings(document)
    steps = [_step(number, one, findings) for number, one in enumerate(held.steps)]
    if not findings.found and fields is not None:
        _check_targets([one for one in steps if one is not None], fields, findings)
    if findings.found:
        raise BundleError(findings.found)
    plain = held.model_dump(by_alias=True, exclude_unset=True)
    canonical = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()
    return EventMapping(steps=tuple(one for one in steps if one is not None), canonical=canonical, document=document)


def paths_in(event: Mapping[str, Any], max: int = 1000) -> set[Names]:
    """The paths of the objects of an event, at most `max` of them, three levels of names deep."""
    found: set[Names] = set()
    todo: list[tuple[Names, Any]] = [((name,), event.get(name)) for name in ("data", "event")]
    while todo and len(found) < max:
        path, value = todo.pop()
        if isinstance(value, dict) and len(path) <= 3:
            for name, inner in value.items():
                found.add((*path, name))
                todo.append(((*path, name), inner))
    return found


# -- reading


def _step(number: int, text: StepText, findings: Findings) -> Step | None:
    """A step of one verb with what that verb takes."""
    here: Where = ("steps", number)
    given = text.model_fields_set
    verbs = [verb for verb in VERBS if verb in given]
    if len(verbs) != 1:
        came = " and ".join(verbs) or "none"
        findings.add(here, f"a step does one thing: one of {', '.join(VERBS)} was expected, {came} came")
        return None
    (verb,) = verbs
    takes = {"rename": {"to"}, "move": {"to"}, "set": {"value", "cel"}, "cast": {"kind"}, "delete": set[str]()}[verb]
    known = len(findings.found)
    for name in sorted(given - takes - {verb}):
        spelled = "as" if name == "kind" else name
        expected = ", ".join(sorted("as" if one == "kind" else one for one in takes)) or "nothing else"
        findings.add((*here, spelled), f"{verb} takes no {spelled}; it takes {expected}", key=True)
    if verb == "set" and len(given & takes) != 1:
        findings.add(here, "set takes a value or a cel expression, one of them", fix="add value: … or cel: …")
    elif verb != "set" and takes - given:
        missing = {"kind": "as"}.get(next(iter(takes)), "to")
        findings.add(here, f"{missing!r} is missing: {_WANTS[verb]}", fix=f"add {missing}: …")
    path = str(getattr(text, verb))
    at = _names((*here, verb), path, findings, target=verb in ("set", "cast"))
    to = _goal(here, verb, at, text.to, findings) if verb in ("rename", "move") and text.to is not None else ()
    expression: Expression | None = None
    reads: tuple[Names, ...] = () if verb == "set" else (at,)
    if text.cel is not None and verb == "set":
        expression, names = _expression((*here, "cel"), text.cel, findings)
        reads = tuple(("data", name) for name in names)
    if verb == "set" and "value" in given and not _plain_json(text.value):
        findings.add((*here, "value"), "a value is JSON: text, a number, true, false, null, a list or an object")
    if len(findings.found) > known:
        return None
    return Step(verb=verb, at=at, to=to, value=text.value, expression=expression, kind=text.kind, reads=reads)


_WANTS: Final = {
    "rename": "the new name, as carrier",
    "move": "where it goes, as data.carrier",
    "cast": "text, number, integer, boolean, unix or unix_ms",
}


def _names(where: Where, path: str, findings: Findings, *, target: bool) -> Names:
    """The names of a path, if it may be taken (or set)."""
    names = tuple(path.split("."))
    first, *below = names
    if first == "event" and below and below[0] in STAYS:
        said = f"{path} is what the event is called by: it stays, so that its repair counts in its place"
        findings.add(where, said, fix="data.…, event.time or event.type")
    elif target and (_TARGET.match(path) or path in _SETTABLE):
        return names
    elif not target and _TAKEN.match(path):
        if path == "event.data":
            findings.add(where, "the data of an event is data, not event.data", fix="data.…")
        return names
    else:
        guess = closest(path, _SETTABLE) if first != "data" else ""
        fix = f"write data.{path}" if _TARGET.match(f"data.{path}") and first not in ("data", "event") else ""
        if first != "data" and below and closest(first, ("data", "event")):
            guess, fix = ".".join((closest(first, ("data", "event")), *below)), ""
        said = f"a path begins with data. or is {' or '.join(_SETTABLE)}; {path[:64]!r} came"
        findings.add(where, said, guess=guess, fix=fix)
    return names


def _goal(here: Where, verb: str, at: Names, text: str, findings: Findings) -> Names:
    """Where a rename or move puts what it takes."""
    if verb == "rename":
        if "." in text:
            said = f"rename takes a name within the same object, not {text[:64]!r}"
            findings.add((*here, "to"), said, fix=f"{{move: {'.'.join(at)}, to: {text[:64]}}}")
            return ()
        text = ".".join((*at[:-1], text))
    to = _names((*here, "to"), text, findings, target=True)
    if to == at:
        findings.add((*here, "to"), "it is there already", fix="leave the step out")
    if to[: len(at)] == at and to != at:
        findings.add((*here, "to"), f"{'.'.join(at)} cannot go below itself")
    return to


def _expression(where: Where, text: str, findings: Findings) -> tuple[Expression | None, list[str]]:
    """A CEL expression over the event as it is: each field one of several kinds."""
    try:
        names = sorted(_read_of(parse(text)))
    except Syntax:
        names = []  # the compiler says the same, with a fix
    types = {f"data.{name}": _MANY for name in names}
    try:
        return compile_expression(text, "rule", data=types), names
    except ExpressionFault as fault:
        findings.add(where, fault.message, guess=fault.guess, fix=fault.fix, offset=fault.offset)
        return None, names


def _read_of(tree: Node) -> set[str]:
    """The fields of data that an expression reads: the first names below `data`."""
    names = dotted(tree)
    if names is not None:
        return {names[1]} if names[0] == "data" and len(names) > 1 else set()
    if isinstance(tree, Comprehension):
        found = _read_of(tree.over)
        for child in tree.inner:
            found |= _read_of(child)
        return found
    return set[str]().union(*(_read_of(child) for child in children(tree)))


def _check_targets(steps: Sequence[Step], fields: Mapping[str, FieldType], findings: Findings) -> None:
    """What the contract does not know has no effect, unless a later step takes it from there."""
    for number, step in enumerate(steps):
        if step.target[:1] != ("data",):
            continue
        name = step.target[1]
        if name in fields or any(name in read[1:2] for later in steps[number + 1 :] for read in later.reads):
            continue
        path = f"data.{name}"
        guess = closest(path, [f"data.{one}" for one in fields])
        key = "to" if step.verb in ("rename", "move") else step.verb
        said = f"the contract has no field {path}: the event would be no better for it"
        findings.add(("steps", number, key), said, guess=guess)


def _plain_json(value: Any) -> bool:
    try:
        return len(orjson.dumps(value)) <= BYTES_MAX
    except TypeError:
        return False


# -- applying


def _found(event: dict[str, Any], path: Names) -> tuple[dict[str, Any], bool]:
    """The object that a path's last name stands in, and whether it is there."""
    at: Any = event
    for name in path[:-1]:
        at = at.get(name)
        if type(at) is not dict:
            return {}, False
    return at, path[-1] in at


def _put(number: int, event: dict[str, Any], path: Names, value: Any, *, over: bool) -> None:
    at: Any = event
    for name in path[:-1]:
        at = at.setdefault(name, {})
        if type(at) is not dict:
            raise Unfit(number, f"{'.'.join(path)} lies below something that is no object")
    if not over and path[-1] in at:
        raise Unfit(number, f"{'.'.join(path)} is there already; delete one of the two first")
    at[path[-1]] = value


def _move(number: int, step: Step, event: dict[str, Any]) -> bool:
    at, there = _found(event, step.at)
    if there:
        _put(number, event, step.to, at[step.at[-1]], over=False)
        del at[step.at[-1]]
    return there


def _set(number: int, step: Step, event: dict[str, Any]) -> bool:
    value = step.value
    if step.expression is not None:
        envelope = {name: str(event["event"].get(name, "")) for name in ("type", "time", "source", "org")}
        try:
            value = step.expression.evaluate(_Open(event["data"]), envelope)
        except RuleError as error:
            raise Unfit(number, error.detail) from None
    elif isinstance(value, dict | list):
        value = msgspec.json.decode(msgspec.json.encode(value))  # no two events share one
    _put(number, event, step.at, value, over=True)
    return True


def _delete(number: int, step: Step, event: dict[str, Any]) -> bool:
    at, there = _found(event, step.at)
    if there:
        del at[step.at[-1]]
    return there


def _cast(number: int, step: Step, event: dict[str, Any]) -> bool:
    at, there = _found(event, step.at)
    if not there or (old := at[step.at[-1]]) is None:
        return False
    assert step.kind is not None
    try:
        value = _CASTS[step.kind](old)
    except (ValueError, OverflowError):
        raise Unfit(number, f"{'.'.join(step.at)} cannot be made {_SAID[step.kind]}") from None
    at[step.at[-1]] = value
    return type(value) is not type(old) or value != old


class _Open(dict[str, Any]):
    """What is not there is null."""

    def __missing__(self, name: str) -> None:
        return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise ValueError("an object or a list")


def _number(value: Any) -> int | float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        text = value.strip()
        whole = text.lstrip("-").isdigit()
        made: int | float = int(text) if whole else float(text)
        if not whole and not -1.7976931348623157e308 <= made <= 1.7976931348623157e308:
            raise ValueError("too large")
        return made
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError("no number")


def _integer(value: Any) -> int:
    made = _number(value)
    if isinstance(made, float) and not made.is_integer():
        raise ValueError("it has decimals")
    return int(made)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError("neither")


def _instant(factor: int) -> Callable[[Any], str]:
    def made(value: Any) -> str:
        ms = round(_number(value) * factor)
        if not 0 <= ms <= _EPOCH_MS_MAX:
            raise ValueError("out of range")
        moment = datetime.fromtimestamp(ms // 1000, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"

    return made


_CASTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": _text, "number": _number, "integer": _integer, "boolean": _boolean, "unix": _instant(1000),
    "unix_ms": _instant(1),
}  # fmt: skip
_SAID: Final = {
    "text": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
    "unix": "a time: seconds since 1970 were expected", "unix_ms": "a time: milliseconds since 1970 were expected",
}  # fmt: skip
_VERBS: Final[Mapping[str, Callable[[int, Step, dict[str, Any]], bool]]] = {
    "rename": _move, "move": _move, "set": _set, "cast": _cast, "delete": _delete,
}  # fmt: skip
