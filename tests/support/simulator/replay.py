"""Replay: a raw log, cleaned or not, folded by an empty engine from its beginning, announced first (design §3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.schemas.keys import OrgKeys
from milepost.topology.catalog import Catalog
from milepost.topology.decisions import Decisions
from milepost.topology.driver import Message, land, new_partition
from milepost.topology.following import add_definition
from milepost.topology.ingest import Ingest
from milepost.topology.measure import MeasureLeg
from milepost.topology.reading import Progress
from milepost.topology.records import RecordLeg
from milepost.topology.state import Leg, Output, Partition, Store
from tests.support.events import SECRET

CHUNK = 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """`topology.reading.Reader` over what a replay made."""

    partitions: int
    decisions: Decisions
    org_key: Mapping[str, bytes]
    state: Mapping[tuple[str, int], Partition]

    def epoch(self, leg: str, partition: int) -> int:
        return 0

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        return self.state[leg, partition].stores

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        return self.state[leg, partition].reached

    def progress(self, partition: int) -> Mapping[int, Progress]:
        mark: Any = self.state["measure", partition].mark
        progress: Mapping[int, Progress] = mark.progress
        return progress


def replay(
    partitions: int, raw: Sequence[Sequence[Any]], definitions: Sequence[Any], load: Callable[[Any], Catalog]
) -> Replayed:
    """Fold `raw` (records a partition, with gaps where the cleaner was) under `definitions`."""
    org_keys, decisions = OrgKeys(SECRET), Decisions(load)
    for record in definitions:
        add_definition(decisions, record.value, record.timestamp)
    legs: dict[str, Leg] = {
        "ingest": Ingest(partitions, decisions, org_keys), "measure": MeasureLeg(partitions, decisions, org_keys),
        "record": RecordLeg(org_keys),
    }  # fmt: skip
    logs: dict[tuple[str, int], list[Any]] = {("ingest", n): list(raw[n]) for n in range(partitions)}
    logs |= {(name, n): [] for name in ("measure", "record") for n in range(partitions)}
    state = {(name, n): new_partition(name, leg, n) for name, leg in legs.items() for n in range(partitions)}
    by_topic = {"raw-events": "ingest", "signals": "measure", "record-changes": "record"}
    read = dict.fromkeys(logs, 0)

    def send(output: Output) -> None:
        name = by_topic.get(output.topic)
        if name is not None:
            log = logs[name, output.partition]
            offset = log[-1].offset + 1 if log else 0
            log.append(Message(offset, 0, output.key, output.value, output.headers))

    for place, log in logs.items():
        legs[place[0]].announce(state[place], log)
    while behind := [place for place, log in logs.items() if read[place] < len(log)]:
        for place in behind:
            leg, at, log = legs[place[0]], state[place], logs[place]
            chunk = log[read[place] : read[place] + CHUNK]
            read[place] += len(chunk)
            fold = leg.fold(at, chunk)
            for output in fold.before:
                send(output)
            for store in at.stores.values():
                land(store)
            for owed in fold.after:
                value = owed.value
                if value is None:
                    value = next((one.value for one in log if one.offset == owed.at and one.key == owed.key), None)
                if value is not None:
                    send(leg.again(at, owed, value))
    return Replayed(partitions, decisions, org_keys, state)
