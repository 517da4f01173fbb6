"""Peers: parts asked of other workers, over HTTP, sealed with a key that only workers of the deployment have.

    parts -> POST /internal/parts (msgpack, Milepost-Seal: MAC of the body) -> the owner reads them from its tables
                    got, or why not  <-  msgpack, sealed together with the question's seal

The seal of an answer covers the question's, so that no other process, and no older answer, passes for the owner's.
What comes back is of the owner's own partitions only: nobody forwards, so a question takes one hop at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from milepost.topology.parts import KINDS
from milepost.topology.reading import Unavailable
from milepost.topology.steps import Got, Part

PATH: Final = "/internal/parts"
SEAL: Final = "Milepost-Seal"
ASK_BYTES_MAX: Final = 768 * 1024
"""A question's parts are sent in pieces of this size: what a web view takes is 1 MiB."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
ASK_S: Final = 4.0
"""How long a worker may take to answer another, seconds: one that is stopped takes connections and says nothing."""


class Forged(Exception):
    """A request or an answer that no worker of this deployment has sealed, or that is not what a worker sends."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a part cannot be had here."""

    why: str


class Sealer:
    """Makes and checks seals.  The key follows from the deployment's secret and serves nothing else."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(b"milepost: workers among themselves", key=secret[:64]).digest()

    def __call__(self, *pieces: bytes) -> str:
        made = hashlib.blake2b(key=self._key, digest_size=32)
        for piece in pieces:
            made.update(len(piece).to_bytes(8, "big"))
            made.update(piece)
        return made.hexdigest()

    def check(self, seal: str, *pieces: bytes) -> None:
        """Raises Forged."""
        if not hmac.compare_digest(seal.encode(errors="replace"), self(*pieces).encode()):
            raise Forged("the seal is not of this deployment")


def dump_parts(parts: Sequence[Part], stale_ms: int | None) -> bytes:
    return msgspec.msgpack.encode([stale_ms, [[type(one).__name__, one] for one in parts]])


def load_parts(body: bytes) -> tuple[list[Part], int | None]:
    """The parts asked for.  Raises Forged."""
    try:
        stale_ms, parts = msgspec.msgpack.decode(body, type=tuple[int | None, list[tuple[str, Any]]])
        return [msgspec.convert(fields, KINDS[name]) for name, fields in parts], stale_ms
    except (msgspec.MsgspecError, KeyError) as error:
        raise Forged(f"not what a worker asks: {error}") from error


def dump_answers(parts: Sequence[Part], answers: Sequence[Got | Refused]) -> bytes:
    told = [
        [0, one.why] if isinstance(one, Refused) else [1, one.epoch, one.lag_ms, part.pack(one.value)]
        for part, one in zip(parts, answers, strict=True)
    ]
    return msgspec.msgpack.encode(told)


def load_answers(parts: Sequence[Part], body: bytes) -> list[Got | Refused]:
    """The answers to `parts`.  Raises Forged."""
    answers: list[Got | Refused] = []
    try:
        for part, told in zip(parts, msgspec.msgpack.decode(body, type=list[list[Any]]), strict=True):
            if told[0] == 1:
                answers.append(Got(told[1], part.unpack(told[3]), told[2]))
            else:
                answers.append(Refused(told[1]))
    except (msgspec.MsgspecError, ValueError, IndexError, TypeError) as error:
        raise Forged(f"not what a worker answers: {error}") from error
    return answers


class Peers:
    """Asks other workers."""

    def __init__(self, secret: bytes) -> None:
        self.seal = Sealer(secret)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, url: str, parts: Sequence[Part], stale_ms: int | None) -> list[Got | Refused]:
        """What the worker at `url` has of `parts`.  Raises Unavailable when it does not answer."""
        answers: list[Got | Refused] = []
        try:
            for some in _pieces(parts):
                answers += await self._ask(url, some, stale_ms)
        except (aiohttp.ClientError, OSError, TimeoutError, Forged) as error:
            first = parts[0]
            raise Unavailable(first.leg, first.partition, f"with {url}, which does not answer ({error!r})") from error
        return answers

    async def _ask(self, url: str, parts: Sequence[Part], stale_ms: int | None) -> list[Got | Refused]:
        if self._session is None:
            # No cookies, redirects or proxies: an address of the group's metadata and nothing else.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ASK_S, connect=1.0), cookie_jar=aiohttp.DummyCookieJar()
            )
        body = dump_parts(parts, stale_ms)
        seal = self.seal(PATH.encode(), body)
        headers = {SEAL: seal, "Content-Type": "application/msgpack"}
        async with self._session.post(f"{url}{PATH}", data=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise Forged(f"{url} answered {response.status}")
            told = await _bounded(response)
            self.seal.check(response.headers.get(SEAL, ""), seal.encode(), told)
        return await asyncio.to_thread(load_answers, parts, told) if len(told) > 2**20 else load_answers(parts, told)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(256 * 1024):
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise Forged(f"more than {ANSWER_BYTES_MAX} bytes")
    return b"".join(pieces)


def _pieces(parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """`parts` in order, cut so that none of the pieces is too large to be sent."""
    some: list[Part] = []
    size = 0
    for one in parts:
        length = len(msgspec.msgpack.encode(one))
        if some and size + length > ASK_BYTES_MAX:
            yield some
            some, size = [], 0
        some.append(one)
        size += length
    if some:
        yield some
