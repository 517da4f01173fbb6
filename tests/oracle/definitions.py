"""Definitions as the oracle reads them: plain YAML into plain records, a contract as a walk over its Avro schema.

A measure's *signature* is the text of all it depends on.  Two bundles in which it is equal speak of the same numbers;
the engine says the same with a version hash.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

from tests.oracle import clock, expressions, plans

Path = tuple[str, ...]
SCALED_MAX = 2**95

BREACHES = tuple(f"milepost.source_{one}" for one in ("stale", "silent", "schema", "unmatched"))
"""Types of records that say how a source breaks its contract; rules may name them."""

_WIDE = Context(prec=400)


class _Texts(SafeConstructor):
    """Dates stay as they are written: only a plan knows their zone."""


_Texts.add_constructor("tag:yaml.org,2002:timestamp", _Texts.construct_yaml_str)


class Rejected(Exception):
    """A record that ends as a dead letter."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Identity:
    entity: str
    key: str
    path: Path
    required: bool
    label: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    name: str
    types: Mapping[str, Any]  # event type -> its Avro schema, as read from JSON
    identities: tuple[Identity, ...]
    volatile: tuple[Path, ...]
    future_skew_ms: int
    expect: Mapping[str, Any] = field(default_factory=dict)  # as it is written


@dataclass(frozen=True, kw_only=True)
class Rule:
    name: str
    on: str
    when: expressions.Node | None
    fields: Mapping[str, expressions.Node]
    signature: str


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric over signals (`aggregate`) or over other metrics (`formula`)."""

    name: str
    unit: str
    aggregate: str | None = None  # count sum min max avg last distinct percentile
    field: str | None = None  # of sum min max avg last percentile
    percent: Fraction | None = None  # of percentile
    entity: str | None = None  # of distinct
    rule: str | None = None
    signature: str = ""
    dimensions: tuple[str, ...] = ()
    scale: int = 6
    grain_ms: int = clock.QUARTER
    formula: expressions.Node | None = None
    operands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RecordWrite:
    """What an event type does to records of a type."""

    record: str
    on: str
    id: Path
    op: str
    fields: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """One bundle."""

    sources: Mapping[str, Source]
    rules: Mapping[str, Rule]
    metrics: Mapping[str, Metric]
    rank: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (entity, key) -> first appearance
    limits: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (entity, key) -> values a component
    blocked: frozenset[tuple[str, str, str]] = frozenset()  # (entity, key, value) of the bundle's own
    mail_kinds: frozenset[tuple[str, str]] = frozenset()
    mail_domains: frozenset[str] = frozenset()
    writes: tuple[RecordWrite, ...] = ()
    plans: Mapping[str, plans.Plan] = field(default_factory=dict)
    manual: frozenset[tuple[str, str, str]] = frozenset()  # (plan, milestone, action) that people tick
    agreed: frozenset[tuple[str, str]] = frozenset()  # (plan, milestone) of plans on a bridge

    def rules_on(self, event_type: str) -> list[Rule]:
        return [rule for rule in self.rules.values() if rule.on == event_type]

    def measures_of(self, rule: str) -> list[Metric]:
        """The metrics that fold the signals of a rule."""
        return [metric for metric in self.metrics.values() if metric.rule == rule]


NOTHING = Definitions(sources={}, rules={}, metrics={})
"""Before the first marker no source is known."""


def read(files: Mapping[str, bytes]) -> Definitions:
    """A bundle from its files.  The bundle is taken to be valid."""
    return _read(tuple(sorted(files.items())))


@lru_cache(maxsize=256)  # the same few bundles are read for thousands of logs
def _read(of: tuple[tuple[str, bytes], ...]) -> Definitions:
    files = dict(of)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Texts
    document = yaml.load(files["milepost.yaml"].decode()) or {}
    sources = {name: _source(name, text, files) for name, text in (document.get("sources") or {}).items()}
    rank: dict[tuple[str, str], int] = {}
    for source in sources.values():
        for identity in source.identities:
            rank.setdefault((identity.entity, identity.key), len(rank))
    if any(source.expect for source in sources.values()):
        rank.setdefault(("source", "name"), len(rank))
    contracts = {event: schema for source in sources.values() for event, schema in source.types.items()}
    rules = {name: _rule(name, text, contracts) for name, text in (document.get("signals") or {}).items()}
    metrics: dict[str, Metric] = {}
    for name, text in (document.get("metrics") or {}).items():
        for metric in _metrics(name, text, rules):
            metrics[metric.name] = metric
    for name, metric in metrics.items():
        if metric.formula is not None:
            metrics[name] = _with_dimensions(metric, metrics)
    limits = {
        (one["entity"], one["key"]): 1 if one.get("unique") else one["limit"]
        for text in (document.get("sources") or {}).values()
        for one in text.get("identities") or ()
        if one.get("unique") or one.get("limit")
    }
    section = document.get("identity") or {}
    mail = section.get("free_mail") or {}
    agreed = plans.read(document)
    return Definitions(
        sources=sources,
        rules=rules,
        metrics=metrics,
        rank=rank,
        limits=limits,
        blocked=frozenset(
            (*kind, value)
            for text, values in (section.get("blocked") or {}).items()
            for kind in _kinds(text, rank)
            for value in values
        ),
        mail_kinds=frozenset(kind for text in mail.get("kinds") or () for kind in _kinds(text, rank)),
        mail_domains=frozenset(mail.get("domains") or ()),
        writes=tuple(
            RecordWrite(
                record=name,
                on=one["on"],
                id=_path(one["id"]),
                op=one["op"],
                fields={field: _path(path) for field, path in (one.get("fields") or {}).items()},
            )
            for name, text in (document.get("records") or {}).items()
            for one in (text if isinstance(text, list) else [text])
        ),
        plans=agreed,
        agreed=frozenset((plan.name, milestone) for plan in agreed.values() for milestone in plan.milestones),
        manual=frozenset(
            (plan.name, milestone, action)
            for plan in agreed.values()
            for milestone, text in plan.milestones.items()
            for action, one in text["actions"].items()
            if "manual" in one
        ),
    )


def _kinds(text: str, rank: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    """`entity/key`, or the key of every entity that has it."""
    return [kind for kind in rank if text in (kind[1], "/".join(kind))]


def checked(schema: Any, data: Any, records: dict[str, Any] | None = None) -> Any:
    """`data` under an Avro schema: numbers take the schema's type, fields it does not name are left out.

    Raises Rejected("contract_violation").
    """
    records = {} if records is None else records
    if isinstance(schema, str) and schema in records:
        schema = records[schema]
    if isinstance(schema, list):
        return _first_that_fits(schema, data, records)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict | list):
        return checked(kind, data, records)
    if kind == "record":
        return _record(schema, data, records)
    if kind == "array" and isinstance(data, list):
        return [checked(schema["items"], item, records) for item in data]
    if kind == "map" and isinstance(data, dict):
        return {key: checked(schema["values"], item, records) for key, item in data.items()}
    if kind == "enum" and data in schema["symbols"]:
        return data
    return _primitive(kind, data)


def rounded(value: Any, scale: int) -> Fraction | None:
    """A number at a metric's scale, half-even from its shortest decimal form; None for None.

    Raises Rejected for what is no number, and beyond 2^95 at this scale.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Rejected("rule_error", "a metric's field is a number")
    if not math.isfinite(value):
        raise Rejected("out_of_range")
    whole = Decimal(repr(value)).scaleb(scale, _WIDE).to_integral_value(ROUND_HALF_EVEN)
    if abs(whole) > SCALED_MAX:
        raise Rejected("out_of_range")
    return Fraction(int(whole), 10**scale)


