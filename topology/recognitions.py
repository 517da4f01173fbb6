"""Recognitions: what is said of milestones, as records of the topic `milestones`.

One record a transition.  Its key says which one it is and its bytes follow from the log, so who says it twice says the
same bytes under the same key.  `Said` is what the records of a milestone of a company add up to, and `Told` all of them
of a partition.

A record announces what others are to be told of: a state once a milestone and company, and each correction.  What is
announced has an id of its own, so that whoever is told twice knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, get_args

from milepost.schemas.keys import LEAF_BYTES, leaf_partition, lp, metakey
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology.bases import written
from milepost.topology.definitions import VERSION_BYTES, State
from milepost.topology.milestones import Standing
from milepost.topology.panes import PANE_MS
from milepost.topology.state import Output

TOPIC: Final = "milestones"
CORRECTED: Final = "corrected"
CLOSED: Final = "closed"
"""The company is another's now: nothing more is said of it."""
RESUMED: Final = "resumed"
"""The company is its own again."""
Kind = State | Literal["corrected", "closed", "resumed"]
OF_STATES: Final[frozenset[str]] = frozenset(get_args(State))
Cause = Literal["late", "amend", "void", "merge", "unmerge", "definition", "erasure"]


class Subject(NamedTuple):
    """A milestone of a company."""

    org: str
    plan: str
    milestone: str
    company: bytes


class Past(NamedTuple):
    """What was said last: under which version, which state, since when, how often lost, when at last (pane ends)."""

    version: bytes
    state: State
    achieved_at: int | None
    lapsed: int
    lapsed_at: int | None

    @classmethod
    def of(cls, version: bytes, standing: Standing) -> Past:
        lapses = standing.lapses
        return cls(version, standing.state, standing.achieved_at, len(lapses), lapses[-1] if lapses else None)

    def says(self, other: Past) -> bool:
        """Whether both say the same, whatever their versions."""
        return self[1:] == other[1:]


class Withdrawn(NamedTuple):
    """Why what was told does not hold, and what stands instead of it at its time."""

    cause: Cause
    instead: Past


