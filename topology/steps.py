"""Steps: work on the tables in bounded pieces, some of which may lie with other workers.

    a question = a generator   -- None ------------>  let others have the loop
                               -- Gather(parts) --->  read these, wherever their partitions are; send back what they say

A question may read many rows while the same loop folds the log, so it yields None between bounded pieces of work.  What
it needs of the tables it gathers in parts (topology/parts.py): a part reads one partition and is plain data, so that
it can be carried to the worker that owns the partition.  `run` drives steps at once over a reader that has everything;
the worker's views let the loop breathe at each step and ask the owners.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from milepost.topology.reading import Reader

T = TypeVar("T")

PARTS_MAX: Final = 4_096
"""Parts of one gather at most."""


class Part(Protocol):
    """A bounded read of one leg's partition.  The fields are plain data: it can be sent to the partition's owner."""

    @property
    def leg(self) -> str: ...

    @property
    def partition(self) -> int: ...

    def read(self, reader: Reader) -> Steps[Any]:
        """What the partition holds, over a reader that has it.  Yields None only.  Raises Unavailable."""
        ...

    def pack(self, value: Any) -> Any:
        """What `read` returned as plain data: None, bool, int within 64 bits, bytes, str, list."""
        ...

    def unpack(self, data: Any) -> Any:
        """The opposite of `pack`."""
        ...


@dataclass(frozen=True, slots=True)
class Gather:
    """Parts that a question needs now; `reader` is the one it was asked of."""

    reader: Reader
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Got:
    """What a part gave.

    epoch:  of the ownership that it was read under (see `Reader.epoch`)
    lag_ms: how old the newest thing that it may lack is; 0: it comes from the owner, nothing is missing
    """

    epoch: int
    value: Any
    lag_ms: int = 0


Steps = Generator[Gather | None, Sequence[Got] | None, T]


def gather(reader: Reader, parts: Sequence[Part]) -> Steps[list[Any]]:
    """What each of `parts` holds, in their order."""
    return [one.value for one in (yield from gathered(reader, parts))]


def gathered(reader: Reader, parts: Sequence[Part]) -> Steps[list[Got]]:
    """The same with the epochs."""
    got: list[Got] = []
    for at in range(0, len(parts), PARTS_MAX):
        some = yield Gather(reader, parts[at : at + PARTS_MAX])
        assert some is not None, "a gather is answered with what it gathered"
        got += some
    return got


def run(steps: Steps[T]) -> T:
    """The result of steps, at once, over a reader that has all partitions."""
    answer: Sequence[Got] | None = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = None
        if wanted is not None:
            reader = wanted.reader
            answer = [Got(reader.epoch(one.leg, one.partition), run(one.read(reader))) for one in wanted.parts]
