"""Reading: what a question may ask of the tables.  The worker implements it over RocksDB, the driver over dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from milepost.topology.decisions import Decisions
from milepost.topology.state import Store


class Unavailable(Exception):
    """A partition that the answer needs is being restored or lies with another worker: 503, never a partial answer."""

    def __init__(self, leg: str, partition: int, why: str) -> None:
        super().__init__(f"{leg} partition {partition} is {why}")
        self.leg, self.partition, self.why = leg, partition, why


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a signals partition has been told by the ticks of one raw partition.

    k_ms:    everything known by then has been seen
    sources: (org, source) -> (largest event time, last known time), both ms
    """

    k_ms: int
    sources: Mapping[tuple[str, str], tuple[int, int]]


class Reader(Protocol):
    """Tables and decisions as this worker sees them now."""

    @property
    def partitions(self) -> int: ...

    @property
    def decisions(self) -> Decisions: ...

    @property
    def org_key(self) -> Mapping[str, bytes]:
        """Each organisation's key (schemas.keys.org_key), made on demand."""
        ...

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        """The stores of one partition, by name.  Raises Unavailable."""
        ...

    def epoch(self, leg: str, partition: int) -> int:
        """Which ownership of the partition is read: it changes whenever the stores may be other ones, and two parts of
        one question that were read under different ones do not belong together.  Raises Unavailable."""
        ...

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        """`Partition.reached` of a partition.  Raises Unavailable."""
        ...

    def progress(self, partition: int) -> Mapping[int, Progress]:
        """Of a signals partition: raw partition -> progress.  Raises Unavailable."""
        ...
