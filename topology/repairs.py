"""Repairs: members of a problem, mapped and judged as the engine will judge them, ready to be sent again.

    record -> original (who it is, what it says) -> mapping -> the same event with repair + 1, under its new raw key
           -> has it come otherwise?  (`seen`)   -> tried in tables of nobody (trial.py) -> pass · fail · settled

    pass     it would be accepted; what it would add to metrics is in the trial
    fail     it would be a dead letter again, or a step has no value for it: it stays open
    settled  nothing is to be sent: `resent` the source has sent it right, `repaired` it was repaired, `repeated` a
             newer member has its name, `gone` compaction has removed it, which it does for a newer record of its name

What is sent is a function of the member's bytes and the mapping, and its key of the event's name: sent twice, also by
two at a time, the second is a duplicate.  The order of versions is (revision, repair), so a repair counts above what it
repairs and below the next revision.  A pair (event, rule) is repaired by sending its event again: applying a new
version of the rule does not judge events again that lie before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec
import orjson

from milepost.schemas.errors import ContractError
from milepost.schemas.field_types import FieldType
from milepost.schemas.keys import PART_BYTES_MAX, leaf_partition, raw_key, raw_place
from milepost.schemas.records import Envelope, Reject
from milepost.schemas.serde import HEADER_BYTES, MAGIC, wire
from milepost.topology import dedupe
from milepost.topology.catalog import Source
from milepost.topology.mapping import EventMapping, Names, Unfit, paths_in
from milepost.topology.parts import AmendedRows, SeenRows
from milepost.topology.problems import Problem
from milepost.topology.reading import Reader
from milepost.topology.receipts import SignalsOf
from milepost.topology.revisions import REVISIONS_MAX, Accepted, load_accepted
from milepost.topology.state import Output
from milepost.topology.steps import Steps, gather
from milepost.topology.trial import Signal, Trial, Tried

SLICE: Final = 200
"""Members that are tried before others have the loop."""
REPAIR_MAX: Final = 2**31 - 1
TEXT_MAX: Final = 200
ITEMS_MAX: Final = 50
DEPTH_MAX: Final = 6
"""Longest text and list of an example that is shown, and how deep it is."""
_SECRET: Final = re.compile(r"pass(word|wd|phrase)?$|secret|token|authori[sz]ation|api_?key|cookie|credential", re.I)

What = Literal["pass", "fail", "settled"]


class Original(NamedTuple):
    """An event as it was sent.  event: the envelope without data"""

    org: str
    source: str
    id: str
    revision: int
    repair: int
    event: dict[str, Any]
    data: Any


class Fate(NamedTuple):
    """What would become of a member.

    why:    fail: stage and reason, or `mapping`; settled: see the module
    detail: in words;  output: the record to send;  rules: rules that still have no value for it
    """

    place: int
    what: What
    why: str = ""
    detail: str = ""
    output: Output | None = None
    rules: tuple[str, ...] = ()


def original(value: bytes) -> Original | Reject:
    """The event in a record's bytes, as far as it can be called by its name, whatever else is wrong with it."""
    try:
        found = _from_avro(value) if value[:2] == MAGIC else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ContractError):
        return Reject("not_decodable", "its bytes are not JSON, nor Avro of ours")
    if not isinstance(found, dict):
        return Reject("not_decodable", "it is no JSON object")
    for name in ("org", "source", "id"):
        part = found.get(name)
        if not isinstance(part, str) or not 0 < len(part.encode(errors="replace")) <= PART_BYTES_MAX:
            return Reject("missing_key", f"{name} is no text of 1 to {PART_BYTES_MAX} bytes: it has no name to keep")
        if any("\ud800" <= letter <= "\udfff" for letter in part):
            return Reject("missing_key", f"{name} holds half a letter: it has no name to keep")
    numbers = [found.get(name, 0) for name in ("revision", "repair")]
    if not all(type(one) is int and 0 <= one < REPAIR_MAX for one in numbers):
        return Reject("missing_key", "revision and repair are no whole numbers that a repair could follow")
    data = found.pop("data", {})
    return Original(found["org"], found["source"], found["id"], numbers[0], numbers[1], found, data)


def again(one: Original, mapping: EventMapping, partitions: int) -> tuple[Output, int]:
    """The record that repairs an event, and which steps changed it.  Raises Unfit.  `one` is used up."""
    if type(one.data) is not dict:
        raise Unfit(-1, "its data is no object")
    whole = {"event": one.event, "data": one.data}
    touched = mapping.apply(whole)
    sent = {**one.event, "repair": one.repair + 1, "data": one.data}
    try:
        value = orjson.dumps(sent)
    except TypeError:
        raise Unfit(-1, "it holds a number beyond 64 bits, or half a letter") from None
    key, partition = raw_place(one.org, one.source, one.id, one.revision, one.repair + 1, partitions)
    return Output(topic="raw-events", partition=partition, key=key, value=value), touched


