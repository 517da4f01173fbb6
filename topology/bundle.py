"""Bundles: what may be written in `milepost.yaml`, and its reading into checked, plain models.

The models know shapes: keys, kinds, names, bounds.  What names refer to is the matter of `catalog.py`.  Every fault is
a Finding with line, column, a guess and a fix; all faults are found, not only the first.  What stands below a key here
is what editors show at it (`editor_schema`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from milepost.topology.document import Document
from milepost.topology.faults import NAME, PATH, Shape, read_model

MAIN: Final = "milepost.yaml"
BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 1000
ACTIONS_MAX: Final = 100
DIMENSIONS_MAX: Final = 8
_UNITS_MS: Final[Mapping[str, int]] = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d{1,6})(ms|s|m|h|d)")

EVENT_TYPE: Final = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"
DATE: Final = r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2})?([Zz]|[+-]\d{2}:\d{2})?)?$"
KIND: Final = r"^[a-z][a-z0-9_-]{0,62}(/[a-z][a-z0-9_-]{0,62})?$"
BRIDGE: Final = r"^[^/\s]{1,256}/[^/\s]{1,256}$"
TEMPLATE: Final = r"^[a-z][a-z0-9_-]{0,62}(@[0-9a-f]{16})?$"
DOMAIN: Final = r"^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,8}$"

_PATTERNS: Final = {
    NAME: "a name of small letters, digits, _ and - that begins with a letter (at most 63)",
    EVENT_TYPE: "an event type: letters, digits, dot, _ and - that begins with a letter (at most 128)",
    PATH: "a field of data, as in data.carrier",
    DATE: "a date, as in 2013-02-01",
    KIND: "a kind of key, as in crm_id or company/crm_id",
    BRIDGE: "a bridge, as in acme/* or acme/mk_…",
    TEMPLATE: "the name of a plan, or name@version",
    DOMAIN: "a domain in small letters, as in example.org",
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


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Name = Annotated[str, StringConstraints(pattern=NAME)]
EventType = Annotated[str, StringConstraints(pattern=EVENT_TYPE)]
DataPath = Annotated[str, StringConstraints(pattern=PATH)]
Date = Annotated[str, StringConstraints(pattern=DATE)]
Duration = Annotated[str, AfterValidator(_duration), Field(json_schema_extra={"pattern": f"^{_DURATION.pattern}$"})]
Percent = Annotated[str, AfterValidator(_percent)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Kind = Annotated[str, StringConstraints(pattern=KIND)]
Number = int | float
Operator = Literal["<", "<=", "==", "!=", ">=", ">"]
Need = Literal["all"] | dict[Literal["at_least", "weight"], Number]
Window = Annotated[str, StringConstraints(min_length=1, max_length=16)]


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, populate_by_name=False, use_attribute_docstrings=True
    )


class ContractText(_Model):
    """The contract of an event type."""

    schema_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] = Field(alias="schema")
    """Name of an Avro schema: schemas/NAME.avsc."""


class IdentityText(_Model):
    """Where an event says whom it is about.  The order is the priority."""

    entity: Name
    """company, person, device, or another kind of thing."""
    key: Name
    """The kind of key, as crm_id.  Kinds rank by first appearance in the bundle."""
    path: DataPath = Field(alias="from")
    """The field that holds it, as data.customer."""
    required: bool = False
    """Without it the event is a dead letter."""
    label: bool = False
    """Its value is the display name."""
    unique: bool = False
    """One value a component: two values of this kind never join."""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """So many values of this kind a component at most."""


class VolumeText(_Model):
    per: Duration
    min: Annotated[int, Field(ge=0)]


class ExpectText(_Model):
    """What the source promises."""

    freshness: Duration | None = None
    volume: VolumeText | None = None
    unmatched_max: Percent | None = None


class SourceText(_Model):
    """A system that sends events."""

    owner: Annotated[str, StringConstraints(max_length=256)] = ""
    """Who answers for it."""
    types: Annotated[dict[EventType, ContractText], Field(min_length=1, max_length=ENTRIES_MAX)]
    """Event type -> its contract."""
    identities: Annotated[list[IdentityText], Field(min_length=1, max_length=64)]
    pii: Annotated[list[DataPath], Field(max_length=ENTRIES_MAX)] = []
    """Personal data: no rule, field, dimension or record reads it."""
    volatile: Annotated[list[DataPath], Field(max_length=ENTRIES_MAX)] = []
    """Fields that may differ in a repeat of the same event."""
    future_skew: Duration = "10m"
    """An event may be so far ahead of the log's clock."""
    expect: ExpectText | None = None


