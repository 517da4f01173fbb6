"""Problems: dead letters with one fingerprint, and what was done about them: the fold of the topic `dead-letters`.

    letter ---> problem (stage, reason, detail without its numbers, organisation, source, type, rule) -> its members
    repair ---> begun -> sent (places of members), again and again -> ended

    open       members that nobody has sent again          repairing   a repair has begun and has not ended
    repaired   none is left

Everything is a function of the topic, so every worker tells the same, and a repair that was killed in its middle is
seen by whoever goes on.  A place that was sent again is settled in every problem that has it: what is still wrong with
the event is said of its new record.

Bounds: 200 problems a reason and partition of the topic, in the order they came; what is beyond is one problem of that
reason, which is counted and not repaired.  2,000,000 places are held (8 bytes each), further letters are only counted.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology.catalog import Catalog

PROBLEMS_MAX: Final = 200
"""Problems of one reason that a partition of the topic tells apart."""
LETTERS_MAX: Final = 2_000_000
REPAIRS_MAX: Final = 20
"""Repairs of one problem that are told, the latest."""
ID_BYTES: Final = 8
TOPICS: Final = ("raw-events", "signals", "record-changes")
"""Topics whose records can be dead letters."""
UNREAD: Final = frozenset({"not_decodable", "unknown_schema"})
"""Reasons of records of which nothing can be read."""

_NUMBER: Final = re.compile(r"\b(?:[0-9a-f]{16}|[0-9]+(?:\.[0-9]+)?)\b")
_OFFSET_BITS: Final = 44
_PARTITION_BITS: Final = 17

State = Literal["open", "repairing", "repaired"]
Places = NDArray[np.int64]


def fingerprint(
    stage: str, reason: str, detail: str, org: str = "", source: str = "", type: str = "", rule: str = ""
) -> bytes:
    """What makes dead letters one problem.  Numbers of the detail (lengths, distances) are those of one event."""
    parts = (stage, reason, _NUMBER.sub("#", detail), org, source, type, rule)
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), digest_size=ID_BYTES).digest()


class Place(NamedTuple):
    """Where a record lies that is a dead letter."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"

    def pack(self) -> int:
        """A number whose order is that of topic, partition, offset."""
        topic = TOPICS.index(self.topic)
        return (topic << _PARTITION_BITS | self.partition) << _OFFSET_BITS | self.offset


def place(packed: int) -> Place:
    rest, offset = packed >> _OFFSET_BITS, packed & (1 << _OFFSET_BITS) - 1
    return Place(TOPICS[rest >> _PARTITION_BITS], rest & (1 << _PARTITION_BITS) - 1, offset)


@dataclass(slots=True, kw_only=True)
class Repair:
    """A repair as the topic tells it.  left: members that it could not repair; None: it has not ended"""

    id: bytes
    by: str
    mapping: str
    begun_ms: int
    last_ms: int
    sent: int = 0
    settled: int = 0
    left: int | None = None


@dataclass(slots=True, kw_only=True)
class Problem:
    """Dead letters with one fingerprint.

    partition: of the topic `dead-letters`, where its letters and repairs lie
    example:   the newest place
    others:    it stands for problems beyond the bound
    unlisted:  letters whose places are not held (some may be told twice)
    active:    the repair that has begun and not ended
    """

    id: bytes
    partition: int
    stage: str
    reason: str
    rule: str
    detail: str
    org: str
    source: str
    type: str
    topic: str
    first_ms: int
    last_ms: int
    example: Place
    others: bool = False
    unlisted: int = 0
    active: Repair | None = None
    repairs: dict[bytes, Repair] = field(default_factory=dict)
    places: array[int] = field(default_factory=lambda: array("q"))
    _sorted: Places | None = None

    @property
    def members(self) -> Places:
        """The places of its letters, in their order, each once (after a crash a letter may be told again)."""
        if self._sorted is None:
            self._sorted = np.unique(np.array(self.places, dtype=np.int64))
        return self._sorted

    def add(self, packed: int) -> None:
        self.places.append(packed)
        self._sorted = None

    @property
    def obstacle(self) -> str:
        """Why its members cannot be repaired by a mapping; "" where they can."""
        if self.others:
            return "it stands for several problems beyond the bound; repair those that are named"
        if self.topic != "raw-events":
            return f"its records lie on {self.topic}, which the engine alone writes: nothing of them is an event"
        if self.reason == "poison":
            return "such a record has ended processes; send a corrected event as its next revision instead"
        if self.reason in UNREAD or (self.reason == "too_large" and self.stage == "decode"):
            return "nothing of its records can be read; the source has to send the events again"
        return ""


