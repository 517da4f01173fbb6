"""One leg in one partition against a real broker and RocksDB: given, restored, folded, checkpointed, taken away."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from milepost.agents import holding as module
from milepost.agents import landing
from milepost.agents.changelog import ChangelogWriter, dump_row, read_range
from milepost.agents.holding import Holding
from milepost.agents.landing import Place
from milepost.agents.opening import Bounds
from milepost.agents.producer import LegProducer
from milepost.agents.reappend import runs
from milepost.agents.store import Stamp
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from tests.agents.harness import Event, events, expected, make_topics, read_topic, send
from tests.agents.test_changelog import mark_row, sums
from tests.agents.toy import SPEC, Count, tables

pytestmark = pytest.mark.broker

STAMP = Stamp(cluster="c", source_topic="s", changelog_topic="l", partitions=2, leg="count", partition=0)


class Ended(BaseException):
    """The process would have ended here."""


class Bench:
    """Makes holdings of partition 0 that would end the process as they would, and remembers how."""

    def __init__(self, settings: Settings, writer: ChangelogWriter, outputs: LegProducer) -> None:
        self.settings = settings
        self.writer = writer
        self.outputs = outputs
        self.landed: list[int] = []
        self.ended: list[int] = []
        self.held: list[Holding] = []
        self.stamp = STAMP

    def holding(self, node: str = "one", *, checkpoint_ms: int = 60_000, idle_s: float = 600.0) -> Holding:
        place = Place(
            bootstrap=self.settings.bootstrap,
            source=self.settings.topic("numbers"),
            changelog=self.settings.topic(SPEC.changelog),
            folder=self.settings.home / node,
            worker=node,
            incarnation="i",
            checkpoint_ms=checkpoint_ms,
            checkpoint_bytes=8 << 20,
            idle_s=idle_s,
        )
        made = Holding(
            leg=Count(), spec=SPEC, number=0, place=place, stamp=self.stamp, writer=self.writer, outputs=self.outputs,
            decisions=lambda: {"definitions": 3}, landed=self.landed.append,
        )  # fmt: skip
        self.held.append(made)
        return made

    async def opened(self, node: str = "one", **options: Any) -> Holding:
        made = self.holding(node, **options)
        await made.take_over()
        await made.open()
        assert made.partition is not None
        return made

    async def fold_all(self, held: Holding) -> None:
        """Fold the source to its end, until nothing more is appended to it."""
        assert held.partition is not None
        while True:
            start = held.partition.next_offset
            async for records in read_range(self.settings.bootstrap, held.place.source, 0, start, 1 << 60):
                await held.fold(records)
            await held.checkpoint()
            await self.outputs.barrier()
            if held.partition.next_offset == start:
                return


def bench(settings: Settings, body: Callable[[Bench], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run `body` with a bench; ends of the process are noted instead."""
    make_topics(settings, 1)
    found: list[Bench] = []

    async def run() -> None:
        writer = ChangelogWriter(settings.bootstrap)
        await writer.start()
        outputs = LegProducer(settings.bootstrap, "count", namespace=settings.namespace)
        made = Bench(settings, writer, outputs)
        found.append(made)

        def end(_reason: str, code: int = 70, error: BaseException | None = None) -> None:
            made.ended.append(code)
            raise Ended

        monkeypatch.setattr(module, "end", end)
        monkeypatch.setattr(landing, "end", end)
        try:
            await asyncio.wait_for(body(made), 60)
        finally:
            for one in made.held:
                if one.state != "closed" and not made.ended:
                    await one.release()
                elif one._rocks is not None:
                    one._rocks.close()
            await outputs.stop()
            await writer.stop()

    asyncio.run(run())
    return found[0]


def check(held: Holding, made: list[Event]) -> None:
    assert held.partition is not None
    said = tables(held.partition)
    for name, value in expected(made)["0"].items():
        wanted = {k: tuple(v) for k, v in value.items()} if name == "sums" else value
        assert said[name] == wanted, name