def at(data: Any, path: Path) -> Any:
    """The value at a path below `data`, or None."""
    for name in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(name)
    return data


def without(data: Any, paths: tuple[Path, ...]) -> Any:
    """`data` less the fields at these paths."""
    if not isinstance(data, Mapping):
        return data
    gone = {path[0] for path in paths if len(path) == 1}
    deeper = {name: tuple(p[1:] for p in paths if len(p) > 1 and p[0] == name) for name in data}
    return {name: without(value, deeper[name]) for name, value in data.items() if name not in gone}


def _source(name: str, text: Mapping[str, Any], files: Mapping[str, bytes]) -> Source:
    types = {}
    for event, contract in (text.get("types") or {}).items():
        types[event] = json.loads(files[f"schemas/{contract['schema']}.avsc"])
    return Source(
        name=name,
        types=types,
        identities=tuple(
            Identity(
                entity=one["entity"],
                key=one["key"],
                path=_path(one["from"]),
                required=bool(one.get("required", False)),
                label=bool(one.get("label", False)),
            )
            for one in text.get("identities") or ()
        ),
        volatile=tuple(_path(path) for path in text.get("volatile") or ()),
        future_skew_ms=clock.duration(str(text.get("future_skew", "10m"))),
        expect=text.get("expect") or {},
    )


