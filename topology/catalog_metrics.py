"""Catalog, second half: measures and metrics out of a bundle's models.

A metric with aggregates is one measure or a few (one for each field, percentiles of a field, entity or count), and one
metric for each aggregate.  A formula is a metric over metrics; circles are found here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple, cast

from milepost.schemas.contracts import field_at
from milepost.topology.aggregates import Shape
from milepost.topology.bundle import BundleText, MetricText, duration_ms
from milepost.topology.definitions import Aggregate, Measure, Metric, Rule, Source, version
from milepost.topology.document import Findings, Path
from milepost.topology.expressions import Expression, ExpressionFault, closest, compile_expression

METRICS_MAX: Final = 1000
_AGGREGATE: Final = re.compile(r"([a-z]+)(?:\(([a-z][a-z0-9_-]{0,62})(?:,([^,()]*))?\))?")
_AGGREGATES: Final = ("count", "sum", "min", "max", "avg", "distinct", "last", "percentile")
_PERCENT: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?")


class Fold(NamedTuple):
    """An aggregate as it was written.  operand: a field, an entity or "";  percent: of a percentile"""

    aggregate: Aggregate
    operand: str
    percent: Decimal | None = None

    @property
    def suffix(self) -> str:
        """What names its metric among those of a list: `sum`, `p95`, `p99_9`."""
        return self.aggregate if self.percent is None else f"p{self.percent:f}".replace(".", "_")

    @property
    def family(self) -> str:
        """What shares a measure: aggregates of one field; its percentiles; a count; the distinct of one entity."""
        if self.aggregate == "distinct":
            return f"distinct.{self.operand}"
        if self.aggregate == "percentile":
            return f"sketch.{self.operand}"
        return f"field.{self.operand}" if self.operand else "count"


class MetricReader:
    """Reads `metrics`, over sources and rules that were read.

    broken: names of signals, then also of metrics, that have a finding: who refers to them gets none for that
    """

    def __init__(
        self,
        text: BundleText,
        sources: Mapping[str, Source],
        rules: Mapping[str, Rule],
        broken: set[str],
        findings: Findings,
    ) -> None:
        self.text, self.sources, self.rules, self.findings = text, sources, rules, findings
        self.broken_rules = broken
        self.broken: set[str] = set()
        self.measures: list[Measure] = []
        self.metrics: dict[str, Metric] = {}

    def read(self) -> None:
        parents: dict[str, int] = {}
        for place, (name, text) in enumerate(self.text.metrics.items()):
            before, known, measures = len(self.findings.found), set(self.metrics), len(self.measures)
            if text.formula is None:
                self._measured(name, text)
            if len(self.findings.found) > before:
                self.broken |= {name} | (set(self.metrics) - known)
                self.metrics = {one: self.metrics[one] for one in self.metrics if one in known}
                del self.measures[measures:]
            parents |= dict.fromkeys(set(self.metrics) - known, place) | {name: place}
        formulas = {
            name: expression
            for name, text in self.text.metrics.items()
            if text.formula is not None and (expression := self._formula(name, text.formula)) is not None
        }
        for name in formulas:
            self._computed(name, formulas, ())
        # In the order of the bundle, whatever order the formulas needed.
        self.metrics = dict(sorted(self.metrics.items(), key=lambda one: parents[one[0]]))
        if len(self.metrics) > METRICS_MAX:
            message = f"a bundle has at most {METRICS_MAX} metrics, {len(self.metrics)} came"
            self.findings.add(("metrics",), message, key=True)

    def _measured(self, name: str, text: MetricText) -> None:
        here: Path = ("metrics", name)
        rule = self.rules.get(text.rule or "")
        if rule is None:
            if text.rule in self.broken_rules:
                self.broken.add(name)
            else:
                guess = closest(text.rule or "", self.text.signals)
                self.findings.add((*here, "from"), f"no signal is named {text.rule!r}", guess=guess)
            return
        self._check_dimensions(here, text, rule)
        many = isinstance(text.aggregate, list)
        aggregates = text.aggregate if isinstance(text.aggregate, list) else [text.aggregate or ""]
        parsed: list[Fold] = []
        for i, written in enumerate(aggregates):
            if i and _cut(aggregates[i - 1]):
                continue  # the rest of what was found cut
            at = (*here, "aggregate", i) if many else (*here, "aggregate")
            known = self._aggregate(written, at, rule)
            if known is not None and known.suffix in [before.suffix for before in parsed]:
                message = f"{known.suffix} stands twice: their metrics would have one name"
                self.findings.add(at, message, fix="make two metrics of it")
            elif known is not None:
                parsed.append(known)
        if len(parsed) < len(aggregates):
            return
        measures = self._group(name, text, rule, parsed)
        for one in parsed:
            full = f"{name}_{one.suffix}" if many else name
            measure = measures[one.family]
            if many and (full in self.text.metrics or full in self.metrics):
                message = f"the metric {full} is declared twice: here it comes from the list of aggregates"
                self.findings.add(here, message, key=True)
                continue
            if len(full) > 63:
                self.findings.add(here, f"the name {full} is longer than 63 letters", key=True)
                continue
            grain_ms = duration_ms(text.grain)
            said = (full, one.aggregate, text.unit, grain_ms, measure.version.hex())
            self.metrics[full] = Metric(
                name=full,
                unit=text.unit,
                aggregate=one.aggregate,
                measure=measure,
                formula=None,
                operands=(),
                grain_ms=grain_ms,
                version=version("metric", *said, *([] if one.percent is None else [str(one.percent)])),
                dimensions=measure.dimensions,
                percent=one.percent,
            )
        self.measures.extend(measures.values())

    def _check_dimensions(self, here: Path, text: MetricText, rule: Rule) -> None:
        for i, dimension in enumerate(text.dimensions):
            at = (*here, "dimensions", i)
            expression = rule.fields.get(dimension)
            if expression is None:
                guess = closest(dimension, rule.fields)
                fix = f"add it to the fields of signal {rule.name}"
                self.findings.add(at, f"signal {rule.name} has no field {dimension!r}", guess=guess, fix=fix)
            elif expression.kind == "number" and not self._whole(expression, rule):
                fix = "a dimension is text, true or false, or a whole number, as in int(data.x)"
                message = f"{dimension!r} is a number with decimals: each would be a value of its own"
                self.findings.add(at, message, fix=fix)
            if dimension in text.dimensions[:i]:
                self.findings.add(at, f"the dimension {dimension!r} stands twice")
        for dimension in text.values:
            if dimension not in text.dimensions:
                guess = closest(dimension, text.dimensions)
                message = f"{dimension!r} is no dimension of this metric"
                self.findings.add((*here, "values", dimension), message, guess=guess, key=True)

    def _whole(self, expression: Expression, rule: Rule) -> bool:
        if expression.whole:
            return True
        types = [source.types[rule.on].type for source in self.sources.values() if rule.on in source.types]
        known = [field_at(one, tuple(expression.canonical.split(".")[1:])) for one in types]
        return all(one is not None and one.whole for one in known)

    def _aggregate(self, text: str, at: Path, rule: Rule) -> Fold | None:
        """What an aggregate says, or None after a finding."""
        if _cut(text):
            fix = f'write "{text}, 95)", in quotes'
            self.findings.add(at, f"{text!r} is cut: inside {{}} and [] YAML ends a text at its comma", fix=fix)
            return None
        found = _AGGREGATE.fullmatch(text.replace(" ", ""))
        name = found[1] if found is not None else text.partition("(")[0]
        if found is None or name not in _AGGREGATES:
            known = "count, sum(field), min(field), max(field), avg(field), last(field), percentile(field, 95)"
            message = f"an aggregate is {known} or distinct(entity); {text!r} came"
            self.findings.add(at, message, guess=closest(name, _AGGREGATES))
            return None
        aggregate, operand = cast(Aggregate, name), found[2] or ""
        if aggregate == "count":
            if operand:
                self.findings.add(at, "count takes nothing: it counts signals", fix="write count")
                return None
            return Fold(aggregate, "")
        percent = self._percent(aggregate, operand, found[3], at)
        if (percent is None) != (aggregate != "percentile") or (percent is None and found[3] is not None):
            return None
        if not operand:
            what = "an entity" if aggregate == "distinct" else "a field of the signal"
            self.findings.add(at, f"{aggregate} takes {what}", fix=f"write {aggregate}(name)")
            return None
        if aggregate == "distinct":
            return Fold(aggregate, operand) if self._check_entity(operand, at, rule) else None
        expression = rule.fields.get(operand)
        if expression is None:
            fix = f"add it to the fields of signal {rule.name}"
            message = f"signal {rule.name} has no field {operand!r}"
            self.findings.add(at, message, guess=closest(operand, rule.fields), fix=fix, offset=text.find("(") + 1)
            return None
        if expression.kind != "number":
            self.findings.add(at, f"{aggregate} takes a number; the field {operand!r} of signal {rule.name} is none")
            return None
        return Fold(aggregate, operand, percent)

    def _percent(self, aggregate: Aggregate, operand: str, text: str | None, at: Path) -> Decimal | None:
        """The percent of a percentile, in its shortest form; None for other aggregates, and after a finding."""
        if aggregate != "percentile":
            if text is not None:
                self.findings.add(at, f"{aggregate} takes one name", fix=f"write {aggregate}({operand})")
            return None
        known = _PERCENT.fullmatch(text or "")
        if known is None or not float(known[0]):
            message = "percentile takes a field and a number above 0 and below 100, with three decimals at most"
            self.findings.add(at, message, fix=f"write percentile({operand or 'name'}, 95)")
            return None
        return Decimal(f"{Decimal(known[0]).normalize():f}")

    def _check_entity(self, entity: str, at: Path, rule: Rule) -> bool:
        known = {
            one.entity
            for source in self.sources.values()
            if rule.on in source.types
            for one in source.identities
            if field_at(source.types[rule.on].type, one.path) is not None
        }
        if entity == "company":
            fix = "ask for a breakdown by company instead"
            self.findings.add(at, "distinct counts what belongs to a company, not the company itself", fix=fix)
            return False
        if entity not in known:
            guess = closest(entity, sorted(known))
            self.findings.add(at, f"events of {rule.on} have no key of the entity {entity!r}", guess=guess)
            return False
        return True

    def _group(self, name: str, text: MetricText, rule: Rule, parsed: list[Fold]) -> dict[str, Measure]:
        """One measure a field, entity or count; its shape is what its aggregates need."""
        families: dict[str, list[Fold]] = {}
        for one in parsed:
            families.setdefault(one.family, []).append(one)
        measures = {}
        for family, members in families.items():
            wanted = {one.aggregate for one in members}
            shape = Shape(
                sum=bool(wanted & {"sum", "avg"}),
                extremes=bool(wanted & {"min", "max"}),
                last="last" in wanted,
                distinct="distinct" in wanted,
                sketch="percentile" in wanted,
            )
            operand = members[0].operand
            full = name if len(families) == 1 else f"{name}.{family}"
            values = {one: frozenset(text.values.get(one, ())) for one in text.dimensions if one in text.values}
            measures[family] = Measure(
                name=full,
                version=version(
                    "measure",
                    full,
                    rule.version.hex(),
                    [shape.sum, shape.extremes, shape.last, shape.distinct],  # a sketch shows in the family
                    family,
                    text.dimensions,
                    text.scale,
                    {one: sorted(named) for one, named in values.items()},
                    text.max_values,
                ),
                rule=rule.name,
                shape=shape,
                field=operand if operand and not shape.distinct else None,
                entity=operand if shape.distinct else None,
                dimensions=tuple(text.dimensions),
                scale=text.scale,
                values=values,
                max_values=text.max_values,
            )
        return measures

    def _formula(self, name: str, text: str) -> Expression | None:
        here: Path = ("metrics", name, "formula")
        expanded: dict[str, list[str]] = {}
        known = set(self.metrics)
        for other, metric in self.text.metrics.items():
            if isinstance(metric.aggregate, list):
                expanded[other] = [f"{other}_{_suffix(one)}" for one in metric.aggregate]
                known |= set(expanded[other]) if other in self.broken else set()
            else:
                known.add(other)
        try:
            expression = compile_expression(text, "formula", metrics=known)
        except ExpressionFault as fault:
            meant = next((one for one in expanded if f"{one!r}" in fault.message), None)
            guess = expanded[meant][0] if meant is not None else fault.guess
            self.findings.add(here, fault.message, guess=guess, fix=fault.fix, offset=fault.offset)
            self.broken.add(name)
            return None
        if not expression.paths:
            self.findings.add(here, "a formula computes from metrics, this one names none")
            self.broken.add(name)
            return None
        return expression

    def _computed(self, name: str, formulas: Mapping[str, Expression], above: tuple[str, ...]) -> Metric | None:
        """The metric of a formula, its operands first; None when one of them has a finding."""
        if name in self.metrics or name in self.broken:
            return self.metrics.get(name)
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            self.findings.add(("metrics", name, "formula"), f"the formula reads itself: {circle}")
            self.broken.update(above[above.index(name) :])
            return None
        if name not in formulas:
            return None
        expression = formulas[name]
        operands = [self._computed(one, formulas, (*above, name)) for one in expression.paths]
        found = [one for one in operands if one is not None]
        if len(found) < len(operands):
            self.broken.add(name)
            return None
        unit = self.text.metrics[name].unit
        self.metrics[name] = Metric(
            name=name,
            unit=unit,
            aggregate=None,
            measure=None,
            formula=expression,
            operands=expression.paths,
            grain_ms=max(one.grain_ms for one in found),
            version=version("metric", name, expression.canonical, unit, [one.version.hex() for one in found]),
            dimensions=tuple(one for one in found[0].dimensions if all(one in other.dimensions for other in found)),
        )
        return self.metrics[name]


def _cut(text: str) -> bool:
    return text.startswith("percentile(") and ")" not in text


def _suffix(text: str) -> str:
    """The suffix that an aggregate as written gives to its metric, whether or not it is right."""
    found = _AGGREGATE.fullmatch(text.replace(" ", ""))
    if found is not None and found[3] is not None and _PERCENT.fullmatch(found[3]):
        return Fold("percentile", "", Decimal(f"{Decimal(found[3]).normalize():f}")).suffix
    return text.partition("(")[0]
