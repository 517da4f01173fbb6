"""Catalog: records, reactions, and what protects identity, out of a bundle's models.

A record's id becomes a key of Kafka and lies in a store, so neither it nor a record's fields are personal data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast, get_args

from milepost.schemas.contracts import Contract, field_at, paths_of
from milepost.topology.bundle import BundleText, RecordText
from milepost.topology.catalog_rules import below, overlap
from milepost.topology.definitions import Kind, Protection, Reaction, Record, Source, State, Write, version
from milepost.topology.document import Findings, Path
from milepost.topology.expressions import closest

STATES: Final[tuple[str, ...]] = get_args(State)
CORRECTED: Final = "corrected"
MILESTONE: Final = "milestone."


class RecordReader:
    """Reads `records`, over sources that were read.

    refused: in place of those with a finding, writes that refuse each event (lenient.py)
    """

    def __init__(self, text: BundleText, sources: Mapping[str, Source], findings: Findings) -> None:
        self.text, self.sources, self.findings = text, sources, findings
        self.records: dict[str, Record] = {}
        self.refused: list[Write] = []

    def read(self) -> None:
        for name, texts in self.text.records.items():
            self._record(name, texts)

    def _record(self, name: str, texts: list[RecordText]) -> None:
        here: Path = ("records", name)
        before = len(self.findings.found)
        writes = []
        for i, text in enumerate(texts):
            at = (*here, i) if (*here, i) in self.findings.document.places else here
            if any(text.on == other.on for other in texts[:i]):
                message = f"{name} is written twice by {text.on}: which of the two holds?"
                self.findings.add((*at, "on"), message, fix="keep one of them, or name another type of record")
            write = self._write(name, text, at)
            if write is not None:
                writes.append(write)
        if len(self.findings.found) > before:
            why = self.findings.found[before].message
            self.refused += [refusing_write(name, one.on, why) for one in texts]
            return
        if len(writes) < len(texts):
            return
        contracts = sorted({one.canonical for write in writes for one in self._contracts(write.on)})
        own = [(one.on, ".".join(one.id), one.op, sorted(one.fields.items())) for one in writes]
        self.records[name] = Record(name=name, writes=tuple(writes), version=version("record", name, own, contracts))

    def _write(self, name: str, text: RecordText, here: Path) -> Write | None:
        contracts = self._contracts(text.on)
        if not contracts:
            declared = {one for source in self.text.sources.values() for one in source.types}
            if text.on not in declared:  # else its contract has a finding
                guess = closest(text.on, sorted(declared))
                self.findings.add((*here, "on"), f"no event type is named {text.on!r}", guess=guess)
            return None
        self._field(text, text.id, (*here, "id"), contracts, key=True)
        for field, path in text.fields.items():
            self._field(text, path, (*here, "fields", field), contracts)
        if text.op == "delete" and text.fields:
            self.findings.add((*here, "fields"), "what is deleted has no fields", fix="leave fields out")
        if text.op != "delete" and not text.fields:
            self.findings.add(
                here, f"{text.op} writes fields, none came", fix="add fields: {name: data.name}", key=True
            )
        fields = {field: below(path) for field, path in text.fields.items()}
        return Write(record=name, on=text.on, id=below(text.id), op=text.op, fields=fields)

    def _contracts(self, event_type: str) -> list[Contract]:
        return [one.types[event_type] for one in self.sources.values() if event_type in one.types]

    def _field(self, text: RecordText, path: str, here: Path, contracts: list[Contract], *, key: bool = False) -> None:
        names = below(path)
        for contract in contracts:
            known = field_at(contract.type, names)
            if known is None:
                guess = closest(path, sorted(paths_of(contract.type)))
                message = f"the contract {contract.schema_name} of {text.on} has no field {path}"
                self.findings.add(here, message, guess=guess)
                return
            if key and not (known.kind == "string" or (known.kind == "number" and known.whole)):
                self.findings.add(here, f"a record's id is text or a whole number; {path} is neither")
                return
        for source in self.sources.values():
            if text.on in source.types and any(overlap(names, secret) for secret in source.pii):
                fix = "leave it out: personal data stays in the raw log"
                self.findings.add(here, f"{path} is listed under pii of {source.name}; records do not read it", fix=fix)
                return


def refusing_write(record: str, on: str, why: str) -> Write:
    """A write of which each event of the type `on` is a dead letter (event, type of record) that says why."""
    refused = f"the record does not hold in this release: {why}"
    return Write(record=record, on=on, id=(), op="upsert", fields={}, refused=refused)


def reactions(text: BundleText, findings: Findings) -> dict[str, Reaction]:
    """The reactions of a bundle: each to a milestone's state or to a signal."""
    found = {}
    for name, one in text.reactions.items():
        state = signal = None
        if one.on.startswith(MILESTONE):
            state = one.on.removeprefix(MILESTONE)
            known: Iterable[str] = (*STATES, CORRECTED)
            if state not in known:
                guess = closest(state, known)
                message = f"a milestone is never {state!r}; it is {', '.join(known)}"
                findings.add(("reactions", name, "on"), message, guess=MILESTONE + guess if guess else "")
                continue
        else:
            signal = one.on
            if signal not in text.signals:
                guess = closest(signal, [*text.signals, *(MILESTONE + state for state in STATES)])
                message = f"no signal is named {signal!r}, and it is no milestone.<state>"
                findings.add(("reactions", name, "on"), message, guess=guess)
                continue
        found[name] = Reaction(
            name=name,
            signal=signal,
            state=cast(State, state) if state is not None else None,
            webhook=one.webhook,
            on_replay=one.on_replay,
            version=version("reaction", name, one.on, one.webhook, one.on_replay),
        )
    return found


