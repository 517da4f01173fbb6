"""Acceptances: which disputes about milestones people have accepted by `milepost.dispute_accepted`, known from when on.

    revisions of an acceptance (accepted, or taken back)  as decided by c  ->  who accepted a dispute, and when

An acceptance names the record that opened the dispute (recognitions.py) and nothing else, so it needs no company, and
merges do not touch it.  Of several acceptances of one dispute the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

ACCEPTANCES_MAX: Final = 100
"""Acceptances of one dispute at most: those with the least known times count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One revision of an acceptance.

    id:      the same for all its revisions, of which the highest rank (revision, repair) counts, each from its own k on
    dispute: id of the record that opened it;  void: it is taken back
    """

    id: bytes
    rank: tuple[int, int]
    void: bool
    dispute: bytes
    k_ms: int
    by: str = ""


@dataclass(slots=True)
class Acceptances:
    """The acceptances of one organisation."""

    _revisions: dict[bytes, list[Acceptance]] = field(default_factory=dict)
    _of: dict[bytes, set[bytes]] = field(default_factory=dict)

    def add(self, one: Acceptance) -> None:
        known = self._revisions.setdefault(one.id, [])
        if all(other.rank != one.rank for other in known):
            known.append(one)
            self._of.setdefault(one.dispute, set()).add(one.id)

    def of(self, dispute: bytes, c_ms: int | None) -> Acceptance | None:
        """The acceptance of a dispute as decided by c (None: now); None: it is open."""
        ids = sorted((min(one.k_ms for one in self._revisions[id]), id) for id in self._of.get(dispute, ()))
        some = (self._counting(id, c_ms) for _, id in ids[:ACCEPTANCES_MAX])
        found = [one for one in some if one is not None and one.dispute == dispute]
        return min(found, key=lambda one: (one.k_ms, one.id), default=None)

    def _counting(self, id: bytes, c_ms: int | None) -> Acceptance | None:
        known = [one for one in self._revisions[id] if c_ms is None or one.k_ms <= c_ms]
        last = max(known, key=lambda one: one.rank, default=None)
        return None if last is None or last.void else last
