"""Who is one with whom, by brute force: every proposal and decision in order, components by closure.

proposals (k, edge) and decisions (k, id) in the order of k, proposals first  ->  open edges, cuts, refusals
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.oracle.clock import QUARTER
from tests.oracle.log import Decision, KeyFact

Edge = tuple[bytes, bytes]
Kind = tuple[str, str]


class Graph:
    """The open edges after all that is known by c."""

    def __init__(self, facts: Mapping[bytes, KeyFact], limits: Mapping[Kind, int]) -> None:
        self.facts, self.limits = facts, limits
        self.edges: list[Edge] = []
        self.cuts: list[tuple[frozenset[bytes], frozenset[bytes]]] = []
        self.refused: list[tuple[bytes, bytes, str]] = []

    def fold(self, proposals: Mapping[Edge, int], decisions: Iterable[Decision], c_ms: int | None) -> Graph:
        items: list[tuple[int, bool, bytes, Edge | Decision]] = [
            (k_ms, False, a + b, (a, b)) for (a, b), k_ms in proposals.items()
        ]
        items += [(one.k_ms, True, one.id, one) for one in decisions]
        for k_ms, _, _, item in sorted(items, key=lambda one: one[:3]):
            if c_ms is not None and k_ms > c_ms:
                break
            if isinstance(item, tuple):
                self._propose(*item)
            elif item.what == "link":
                for other in item.leaves[1:]:
                    self._link(item.leaves[0], other)
            elif item.what == "unlink":
                self._unlink(frozenset(item.leaves))
        return self

    def component(self, leaf: bytes) -> frozenset[bytes]:
        found = {leaf}
        while True:
            more = found | {one for edge in self.edges if found & set(edge) for one in edge}
            if more == found:
                return frozenset(found)
            found = more

    def _propose(self, a: bytes, b: bytes) -> None:
        mine, other = self.component(a), self.component(b)
        if mine != other:
            if any(_separates(cut, mine, other) for cut in self.cuts):
                self.refused.append((a, b, "unlinked"))
                return
            for kind, limit in sorted(self.limits.items(), key=lambda one: one[1]):
                counts = [sum(self._kind(leaf) == kind for leaf in one) for one in (mine, other)]
                if min(counts) > 0 and sum(counts) > limit:
                    self.refused.append((a, b, "unique" if limit == 1 else "limit"))
                    return
        self.edges.append((a, b))

    def _link(self, a: bytes, b: bytes) -> None:
        mine, other = self.component(a), self.component(b)
        if mine != other:
            self.cuts = [cut for cut in self.cuts if not _separates(cut, mine, other)]
        self.edges.append((a, b))

    def _unlink(self, leaving: frozenset[bytes]) -> None:
        for whole in {self.component(leaf) for leaf in leaving}:
            sides = whole & leaving, whole - leaving
            if sides[1]:
                self.cuts.append(sides)
                self.edges = [edge for edge in self.edges if not _across(edge, *sides)]

    def _kind(self, leaf: bytes) -> Kind:
        fact = self.facts[leaf]
        return fact.entity, fact.key


def members_of(
    decisions: Sequence[Decision], company: frozenset[bytes], c_ms: int | None
) -> list[tuple[bytes, int | None, int | None]]:
    """(member's leaf, from, to) of a company's memberships as decided by c, rounded down to a quarter of an hour."""
    last: dict[bytes, Decision] = {}
    for one in decisions:
        known = one.what == "membership" and (c_ms is None or one.k_ms <= c_ms)
        if known and (one.id not in last or one.rank > last[one.id].rank):
            last[one.id] = one
    return [
        (one.leaves[0], _floor(one.from_ms), _floor(one.to_ms))
        for one in last.values()
        if not one.void and one.leaves[1] in company
    ]


def _floor(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms - at_ms % QUARTER


def _separates(cut: tuple[frozenset[bytes], frozenset[bytes]], mine: frozenset[bytes], other: frozenset[bytes]) -> bool:
    left, right = cut
    return bool((mine & left and other & right) or (mine & right and other & left))


def _across(edge: Edge, left: frozenset[bytes], right: frozenset[bytes]) -> bool:
    a, b = edge
    return (a in left and b in right) or (a in right and b in left)