class SignalText(_Model):
    """A rule: events that become a signal."""

    on: EventType
    """The event type."""
    when: Text | None = None
    """A condition (CEL) over data and event; left out: always."""
    fields: Annotated[dict[Name, Text], Field(max_length=64)] = {}
    """Name -> expression (CEL) over data and event."""


class MetricText(_Model):
    """A metric over signals (`from`, `aggregate`) or over metrics (`formula`)."""

    rule: Name | None = Field(default=None, alias="from")
    """The signal."""
    aggregate: Text | Annotated[list[Text], Field(min_length=1, max_length=16)] | None = None
    """count, sum(field), min(field), max(field), avg(field), last(field), distinct(entity); a list makes name_sum, …"""
    formula: Text | None = None
    """An expression (CEL) over metrics, as on_time / departures."""
    dimensions: Annotated[list[Name], Field(max_length=DIMENSIONS_MAX)] = []
    """Fields of the signal by which it can be broken down."""
    unit: Annotated[str, StringConstraints(max_length=64)] = ""
    grain: Literal["15m", "1h", "1d"] = "15m"
    """The finest step of its history."""
    scale: Annotated[int, Field(ge=0, le=12)] = 6
    """Decimals that are kept."""
    values: dict[Name, Annotated[list[ShortText], Field(max_length=ENTRIES_MAX)]] = {}
    """Dimension -> values that always keep their name."""
    max_values: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Named values a dimension, company and day."""

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
    """What an event does to a record."""

    on: EventType
    id: DataPath
    op: Literal["upsert", "create", "update", "patch", "delete"]
    """patch leaves fields that are null as they are; update and patch do nothing where there is no record."""
    fields: Annotated[dict[Name, DataPath], Field(max_length=256)] = {}


class ActionPatch(_Model):
    """What a plan changes of an action."""

    metric: Name | None = None
    window: Window | None = None
    """all (default), <n>m, <n>h, <n>d up to 3660d, year, month, week or day."""
    op: Operator | None = None
    value: Number | None = None
    sustain: Duration | None = None
    """It has to hold so long without a break."""
    manual: Text | None = None
    """What a person ticks."""
    affects: bool = True
    """Whether it counts for the milestone."""
    weight: Number | None = None
    """For need: {weight: …}; default 1."""


class ActionText(ActionPatch):
    """What has to be so: a metric over a window beyond a value, or something a person ticks."""

    def fault(self) -> str | None:
        """What does not go together, if anything; also asked of an action that a plan has changed."""
        given = [one for one in ("metric", "window", "op", "value", "sustain") if getattr(self, one) is not None]
        if self.manual is not None and self.metric is not None:
            return "an action is manual or watches a metric, not both"
        if self.manual is not None and given:
            return f"a manual action takes only affects and weight beside it, {', '.join(given)} came"
        if self.manual is None and (self.metric is None or self.op is None or self.value is None):
            return "an action has metric, op and value, or manual"
        return None

    @model_validator(mode="after")
    def _one_way(self) -> ActionText:
        if (fault := self.fault()) is not None:
            raise ValueError(fault)
        return self


class MilestoneText(_Model):
    """An outcome by a date.  Dates are of the plan's zone, unless they name one."""

    kind: Literal["achieve", "maintain"]
    """achieve: reached once, it stays; maintain: it can lapse."""
    start: Date
    deadline: Date
    grace: Duration = "0d"
    need: Need = "all"
    """all, {at_least: 2} or {weight: 0.8}, of the actions that affect it."""
    actions: Annotated[dict[Name, ActionText], Field(min_length=1, max_length=ACTIONS_MAX)]


class MilestonePatch(_Model):
    """What a plan changes of a milestone; what is left out stays."""

    kind: Literal["achieve", "maintain"] = "achieve"
    start: Date = ""
    deadline: Date = ""
    grace: Duration = "0d"
    need: Need = "all"
    actions: Annotated[dict[Name, ActionPatch], Field(max_length=ACTIONS_MAX)] = {}


