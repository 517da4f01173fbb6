"""The leg `achieve` without a broker: whatever happens to it, `milestones` ends with what a walk over the log says."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from milepost.agents import achieve
from milepost.agents.achieve import Achieving, told_by
from milepost.agents.milestone_log import MilestoneLog
from milepost.schemas.keys import leaf_partition
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Unavailable
from milepost.topology.recognitions import Told, load, mark
from milepost.topology.state import Output
from milepost.topology.steps import Got, Part, run
from tests.support.small import FILES, HOUR, ORG, SECRET, T0
from tests.topology.test_recognition import LAST, engine, recognised
from tests.topology.test_standings import NOW, history, text

PARTITIONS = 3
DONE = LAST - 1
"""What is decided at the last tick's time is not sure: the bucket end before it is the last."""


class Killed(Exception):
    """The process ended here."""


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Topic:
    """`milestones`, and a producer to it that ends after so many calls."""

    logs: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    calls: int = 0
    dies_at: int | None = None

    def _call(self) -> None:
        self.calls += 1
        if self.dies_at is not None and self.calls >= self.dies_at:
            raise Killed

    async def send(self, outputs: Iterable[Output]) -> None:
        for one in outputs:
            assert one.topic == "milestones"
            log = self.logs[one.partition]
            log.append(Record(len(log), one.key, one.value))
        self._call()

    async def barrier(self) -> None:
        self._call()

    async def chunks(self, partition: int, start: int = 0, stop: int = 2**62) -> AsyncIterator[list[Record]]:
        kept = [one for one in self.logs[partition] if start <= one.offset < stop]
        for at in range(0, len(kept), 3):
            yield kept[at : at + 3]

    def compact(self) -> None:
        for log in self.logs.values():
            last = {one.key: one for one in log}
            log[:] = sorted(last.values(), key=lambda one: one.offset)

    @property
    def said(self) -> dict[bytes, set[bytes]]:
        """Key -> its contents, of recognitions."""
        found: dict[bytes, set[bytes]] = defaultdict(set)
        for log in self.logs.values():
            for one in log:
                if not isinstance(load(one.value or b""), int):
                    found[one.key or b""].add(one.value or b"")
        return found

    @property
    def marks(self) -> dict[int, int]:
        found = {}
        for number, log in self.logs.items():
            for one in log:
                if isinstance(value := load(one.value or b""), int):
                    found[number] = value
        return found


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(achieve, "REST_S_MAX", 0.0)
    monkeypatch.setattr(achieve, "WAIT_S_MAX", 0.0)


def leg(
    made: Driver,
    topic: Topic,
    mine: Callable[[], set[int]] = lambda: set(range(PARTITIONS)),
    before: Callable[[Sequence[Part]], None] = lambda parts: None,
    sure: bool = True,
) -> Achieving:
    async def read(parts: Sequence[Part]) -> list[Got]:
        before(parts)
        await asyncio.sleep(0)
        return [Got(0, run(part.read(made.reader))) for part in parts]

    async def told(number: int) -> Told:
        return await told_by(lambda: topic.chunks(number))

    async def is_sure() -> bool:
        return sure

    return Achieving(made.reader, read, lambda: topic, mine, told, is_sure)


def walked(made: Driver, until: int = DONE) -> dict[bytes, set[bytes]]:
    return {one.key: {one.value or b""} for one in (each.output(PARTITIONS) for each in recognised(made, [until]))}


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_a_walk_says_in_the_partition_of_the_root(seed: int) -> None:
    """Each record once, where the company's root lies, and behind them a mark of the last bucket end that is sure."""
    made, topic = engine(history(seed)), Topic()
    asyncio.run(leg(made, topic).turn())
    assert topic.said == walked(made)
    assert topic.marks == dict.fromkeys(range(PARTITIONS), DONE)
    for number, log in topic.logs.items():
        said = [one for one in (load(record.value or b"") for record in log) if not isinstance(one, int)]
        assert all(leaf_partition(one.subject.company, PARTITIONS) == number for one in said)


def test_killed_anywhere_it_goes_on_and_nothing_is_missing() -> None:
    """After each acknowledgement and between them: whoever goes on says the rest, and never other bytes under a key."""
    made = engine(history(4))
    whole = Topic()
    asyncio.run(leg(made, whole).turn())
    wanted, calls = whole.said, whole.calls
    assert calls > 10
    chance = random.Random(7)
    for dies_at in chance.sample(range(1, calls), 6):
        topic = Topic(dies_at=dies_at)
        with pytest.raises(Killed):
            asyncio.run(leg(made, topic).turn())
        if dies_at % 2:
            topic.compact()
        topic.dies_at = None
        asyncio.run(leg(made, topic).turn())
        assert topic.said == wanted, dies_at
        assert topic.marks == whole.marks


def test_two_owners_at_once_say_the_same_bytes() -> None:
    """A worker that does not know yet that it has lost its partitions does no harm."""
    made, topic = engine(history(5)), Topic()

    async def both() -> None:
        await asyncio.gather(leg(made, topic).turn(), leg(made, topic).turn())

    asyncio.run(both())
    assert topic.said == walked(made)
    assert sum(len(log) for log in topic.logs.values()) > len(topic.said) + PARTITIONS


