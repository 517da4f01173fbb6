"""Definitions: what a bundle holds once it is read and checked: plain, frozen records that the stages run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

from milepost.schemas.contracts import Contract
from milepost.topology.aggregates import Shape
from milepost.topology.expressions import Expression

Aggregate = Literal["count", "sum", "min", "max", "avg", "distinct", "last", "percentile"]

VERSION_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where a contract's alternate key stands.

    path: names below `data` (`data.carrier` is ("carrier",))
    """

    entity: str
    key: str
    path: tuple[str, ...]
    required: bool
    label: bool


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
class Catalog:
    """All definitions of an organisation at one time.

    bundle_id: BLAKE2b-64 over the files
    key_rank:  (entity, key) -> place of its first appearance, 0 = highest
    later:     `records`, `milestones`, `plans`, `reactions` as plain data
    """

    bundle_id: bytes
    sources: Mapping[str, Source]
    rules: Mapping[str, Rule]
    rules_by_type: Mapping[str, tuple[Rule, ...]]
    measures: tuple[Measure, ...]
    measures_by_rule: Mapping[str, tuple[Measure, ...]]
    metrics: Mapping[str, Metric]
    key_rank: Mapping[tuple[str, str], int]
    later: Mapping[str, object] = field(default_factory=dict)


def version(*parts: object) -> bytes:
    """A version: BLAKE2b-64 of the canonical JSON of what a definition says and depends on."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=VERSION_BYTES).digest()
