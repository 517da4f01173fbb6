"""Links: what the graph is made of.  An edge between two leaves, what a person decided, what was refused, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from milepost.topology.definitions import Kind

Refusal = Literal["unlinked", "unique", "limit", "too_large"]
"""Why a link is not made: taken apart by hand; two values of a unique kind; more of a kind, or of all, than may be."""
_NO_KIND: Final[Kind] = ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An edge: two leaves of one entity are the same thing, known from `k_ms` on.

    rank_a, rank_b: the place of each key's kind in the bundle (0 = first), which decides the root
    at:             raw position (partition, offset) of the record that says so
    """

    a: bytes
    b: bytes
    rank_a: int
    rank_b: int
    k_ms: int
    kind_a: Kind = _NO_KIND
    kind_b: Kind = _NO_KIND
    by_hand: bool = False
    by: str = ""
    at: tuple[int, int] = (-1, -1)

    @property
    def edge(self) -> bytes:
        return self.a + self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A key that a decision names."""

    leaf: bytes
    kind: Kind
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided: `link`: the keys are one thing; `unlink`: the keys leave what they are part of."""

    id: bytes
    what: Literal["link", "unlink"]
    keys: tuple[Named, ...]
    k_ms: int
    by: str = ""
    at: tuple[int, int] = (-1, -1)

    @property
    def links(self) -> list[Link]:
        """The edges that a link by hand opens: from its first key to each other."""
        first = self.keys[0]
        return [
            Link(
                a=first.leaf, b=one.leaf, rank_a=first.rank, rank_b=one.rank, k_ms=self.k_ms, kind_a=first.kind,
                kind_b=one.kind, by_hand=True, by=self.by, at=self.at,
            )
            for one in self.keys[1:]
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refused:
    """A link that was not made, and why."""

    link: Link
    why: Refusal


def chain(links: Sequence[Link], leaf: bytes, root: bytes) -> list[Link]:
    """The shortest way over links from a leaf to its root; of several the one over the earlier links."""
    near: dict[bytes, list[tuple[bytes, Link]]] = {}
    for link in links:
        near.setdefault(link.a, []).append((link.b, link))
        near.setdefault(link.b, []).append((link.a, link))
    came: dict[bytes, tuple[bytes, Link] | None] = {leaf: None}
    edge = [leaf]
    while edge and root not in came:
        further = []
        for at in edge:
            for other, link in near.get(at, ()):
                if other not in came:
                    came[other] = at, link
                    further.append(other)
        edge = further
    way: list[Link] = []
    at = root
    while (step := came.get(at)) is not None:
        at = step[0]
        way.append(step[1])
    return way[::-1]
