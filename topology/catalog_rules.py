"""Catalog, first half: contracts, sources and rules out of a bundle's models.

What a name refers to is looked up here: a schema's file, a key's field, an event type, a path in an expression.  A
fault becomes a finding, and what depends on it is left out (`broken`), so that one fault is told once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from milepost.schemas.contracts import Contract, FieldType, SchemaFault, compile_contract, field_at, paths_of
from milepost.schemas.errors import BundleError, Finding, RuleError
from milepost.topology import breach_records, by_hand
from milepost.topology.bundle import BundleText, ExpectText, SignalText, SourceText, duration_ms
from milepost.topology.by_library import Value
from milepost.topology.definitions import Expect, Identity, Rule, Source, version
from milepost.topology.document import Findings, Path, read
from milepost.topology.expressions import Expression, ExpressionFault, closest, compile_expression

SCHEMA_FILE: Final = re.compile(r"schemas/([A-Za-z_][A-Za-z0-9_]{0,127})\.avsc")


class RuleReader:
    """Reads `sources` and `signals`.

    broken:  names of signals that have a finding
    refused: in their place, rules that refuse each event; of use where the bundle is taken all the same (lenient.py)
    """

    def __init__(self, files: Mapping[str, bytes], text: BundleText, findings: Findings) -> None:
        self.files, self.text, self.findings = files, text, findings
        self.contracts: dict[str, Contract | None] = {}
        self.sources: dict[str, Source] = {}
        self.rules: dict[str, Rule] = {}
        self.broken: set[str] = set()
        self.refused: list[Rule] = []

    def read(self) -> None:
        for name, source in self.text.sources.items():
            self._source(name, source)
        for name, signal in self.text.signals.items():
            self._rule(name, signal)

    def _source(self, name: str, text: SourceText) -> None:
        here: Path = ("sources", name)
        if name == by_hand.NAME:
            self.findings.add(here, f"the source {name} is ours: decisions by hand come under it", key=True)
            return
        types: dict[str, Contract] = {}
        for type_name, reference in text.types.items():
            if type_name.startswith("milepost."):
                self.findings.add((*here, "types", type_name), "types that begin with milepost. are ours", key=True)
                continue
            contract = self._contract(reference.schema_name, (*here, "types", type_name, "schema"))
            if contract is not None:
                types[type_name] = contract
        identities = []
        whole = len(types) == len(text.types)
        for i, one in enumerate(text.identities):
            path = below(one.path)
            if whole:
                self._check_key(types, path, (*here, "identities", i, "from"), required=one.required)
            identities.append(
                Identity(
                    entity=one.entity,
                    key=one.key,
                    path=path,
                    required=one.required,
                    label=one.label,
                    unique=one.unique,
                    limit=one.limit,
                )
            )
        for kind, paths in (("pii", text.pii), ("volatile", text.volatile)):
            for i, field_path in enumerate(paths):
                if whole and all(field_at(one.type, below(field_path)) is None for one in types.values()):
                    self._no_field(types, field_path, (*here, kind, i))
        self.sources[name] = Source(
            name=name,
            owner=text.owner,
            types=types,
            identities=tuple(identities),
            pii=tuple(map(below, text.pii)),
            volatile=tuple(map(below, text.volatile)),
            future_skew_ms=duration_ms(text.future_skew),
            expect=_expect(text.expect),
            version=version(
                "source",
                name,
                text.model_dump(exclude={"types", "future_skew"}),
                duration_ms(text.future_skew),
                sorted((one, contract.canonical) for one, contract in types.items()),
            ),
        )

    def _contract(self, name: str, here: Path) -> Contract | None:
        file = f"schemas/{name}.avsc"
        if name in self.contracts:
            return self.contracts[name]
        if file not in self.files:
            known = [found[1] for one in self.files if (found := SCHEMA_FILE.fullmatch(one))]
            self.findings.add(here, f"the bundle has no {file}", guess=closest(name, known), fix=f"add {file}")
            return None
        self.contracts[name] = None
        try:
            self.contracts[name] = compile_contract(name, self.files[file])
        except SchemaFault as fault:
            self.findings.found.append(_schema_finding(file, self.files[file], fault))
        return self.contracts[name]

    def _check_key(self, types: Mapping[str, Contract], path: tuple[str, ...], here: Path, *, required: bool) -> None:
        found = {name: known for name, one in types.items() if (known := field_at(one.type, path)) is not None}
        if not found:
            self._no_field(types, ".".join(("data", *path)), here)
            return
        for name, known in found.items():
            if not (known.kind == "string" or (known.kind == "number" and known.whole)):
                self.findings.add(here, f"a key is text or a whole number; in {name} it is neither")
        if required and len(found) < len(types):
            missing = next(name for name in types if name not in found)
            message = f"the key is required, and the contract of {missing} has no such field"
            self.findings.add(here, message, fix="required: false")

    def _no_field(self, types: Mapping[str, Contract], path: str, here: Path) -> None:
        known = {name for one in types.values() for name in paths_of(one.type)}
        self.findings.add(here, f"no contract of the source has the field {path}", guess=closest(path, sorted(known)))

    def _rule(self, name: str, text: SignalText) -> None:
        here: Path = ("signals", name)
        before = len(self.findings.found)
        sources = [one for one in self.sources.values() if text.on in one.types]
        ours = breach_records.TYPES.get(text.on)
        if not sources and ours is None:
            self.broken.add(name)
            declared = {one for source in self.text.sources.values() for one in source.types}
            if text.on not in declared:  # else its contract has a finding
                guess = closest(text.on, sorted(declared))
                self.findings.add((*here, "on"), f"no source has the event type {text.on!r}", guess=guess)
            return
        contracts = [source.types[text.on] for source in sources] if ours is None else [ours]
        data = _common([paths_of(one.type) for one in contracts])
        when = self._expression((*here, "when"), text.when, data, sources, "boolean") if text.when is not None else None
        fields = {}
        for field_name, field_text in text.fields.items():
            expression = self._expression((*here, "fields", field_name), field_text, data, sources, "value")
            if expression is not None:
                fields[field_name] = expression
        if len(self.findings.found) > before:
            self.broken.add(name)
            self.refused.append(refusing(name, text.on, self.findings.found[before].message))
            return
        own = version(
            "rule",
            name,
            text.on,
            when.canonical if when is not None else None,
            sorted((one, expression.canonical) for one, expression in fields.items()),
            sorted({one.canonical for one in contracts}),
        )
        self.rules[name] = Rule(name=name, on=text.on, when=when, fields=fields, version=own)

    def _expression(
        self,
        here: Path,
        text: str,
        data: Mapping[str, FieldType],
        sources: list[Source],
        wants: Literal["boolean", "value"],
    ) -> Expression | None:
        try:
            expression = compile_expression(text, "rule", data=data, wants=wants)
        except ExpressionFault as fault:
            self.findings.add(here, fault.message, guess=fault.guess, fix=fault.fix, offset=fault.offset)
            return None
        for path in expression.paths:
            names = tuple(path.split("."))
            for source in sources:
                if any(overlap(names[1:], secret) for secret in source.pii if names[0] == "data"):
                    fix = "leave it out: personal data stays in the raw log"
                    message = f"{path} is listed under pii of {source.name}; rules do not read it"
                    self.findings.add(here, message, fix=fix)
                    return None
        return expression


def refusing(name: str, on: str, why: str) -> Rule:
    """A rule of which each event of the type `on` is a dead letter (event, rule) that says why."""

    def refuse(_data: object, _event: object) -> Value:
        raise RuleError(f"the rule does not hold in this release: {why}")

    never = Expression(
        text="", canonical="", paths=(), kind="boolean", nullable=False, whole=False, library="", evaluate=refuse
    )
    return Rule(name=name, on=on, when=never, fields={}, version=version("refused", name, on, why))


def below(path: str) -> tuple[str, ...]:
    """The names below `data` of a path: `data.a.b` is ("a", "b")."""
    return tuple(path.split(".")[1:])


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path is the other, or lies below it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _expect(text: ExpectText | None) -> Expect:
    if text is None:
        return Expect()
    return Expect(
        freshness_ms=duration_ms(text.freshness) if text.freshness is not None else None,
        volume_per_ms=duration_ms(text.volume.per) if text.volume is not None else None,
        volume_min=text.volume.min if text.volume is not None else None,
        unmatched_max=float(text.unmatched_max[:-1]) / 100 if text.unmatched_max is not None else None,
    )


def _common(all_paths: list[dict[str, FieldType]]) -> dict[str, FieldType]:
    """The paths that every contract of an event type has in one kind: a rule must hold for all its sources."""
    first, *rest = all_paths
    common = {}
    for path, known in first.items():
        others = [one[path] for one in rest if path in one]
        if len(others) == len(rest) and all(one.kind == known.kind for one in others):
            nullable, whole = (any(getattr(one, name) for one in (known, *others)) for name in ("nullable", "whole"))
            of = known.of if all(one.of == known.of for one in others) else None
            kind = known.kind if of == known.of else "mixed"
            common[path] = FieldType(kind=kind, nullable=nullable, whole=whole, fields=known.fields, of=of)
    return common


def _schema_finding(file: str, text: bytes, fault: SchemaFault) -> Finding:
    """A schema's fault at its place: JSON is YAML, so the same reader knows the lines."""
    if fault.line:
        return Finding(file=file, line=fault.line, column=fault.column, message=fault.message)
    try:
        return read(file, text.decode()).finding(fault.path, fault.message)
    except (BundleError, UnicodeDecodeError):
        return Finding(file=file, line=1, column=1, message=fault.message)
