"""A TCP proxy between a worker and its broker, whose network can be broken in seven ways.

    worker -> proxy -> broker          the broker advertises the proxy's port on a listener of its own

mode         what happens                                             when it is healed
open         bytes pass
refused      new connections are refused, those there are reset       new ones are taken
black_hole   nothing passes, nobody is told                           what was held back is lost: connections are reset
half_open    the broker's side is gone, the worker's stays open       the worker's side is reset
reset        all connections are reset, again and again               they stay
slow         each piece waits 200 ms and up to 100 ms more            pieces on their way arrive
answer_lost  requests arrive, the first answer resets the connection  they stay

The proxy runs in a thread of its own; `set` may be called from any.  At most 64 KiB a connection and direction are held.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from types import TracebackType
from typing import Final, Literal, Self, get_args

Mode = Literal["open", "refused", "black_hole", "half_open", "reset", "slow", "answer_lost"]
FAULTS: Final[tuple[Mode, ...]] = tuple(mode for mode in get_args(Mode) if mode != "open")
PIECE: Final = 64 * 1024
SLOW_S: Final = 0.2
JITTER_S: Final = 0.1
RESET_EVERY_S: Final = 0.5


class Proxy:
    """Forwards `port` on the loopback to `target`; a context manager.

    port:   where to listen; the same after a `refused`
    passed: bytes by direction ("up": worker to broker, "down");  cut: connections that a fault has ended
    """

    def __init__(self, target: int, port: int, *, seed: int = 0) -> None:
        self.target = target
        self.port = port
        self.mode: Mode = "open"
        self.passed: Counter[str] = Counter()
        self.cut = 0
        self._chance = random.Random(seed)
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)
        self._resetting: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Break (or heal) the network; returns when it is so."""
        self._run(self._set(mode))

    def _run(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)  # type: ignore[arg-type]

    # -- in the proxy's thread

    async def _listen(self) -> None:
        until = self._loop.time() + 10
        while self._server is None:
            try:
                self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=PIECE)
            except OSError:
                if self._loop.time() > until:
                    raise
                await asyncio.sleep(0.05)

    async def _set(self, mode: Mode) -> None:
        before, self.mode = self.mode, mode
        if self._resetting is not None:
            self._resetting.cancel()
            self._resetting = None
        if before in ("black_hole", "half_open"):
            self._reset_all()
        if mode == "refused":
            await self._close()
            self._reset_all()
        elif self._server is None:
            await self._listen()
        if mode == "reset":
            self._resetting = asyncio.create_task(self._keep_resetting())
        if mode == "half_open":
            for pair in list(self._pairs):
                pair.drop_broker()
        for pair in list(self._pairs):
            pair.changed.set()

    async def _keep_resetting(self) -> None:
        while True:
            self._reset_all()
            await asyncio.sleep(RESET_EVERY_S)

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            self.cut += 1
            pair.reset()

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _end(self) -> None:
        if self._resetting is not None:
            self._resetting.cancel()
        await self._close()
        for pair in list(self._pairs):
            pair.reset()
        await asyncio.sleep(0.05)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(self, reader, writer)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)

    def delay_s(self) -> float:
        return SLOW_S + self._chance.uniform(0.0, JITTER_S)


class _Pair:
    """One connection of the worker and, unless the network hides the broker, its other half."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.changed = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._broker: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        try:
            if self.proxy.mode in ("black_hole", "half_open"):
                await self._swallow()
                return
            there, self._broker = await asyncio.open_connection("127.0.0.1", self.proxy.target, limit=PIECE)
            up = asyncio.create_task(self._pump(self._reader, self._broker, "up"))
            down = asyncio.create_task(self._pump(there, self._writer, "down"))
            self._tasks = [up, down]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if self.proxy.mode == "half_open":
                await self._end_pumps()
                await self._swallow()
        except OSError:
            self.reset()  # the broker is not there: the worker is told as it would be without us
        finally:
            await self._end_pumps()
            for writer in (self._writer, self._broker):
                if writer is not None:
                    writer.close()

    async def _end_pumps(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def reset(self) -> None:
        """RST to both sides."""
        for writer in (self._writer, self._broker):
            _abort(writer)

    def drop_broker(self) -> None:
        """The broker sees the connection end; the worker hears nothing."""
        _abort(self._broker)

    async def _swallow(self) -> None:
        """Take what the worker sends, and answer nothing, until the connection is reset."""
        with contextlib.suppress(OSError):
            while await self._reader.read(PIECE):
                pass

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE):
                if self.proxy.mode == "slow":
                    await asyncio.sleep(self.proxy.delay_s())
                while self.proxy.mode == "black_hole":
                    self.changed.clear()
                    await self.changed.wait()
                if self.proxy.mode == "answer_lost" and way == "down":
                    self.proxy.cut += 1
                    self.reset()
                    return
                to.write(piece)
                await to.drain()
                self.proxy.passed[way] += len(piece)


def _abort(writer: asyncio.StreamWriter | None) -> None:
    if writer is None or writer.transport.is_closing():
        return
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def listeners(broker_port: int, controller_port: int, hidden_port: int, proxy_port: int) -> dict[str, str]:
    """Lines for server.properties: a second listener on `hidden_port` that is advertised as the proxy's port."""
    return {
        "listeners": (
            f"PLAINTEXT://127.0.0.1:{broker_port},PROXIED://127.0.0.1:{hidden_port},"
            f"CONTROLLER://127.0.0.1:{controller_port}"
        ),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker_port},PROXIED://127.0.0.1:{proxy_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
