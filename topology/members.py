"""Members: exact distinct counts over partitions and under merges.

A cell holds numbers of leaves, which mean something only in their partition.  Within one partition and without links
the bitmap's size is the answer; otherwise the numbers become leaves (design §5, semantics S5):

    |U| - |U and M| + |roots(U and M)|      M: the leaves that links join

Leaves are held once a process under a dense id, so that uniting partitions is a union of arrays of ids.  What number
means which leaf never changes in a store; another store (after a restore) is read anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from milepost.topology.decisions import Components
from milepost.topology.reading import Reader
from milepost.topology.scans import STEP_ROWS, Steps
from milepost.topology.state import UPTO, Store

IDS_MAX: Final = 4_000_000
"""Leaves remembered at most; beyond that all are forgotten and read again when asked for."""


class Members:
    """What the numbers of all partitions mean, learnt as questions need it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: dict[bytes, int] = {}
        self._leaves: list[bytes] = []
        self._learnt: dict[int, tuple[Store, NDArray[np.int64]]] = {}

    def count(self, numbers: Mapping[int, BitMap], components: Components) -> Steps[int]:
        """How many roots the members (partition -> numbers) are."""
        if not components.roots and len(numbers) == 1:
            return len(next(iter(numbers.values())))
        if len(self._leaves) > IDS_MAX:
            self._ids, self._leaves, self._learnt = {}, [], {}
        parts = []
        for partition, bitmap in numbers.items():
            parts.append((yield from self._identify(partition, bitmap)))
        united = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        if not components.roots:
            return len(united)
        if len(components.roots) < len(united):
            known = (self._ids.get(leaf) for leaf in components.roots)
            linked = np.intersect1d(united, np.fromiter((one for one in known if one is not None), dtype=np.int64))
        else:
            linked = np.fromiter((one for one in united if self._leaves[one] in components.roots), dtype=np.int64)
        roots = {components.root(self._leaves[one]) for one in linked}
        return len(united) - len(linked) + len(roots)

    def _identify(self, partition: int, bitmap: BitMap) -> Steps[NDArray[np.int64]]:
        """The ids of the leaves that a partition's numbers stand for."""
        store = self._reader.stores("measure", partition)["members"]
        learnt = self._learnt.get(partition)
        table = learnt[1] if learnt is not None and learnt[0] is store else np.empty(0, dtype=np.int64)
        asked = np.array(bitmap, dtype=np.int64)
        if len(asked) and asked[-1] >= len(table):
            grown = np.full(int(asked[-1]) + 1, -1, dtype=np.int64)
            grown[: len(table)] = table
            table = grown
        missing = asked[table[asked] < 0]
        for at in range(0, len(missing), STEP_ROWS):
            some = missing[at : at + STEP_ROWS].tolist()
            rows = store.get_many([b"N" + number.to_bytes(4, "big") for number in some])
            for number, row in zip(some, rows, strict=True):
                if row is None:
                    raise LookupError(f"members of measure partition {partition} have no number {number}")
                leaf = row[UPTO:]
                one = self._ids.get(leaf)
                if one is None:
                    one = self._ids[leaf] = len(self._leaves)
                    self._leaves.append(leaf)
                table[number] = one
            yield
        self._learnt[partition] = (store, table)
        return table[asked]