class PlanText(_Model):
    """Milestones that two organisations watch together."""

    bridge: Annotated[str, StringConstraints(pattern=BRIDGE)] | None = None
    """organisation/MetaKey, or organisation/* for each company; a plan without one is a template."""
    template: Annotated[str, StringConstraints(pattern=TEMPLATE)] | None = None
    """A plan whose milestones and metrics this one has; name@version pins it."""
    tz: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """The zone of the milestones' dates and of calendar windows."""
    milestones: Annotated[list[Name], Field(max_length=ENTRIES_MAX)] = []
    metrics: Annotated[list[Name], Field(max_length=ENTRIES_MAX)] = []
    overrides: Annotated[dict[Name, MilestonePatch], Field(max_length=ENTRIES_MAX)] = {}
    """Milestone -> what is different in this plan."""


class ReactionText(_Model):
    """Whom to tell."""

    on: EventType
    """milestone.achieved, milestone.missed, …, or the name of a signal."""
    webhook: Annotated[str, StringConstraints(pattern=r"^https?://\S{1,2000}$")]
    on_replay: Literal["suppress", "send"] = "suppress"


class FreeMailText(_Model):
    """Domains that are nobody's own."""

    kinds: Annotated[list[Kind], Field(min_length=1, max_length=64)]
    """Kinds of keys whose values are domains."""
    domains: Annotated[list[Annotated[str, StringConstraints(pattern=DOMAIN)]], Field(min_length=1, max_length=10_000)]


class IdentityRulesText(_Model):
    """What never joins two things."""

    blocked: Annotated[
        dict[Kind, Annotated[list[Annotated[str, StringConstraints(max_length=256)]], Field(max_length=10_000)]],
        Field(max_length=64),
    ] = {}
    """Kind of key -> values that mean nothing, as n/a."""
    free_mail: FreeMailText | None = None


class BundleText(_Model):
    """A bundle of definitions: one organisation's sources, signals, metrics and what is made of them."""

    sources: Annotated[dict[Name, SourceText], Field(max_length=ENTRIES_MAX)] = {}
    signals: Annotated[dict[Name, SignalText], Field(max_length=ENTRIES_MAX)] = {}
    metrics: Annotated[dict[Name, MetricText], Field(max_length=ENTRIES_MAX)] = {}
    records: Annotated[
        dict[
            Name,
            Annotated[
                list[RecordText],
                BeforeValidator(_listed, json_schema_input_type=RecordText | list[RecordText]),
                Field(min_length=1, max_length=64),
            ],
        ],
        Field(max_length=ENTRIES_MAX),
    ] = {}
    """Type of record -> what an event does to it; a list where several types of events do."""
    milestones: Annotated[dict[Name, MilestoneText], Field(max_length=ENTRIES_MAX)] = {}
    plans: Annotated[dict[Name, PlanText], Field(max_length=ENTRIES_MAX)] = {}
    reactions: Annotated[dict[Name, ReactionText], Field(max_length=ENTRIES_MAX)] = {}
    identity: IdentityRulesText | None = None


SHAPE: Final = Shape(
    whole="a bundle",
    patterns=_PATTERNS,
    models={
        (): BundleText,
        ("sources", "*"): SourceText,
        ("sources", "*", "types", "*"): ContractText,
        ("sources", "*", "identities", "*"): IdentityText,
        ("sources", "*", "expect"): ExpectText,
        ("sources", "*", "expect", "volume"): VolumeText,
        ("identity",): IdentityRulesText,
        ("identity", "free_mail"): FreeMailText,
        ("signals", "*"): SignalText,
        ("metrics", "*"): MetricText,
        ("records", "*"): RecordText,
        ("records", "*", "*"): RecordText,
        ("milestones", "*"): MilestoneText,
        ("milestones", "*", "actions", "*"): ActionText,
        ("plans", "*"): PlanText,
        ("plans", "*", "overrides", "*"): MilestonePatch,
        ("plans", "*", "overrides", "*", "actions", "*"): ActionPatch,
        ("reactions", "*"): ReactionText,
    },
)


def read_bundle(text: bytes) -> tuple[BundleText, Document]:
    """The models of `milepost.yaml`, and the document with its places.  Raises BundleError."""
    return read_model(MAIN, text, BundleText, SHAPE)


def editor_schema() -> dict[str, Any]:
    """The JSON Schema of `milepost.yaml`, for editors."""
    schema = BundleText.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Milepost definitions"}
