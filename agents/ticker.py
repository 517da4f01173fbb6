"""Ticker: once a second a tick in every raw partition, so that absence and completeness have a clock in the log.

Elected without a vote: the worker that holds raw partition 0 ticks.  Two tickers for a moment, or none, change nothing:
a tick says only what its partition has seen (design §3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from milepost.schemas import stamps
from milepost.schemas.stamps import Stamp
from milepost.topology.state import Output

EVERY_S: Final = 1.0
KEY: Final = b"tick"


def ticks(partitions: int, org_keys: Mapping[str, bytes]) -> list[Output]:
    """A tick for every raw partition.  The broker's append time is its known time."""
    header = stamps.header(org_keys[""], KEY, b"", Stamp(kind=stamps.TICK))
    return [
        Output(topic="raw-events", partition=number, key=KEY, value=b"", headers=(header,))
        for number in range(partitions)
    ]


async def run(
    elected: Callable[[], bool], send: Callable[[Sequence[Output]], Awaitable[object]], outputs: Sequence[Output]
) -> None:
    """Tick for ever while elected.  A tick that cannot be sent yet is not piled up: the next waits for it."""
    while True:
        await asyncio.sleep(EVERY_S)
        if elected():
            await send(outputs)
