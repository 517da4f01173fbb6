"""Disputes: what holds of a milestone behind `final`: deadline and grace, and fourteen days.

    records of a milestone of a company, by k ─┐
    what people have accepted by then ─────────┴─▶ what holds · the dispute about it, open or accepted

Until then each record holds from its k on.  What comes later does not move by itself what both sides have seen to be
final: it holds once it is accepted, and with it everything that was said before it.  A dispute whose correction was
undone, or that a later one was accepted over, is overtaken.  What holds is a function of the records and acceptances
known by a moment, so it is had for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from milepost.topology.acceptances import Acceptance
from milepost.topology.bases import instant, written
from milepost.topology.completeness import FINAL_AFTER_MS
from milepost.topology.recognitions import Past, Recognition, shown

Status = Literal["open", "accepted", "overtaken"]
Accepted = Callable[[bytes], Acceptance | None]
"""A dispute's id -> who has accepted it, by the moment asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What holds of a milestone of a company.

    holds: None: nothing was said before it was final
    last:  what was said last;  by: who accepted what holds, if it had to be
    """

    holds: Past | None
    last: Recognition
    by: Acceptance | None

    @property
    def open(self) -> bool:
        """Whether what was said last is still to be accepted."""
        return self.holds is not None and not self.holds.says(self.last.now)


def verdict(said: Sequence[Recognition], accepted: Accepted) -> Verdict | None:
    """What holds by the records of one milestone of one company, in the order of their k.  None: there are none."""
    holds, by = None, None
    for one in said:
        if not one.dispute:
            holds, by = one.now, None
        elif (found := accepted(one.key)) is not None:
            holds, by = one.now, found
    return Verdict(holds=holds, last=said[-1], by=by) if said else None


def told(said: Sequence[Recognition], accepted: Accepted) -> list[dict[str, Any]]:
    """The same records as an answer lists them, each dispute with what has become of it."""
    rows: list[dict[str, Any]] = []
    found = verdict([one for one in said if one.withdrawn is None], accepted)
    beyond = False  # whether a later one was accepted
    for one in reversed(said):
        row = {**one.as_dict(), "accepted": None}
        if one.dispute:
            acceptance = accepted(one.key)
            status: Status = "accepted" if acceptance is not None else "open"
            if acceptance is None and (beyond or one.withdrawn is not None or found is None or not found.open):
                status = "overtaken"
            beyond = beyond or (acceptance is not None and one.withdrawn is None)
            row |= {"dispute": status, "accepted": None if acceptance is None else _accepted(acceptance)}
        rows.append(row)
    return rows[::-1]


def standing(row: Mapping[str, Any], at_ms: int, said: Sequence[Recognition], accepted: Accepted) -> dict[str, Any]:
    """A row of how a milestone stands at a moment, with what holds behind `final`, and `dispute`.

    said: what was said of it by then
    """
    found = verdict(said, accepted)
    if found is None or not found.last.dispute or at_ms <= instant(row["final"]) + FINAL_AFTER_MS:
        return {**row, "dispute": None}
    of = {"id": found.last.key.hex(), "cause": found.last.cause}
    if found.open and found.holds is not None:
        corrected = {name: row[name] for name in ("state", "achieved_at", "lapsed", "lapses")}
        held = shown(found.holds)
        lapsed_at = held.pop("lapsed_at")
        held |= {"lapses": [] if lapsed_at is None else [lapsed_at], "version": row["version"]}
        return {**row, **held, "dispute": {**of, "status": "open", "corrected": corrected, "accepted": None}}
    if found.by is None:
        return {**row, "dispute": {**of, "status": "overtaken", "corrected": None, "accepted": None}}
    return {**row, "dispute": {**of, "status": "accepted", "corrected": None, "accepted": _accepted(found.by)}}


def _accepted(one: Acceptance) -> dict[str, Any]:
    return {"by": one.by or None, "at": written(one.k_ms)}
