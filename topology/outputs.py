"""Outputs: what ingest says to other topics than `signals`: links, ticks; and the dead letters of all legs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.schemas import stamps
from milepost.schemas.errors import Reason
from milepost.schemas.keys import leaf_partition
from milepost.schemas.records import Key, Reject
from milepost.schemas.serde import wire
from milepost.topology.problems import fingerprint
from milepost.topology.state import Fold, Output


def link(
    org: str, a: Key, b: Key, rank: Mapping[tuple[str, str], int], k_ms: int, partition: int, offset: int
) -> Output:
    """The proposal that two keys are the same thing, the smaller leaf first: one an edge and raw partition."""
    fields = {
        "org": org, "entity": a.entity, "a": a.leaf, "b": b.leaf, "key_a": a.kind, "key_b": b.kind,
        "rank_a": rank[a.entity, a.kind], "rank_b": rank[b.entity, b.kind], "k_ms": k_ms, "raw_partition": partition,
        "raw_offset": offset,
    }  # fmt: skip
    key = a.leaf + b.leaf + partition.to_bytes(4, "big")
    return Output(topic="identity-links", partition=0, key=key, value=wire("Link").encode(fields))


def tick(
    target: int, partition: int, offset: int, prev: int, k_ms: int, progress: Mapping[tuple[str, str], Sequence[int]]
) -> Output:
    """A raw partition's tick for a signals partition, with what each source has sent up to it: (t, k)."""
    sources = [
        {"org": org, "source": source, "t_ms": t, "k_ms": k} for (org, source), (t, k) in sorted(progress.items())
    ]
    fields = {"raw_partition": partition, "raw_offset": offset, "prev": prev, "k_ms": k_ms, "sources": sources}
    key = b"tick" + partition.to_bytes(4, "big")
    return Output(topic="signals", partition=target, key=key, value=wire("Tick").encode(fields))


def dead_letter(
    partition: int, offset: int, stage: str, rule: str, reject: Reject, names: tuple[str, str, str], k_ms: int,
    bundle: bytes | None, partitions: int,
) -> Output:  # fmt: skip
    """The dead letter of a record (or, with `rule`, of the pair) at a raw position; no bytes of the event are in it.

    names: organisation, source and type; empty where they cannot be read"""
    org, source, type_ = names
    fields = {
        "topic": "raw-events", "partition": partition, "offset": offset, "stage": stage, "rule": rule,
        "reason": reject.reason, "detail": reject.detail,
        "problem": fingerprint(stage, reject.reason, reject.detail, org, source, type_, rule),
        "org": org, "source": source, "type": type_, "k_ms": k_ms, "bundle": bundle or stamps.NO_BUNDLE,
    }  # fmt: skip
    key = partition.to_bytes(4, "big") + offset.to_bytes(8, "big") + f"{stage}/{rule}".encode()
    target = leaf_partition(source.encode(), partitions)
    return Output(topic="dead-letters", partition=target, key=key, value=wire("DeadLetter").encode(fields))


def letter(topic: str, partition: int, offset: int, stage: str, reason: Reason, detail: str, out: Fold) -> None:
    """The dead letter of a record on a topic of our own: of an event nothing is known."""
    fields = {
        "topic": topic, "partition": partition, "offset": offset, "stage": stage, "rule": "", "reason": reason,
        "detail": detail, "org": "", "source": "", "type": "",
        "problem": fingerprint(stage, reason, detail, rule=topic), "k_ms": 0, "bundle": stamps.NO_BUNDLE,
    }  # fmt: skip
    key = topic.encode() + partition.to_bytes(4, "big") + offset.to_bytes(8, "big")
    out.before.append(Output(topic="dead-letters", partition=0, key=key, value=wire("DeadLetter").encode(fields)))
    out.count(f"dead:{reason}")