def protection(text: BundleText, sources: Mapping[str, Source], findings: Findings) -> Protection:
    """`unique`, `limit` of all identities and the section `identity`, by kind of key."""
    kinds = list(dict.fromkeys((one.entity, one.key) for source in sources.values() for one in source.identities))
    unique: set[Kind] = set()
    limits: dict[Kind, int] = {}
    for name, source in text.sources.items():
        for i, one in enumerate(source.identities):
            here: Path = ("sources", name, "identities", i, "limit")
            pair = (one.entity, one.key)
            if one.unique:
                unique.add(pair)
            if one.limit is None:
                continue
            if one.unique and one.limit != 1:
                findings.add(here, f"unique is limit: 1, and limit is {one.limit}", fix="keep one of them")
            if limits.setdefault(pair, one.limit) != one.limit:
                message = f"{one.entity}/{one.key} has limit: {limits[pair]} in another place, {one.limit} here"
                findings.add(here, message, fix=f"limit: {limits[pair]}")
    if text.identity is None:
        return Protection(unique=frozenset(unique), limits=limits, blocked={})

    def named(kind: str, here: Path, *, key: bool = False) -> list[Kind]:
        """The kinds that a name means: `entity/key`, or each entity's key of that name."""
        entity, _, last = kind.rpartition("/")
        found = [one for one in kinds if one[1] == last and entity in ("", one[0])]
        if not found and len(sources) == len(text.sources):
            known = sorted({one for pair in kinds for one in (pair[1], "/".join(pair))})
            elsewhere = ("/".join(one) for one in kinds if one[1] == last)
            guess = next(elsewhere, "") or closest(kind, known)
            findings.add(here, f"no source has a key of the kind {kind!r}", guess=guess, key=key)
        return found

    blocked: dict[Kind, frozenset[str]] = {}
    for kind, values in text.identity.blocked.items():
        for one_kind in named(kind, ("identity", "blocked", kind), key=True):
            blocked[one_kind] = blocked.get(one_kind, frozenset()) | frozenset(values)
    free = text.identity.free_mail
    mail = free.kinds if free is not None else []
    mail_kinds = {one for i, kind in enumerate(mail) for one in named(kind, ("identity", "free_mail", "kinds", i))}
    return Protection(
        unique=frozenset(unique),
        limits=limits,
        blocked=blocked,
        free_mail=frozenset(mail_kinds),
        domains=frozenset(free.domains if free is not None else ()),
    )
