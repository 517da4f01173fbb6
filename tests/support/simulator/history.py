"""History: one seed from its first record to what is wrong at its end.

live -> heal -> same as an undisturbed run? -> all disks lost, logs cleaned -> restored: the same?
                                            -> the cleaned raw log into an empty engine: the same?
"""

from __future__ import annotations

import gc
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, Final

from milepost.agents import achieve, changelog, ending, faults, holding, store
from tests.support.editions import PLANNED
from tests.support.events import Scenario, seeded
from tests.support.simulator.judge import judge
from tests.support.simulator.world import Plan, World

BLOCK: Final = 100
"""Seeds that one process takes at a time."""

COLLECTED_EVERY: Final = 50
"""Histories after which garbage is collected: between, Python's collector would take a tenth of the time."""


@dataclass(kw_only=True)
class Outcome:
    """What a history came to.  trace: a hash of everything that happened, in order."""

    seed: int
    wrong: list[str]
    stats: Counter[str]
    trace: str
    events: int = 0
    virtual_s: float = 0.0
    world: World | None = field(default=None, repr=False)


ACHIEVES_EVERY: Final = 16
"""One seed of so many has a plan, and the leg `achieve` at work."""

BACKDATED: Final = frozenset({"backdated"})
"""What says that it was known before the ticks that have passed: what was said by then is not said anew."""


def achieves(seed: int) -> bool:
    """Whether the leg `achieve` has work in the history of a seed."""
    return seed % ACHIEVES_EVERY == 5


def scenario_of(seed: int) -> Scenario:
    """The input of a seed: a few dozen records, every hard case among them."""
    chance = random.Random(seed ^ 0x5EED)
    chosen, size, partitions = chance.randrange(1 << 30), chance.randint(6, 32), chance.choice((1, 2, 2, 3))
    if achieves(seed):
        return seeded(chosen, size=size, partitions=partitions, editions=PLANNED, without=BACKDATED)
    return seeded(chosen, size=size, partitions=partitions)


def history(seed: int, *, plan: Plan | None = None, scenario: Scenario | None = None, keep: bool = False) -> Outcome:
    """Live through one history and judge it."""
    world = World(seed, scenario_of(seed) if scenario is None else scenario, plan, achieves=achieves(seed))
    with installed(world):
        try:
            world.live()
            world.heal()
            judge(world)
        except AssertionError as error:
            world.wrong.append(f"assertion: {error!r}")
        events = world.happened
        if not keep:
            world.end_all()
    made = hashlib.blake2b(digest_size=8)
    for one in world.trace:
        made.update(repr(one).encode())
    return Outcome(
        seed=seed, wrong=world.wrong, stats=world.stats, trace=made.hexdigest(), events=events, virtual_s=world.now,
        world=world if keep else None,
    )  # fmt: skip


def histories(
    seeds: Iterable[int], scenario: Callable[[int], Scenario] = scenario_of, *, keep: bool = False
) -> Iterator[Outcome]:
    """The outcome of each seed, in order.  scenario: another input;  keep: whoever takes an outcome ends its world"""
    enabled, hook = gc.isenabled(), sys.unraisablehook
    gc.disable()
    # A killed process is torn down by the collector, in the middle of whatever it awaited: that is not worth a word.
    sys.unraisablehook = _nothing
    try:
        for number, seed in enumerate(seeds, 1):
            yield history(seed, scenario=scenario(seed), keep=keep)
            if number % COLLECTED_EVERY == 0:
                gc.collect()
    finally:
        gc.collect()
        sys.unraisablehook = hook
        if enabled:
            gc.enable()


def in_parallel(count: int, processes: int) -> Iterator[Outcome]:
    """The outcomes of the seeds below `count`, in order, a block of them to a process."""
    blocks = [range(start, min(count, start + BLOCK)) for start in range(0, count, BLOCK)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for some in pool.map(_some, blocks):
            yield from some


def _some(seeds: range) -> list[Outcome]:
    return list(histories(seeds))


@contextmanager
def installed(world: World) -> Iterator[None]:
    """The simulated hands, where the engine reaches for the real ones."""

    async def read_range(
        _bootstrap: str, topic: str, partition: int, start: int, stop: int, *, records_max: int = 4000
    ) -> Any:
        log, process = world.log(topic, partition), world.current
        assert process is not None
        stop = min(stop, log.end)
        while start < stop:
            await process.pause()
            chunk = min(stop, start + min(records_max, world.random.randint(5, 200)))
            found = log.read(start, chunk)
            start = chunk
            if found:
                yield found

    def point(name: str, leg: str = "") -> None:
        if world.current is not None:
            world.stats[f"point {name}"] += 1
            world.current.point(name, leg)

    def end(reason: str, code: int = 70, error: BaseException | None = None) -> None:
        assert world.current is not None
        world.end(world.current, reason, code, error)

    def open_store(folder: Any, stamp: Any) -> Any:
        assert world.current is not None
        return world.current.node.disk.open(world.current, folder, stamp)

    def set_aside(folder: Any, reason: str) -> None:
        assert world.current is not None
        world.count("folder set aside")
        world.current.node.disk.set_aside(folder)

    clock = SimpleNamespace(monotonic=lambda: world.now, perf_counter=world.spend, time=lambda: world.now)
    hands: dict[str, Any] = {"end": end, "read_range": read_range, "time": clock, "telemetry": SILENT, "log": SILENT}
    with _patched(
        (faults, "point", point),
        (store, "open_store", open_store),
        (store, "quarantine", set_aside),
        (store, "make_room", lambda _folder: False),
        (holding, "GATE_S", 0.2),
        (achieve, "PAUSE_S", 0.05),
        (achieve, "LOOK_S", 0.2),
        (achieve, "MORE_S_MAX", 1.0),
        (achieve, "WAIT_S_MAX", 0.1),
        (achieve, "REST_S_MAX", 0.002),
        *((module, name, hands[name]) for module, name in _reached()),
        (achieve, "log", _Told(world)),
    ):
        yield


@cache
def _reached() -> list[tuple[Any, str]]:
    """Where modules of the engine hold the names of what is simulated: (module, name)."""
    held = {"end": ending.end, "read_range": changelog.read_range, "time": time}
    found: list[tuple[Any, str]] = []
    for name, module in sorted(sys.modules.items()):
        if name.startswith("milepost.agents.") and module is not ending:
            found += [(module, one) for one, real in held.items() if getattr(module, one, None) is real]
            found += [(module, one) for one in ("telemetry", "log") if hasattr(module, one)]
    return found


class _Told:
    """What `achieve` says when something happens that nobody expected: it goes on, the history is wrong."""

    def __init__(self, world: World) -> None:
        self._world = world

    def exception(self, text: str, *_args: Any) -> None:
        self._world.wrong.append(f"achieve: {text}: {sys.exc_info()[1]!r}")

    def error(self, text: str, *_args: Any) -> None:
        self._world.wrong.append(f"achieve: {text}")

    def info(self, *_args: Any) -> None:
        """It waits: that is as it should be."""

    debug = info


class _Silent:
    """What the engine says of faults, and counts, is not what a history is judged by."""

    def __getattr__(self, _name: str) -> Any:
        return _nothing


SILENT: Final = _Silent()


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Says nothing."""


@contextmanager
def _patched(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    held = [(module, name, getattr(module, name)) for module, name, _ in patches if hasattr(module, name)]
    try:
        for module, name, value in patches:
            if hasattr(module, name):
                setattr(module, name, value)
        yield
    finally:
        for module, name, value in held:
            setattr(module, name, value)