class Announcement(NamedTuple):
    """What others are to be told of.  id: the same whenever it is told, 16 bytes"""

    event: str
    id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """A transition.  Times are pane ends and bucket ends, in quarter hours.

    kind:      the state; `corrected`: what was said before was wrong; `closed` and `resumed`: whose the company is
    first:     whether the state is recognised for the first time
    cause:     of what is no state;  heir: of `closed`, the root whose the company is
    dispute:   it came when the milestone was final already, and holds once it is accepted
    backdated: it was told after its time, because something was backdated behind it
    withdrawn: it was told, and by what was backdated since it does not hold
    """

    subject: Subject
    k: int
    kind: Kind
    now: Past
    recognised_at: int
    first: bool
    before: Past | None
    cause: Cause | None = None
    dispute: bool = False
    heir: bytes | None = None
    backdated: bool = False
    withdrawn: Withdrawn | None = None

    @property
    def key(self) -> bytes:
        org, plan, milestone, company = self.subject
        names = (org.encode(), plan.encode(), milestone.encode(), self.now.version, company, _number(self.k))
        return _id(*names, self.kind.encode())

    @property
    def after(self) -> Past | None:
        """What holds instead of `before`; None: nothing that was said was wrong."""
        if self.withdrawn is not None:
            return self.withdrawn.instead
        return None if self.kind in OF_STATES else self.now

    @property
    def announcements(self) -> list[Announcement]:
        """`milestone.STATE` where a state of a milestone of a company is recognised first, and `milestone.corrected`
        of each correction."""
        if self.withdrawn is not None:
            wrong = replace(self, withdrawn=None).announcements and not self.withdrawn.instead.says(self.now)
            return [Announcement("milestone.corrected", _id(self.key, b"withdrawn"))] if wrong else []
        found = []
        if self.first:
            org, plan, milestone, company = self.subject
            names = (org.encode(), plan.encode(), milestone.encode(), company, self.now.state.encode())
            found.append(Announcement(f"milestone.{self.now.state}", _id(*names)))
        if self.kind not in OF_STATES:
            found.append(Announcement("milestone.corrected", self.key))
        return found

    def holds_as(self, other: Recognition) -> bool:
        """Whether both say the same, whenever they were told."""
        return replace(self, backdated=False) == replace(other, backdated=False)

    def output(self, partitions: int) -> Output:
        """The record, in the partition of the company's root."""
        org, plan, milestone, company = self.subject
        fields = {
            "org": org, "plan": plan, "milestone": milestone, "company": company, "k_ms": self.k * PANE_MS,
            "kind": self.kind, "recognised_ms": self.recognised_at * PANE_MS, "first": self.first,
            "cause": self.cause, "dispute": "open" if self.dispute else None, **_fields(self.now),
            "before": None if self.before is None else _fields(self.before), "heir": self.heir,
            "backdated": self.backdated, "withdrawn": None,
        }  # fmt: skip
        if self.withdrawn is not None:
            fields["withdrawn"] = {"cause": self.withdrawn.cause, "instead": _fields(self.withdrawn.instead)}
        partition = leaf_partition(company, partitions)
        return Output(topic=TOPIC, partition=partition, key=self.key, value=wire("Recognition").encode(fields))

    def as_dict(self) -> dict[str, Any]:
        """As an answer shows it, without its subject."""
        before = self.now if self.withdrawn is not None else self.before
        return {
            "id": self.key.hex(),
            "kind": self.kind,
            **shown(self.now),
            "known": written(self.k * PANE_MS),
            "recognised_at": written(self.recognised_at * PANE_MS),
            "first": self.first,
            "before": None if before is None else shown(before),
            "after": None if self.after is None else shown(self.after),
            "cause": self.cause if self.withdrawn is None else self.withdrawn.cause,
            "dispute": "open" if self.dispute else None,
            "heir": None if self.heir is None else metakey(self.heir),
            "backdated": self.backdated,
            "withdrawn": self.withdrawn is not None,
            "announces": [{"event": one.event, "id": one.id.hex()} for one in self.announcements],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the records of a subject add up to, in whichever order they are read.

    k: when the last was told;  states: all that were said;  heir: whose the company is, if it is not its own any more
    disputed: whether the last is in dispute, so that what follows is, too
    """

    k: int
    last: Past
    states: frozenset[State]
    heir: bytes | None = None
    disputed: bool = False

    @classmethod
    def after(cls, known: Said | None, one: Recognition) -> Said:
        states = frozenset[State]() if known is None else known.states
        if known is not None and known.k > one.k:
            return replace(known, states=states | {one.now.state})
        return cls(k=one.k, last=one.now, states=states | {one.now.state}, heir=one.heir, disputed=one.dispute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a partition of `milestones` is.

    k:       the bucket end up to which all is said;  until: the last one up to which all ever was said
    behind:  raw partition -> the raw offset up to which what came behind (behind.py) is looked at
    bundles: how many applied bundles are
    """

    k: int
    until: int
    behind: tuple[int, ...] = ()
    bundles: int = 0

    def output(self, partition: int) -> Output:
        fields = {
            "partition": partition, "k_ms": self.k * PANE_MS, "until_ms": self.until * PANE_MS,
            "behind": list(self.behind), "bundles": self.bundles,
        }  # fmt: skip
        key = b"mark" + partition.to_bytes(4, "big")
        return Output(topic=TOPIC, partition=partition, key=key, value=wire("Recognised").encode(fields))


@dataclass(slots=True)
class Told:
    """What a partition of `milestones` has said.

    mark:  None: nothing was said
    loose: what was said behind the mark, by key: it holds if it is said again
    """

    mark: Mark | None = None
    said: dict[Subject, Said] = field(default_factory=dict)
    loose: dict[bytes, Recognition] = field(default_factory=dict)

    def add(self, one: Recognition) -> None:
        """A record, in whichever order they come."""
        if self.mark is None or one.k > self.mark.k:
            self.loose[one.key] = one
        elif one.withdrawn is None:
            self.said[one.subject] = Said.after(self.said.get(one.subject), one)


def load(value: bytes) -> Recognition | Mark:
    """A record of `milestones`.  Raises ContractError."""
    if value[:HEADER_BYTES] == wire("Recognised").header:
        mark = wire("Recognised").decode(value)
        ends = mark["k_ms"] // PANE_MS, mark["until_ms"] // PANE_MS
        return Mark(k=ends[0], until=ends[1], behind=tuple(mark["behind"]), bundles=mark["bundles"])
    fields = wire("Recognition").decode(value)
    before, withdrawn = fields["before"], fields["withdrawn"]
    return Recognition(
        subject=Subject(fields["org"], fields["plan"], fields["milestone"], fields["company"]),
        k=fields["k_ms"] // PANE_MS,
        kind=fields["kind"],
        now=_past(fields),
        recognised_at=fields["recognised_ms"] // PANE_MS,
        first=fields["first"],
        before=None if before is None else _past(before),
        cause=fields["cause"],
        dispute=fields["dispute"] is not None,
        heir=fields["heir"],
        backdated=fields["backdated"],
        withdrawn=None if withdrawn is None else Withdrawn(withdrawn["cause"], _past(withdrawn["instead"])),
    )


def company_of(value: bytes) -> bytes | None:
    """The company that a record names, without decoding the rest; None: it is no recognition."""
    if value[:HEADER_BYTES] != wire("Recognition").header:
        return None
    at = HEADER_BYTES
    for _ in range(3):  # org, plan and milestone, each behind its length: a zigzag varint
        length = shift = 0
        while at < len(value):
            byte = value[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        at += length >> 1
    company = value[at + VERSION_BYTES : at + VERSION_BYTES + LEAF_BYTES]
    return company if len(company) == LEAF_BYTES else None


def _number(k: int) -> bytes:
    return k.to_bytes(8, "big")


def _id(*names: bytes) -> bytes:
    return hashlib.blake2b(b"".join(lp(one) for one in names), digest_size=16).digest()


def _fields(of: Past) -> dict[str, Any]:
    return {
        "version": of.version,
        "state": of.state,
        "achieved_ms": None if of.achieved_at is None else of.achieved_at * PANE_MS,
        "lapsed": of.lapsed,
        "lapsed_ms": None if of.lapsed_at is None else of.lapsed_at * PANE_MS,
    }


def _past(fields: Mapping[str, Any]) -> Past:
    achieved, lapsed = fields["achieved_ms"], fields["lapsed_ms"]
    return Past(
        fields["version"],
        fields["state"],
        None if achieved is None else achieved // PANE_MS,
        fields["lapsed"],
        None if lapsed is None else lapsed // PANE_MS,
    )


def shown(of: Past) -> dict[str, Any]:
    """As an answer shows it."""
    return {
        "version": of.version.hex(),
        "state": of.state,
        "achieved_at": None if of.achieved_at is None else written(of.achieved_at * PANE_MS),
        "lapsed": of.lapsed,
        "lapsed_at": None if of.lapsed_at is None else written(of.lapsed_at * PANE_MS),
    }
