"""Graph: who is one with whom, a fold of proposals and decisions in the order (k, proposals first, key).

    proposal (an event named two keys) --+
    link by hand ------------------------+--> fold up to c --> components: leaf -> root, leaves, edges, refused
    unlink by hand ----------------------+

A proposal is refused when it would join the sides of a cut, or break a limit of keys; a refusal stands in the review
queue until the two are one.  `unlink` closes every edge across the cut and keeps what was joined on either side, so
that merge followed by unmerge leaves everything as it was, with what came in between on its own side.  A link by hand
is never refused, but for size: it lifts the cuts between the two, for good.

The fold is near linear (the smaller component is relabelled), remembered for each number of items that it covers, and
goes on where it stopped when something is added behind.  An item with an older k folds anew, except where order cannot
matter (no limits, cuts or refusals).  An unlink costs the size of its component, in steps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from milepost.topology.definitions import Kind, Protection
from milepost.topology.links import Decision, Link, Refusal, Refused

KEYS_MAX: Final = 100_000
"""Keys of one component at most."""
EDGES_MAX: Final = 1_000_000
"""Edges that a component keeps at most; further ones join nothing new, and are forgotten."""
REFUSED_MAX: Final = 100_000
"""Refusals remembered at most: the first ones."""
FOLDS_MAX: Final = 64
LEAVES_MAX: Final = 1_000_000
"""Folds are remembered while they hold no more leaves together, and 64 of them at most."""
ITEMS_A_STEP: Final = 2_000

Limits = tuple[tuple[Kind, int], ...]
_NO_CUTS: Final[frozenset[tuple[int, bool]]] = frozenset()


class Components:
    """Leaves that are one thing, as one fold left them.  A leaf that nothing names is its own root.

    joined: the leaves that links name
    """

    __slots__ = ("_edges", "_groups", "_items", "_refused", "_roots", "_sorted", "joined")

    def __init__(self, fold: Fold, items: Mapping[bytes, Item]) -> None:
        self._items = items
        # Lists grow at their end only, so a length keeps what this fold saw.
        self.joined: Mapping[bytes, bytes] = dict(fold.labels)
        self._groups = {label: (group, len(group)) for label, group in fold.groups.items()}
        self._edges = {label: (edges, len(edges)) for label, edges in fold.edges.items()}
        self._roots = {label: leaf for label, (_, leaf) in fold.first.items()}
        self._refused = (fold.refused, len(fold.refused))
        self._sorted: dict[bytes, tuple[bytes, ...]] = {}

    def root(self, leaf: bytes) -> bytes:
        label = self.joined.get(leaf)
        return leaf if label is None else self._roots[label]

    def leaves(self, root: bytes) -> tuple[bytes, ...]:
        """All leaves of the component, the root first."""
        label = self.joined.get(root)
        if label is None:
            return (root,)
        found = self._sorted.get(label)
        if found is None:
            group, length = self._groups[label]
            root = self._roots[label]
            found = self._sorted[label] = (root, *sorted(leaf for leaf in group[:length] if leaf != root))
        return found

    def edges(self, root: bytes) -> list[Link]:
        """The open edges of a component, in the order in which they became known."""
        label = self.joined.get(root)
        if label is None:
            return []
        edges, length = self._edges[label]
        # The same proposal may have come again with an older k, which changes nothing but what is told of it.
        return sorted((self._earliest(one) for one in edges[:length]), key=_when)

    def _earliest(self, link: Link) -> Link:
        known = None if link.by_hand else self._items.get(link.edge)
        return known if isinstance(known, Link) else link

    @property
    def refused(self) -> list[Refused]:
        """The review queue: links that were refused and whose ends are still two, in their order."""
        refused, length = self._refused
        return [one for one in refused[:length] if self.joined[one.link.a] != self.joined[one.link.b]]


class Fold:
    """The components of the first `done` items.  A component is known by its label, which is one of its leaves."""

    def __init__(self, limits: Limits = ()) -> None:
        self.limits = dict(limits)
        self.done = 0
        self.labels: dict[bytes, bytes] = {}
        self.groups: dict[bytes, list[bytes]] = {}
        self.edges: dict[bytes, list[Link]] = {}
        self.first: dict[bytes, tuple[int, bytes]] = {}
        self.refused: list[Refused] = []
        self._unlinked = False
        self._cut = 0
        self._rank: dict[bytes, int] = {}
        self._kind: dict[bytes, Kind] = {}
        self._counts: dict[bytes, dict[Kind, int]] = {}
        self._cuts: dict[bytes, frozenset[tuple[int, bool]]] = {}
        self._sides: dict[bytes, set[tuple[int, bool]]] = {}
        self._lifted: set[int] = set()

    @property
    def any_order(self) -> bool:
        """Whether what was folded so far would be the same in any order."""
        return not (self.limits or self._unlinked or self.refused)

    def take(self, item: Link | Decision) -> None:
        """Fold one more item."""
        if isinstance(item, Link):
            self._link(item)
            self.done += 1
        else:
            for _ in self.taking(item):
                pass

    def taking(self, item: Decision) -> Generator[None, object, None]:
        """The same in steps: an unlink costs the size of its component."""
        if item.what == "link":
            for link in item.links:
                self._link(link)
        else:
            self._unlinked = True
            for one in item.keys:
                self._meet(one.leaf, one.rank, one.kind)
            leaving = {one.leaf for one in item.keys}
            for label in sorted({self.labels[leaf] for leaf in leaving}):
                if any(leaf not in leaving for leaf in self.groups[label]):
                    yield from self._unlink(label, leaving)
        self.done += 1

    def _link(self, link: Link) -> None:
        self._meet(link.a, link.rank_a, link.kind_a)
        self._meet(link.b, link.rank_b, link.kind_b)
        a, b = self.labels[link.a], self.labels[link.b]
        if a == b:
            if link.a != link.b and len(self.edges[a]) < EDGES_MAX:
                self.edges[a].append(link)
            return
        why = self._fault(a, b, link.by_hand)
        if why is None:
            self.edges[self._join(a, b)].append(link)
        elif len(self.refused) < REFUSED_MAX:
            self.refused.append(Refused(link, why))

    def _fault(self, a: bytes, b: bytes, by_hand: bool) -> Refusal | None:
        """Why two components may not be joined."""
        if len(self.groups[a]) + len(self.groups[b]) > KEYS_MAX:
            return "too_large"
        cuts = self._between(a, b)
        if by_hand:
            self._lifted |= cuts
            return None
        if cuts:
            return "unlinked"
        mine, other = self._counts.get(a), self._counts.get(b)
        if mine and other:
            over = [
                self.limits[kind] for kind in mine if kind in other and mine[kind] + other[kind] > self.limits[kind]
            ]
            if over:
                return "unique" if min(over) == 1 else "limit"
        return None

    def _between(self, a: bytes, b: bytes) -> set[int]:
        """The cuts, not lifted, that have one component on each side."""
        few, many = sorted((self._sides.get(a, set()), self._sides.get(b, set())), key=len)
        return {number for number, side in few if (number, not side) in many} - self._lifted if few else set()

    def _meet(self, leaf: bytes, rank: int, kind: Kind) -> None:
        known = self._rank.get(leaf)
        if known is None:
            self._rank[leaf] = rank
            if kind in self.limits:
                self._kind[leaf] = kind
            self._alone(leaf)
        elif rank < known:
            self._rank[leaf] = rank
            label = self.labels[leaf]
            self.first[label] = min(self.first[label], (rank, leaf))

    def _alone(self, leaf: bytes) -> None:
        self.labels[leaf] = leaf
        self.groups[leaf], self.edges[leaf] = [leaf], []
        self.first[leaf] = self._rank[leaf], leaf
        if leaf in self._kind:
            self._counts[leaf] = {self._kind[leaf]: 1}
        if leaf in self._cuts:
            self._sides[leaf] = set(self._cuts[leaf])

    def _join(self, a: bytes, b: bytes) -> bytes:
        """Join two components; the label that is left."""
        if len(self.groups[a]) < len(self.groups[b]):
            a, b = b, a
        group = self.groups.pop(b)
        for leaf in group:
            self.labels[leaf] = a
        self.groups[a] += group
        self.edges[a] += self.edges.pop(b)
        self.first[a] = min(self.first[a], self.first.pop(b))
        if counts := self._counts.pop(b, None):
            mine = self._counts.setdefault(a, {})
            for kind, count in counts.items():
                mine[kind] = mine.get(kind, 0) + count
        if sides := self._sides.pop(b, None):
            self._sides.setdefault(a, set()).update(sides)
        return a

    def _unlink(self, label: bytes, leaving: set[bytes]) -> Generator[None, object, None]:
        """Cut a component in those that leave and the rest, and close every edge across."""
        number, self._cut = self._cut, self._cut + 1
        leaves = self.groups.pop(label)
        edges = self.edges.pop(label)
        for of in (self.first, self._counts, self._sides):
            of.pop(label, None)
        made: dict[tuple[frozenset[tuple[int, bool]], bool], frozenset[tuple[int, bool]]] = {}
        for at, leaf in enumerate(leaves, start=1):
            before, side = self._cuts.get(leaf, _NO_CUTS), leaf in leaving
            if (before, side) not in made:
                made[before, side] = before | {(number, side)}  # leaves of one side share one set
            self._cuts[leaf] = made[before, side]
            self._alone(leaf)
            if at % ITEMS_A_STEP == 0:
                yield None
        for at, edge in enumerate(edges, start=1):
            if (edge.a in leaving) == (edge.b in leaving):
                a, b = self.labels[edge.a], self.labels[edge.b]
                self.edges[a if a == b else self._join(a, b)].append(edge)
            if at % ITEMS_A_STEP == 0:
                yield None


Item = Link | Decision
Folding = Generator[None, object, Components]
"""Steps (topology/steps.py) that gather nothing."""
_Place = tuple[int, bool, bytes]


@dataclass(slots=True)
class Graph:
    """The links and decisions of one organisation.  One proposed or sent several times counts from its least k."""

    items: dict[bytes, Item] = field(default_factory=dict)
    _order: list[_Place] = field(default_factory=list)
    _folded: dict[tuple[Limits, int], Components] = field(default_factory=dict)
    _live: Fold | None = None
    _live_limits: Limits = ()
    _changed: int = 0
    """How often something came that was not behind everything else."""

    def add(self, item: Item) -> None:
        key = _key(item)
        known = self.items.get(key)
        was = None
        if known is not None:
            if known.k_ms <= item.k_ms:
                return
            was = bisect_left(self._order, _place(known))
            del self._order[was]
        place = _place(item)
        at = bisect_left(self._order, place)
        self._order.insert(at, place)
        self.items[key] = item
        if at == len(self._order) - 1 and known is None:
            return
        self._changed += 1
        for one in [one for one in self._folded if one[1] > at]:
            del self._folded[one]
        live = self._live
        if live is not None and at < live.done:
            if not (isinstance(item, Link) and live.any_order):
                self._live = None
            elif was is None or was >= live.done:
                live.take(item)

    def moments(self, since_ms: int, until_ms: int) -> list[int]:
        """The known times in (since, until] at which anything was proposed or decided."""
        first, last = (bisect_right(self._order, (one, True, b"\xff" * 64)) for one in (since_ms, until_ms))
        return [place[0] for place in self._order[first:last]]

    def folded(self, c_ms: int | None, protection: Protection | None = None) -> Folding:
        """The components as decided by `c_ms` (None: now) under the protection of c; in steps."""
        count = len(self._order)
        if c_ms is not None:
            count = bisect_right(self._order, (c_ms, True, b"\xff" * 64))
        limits = _limits(protection)
        found = self._folded.get((limits, count))
        if found is not None:
            return found
        changed = self._changed
        fold, self._live = self._live, None  # taken: nobody else goes on with it meanwhile
        kept, kept_limits = None, self._live_limits
        if fold is None or self._live_limits != limits or fold.done > count:
            kept, fold = fold, Fold(limits)
        todo = self._order[fold.done : count]
        for at in range(0, len(todo), ITEMS_A_STEP):
            if at:
                yield None
            for place in todo[at : at + ITEMS_A_STEP]:
                item = self.items[place[2]]
                if isinstance(item, Link):
                    fold.take(item)
                else:
                    yield from fold.taking(item)
        found = Components(fold, self.items)
        if self._changed == changed:
            held = sum(len(one.joined) for one in self._folded.values())
            if len(self._folded) >= FOLDS_MAX or held + len(found.joined) > LEAVES_MAX:
                self._folded.clear()
            self._folded[limits, count] = found
            # What covers most goes on being the one that is added to.
            if kept is not None and kept.done > count:
                fold, limits = kept, kept_limits
            if self._live is None:
                self._live, self._live_limits = fold, limits
        return found

    def at(self, c_ms: int | None, protection: Protection | None = None) -> Components:
        """The same at once."""
        steps = self.folded(c_ms, protection)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                done: Components = stop.value
                return done

    def with_decision(self, decision: Decision) -> Graph:
        """A graph that has one more decision, behind everything."""
        made = Graph(items={**self.items, decision.id: decision}, _order=[*self._order])
        made._order.append((max(decision.k_ms, self._order[-1][0] + 1 if self._order else 0), True, decision.id))
        return made


def _limits(protection: Protection | None) -> Limits:
    if protection is None or not (protection.unique or protection.limits):
        return ()
    return tuple(sorted({**protection.limits, **dict.fromkeys(protection.unique, 1)}.items()))


def _key(item: Item) -> bytes:
    return item.edge if isinstance(item, Link) else item.id


def _place(item: Item) -> _Place:
    return item.k_ms, isinstance(item, Decision), _key(item)


def _when(link: Link) -> tuple[int, bytes]:
    return link.k_ms, link.edge
