"""The oracle's history of a milestone: at each quarter of an hour, asked anew of all events, what is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.oracle import clock
from tests.oracle.oracle import Oracle
from tests.oracle.outcomes import Outcome, outcome

CLAIMS = ("achieved", "lapsed", "missed")


@dataclass(frozen=True, kw_only=True)
class Told:
    """A transition: when it was told, as what, the state with its date (ms) and losses, and since when it is known."""

    k_ms: int
    kind: str
    state: str
    achieved_ms: int | None
    lapses: int
    recognised_ms: int
    first: bool


def history(
    oracle: Oracle, milestone: Mapping[str, Any], company: str, *, first_ms: int, last_ms: int, tz: str
) -> list[Told]:
    """Everything that was told of a milestone of a company from one quarter hour to another."""
    found: list[Told] = []
    said: Outcome | None = None
    states: set[str] = set()
    final = milestone["deadline"] + milestone["grace"]
    for at in range(first_ms, last_ms + 1, clock.QUARTER):
        asked = {"at": at, "basis": "as_shown", "now": at}
        now = outcome(oracle, milestone, company, asked, tz=tz)
        if said is None and now.state == "pending":
            continue
        if said is not None and _same(now, said):
            continue
        wrong = False
        if said is not None and said.state in CLAIMS:
            wrong = not _same(outcome(oracle, milestone, company, asked, tz=tz, upto=at - clock.QUARTER), said)
        if milestone["kind"] == "achieve" and now.state in CLAIMS and now.state in states:
            wrong = True
        recognised = at
        if said is None and now.state in ("missed", "unknown_stale") and at > final:
            over = outcome(oracle, milestone, company, {"at": final, "basis": "as_shown", "now": final}, tz=tz)
            recognised = final if over.state == now.state else at
        found.append(
            Told(
                k_ms=at,
                kind="corrected" if wrong else now.state,
                state=now.state,
                achieved_ms=now.achieved_ms,
                lapses=now.lapses,
                recognised_ms=recognised,
                first=now.state not in states,
            )
        )
        said = now
        states.add(now.state)
    return found


def _same(a: Outcome, b: Outcome) -> bool:
    return (a.state, a.achieved_ms, a.lapses) == (b.state, b.achieved_ms, b.lapses)
