"""Recognitions: what is said of milestones, as records of the topic `milestones`.

One record a transition.  Its key says which one it is and its bytes follow from the log, so who says it twice says the
same bytes under the same key; nothing is overwritten.  `Said` is what the records of a milestone of a company add up
to, and `Told` all of them of a partition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from milepost.schemas.keys import LEAF_BYTES, leaf_partition, lp
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology.bases import written
from milepost.topology.definitions import VERSION_BYTES, State
from milepost.topology.milestones import Standing
from milepost.topology.panes import PANE_MS
from milepost.topology.state import Output

TOPIC: Final = "milestones"
CORRECTED: Final = "corrected"
Kind = State | Literal["corrected"]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """A transition.  Times are pane ends and bucket ends, in quarter hours.

    kind:  the state, or `corrected`: what was said before was wrong
    first: whether the state is recognised for the first time: it is notified once
    cause: of a correction;  dispute: it came when the milestone was final already
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

    @property
    def key(self) -> bytes:
        org, plan, milestone, company = self.subject
        names = [org.encode(), plan.encode(), milestone.encode(), self.now.version, company, _number(self.k)]
        return hashlib.blake2b(b"".join(lp(one) for one in (*names, self.kind.encode())), digest_size=16).digest()

    def output(self, partitions: int) -> Output:
        """The record, in the partition of the company's root."""
        org, plan, milestone, company = self.subject
        fields = {
            "org": org, "plan": plan, "milestone": milestone, "company": company, "k_ms": self.k * PANE_MS,
            "kind": self.kind, "recognised_ms": self.recognised_at * PANE_MS, "first": self.first,
            "cause": self.cause, "dispute": "open" if self.dispute else None, **_fields(self.now),
            "before": None if self.before is None else _fields(self.before),
        }  # fmt: skip
        partition = leaf_partition(company, partitions)
        return Output(topic=TOPIC, partition=partition, key=self.key, value=wire("Recognition").encode(fields))

    def as_dict(self) -> dict[str, Any]:
        """As an answer shows it, without its subject."""
        return {
            "kind": self.kind,
            **_shown(self.now),
            "known": written(self.k * PANE_MS),
            "recognised_at": written(self.recognised_at * PANE_MS),
            "first": self.first,
            "before": None if self.before is None else _shown(self.before),
            "cause": self.cause,
            "dispute": "open" if self.dispute else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the records of a subject add up to, in whichever order they are read.

    k: when the last was told;  states: all that were said
    """

    k: int
    last: Past
    states: frozenset[State]

    @classmethod
    def after(cls, known: Said | None, one: Recognition) -> Said:
        states = frozenset[State]() if known is None else known.states
        if known is not None and known.k > one.k:
            return replace(known, states=states | {one.now.state})
        return cls(k=one.k, last=one.now, states=states | {one.now.state})


@dataclass(slots=True)
class Told:
    """What a partition of `milestones` has said.

    k: the bucket end up to which all is said; None: nothing was
    """

    k: int | None = None
    said: dict[Subject, Said] = field(default_factory=dict)

    def add(self, one: Recognition) -> None:
        self.said[one.subject] = Said.after(self.said.get(one.subject), one)


def load(value: bytes) -> Recognition | int:
    """A record of `milestones`: a recognition, or (of a mark) the bucket end that is done.  Raises ContractError."""
    if value[:HEADER_BYTES] == wire("Recognised").header:
        return int(wire("Recognised").decode(value)["k_ms"]) // PANE_MS
    fields = wire("Recognition").decode(value)
    before = fields["before"]
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


def mark(partition: int, k: int) -> Output:
    """The record that says: everything of the partition up to the bucket end `k` has been said."""
    value = wire("Recognised").encode({"partition": partition, "k_ms": k * PANE_MS})
    return Output(topic=TOPIC, partition=partition, key=b"mark" + partition.to_bytes(4, "big"), value=value)


def _number(k: int) -> bytes:
    return k.to_bytes(8, "big")


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


def _shown(of: Past) -> dict[str, Any]:
    return {
        "version": of.version.hex(),
        "state": of.state,
        "achieved_at": None if of.achieved_at is None else written(of.achieved_at * PANE_MS),
        "lapsed": of.lapsed,
        "lapsed_at": None if of.lapsed_at is None else written(of.lapsed_at * PANE_MS),
    }