def _path(text: str) -> Path:
    parts = tuple(str(text).split("."))
    return parts[1:] if parts[0] == "data" else parts


def _rule(name: str, text: Mapping[str, Any], contracts: Mapping[str, Any]) -> Rule:
    fields = {field: str(expression) for field, expression in (text.get("fields") or {}).items()}
    when = str(text["when"]) if "when" in text else None
    return Rule(
        name=name,
        on=text["on"],
        when=None if when is None else expressions.parse(when),
        fields={field: expressions.parse(expression) for field, expression in fields.items()},
        signature=json.dumps([name, text["on"], when, fields, contracts.get(text["on"], "ours")], sort_keys=True),
    )


def _metrics(name: str, text: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[Metric]:
    unit = str(text.get("unit", ""))
    if "formula" in text:
        tree = expressions.parse(str(text["formula"]))
        operands = tuple(sorted(expressions.names_in(tree)))
        return [Metric(name=name, unit=unit, formula=tree, operands=operands)]
    many = isinstance(text["aggregate"], list)
    aggregates = [
        re.fullmatch(r"(\w+)(?:\((\w+)(?:,([\d.]+))?\))?", one.replace(" ", "")) for one in _listed(text["aggregate"])
    ]
    dimensions = tuple(text.get("dimensions") or ())
    scale = int(text.get("scale", 6))
    measure = {key: text[key] for key in ("aggregate", "dimensions", "scale", "values", "max_values") if key in text}
    found = []
    for match in aggregates:
        if match is None:
            raise ValueError(f"metric {name}: not an aggregate in {text['aggregate']!r}")
        aggregate, argument, percent = match.groups()
        ending = aggregate if percent is None else "p" + _plain(percent).replace(".", "_")
        found.append(
            Metric(
                name=f"{name}_{ending}" if many else name,
                unit=unit,
                aggregate=aggregate,
                field=argument if aggregate != "distinct" else None,
                entity=argument if aggregate == "distinct" else None,
                percent=None if percent is None else Fraction(percent),
                rule=text["from"],
                signature=json.dumps([name, rules[text["from"]].signature, measure], sort_keys=True),
                dimensions=dimensions,
                scale=scale,
                grain_ms=clock.duration(str(text.get("grain", "15m"))),
            )
        )
    return found


def _plain(percent: str) -> str:
    """`95.0` as `95`, `99.90` as `99.9`."""
    return percent.rstrip("0").rstrip(".") if "." in percent else percent


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _with_dimensions(metric: Metric, metrics: Mapping[str, Metric]) -> Metric:
    """A formula has the dimensions that all metrics below it have, and the coarsest of their grains."""
    leaves = _leaves(metric, metrics)
    shared = [one for one in leaves[0].dimensions if all(one in leaf.dimensions for leaf in leaves)]
    return Metric(
        name=metric.name,
        unit=metric.unit,
        formula=metric.formula,
        operands=metric.operands,
        dimensions=tuple(shared),
        grain_ms=max(leaf.grain_ms for leaf in leaves),
    )


def _leaves(metric: Metric, metrics: Mapping[str, Metric]) -> list[Metric]:
    if metric.formula is None:
        return [metric]
    return [leaf for name in metric.operands for leaf in _leaves(metrics[name], metrics)]


def _record(schema: Any, data: Any, records: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Rejected("contract_violation", "not an object")
    records[schema["name"]] = schema
    out = {}
    for one in schema["fields"]:
        if one["name"] in data:
            out[one["name"]] = checked(one["type"], data[one["name"]], records)
        elif "default" in one:
            out[one["name"]] = checked(one["type"], one["default"], records)
        else:
            # A field that may be null and is not there is null.
            out[one["name"]] = checked(one["type"], None, records)
    return out


def _first_that_fits(schemas: list[Any], data: Any, records: dict[str, Any]) -> Any:
    for schema in schemas:
        try:
            return checked(schema, data, records)
        except Rejected:
            continue
    raise Rejected("contract_violation", "no branch of the union fits")


def _primitive(kind: str, data: Any) -> Any:
    number = isinstance(data, int | float) and not isinstance(data, bool)
    if kind == "null" and data is None:
        return None
    if kind == "boolean" and isinstance(data, bool):
        return data
    if kind in ("int", "long") and number and data == int(data):
        bound = 2 ** (31 if kind == "int" else 63)
        if -bound <= data < bound:
            return int(data)
    if kind in ("float", "double") and number and float(data) == data:
        return float(data)
    if kind == "string" and isinstance(data, str):
        return data
    raise Rejected("contract_violation", f"not a {kind}")