def test_it_waits_where_a_question_has_no_answer() -> None:
    """A partition that is handed over now and then delays what is said and changes nothing of it."""
    made, topic, chance = engine(history(6)), Topic(), random.Random(6)
    refused: list[Sequence[Part]] = []

    def before(parts: Sequence[Part]) -> None:
        if len(refused) < 8 and chance.random() < 0.02 and type(parts[0]).__name__ != "Told":
            refused.append(parts)
            raise Unavailable("measure", 0, "being handed over")

    asyncio.run(leg(made, topic, before=before).turn())
    assert len(refused) == 8 and topic.said == walked(made)


def test_a_partition_that_is_lost_is_left_and_the_next_goes_on() -> None:
    """What was said of it without a mark is said again by its next owner."""
    made, topic = engine(history(8)), Topic()
    mine, asked = set(range(PARTITIONS)), [0]

    def before(parts: Sequence[Part]) -> None:
        asked[0] += 1
        if asked[0] == 400:
            mine.clear()

    with pytest.raises(achieve.Lost):
        asyncio.run(leg(made, topic, mine=lambda: set(mine), before=before).turn())
    assert topic.said != walked(made)
    asyncio.run(leg(made, topic).turn())
    assert topic.said == walked(made)


def test_it_goes_on_as_the_ticks_do() -> None:
    """Nothing is said before the ticks of all raw partitions have passed, and each bucket end is said once."""
    sent = sorted(history(9), key=lambda one: one[1])
    made, topic = Driver(SECRET, partitions=PARTITIONS), Topic()
    made.apply(ORG, text(), T0 - HOUR)
    here = leg(made, topic)
    asyncio.run(here.turn())
    assert not any(topic.logs.values())
    ticks = range(T0, NOW + 1, HOUR)
    for now in ticks:
        for event, k_ms in sent:
            if now - HOUR <= k_ms < now:
                made.produce(event, now, known_ms=k_ms)
        made.run()
        made.tick(now)
        made.run()
        asyncio.run(here.turn())
        assert set(topic.marks.values()) == {now // PANE_MS - 1}
        assert here.status() == {str(number): here.status()["0"] for number in range(PARTITIONS)}
    assert topic.said == walked(made, NOW // PANE_MS - 1)


def test_what_is_not_sure_is_not_said() -> None:
    """A bucket end that the ticks have passed waits until everything before it is decided here, too."""
    made, topic = engine(history(1)), Topic()
    asyncio.run(leg(made, topic, sure=False).turn())
    assert not any(topic.logs.values())


def test_without_plans_it_does_nothing() -> None:
    """Where nobody has agreed on anything, nothing is read and nothing said."""
    made, topic = Driver(SECRET, partitions=PARTITIONS), Topic()
    made.apply(ORG, FILES, T0 - HOUR)
    made.tick(NOW)
    made.run()
    here = leg(made, topic)
    asyncio.run(here.turn())
    assert not any(topic.logs.values()) and not here.told


def test_what_was_said_is_what_the_log_holds_up_to_its_mark() -> None:
    """Records behind the mark were not finished: they are said again.  Foreign bytes are passed over."""
    made, topic = engine(history(2)), Topic()
    asyncio.run(leg(made, topic).turn())
    values = sorted(next(iter(one)) for one in topic.said.values())
    told = [one for one in map(load, values) if not isinstance(one, int)]
    middle = sorted(one.k for one in told)[len(told) // 2]
    cut = Topic()
    for one in told:
        asyncio.run(cut.send([one.output(1)]))
    assert asyncio.run(told_by(lambda: cut.chunks(0))).said == {}
    cut.logs[0].append(Record(10**6, b"?", b"no record of ours"))
    asyncio.run(cut.send([mark(0, middle)]))
    found = asyncio.run(told_by(lambda: cut.chunks(0)))
    expected = Told(k=middle)
    for one in sorted(told, key=lambda one: one.k):
        if one.k <= middle:
            expected.add(one)
    assert found == expected and len(found.said) > 0


def test_the_log_is_read_once_and_then_what_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions about companies read what is new; beyond its bound the memory begins anew, and says the same."""
    made, topic = engine(history(2)), Topic()
    asyncio.run(leg(made, topic).turn())
    read: list[tuple[int, int, int]] = []

    def chunks(partition: int, start: int, stop: int) -> Any:
        read.append((partition, start, stop))
        return topic.chunks(partition, start, stop)

    async def ends(numbers: Iterable[int]) -> dict[int, int]:
        return {number: len(topic.logs[number]) for number in numbers}

    told = [one for one in (load(next(iter(each))) for each in topic.said.values()) if not isinstance(one, int)]
    companies = {one.subject.company for one in told}

    monkeypatch.setattr("milepost.agents.milestone_log.FRESH_S", 0.0)

    async def asked() -> None:
        log = MilestoneLog(PARTITIONS, chunks, ends)
        first = await log.of(companies)
        assert first == sorted(told, key=lambda one: (one.k, one.subject))
        before = len(read)
        assert await log.of(companies) == first
        assert all(start == stop for _, start, stop in read[before:])
        monkeypatch.setattr("milepost.agents.milestone_log.RECORDS_MAX", 0)
        assert await log.of(companies) == first == await log.of(companies)
        assert read[-1][1] == 0

    asyncio.run(asked())
