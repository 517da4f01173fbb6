"""Reading a raw log in order: what became of each record.

    record ─▶ marker · tick                                   (not events)
           ├▶ foreign_tombstone · misrouted · duplicate       (drops)
           ├▶ not_decodable … missing_key                     (dead letters)
           └▶ event ─▶ one signal, one `rule_error`, or nothing for each rule on its type

Partitions are read one after the other: nothing that is decided here looks across them, but for records that lie in the
wrong place.  Those are read where they belong: as the forwarded copy, if the log holds it, else behind everything else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.oracle import avro, clock, definitions, expressions, keys
from tests.oracle.definitions import Definitions, Rejected

VALUE_BYTES_MAX = 1024 * 1024
NAME_BYTES_MAX = 256
DEPTH_MAX = 32
FREE_MAIL = ("gmail.com", "outlook.com", "gmx.de")
"""Those of the engine's list that scenarios use."""

_OPTIONAL = {"type": ["null", "string"], "default": None}
_KEYS = [
    {"name": "entity", "type": "string", "default": "company"},
    {"name": "keys", "type": {"type": "array", "items": "string"}},
    {"name": "by", **_OPTIONAL},
]
_MEMBERSHIP = [
    {"name": "entity", "type": "string", "default": "person"},
    {"name": "member", "type": "string"},
    {"name": "company", "type": "string"},
    *({"name": name, **_OPTIONAL} for name in ("from", "to", "by")),
]
_ACTION = [
    *({"name": name, "type": "string"} for name in ("plan", "milestone", "action", "company")),
    {"name": "done", "type": "boolean"},
    {"name": "by", **_OPTIONAL},
]
_ACCEPTED = [
    *({"name": name, "type": "string"} for name in ("plan", "milestone", "company", "dispute")),
    {"name": "by", **_OPTIONAL},
]
_COMPLETE = [{"name": "source", "type": "string"}, {"name": "until", "type": "string"}, {"name": "by", **_OPTIONAL}]
_RECORD = [
    *({"name": name, "type": "string"} for name in ("record", "id", "op")),
    {"name": "fields", "type": "string", "default": "{}"},
    {"name": "by", **_OPTIONAL},
]
_BREACH = [
    *({"name": name, "type": "string"} for name in ("source", "since")),
    {"name": "holds", "type": "boolean"},
    {"name": "by", **_OPTIONAL},
]
_OPS = ("upsert", "create", "update", "patch", "delete")
OURS = definitions.Source(
    name="milepost",
    identities=(),
    types={
        "milepost.link": {"type": "record", "name": "Link", "fields": _KEYS},
        "milepost.unlink": {"type": "record", "name": "Unlink", "fields": _KEYS},
        "milepost.membership": {"type": "record", "name": "Membership", "fields": _MEMBERSHIP},
        "milepost.source_complete": {"type": "record", "name": "Complete", "fields": _COMPLETE},
        "milepost.dispute_accepted": {"type": "record", "name": "Accepted", "fields": _ACCEPTED},
        "milepost.action": {"type": "record", "name": "Action", "fields": _ACTION},
        "milepost.record": {"type": "record", "name": "Record", "fields": _RECORD},
        **{name: {"type": "record", "name": "Breach", "fields": _BREACH} for name in definitions.BREACHES},
    },
    volatile=(),
    future_skew_ms=10 * clock.MINUTE,
)
"""The source of decisions by hand: no bundle declares it."""