def repair_id(problem: Problem, mapping: EventMapping) -> bytes:
    """A repair's name: the same problem and mapping give the same."""
    return bytes(one ^ other for one, other in zip(problem.id, mapping.id, strict=True))


class _Unsent(NamedTuple):
    """A member that is to be tried.  before: its event's revisions that were accepted"""

    place: int
    original: Original
    output: Output
    before: list[Accepted]

    @property
    def rank(self) -> tuple[int, int]:
        return self.original.revision, self.original.repair + 1


@dataclass(slots=True)
class Repairing:
    """One problem's members under one mapping.  `judge` takes them newest first, so that of several records with one
    name the newest is the one that counts: the one that compaction leaves.

    touched: which steps have changed any;  seen: paths that the events have
    """

    reader: Reader
    problem: Problem
    mapping: EventMapping
    trial: Trial
    now_ms: int
    touched: int = 0
    seen: set[Names] = field(default_factory=set)
    _named: set[bytes] = field(default_factory=set)

    def judge(self, members: Sequence[tuple[int, bytes | None]]) -> Steps[list[Fate]]:
        """What would become of these (place, bytes of the record; None: gone), in their order."""
        fates: dict[int, Fate] = {}
        ready: list[tuple[int, Original, Output]] = []
        for here, value in members:
            found = self._mapped(here, value)
            if isinstance(found, Fate):
                fates[here] = found
            else:
                ready.append((here, *found))
        for at in range(0, len(ready), SLICE):
            unsent = yield from self._unsent(ready[at : at + SLICE], fates)
            tried = self.trial.judge([one.output for one in unsent], self.now_ms)
            passed = [self._fate(one, tried_one) for one, tried_one in zip(unsent, tried, strict=True)]
            fates |= {fate.place: fate for fate in passed}
            self.trial.count((yield from self._gained(unsent, tried, passed)))
            yield None
        return [fates[here] for here, _ in members]

    def _mapped(self, here: int, value: bytes | None) -> Fate | tuple[Original, Output]:
        if value is None:
            return Fate(here, "settled", "gone")
        one = original(value)
        if isinstance(one, Reject):
            return Fate(here, "fail", one.reason, one.detail)
        if len(self.seen) < 5000:
            self.seen |= paths_in({"event": one.event, "data": one.data})
        try:
            output, touched = again(one, self.mapping, self.reader.partitions)
        except Unfit as error:
            at = f"step {error.step + 1}: " if error.step >= 0 else ""
            return Fate(here, "fail", "mapping", at + error.said)
        self.touched |= touched
        if output.key in self._named:
            return Fate(here, "settled", "repeated")
        self._named.add(output.key)
        return one, output

    def _unsent(self, some: Sequence[tuple[int, Original, Output]], fates: dict[int, Fate]) -> Steps[list[_Unsent]]:
        """Those that have not come otherwise."""
        keys = [
            tuple(raw_key(one.org, one.source, one.id, *rank) for rank in ((one.revision, one.repair), (0, 0)))
            for _, one, _ in some
        ]
        seen: dict[int, list[bytes]] = {}
        amended: dict[int, list[bytes]] = {}
        for (_, _, output), (own, first) in zip(some, keys, strict=True):
            seen.setdefault(output.partition, []).extend((own, output.key, first))
            amended.setdefault(output.partition, []).append(first)
        parts: list[SeenRows | AmendedRows] = [
            SeenRows(partition=number, keys=tuple(some)) for number, some in sorted(seen.items())
        ]
        parts += [AmendedRows(partition=number, keys=tuple(some)) for number, some in sorted(amended.items())]
        rows: dict[tuple[str, bytes], bytes | None] = {}
        for part, got in zip(parts, (yield from gather(self.reader, parts)), strict=True):
            rows.update(zip(((type(part).__name__, key) for key in part.keys), got, strict=True))
        anyway = self.problem.reason == "id_conflict" or bool(self.problem.rule)
        left = []
        for (here, one, output), (own, first) in zip(some, keys, strict=True):
            if rows["SeenRows", output.key] is not None:
                fates[here] = Fate(here, "settled", "repaired")
            elif rows["SeenRows", own] is not None and not anyway:
                fates[here] = Fate(here, "settled", "resent")
            else:
                before = _accepted(rows["SeenRows", first], rows["AmendedRows", first], output.partition)
                left.append(_Unsent(here, one, output, before))
        return left

    def _fate(self, one: _Unsent, tried: Tried) -> Fate:
        failed = tried.failed or tried.rules.get(self.problem.rule)
        named = [known for known in one.before if any(known.leaf)]
        if failed is None and named and min(named).leaf != tried.leaf[:8]:
            failed = ("identity", Reject("identity_changed", "it names another company; void it, and send a new id"))
        if failed is None and len(one.before) >= REVISIONS_MAX:
            failed = ("identity", Reject("contract_violation", f"an event has at most {REVISIONS_MAX} revisions"))
        if failed is None:
            return Fate(one.place, "pass", output=one.output, rules=tuple(sorted(tried.rules)))
        stage, reject = failed
        return Fate(one.place, "fail", f"{stage}/{reject.reason}", reject.detail)

    def _gained(
        self, unsent: Sequence[_Unsent], tried: Sequence[Tried], fates: Sequence[Fate]
    ) -> Steps[list[tuple[Tried, Sequence[Signal] | None]]]:
        """What the tables would gain by each: all its signals; what those of the revision that it replaces lack; or
        nothing, where a higher one counts."""
        replaced: dict[int, Accepted] = {}
        for n, fate in enumerate(fates):
            if fate.what == "pass" and unsent[n].before:
                replaced[n] = max(unsent[n].before, key=lambda known: (known.revision, known.repair))
        parts = [
            SignalsOf(
                partition=leaf_partition(tried[n].leaf, self.reader.partitions),
                half=tried[n].leaf[:8],
                pane=known.pane,
                event=raw_key(unsent[n].original.org, unsent[n].original.source, unsent[n].original.id),
                revision=known.revision,
                repair=known.repair,
            )
            for n, known in replaced.items()
        ]
        before = dict(zip(replaced, (yield from gather(self.reader, parts)), strict=True))
        gained: list[tuple[Tried, Sequence[Signal] | None]] = []
        for n, one in enumerate(tried):
            if fates[n].what != "pass":
                gained.append((one, ()))
            elif n not in replaced:
                gained.append((one, None))
            elif (replaced[n].revision, replaced[n].repair) > unsent[n].rank:
                gained.append((one, ()))
            else:
                old = [(rule, version, fields) for rule, version, fields in (before[n] or (b"", ()))[1]]
                new, pane = one.signals
                kept = old if pane == replaced[n].pane else []
                self.trial.lost |= {signal[0] for signal in old if signal not in kept or signal not in new}
                gained.append((one, [signal for signal in new if signal not in kept]))
        return gained


