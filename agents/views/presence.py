"""Presence: who is on the bridge and at which time they look; kept for seconds, in memory, by this worker alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FORGOTTEN_S: Final = 30.0
"""Who has not said so again for so long is no more there, seconds."""
WHO_MAX: Final = 128
"""Longest name, characters."""
PRESENT_MAX: Final = 100
"""People at one place at most."""
PLACES_MAX: Final = 1_000

Place = tuple[str, str | None]
"""Organisation and MetaKey of a company; None: the whole organisation."""


class Full(Exception):
    """There is no room for one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """at: the time they look at, as they wrote it; None: they look at what is live.  until: monotonic seconds."""

    at: str | None
    until: float


class Presence:
    """Who is where."""

    def __init__(self) -> None:
        self._of: dict[Place, dict[str, Present]] = {}

    def put(self, place: Place, who: str, at: str | None, now: float) -> bool:
        """Somebody is there; True when that is news.  Raises Full."""
        people = self._of.get(place)
        if people is None:
            if len(self._of) >= PLACES_MAX:
                raise Full
            people = self._of[place] = {}
        before = people.get(who)
        if before is None and len(people) >= PRESENT_MAX:
            raise Full
        people[who] = Present(at=at, until=now + FORGOTTEN_S)
        return before is None or before.at != at

    def expire(self, now: float) -> Iterator[Place]:
        """Forget who has not said so again; the places where that is news."""
        for place, people in list(self._of.items()):
            gone = [who for who, one in people.items() if one.until <= now]
            for who in gone:
                del people[who]
            if not people:
                del self._of[place]
            if gone:
                yield place

    def at(self, place: Place) -> list[dict[str, str | None]]:
        """Who is at a place, by name."""
        return [{"who": who, "at": one.at} for who, one in sorted(self._of.get(place, {}).items())]
