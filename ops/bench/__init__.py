"""Bench: Milepost beside its peers on one broker, then the other figures it promises.

    stage (one broker, measured flags) -> contestants, one after another, each a process of its own, its work compared
                                       -> goals: flights, freshness, questions, restore, kills, idle, a large store, …
                                       -> bench.json, a Markdown table with ratios, a flame graph

Ratios matter, not absolutes: everything shares one machine with the broker.  What cannot run here is marked as not run,
with the reason and the fix; what was run and came out wrong makes the run fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PARTS: Final[Mapping[str, str]] = {
    "e": "a plain loop that decodes and counts: the bound",
    "b": "Kafka Streams, at least once and exactly once, 1 and 2 threads",
    "c": "Quix Streams",
    "d": "Faust as it is delivered",
    "a": "Milepost, 1 and 2 workers, and a flame graph",
    "turns": "Milepost and its peer again, turn by turn: a machine's speed changes from minute to minute",
    "rules": "an event and a rule, compiled and by the library",
    "flights": "the demo's flights, the whole line",
    "freshness": "from produced to visible in `value`, beside 5,000 events/s",
    "questions": "`value` over HTTP, 300 a second, beside 5,000 events/s",
    "milestones": "from produced to `achieved` in an answer, beside 2,000 events/s",
    "old": "an event of three years ago: from produced to its point of the series, beside 2,000 events/s",
    "merges": "from a link by hand to every answer being of both",
    "restore": "a lost folder, and Kafka Streams on a changelog of as many records",
    "kills": "a killed worker: another takes over, or it is started again",
    "idle": "a worker that has nothing to do",
    "large": "the job over a large store beside the job over an empty one",
}
"""Name for --only -> what it measures, in the order of a run."""
