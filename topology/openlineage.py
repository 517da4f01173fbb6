"""OpenLineage: the lineage of a bundle as events that catalogues of data understand.

    raw events of (source, type) ─▶ job rule.X ─▶ signals.X ─▶ job metric.Y ─▶ metrics.Y ─▶ job milestone.Z ─▶ …
                                 └▶ job record.X ─▶ records.X

What is told is static metadata: a DatasetEvent for each kind of raw events, a JobEvent for each job, with what its
output holds and from which fields each of them is made.  No runs: the line runs always, and what happens in it is in
telemetry.

Source: openlineage.io, specification 2-0-2 (product 1.x) and the facets named in `_FACETS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from milepost.schemas.contracts import FieldType
from milepost.topology import manual_words as words
from milepost.topology.bases import written
from milepost.topology.definitions import Catalog, Metric, Rule, Source
from milepost.topology.expressions import Expression
from milepost.topology.lineage import Lineage, Node, versions_of
from milepost.topology.manual import Text

SPEC: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
_FACETS: Final[Mapping[str, str]] = {
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "documentation": "1-1-0/DocumentationDatasetFacet",
    "jobDocumentation": "1-1-0/DocumentationJobFacet",
    "jobOwnership": "1-0-1/OwnershipJobFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "ownership": "1-0-1/OwnershipDatasetFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "sourceCode": "1-0-1/SourceCodeJobFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
"""Facet -> version and name of its published schema."""
_VALUE: Final = FieldType(kind="number")
_TEXT: Final = FieldType(kind="string")
Event = dict[str, Any]
Column = tuple[str, str, str, str]
"""(dataset, field, DIRECT or INDIRECT, subtype) that a column is made of."""


def events(catalog: Catalog, org: str, *, at_ms: int, producer: str) -> list[Event]:
    """The events, in the order of the line.  at_ms: when the definitions came into force;  producer: a URI"""
    return list(_Teller(catalog, org, at_ms, producer).events())


class _Teller:
    def __init__(self, catalog: Catalog, org: str, at_ms: int, producer: str) -> None:
        self.catalog, self.producer = catalog, producer
        self.namespace, self.at = f"milepost://{org}", written(at_ms)
        self.lineage, self.versions = Lineage(catalog), versions_of(catalog)

    def events(self) -> Iterator[Event]:
        for source in self.catalog.sources.values():
            for name in source.types:
                yield self._event("DatasetEvent", dataset=self._raw(source, name))
        for rule in self.catalog.rules.values():
            yield self._rule(rule)
        for metric in self.catalog.metrics.values():
            yield self._metric(metric)
        for record in self.catalog.records.values():
            yield self._record(record.name)
        for milestone in self.catalog.milestones.values():
            watched = dict.fromkeys(one.metric for one in milestone.actions.values() if one.metric)
            columns = {"state": [(f"metrics.{one}", "value", "DIRECT", "TRANSFORMATION") for one in watched]}
            node, meaning = Node("milestone", milestone.name), words.of_milestone(milestone)
            yield self._job(node, meaning, [f"metrics.{one}" for one in watched], columns, {"state": _TEXT})
        for plan in self.catalog.plans.values():
            made = [f"milestones.{one}" for one in plan.milestones] + [f"metrics.{one}" for one in plan.metrics]
            yield self._job(Node("plan", plan.name), words.of_plan(plan), made, {}, {})

    def _raw(self, source: Source, event_type: str) -> Event:
        contract = source.types[event_type]
        facets = {
            "schema": self._facet("schema", fields=[_field(*one) for one in contract.type.fields.items()]),
            "version": self._facet("version", datasetVersion=self.versions[f"contract-{contract.schema_name}"]),
            **self._owned("ownership", [source.owner]),
        }
        if contract.type.doc:
            facets["documentation"] = self._facet("documentation", description=contract.type.doc)
        return {**self._dataset(_raw_name(source, event_type)), "facets": facets}

    def _rule(self, rule: Rule) -> Event:
        senders = [one for one in self.catalog.sources.values() if rule.on in one.types]
        raw = [_raw_name(one, rule.on) for one in senders]
        columns = {name: _read(raw, one, "DIRECT") for name, one in rule.fields.items()}
        filtered = [] if rule.when is None else _read(raw, rule.when, "INDIRECT", "FILTER")
        fields = {name: FieldType(kind=one.kind, nullable=one.nullable) for name, one in rule.fields.items()}
        code = rule.when.text.strip() if rule.when is not None else ""
        node = Node("rule", rule.name)
        return self._job(node, words.of_rule(rule), raw, columns, fields, filtered=filtered, language="CEL", code=code)

    def _metric(self, metric: Metric) -> Event:
        node, meaning = Node("metric", metric.name), words.of_metric(metric)
        fields = {"value": _VALUE} | dict.fromkeys(metric.dimensions, _TEXT)
        if metric.formula is not None:
            made = [f"metrics.{one}" for one in metric.operands]
            columns: dict[str, list[Column]] = {"value": [(one, "value", "DIRECT", "TRANSFORMATION") for one in made]}
            for name in metric.dimensions:
                columns[name] = [(one, name, "DIRECT", "IDENTITY") for one in made]
            return self._job(node, meaning, made, columns, fields, language="CEL", code=metric.formula.text.strip())
        assert metric.measure is not None
        signals, field = f"signals.{metric.measure.rule}", metric.measure.field
        columns = {"value": [] if field is None else [(signals, field, "DIRECT", "AGGREGATION")]}
        grouped = [(signals, one, "INDIRECT", "GROUP_BY") for one in metric.dimensions]
        columns |= {one: [(signals, one, "DIRECT", "IDENTITY")] for one in metric.dimensions}
        return self._job(node, meaning, [signals], columns, fields, filtered=grouped)

    def _record(self, name: str) -> Event:
        record = self.catalog.records[name]
        columns: dict[str, list[Column]] = {}
        raw: list[str] = []
        for write in record.writes:
            some = [_raw_name(one, write.on) for one in self.catalog.sources.values() if write.on in one.types]
            raw += some
            for field, path in {"id": write.id, **write.fields}.items():
                columns.setdefault(field, []).extend((one, ".".join(path), "DIRECT", "IDENTITY") for one in some)
        meaning = words.of_write(record.writes[0])
        return self._job(
            Node("record", name), meaning, list(dict.fromkeys(raw)), columns, dict.fromkeys(columns, _TEXT)
        )

    # --- the parts of an event

    def _job(
        self,
        node: Node,
        meaning: Text,
        made_of: Sequence[str],
        columns: Mapping[str, Sequence[Column]],
        fields: Mapping[str, FieldType],
        *,
        filtered: Sequence[Column] = (),
        language: str = "",
        code: str = "",
    ) -> Event:
        said = words.plain(meaning)
        owners = list(self.lineage.owners_of(node))
        facets = {
            "jobType": self._facet(
                "jobType", processingType="STREAMING", integration="MILEPOST", jobType=node.what.upper()
            ),
            "documentation": self._facet("jobDocumentation", description=said),
            **self._owned("jobOwnership", owners),
        }
        if code:
            facets["sourceCode"] = self._facet("sourceCode", language=language, sourceCode=code)
        output: Event = {
            "version": self._facet("version", datasetVersion=self.versions[node.id]),
            "documentation": self._facet("documentation", description=said),
            **self._owned("ownership", owners),
        }
        if fields:
            output["schema"] = self._facet("schema", fields=[_field(*one) for one in fields.items()])
        if columns:
            lineage = {name: {"inputFields": [self._input(*one) for one in some]} for name, some in columns.items()}
            output["columnLineage"] = self._facet(
                "columnLineage", fields=lineage, dataset=[self._input(*one) for one in filtered]
            )
        job = {"namespace": self.namespace, "name": f"{node.what}.{node.name}", "facets": facets}
        made = "signals" if node.what == "rule" else f"{node.what}s"
        return self._event(
            "JobEvent",
            job=job,
            inputs=[self._dataset(one) for one in made_of],
            outputs=[{**self._dataset(f"{made}.{node.name}"), "facets": output}],
        )

    def _event(self, kind: str, **more: Any) -> Event:
        return {"eventTime": self.at, "producer": self.producer, "schemaURL": SPEC + kind, **more}

    def _dataset(self, name: str) -> Event:
        return {"namespace": self.namespace, "name": name}

    def _facet(self, name: str, **more: Any) -> Event:
        place = _FACETS[name]
        url = f"https://openlineage.io/spec/facets/{place}.json#/$defs/{place.partition('/')[2]}"
        return {"_producer": self.producer, "_schemaURL": url, **more}

    def _owned(self, facet: str, owners: Iterable[str]) -> Event:
        """Who answers for it; nothing is said where nobody does."""
        named = [{"name": one, "type": "OWNER"} for one in owners if one]
        return {"ownership": self._facet(facet, owners=named)} if named else {}

    def _input(self, dataset: str, field: str, kind: str, subtype: str) -> Event:
        how = [{"type": kind, "subtype": subtype}]
        return {**self._dataset(dataset), "field": field, "transformations": how}


def _raw_name(source: Source, event_type: str) -> str:
    return f"raw-events.{source.name}.{event_type}"


def _read(raw: Sequence[str], expression: Expression, kind: str, subtype: str = "") -> list[Column]:
    """What an expression reads of the data of raw events."""
    alone = expression.text.strip() in expression.paths
    how = subtype or ("IDENTITY" if alone else "TRANSFORMATION")
    paths = [one.removeprefix("data.") for one in expression.paths if one.startswith("data.")]
    return [(dataset, path, kind, how) for dataset in raw for path in paths]


def _field(name: str, of: FieldType) -> Event:
    """A field of a schema, with those inside it."""
    told: Event = {"name": name, "type": of.kind}
    if of.doc:
        told["description"] = of.doc
    if of.fields:
        told["fields"] = [_field(*one) for one in of.fields.items()]
    return told
