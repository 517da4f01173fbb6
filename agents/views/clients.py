"""Clients of streams: what each has seen, what waits to be told, and how a frame is made when the socket takes one.

    told(answer) -> names of pieces that wait -> write: the newest piece of that name -> frame, id

A client holds no frames, only names: however slow it is, it costs no memory and gets the newest state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from milepost.agents.views import frames
from milepost.agents.views.frames import Mark, Piece, Seen
from milepost.agents.views.presence import Place

log = logging.getLogger(__name__)

COMMENT_S: Final = 15.0
STALLED_S: Final = 30.0
"""A client that has taken not a byte for so long, seconds, is let go."""


@dataclass(slots=True, eq=False, kw_only=True)
class Shared:
    """A question and its newest answer.

    name:   short name of `key`;  pieces: None: never answered yet
    problem: why it is refused now;  away: it could not be answered when it was asked last
    due:    something may have changed since it was asked;  not_before: monotonic seconds
    began:  when the asking began that the pieces come from
    """

    metric: str | None
    query: Mapping[str, str]
    key: bytes
    name: bytes
    pieces: dict[bytes, Piece] | None = None
    problem: Mapping[str, Any] | None = None
    clients: set[Client] = field(default_factory=set)
    due: bool = False
    away: bool = False
    not_before: float = 0.0
    began: float = float("-inf")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(cls, metric: str | None, query: Mapping[str, str]) -> Shared:
        """The value of a metric or, without one, milestones."""
        key = frames.key({**query, **({"metric": metric} if metric is not None else {})})
        return cls(metric=metric, query=query, key=key, name=frames.short(key))

    def mark(self, key: bytes) -> Mark:
        return self.name, frames.short(key)


class Client:
    """One open stream: what it has seen, and what waits to be told.

    companies: whose presence it is told
    holds:     whether whoever opened it may still have it: asked before every byte, and once a second
    """

    def __init__(self, seen: Seen, companies: frozenset[Place], holds: Callable[[], bool] = lambda: True) -> None:
        self.holds = holds
        self.questions: list[Shared] = []
        self.companies = companies
        self.ended = False
        self._seen = seen
        self._waiting: dict[tuple[Shared, bytes | None], Mapping[str, Any]] = {}  # a key of None: forget it all
        self._aside: dict[str, bytes] = {}  # frames and comments that belong to no question
        self._awake = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._written = self._taken = 0
        self._moved_at = time.monotonic()

    def told(self, shared: Shared, before: Mapping[bytes, Piece]) -> None:
        """A question has an answer: note what of it the client has not seen, and what is no more."""
        pieces = shared.pieces or {}
        marks = {shared.mark(key): key for key in pieces}
        known = {shared.mark(key): key for key in before}
        gone = [mark for mark in self._seen.marks(shared.name) if mark not in marks]
        several = shared.metric is None
        if any(mark not in known for mark in gone) or (several and self._seen.cut and not before):
            self._waiting = {one: why for one, why in self._waiting.items() if one[0] is not shared}
            self._wait(shared, None, {})
            gone = []
        for mark in gone:
            self._wait(shared, known[mark], {} if shared.problem is None else {"problem": shared.problem})
        for mark, key in marks.items():
            if (shared, None) in self._waiting or not self._seen.holds(mark, pieces[key].digest):
                self._wait(shared, key, {})

    def aside(self, name: str, data: bytes) -> None:
        """Something that is told as it is; a newer one of that name replaces it."""
        self._aside[name] = data
        self._awake.set()

    def end(self) -> None:
        self.ended = True
        self._awake.set()
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._transport.abort()  # else its task would wait until the client takes what is there

    def look(self, now: float) -> None:
        """Let it go when it is gone, or takes nothing."""
        transport = self._transport
        if transport is None or self.ended:
            return
        if transport.is_closing() or not self.holds():
            self.end()
            return
        left = transport.get_write_buffer_size()
        if left == 0 or self._written - left > self._taken:
            self._taken, self._moved_at = self._written - left, now
        elif now - self._moved_at > STALLED_S:
            log.info("a stream is closed: its client has taken nothing for %.0f s", STALLED_S)
            self.end()

    async def write(self, response: web.StreamResponse, transport: asyncio.Transport) -> None:
        """Write until the client is gone or let go.  Raises ConnectionError."""
        self._transport = transport
        await self._write(response, frames.OPENING)
        comment_at = time.monotonic() + COMMENT_S
        while not self.ended:
            if (left_s := comment_at - time.monotonic()) <= 0:
                comment_at += COMMENT_S
                await self._write(response, frames.comment())
                continue
            if (data := self._next()) is not None:
                await self._write(response, data)
                continue
            self._awake.clear()
            try:
                await asyncio.wait_for(self._awake.wait(), left_s)
            except TimeoutError:
                continue

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        if not self.holds():
            self.end()
            return
        self._written += len(data)
        await response.write(data)

    def _wait(self, shared: Shared, key: bytes | None, why: Mapping[str, Any]) -> None:
        self._waiting.setdefault((shared, key), why)
        self._awake.set()

    def _next(self) -> bytes | None:
        """The next frame, made of the newest state; None: there is nothing to tell."""
        while self._waiting:
            shared, key = next(iter(self._waiting))
            why = self._waiting.pop((shared, key))
            if key is None:
                self._seen.forget(self._seen.marks(shared.name))
                return frames.frame("revoked", shared.key, self._seen.id())
            mark, piece = shared.mark(key), (shared.pieces or {}).get(key)
            if piece is not None and not self._seen.holds(mark, piece.digest):
                self._seen.add(mark, piece.digest)
                return frames.frame(piece.event, piece.data, self._seen.id())
            if piece is None and mark in self._seen.of:
                self._seen.forget([mark])
                return frames.frame("revoked", orjson.dumps({**orjson.loads(key), **why}), self._seen.id())
        if self._aside:
            return self._aside.pop(next(iter(self._aside)))
        return None