_Present = list[tuple[definitions.Identity, str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One rule's signal.  `measures` are the signatures of the measures that fold it."""

    rule: str
    fields: Mapping[str, Any]
    measures: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Wrote:
    """What one revision of an event writes into a record."""

    record: str
    id: str
    op: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One revision of an accepted event.

    key:       of its revision 0;  rank: (revision, repair)
    leaf:      what it is stored under;  members: all (entity, leaf) that it names
    ended_ms:  known time from which a higher revision counts in its place; None: there is none
    superseded: a higher one was known before, so it never counted
    """

    org: str
    source: str
    id: str
    type: str
    key: bytes
    t_ms: int
    k_ms: int
    first: tuple[int, int]
    leaf: bytes
    members: tuple[tuple[str, bytes], ...]
    signals: tuple[Signal, ...]
    writes: tuple[Wrote, ...] = ()
    rank: tuple[int, int] = (0, 0)
    void: bool = False
    ended_ms: int | None = None
    superseded: bool = False


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """`rule` is set where the pair (event, rule) died and not the event."""

    partition: int
    offset: int
    reason: str
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class KeyFact:
    """An alternate key as it was first seen."""

    org: str
    entity: str
    key: str
    value: str
    source: str
    k_ms: int
    label: bool
    rank: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a person decided of identity: `link`, `unlink` (leaves), or `membership` (member, company, [from, to))."""

    org: str
    what: str
    id: bytes
    leaves: tuple[bytes, ...]
    k_ms: int
    rank: tuple[int, int] = (0, 0)
    void: bool = False
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What was said of a source: complete up to `until_ms`."""

    org: str
    source: str
    until_ms: int
    k_ms: int


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A record of a source that promises something (`expect`), as it came in: not imported, not repaired.

    reason:    why it was refused; "": it was accepted
    new:       the first version of an event, and no void
    unmatched: its contract names a company's key, and it has none
    """

    org: str
    source: str
    k_ms: int
    reason: str
    new: bool
    unmatched: bool


@dataclass(kw_only=True)
class Reading:
    """What a log says.

    counts:  of records: read = accepted + duplicate + copy + misrouted + every `dead:REASON`; beside them
             foreign_tombstone, marker, tick, bad_stamp (its MAC is not right, so it is ignored);
             of accepted events no_rule (no signal and no dead pair);
             of pairs (event, rule): signal, rule_declined (`when` is false), every `dead_pair:REASON`
    edges:   (org, leaf, leaf) with the smaller leaf first -> least known time of a proposal
    applied: organisation -> (known time, bundle) in the order of the markers
    decisions: by hand, in the order in which they were read;  completions, arrivals: likewise
    """

    events: list[Event] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    edges: dict[tuple[str, bytes, bytes], int] = field(default_factory=dict)
    keys: dict[bytes, KeyFact] = field(default_factory=dict)
    applied: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Envelope:
    org: str
    source: str
    id: str
    type: str
    time: str
    revision: int
    void: bool
    repair: int
    data: Any


@dataclass(frozen=True, kw_only=True)
class _Arrival:
    """A record with what its place or its stamp says of it."""

    record: Any
    place: tuple[int, int]
    envelope: _Envelope
    kind: bytes | None
    k_ms: int
    first: tuple[int, int]
    bundle: bytes


class LogReader:
    """Reads one log.  `bundles` maps a bundle's id to its definitions."""

    def __init__(
        self,
        secret: bytes,
        partitions: int,
        bundles: Mapping[bytes, Definitions],
        tables: Mapping[bytes, dict[int, Any]] | None = None,
    ) -> None:
        self.secret = secret
        self.tables = tables or {}  # a table's id, as its markers carry it -> what a registry's ids mean
        self.partitions = partitions
        self.bundles = {keys.NO_BUNDLE: definitions.NOTHING, **bundles}
        self.out = Reading()
        # raw key -> canonical body and first position; a key lies in one partition only
        self.seen: dict[bytes, tuple[str, tuple[int, int]]] = {}
        self.astray: list[_Arrival] = []
        self.copies: dict[bytes, _Arrival] = {}  # raw key -> the engine's copy of the first record
        self.early: set[tuple[int, int]] = set()  # copies that were taken before they were reached
        self.forwarded: set[tuple[int, int]] = set()
        self.markers: dict[str, list[list[tuple[int, bytes]]]] = {}  # organisation -> a list a partition
        self.whose: dict[bytes, bytes] = {}  # key of revision 0 -> the leaf of the revision that was accepted first

    def read(self, log: Sequence[Sequence[Any]]) -> Reading:
        for number, records in enumerate(log):
            self._find_copies(number, records)
        for number, records in enumerate(log):
            self._partition(number, records)
        for arrival in self.astray:
            if arrival.first not in self.forwarded:
                self.out.counts["read"] += 1
                self._event(replace(arrival, kind=keys.FORWARDED))
        self._order_markers()
        self.out.events = _ended(self.out.events)
        return self.out

    def _find_copies(self, number: int, records: Iterable[Any]) -> None:
        for record in records:
            arrival = self._stamped(number, record)
            if arrival is None or not self._in_place(number, arrival):
                continue
            if arrival.kind == keys.FORWARDED:
                self.forwarded.add(arrival.first)
            elif arrival.kind == keys.AGAIN:
                self.copies.setdefault(record.key, arrival)

    def _stamped(self, number: int, record: Any) -> _Arrival | None:
        try:
            envelope = _envelope(record.value)
        except Rejected:
            return None
        stamp = keys.opened(self.secret, envelope.org, record)
        if stamp is None or stamp.kind not in (keys.AGAIN, keys.FORWARDED):
            return None
        return _Arrival(
            record=record,
            place=(number, record.offset),
            envelope=envelope,
            kind=stamp.kind,
            k_ms=stamp.k_ms,
            first=(stamp.partition, stamp.offset),
            bundle=stamp.bundle,
        )

    def _partition(self, number: int, records: Iterable[Any]) -> None:
        latest = 0  # the greatest known time so far: a clock that steps back does not move the past
        bundles: dict[str, bytes] = {}
        markers: dict[str, list[tuple[int, bytes]]] = {}
        table: dict[int, Any] | None = None
        for record in records:
            arrival = self._stamped(number, record)
            if arrival is None:
                envelope, rejected = _tried(record.value, table)
                org = envelope.org if envelope is not None else ""
                stamp = keys.opened(self.secret, org, record)
                backdated = stamp is not None and stamp.kind == keys.BACKDATED
                if not backdated:
                    latest = max(latest, record.timestamp)
                control = keys.opened(self.secret, "", record)
                if control is not None and control.kind == keys.MARKER:
                    self.out.counts["marker"] += 1
                    bundle, whose = record.value[:8], record.value[8:].decode()
                    if not whose:
                        table = self.tables[bundle]
                        continue
                    bundles[whose] = bundle
                    markers.setdefault(whose, []).append((latest, bundle))
                    continue
                if control is not None and control.kind == keys.TICK:
                    self.out.counts["tick"] += 1
                    continue
                if record.value is None:
                    self.out.counts["foreign_tombstone"] += 1
                    continue
                if stamp is None and keys.claims(record):
                    self.out.counts["bad_stamp"] += 1
                if envelope is None:
                    self.out.counts["read"] += 1
                    self._dead(number, record.offset, rejected)
                    continue
                arrival = _Arrival(
                    record=record,
                    place=(number, record.offset),
                    envelope=envelope,
                    kind=keys.BACKDATED if backdated else None,
                    k_ms=stamp.k_ms if stamp is not None and backdated else latest,
                    first=(number, record.offset),
                    bundle=bundles.get(org, keys.NO_BUNDLE),
                )
            self.out.counts["read"] += 1
            if self._in_place(number, arrival):
                self._event(arrival)
            else:
                self.out.counts["misrouted"] += 1
                self.astray.append(arrival)
        for whose, found in markers.items():
            self.markers.setdefault(whose, []).append(found)

    def _in_place(self, number: int, arrival: _Arrival) -> bool:
        one = arrival.envelope
        here = keys.raw_partition(one.org, one.source, one.id, self.partitions) == number
        return here and arrival.record.key == keys.raw_key(one.org, one.source, one.id, one.revision, one.repair)

    def _event(self, arrival: _Arrival) -> None:
        one = arrival.envelope
        known = self.bundles[arrival.bundle]
        key = keys.raw_key(one.org, one.source, one.id, one.revision, one.repair)
        if arrival.place in self.early:
            return
        if key in self.seen and (arrival.kind == keys.AGAIN or self._sent_twice(arrival, key)):
            self.out.counts["copy"] += 1
            return
        try:
            source, t_ms, data = _decoded(one, arrival.k_ms, known)
            body = _canonical(one, t_ms, definitions.without(data, source.volatile))
            copy = self.copies.get(key)
            if key not in self.seen and copy is not None and copy.first != arrival.first:
                # Compaction took the first record and left this repeat; the engine's copy says what came first.
                self._event(copy)
                self.early.add(copy.place)
            if key in self.seen:
                if self.seen[key][0] != body:
                    raise Rejected("id_conflict")
                self.out.counts["duplicate"] += 1
                return
            self._accept(arrival, known, source, key, t_ms, data, body)
        except Rejected as rejected:
            self._dead(*arrival.place, rejected.reason)
            self._came(arrival, known, rejected.reason, False)

    def _came(self, arrival: _Arrival, known: Definitions, reason: str, unmatched: bool) -> None:
        one, source = arrival.envelope, known.sources.get(arrival.envelope.source)
        if source is not None and source.expect and arrival.kind != keys.BACKDATED and one.repair == 0:
            self.out.arrivals.append(
                Arrival(
                    org=one.org,
                    source=one.source,
                    k_ms=arrival.k_ms,
                    reason=reason,
                    new=one.revision == 0 and not one.void,
                    unmatched=unmatched,
                )
            )

    def _sent_twice(self, arrival: _Arrival, key: bytes) -> bool:
        """Whether this is one more forwarded copy of the record that was taken as first."""
        return arrival.kind == keys.FORWARDED and self.seen[key][1] == arrival.first

    def _accept(
        self,
        arrival: _Arrival,
        known: Definitions,
        source: definitions.Source,
        key: bytes,
        t_ms: int,
        data: Any,
        body: str,
    ) -> None:
        one = arrival.envelope
        by_hand = one.source not in known.sources
        said = self._said(one, arrival.k_ms, known, data) if one.type == "milepost.source_complete" else None
        changes_record = by_hand and one.type == "milepost.record"
        if said is not None or changes_record:
            present = []
        else:
            present = self._named(one, known, data) if by_hand else self._present(one, known, source, data)
            if not present:
                raise Rejected("missing_key")
        companies = [leaf for identity, _, leaf in present if identity.entity == "company"]
        leaf = companies[0] if companies else present[0][2] if present else bytes(16)
        if changes_record:
            _fields(known, data)
            leaf = keys.raw_key(one.org, data["record"], data["id"])  # a revision changes the same record
        group = keys.raw_key(one.org, one.source, one.id, 0, 0)
        if self.whose.setdefault(group, leaf) != leaf:
            raise Rejected("identity_changed")
        self.seen[key] = (body, arrival.first)
        self.out.counts["accepted"] += 1
        named = any(identity.entity == "company" for identity in source.identities)
        self._came(arrival, known, "", named and not companies)
        for identity, text, of in present:
            rank = known.rank[identity.entity, identity.key]
            fact = KeyFact(
                org=one.org,
                entity=identity.entity,
                key=identity.key,
                value=text,
                source=one.source,
                k_ms=arrival.k_ms,
                label=identity.label,
                rank=rank,
            )
            before = self.out.keys.get(of)
            if before is None or (fact.k_ms, fact.source) < (before.k_ms, before.source):
                self.out.keys[of] = fact
        if said is not None:
            self.out.completions.append(said)
        elif by_hand and one.type not in (
            "milepost.action", "milepost.dispute_accepted", "milepost.record", *definitions.BREACHES,
        ):  # fmt: skip
            self._decide(one, group, arrival.k_ms, data, tuple(of for _, _, of in present))
        elif not by_hand:
            self._propose(one.org, present, arrival.k_ms)
        self.out.events.append(
            Event(
                org=one.org,
                source=one.source,
                id=one.id,
                type=one.type,
                key=group,
                t_ms=t_ms,
                k_ms=arrival.k_ms,
                first=arrival.first,
                leaf=leaf,
                members=tuple((identity.entity, each) for identity, _, each in present),
                signals=self._signals(arrival, known, data),
                writes=() if one.void else tuple(self._writes(arrival, one.type, known, data)),
                rank=(one.revision, one.repair),
                void=one.void,
            )
        )

    def _present(self, one: _Envelope, known: Definitions, source: definitions.Source, data: Any) -> _Present:
        """The keys that an event has.  One that is blocked is absent."""
        present = []
        for identity in source.identities:
            value = definitions.at(data, identity.path)
            if value is None or value == "":
                if identity.required:
                    raise Rejected("missing_key")
                continue
            if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value).encode()) > NAME_BYTES_MAX:
                raise Rejected("contract_violation", "a key is text or a whole number")
            text = str(value)
            if _blocked(known, identity.entity, identity.key, text):
                if identity.required:
                    raise Rejected("missing_key")
                continue
            present.append((identity, text, keys.leaf(self.secret, one.org, identity.entity, identity.key, text)))
        return present

    def _propose(self, org: str, present: _Present, k_ms: int) -> None:
        """Two keys of one entity in one event: the first of the entity is the same as each other."""
        for at, (identity, _, leaf) in enumerate(present):
            first = next(of for other, _, of in present[: at + 1] if other.entity == identity.entity)
            if first != leaf:
                edge = (org, min(first, leaf), max(first, leaf))
                self.out.edges[edge] = min(k_ms, self.out.edges.get(edge, k_ms))

    def _named(self, one: _Envelope, known: Definitions, data: Any) -> _Present:
        """The keys that a decision by hand names; what is said of a source names the source."""
        if one.type in definitions.BREACHES:
            if one.revision or one.repair or one.void:
                raise Rejected("contract_violation", "not amended")
            identity = definitions.Identity(entity="source", key="name", path=(), required=False, label=False)
            return [(identity, data["source"], keys.leaf(self.secret, one.org, "source", "name", data["source"]))]
        if one.type == "milepost.membership":
            if data["entity"] == "company":
                raise Rejected("contract_violation", "a member is no company")
            texts = [(data["entity"], data["member"]), ("company", data["company"])]
            times = [None if data[name] is None else _time(data[name]) for name in ("from", "to")]
            if None not in times and times[0] >= times[1]:  # type: ignore[operator]
                raise Rejected("contract_violation", "from lies before to")
        elif one.type == "milepost.action":
            texts = [("company", data["company"])]
            if not one.void and (data["plan"], data["milestone"], data["action"]) not in known.manual:
                raise Rejected("contract_violation", "nothing that people tick")
        elif one.type == "milepost.dispute_accepted":
            texts = [("company", data["company"])]
            digits = data["dispute"]
            if len(digits) != 32 or set(digits) - set("0123456789abcdef"):
                raise Rejected("contract_violation", "no id of a dispute")
            if not one.void and (data["plan"], data["milestone"]) not in known.agreed:
                raise Rejected("contract_violation", "nothing that was agreed")
        else:
            if one.revision or one.repair or one.void:
                raise Rejected("contract_violation", "not amended")
            texts = [(data["entity"], text) for text in dict.fromkeys(data["keys"])]
            if len(texts) < (1 if one.type == "milepost.unlink" else 2):
                raise Rejected("contract_violation", "too few keys")
        present = []
        for entity, text in texts:
            kind, _, value = text.partition(":")
            if (entity, kind) not in known.rank or not value or _blocked(known, entity, kind, value):
                raise Rejected("contract_violation", "no such key")
            labels = [each.label for of in known.sources.values() for each in of.identities if (each.entity, each.key) == (entity, kind)]  # fmt: skip
            identity = definitions.Identity(entity=entity, key=kind, path=(), required=False, label=any(labels))
            present.append((identity, value, keys.leaf(self.secret, one.org, entity, kind, value)))
        return present

    def _said(self, one: _Envelope, k_ms: int, known: Definitions, data: Any) -> Completion:
        """What a completion says of a source."""
        if one.revision or one.repair or one.void:
            raise Rejected("contract_violation", "not amended")
        if data["source"] not in known.sources:
            raise Rejected("unknown_source")
        until_ms = _time(data["until"])
        if until_ms < 0:
            raise Rejected("contract_violation", "before 1970")
        if until_ms > k_ms + known.sources[data["source"]].future_skew_ms:
            raise Rejected("future_event")
        return Completion(org=one.org, source=data["source"], until_ms=until_ms, k_ms=k_ms)

    def _decide(self, one: _Envelope, group: bytes, k_ms: int, data: Any, leaves: tuple[bytes, ...]) -> None:
        from_ms, to_ms = (_time(data[name]) if data.get(name) is not None else None for name in ("from", "to"))
        self.out.decisions.append(
            Decision(
                org=one.org,
                what=one.type.removeprefix("milepost."),
                id=group,
                leaves=leaves,
                k_ms=k_ms,
                rank=(one.revision, one.repair),
                void=one.void,
                from_ms=from_ms,
                to_ms=to_ms,
            )
        )

    def _signals(self, arrival: _Arrival, known: Definitions, data: Any) -> tuple[Signal, ...]:
        one = arrival.envelope
        names = {"data": data, "event": {"type": one.type, "time": one.time, "source": one.source, "org": one.org}}
        if one.void:
            self.out.counts["void"] += 1
            return ()
        if one.type == "milepost.action":
            self.out.counts["signal"] += 1
            return (Signal(rule=one.type, fields=data, measures=frozenset()),)
        signals: list[Signal] = []
        dead = 0
        for rule in known.rules_on(one.type):
            try:
                holds = True if rule.when is None else expressions.evaluate(rule.when, names)
                if not isinstance(holds, bool):
                    raise expressions.EvaluationError("when is not a boolean")
                if not holds:
                    self.out.counts["rule_declined"] += 1
                    continue
                fields = {name: expressions.evaluate(tree, names) for name, tree in rule.fields.items()}
                measures = known.measures_of(rule.name)
                for measure in measures:
                    definitions.rounded(fields.get(measure.field or ""), measure.scale)
            except expressions.EvaluationError:
                reason = "rule_error"
            except Rejected as rejected:
                reason = rejected.reason
            else:
                signatures = frozenset(measure.signature for measure in measures)
                signals.append(Signal(rule=rule.name, fields=fields, measures=signatures))
                self.out.counts["signal"] += 1
                continue
            dead += 1
            self._dead(*arrival.place, reason, rule.name)
        if not signals and not dead:
            self.out.counts["no_rule"] += 1
        return tuple(signals)

    def _writes(self, arrival: _Arrival, event_type: str, known: Definitions, data: Any) -> Iterable[Wrote]:
        if event_type == "milepost.record" and arrival.envelope.source not in known.sources:
            self.out.counts["change"] += 1
            yield Wrote(record=data["record"], id=data["id"], op=data["op"], fields=_fields(known, data))
        for one in known.writes:
            if one.on != event_type:
                continue
            id = definitions.at(data, one.id)
            if id is None or id == "":
                self._dead(*arrival.place, "missing_key", one.record)
            elif len(str(id).encode()) > NAME_BYTES_MAX:
                self._dead(*arrival.place, "contract_violation", one.record)
            else:
                self.out.counts["change"] += 1
                fields = {name: definitions.at(data, path) for name, path in one.fields.items()}
                yield Wrote(record=one.record, id=str(id), op=one.op, fields=fields)

    def _dead(self, partition: int, offset: int, reason: str, rule: str | None = None) -> None:
        self.out.counts[f"dead_pair:{reason}" if rule else f"dead:{reason}"] += 1
        self.out.dead_letters.append(DeadLetter(partition=partition, offset=offset, reason=reason, rule=rule))

    def _order_markers(self) -> None:
        """The n-th marker of each partition is one decision, known from its least known time on."""
        for org, partitions in self.markers.items():
            longest = max(partitions, key=len)
            self.out.applied[org] = [
                (min(markers[place][0] for markers in partitions if len(markers) > place), bundle)
                for place, (_, bundle) in enumerate(longest)
            ]


