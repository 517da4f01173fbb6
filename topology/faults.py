"""Faults: what pydantic says of a document's shape, as findings for people: place, what was expected, guess and fix.

pydantic's locations hold names of branches and of keys that are missing; here they become places in the file, one
finding a place, and of a union only what the branch that fits best has to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from milepost.schemas.errors import BundleError, Finding
from milepost.topology.document import Document, Path, parse, said
from milepost.topology.expressions import closest

NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
PATH: Final = r"^data(\.[A-Za-z_][A-Za-z0-9_]{0,127}){1,31}$"

Held = TypeVar("Held", bound=BaseModel)
Models = Mapping[tuple[str, ...], type[BaseModel]]
"""Where each model stands in a document (`*`: any name or place in a list), to name the keys that were expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a document may hold.

    whole:    what it is, for messages, as `a bundle`
    patterns: pattern -> what is expected, in words
    """

    whole: str
    models: Models
    patterns: Mapping[str, str]


def read_model(file: str, text: bytes, model: type[Held], shape: Shape) -> tuple[Held, Document]:
    """A YAML file as a model, and the document with its places.  Raises BundleError."""
    document = parsed(file, text)
    if document.faults:
        raise BundleError([finding for _, finding in document.faults])
    if not isinstance(document.value, dict):
        known = ", ".join(one.alias or name for name, one in model.model_fields.items())
        raise BundleError([document.finding((), f"a mapping of {known} was expected, {said(document.value)} came")])
    try:
        return model.model_validate(document.value), document
    except ValidationError as error:
        raise BundleError(list(placed(error, document, shape).values())) from None


def parsed(file: str, text: bytes) -> Document:
    """A YAML file with the faults of its form beside it.  Raises BundleError where it cannot be read on."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - (text.rfind(b"\n", 0, error.start) + 1) + 1
        raise BundleError([Finding(file=file, line=line, column=column, message="not UTF-8")]) from None
    return parse(file, decoded)


def placed(error: ValidationError, document: Document, shape: Shape) -> dict[Path, Finding]:
    """Path -> finding, for each fault of a document's shape."""
    found: dict[Path, Finding] = {}
    faults = [(_path(fault["loc"], document), fault) for fault in error.errors(include_url=False)]
    for path, fault in faults:
        in_key = "[key]" in fault["loc"]
        branch = isinstance(fault["input"], dict | list) and fault["type"] in ("literal_error", "string_type")
        if branch and any(len(other) > len(path) and other[: len(path)] == path for other, _ in faults):
            continue  # one branch of a union; the branch that fits better has its own, deeper finding
        found.setdefault(path, _finding(path, in_key, dict(fault), document, shape))
    return found


def _path(loc: tuple[str | int, ...], document: Document) -> Path:
    """The place in the document: pydantic also puts branches of unions and `[key]` into its locations."""
    path: Path = ()
    at = document.value
    for i, step in enumerate(loc):
        inside = (isinstance(at, dict) and step in at) or (isinstance(at, list) and isinstance(step, int))
        if inside:
            path = (*path, step)
            at = at[step]
        elif isinstance(at, dict) and i == len(loc) - 1 and isinstance(step, str):
            path = (*path, step)  # a key that is missing
    return path


def _finding(path: Path, in_key: bool, fault: dict[str, Any], document: Document, shape: Shape) -> Finding:
    name = str(path[-1]) if path else ""
    value = fault.get("input")
    above = path[:-1]
    match fault["type"]:
        case "extra_forbidden":
            known = _known(above, shape)
            message = f"{name!r} is no key of {_where(above, shape)}; known are {', '.join(known)}"
            return document.finding(path, message, guess=closest(name, known), key=True)
        case "missing":
            fix = f"add {name}: to {_where(above, shape)}"
            return document.finding(above, f"{name!r} is missing in {_where(above, shape)}", fix=fix, key=True)
        case "string_pattern_mismatch":
            expected = shape.patterns.get(str(fault["ctx"]["pattern"]), f"text like {fault['ctx']['pattern']}")
            fix = _name_fix(value) if fault["ctx"]["pattern"] == NAME else ""
            if fault["ctx"]["pattern"] == PATH and re.fullmatch(PATH, f"data.{value}"):
                fix = f"write data.{value}"
            return document.finding(path, f"{expected} was expected, {said(value)} came", fix=fix, key=in_key)
        case "value_error":
            return document.finding(path, str(fault["ctx"]["error"]), key=isinstance(value, dict))
        case "string_type":
            fix = f'write it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
            scalar = isinstance(value, bool | int | float)
            return document.finding(path, f"text was expected, {said(value)} came", fix=fix if scalar else "")
        case "literal_error":
            expected = str(fault["ctx"]["expected"])
            options = re.findall(r"'([^']*)'", expected)
            guess = closest(str(value), options)
            return document.finding(path, f"{expected} was expected, {said(value)} came", guess=guess)
        case "dict_type" | "model_type":
            return document.finding(path, f"a mapping was expected, {said(value)} came")
        case "list_type":
            fix = f"write it in brackets: [{value}]" if isinstance(value, str) else ""
            return document.finding(path, f"a list was expected, {said(value)} came", fix=fix)
        case "int_type" | "float_type":
            return document.finding(path, f"a whole number was expected, {said(value)} came")
        case "bool_type":
            return document.finding(path, f"true or false was expected, {said(value)} came")
        case "too_long":
            counts = fault["ctx"]
            message = f"at most {counts['max_length']} entries were expected, {counts['actual_length']} came"
            return document.finding(path, message)
        case "too_short":
            return document.finding(path, "at least one entry was expected, none came")
        case _:
            return document.finding(path, f"{fault['msg'][:1].lower()}{fault['msg'][1:]}, {said(value)} came")


def _known(path: Path, shape: Shape) -> list[str]:
    """The keys that are known at a path."""
    for pattern, model in shape.models.items():
        if len(pattern) == len(path) and all(part in ("*", step) for part, step in zip(pattern, path, strict=True)):
            return [one.alias or name for name, one in model.model_fields.items()]
    return []


def _where(path: Path, shape: Shape) -> str:
    return ".".join(map(str, path)) if path else shape.whole


def _name_fix(value: object) -> str:
    if not isinstance(value, str):
        return ""
    plain = re.sub(r"[^a-z0-9_-]+", "_", value.lower()).strip("_-")
    return f"write {plain}" if re.fullmatch(NAME, plain) and plain != value else ""
