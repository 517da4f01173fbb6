"""Bundles: what may be written in `milepost.yaml`, and its reading into checked, plain models.

The models know shapes: keys, kinds, names, bounds.  What names refer to is the matter of `catalog.py`.  Every fault is
a Finding with line, column, a guess and a fix; all faults are found, not only the first.

`records`, `milestones`, `plans` and `reactions` are read here and carried by the catalog as data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from milepost.schemas.errors import BundleError, Finding
from milepost.topology.document import Document, Path, read, said
from milepost.topology.expressions import closest

MAIN: Final = "milepost.yaml"
BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 1000
DIMENSIONS_MAX: Final = 8
_UNITS_MS: Final[Mapping[str, int]] = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d{1,6})(ms|s|m|h|d)")

NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
EVENT_TYPE: Final = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"
PATH: Final = r"^data(\.[A-Za-z_][A-Za-z0-9_]{0,127}){1,31}$"
DATE: Final = r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2})?([Zz]|[+-]\d{2}:\d{2})?)?$"

_PATTERNS: Final = {
    NAME: "a name of small letters, digits, _ and - that begins with a letter (at most 63)",
    EVENT_TYPE: "an event type: letters, digits, dot, _ and - that begins with a letter (at most 128)",
    PATH: "a field of data, as in data.carrier",
    DATE: "a date, as in 2013-02-01",
}


def duration_ms(text: str) -> int:
    """`15m` as milliseconds; ValueError says what was expected."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"a duration as in 15m, 1h or 2d was expected, {text!r} came")
    return int(found[1]) * _UNITS_MS[found[2]]


def _duration(text: str) -> str:
    duration_ms(text)
    return text


def _percent(text: str) -> str:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?%", text) or float(text[:-1]) > 100:
        raise ValueError(f"a share as in 0.5% was expected, {text!r} came")
    return text


Name = Annotated[str, StringConstraints(pattern=NAME)]
EventType = Annotated[str, StringConstraints(pattern=EVENT_TYPE)]
DataPath = Annotated[str, StringConstraints(pattern=PATH)]
Date = Annotated[str, StringConstraints(pattern=DATE)]
Duration = Annotated[str, AfterValidator(_duration)]
Percent = Annotated[str, AfterValidator(_percent)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
DimensionValue = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Number = int | float


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


class ContractText(_Model):
    schema_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] = Field(alias="schema")


class IdentityText(_Model):
    entity: Name
    key: Name
    path: DataPath = Field(alias="from")
    required: bool = False
    label: bool = False


class VolumeText(_Model):
    per: Duration
    min: Annotated[int, Field(ge=0)]


class ExpectText(_Model):
    freshness: Duration | None = None
    volume: VolumeText | None = None
    unmatched_max: Percent | None = None


class SourceText(_Model):
    owner: Annotated[str, StringConstraints(max_length=256)] = ""
    types: Annotated[dict[EventType, ContractText], Field(min_length=1, max_length=ENTRIES_MAX)]
    identities: Annotated[list[IdentityText], Field(min_length=1, max_length=64)]
    pii: Annotated[list[DataPath], Field(max_length=ENTRIES_MAX)] = []
    volatile: Annotated[list[DataPath], Field(max_length=ENTRIES_MAX)] = []
    future_skew: Duration = "10m"
    expect: ExpectText | None = None


class SignalText(_Model):
    on: EventType
    when: Text | None = None
    fields: Annotated[dict[Name, Text], Field(max_length=64)] = {}


class MetricText(_Model):
    """A metric over signals (`from`, `aggregate`) or over metrics (`formula`)."""

    rule: Name | None = Field(default=None, alias="from")
    aggregate: Text | Annotated[list[Text], Field(min_length=1, max_length=16)] | None = None
    formula: Text | None = None
    dimensions: Annotated[list[Name], Field(max_length=DIMENSIONS_MAX)] = []
    unit: Annotated[str, StringConstraints(max_length=64)] = ""
    grain: Literal["15m", "1h", "1d"] = "15m"
    scale: Annotated[int, Field(ge=0, le=12)] = 6
    values: dict[Name, Annotated[list[DimensionValue], Field(max_length=ENTRIES_MAX)]] = {}
    max_values: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _one_way(self) -> MetricText:
        if self.formula is not None:
            given = self.model_fields_set - {"formula", "unit"}
            if given:
                names = ", ".join(sorted("from" if one == "rule" else one for one in given))
                raise ValueError(f"a formula takes only unit beside it, {names} came")
        elif self.rule is None or self.aggregate is None:
            raise ValueError("a metric has from and aggregate, or formula")
        return self


class RecordText(_Model):
    on: EventType
    id: DataPath
    op: Literal["upsert", "create", "update", "delete"]
    fields: Annotated[dict[Name, DataPath], Field(max_length=256)] = {}


class ActionText(_Model):
    metric: Name | None = None
    window: Annotated[str, StringConstraints(min_length=1, max_length=16)] | None = None
    op: Literal["<", "<=", "==", "!=", ">=", ">"] | None = None
    value: Number | None = None
    sustain: Duration | None = None
    manual: Text | None = None
    affects: bool = True
    weight: Number | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ActionText:
        if self.manual is not None:
            if self.metric is not None:
                raise ValueError("an action is manual or watches a metric, not both")
        elif self.metric is None or self.op is None or self.value is None:
            raise ValueError("an action has metric, op and value, or manual")
        return self


