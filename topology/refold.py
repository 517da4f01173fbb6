"""Refold: what cells under a flag cannot say (extremes, the last value, members) is had from their facts.

    flagged row -> facts of its leaf and panes -> those of its measure and dimension values that count -> tally

A cell is flagged when an event in it has several revisions (`aggregates.FLAG`): a rare cell, and a short scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from milepost.schemas.signal_message import SignalMessage, read
from milepost.topology import metrics, panes, revisions, scans
from milepost.topology.definitions import Measure
from milepost.topology.reading import Reader
from milepost.topology.revisions import Known
from milepost.topology.scans import Pair, Tally
from milepost.topology.state import UPTO, Store
from milepost.topology.steps import Steps

_LEAF_AT: Final = 8
_TAIL_AT: Final = metrics.PREFIX_BYTES


def refold(reader: Reader, partition: int, tally: Tally, until: int) -> Steps[None]:
    """Add to a tally what the facts of its flagged rows say, as known until the bucket end `until`."""
    rows, tally.flagged = tally.flagged, []
    measures: dict[bytes, Mapping[tuple[bytes, str], Measure]] = {}
    for key, width in rows:
        if (of := measures.get(key[:_LEAF_AT])) is None:
            of = measures[key[:_LEAF_AT]] = measures_of(reader, key[:_LEAF_AT])
        yield from _Row(reader, partition, key, width, of).add(tally, until)


def measures_of(reader: Reader, version: bytes) -> dict[tuple[bytes, str], Measure]:
    """(bundle, rule) -> the measure of this version; bundles that do not have it are left out."""
    return {
        (bundle, measure.rule): measure
        for bundle, catalog in reader.decisions.catalogs.items()
        for measure in catalog.measures
        if measure.version == version
    }


def facts_of(
    leaf: bytes, rows: Iterable[Pair], store: Store
) -> tuple[list[tuple[bytes, SignalMessage]], dict[bytes, list[Known]]]:
    """The facts in rows of a leaf, each with its row; and event -> its revisions, out of the store `revisions`."""
    told = [(row, message) for _, row in rows if (message := read(row[UPTO:])) is not None]
    events = list({message.event for _, message in told})
    found = store.get_many([leaf + event for event in events])
    return told, {event: revisions.load_known(row) for event, row in zip(events, found, strict=True)}


def fact_counts(message: SignalMessage, known: Sequence[Known], until: int) -> bool:
    """Whether a fact counts by what is known until a bucket end."""
    rank = message.revision, message.repair
    if any(one.rank == rank for one in known):
        return revisions.counts(known, rank, until)
    return panes.bucket_end(message.t_ms // panes.PANE_MS, message.k_ms) <= until


class _Row:
    """One flagged row and the facts under it."""

    def __init__(
        self, reader: Reader, partition: int, key: bytes, width: int, measures: Mapping[tuple[bytes, str], Measure]
    ) -> None:
        self.reader = reader
        self.partition = partition
        self.version, self.leaf, self.tail = key[:_LEAF_AT], key[_LEAF_AT:_TAIL_AT], key[_TAIL_AT:-4]
        first = int.from_bytes(key[-4:], "big") * width
        self.start, self.stop = self.leaf + first.to_bytes(4, "big"), self.leaf + (first + width).to_bytes(4, "big")
        self.measures = measures
        self.choices = metrics.EachChoices()
        self.named: dict[bytes, bool] = {}

    def add(self, tally: Tally, until: int) -> Steps[None]:
        for rows in scans.pieces(self._store("facts"), self.start, self.stop):
            told, known = facts_of(self.leaf, rows, self._store("revisions"))
            for _, message in told:
                if fact_counts(message, known[message.event], until):
                    self._add(message, tally)
            yield None

    def _store(self, name: str) -> Store:
        return self.reader.stores("measure", self.partition)[name]

    def _add(self, message: SignalMessage, tally: Tally) -> None:
        for rule, _, fields in message.signals:
            measure = self.measures.get((message.bundle, rule))
            if measure is None or not self._mine(measure, message, fields):
                continue
            if measure.field is not None and (value := metrics.amount(measure, fields)) is not None:
                tally.value(value, message.t_ms, message.event)
            if measure.entity is not None:
                leaves = [b"L" + leaf for entity, leaf in message.members if entity == measure.entity]
                numbers = [int.from_bytes(row[8:12], "big") for row in self._store("members").get_many(leaves) if row]
                tally.meet(self.partition, numbers)

    def _mine(self, measure: Measure, message: SignalMessage, fields: Mapping[str, object]) -> bool:
        """Whether one of the signal's rows is this one: under its own values, or under `__other__`."""
        day = panes.day_of(message.t_ms // panes.PANE_MS)
        for mask, values, tail in self.choices[measure.dimensions](fields):
            if mask != self.tail[0]:
                continue
            if tail == self.tail:
                return True
            other = bytes((mask,)) + metrics.packed((metrics.OTHER,) * len(values))
            return self.tail == other and not self._has_name(metrics.row_key(self.version + self.leaf + tail, day))
        return False

    def _has_name(self, day_key: bytes) -> bool:
        known = self.named.get(day_key)
        if known is None:
            known = self.named[day_key] = self._store("days").get(day_key) is not None
        return known