def _accepted(seen: bytes | None, amended: bytes | None, partition: int) -> list[Accepted]:
    """The revisions of an event that were accepted: where it has one alone, `seen` knows of it."""
    accepted = load_accepted(amended)
    if seen is not None and not any((one.revision, one.repair) == (0, 0) for one in accepted):
        known = dedupe.unpack(seen)
        first = known.offset if known.partition == partition else known.at
        accepted.append(Accepted(first, known.taken, 0, 0, known.pane, known.leaf))
    return accepted


def _from_avro(value: bytes) -> dict[str, Any]:
    if value[:HEADER_BYTES] != wire("RawEvent").header:
        raise ContractError("unknown_schema", "an unknown schema")
    fields = wire("RawEvent").decode(value)
    return {**fields, "data": msgspec.json.decode(fields["data"])}


# -- what people are shown


def example(value: bytes | None, source: Source | None) -> dict[str, Any] | None:
    """An event for people to look at.  None: its record is gone.

    Values are shown of what the contract declares, unless the source lists it as personal or it is named like a secret.
    Of all else only the kind is shown: a deploy that renames `email` must not bring it to light."""
    if value is None:
        return None
    one = original(value)
    if isinstance(one, Reject):
        return {"bytes": len(value), "unreadable": one.detail}
    contract = None if source is None else source.types.get(str(one.event.get("type")))
    event = {name: _shown(inner, _SCALAR if name in _ENVELOPE else None, name) for name, inner in one.event.items()}
    hidden = frozenset(() if source is None else source.pii)
    return {**event, "data": _shown(one.data, None if contract is None else contract.type, "", hidden)}


_SCALAR: Final = FieldType(kind="mixed")
_ENVELOPE: Final = frozenset(Envelope.__struct_fields__)
_KINDS: Final = {str: "(text)", int: "(number)", float: "(number)", bool: "(true or false)", list: "(list)"}


def _shown(
    value: Any, of: FieldType | None, name: str, hidden: frozenset[Names] = frozenset(), path: Names = ()
) -> Any:
    if path in hidden or _SECRET.search(name):
        return "(hidden)"
    if isinstance(value, dict):
        if len(path) > DEPTH_MAX:
            return "(object)"
        fields = {} if of is None else of.fields
        inside = None if of is None or of.kind != "map" else of.of
        return {
            key[:TEXT_MAX]: _shown(inner, fields.get(key, inside), key, hidden, (*path, key))
            for key, inner in list(value.items())[:ITEMS_MAX]
        }
    if value is None:
        return None
    if of is None:
        return _KINDS[type(value)]
    if isinstance(value, list):
        return [_shown(inner, of.of, "", hidden, (*path, "*")) for inner in value[:ITEMS_MAX]]
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()
        return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "(number)"
    return value
