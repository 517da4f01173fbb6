"""World: virtual time, the broker, the nodes and what befalls them.

    plan(seed) -> input appended over time · faults over time · crash points by chance -> heal -> quiet

Everything random comes from one generator and everything happens at a time of one heap, so a seed is a history.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from milepost.agents.ticker import ticks
from milepost.schemas.keys import OrgKeys
from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.line import all_topics, leg
from tests.support.events import SECRET, Scenario
from tests.support.simulator.achieving import unsaid
from tests.support.simulator.disk import Disk
from tests.support.simulator.group import SESSION_S, Group
from tests.support.simulator.kafka import Log, Message
from tests.support.simulator.loop import Killed, ProcessLoop
from tests.support.simulator.plan import (
    BURST_S,
    DELETIONS_S,
    EVENTS_MAX,
    FAULTS_S,
    FULL_S,
    HEAL_S,
    LAG_S,
    LATER_S,
    OLD_S,
    POINTS,
    SAYING,
    SAYING_S,
    SENDING,
    SOURCE,
    TICKS_S,
    UNSEEN_S,
    Plan,
    draw,
)
from tests.support.simulator.process import NO_MEMORY, Node, Process
from tests.support.simulator.wires import AIR_S


class World:
    """See the module.  stats: what happened, by kind;  wrong: what must not have."""

    def __init__(self, seed: int, scenario: Scenario, plan: Plan | None = None, *, achieves: bool = False) -> None:
        self.seed = seed
        self.achieves = achieves
        self.random = random.Random(seed)
        self.plan = draw(self.random) if plan is None else plan
        self.scenario = scenario
        self.partitions = scenario.partitions
        self.now = 0.0
        self.clock_ms = 0
        self.stats: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.trace: list[object] = []
        self.org_keys = _org_keys()
        self.current: Process | None = None
        self.healing = False
        self.spent = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._runnable: dict[ProcessLoop, None] = {}
        self._processes: dict[ProcessLoop, Process] = {}
        self._waiting: list[tuple[str, Process, Any]] = []
        self._committed: dict[tuple[str, int], int] = {}
        self.logs = {
            (topic.name, number): Log(topic.name, number)
            for topic in all_topics()
            for number in range(topic.partitions or self.partitions)
        }
        self.nodes = [Node(f"node{number}", Disk()) for number in range(self.plan.workers)]
        places = [(leg, number) for leg in ("ingest", "measure", "record") for number in range(self.partitions)]
        self.group = Group(self, places, static=self.plan.static)
        self._proved: dict[tuple[str, int], float] = {}
        self._defined: set[tuple[str, int]] = set()
        self.moved_at = 0.0
        self.highest: dict[tuple[str, int], int] = {}  # leg, partition -> last offset handed to anybody
        self._lives = 0

    load = staticmethod(lambda files: _load(tuple(sorted(files.items()))))

    # -- time and chance

    @property
    def happened(self) -> int:
        """Events so far."""
        return self._count

    def processes(self) -> list[Process]:
        return list(self._processes.values())

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call, args))

    def runnable(self, loop: ProcessLoop) -> None:
        self._runnable[loop] = None

    def chance(self, share: float) -> bool:
        return not self.healing and share > 0 and self.random.random() < share

    def latency(self) -> float:
        drawn = self.random.random()
        return 0.0005 + 0.012 * drawn * drawn

    def spend(self) -> float:
        """A clock that runs while a process computes: a fold may seem to take 0.1 ms or 100."""
        self.spent += self.random.choice((0.0001, 0.001, 0.01, 0.1))
        return self.spent

    def count(self, what: str, n: int = 1) -> None:
        self.stats[what] += n
        self.trace.append((round(self.now, 6), what))

    def run(self, until: float, resting: Callable[[], bool] | None = None) -> bool:
        """Let things happen until a time, or until `resting`; whether it came to that."""
        heap = self._heap
        self._drain()
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(heap)
            call(*args)
            self._drain()
            assert self._count < EVENTS_MAX, "the history does not come to rest"
            if resting is not None and resting():
                return True
        self.now = until
        return resting is None

    def _drain(self) -> None:
        while self._runnable:
            loops, self._runnable = self._runnable, {}
            for loop in loops:
                if not loop.dead and not loop.stopped:
                    self.current = self._processes[loop]
                    loop.drain()
                    self.current = None

    def unexpected(self, loop: ProcessLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, Killed):
            self.wrong.append(f"{self._processes[loop]!r}: {context.get('message')}: {error!r}")

    # -- the broker

    def log(self, topic: str, partition: int) -> Log:
        return self.logs[topic, partition]

    def append(self, log: Log, batch: Sequence[Message]) -> int:
        base = log.append(batch, self.clock_ms, self.now)
        self.trace.append((round(self.now, 6), log.name, log.partition, base, batch[0][0]))
        if not log.name.endswith("-changelog"):
            self.moved_at = self.now
            for node in self.nodes:
                if node.process is not None:
                    for stream in node.process.streams.values():
                        stream.wake()
            if self._waiting:
                waiting, self._waiting = self._waiting, []
                for topic, process, future in waiting:
                    if topic == log.name:
                        process.post(_wake, future)
                    else:
                        self._waiting.append((topic, process, future))
        return base

    async def appended(self, process: Process, topic: str) -> None:
        """Wait until something is appended to `topic`."""
        future = process.loop.create_future()
        self._waiting.append((topic, process, future))
        await future

    def compact(self) -> None:
        """The cleaner runs over every log whose readers and owners keep up."""
        for log in self.logs.values():
            if log.name in SOURCE and not self._keeps_up(SOURCE[log.name], log.partition):
                self.stats["not cleaned"] += 1
            elif log.name != "definitions":
                gone = log.compact(self.now - LAG_S, self.now - LAG_S - DELETIONS_S)
                self.stats["records cleaned"] += gone

    def _keeps_up(self, topic: str, partition: int) -> bool:
        key = (topic, partition)
        if self.now - self._proved.get(key, 0.0) > UNSEEN_S:
            return False
        waiting = self.logs[key].every[self._committed.get(key, 0) :]
        return not waiting or self.now - waiting[0].at < UNSEEN_S

    def landed(self, topic: str, number: int) -> int:
        """The committed offset of a partition; -1: none."""
        return self._committed.get((topic, number), -1)

    def owner(self, leg: str, number: int) -> Process | None:
        """Who answers for a partition: a member that was given it and that runs."""
        for name, places in self.group.assigned.items():
            member = self.group.members.get(name)
            if member is not None and (leg, number) in places and not member.loop.dead and not member.loop.stopped:
                return member
        return None

    def committed(self, process: Process, tp: Any, next_offset: int) -> None:
        """A checkpoint has landed; what its process may say of it is for display."""
        key = (tp.topic, tp.partition)
        self.trace.append((round(self.now, 6), "committed", key, next_offset))
        if next_offset > self.log(*key).end:
            self.wrong.append(f"{process!r}: committed {next_offset} of {key}, which ends at {self.log(*key).end}")
        if self.group.holds(process):
            self._proved[key] = self.now
        if next_offset > self._committed.get(key, 0):
            self._committed[key] = next_offset
            self.moved_at = self.now

    def placed(self, process: Process, topic: str, number: int, offset: int) -> None:
        """A restored partition goes on at `offset`: nothing acknowledged is forgotten, but by a zombie (I4)."""
        if self.group.holds(process) and offset < self._committed.get((topic, number), 0):
            told = self._committed[topic, number]
            self.wrong.append(f"{process!r}: {topic}/{number} goes on at {offset}, {told} was committed")

    # -- lives

    def start(self, node: Node) -> None:
        if (node.process is not None and not node.process.loop.dead) or not node.wanted:
            return
        self._lives += 1
        process = Process(self, node, self._lives)
        self._processes[process.loop] = process
        if self.chance(max(self.plan.crash, 0.7) if self.achieves else self.plan.crash):
            drawn = self.random.random()
            if self.achieves and self.random.random() < 0.5:
                process.point_leg = "achieve"
                process.point_at = self.random.choice(SAYING)
                process.point_left = self.random.randint(1, 3)
            elif drawn < 0.2:  # in the middle of its outputs, where most is on the way
                process.io_only, process.io_left = "send", self.random.randint(2, 30)
            elif drawn < 0.8:
                process.stops = self.chance(self.plan.stops)
                process.point_at = self.random.choice(SENDING if process.stops else POINTS)
                process.point_left = self.random.randint(1, 5)
            else:
                process.io_left = self.random.randint(1, 60)
        self.stats["lives"] += 1
        process.start()

    def kill(self, process: Process, why: str) -> None:
        """kill -9, and the supervisor's next start."""
        if process.loop.dead:
            return
        self.trace.append((round(self.now, 6), "dies", repr(process), why))
        process.loop.kill()
        torn = self.chance(max(self.plan.torn, 0.5) if process.io_only else self.plan.torn)
        for wire in process.wires.values():
            wire.kill(torn=torn)
        if torn:
            self.stats["torn outputs"] += 1
        self.at(self.now + self.random.uniform(0.005, 0.2), self.start, process.node)
        self.at(self.now + SESSION_S, self._missed, process)

    def _missed(self, process: Process) -> None:
        if process.loop.dead or process.loop.stopped:
            self.group.evict(process)

    def end(self, process: Process, reason: str, code: int, error: BaseException | None = None) -> None:
        """The process has ended itself."""
        if not process.loop.dead:
            process.ended = (code, reason)
            self.count(f"ended with {code}")
            if code != 75 and NO_MEMORY not in reason:
                self.wrong.append(f"{process!r} ended with {code}: {reason}")
            self.kill(process, reason)
        raise Killed

    def left(self, process: Process) -> None:
        """An orderly end is done; the node comes back later."""
        process.loop.kill()
        self.group.leave(process)
        self.count("left in order")
        self.at(self.now + self.random.uniform(0.02, 0.3), self._wanted, process.node)

    def _wanted(self, node: Node) -> None:
        node.wanted = True
        self.start(node)

    # -- faults

    def late(self, log: Log) -> None:
        """A batch of nobody who is a member has landed; now and then the owner dies before it has answered it."""
        self.count("late batch")
        if self.chance(self.plan.second):
            leg = log.name.removesuffix("-changelog")
            for name, places in self.group.assigned.items():
                owner = self.group.members.get(name)
                if owner is not None and (leg, log.partition) in places:
                    self.count("killed behind a late batch")
                    self.at(self.now + self.random.random() * 0.03, self.kill, owner, "behind a late batch")

    def fault(self, kind: str) -> None:
        node = self.random.choice(self.nodes)
        process = node.process
        up = process is not None and not process.loop.dead
        if kind == "compact":
            self.compact()
        elif kind == "full disk":
            node.disk.full_until = self.now + self.random.choice((0.1, 0.3, FULL_S))
        elif kind == "rebalance":
            self.group.rebalance()
        elif kind == "lose" and not up:
            node.disk.lose()
        elif kind in ("lose", "lose running") and process is not None:
            node.disk.lose()
            if kind == "lose" or self.random.random() < 0.5:
                self.kill(process, "lost its disk")
        elif kind == "old copy":
            if process is not None and up:
                self.kill(process, "an older copy comes")
            if not node.disk.put_back(self.now - OLD_S, self.random.choice):
                return
        elif process is None or not up:
            return
        elif kind == "kill":
            self.kill(process, "kill -9")
        elif kind == "stop":
            if process.loop.stopped:
                return
            self.stop(process)
        elif kind == "evict":
            self.group.evict(process)
        elif kind == "leave" and len(self.nodes) > 1 and node.wanted:
            node.wanted = False
            process.post(process.revoked, -1)
        else:
            return
        self.count(kind)

    def stop(self, process: Process) -> None:
        process.loop.stopped = True
        for wire in process.wires.values():
            wire.stop()
        self.at(self.now + SESSION_S, self._missed, process)
        self.at(self.now + self.random.choice((0.05, 0.35, 0.6)), self.resume, process)

    def resume(self, process: Process) -> None:
        if process.loop.stopped:
            process.loop.stopped = False
            for wire in process.wires.values():
                wire.resume()
            self.runnable(process.loop)

    # -- the history

    def feed(self) -> None:
        """Plan the input: each partition's records in order, spread over time in bursts, definitions before their markers."""
        for records in self.scenario.log:
            times = sorted(self.random.choice(self.plan.bursts) + self.random.uniform(0.0, BURST_S) for _ in records)
            for when, record in zip(times, records, strict=True):
                self.at(when, self._feed, record)

    def _define(self, org: str, number: int, k_ms: int, bundle: bytes) -> None:
        """A bundle, unless it is there already: each raw partition has a marker of it."""
        if (org, number) in self._defined:
            return
        self._defined.add((org, number))
        message = _bundle(org, number, k_ms, bundle, tuple(sorted(self.scenario.bundles[bundle].items())))
        self.append(self.log("definitions", 0), (message,))

    def _feed(self, record: Any) -> None:
        log = self.log("raw-events", record.partition)
        for org, applied in self.scenario.applied.items():
            for number, (k_ms, bundle) in enumerate(applied, 1):
                if record.key == f"marker{org}{number}".encode():
                    self._define(org, number, k_ms, bundle)
        self.clock_ms = record.timestamp_ms
        self.append(log, ((record.key, record.value, record.headers),))

    def _tick(self) -> None:
        for one in ticks(self.partitions, self.org_keys):
            self.append(self.log(one.topic, one.partition), ((one.key, one.value, one.headers),))

    def live(self) -> None:
        """Everything up to where the faults end."""
        self.feed()
        if self.achieves:
            for number in range(1, int((FAULTS_S + SAYING_S) / TICKS_S)):
                self.at(number * TICKS_S, self._tick)
        for node in self.nodes:
            self.at(self.random.uniform(0.0, 0.1), self.start, node)
        for when, kind in self.plan.faults:
            self.at(when, self.fault, kind)
        self.run(FAULTS_S + (SAYING_S if self.achieves else 0.0))

    def heal(self) -> None:
        """No more faults: everything lands, everybody goes on, until nothing moves any more."""
        self.healing = True
        for process in list(self._processes.values()):
            process.point_at, process.point_left, process.io_left = "", 0, 0
            self.resume(process)
        for node in self.nodes:
            node.wanted, node.disk.full_until = True, 0.0
            self.start(node)
        for late in (0.2, 0.5, *(LATER_S if self.achieves else ())):  # as the ticker does, once a second
            self.at(self.now + late, self._tick)
        self.rest(self.plan.idle_s + AIR_S + 0.15)

    def rest(self, quiet: float) -> None:
        """Until everything is folded and nothing has moved for `quiet` seconds.

        After faults: the longest way of bytes and the time after which an idle owner looks behind its last batch.
        """
        self.moved_at = self.now
        if not self.run(self.now + HEAL_S, lambda: self.now - self.moved_at > quiet and self.done()):
            self.wrong.append(f"stuck: {self.left_over()}")

    def owners(self) -> dict[tuple[str, int], list[Any]]:
        """Open partitions, by leg and number, of all living processes."""
        found: dict[tuple[str, int], list[Any]] = {}
        for process in self._processes.values():
            if not process.loop.dead:
                for name, leg in process.runtime.legs.items():
                    for number, at in leg.partitions.items():
                        found.setdefault((name, number), []).append(at)
        return found

    def left_over(self) -> list[str]:
        owners = self.owners()
        said = []
        for place in self.group.places:
            topic = leg(place[0]).reads
            held, end = owners.get(place, []), self.log(topic, place[1]).end
            landed = self._committed.get((topic, place[1]), 0) >= end
            if len(held) != 1 or held[0].next_offset < end or not landed:
                said.append(f"{place}: {[one.next_offset for one in held]} of {end}")
        return said or unsaid(self)

    def done(self) -> bool:
        return not self.left_over()

    def begin_anew(self, *lost: str) -> None:
        """Every process ends, every disk is lost, every log is cleaned of all that it may be cleaned of; one node starts.

        lost: legs whose changelogs are lost too, so that everything of theirs comes from what they read
        """
        # Up to where the cleaner has come: all, or a part of it, with what else there is of a key behind.
        far = self.now if self.random.random() < 0.5 else self.random.uniform(0.0, self.now)
        self.now += 10 * LAG_S
        self.end_all()
        self.group.abandon()
        for key, log in self.logs.items():
            if log.name in [f"{leg}-changelog" for leg in lost]:
                self.logs[key] = Log(*key)
                self._committed.pop((SOURCE[log.name], log.partition), None)
            elif log.name != "definitions":
                log.compact(far, far)
        for other in self.nodes[1:]:
            other.wanted = False
        self.at(self.now, self.start, self.nodes[0])

    def end_all(self) -> None:
        """Every process ends, and every disk is lost."""
        for process in self._processes.values():
            process.loop.kill()
            process.node.process = None
            process.node.disk.lose()
        self._processes.clear()
        self._heap.clear()
        self._runnable.clear()
        self._waiting.clear()


@cache
def _org_keys() -> OrgKeys:
    return OrgKeys(SECRET)


@cache
def _load(files: tuple[tuple[str, bytes], ...]) -> Catalog:
    return load_bundle(dict(files))


@cache
def _bundle(org: str, number: int, k_ms: int, bundle: bytes, files: tuple[tuple[str, bytes], ...]) -> Message:
    from milepost.schemas.serde import wire

    fields = {"org": org, "bundle": bundle, "attempt": f"{org}{number}", "k_ms": k_ms, "files": dict(files)}
    return f"{org}{number}".encode(), wire("Bundle").encode(fields), ()


def _wake(future: Any) -> None:
    if not future.done():
        future.set_result(None)
