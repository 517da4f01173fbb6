"""What opening a partition leaves of the loop for others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from milepost.agents import opening
from milepost.topology.line import leg


def test_questions_are_answered_while_day_rows_are_derived() -> None:
    """A thousand derived rows give the loop away at least twenty times, and all of them are written."""
    written: list[Any] = []
    turns = 0

    async def write(changes: Any) -> None:
        written.extend(changes)

    async def run() -> None:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        rows = [("days", number.to_bytes(4, "big"), b"row") for number in range(1000)]
        measure: Any = SimpleNamespace(derive=lambda _at, _changed: iter(rows))
        restored: Any = SimpleNamespace(changed={("cells", b"key")})
        nothing: Any = None
        await opening.restore_derived(measure, leg("measure"), nothing, nothing, write, restored)
        beside.cancel()

    asyncio.run(run())
    assert turns >= 20
    assert sum(value == b"row" for _, value in written) == 1000
