"""How the demo's milestones stand, computed over the CSV by polars: every pane end looked at, no code of the engine's.

flights ─▶ departures by airline and quarter of an hour ─▶ running sums ─▶ sums over windows at each pane end ─▶ states
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

QUARTER: Final = timedelta(minutes=15)
FIRST: Final = datetime(2012, 11, 1, tzinfo=UTC)
"""Before the first flight by more than the longest window."""
LAST: Final = datetime(2014, 1, 1, tzinfo=UTC)
"""The last deadline."""
MONTH: Final = 28 * 96
"""Pane ends of 28 days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A milestone as the demo's bundle has it, written down once more: `holds` is over the columns of `courses`."""

    kind: str
    start: datetime
    deadline: datetime
    holds: pl.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """State, date and the pane ends at which it lapsed."""

    state: str
    achieved_at: datetime | None
    lapses: tuple[datetime, ...] = ()


YEAR: Final = {"start": datetime(2013, 1, 1, tzinfo=UTC), "deadline": LAST}
TERMS: Final = {
    "twenty_departures": Terms(kind="achieve", holds=pl.col("all") >= 20, **YEAR),
    "five_thousand": Terms(kind="achieve", holds=pl.col("month") >= 5000, **YEAR),
    "never_idle": Terms(kind="maintain", holds=pl.col("hours") >= 1, **YEAR),
    "punctual_month": Terms(
        kind="achieve",
        start=datetime(2013, 2, 1, tzinfo=UTC),
        deadline=datetime(2013, 3, 1, tzinfo=UTC),
        holds=pl.col("rate") >= 0.8,
    ),
}


def courses(flights: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Airline -> a row for each pane end: departures in all, of 28 days, of 3 hours, and the share on time of 28 days.

    A flight that leaves at 10:00 lies in the pane that ends at 10:15.
    """
    ends = pl.select(end=pl.datetime_range(FIRST, LAST, QUARTER, time_zone="UTC", time_unit="us"))
    gone = flights.filter(pl.col("dep_time").is_not_null()).with_columns(
        end=pl.col("departed").dt.cast_time_unit("us").dt.truncate("15m") + QUARTER
    )
    found = {}
    for (carrier,), own in gone.group_by("carrier"):
        counts = own.group_by("end").agg(n=pl.len().cast(pl.Int64), on_time=(pl.col("dep_delay") <= 15).sum())
        found[str(carrier)] = (
            ends.join(counts, on="end", how="left")
            .sort("end")
            .with_columns(pl.col("n", "on_time").fill_null(0).cast(pl.Int64).cum_sum())
            .with_columns(
                all=pl.col("n"),
                month=pl.col("n") - pl.col("n").shift(MONTH, fill_value=0),
                hours=pl.col("n") - pl.col("n").shift(12, fill_value=0),
                on_time=pl.col("on_time") - pl.col("on_time").shift(MONTH, fill_value=0),
            )
            .with_columns(rate=pl.when(pl.col("month") > 0).then(pl.col("on_time") / pl.col("month")))
        )
    return found


def stands(course: pl.DataFrame, terms: Terms, at: datetime, complete_to: datetime) -> Stands:
    """How a milestone stands for an airline at `at`, grace being over once the deadline is: now is much later.

    complete_to: up to when the source is complete
    """
    if at < terms.start:
        return Stands(state="pending", achieved_at=None)
    until = min(at, terms.deadline)
    seen = course.filter((pl.col("end") >= terms.start) & (pl.col("end") <= until)).select(
        "end", holds=terms.holds.fill_null(False)
    )
    turns = seen.with_columns(before=pl.col("holds").shift(1, fill_value=False))
    begun = turns.filter(pl.col("holds") & ~pl.col("before"))["end"].to_list()
    ended = tuple(turns.filter(~pl.col("holds") & pl.col("before"))["end"].to_list())
    if terms.kind == "achieve" and begun:
        return Stands(state="achieved", achieved_at=begun[0])
    if terms.kind == "maintain" and seen["holds"].last():
        return Stands(state="achieved", achieved_at=begun[-1], lapses=ended)
    told = complete_to >= until
    if begun:
        lost = complete_to >= ended[-1]
        return Stands(state="lapsed" if lost else "unknown_stale", achieved_at=None, lapses=ended)
    if at < terms.deadline:
        return Stands(state="in_progress", achieved_at=None)
    return Stands(state="missed" if told else "unknown_stale", achieved_at=None)
