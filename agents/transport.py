"""Transport: Faust's aiokafka driver, a chunk at a time, acknowledging nothing by itself.

    broker -> getmany -> one message a partition chunk (value = list of records) -> conductor -> agent
                                                              checkpoint -> landed -> commit (for display)

Stock Faust creates four tasks a record; here a message is up to `chunk_max` records of one partition.  What a worker
has absorbed is said by the mark in its changelog, never by the committed offset: `seek_to_committed` asks the runtime
for X+1, and commits happen only where a checkpoint has landed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, cast

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from milepost.agents import faults, records
from milepost.agents.ending import end
from milepost.agents.lease import Lease
from milepost.topology.line import LEGS

records.adopt()

LEG_OF: Final = {leg.reads: leg.name for leg in LEGS}
"""Topic of the line -> the leg that reads it."""

HELD_BACK_S: Final = 0.02
"""How long a fetch may wait, in seconds, while some partition is held back and may come free."""

FETCH_WAIT_MS: Final = 250
BUSY_WAIT_MS: Final = 20
BUSY_BYTES: Final = 64 * 1024
BUSY_RECORDS_A_S: Final = 1000
"""From so many records a second on a fetch waits for `BUSY_BYTES`, for up to `BUSY_WAIT_MS`: answered at once it would
bring a handful of records each time, and the requests would cost the broker more than the records."""
UNTAKEN_BYTES: Final = 8 * 1024 * 1024
"""Of a partition no more is fetched while so many bytes of records (or two chunks) wait for its agent: what a backlog
takes of memory is bounded by bytes, however large its events are."""
COMMIT_S: Final = 5.0
MEMBER_S: Final = 2.0
"""How often, in seconds, the membership in the consumer group is looked at."""


class Ranges:
    """Chunks of one partition on their way: a FIFO of (first, last), acknowledged in any order.

    What may be committed is the end of the acknowledged prefix: never a range before it that is still in hand.
    """

    def __init__(self) -> None:
        self._ranges: deque[list[int]] = deque()  # [first, last, acknowledged]
        self._end: int | None = None

    def __len__(self) -> int:
        return len(self._ranges)

    def add(self, first: int, last: int) -> None:
        """Offsets first..last are in hand.  Ranges come in order; gaps between them are the log's (compaction)."""
        assert first <= last and (not self._ranges or self._ranges[-1][1] < first), (first, last)
        self._ranges.append([first, last, 0])

    def acknowledge(self, first: int, last: int) -> None:
        """The whole range first..last has landed."""
        for one in self._ranges:
            if one[0] == first and one[1] == last:
                one[2] = 1
                break
        self._advance()

    def landed(self, next_offset: int) -> None:
        """Everything below `next_offset` has landed; a range that is only partly below stays in hand."""
        for one in self._ranges:
            if one[1] < next_offset:
                one[2] = 1
        self._advance()
        if self._end is None or next_offset > self._end:
            self._end = next_offset if not self._ranges else min(next_offset, self._ranges[0][1] + 1)

    def _advance(self) -> None:
        while self._ranges and self._ranges[0][2]:
            self._end = self._ranges.popleft()[1] + 1

    @property
    def committable(self) -> int | None:
        """The next offset to read as far as is acknowledged, or None."""
        return self._end


class Chunk(list[Any]):
    """Records of one source partition; `begins`: behind the record handed on before them, or where reading began."""

    __slots__ = ("begins",)

    def __init__(self, records: Iterable[Any], begins: int) -> None:
        super().__init__(records)
        self.begins = begins


