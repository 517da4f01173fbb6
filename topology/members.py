"""Members: exact distinct counts over partitions and under merges.

A cell holds numbers of leaves, which mean something only in their partition.  Within one partition and without links
the bitmap's size is the answer; otherwise the numbers become leaves (design §5, semantics S5):

    |U| - |U and M| + |roots(U and M)|      M: the leaves that links join

Leaves are held once a process under a dense id, so that uniting partitions is a union of arrays of ids.  What number
means which leaf never changes under one ownership of the partition; under another it is read anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from milepost.topology.graph import Components
from milepost.topology.parts import MEMBERS_A_PART, MemberLeaves
from milepost.topology.reading import Reader, Unavailable
from milepost.topology.steps import Steps, gathered

IDS_MAX: Final = 4_000_000
"""Leaves remembered at most; beyond that all are forgotten and read again when asked for."""


class _Memory:
    """Leaves by dense id, and for each partition number -> id (-1: not read yet) with the epoch it holds for."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}
        self.leaves: list[bytes] = []
        self.tables: dict[int, tuple[int, NDArray[np.int64]]] = {}


class Members:
    """What the numbers of all partitions mean, learnt as questions need it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._memory = _Memory()

    def count(self, numbers: Mapping[int, BitMap], epochs: Mapping[int, int], components: Components) -> Steps[int]:
        """How many roots the members (partition -> numbers) are.  epochs: under which each partition was read."""
        if not components.joined and len(numbers) == 1:
            return len(next(iter(numbers.values())))
        if len(self._memory.leaves) > IDS_MAX:
            self._memory = _Memory()
        memory = self._memory  # another question may begin a new one while this one waits
        parts = []
        for partition, bitmap in numbers.items():
            parts.append((yield from self._identify(memory, partition, bitmap, epochs[partition])))
        united = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        if not components.joined:
            return len(united)
        if len(components.joined) < len(united):
            known = (memory.ids.get(leaf) for leaf in components.joined)
            linked = np.intersect1d(united, np.fromiter((one for one in known if one is not None), dtype=np.int64))
        else:
            linked = np.fromiter((one for one in united if memory.leaves[one] in components.joined), dtype=np.int64)
        roots = {components.root(memory.leaves[one]) for one in linked}
        return len(united) - len(linked) + len(roots)

    def _identify(self, memory: _Memory, partition: int, bitmap: BitMap, epoch: int) -> Steps[NDArray[np.int64]]:
        """The ids of the leaves that a partition's numbers stand for."""
        learnt = memory.tables.get(partition)
        table = learnt[1] if learnt is not None and learnt[0] == epoch else np.empty(0, dtype=np.int64)
        asked = np.array(bitmap, dtype=np.int64)
        if len(asked) and asked[-1] >= len(table):
            grown = np.full(int(asked[-1]) + 1, -1, dtype=np.int64)
            grown[: len(table)] = table
            table = grown
        missing = asked[table[asked] < 0]
        for at in range(0, len(missing), MEMBERS_A_PART):
            some = missing[at : at + MEMBERS_A_PART].tolist()
            part = MemberLeaves(partition=partition, numbers=BitMap(some).serialize())
            (got,) = yield from gathered(self._reader, (part,))
            if got.epoch != epoch:
                raise Unavailable("measure", partition, "handed over")
            for number, leaf in zip(some, got.value, strict=True):
                one = memory.ids.get(leaf)
                if one is None:
                    one = memory.ids[leaf] = len(memory.leaves)
                    memory.leaves.append(leaf)
                table[number] = one
        memory.tables[partition] = (epoch, table)
        return table[asked]