class MilestoneText(_Model):
    kind: Literal["achieve", "maintain"]
    start: Date
    deadline: Date
    grace: Duration = "0d"
    need: Literal["all"] | dict[Literal["at_least", "weight"], Number] = "all"
    actions: Annotated[dict[Name, ActionText], Field(min_length=1, max_length=100)]


class PlanText(_Model):
    bridge: Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,256}/[^/\s]{1,256}$")]
    milestones: Annotated[list[Name], Field(max_length=ENTRIES_MAX)] = []
    metrics: Annotated[list[Name], Field(max_length=ENTRIES_MAX)] = []


class ReactionText(_Model):
    on: EventType
    webhook: Annotated[str, StringConstraints(pattern=r"^https?://\S{1,2000}$")]
    on_replay: Literal["suppress", "send"] = "suppress"


class BundleText(_Model):
    """A bundle of definitions: one organisation's sources, signals, metrics and what later stages read."""

    sources: Annotated[dict[Name, SourceText], Field(max_length=ENTRIES_MAX)] = {}
    signals: Annotated[dict[Name, SignalText], Field(max_length=ENTRIES_MAX)] = {}
    metrics: Annotated[dict[Name, MetricText], Field(max_length=ENTRIES_MAX)] = {}
    records: Annotated[dict[Name, RecordText], Field(max_length=ENTRIES_MAX)] = {}
    milestones: Annotated[dict[Name, MilestoneText], Field(max_length=ENTRIES_MAX)] = {}
    plans: Annotated[dict[Name, PlanText], Field(max_length=ENTRIES_MAX)] = {}
    reactions: Annotated[dict[Name, ReactionText], Field(max_length=ENTRIES_MAX)] = {}


_MODELS: Final[Mapping[tuple[str, ...], type[_Model]]] = {
    (): BundleText,
    ("sources", "*"): SourceText,
    ("sources", "*", "types", "*"): ContractText,
    ("sources", "*", "identities", "*"): IdentityText,
    ("sources", "*", "expect"): ExpectText,
    ("sources", "*", "expect", "volume"): VolumeText,
    ("signals", "*"): SignalText,
    ("metrics", "*"): MetricText,
    ("records", "*"): RecordText,
    ("milestones", "*"): MilestoneText,
    ("milestones", "*", "actions", "*"): ActionText,
    ("plans", "*"): PlanText,
    ("reactions", "*"): ReactionText,
}
"""Where each model stands, to name the keys that were expected."""


def read_bundle(text: bytes) -> tuple[BundleText, Document]:
    """The models of `milepost.yaml`, and the document with its places.  Raises BundleError."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - (text.rfind(b"\n", 0, error.start) + 1) + 1
        raise BundleError([Finding(file=MAIN, line=line, column=column, message="not UTF-8")]) from None
    document = read(MAIN, decoded)
    if not isinstance(document.value, dict):
        message = f"a mapping of {', '.join(BundleText.model_fields)} was expected, {said(document.value)} came"
        raise BundleError([document.finding((), message)])
    try:
        return BundleText.model_validate(document.value), document
    except ValidationError as error:
        raise BundleError(_findings(error, document)) from None


def editor_schema() -> dict[str, Any]:
    """The JSON Schema of `milepost.yaml`, for editors."""
    return BundleText.model_json_schema(by_alias=True)


def _findings(error: ValidationError, document: Document) -> list[Finding]:
    found: dict[Path, Finding] = {}
    faults = [(_path(fault["loc"], document), fault) for fault in error.errors(include_url=False)]
    for path, fault in faults:
        in_key = "[key]" in fault["loc"]
        branch = isinstance(fault["input"], dict | list) and fault["type"] in ("literal_error", "string_type")
        if branch and any(len(other) > len(path) and other[: len(path)] == path for other, _ in faults):
            continue  # one branch of a union; the branch that fits better has its own, deeper finding
        found.setdefault(path, _finding(path, in_key, dict(fault), document))
    return list(found.values())


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


def _finding(path: Path, in_key: bool, fault: dict[str, Any], document: Document) -> Finding:
    name = str(path[-1]) if path else ""
    value = fault.get("input")
    above = path[:-1]
    match fault["type"]:
        case "extra_forbidden":
            known = _known(above)
            message = f"{name!r} is no key of {_where(above)}; known are {', '.join(known)}"
            return document.finding(path, message, guess=closest(name, known), key=True)
        case "missing":
            fix = f"add {name}: to {_where(above)}"
            return document.finding(above, f"{name!r} is missing in {_where(above)}", fix=fix, key=True)
        case "string_pattern_mismatch":
            expected = _PATTERNS.get(str(fault["ctx"]["pattern"]), f"text like {fault['ctx']['pattern']}")
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


def _known(path: Path) -> list[str]:
    """The keys that are known at a path."""
    for pattern, model in _MODELS.items():
        if len(pattern) == len(path) and all(part in ("*", step) for part, step in zip(pattern, path, strict=True)):
            return [one.alias or name for name, one in model.model_fields.items()]
    return []


def _where(path: Path) -> str:
    return ".".join(map(str, path)) if path else "a bundle"


def _name_fix(value: object) -> str:
    if not isinstance(value, str):
        return ""
    plain = re.sub(r"[^a-z0-9_-]+", "_", value.lower()).strip("_-")
    return f"write {plain}" if re.fullmatch(NAME, plain) and plain != value else ""
