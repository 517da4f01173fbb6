"""Memberships: whose own events count for which company, and when they happened for it to be so.

    membership (person's key -> company's key, from, to)  as decided by c
        --> for each leaf of the person's component: the panes in which it belonged to the company  (a stay)

An event that names a person and no company lies under the person's own leaf.  At read the cells of that leaf over the
panes of a stay are added to the company's, so that April stays with the April employer whatever is decided later of
May.  A person may belong to several companies at a time; the whole organisation counts the events once all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from milepost.topology.graph import Components
from milepost.topology.links import Named
from milepost.topology.panes import PANE_MS

MEMBERSHIPS_MAX: Final = 1_000
"""Memberships of one key at most: those with the least known times count."""
FOREVER: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One revision of a membership: `member` belongs to `company` over panes [start, stop).

    id:   the same for all its revisions, of which the highest rank (revision, repair) counts, each from its own k on
    void: it is taken back
    """

    id: bytes
    rank: tuple[int, int]
    void: bool
    member: Named
    company: Named
    start: int
    stop: int
    k_ms: int
    by: str = ""
    at: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, slots=True)
class Stay:
    """The panes [start, stop) in which events under a leaf count for a company."""

    leaf: bytes
    start: int
    stop: int


@dataclass(slots=True)
class Memberships:
    """The memberships of one organisation."""

    _revisions: dict[bytes, list[Membership]] = field(default_factory=dict)
    _of_company: dict[bytes, set[bytes]] = field(default_factory=dict)
    _of_member: dict[bytes, set[bytes]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._revisions)

    def add(self, one: Membership) -> None:
        known = self._revisions.setdefault(one.id, [])
        if all(other.rank != one.rank for other in known):
            known.append(one)
            self._of_company.setdefault(one.company.leaf, set()).add(one.id)
            self._of_member.setdefault(one.member.leaf, set()).add(one.id)

    @property
    def companies(self) -> Iterable[bytes]:
        """The company leaves that any membership names."""
        return self._of_company

    @property
    def moments(self) -> list[int]:
        """The known times at which anything was decided."""
        return [one.k_ms for known in self._revisions.values() for one in known]

    def of(self, company: Iterable[bytes], c_ms: int | None) -> list[Membership]:
        """The memberships of a company, by its leaves, as decided by c (None: now), in the order of their k."""
        found = []
        for leaf in company:
            for id in self._of_company.get(leaf, ()):
                one = self._counting(id, c_ms)
                if one is not None and one.company.leaf == leaf and self._within(one):
                    found.append(one)
        return sorted(found, key=lambda one: (one.k_ms, one.id))

    def stays(self, company: Iterable[bytes], components: Components, c_ms: int | None) -> list[Stay]:
        """The stays with a company, those of one leaf joined where they touch."""
        spans: dict[bytes, list[tuple[int, int]]] = {}
        for one in self.of(company, c_ms):
            for leaf in components.leaves(components.root(one.member.leaf)):
                spans.setdefault(leaf, []).append((one.start, one.stop))
        return [Stay(leaf, *span) for leaf, some in sorted(spans.items()) for span in _joined(some)]

    def _counting(self, id: bytes, c_ms: int | None) -> Membership | None:
        known = [one for one in self._revisions[id] if c_ms is None or one.k_ms <= c_ms]
        last = max(known, key=lambda one: one.rank, default=None)
        return None if last is None or last.void else last

    def _within(self, one: Membership) -> bool:
        others = self._of_member[one.member.leaf]
        if len(others) <= MEMBERSHIPS_MAX:
            return True
        first = sorted((min(each.k_ms for each in self._revisions[id]), id) for id in others)[:MEMBERSHIPS_MAX]
        return any(id == one.id for _, id in first)


def panes_of(from_ms: int | None, to_ms: int | None) -> tuple[int, int]:
    """The panes [start, stop) of a validity; its ends are rounded down to a quarter of an hour."""
    start = 0 if from_ms is None else max(0, from_ms // PANE_MS)
    stop = FOREVER if to_ms is None else max(0, to_ms // PANE_MS)
    return min(start, FOREVER), min(stop, FOREVER)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        elif start < stop:
            joined.append((start, stop))
    return joined
