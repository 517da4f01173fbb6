"""Decisions: what every worker follows whole: bundles of definitions, and the graph of links.

The topic is the log; this is its fold in memory.  The graph at a moment c is a fold of all links with k <= c in the
order (k, edge), done alike by every worker (design §4), so that merge, re-attribution and time travel are one
mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from milepost.topology.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An edge: two leaves of one entity are the same thing, known from `k_ms` on.

    rank_a, rank_b: the place of each key's kind in the bundle (0 = first), which decides the root.
    """

    a: bytes
    b: bytes
    rank_a: int
    rank_b: int
    k_ms: int

    @property
    def edge(self) -> bytes:
        return self.a + self.b


@dataclass(slots=True)
class Graph:
    """The links of one organisation.  An edge proposed several times counts from its least k."""

    links: dict[bytes, Link] = field(default_factory=dict)
    _folded: dict[int | None, Components] = field(default_factory=dict)

    def add(self, link: Link) -> None:
        known = self.links.get(link.edge)
        if known is None or link.k_ms < known.k_ms:
            self.links[link.edge] = link
            self._folded.clear()

    def at(self, c_ms: int | None) -> Components:
        """The components as decided by `c_ms`; None: now.  Remembers the last 64 moments."""
        folded = self._folded.get(c_ms)
        if folded is None:
            if len(self._folded) >= 64:
                self._folded.clear()
            folded = self._folded[c_ms] = _fold(self.links, c_ms)
        return folded


@dataclass(frozen=True, slots=True)
class Components:
    """Leaves that are one thing.  A leaf that no link names is its own root."""

    roots: Mapping[bytes, bytes]
    members: Mapping[bytes, tuple[bytes, ...]]

    def root(self, leaf: bytes) -> bytes:
        return self.roots.get(leaf, leaf)

    def leaves(self, root: bytes) -> tuple[bytes, ...]:
        """All leaves of the component, the root first."""
        return self.members.get(root, (root,))


def _fold(links: Mapping[bytes, Link], c_ms: int | None) -> Components:
    parent: dict[bytes, bytes] = {}
    rank: dict[bytes, int] = {}

    def find(leaf: bytes) -> bytes:
        while parent[leaf] != leaf:
            parent[leaf] = parent[parent[leaf]]
            leaf = parent[leaf]
        return leaf

    for link in sorted(links.values(), key=lambda one: (one.k_ms, one.edge)):
        if c_ms is not None and link.k_ms > c_ms:
            break
        for leaf, place in ((link.a, link.rank_a), (link.b, link.rank_b)):
            parent.setdefault(leaf, leaf)
            rank[leaf] = min(place, rank.get(leaf, place))
        a, b = find(link.a), find(link.b)
        if a != b:
            low, high = sorted((a, b), key=lambda leaf: (rank[leaf], leaf))
            parent[high] = low
    groups: dict[bytes, list[bytes]] = {}
    for leaf in parent:
        groups.setdefault(find(leaf), []).append(leaf)
    members = {root: (root, *sorted(leaf for leaf in leaves if leaf != root)) for root, leaves in groups.items()}
    return Components(roots={leaf: root for root, leaves in members.items() for leaf in leaves}, members=members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A bundle as it was applied: by which organisation, known when."""

    org: str
    catalog: Catalog
    k_ms: int
    attempt: str = ""


@dataclass(slots=True)
class Decisions:
    """All decisions that this worker has read.

    `load` turns the files of a bundle into a catalog (`catalog.load_bundle`); it is handed in, so that tests can count.
    """

    load: Callable[[Mapping[str, bytes]], Catalog]
    catalogs: dict[bytes, Catalog] = field(default_factory=dict)
    history: dict[str, list[Applied]] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    """Topic -> next offset: how far this fold has come."""

    def add_bundle(self, org: str, files: Mapping[str, bytes], k_ms: int, attempt: str = "") -> Catalog:
        """A bundle was applied.  Raises BundleError when it does not validate (then nothing changes)."""
        catalog = self.load(files)
        catalog = self.catalogs.setdefault(catalog.bundle_id, catalog)
        self.history.setdefault(org, []).append(Applied(org=org, catalog=catalog, k_ms=k_ms, attempt=attempt))
        return catalog

    def add_link(self, org: str, link: Link) -> None:
        self.graphs.setdefault(org, Graph()).add(link)

    def graph(self, org: str) -> Graph:
        return self.graphs.setdefault(org, Graph())

    def catalog(self, org: str, c_ms: int | None = None) -> tuple[Catalog, bool] | None:
        """(catalog in force at `c_ms`, backfilled) or None when the organisation has no definitions.

        Before the first one the first holds, and the answer says so: `backfilled` is True (semantics, "as_shown")."""
        history = self.history.get(org)
        if not history:
            return None
        if c_ms is None:
            return history[-1].catalog, False
        past = [applied for applied in history if applied.k_ms <= c_ms]
        return (past[-1].catalog, False) if past else (history[0].catalog, True)
