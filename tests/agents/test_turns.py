"""Whose chunk a leg takes: first of partitions that nobody may ask before they are further, then as they came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from milepost.agents import leg_runtime
from milepost.agents.leg_runtime import LegRuntime
from milepost.agents.transport import Chunk
from milepost.topology.line import LEGS


class Held:
    """A holding that folds whatever it is given."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name
        self.state, self.presses = "open", False
        self.folded_to = 0

    def lacks(self, offset: int) -> bool:
        return self.folded_to < offset

    async def fold(self, records: Sequence[Any]) -> int:
        self.log.append(f"{self.name}:{records[0]}")
        await asyncio.sleep(0)
        return len(records)


class Runtime:
    """What a leg asks of the runtime; every message is of now but those of generation 0."""

    settings = SimpleNamespace(topic=str)
    consumer = SimpleNamespace(taken=lambda _tp, _records: None)
    decided = 0

    def __init__(self) -> None:
        self.log: list[str] = []
        self.begins = 0
        self.legs = {spec.name: LegRuntime(self, None, spec) for spec in LEGS[:2]}  # type: ignore[arg-type]
        for leg in self.legs.values():
            leg.holdings = {n: Held(self.log, f"{leg.spec.name}/{n}") for n in range(2)}  # type: ignore[misc]

    @property
    def pressed(self) -> bool:
        return any(leg.pressed for leg in self.legs.values())

    def of_now(self, message: Any) -> bool:
        return bool(message.generation_id)

    async def fed(self, chunks: dict[str, list[tuple[int, int]]], generation: int = 1) -> list[str]:
        """(partition, record) of each leg, given to it at once; what was folded, in that order."""

        async def given(leg: LegRuntime) -> None:
            async def events() -> Any:
                for number, record in chunks.get(leg.spec.name, []):
                    value = Chunk([record], self.begins)
                    message = SimpleNamespace(tp=TP(leg.source, number), value=value, generation_id=generation)
                    yield SimpleNamespace(message=message)
                await asyncio.sleep(0.2)

            await leg.run(SimpleNamespace(events=events))

        await asyncio.gather(*map(given, self.legs.values()))
        return self.log


def test_what_presses_comes_first_in_its_leg_and_before_other_legs() -> None:
    """Chunks of a pressing partition pass all others that wait, in their order; another leg waits for them, too."""
    runtime = Runtime()
    pressing: Any = runtime.legs["measure"].holdings[1]
    pressing.presses = True
    fed = {"ingest": [(0, 1), (1, 2)], "measure": [(0, 3), (1, 4), (0, 5), (1, 6)]}

    async def body() -> list[str]:
        asyncio.get_running_loop().call_later(0.1, lambda: setattr(pressing, "presses", False))
        return await runtime.fed(fed)

    found = asyncio.run(body())
    assert found[:2] == ["measure/1:4", "measure/1:6"]
    assert [one for one in found if one.startswith("measure/0")] == ["measure/0:3", "measure/0:5"]
    assert [one for one in found if one.startswith("ingest")] == ["ingest/0:1", "ingest/1:2"]


def test_without_one_that_presses_all_come_in_their_order() -> None:
    """As the transport brought them."""
    found = asyncio.run(Runtime().fed({"measure": [(0, 1), (1, 2), (0, 3)]}))
    assert found == ["measure/0:1", "measure/1:2", "measure/0:3"]


def test_what_was_fetched_under_an_assignment_before_is_not_folded() -> None:
    """It comes again: between it and what is restored there may be a gap."""
    assert asyncio.run(Runtime().fed({"measure": [(0, 1)]}, generation=0)) == []


def test_a_chunk_behind_records_that_were_not_folded_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they were lost on the way: they are read again, and never passed over."""
    ended: list[str] = []

    def end(why: str, *_code: Any, error: BaseException | None = None) -> None:
        ended.append(why)
        raise SystemExit(why)

    monkeypatch.setattr(leg_runtime, "end", end)
    runtime = Runtime()
    runtime.begins = 7
    with pytest.raises(SystemExit):
        asyncio.run(runtime.fed({"measure": [(0, 7)]}))
    assert len(ended) == 1 and "records before 7 were not folded" in ended[0]
    assert runtime.log == []
