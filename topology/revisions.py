"""Revisions: amendments and voids, and what they change, whatever order they come in (semantics S1).

    revisions of one event, by known time k:   rank = (revision, repair)
      the first                   -> counts from its k on
      a higher one than all before -> counts from its k on, and what counted until then ends there
      a lower one than one before  -> superseded from the start

A revision replaces the event's signals as a whole.  What counts when is a function of the set of revisions: when one
more comes, the difference between what it was and what it is goes into the cells, each piece at the k where it holds.
So the past as it was shown does not move, and every order of arrival ends in the same cells.

Ingest keeps which revisions it has accepted (`amended`), and tells measure where those before lie; measure keeps what
is known of them (`revisions`), for answers out of facts.  An event with one revision is in neither.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from milepost.schemas.records import Reject
from milepost.topology.panes import bucket_end
from milepost.topology.state import Store

REVISIONS_MAX: Final = 1_000
"""Revisions of one event; one more is a dead letter."""

Rank = tuple[int, int]

_ACCEPTED: Final = struct.Struct(">qqiiI8s")
_KNOWN: Final = struct.Struct(">iiIq")


class Accepted(NamedTuple):
    """A revision as ingest accepted it.

    first: its first position in the partition: the order in which revisions came, whatever compaction left of it
    taken: the offset where it was taken; -1: it is announced, its copy is still to come
    leaf:  the first half of the leaf it lies under; zeros: not known
    """

    first: int
    taken: int
    revision: int
    repair: int
    pane: int
    leaf: bytes


class Known(NamedTuple):
    """A revision as measure took it."""

    revision: int
    repair: int
    pane: int
    k_ms: int

    @property
    def rank(self) -> Rank:
        return self.revision, self.repair


class Change(NamedTuple):
    """At the known time k a revision begins to count (sign 1) or ends (sign -1)."""

    rank: Rank
    k_ms: int
    sign: int


def load_accepted(row: bytes | None) -> list[Accepted]:
    """The revisions in a row of `amended`, in the order they were accepted."""
    return [] if row is None else [Accepted._make(one) for one in _ACCEPTED.iter_unpack(row[8:])]


def dump_accepted(upto: int, accepted: Iterable[Accepted]) -> bytes:
    return upto.to_bytes(8, "big") + b"".join(_ACCEPTED.pack(*one) for one in accepted)


def before(accepted: Sequence[Accepted], this: Accepted) -> list[Accepted] | Reject:
    """The revisions that measure may have heard of before this one, or why this one is not accepted.

    Whose company counts is decided by first positions, and by what was taken before: a record under a wrong key of its
    own partition first lay before revisions that were taken when its copy came.  Heard of is what was taken before;
    after a crash this may be the second reading, and what was taken behind it is not before it.  What is announced and
    first lay before it was told in another life, if not in this one: measure knows what it has of it.
    """
    others = [one for one in accepted if (one.revision, one.repair) != (this.revision, this.repair)]
    if len(others) >= REVISIONS_MAX:
        return Reject("contract_violation", f"an event has at most {REVISIONS_MAX} revisions")
    known = [one for one in others if (one.first < this.first or 0 <= one.taken < this.taken) and any(one.leaf)]
    if known and min(known).leaf != this.leaf:
        return Reject("identity_changed", "a revision names another company; void the event and send a new id")
    return [one for one in others if 0 <= one.taken < this.taken or (one.taken < 0 and one.first < this.first)]


def noted(accepted: Sequence[Accepted], this: Accepted) -> list[Accepted] | None:
    """The revisions with this one among them; None: it is there already."""
    if this in accepted:
        return None
    return [one for one in accepted if (one.revision, one.repair) != (this.revision, this.repair)] + [this]


def announce(amended: Store, id: bytes, this: Accepted) -> None:
    """Note a revision whose copy is still to come."""
    amended.put(id, dump_accepted(0, [*load_accepted(amended.get(id)), this]))


def load_known(row: bytes | None) -> list[Known]:
    """The revisions in a row of `revisions`, by rank."""
    return [] if row is None else [Known._make(one) for one in _KNOWN.iter_unpack(row[8:])]


def dump_known(upto: bytes, known: Iterable[Known]) -> bytes:
    return upto + b"".join(_KNOWN.pack(*one) for one in sorted(known))


def changes(known: Iterable[Known]) -> list[Change]:
    """What begins and ends to count when, by known time."""
    found: list[Change] = []
    holder: Known | None = None
    for one in sorted(known, key=lambda each: (each.k_ms, each.rank)):
        if holder is not None:
            if one.rank < holder.rank:
                continue
            found.append(Change(holder.rank, one.k_ms, -1))
        found.append(Change(one.rank, one.k_ms, 1))
        holder = one
    return found


def difference(before: Sequence[Known], after: Sequence[Known]) -> dict[Rank, list[tuple[int, int]]]:
    """Rank -> [(k, sign)]: what has to be added so that the cells say `after` where they said `before`."""
    net: Counter[Change] = Counter()
    for change in changes(after):
        net[change._replace(sign=1)] += change.sign
    for change in changes(before):
        net[change._replace(sign=1)] -= change.sign
    found: dict[Rank, list[tuple[int, int]]] = {}
    for change, sign in net.items():
        if sign:
            found.setdefault(change.rank, []).append((change.k_ms, sign))
    return found


def counts(known: Sequence[Known], rank: Rank, until: int) -> bool:
    """Whether a revision counts by what is known until the bucket end `until`, as its cells say.

    Its beginning and its end fall into buckets of its own pane.
    """
    pane = next(one.pane for one in known if one.rank == rank)
    return sum(one.sign for one in changes(known) if one.rank == rank and bucket_end(pane, one.k_ms) <= until) > 0
