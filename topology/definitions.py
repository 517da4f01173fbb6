"""Definitions: what a bundle holds once it is read and checked: plain, frozen records that the stages run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal
from zoneinfo import ZoneInfo

from milepost.schemas.contracts import Contract
from milepost.schemas.errors import Finding
from milepost.topology.aggregates import Shape
from milepost.topology.expressions import Expression

Aggregate = Literal["count", "sum", "min", "max", "avg", "distinct", "last", "percentile"]
Operator = Literal["<", "<=", "==", "!=", ">=", ">"]
RecordOp = Literal["upsert", "create", "update", "patch", "delete"]
State = Literal["pending", "in_progress", "achieved", "lapsed", "missed", "unknown_stale", "input_withdrawn"]
"""What a milestone may be in (semantics S6)."""
Kind = tuple[str, str]
"""A kind of key: (entity, key)."""

VERSION_BYTES: Final = 8
CLOSE: Final = 1e-9
"""Weights as 0.1, 0.2 and 0.7 make 1, although their doubles do not."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where a contract's alternate key stands.

    path:   names below `data` (`data.carrier` is ("carrier",))
    unique: two values of this kind never join
    limit:  values of this kind a component at most; None: no bound
    """

    entity: str
    key: str
    path: tuple[str, ...]
    required: bool
    label: bool
    unique: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What a source promises.  None: nothing is said.

    volume_min:    events within `volume_per_ms` at least
    unmatched_max: share of events that may lead to nothing, 0 to 1
    """

    freshness_ms: int | None = None
    volume_per_ms: int | None = None
    volume_min: int | None = None
    unmatched_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source: its contracts by event type, its keys in order of priority.  Paths are names below `data`."""

    name: str
    owner: str
    types: Mapping[str, Contract]
    identities: tuple[Identity, ...]
    pii: tuple[tuple[str, ...], ...]
    volatile: tuple[tuple[str, ...], ...]
    future_skew_ms: int
    expect: Expect = Expect()
    version: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What never joins two things (semantics S2): the graph's fold and the proposals of links obey it.

    unique:    kinds of which a component has one value at most
    limits:    kind -> values a component at most
    blocked:   kind -> values that mean nothing, as they are written in the bundle
    free_mail: kinds whose values are domains; `domains`: those that are nobody's own
    """

    unique: frozenset[Kind] = frozenset()
    limits: Mapping[Kind, int]
    blocked: Mapping[Kind, frozenset[str]]
    free_mail: frozenset[Kind] = frozenset()
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: which events (`on`, `when`) become a signal, and the signal's fields."""

    name: str
    on: str
    when: Expression | None
    fields: Mapping[str, Expression]
    version: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One family of cells: what is folded from a rule's signals.  Several metrics may read one measure.

    field:      of the signal; None: signals (or members) are counted
    entity:     whose leaves are counted (`distinct`)
    scale:      decimals of a value
    values:     dimension -> values that always keep their name
    max_values: named values a dimension, company and day
    """

    name: str
    version: bytes
    rule: str
    shape: Shape
    field: str | None
    entity: str | None
    dimensions: tuple[str, ...]
    scale: int
    values: Mapping[str, frozenset[str]]
    max_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric: an aggregate over a measure, or a formula over metrics (then `aggregate` and `measure` are None).

    percent:    of a percentile: 95, 99.9
    operands:   names of the metrics a formula reads
    grain_ms:   the finest step of its history, ms; a formula's is the coarsest of its operands'
    dimensions: a formula has those that all its operands have
    """

    name: str
    unit: str
    aggregate: Aggregate | None
    measure: Measure | None
    formula: Expression | None
    operands: tuple[str, ...]
    grain_ms: int
    version: bytes
    dimensions: tuple[str, ...]
    percent: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What an event does to a record.

    record: type of the record;  id: names below `data`, the record's id;  fields: name -> names below `data`
    refused: why each event's write is a dead letter (lenient.py), else ""
    """

    record: str
    on: str
    id: tuple[str, ...]
    op: RecordOp
    fields: Mapping[str, tuple[str, ...]]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A type of records: what changes one, at most one write an event type."""

    name: str
    writes: tuple[Write, ...]
    version: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Date:
    """A moment as it is written: local to a plan's zone, unless it names an offset itself."""

    text: str

    def ms(self, tz: str) -> int:
        """Milliseconds since the epoch.  A wall clock that comes twice is the first one.  ValueError: no such time."""
        moment = datetime.fromisoformat(self.text.upper().replace(" ", "T"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(tz))
        return (moment - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How much of its actions a milestone needs: `all`, `amount` of them, or the weight `amount` (within 1e-9)."""

    of: Literal["all", "at_least", "weight"]
    amount: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One condition of a milestone: a metric's, or (`manual`) a person's tick.

    window: as in questions: `all`, `<n>m`, `<n>h`, `<n>d`, year, month, week, day
    op, value: None for a manual one
    sustain_ms: it has to hold so long without a break
    """

    name: str
    metric: str | None
    window: str
    op: Operator | None
    value: float | None
    sustain_ms: int
    manual: str | None
    affects: bool
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """An outcome by a date.  `version` also depends on the metrics that it watches."""

    name: str
    kind: Literal["achieve", "maintain"]
    start: Date
    deadline: Date
    grace_ms: int
    need: Need
    actions: Mapping[str, Action]
    version: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Milestones and metrics that are watched on a bridge.

    org, company: the bridge; company None: each company has one; org "": no bridge, the plan is a template
    milestones:   as they hold in this plan: the template's, then its own, its overrides applied
    template:     the plan it is made from, ""; its milestones and metrics are among these already
    terms:        version of milestones and metrics alone: what a template is pinned by
    own:          version of its text alone, without what it refers to
    """

    name: str
    org: str
    company: bytes | None
    tz: str
    milestones: Mapping[str, Milestone]
    metrics: tuple[str, ...]
    template: str
    terms: bytes
    own: bytes
    version: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Whom to tell of a signal, or of a milestone's state (`corrected`: its past has changed)."""

    name: str
    signal: str | None
    state: State | Literal["corrected"] | None
    webhook: str
    on_replay: Literal["suppress", "send"]
    version: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All definitions of an organisation at one time.

    bundle_id:  BLAKE2b-64 over the files
    key_rank:   (entity, key) -> place of its first appearance, 0 = highest
    rules_by_type, measures: with those of what people do for plans (acts.py), if there is a plan with such an action
    writes:     event type -> what it does to records
    milestones: as they are declared; what holds in a plan is the plan's own
    left_out:   of a bundle in the log: what does not hold in this release and is not here (lenient.py)
    """

    bundle_id: bytes
    sources: Mapping[str, Source]
    protection: Protection
    rules: Mapping[str, Rule]
    rules_by_type: Mapping[str, tuple[Rule, ...]]
    measures: tuple[Measure, ...]
    measures_by_rule: Mapping[str, tuple[Measure, ...]]
    metrics: Mapping[str, Metric]
    key_rank: Mapping[Kind, int]
    records: Mapping[str, Record]
    writes: Mapping[str, tuple[Write, ...]]
    milestones: Mapping[str, Milestone]
    plans: Mapping[str, Plan]
    reactions: Mapping[str, Reaction]
    left_out: tuple[Finding, ...] = ()


def version(*parts: object) -> bytes:
    """A version: BLAKE2b-64 of the canonical JSON of what a definition says and depends on."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=VERSION_BYTES).digest()
