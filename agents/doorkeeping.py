"""Doorkeeping: the book of tokens, kept up to date by following the topic `access` whole.

    access -> Follower -> Book.add -> changed: streams of whoever lost their token end

A follower gets a record when the broker has it, so a revocation holds with every worker within milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from milepost.agents.decisions import Follower
from milepost.ops import logs
from milepost.ops.access import Book, Doorkeys
from milepost.ops.access_log import TOPIC
from milepost.ops.settings import Settings
from milepost.schemas.errors import ContractError

log = logging.getLogger(__name__)


class Doorkeeping:
    """See the module.  Until the topic has been read to its end the book is not ready, and the doors answer 503."""

    def __init__(self, settings: Settings) -> None:
        self.book = Book(Doorkeys(settings), ready=False)
        self._settings = settings
        self._follower: Follower | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._follower = Follower(self._settings.bootstrap, self._settings.topic(TOPIC), self._on_record)
        await self._follower.start()
        self._task = asyncio.create_task(self._wait(self._follower), name="doors")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._follower is not None:
            await self._follower.stop()

    async def _wait(self, follower: Follower) -> None:
        await follower.caught_up.wait()
        self.book.ready = True

    def _on_record(self, record: Any) -> None:
        try:
            self.book.add(record.value)
        except ContractError as error:
            log.error("a record is passed over: %s", error, extra=logs.place(TOPIC, 0, record.offset))
