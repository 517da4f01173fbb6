"""The oracle's history of a milestone: at each quarter of an hour, asked anew of all events, what is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.oracle import clock
from tests.oracle.keys import metakey
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
    heir: bytes | None = None


class Teller:
    """What was told of a milestone, company by company, quarter by quarter.

    milestone: as `outcome` takes it;  seen_ms: the last tick
    """

    def __init__(self, oracle: Oracle, milestone: Mapping[str, Any], tz: str, seen_ms: int) -> None:
        self.oracle, self.milestone, self.tz, self.seen_ms = oracle, milestone, tz, seen_ms
        self.told: dict[bytes, list[Told]] = {}
        self.said: dict[bytes, Outcome] = {}
        self.heirs: dict[bytes, bytes] = {}

    def walk(self, first_ms: int, last_ms: int) -> None:
        """Everything from one quarter hour to another."""
        keys = self.oracle.reading.keys
        for at in range(first_ms, last_ms + 1, clock.QUARTER):
            known = [leaf for leaf, fact in keys.items() if fact.entity == "company" and fact.k_ms < at]
            for company in sorted(self.said):
                self._close(company, self.oracle.root(company, at), at)
            for root in sorted({self.oracle.root(leaf, at) for leaf in known}):
                self._look(root, at)

    def _close(self, company: bytes, heir: bytes, at: int) -> None:
        """A company that is another's now is said to be."""
        if heir not in (company, self.heirs.get(company)):
            said = self.said[company]
            self.heirs[company] = heir
            self.told[company].append(
                Told(
                    k_ms=at, kind="closed", state=said.state, achieved_ms=said.achieved_ms, lapses=said.lapses,
                    recognised_ms=at, first=False, heir=heir,
                )
            )  # fmt: skip

    def _look(self, root: bytes, at: int) -> None:
        now, said = self._stands(root, at), self.said.get(root)
        states = {one.state for one in self.told.get(root, ())}
        resumed = self.heirs.pop(root, None) is not None
        if (said is None and now.state == "pending") or (said is not None and _same(now, said) and not resumed):
            return
        wrong = False
        if said is not None and said.state in CLAIMS:
            wrong = not _same(self._stands(root, at, at - clock.QUARTER), said)
        if self.milestone["kind"] == "achieve" and now.state in CLAIMS and now.state in states:
            wrong = True
        recognised, final = at, self.milestone["deadline"] + self.milestone["grace"]
        if said is None and now.state in ("missed", "unknown_stale") and at > final:
            recognised = final if self._stands(root, final).state == now.state else at
        told = Told(
            k_ms=at,
            kind="resumed" if resumed else "corrected" if wrong else now.state,
            state=now.state,
            achieved_ms=now.achieved_ms,
            lapses=now.lapses,
            recognised_ms=recognised,
            first=now.state not in states,
        )
        self.told.setdefault(root, []).append(told)
        self.said[root] = now

    def _stands(self, root: bytes, at: int, upto: int | None = None) -> Outcome:
        asked = {"at": at, "basis": "as_shown", "now": at}
        return outcome(self.oracle, self.milestone, metakey(root), asked, tz=self.tz, upto=upto, seen_ms=self.seen_ms)


def _same(a: Outcome, b: Outcome) -> bool:
    return (a.state, a.achieved_ms, a.lapses) == (b.state, b.achieved_ms, b.lapses)