@dataclass(slots=True)
class Problems:
    """The fold: `take` each record of the topic, partition by partition in log order."""

    problems: dict[bytes, Problem] = field(default_factory=dict)
    held: int = 0
    _kinds: Counter[tuple[int, str]] = field(default_factory=Counter)
    _settled: array[int] = field(default_factory=lambda: array("q"))
    _settled_sorted: Places | None = None

    def take(self, partition: int, value: bytes | None) -> None:
        """A record of the topic.  Raises ContractError for bytes that are neither a letter nor a repair."""
        if value is not None and value[:HEADER_BYTES] == wire("Repair").header:
            self._repair(wire("Repair").decode(value))
        else:
            self._letter(partition, wire("DeadLetter").decode(value or b""))

    def open(self, problem: Problem) -> Places:
        """The places of members that nobody has sent again, in their order."""
        if self._settled_sorted is None:
            self._settled_sorted = np.unique(np.array(self._settled, dtype=np.int64))
        return np.setdiff1d(problem.members, self._settled_sorted, assume_unique=True)

    def state(self, problem: Problem) -> State:
        if not len(self.open(problem)) and not problem.unlisted:
            return "repaired"
        return "open" if problem.active is None else "repairing"

    def newest_first(self) -> list[Problem]:
        return sorted(self.problems.values(), key=lambda one: (-one.last_ms, one.id))

    def _letter(self, partition: int, letter: Mapping[str, Any]) -> None:
        if letter["topic"] not in TOPICS or letter["partition"] >> _PARTITION_BITS or letter["offset"] >> _OFFSET_BITS:
            raise ContractError("not_decodable", "a dead letter names a position that is none")
        here = Place(letter["topic"], letter["partition"], letter["offset"])
        problem = self.problems.get(letter["problem"]) or self._new(partition, letter, here)
        if letter["k_ms"] >= problem.last_ms:
            problem.last_ms, problem.example = letter["k_ms"], here
        problem.first_ms = min(problem.first_ms, letter["k_ms"])
        if self.held < LETTERS_MAX:
            self.held += 1
            problem.add(here.pack())
        else:
            problem.unlisted += 1

    def _new(self, partition: int, letter: Mapping[str, Any], here: Place) -> Problem:
        id, reason = letter["problem"], letter["reason"]
        said = {name: letter[name] for name in ("stage", "rule", "detail", "org", "source", "type", "topic")}
        beyond = self._kinds[partition, reason] >= PROBLEMS_MAX
        if beyond:
            id = fingerprint("", reason, f"beyond {PROBLEMS_MAX}", rule=str(partition))
            said = {**dict.fromkeys(said, ""), "detail": "of many kinds", "topic": letter["topic"]}
        else:
            self._kinds[partition, reason] += 1
        k_ms = letter["k_ms"]
        made = Problem(
            id=id, partition=partition, reason=reason, first_ms=k_ms, last_ms=k_ms, example=here, others=beyond, **said
        )
        return self.problems.setdefault(id, made)

    def _repair(self, told: Mapping[str, Any]) -> None:
        if told["what"] == "sent":
            self._settled.extend((*told["sent"], *told["settled"]))
            self._settled_sorted = None
        problem = self.problems.get(told["problem"])
        if problem is None:
            return  # its letters are beyond the topic's retention, or among the others
        id, known = told["repair"], problem.repairs.get(told["repair"])
        if told["what"] == "begun":
            if problem.active is None or problem.active.id == id or told["replaces"]:
                made = Repair(
                    id=id, by=told["by"], mapping=told["mapping"], begun_ms=told["k_ms"], last_ms=told["k_ms"]
                )
                problem.active = problem.repairs[id] = made if known is None else known
                problem.active.left = None
                for old in list(problem.repairs)[: max(0, len(problem.repairs) - REPAIRS_MAX)]:
                    del problem.repairs[old]
            return
        if known is None:
            return
        known.last_ms = told["k_ms"]
        known.sent += len(told["sent"])
        known.settled += len(told["settled"])
        if told["what"] == "ended":
            known.left = told["left"]
            if problem.active is known:
                problem.active = None


