"""The leg `achieve` without a broker: whatever happens to it, `milestones` ends with what a walk over the log says."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from milepost.agents import achieve
from milepost.agents.achieve import Achieving, told_by
from milepost.agents.milestone_log import MilestoneLog
from milepost.schemas import stamps
from milepost.schemas.keys import from_metakey, leaf_partition
from milepost.schemas.stamps import Stamp
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Unavailable
from milepost.topology.recognitions import Mark, Recognition, Told, load
from milepost.topology.standings import Asks, Standings
from milepost.topology.state import Output
from milepost.topology.steps import Got, Part, run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit
from tests.topology.test_recognition import LAST, days, decided, engine, lines, oracle_lines, plan, recognised
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
                if isinstance(load(one.value or b""), Recognition):
                    found[one.key or b""].add(one.value or b"")
        return found

    @property
    def marks(self) -> dict[int, int]:
        found = {}
        for number, log in self.logs.items():
            for one in log:
                if isinstance(value := load(one.value or b""), Mark):
                    found[number] = value.k
        return found


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(achieve, "REST_S_MAX", 0.0)
    monkeypatch.setattr(achieve, "WAIT_S_MAX", 0.0)
    monkeypatch.setattr(achieve, "LOOK_S", 0.0)
    monkeypatch.setattr(achieve, "MORE_S_MAX", 1e9)


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

    async def told(number: int, k: int | None) -> Told:
        return await told_by(lambda: topic.chunks(number), k)

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
        said = [one for one in (load(record.value or b"") for record in log) if isinstance(one, Recognition)]
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
    told = [one for one in map(load, values) if isinstance(one, Recognition)]
    middle = sorted(one.k for one in told)[len(told) // 2]
    cut = Topic()
    for one in told:
        asyncio.run(cut.send([one.output(1)]))
    assert asyncio.run(told_by(lambda: cut.chunks(0))).said == {}
    marked = Mark(k=middle, until=middle)
    cut.logs[0].append(Record(10**6, b"?", b"no record of ours"))
    asyncio.run(cut.send([marked.output(0)]))
    found = asyncio.run(told_by(lambda: cut.chunks(0)))
    expected = Told(mark=marked)
    for one in sorted(told, key=lambda one: one.k):
        expected.add(one)
    assert found == expected and len(found.said) > 0
    assert found.loose == {one.key: one for one in told if one.k > middle}


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

    told = [one for one in (load(next(iter(each))) for each in topic.said.values()) if isinstance(one, Recognition)]
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


def late(made: Driver, sent: Sequence[tuple[dict[str, Any], int]], now: int = NOW) -> None:
    """Backdated events come when the ticks have passed their times, and then a tick."""
    for event, k_ms in sent:
        made.produce(event, now, known_ms=k_ms)
    made.tick(now)
    made.run()


def alive(
    topic: Topic, said: Callable[[Recognition], bool] = lambda one: one.withdrawn is None
) -> dict[bytes, Recognition]:
    """Key -> the last record under it."""
    last = {one.key: load(one.value or b"") for log in topic.logs.values() for one in log}
    return {key or b"": one for key, one in last.items() if isinstance(one, Recognition) and said(one)}


def turns(made: Driver, topic: Topic) -> None:
    """A worker that sees that no more comes."""
    here = leg(made, topic)
    for _ in range(2):
        asyncio.run(here.turn())


def same(topic: Topic, made: Driver, until: int = DONE) -> None:
    """What holds in the topic is what a walk over the whole log says."""
    wanted = {one.key: one for one in recognised(made, [until])}
    held = alive(topic)
    assert held.keys() == wanted.keys()
    assert all(one.holds_as(wanted[key]) for key, one in held.items())


@pytest.mark.parametrize("seed", range(2))
def test_what_is_backdated_opens_what_was_said_again(seed: int) -> None:
    """After a part of a history came too late the topic holds what a walk over all of it says; what is told otherwise
    than it was is marked, and nothing else."""
    chance = random.Random(seed)
    sent = history(seed + 20)
    chance.shuffle(sent)
    cut = len(sent) // (seed + 2)
    made, topic = engine(sent[:cut]), Topic()
    turns(made, topic)
    before = alive(topic)
    same(topic, made)
    late(made, sent[cut:])
    turns(made, topic)
    same(topic, made)
    for key, one in alive(topic).items():
        assert one.backdated == (key not in before or not before[key].holds_as(one))
    gone = alive(topic, lambda one: one.withdrawn is not None)
    assert gone.keys() == before.keys() - alive(topic).keys()
    for key, one in gone.items():
        assert replace(one, withdrawn=None) == before[key]
    assert gone or any(one.backdated for one in alive(topic).values())
    length = {number: len(log) for number, log in topic.logs.items()}
    turns(made, topic)
    assert length == {number: len(log) for number, log in topic.logs.items()}


@pytest.mark.parametrize("name", ["some", "quiet", "kept"])
def test_what_holds_after_backdating_is_what_the_oracle_walks_and_as_shown_answers(name: str) -> None:
    """At every bucket end the topic says what the oracle says of the whole log, and what an answer as shown then says."""
    sent = history(26)
    random.Random(3).shuffle(sent)
    made, topic = engine(sent[: len(sent) // 3]), Topic()
    turns(made, topic)
    late(made, sent[len(sent) // 3 :])
    turns(made, topic)
    held = sorted(alive(topic).values(), key=lambda one: one.k)
    assert lines(held, name) == oracle_lines(made, name, DONE)
    for at in range(T0 // PANE_MS + 8, DONE, 7):
        asks = Asks(now_ms=NOW, at_ms=at * PANE_MS, basis="as_shown", milestone=name)
        for row in run(Standings(made.reader).states(asks))["milestones"]:
            of = [one for one in held if one.k <= at and one.subject.milestone == name]
            said = [one.now.state for one in of if one.subject.company == from_metakey(row["company"])]
            assert row["state"] == (said[-1] if said else "pending")


END = T0 + 12 * DAY
VISITS = [*days(0.5, 1, 4), *days(0.6, 2, 5.5, company="c1"), *days(3, company="c2")]
"""Three companies, of which one achieves, one needs one visit more, and one misses."""
BACKDATED = [
    ({**VISITS[2][0], "revision": 1, "void": True}, T0 + int(4.2 * DAY)),
    (visit("more", T0 + 2 * DAY, "c1"), T0 + int(2.5 * DAY)),
    decided("link", 3.5, "c2", "c0"),
    decided("unlink", 6.5, "c2"),
]


def small(sent: Sequence[tuple[dict[str, Any], int]]) -> Driver:
    """An engine over the plan of `test_recognition`, whose ticks have passed twelve days."""
    made = Driver(SECRET, partitions=PARTITIONS)
    made.apply(ORG, plan(), T0 - HOUR)
    for event, k_ms in sent:
        made.produce(event, T0 - HOUR, known_ms=k_ms)
    made.tick(END)
    made.run()
    return made


def test_killed_while_it_goes_back_it_ends_with_the_same() -> None:
    """Whoever goes on finds what came behind again, wherever the other was killed; nothing is said otherwise."""
    whole: dict[bytes, Recognition] = {}
    for dies_at in (None, 1, 5, 8):
        made, topic = small(VISITS), Topic()
        turns(made, topic)
        late(made, BACKDATED, END)
        if dies_at is not None:
            topic.dies_at = topic.calls + dies_at
            with pytest.raises(Killed):
                turns(made, topic)
            topic.dies_at = None
            if dies_at % 2:
                topic.compact()
        turns(made, topic)
        same(topic, made, END // PANE_MS - 1)
        found = alive(topic, lambda one: True)
        whole = whole or found
        assert found == whole, dies_at
    causes = {one.withdrawn.cause for one in whole.values() if one.withdrawn}
    assert causes == {"late", "merge"} and any(one.backdated for one in whole.values())


def test_what_was_said_by_who_had_lost_the_partition_is_looked_at_again() -> None:
    """A worker that was stopped, and says now what something backdated has overtaken, is corrected by the next owner."""
    made, topic = small(VISITS), Topic()
    turns(made, topic)
    one = next(one for one in alive(topic).values() if one.kind == "achieved")
    stale = replace(one, k=one.k + 5, recognised_at=one.k + 5)
    asyncio.run(topic.send([stale.output(PARTITIONS)]))
    turns(made, topic)
    same(topic, made, END // PANE_MS - 1)
    assert alive(topic, lambda one: one.withdrawn is not None).keys() == {stale.key}


def test_while_more_comes_behind_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large import is not walked for again and again: it goes back once nothing more has come between two looks, or
    when it has waited long enough."""
    made, topic = small(VISITS), Topic()
    here = leg(made, topic)
    asyncio.run(here.turn())
    length = sum(map(len, topic.logs.values()))
    for one in BACKDATED:
        late(made, [one], END)
        asyncio.run(here.turn())
        assert sum(map(len, topic.logs.values())) == length
    asyncio.run(here.turn())
    assert sum(map(len, topic.logs.values())) > length
    same(topic, made, END // PANE_MS - 1)
    monkeypatch.setattr(achieve, "MORE_S_MAX", 0.0)
    late(made, [(visit("last", T0 + 3 * DAY, "c2"), T0 + int(3.2 * DAY))], END)
    asyncio.run(here.turn())
    same(topic, made, END // PANE_MS - 1)


def test_definitions_of_then_open_it_again_too() -> None:
    """A bundle that is applied with an earlier known time is a backdated decision."""
    made, topic = small(VISITS), Topic()
    turns(made, topic)
    made.apply(ORG, plan(4), END, k_ms=T0 + 2 * DAY)
    made.tick(END)
    made.run()
    turns(made, topic)
    same(topic, made, END // PANE_MS - 1)
    assert {one.withdrawn.cause for one in alive(topic, lambda one: True).values() if one.withdrawn} == {"definition"}
    assert any(one.backdated for one in alive(topic).values())


def test_nothing_is_said_before_all_raw_partitions_have_passed() -> None:
    """A raw partition that is behind may still bring what was known: K waits for its tick."""
    made, topic = Driver(SECRET, partitions=PARTITIONS), Topic()
    made.apply(ORG, text(), T0 - HOUR)
    made.tick(T0 + 10 * HOUR)
    made.run()
    here = leg(made, topic)
    asyncio.run(here.turn())
    assert set(topic.marks.values()) == {(T0 + 10 * HOUR - 1) // PANE_MS}
    for partition in (0, 2):
        header = stamps.header(made.org_keys[""], b"tick", b"", Stamp(kind=stamps.TICK))
        made.append("raw-events", partition, b"tick", b"", (header,), NOW)
    made.run()
    asyncio.run(here.turn())
    assert set(topic.marks.values()) == {(T0 + 10 * HOUR - 1) // PANE_MS}
    made.tick(NOW)
    made.run()
    asyncio.run(here.turn())
    assert set(topic.marks.values()) == {DONE}


def test_whoever_goes_on_announces_nothing_twice() -> None:
    """Of all that a row of workers say, each of whom has restored what was said, each state is announced once."""
    again = [*BACKDATED, (visit("again", T0 + 4 * DAY, "c0"), T0 + int(7.5 * DAY))]
    sent = sorted([*VISITS, *again], key=lambda one: one[1])
    made, topic = Driver(SECRET, partitions=PARTITIONS), Topic()
    made.apply(ORG, plan(), T0 - HOUR)
    for now in range(T0, END + 1, DAY):
        for event, k_ms in sent:
            if now - DAY <= k_ms < now:
                made.produce(event, now, known_ms=k_ms)
        made.tick(now)
        made.run()
        asyncio.run(leg(made, topic).turn())
    found = alive(topic).values()
    states = [(one.subject, one.now.state) for one in found if one.first]
    assert len(set(states)) == len(states) > 5
    assert set(states) == {(one.subject, one.now.state) for one in found}
    ids = [id for one in found for _, id in one.announcements]
    assert len(set(ids)) == len(ids)
    assert {one.kind for one in found} >= {"achieved", "corrected", "closed", "resumed"}
    assert all(len(contents) == 1 for contents in topic.said.values())
