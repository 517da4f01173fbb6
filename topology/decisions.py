"""Decisions: what every worker follows whole: bundles of definitions, the graph of links, memberships,
how complete sources were said to be, which disputes were accepted, what a schema registry's ids mean.

The topic is the log; this is its fold in memory, done alike by every worker (design §4), so that merge, re-attribution
and time travel are one mechanism (`topology/graph.py`, `topology/memberships.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from milepost.schemas.errors import BundleError, Finding
from milepost.schemas.framing import NO_TABLE, Table
from milepost.topology.acceptances import Acceptances
from milepost.topology.breaking import Version, follow
from milepost.topology.catalog import Catalog
from milepost.topology.completions import Completions
from milepost.topology.graph import Folding, Graph, Item
from milepost.topology.lenient import nothing_holds
from milepost.topology.memberships import Membership, Memberships


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A bundle as it was applied: by which organisation, known when.  at: the how many-th of all"""

    org: str
    catalog: Catalog
    k_ms: int
    attempt: str = ""
    at: int = 0


@dataclass(slots=True)
class Decisions:
    """All decisions that this worker has read.

    `load` turns the files of a bundle of the log into a catalog (`lenient.lenient_bundle`); it is handed in, so that
    tests can count.
    """

    load: Callable[[Mapping[str, bytes]], Catalog]
    catalogs: dict[bytes, Catalog] = field(default_factory=dict)
    history: dict[str, list[Applied]] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    members: dict[str, Memberships] = field(default_factory=dict)
    complete: dict[str, Completions] = field(default_factory=dict)
    accepted: dict[str, Acceptances] = field(default_factory=dict)
    contracts: dict[str, dict[str, list[Version]]] = field(default_factory=dict)
    """Organisation -> contract -> the versions it had (breaking.py)."""
    tables: dict[bytes, Table] = field(default_factory=dict)
    table: Table = NO_TABLE
    """What ids of a schema registry mean: the newest table, and all by their names."""
    applied: int = 0
    """How many bundles were applied."""
    read: dict[str, int] = field(default_factory=dict)
    """Topic -> next offset: how far this fold has come."""

    def add_bundle(self, org: str, files: Mapping[str, bytes], k_ms: int, attempt: str = "") -> Catalog:
        """A bundle was applied.  Raises BundleError when nothing of it holds: then it is not in force for any question,
        and known all the same, so that a marker that names it stops nobody."""
        catalog = self.load(files)
        catalog = self.catalogs.setdefault(catalog.bundle_id, catalog)
        if nothing_holds(catalog):
            raise BundleError(catalog.left_out)
        follow(self.contracts.setdefault(org, {}), files, catalog.bundle_id)
        applied = Applied(org=org, catalog=catalog, k_ms=k_ms, attempt=attempt, at=self.applied)
        self.history.setdefault(org, []).append(applied)
        self.applied += 1
        return catalog

    def add_table(self, table: Table) -> None:
        """A registry was asked what its ids mean."""
        self.table = self.tables.setdefault(table.id, table)

    def left_out(self) -> dict[str, tuple[Finding, ...]]:
        """Organisation -> what of its bundle in force does not hold in this release; only those that lack something."""
        newest = {org: applied[-1].catalog.left_out for org, applied in self.history.items()}
        return {org: found for org, found in newest.items() if found}

    def add_link(self, org: str, item: Item) -> None:
        """A proposal, or a link or unlink by hand."""
        self.graphs.setdefault(org, Graph()).add(item)

    def add_membership(self, org: str, membership: Membership) -> None:
        self.members.setdefault(org, Memberships()).add(membership)

    def completions(self, org: str) -> Completions:
        return self.complete.setdefault(org, Completions())

    def acceptances(self, org: str) -> Acceptances:
        return self.accepted.setdefault(org, Acceptances())

    def graph(self, org: str) -> Graph:
        return self.graphs.setdefault(org, Graph())

    def memberships(self, org: str) -> Memberships:
        return self.members.setdefault(org, Memberships())

    def components(self, org: str, c_ms: int | None) -> Folding:
        """Who is one with whom as decided by c (None: now), under the protection of the definitions of c."""
        known = self.catalog(org, c_ms)
        return (yield from self.graph(org).folded(c_ms, None if known is None else known[0].protection))

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
