"""The line: topics, stores and legs as data, and the stages of each leg in order.

    sources -> raw-events -> [ingest] -> signals -> [measure] -> questions -> [achieve] -> milestones
                               |  | \\-> record-changes -> [record] -> questions
                     dead-letters identity-links          definitions -> (all legs)

A topic appears only where the grouping changes; stages with one grouping share a leg.  A compacted topic's key is the
identity of the fact; its partition is computed from the grouping and set by the producer (design §2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic: its name, how many partitions (None: the deployment's `partitions`), and its policy at the broker."""

    name: str
    key: str
    partition_from: str
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)


REMEMBERED = 4 * 1024 * 1024
"""Of rows that change again and again: the cells of the hour, the day rows of the week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """A store of a leg.

    changelog:
      each    one changelog record a changed key
      packed  one changelog record a checkpoint, holding all changed rows (`seen`: design §7.9)
      source  no changelog of its own: rebuilt from the leg's source topic (`facts`)
      derived no changelog: rebuilt from other stores of the leg (`days`)

    remember_bytes: how much of what has landed the overlay keeps in memory (`state.Store`), twice, a partition
    """

    name: str
    tag: int
    holds: str
    changelog: Literal["each", "packed", "source", "derived"] = "each"
    remember_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegSpec:
    """A leg: what it reads, how that is grouped, its stages in order, its stores, what it writes."""

    name: str
    reads: str
    grouped_by: str
    stages: tuple[str, ...]
    stores: tuple[StoreSpec, ...]
    writes: tuple[str, ...]

    @property
    def changelog(self) -> str:
        return f"{self.name}-changelog"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingSpec:
    """A leg without tables: it asks those of other legs, and what it says is a function of them."""

    name: str
    asks: tuple[str, ...]
    stages: tuple[str, ...]
    writes: tuple[str, ...]


COMPACT = {"cleanup.policy": "compact"}
LONG = {"min.compaction.lag.ms": str(72 * HOUR_MS)}
ROOMY = {"max.message.bytes": str(2 * 1024 * 1024)}  # an event of 1 MiB, its headers, its signals: a re-append must fit
CHANGELOG = {
    **COMPACT,
    "min.compaction.lag.ms": str(HOUR_MS),
    "max.message.bytes": str(16 * 1024 * 1024),  # a checkpoint is one record batch
}

KEPT = {"cleanup.policy": "delete", "retention.ms": "-1"}
"""Neither compacted nor swept: a revocation cannot be taken out of the log by a tombstone."""

TOPICS: tuple[Topic, ...] = (
    Topic(
        name="raw-events",
        key="BLAKE2b-128 of (org, source, id, revision, repair)",
        partition_from="BLAKE2b-128 of (org, source, id)",
        config={
            **COMPACT,
            **LONG,
            **ROOMY,
            "message.timestamp.type": "LogAppendTime",
            "max.compaction.lag.ms": str(7 * DAY_MS),
            "segment.ms": str(7 * DAY_MS // 2),
        },
    ),
    Topic(
        name="signals",
        key="company leaf + event",
        partition_from="murmur2 of the company leaf",
        config={**COMPACT, **LONG, **ROOMY},
    ),
    Topic(
        name="record-changes",
        key="record + version of the event",
        partition_from="murmur2 of the record",
        config={**COMPACT, **LONG, **ROOMY},
    ),
    Topic(
        name="identity-links",
        key="edge + raw partition, or decision",
        partition_from="-",
        partitions=1,
        config=dict(COMPACT),
    ),
    Topic(name="definitions", key="one attempt", partition_from="-", partitions=1, config={**COMPACT, **ROOMY}),
    Topic(
        name="milestones",
        key="BLAKE2b-128 of (org, plan, milestone, version, company, k, kind), or mark + partition",
        partition_from="murmur2 of the company's root",
        config=dict(COMPACT),
    ),
    Topic(
        name="dead-letters",
        key="raw position + stage",
        partition_from="source",
        config={"cleanup.policy": "compact,delete", "retention.ms": str(90 * DAY_MS)},
    ),
    Topic(name="access", key="token + made or revoked", partition_from="-", partitions=1, config=dict(KEPT)),
    Topic(
        name="audit",
        key="change + asked or done",
        partition_from="-",
        partitions=1,
        config={"cleanup.policy": "delete", "retention.ms": str(730 * DAY_MS)},
    ),
)

LEGS: tuple[LegSpec, ...] = (
    LegSpec(
        name="ingest",
        reads="raw-events",
        grouped_by="event id",
        stages=("decode", "dedupe", "identity", "signals", "writes"),
        stores=(
            StoreSpec(name="seen", tag=1, holds="raw key -> first position, k, body hash", changelog="packed"),
            StoreSpec(name="keys", tag=2, holds="leaf -> entity, key, value, source, first k"),
            StoreSpec(name="edges", tag=3, holds="edge -> where this partition proposed it"),
            StoreSpec(name="owed", tag=4, holds="raw key -> first record still to be appended again"),
            StoreSpec(name="amended", tag=5, holds="event -> its revisions, of events that have several"),
            StoreSpec(name="written", tag=6, holds="event -> the records that its revisions wrote"),
            StoreSpec(
                name="behind", tag=7, holds="day of known time -> the last raw offset that brought something of it late"
            ),
            StoreSpec(name="heard", tag=8, holds="(source, day of known time) -> how far it had sent by when"),
            StoreSpec(name="poison", tag=9, holds="offset -> verdict on a record that is passed over"),
            StoreSpec(
                name="quality",
                tag=10,
                holds="(source, pane of known time) -> what it sent, if it promises anything",
                remember_bytes=REMEMBERED // 64,
            ),
        ),
        writes=("signals", "record-changes", "identity-links", "dead-letters", "raw-events"),
    ),
    LegSpec(
        name="measure",
        reads="signals",
        grouped_by="company leaf",
        stages=("metrics",),
        stores=(
            StoreSpec(
                name="cells",
                tag=1,
                holds="(metric version, leaf, dimensions, pane) -> buckets of known time",
                remember_bytes=REMEMBERED,
            ),
            StoreSpec(name="days", tag=2, holds="the same by day", changelog="derived", remember_bytes=REMEMBERED),
            StoreSpec(name="facts", tag=3, holds="(leaf, pane, event, revision) -> signals", changelog="source"),
            StoreSpec(name="members", tag=4, holds="leaf <-> number"),
            StoreSpec(
                name="named",
                tag=5,
                holds="(metric version, leaf, day, dimension) -> how many values have names",
                remember_bytes=REMEMBERED // 8,
            ),
            StoreSpec(name="revisions", tag=6, holds="(leaf, event) -> its revisions, of events that have several"),
            StoreSpec(name="poison", tag=9, holds="offset -> verdict on a record that is passed over"),
        ),
        writes=("dead-letters",),
    ),
    LegSpec(
        name="record",
        reads="record-changes",
        grouped_by="record",
        stages=("records",),
        stores=(
            StoreSpec(name="records", tag=1, holds="(record, event, revision) -> what it does", changelog="source"),
            StoreSpec(name="poison", tag=9, holds="offset -> verdict on a record that is passed over"),
        ),
        writes=("dead-letters",),
    ),
)


ASKING: tuple[AskingSpec, ...] = (
    AskingSpec(name="achieve", asks=("ingest", "measure"), stages=("recognition",), writes=("milestones",)),
)


def leg(name: str) -> LegSpec:
    return next(spec for spec in LEGS if spec.name == name)


def changelog_topics() -> tuple[Topic, ...]:
    return tuple(
        Topic(
            name=spec.changelog,
            key="the store's key",
            partition_from=f"the partition of {spec.reads}",
            config=dict(CHANGELOG),
        )
        for spec in LEGS
    )


def all_topics() -> tuple[Topic, ...]:
    return TOPICS + changelog_topics()