def test_what_is_folded_is_there_after_every_kind_of_restart(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken over by the same node, by another one, and after the folder is lost: the tables are the same."""
    made = events(1500, seed=3, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened()
        await on.fold_all(held)
        check(held, made)
        first = tables(held.partition)  # type: ignore[arg-type]
        await held.release()
        assert held.state == "closed"
        for node, lost in (("one", False), ("two", False), ("one", True), ("two", True)):
            if lost:
                shutil.rmtree(settings.home / node)
            again = await on.opened(node)
            assert tables(again.partition) == first  # type: ignore[arg-type]
            await again.release()

    on = bench(settings, body, monkeypatch)
    assert on.ended == []
    assert on.landed == sorted(on.landed)


def test_each_first_is_echoed_and_each_owed_record_is_appended_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs are in the log when the checkpoint is; first records come back with their stamp and their own bytes."""
    made = events(400, seed=4, partitions=1, repeats=0.3)

    async def body(on: Bench) -> None:
        send(settings, made)
        await on.fold_all(await on.opened())

    bench(settings, body, monkeypatch)
    firsts: dict[bytes, bytes] = {}
    owed = set()
    for _, key, value in made:
        if firsts.setdefault(key, value) != value:
            owed.add(key)
    assert {key for _, _, key, _ in read_topic(settings, "echoes", 1)} == set(firsts)
    again = read_topic(settings, "numbers", 1)[len(made) :]
    assert {key for _, _, key, _ in again} == owed
    assert all(value == firsts[key] for _, _, key, value in again)


def test_a_checkpoint_is_one_batch_with_its_mark_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`seen` takes one record a checkpoint, however many events it holds."""
    made = events(500, seed=5, partitions=1, repeats=0)

    async def body(on: Bench) -> None:
        send(settings, made)
        await on.fold_all(await on.opened())

    bench(settings, body, monkeypatch)
    keys = [key for _, _, key, _ in read_topic(settings, SPEC.changelog, 1)]
    assert keys[:2] == [b"\x00own", b"\x00mark"]
    assert sum(1 for key in keys if key[0] == 1) == sum(1 for key in keys if key == b"\x00mark")
    assert not [key for key in keys if key[0] in (4, 5)], "facts and copies have no changelog"


def test_who_is_overtaken_writes_nothing_more(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that was stopped while another took the partition finds the other's `own` and ends with 75."""
    made = events(300, seed=6, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        zombie = await on.opened("one")
        other = await on.opened("two")
        await on.fold_all(other)
        async for records in read_range(settings.bootstrap, zombie.place.source, 0, 0, 100):
            await zombie.fold(records)
        await zombie.checkpoint()
        assert on.ended == [75]
        assert zombie._rocks is not None
        assert zombie._rocks.get(b"\x00mark") is None
        on.ended.clear()
        await other.release()
        last = await on.opened("three")
        check(last, made)

    bench(settings, body, monkeypatch)


def test_late_bytes_are_covered_by_the_owner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead owner's batch that lands in the middle changes nothing, live or restored from the changelog alone."""
    made = events(300, seed=7, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        first = await on.opened("one")
        await first.release()
        held = await on.opened("two")
        await on.fold_all(held)
        epoch = 0  # the first owner's
        late = [mark_row(epoch, 5), sums(b"g01", 2, epoch), dump_row(b"\x02", b"g02", None, epoch)]
        await on.writer.append(held.place.changelog, 0, late)
        send(settings, [(0, b"one more", b"g03:1")])
        await on.fold_all(held)
        check(held, [*made, (0, b"one more", b"g03:1")])
        await held.release()
        check(await on.opened("three"), [*made, (0, b"one more", b"g03:1")])

    assert bench(settings, body, monkeypatch).ended == []


def test_late_bytes_before_an_own_are_covered_when_restored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late bytes that nobody met are found by the next owner, and written over before the partition opens."""
    made = events(300, seed=8, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        await (await on.opened("one")).release()
        held = await on.opened("two")
        await on.fold_all(held)
        await held.release()
        await on.writer.append(held.place.changelog, 0, [mark_row(0, 5), sums(b"g01", 2, 0)])
        check(await on.opened("three"), made)

    bench(settings, body, monkeypatch)
    keys = [key for _, _, key, _ in read_topic(settings, SPEC.changelog, 1)]
    assert [key for key in keys if key != b"\x00try"][-2:] == [b"\x00mark", b"\x02g01"]


def test_an_idle_owner_writes_an_empty_batch(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything to do the owner still writes its mark now and then, which finds late bytes."""

    async def body(on: Bench) -> None:
        await on.opened(idle_s=0.1)
        await asyncio.sleep(1.0)

    bench(settings, body, monkeypatch)
    keys = [key for _, _, key, _ in read_topic(settings, SPEC.changelog, 1)]
    assert 3 <= keys.count(b"\x00mark") <= 12


def test_a_checkpoint_comes_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is folded lands within about `checkpoint_ms`, without anybody asking."""
    made = events(50, seed=9, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened(checkpoint_ms=100)
        async for records in read_range(settings.bootstrap, held.place.source, 0, 0, 1 << 60):
            await held.fold(records)
        await asyncio.sleep(1.0)
        assert on.landed
        assert on.landed[0] >= 50

    bench(settings, body, monkeypatch)


def test_changes_stay_under_the_bound(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding waits for the checkpoint in flight once as much has changed as one may hold."""
    made = events(3000, seed=10, partitions=1)
    sizes: list[int] = []

    async def body(on: Bench) -> None:
        send(settings, made)
        held = on.holding()
        held.place = replace(held.place, checkpoint_bytes=20_000)
        await held.take_over()
        await held.open()
        at = held.partition
        assert at is not None
        real = held._fold_slice

        async def measured(part: Any, records: Any) -> bool:
            done = await real(part, records)
            sizes.append(at.size)
            return done

        monkeypatch.setattr(held, "_fold_slice", measured)
        await on.fold_all(held)
        check(held, made)

    bench(settings, body, monkeypatch)
    assert max(sizes) < 20_000 + 400 * module.SLICE_MAX


def test_a_restore_that_was_cut_off_derives_everything_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived rows follow from changed rows; who does not know which changed derives all."""
    made = events(600, seed=11, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made[:300])
        held = await on.opened("one")
        await on.fold_all(held)
        await held.release()
        send(settings, made[300:])
        other = await on.opened("two")
        await on.fold_all(other)
        await other.release()
        cut = on.holding("one")  # applies the changelog, and is killed before it derives
        await cut.take_over()
        assert cut.restore is not None
        async for records in read_range(settings.bootstrap, cut.place.changelog, 0, 0, 1 << 60):
            cut.restore.apply(records)
        assert cut.restore.done
        cut._rocks.close()  # type: ignore[union-attr]
        cut.state = "closed"
        check(await on.opened("one"), made)

    bench(settings, body, monkeypatch)


def test_a_source_made_anew_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """State of another source topic, or ahead of its log, is never gone on with."""
    made = events(50, seed=12, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened()
        await on.fold_all(held)
        await held.release()
        on.stamp = replace(STAMP, source_topic="anew")
        other = on.holding("two")
        await other.take_over()
        with pytest.raises(StoreError, match="made anew"):
            await other.open()
        on.stamp = STAMP
        third = on.holding("three")
        await third.take_over()
        with pytest.raises(StoreError, match="was cut"):
            await third.open(Bounds(source_end=10))

    bench(settings, body, monkeypatch)


def test_records_already_absorbed_are_passed_over(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that begins before X+1 is folded from X+1 on."""
    made = events(200, seed=13, partitions=1, repeats=0)

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened()
        async for records in read_range(settings.bootstrap, held.place.source, 0, 0, len(made)):
            await held.fold(records[:100])
            assert await held.fold(records) == len(records)
            assert await held.fold(records) == len(records)
        check(held, made)

    bench(settings, body, monkeypatch)


def test_a_folder_of_the_past_is_brought_up_to_date(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old copy of the state folder is restored from its own position on."""
    made = events(600, seed=14, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made[:300])
        held = await on.opened()
        await on.fold_all(held)
        await held.release()
        old: Path = settings.home / "old"
        shutil.copytree(settings.home / "one", old)
        send(settings, made[300:])
        held = await on.opened()
        await on.fold_all(held)
        await held.release()
        shutil.rmtree(settings.home / "one")
        old.rename(settings.home / "one")
        check(await on.opened(), made)

    bench(settings, body, monkeypatch)


def test_who_is_given_a_partition_in_order_is_asked_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits in the log: the owner before has written all that it had folded.  After one that was killed only
    when it is as far as that one can have been."""
    made = events(900, seed=71, partitions=1)
    bounds = Bounds(source_start=0, source_end=900, changelog_start=0)

    async def body(on: Bench) -> None:
        async def some(held: Holding, start: int, stop: int) -> None:
            async for records in read_range(settings.bootstrap, held.place.source, 0, start, stop):
                await held.fold(records)

        send(settings, made)
        first = await on.opened("one")
        await some(first, 0, 300)
        await first.release()
        second = on.holding("two")
        await second.take_over()
        await second.open(bounds)
        assert second.partition is not None and second.partition.next_offset == 300 and second.answers
        await some(second, 300, 500)
        second.state = "closed"  # killed: what it has folded is not written
        third = on.holding("three")
        await third.take_over()
        await third.open(bounds)
        assert third.partition is not None and third.partition.next_offset == 300 and not third.answers
        await on.fold_all(third)
        assert third.answers
        check(third, made)

    assert bench(settings, body, monkeypatch).ended == []


def test_ranges_to_fetch_are_joined_over_small_gaps() -> None:
    """Owed records that lie near each other are fetched in one go."""
    assert runs([], gap_max=5) == []
    assert runs([1, 2, 8, 30], gap_max=5) == [(1, 9), (30, 31)]
