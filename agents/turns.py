"""Turns: what a worker does again and again beside its legs, whatever happens in one turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

AGAIN_S: Final = 60.0
"""After what nobody expected it goes on where it was, so many seconds later: a defect there stops no leg."""


async def for_ever(
    turn: Callable[[], Awaitable[object]],
    log: logging.Logger,
    what: str,
    *,
    pause_s: float,
    later: tuple[type[Exception], ...],
) -> None:
    """Take turns, `pause_s` seconds apart.  later: errors that say "not yet"; each reason is logged once in a row."""
    waits = ""
    while True:
        await asyncio.sleep(pause_s)
        try:
            await turn()
            waits = ""
        except later as error:
            if waits != str(error):
                waits = str(error)
                log.info("%s waits: %s", what, waits)
        except Exception:
            log.exception("%s stopped; it goes on in %.0f s", what, AGAIN_S)
            await asyncio.sleep(AGAIN_S)
