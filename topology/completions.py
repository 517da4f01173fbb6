"""Completions: what was said of sources by `milepost.source_complete`: complete up to a time, known from a time on.

    (k, until), (k, until), ...   of each source, both ascending: what goes no further than one before it says nothing

A completion counts from its own known time on and takes nothing back, so the order in which they come changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

COMPLETIONS_MAX: Final = 100_000
"""Completions of one source that are remembered: those known last.  Of earlier moments less is known then."""


@dataclass(slots=True)
class Completions:
    """The completions of one organisation."""

    _known: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, source: str, k_ms: int, until_ms: int) -> None:
        """A source is complete up to `until_ms`, known from `k_ms` on."""
        steps = self._known.setdefault(source, [])
        at = bisect_left(steps, (k_ms + 1,))
        if at and steps[at - 1][1] >= until_ms:
            return
        stop = at
        while stop < len(steps) and steps[stop][1] <= until_ms:
            stop += 1
        start = at - 1 if at and steps[at - 1][0] == k_ms else at
        steps[start:stop] = [(k_ms, until_ms)]
        del steps[:-COMPLETIONS_MAX]

    def until(self, source: str, before_ms: int) -> int | None:
        """Up to when a source is complete by what was known before `before_ms`; None: nobody said so."""
        steps = self._known.get(source, [])
        at = bisect_left(steps, (before_ms,))
        return steps[at - 1][1] if at else None

    def steps(self, source: str) -> Sequence[tuple[int, int]]:
        """What was said of a source: (known time, up to when), ms, both rising."""
        return self._known.get(source, ())