class Hooks(Protocol):
    """What the transport asks of the runtime (agents/bindings.py)."""

    @property
    def chunk_max(self) -> int: ...

    def next_offset(self, tp: TP) -> int | None:
        """Where to go on in a source partition: X+1 of the restored mark; None: not ours (yet)."""
        ...

    def pressing(self) -> set[TP]:
        """Source partitions that come first: nobody may ask them before they are further."""
        ...

    async def park(self) -> None:
        """Fold no more and checkpoint what is folded; the stores stay open until the next assignment is known."""
        ...

    async def stop(self) -> None:
        """Checkpoint, close all stores and every client: the process ends."""
        ...


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):
    """The driver's thread, with a shorter wait of a fetch."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # The driver's 1.5 s: whatever else goes to that broker (end offsets, a seek) would wait behind the fetch.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class ChunkConsumer(driver.Consumer):
    """A consumer whose messages are chunks.  See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ranges: dict[TP, Ranges] = {}
        self._committed: dict[TP, int] = {}
        self._untaken: Counter[TP] = Counter()
        self._untaken_bytes: Counter[TP] = Counter()
        self._room = asyncio.Event()
        self._placed: set[TP] = set()
        self._handed_to: dict[TP, int] = {}  # behind the last record handed on, or where reading began
        self.placed_at = 0.0
        self._fetched = 0  # records since `_fetched_at`
        self._fetched_at = time.monotonic()
        self._seeks = 0
        self._seeking = asyncio.Lock()
        self.lease = Lease(self.app.conf.broker_session_timeout)

    def _new_consumer_thread(self) -> Any:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def hooks(self) -> Hooks:
        hooks = cast(ChunkTransport, self.transport).hooks
        assert hooks is not None, "ChunkTransport.hooks is set when the runtime is made"
        return hooks

    # -- membership

    @Service.timer(MEMBER_S)
    async def _membership(self) -> None:
        self.look_at_membership()

    def look_at_membership(self) -> None:
        """End the process when the group's coordinator has died: aiokafka logs it and waits for partitions for ever."""
        coordinator = getattr(self._thread._consumer, "_coordinator", None)
        task = getattr(coordinator, "_coordination_task", None)
        if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
            end(f"the membership in the consumer group has ended: {error!r}", error=error)

    # -- fetching (the signatures are Faust's)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109
        """Yield (partition, message) with one message a chunk.  The value is the list of aiokafka's records."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        # Before the fetch: what it brings is of this generation.  After the wait, in which a rebalance may have passed:
        # recovery seeks once, and would wait for ever for what was dropped as of the generation before.
        generation = self.app.consumer_generation_id
        seeks = self._seeks
        records, _active = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        if seeks != self._seeks and any(not self._is_changelog_tp(ensure_TP(key)) for key in records):
            # A fetch of the assignment before, still waiting when we were placed anew: what it took lies behind the
            # seek and would be missing.  Nothing has been handed on since the seek, so it can be repeated.
            await self.seek_to_committed()
            return
        self._pace(sum(map(len, records.values())))
        chunk_max = self.hooks.chunk_max
        for key, fetched in records.items():
            tp = ensure_TP(key)
            is_source = not self._is_changelog_tp(tp)
            for chunk in split(fetched, chunk_max):
                # What is dropped here is read again: a stopped flow or a new generation always ends in a seek.
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                if is_source:
                    if tp not in self._placed:
                        break
                    faults.point("after_fetch", LEG_OF.get(tp.topic.rpartition(".")[2], ""))
                    self._ranges.setdefault(tp, Ranges()).add(chunk[0].offset, chunk[-1].offset)
                    self._untaken[tp] += len(chunk)
                    self._untaken_bytes[tp] += size_of(chunk)
                    begins, self._handed_to[tp] = self._handed_to[tp], chunk[-1].offset + 1
                    chunk = Chunk(chunk, begins)
                yield tp, _message(tp, chunk, generation)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109
        wanted = self._get_active_partitions()
        active = {tp for tp in wanted if self._is_changelog_tp(tp) or (tp in self._placed and self._has_room(tp))}
        if pressing := self.hooks.pressing() & wanted:
            active = {tp for tp in active if self._is_changelog_tp(tp) or tp in pressing}
        if not active:  # stock code sleeps a whole second here
            self._room.clear()
            with contextlib.suppress(TimeoutError):  # looked at again: the set of partitions may have changed
                await asyncio.wait_for(self._room.wait(), HELD_BACK_S * 5)
            return None, active
        return await self._getmany(active, HELD_BACK_S if len(active) < len(wanted) else timeout), active

    def _has_room(self, tp: TP) -> bool:
        return self._untaken[tp] < 2 * self.hooks.chunk_max and self._untaken_bytes[tp] < UNTAKEN_BYTES

    def _pace(self, records: int) -> None:
        """Few large fetches under load, an answer at once without."""
        self._fetched += records
        now = time.monotonic()
        if now - self._fetched_at < 0.25:
            return
        busy = self._fetched > BUSY_RECORDS_A_S * (now - self._fetched_at)
        self._fetched, self._fetched_at = 0, now
        fetcher = self._thread._ensure_consumer()._fetcher
        fetcher._fetch_min_bytes = BUSY_BYTES if busy else 1
        fetcher._fetch_max_wait_ms = BUSY_WAIT_MS if busy else FETCH_WAIT_MS

    def taken(self, tp: TP, records: Sequence[Any]) -> None:
        """The agent has folded (or left) `records` of `tp`: there is room for more."""
        self._untaken[tp] = max(0, self._untaken[tp] - len(records))
        self._untaken_bytes[tp] = max(0, self._untaken_bytes[tp] - size_of(records))
        self._room.set()

    # -- positions

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek each source partition to X+1 of its restored mark.  Changelog partitions are recovery's own affair."""
        async with self._seeking:
            self._seeks += 1
            return await self._place()

    async def _place(self) -> Mapping[TP, int]:
        placed: dict[TP, int] = {}
        unsaid: set[TP] = set()
        for tp in self.assignment():
            if self._is_changelog_tp(tp):
                continue
            offset = self.hooks.next_offset(tp)
            if offset is None:
                self.log.warning("%s/%s is assigned and not restored: not read", tp.topic, tp.partition)
                continue
            placed[tp] = offset
        try:
            if placed:
                await self._thread.seek_wait(placed)
                for tp, offset in placed.items():
                    if await self._committed_below(tp, offset):
                        unsaid.add(tp)
                # Restored, and from now on written by us alone: else the fetcher would read our own writes back.
                await self._thread.call_thread(self._pause_changelogs)
        except IllegalStateError:
            # A rebalance took the partitions away while we were seeking.  It ends in a seek of its own.
            self.log.info("partitions left while seeking; the rebalance seeks again")
            return {}
        for tp in placed:
            self._ranges[tp] = Ranges()
            if tp in unsaid:  # a life that ended between its batch and its commit: nothing more may come to say it with
                self._ranges[tp].landed(placed[tp])
            self._untaken[tp] = self._untaken_bytes[tp] = 0
            self._handed_to[tp] = placed[tp]
            self._placed.add(tp)
        self.placed_at = time.monotonic()
        self._room.set()
        return placed

    async def _pause_changelogs(self) -> None:
        consumer = self._thread._ensure_consumer()
        # A new assignment begins unpaused, so recovery can read them again.
        consumer.pause(*(tp for tp in consumer.assignment() if self._is_changelog_tp(tp)))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Stock checks that something was fetched of late; of a changelog nothing is, on purpose."""
        if not self._is_changelog_tp(tp):
            super().verify_event_path(now, tp)

    async def _committed_below(self, tp: TP, offset: int) -> bool:
        """Whether the group's offset, which people see, is behind what is restored."""
        consumer = self._thread._ensure_consumer()
        committed = await self._thread.call_thread(consumer.committed, driver.ensure_aiokafka_TP(tp))
        if committed is not None and committed > offset:
            self.log.warning(
                "%s/%s: committed %s, restored up to %s: state was lost and is rebuilt from there",
                tp.topic, tp.partition, committed, offset,
            )  # fmt: skip
        return (committed or 0) < offset

    async def perform_seek(self) -> None:
        """Seek, and remember where reading starts."""
        placed = await self.seek_to_committed()
        self._read_offset.update({tp: offset or None for tp, offset in placed.items()})

    # -- acknowledgement

    def ack(self, message: Any) -> bool:
        """Stock streams acknowledge in a `finally`, exception or not: it means nothing here."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps are the log's; ranges do not need them filled."""

    def landed(self, tp: TP, next_offset: int) -> None:
        """A checkpoint holds everything of `tp` below `next_offset`; the next commit says so."""
        self._ranges.setdefault(tp, Ranges()).landed(next_offset)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what has landed since the last commit.  For display: nobody starts from it."""
        due: dict[TP, int] = {}
        for tp, ranges in self._ranges.items():
            offset = ranges.committable
            if offset is not None and offset > self._committed.get(tp, -1):
                due[tp] = offset
        assigned = self.assignment() if due else set()
        due = {tp: offset for tp, offset in due.items() if tp in assigned}
        if not due or not await self._thread.call_thread(self._commit_for_display, due):
            return False
        self._committed.update(due)
        return True

    async def _commit_for_display(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._thread._ensure_consumer()
        wanted = {driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await asyncio.wait_for(consumer.commit(wanted), COMMIT_S)
        except (KafkaError, TimeoutError) as error:  # stock code crashes the worker over it
            self.log.info("the offsets were not committed, the next ones will be: %r", error)
            return False
        return True

    # -- life cycle

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop the flow, drain, checkpoint, commit; then what Faust does."""
        self.stop_flow()
        self.app.flow_control.suspend()
        self._placed.clear()
        await self.hooks.park()
        await self.commit()
        self._ranges.clear()
        self._committed.clear()
        self._untaken.clear()
        self._untaken_bytes.clear()
        await super().on_partitions_revoked(revoked)
        self.lease.joining()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Believe in the assignment from now on; then what Faust does."""
        self.lease.joined()
        self.lease.watch(getattr(self._thread._consumer, "_coordinator", None))
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_stop(self) -> None:
        """Checkpoint and commit what is folded, leave the group, then stop."""
        self.stop_flow()
        await self.hooks.stop()
        coordinator = getattr(self._thread._consumer, "_coordinator", None)
        if coordinator is not None:
            # A static member that ends would keep its partitions for a session time-out: nobody could be asked.
            coordinator._group_instance_id = None
        await super().on_stop()


class ChunkTransport(driver.Transport):
    """The transport to set as `app.transport`; `hooks` is set by the runtime before the app starts."""

    Consumer: ClassVar[Any] = ChunkConsumer
    hooks: Hooks | None = None


class ChunkSchema(faust.Schema[Any, Any]):
    """Hands a chunk through as it is: decoding belongs to the leg, where a failure is a dead letter."""

    def loads_key(self, app: Any, message: Any, **_options: Any) -> Any:
        return None

    def loads_value(self, app: Any, message: Any, **_options: Any) -> Any:
        return message.value


def size_of(records: Sequence[Any]) -> int:
    """Bytes of the values of `records`."""
    return sum([len(one.value) for one in records if one.value is not None])


def split(records: Sequence[Any], size_max: int) -> Iterator[Sequence[Any]]:
    """`records` in pieces of at most `size_max`, in order."""
    if len(records) <= size_max:
        if records:
            yield records
        return
    for start in range(0, len(records), size_max):
        yield records[start : start + size_max]


def _message(tp: TP, chunk: Any, generation: int) -> ConsumerMessage:
    last = chunk[-1]
    # Without generation_id the stream skips the message silently.
    return ConsumerMessage(
        tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, last.timestamp_type, [], None, chunk,
        None, 0, 0, tp, generation_id=generation,
    )  # fmt: skip
