"""The catalog: a bundle of definitions, read, checked and ready to run.

    files ─▶ bundle (shapes) ─▶ catalog_rules (contracts, sources, rules) ─▶ catalog_metrics
                                        ─▶ catalog_records, catalog_plans ─▶ Catalog
                       every fault on the way is a Finding; all are found, or the catalog stands

Versions: a rule's, measure's or metric's version is the hash of its own text, in one spelling, and of what it depends
on (a rule: its contracts; a measure: its rule; a metric: its measure or operands; a milestone: its metrics; a plan: its
milestones and metrics).  What a change does not touch keeps its version, and with it its history (design §8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeVar

from milepost.schemas.contracts import Contract
from milepost.schemas.errors import BundleError, Finding
from milepost.topology import acts, breach_records
from milepost.topology.bundle import BYTES_MAX, MAIN, BundleText, editor_schema, read_bundle
from milepost.topology.catalog_metrics import MetricReader
from milepost.topology.catalog_plans import PlanReader, foreign_bridges
from milepost.topology.catalog_records import RecordReader, protection, reactions
from milepost.topology.catalog_rules import SCHEMA_FILE, RuleReader
from milepost.topology.definitions import (
    VERSION_BYTES,
    Action,
    Aggregate,
    Catalog,
    Date,
    Expect,
    Identity,
    Measure,
    Metric,
    Milestone,
    Need,
    Plan,
    Protection,
    Reaction,
    Record,
    Rule,
    Source,
    Write,
)
from milepost.topology.document import Findings
from milepost.topology.expressions import Expression, closest

SCHEMAS_MAX: Final = 1000
Held = TypeVar("Held")

__all__ = [
    "Action",
    "Aggregate",
    "Catalog",
    "Contract",
    "Date",
    "Expression",
    "Finding",
    "Identity",
    "Measure",
    "Metric",
    "Milestone",
    "Need",
    "Plan",
    "Protection",
    "Reaction",
    "Record",
    "Rule",
    "Source",
    "Write",
    "bundle_id",
    "check_owner",
    "compiled",
    "editor_schema",
    "load_bundle",
]


def load_bundle(files: Mapping[str, bytes]) -> Catalog:
    """The catalog of a bundle: {"milepost.yaml": ..., "schemas/NAME.avsc": ...}.

    Raises BundleError with every finding.  Equal files give the same object while it is remembered.
    """
    return _load(tuple(sorted((name, bytes(text)) for name, text in files.items())))


def check_owner(files: Mapping[str, bytes], org: str) -> None:
    """Whether a bundle that loads may be applied for `org`.  Raises BundleError where a bridge is another's."""
    text, document = read_bundle(files[MAIN])
    findings = Findings(document)
    foreign_bridges(text, org, findings)
    if findings.found:
        raise BundleError(findings.found)


def bundle_id(files: Mapping[str, bytes]) -> bytes:
    """BLAKE2b-64 over the sorted, length-prefixed (name, bytes) pairs."""
    hasher = hashlib.blake2b(digest_size=VERSION_BYTES)
    for name, text in sorted(files.items()):
        for part in (name.encode(), text):
            hasher.update(len(part).to_bytes(4, "big"))
            hasher.update(part)
    return hasher.digest()


@lru_cache(maxsize=16)
def _load(pairs: tuple[tuple[str, bytes], ...]) -> Catalog:
    files = dict(pairs)
    _check_files(files)
    text, document = read_bundle(files[MAIN])
    findings = Findings(document)
    catalog = compiled(files, text, findings)
    if findings.found:
        raise BundleError(findings.found)
    return catalog


def compiled(
    files: Mapping[str, bytes],
    text: BundleText,
    findings: Findings,
    rules_unread: Iterable[Rule] = (),
    writes_unread: Iterable[Write] = (),
) -> Catalog:
    """The catalog of what holds; what has a fault, and what depends on it, is a finding and not in it.

    rules_unread, writes_unread: refusals for what was not in `text` already (lenient.py)
    """
    rules = RuleReader(files, text, findings)
    rules.read()
    metrics = MetricReader(text, rules.sources, rules.rules, rules.broken, findings)
    metrics.read()
    records = RecordReader(text, rules.sources, findings)
    records.read()
    plans = PlanReader(text, metrics.metrics, metrics.broken, findings)
    plans.read()
    protected = protection(text, rules.sources, findings)
    reacting = reactions(text, findings)
    by_hand = acts.any_manual(plans.plans)
    measures = (*metrics.measures, *([acts.TICKS] if by_hand else []))
    judging = (*rules.rules.values(), *rules_unread, *rules.refused, *([acts.RULE] if by_hand else []))
    writing = [write for one in records.records.values() for write in one.writes]
    return Catalog(
        bundle_id=bundle_id(files),
        sources=rules.sources,
        protection=protected,
        rules=rules.rules,
        rules_by_type=_grouped((rule.on, rule) for rule in judging),
        measures=measures,
        measures_by_rule=_grouped((measure.rule, measure) for measure in measures),
        metrics=metrics.metrics,
        key_rank=_ranks(rules.sources),
        records=records.records,
        writes=_grouped((write.on, write) for write in (*writing, *writes_unread, *records.refused)),
        milestones=plans.milestones,
        plans=plans.plans,
        reactions=reacting,
    )


def _check_files(files: Mapping[str, bytes]) -> None:
    findings = [
        _at_start(name, "a bundle holds milepost.yaml and schemas/NAME.avsc, nothing else", closest(name, [MAIN]))
        for name in files
        if name != MAIN and not SCHEMA_FILE.fullmatch(name)
    ]
    if MAIN not in files:
        findings.append(_at_start(MAIN, "the bundle has no milepost.yaml", closest(MAIN, files)))
    if len(files) > SCHEMAS_MAX + 1:
        findings.append(_at_start(MAIN, f"a bundle has at most {SCHEMAS_MAX} schemas, {len(files) - 1} came"))
    size = sum(len(text) for text in files.values())
    if size > BYTES_MAX:
        findings.append(_at_start(MAIN, f"a bundle has at most {BYTES_MAX} bytes, {size} came"))
    if findings:
        raise BundleError(findings)


def _at_start(file: str, message: str, guess: str = "") -> Finding:
    return Finding(file=file, line=1, column=1, message=message, guess=guess)


def _grouped(pairs: Iterable[tuple[str, Held]]) -> dict[str, tuple[Held, ...]]:
    groups: dict[str, list[Held]] = {}
    for name, held in pairs:
        groups.setdefault(name, []).append(held)
    return {name: tuple(held) for name, held in groups.items()}


def _ranks(sources: Mapping[str, Source]) -> dict[tuple[str, str], int]:
    """Key kinds rank by first appearance in the bundle; last, the kind of sources that events are about."""
    ranks: dict[tuple[str, str], int] = {}
    for source in sources.values():
        for identity in source.identities:
            ranks.setdefault((identity.entity, identity.key), len(ranks))
    if any(source.expect != Expect() for source in sources.values()):
        ranks.setdefault((breach_records.ENTITY, breach_records.KEY), len(ranks))
    return ranks