def begun(problem: Problem, repair: bytes, mapping: str, by: str, k_ms: int, *, replaces: bool) -> tuple[bytes, bytes]:
    """(key, value) on `dead-letters`: a repair begins."""
    fields = {**_fields("begun", problem, repair, k_ms), "mapping": mapping, "by": by, "replaces": replaces}
    return b"repair" + problem.id + repair + b"begun", wire("Repair").encode(fields)


def sent(
    problem: Problem, repair: bytes, k_ms: int, sent: Iterable[int], settled: Iterable[int]
) -> tuple[bytes, bytes]:
    """(key, value): these members were sent again, those need not be."""
    fields = {**_fields("sent", problem, repair, k_ms), "sent": sorted(sent), "settled": sorted(settled)}
    value = wire("Repair").encode(fields)
    return b"repair" + problem.id + repair + hashlib.blake2b(value, digest_size=8).digest(), value


def ended(problem: Problem, repair: bytes, k_ms: int, left: int) -> tuple[bytes, bytes]:
    """(key, value): it has been through all members."""
    fields = {**_fields("ended", problem, repair, k_ms), "left": left}
    return b"repair" + problem.id + repair + b"ended" + k_ms.to_bytes(8, "big"), wire("Repair").encode(fields)


def _fields(what: str, problem: Problem, repair: bytes, k_ms: int) -> dict[str, Any]:
    return {"what": what, "problem": problem.id, "repair": repair, "k_ms": k_ms}


def concerned(catalog: Catalog | None, problem: Problem) -> dict[str, list[str]]:
    """What lacks the members of a problem under the definitions in force: `{rules, metrics, records, milestones}`."""
    if catalog is None or not problem.type:
        return {"rules": [], "metrics": [], "records": [], "milestones": []}
    rules = [rule.name for rule in catalog.rules_by_type.get(problem.type, ()) if rule.name in catalog.rules]
    records = [write.record for write in catalog.writes.get(problem.type, ())]
    if problem.stage == "writes":
        rules, records = [], [problem.rule]
    elif problem.stage == "signals" and problem.rule in rules:
        rules, records = [problem.rule], []
    metrics = list(metrics_of(catalog, rules))
    watched = set(metrics)
    milestones = [
        name
        for name, one in catalog.milestones.items()
        if any(action.metric in watched for action in one.actions.values())
    ]
    return {"rules": rules, "metrics": metrics, "records": records, "milestones": milestones}


def metrics_of(catalog: Catalog, rules: Iterable[str]) -> Iterator[str]:
    """The metrics that some rules' signals count in, also through formulas, in the catalog's order."""
    versions = {one.version for rule in rules for one in catalog.measures_by_rule.get(rule, ())}
    found = {
        name for name, one in catalog.metrics.items() if one.measure is not None and one.measure.version in versions
    }
    grown = True
    while grown:
        more = {name for name, one in catalog.metrics.items() if found & set(one.operands)} - found
        grown = bool(more)
        found |= more
    return (name for name in catalog.metrics if name in found)
