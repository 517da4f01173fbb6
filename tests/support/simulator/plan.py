"""Plan: what one history is like, drawn from its seed, and the times that all histories keep to."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

INPUT_S: Final = 2.4
"""Over how long the input comes."""

TICKS_S: Final = 0.15
"""How often all raw partitions get a tick where `achieve` is at work; else when all is healed."""

BURST_S: Final = 0.03
"""How long the records of one burst come."""

FAULTS_S: Final = 2.8
"""Until when faults come."""

SAYING_S: Final = 2.0
LATER_S: Final = tuple(float(second) for second in range(2, 20, 2))
"""When, after all is healed, the ticks go on where `achieve` is at work: it looks back every few seconds."""
"""How much longer processes are killed where `achieve` is at work: most of what it says it says behind the input."""

LAG_S: Final = 1.2
"""The cleaner's lag: longer than bytes are on their way, a process is stopped, or an owner writes nothing."""

UNSEEN_S: Final = 0.5
"""A partition whose owner has proved nothing for so long, or whose leg is so far behind, is not cleaned: that it does
not come to this is what `min.compaction.lag.ms` is set for (an hour against ten minutes of silence, design §7.5; three
days against one day of lag, §3)."""

DELETIONS_S: Final = 1.2
"""How much longer a deletion stays."""

OLD_S: Final = 1.0
"""How old a copy of a folder may be that is put back."""

FULL_S: Final = 0.6
"""For how long a disk may be full."""

EVENTS_MAX: Final = 60_000
"""What may happen in one history: more is one that does not come to rest."""

HEAL_S: Final = 40.0

KINDS: Final = (
    "kill", "kill", "stop", "stop", "evict", "rebalance", "lose", "lose running", "old copy", "leave", "compact", "compact",
    "full disk",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one history is like; drawn from the seed."""

    workers: int
    static: bool
    chunk_max: int
    checkpoint_ms: int
    checkpoint_bytes: int
    idle_s: float
    lost_answers: float
    redelivered: float
    crash: float
    torn: float
    slow: float
    stops: float
    no_memory: float
    second: float
    bursts: tuple[float, ...]
    faults: tuple[tuple[float, str], ...]


def draw(chance: random.Random) -> Plan:
    bursts = tuple(sorted(chance.uniform(0.0, INPUT_S) for _ in range(chance.randint(3, 10))))
    # A fault beside a burst meets work in hand; one between bursts meets what is left to do.
    times = sorted(
        chance.choice(bursts) + chance.uniform(0.0, 0.15) if chance.random() < 0.6 else chance.uniform(0.02, FAULTS_S)
        for _ in range(chance.randint(1, 8))
    )
    return Plan(
        workers=chance.choice((1, 1, 2, 2, 3)),
        static=chance.random() < 0.5,
        chunk_max=chance.choice((1, 4, 20, 20)),
        checkpoint_ms=chance.choice((5, 20, 60)),
        checkpoint_bytes=chance.choice((300, 3000, 8 << 20)),
        idle_s=0.35,
        lost_answers=chance.choice((0.0, 0.0, 0.1)),
        redelivered=chance.choice((0.0, 0.1)),
        crash=chance.choice((0.2, 0.5, 0.8)),
        slow=chance.choice((1.0, 1.0, 6.0)),
        torn=chance.choice((0.0, 0.5, 0.9)),
        stops=chance.choice((0.0, 0.5, 0.8)),
        no_memory=chance.choice((0.0, 0.0, 0.0, 0.04)),
        second=chance.choice((0.3, 0.9)),
        bursts=bursts,
        faults=tuple((at, chance.choice(KINDS)) for at in times),
    )


POINTS: Final = (
    "after_fetch", "after_fold", "outputs_half", "outputs_acked", "batch_sent", "batch_acked", "local_written",
    "committed", "own_appended", "restoring", "restored", "outputs_half", "outputs_half", "restoring", "restoring",
)  # fmt: skip
"""Where a life may be killed; those that are passed seldom more often."""


SOURCE: Final = {
    "raw-events": "raw-events", "signals": "signals", "ingest-changelog": "raw-events", "measure-changelog": "signals",
    "record-changes": "record-changes", "record-changelog": "record-changes",
}  # fmt: skip
"""Log -> the topic whose leg must keep up before it is cleaned."""


SENDING: Final = ("after_fold", "outputs_acked", "batch_sent", "batch_acked")
"""Where a stop leaves most behind."""

SAYING: Final = ("after_fold", "outputs_half", "outputs_acked", "batch_sent", "committed", "restoring", "restored")
"""Where the leg `achieve` passes."""