def _ended(events: Sequence[Event]) -> list[Event]:
    """The events with what their revisions do to each other, whatever order they came in."""
    of: dict[bytes, list[Event]] = {}
    for event in events:
        of.setdefault(event.key, []).append(event)
    out = []
    for event in events:
        higher = [one.k_ms for one in of[event.key] if one.rank > event.rank]
        # A higher one that is known at the very same time ends it at once: nothing of it was ever shown.
        superseded = any(k_ms < event.k_ms for k_ms in higher)
        out.append(replace(event, ended_ms=min(higher, default=None), superseded=superseded))
    return out


def _fields(known: Definitions, data: Any) -> dict[str, Any]:
    """What a person writes into a record."""
    fields = _json(data["fields"].encode())
    if data["op"] not in _OPS or data["record"] not in {one.record for one in known.writes} or not data["id"]:
        raise Rejected("contract_violation", "no such record")
    if not isinstance(fields, dict):
        raise Rejected("contract_violation", "fields is an object")
    return fields


def _time(text: str) -> int:
    try:
        return clock.ms(text)
    except ValueError as error:
        raise Rejected("contract_violation", "time") from error


def _blocked(known: Definitions, entity: str, kind: str, value: str) -> bool:
    """Whether a value means nothing, for everybody or in this bundle."""
    text = value.strip().casefold()
    if text in ("null", "unknown", "none", "-1", "", "n/a") or set(text) <= {"0", "-"}:
        return True
    if entity == "company" and text in FREE_MAIL:
        return True
    if (entity, kind) in known.mail_kinds and (text in known.mail_domains or text in FREE_MAIL):
        return True
    return (entity, kind, value) in known.blocked


def _tried(value: bytes | None, table: dict[int, Any] | None) -> tuple[_Envelope | None, str]:
    """The envelope, or None and the reason.  table: what a registry's ids mean where the record lies."""
    try:
        return _envelope(value, table), ""
    except Rejected as rejected:
        return None, rejected.reason


def _envelope(value: bytes | None, table: dict[int, Any] | None = None) -> _Envelope:
    """The envelope of a record in JSON or Avro.

    Bytes that are neither are `not_decodable`; JSON of another form is a `contract_violation`.
    """
    if value is None:
        raise Rejected("not_decodable", "tombstone")
    if len(value) > VALUE_BYTES_MAX:
        raise Rejected("too_large")
    framed = table is not None and value[:1] == b"\0"
    one = _from_avro(value, table if framed else None) if framed or value[:2] == avro.MAGIC else _json(value)
    if not isinstance(one, dict):
        raise Rejected("contract_violation", "not an object")
    whole = {"revision": 0, "void": False, "repair": 0, **one}
    for name in ("org", "source", "id", "type"):
        text = whole.get(name)
        if not isinstance(text, str) or not 1 <= len(text.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX:
            raise Rejected("contract_violation", f"{name} is text of 1 to 256 bytes")
    for name in ("revision", "repair"):
        if type(whole[name]) is not int or not 0 <= whole[name] < 2**31:
            raise Rejected("contract_violation", f"{name} is a whole number from 0")
    if not isinstance(whole["void"], bool) or not isinstance(whole.get("time"), str):
        raise Rejected("contract_violation", "void is a boolean, time is text")
    if not isinstance(whole.get("data"), dict) or _depth(whole["data"]) > DEPTH_MAX:
        raise Rejected("contract_violation", "data is an object, 32 deep at most")
    names = ("org", "source", "id", "type", "time", "revision", "void", "repair", "data")
    return _Envelope(**{name: whole[name] for name in names})


def _from_avro(value: bytes, table: dict[int, Any] | None) -> dict[str, Any]:
    try:
        one = avro.decode(avro.schema("RawEvent"), value) if table is None else avro.framed(table, value)
    except KeyError as error:
        raise Rejected("unknown_schema") from error
    except ValueError as error:
        raise Rejected("not_decodable", "not Avro") from error
    return {**one, "data": _json(one["data"])}


def _json(value: bytes) -> Any:
    try:
        return json.loads(value.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Rejected("not_decodable", "not JSON") from error


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(one) for one in value), default=0)
    return 0


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _decoded(one: _Envelope, k_ms: int, known: Definitions) -> tuple[definitions.Source, int, Any]:
    """The source, the event time and the data under the contract."""
    source = known.sources.get(one.source)
    if source is None and one.source == "milepost" and known.sources:
        source = OURS
    if source is None:
        raise Rejected("unknown_source")
    if one.type not in source.types:
        raise Rejected("unknown_type")
    try:
        t_ms = clock.ms(one.time)
    except ValueError as error:
        raise Rejected("contract_violation", "time") from error
    data = definitions.checked(source.types[one.type], one.data)
    if t_ms > k_ms + source.future_skew_ms:
        raise Rejected("future_event")
    return source, t_ms, data


def _canonical(one: _Envelope, t_ms: int, data: Any) -> str:
    return json.dumps([one.type, t_ms, one.void, data], sort_keys=True)
