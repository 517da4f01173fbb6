"""Editions: a rule edited twice in the middle of the stream.  Each event is judged by the version in force at its first
position, also when it comes again, was sent to the wrong partition, or the log is folded anew."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from milepost.schemas.keys import raw_place
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, Message, land
from milepost.topology.questions import Question, Questions
from milepost.topology.steps import run
from tests.oracle.keys import RawRecord
from tests.oracle.oracle import Oracle
from tests.support.invariants import held, same_answers, same_counts
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + DAY
LONG = (30, 45, 60)
"""What each edition calls a long visit, minutes."""
EDITIONS = [
    {**FILES, "milepost.yaml": FILES["milepost.yaml"].replace(b"> 30.0", b"> %d.0" % minutes)} for minutes in LONG
]
VERSIONS = [load_bundle(files).rules["long_visit"].version for files in EDITIONS]
SEEDS = range(8)


@dataclass
class Told:
    """A stream with two edits in it.

    edition: event id -> the edition in force where it first came in
    minutes: event id -> how long the visit was
    """

    driver: Driver
    applied: list[tuple[int, bytes]] = field(default_factory=list)
    edition: dict[str, int] = field(default_factory=dict)
    minutes: dict[str, int] = field(default_factory=dict)
    moments: list[int] = field(default_factory=list)

    @property
    def wanted(self) -> dict[str, set[tuple[str, bytes]]]:
        """Event id -> its signals and their rules' versions, by what is known of the events alone."""
        visited = load_bundle(FILES).rules["visited"].version
        return {
            id: {("visited", visited)} | ({("long_visit", VERSIONS[at])} if self.minutes[id] > LONG[at] else set())
            for id, at in self.edition.items()
        }


def told(seed: int, partitions: int = 3, chunk: int = 7) -> Told:
    """Forty things an edition: events, repeats of events of any edition, events in the wrong partition, restarts."""
    chance = random.Random(seed)
    made = Told(Driver(SECRET, partitions=partitions, chunk=chunk, seed=seed))
    driver, now = made.driver, NOW
    events: dict[str, dict[str, Any]] = {}
    settled: list[str] = []
    for number, files in enumerate(EDITIONS):
        made.applied.append((now, driver.apply(ORG, files, now)))
        for _ in range(40):
            now += chance.choice((1_000, 60_000, 45 * 60_000))
            what = chance.random()
            if what < 0.3 and settled:
                driver.produce(events[chance.choice(settled)], now)
                continue
            id = f"e{len(events)}"
            event = visit(
                id, now - chance.choice((0, HOUR, 2 * DAY)), f"c{chance.randrange(4)}", minutes=chance.choice((20, 35, 50, 70))
            )  # fmt: skip
            events[id], made.edition[id], made.minutes[id] = event, number, event["data"]["minutes"]
            if what < 0.5 and partitions > 1:
                key, place = raw_place(ORG, "app", id, 0, 0, partitions)
                driver.append("raw-events", (place + 1) % partitions, key, orjson.dumps(event), (), now)
            else:
                driver.produce(event, now)
                settled.append(id)
            if chance.random() < 0.1:
                driver.run()
                settled = list(events)
                restart(driver)
        made.moments.append(now)
    driver.run()
    made.moments.append(now + HOUR)
    return made


def restart(driver: Driver) -> None:
    """What a worker knows beyond its tables and its marks is gone."""
    for (name, _), at in driver.state.items():
        at.mark = driver.legs[name].load_mark(driver.legs[name].dump_mark(at.mark))


def judged(driver: Driver) -> dict[str, set[tuple[str, bytes]]]:
    """Event id -> its signals in the log, with their rules' versions."""
    found: dict[str, set[tuple[str, bytes]]] = {}
    for log in driver.topics["signals"]:
        for message in log:
            if message.value and message.value[:HEADER_BYTES] == wire("Signals").header:
                one = wire("Signals").decode(message.value)
                found.setdefault(one["id"], set()).update((each["rule"], each["version"]) for each in one["signals"])
    return found


def answers(driver: Driver, made: Told) -> dict[str, Any]:
    questions, found = Questions(driver.reader), {}
    for metric in ("visits", "long_visits", "long_rate", "minutes_sum"):
        for company in (None, *(f"crm_id:c{n}" for n in range(4))):
            for basis, at in asked(made):
                question = Question(metric=metric, now_ms=made.moments[-1], company=company, at_ms=at, basis=basis)
                answer = run(questions.value(question))
                found[f"{metric} {company} {basis} {at}"] = (answer["value"], answer["reason"])
    return found


def asked(made: Told) -> list[tuple[str, int | None]]:
    return [("latest", None), *((basis, at) for basis in ("corrected", "as_shown") for at in made.moments)]


@pytest.mark.parametrize("partitions", [3, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_each_event_is_judged_by_the_version_at_its_first_position(seed: int, partitions: int) -> None:
    """Whatever comes again, is forwarded behind an edit, or is folded after a restart: one verdict, the first."""
    made = told(seed, partitions)
    assert set(made.edition.values()) == {0, 1, 2}
    assert judged(made.driver) == made.wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answers_are_the_oracles(seed: int) -> None:
    """Over the same raw log a plain batch program, which judges by position, gives the same numbers at every time."""
    made = told(seed)
    oracle = Oracle(
        SECRET, 3, {one: files for (_, one), files in zip(made.applied, EDITIONS, strict=True)}, {ORG: made.applied}
    )
    log = [
        [
            RawRecord(
                partition=number,
                offset=one.offset,
                timestamp_ms=one.timestamp,
                key=one.key,
                value=one.value,
                headers=one.headers,
            )
            for one in records
        ]
        for number, records in enumerate(made.driver.topics["raw-events"])
    ]
    oracle.read(log)
    expected: dict[str, Any] = {}
    for name in answers(made.driver, made):
        metric, company, basis, at = name.split(" ")
        answer = oracle.value(
            metric,
            None if company == "None" else company,
            at=None if at == "None" else int(at),
            basis=basis,
            now=made.moments[-1],
            org=ORG,
        )
        expected[name] = (answer.value, answer.reason)
    held(
        same_answers(expected, answers(made.driver, made)),
        same_counts(oracle.counts, made.driver.fates["ingest"], ("accepted", "signal", "rule_declined", "marker")),
    )


def cleaned(log: list[Message]) -> list[Message]:
    """What compaction leaves: the last record of each key, at its offset."""
    last = {message.key: message.offset for message in log}
    return [message for message in log if last[message.key] == message.offset]


def replayed(made: Driver, chunk: int) -> Driver:
    """An empty engine over the cleaned log.  What it forwards lies in the log already, as the copies of the first time."""
    fresh = Driver(SECRET, partitions=made.partitions, chunk=chunk)
    fresh.topics["definitions"] = made.topics["definitions"]
    fresh.follow()
    leg = fresh.legs["ingest"]
    for number in range(made.partitions):
        log, at = cleaned(made.topics["raw-events"][number]), fresh.state["ingest", number]
        leg.announce(at, log)
        for start in range(0, len(log), chunk):
            for output in leg.fold(at, log[start : start + chunk]).before:
                if output.topic != "raw-events":
                    fresh.append(output.topic, output.partition, output.key, output.value, output.headers)
            for store in at.stores.values():
                land(store)
    fresh.follow()
    fresh.run()
    return fresh


@pytest.mark.parametrize("chunk", [1, 500])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_replay_of_the_cleaned_log_judges_alike(seed: int, chunk: int) -> None:
    """The cleaner has moved first records behind both edits; an empty engine still judges each by its own version."""
    made = told(seed)
    moved = [
        message
        for log in made.driver.topics["raw-events"]
        for message in cleaned(log)
        if message.headers and message.key is not None and not message.key.startswith((b"marker", b"tick"))
    ]
    assert moved, "nothing was moved: the test shows nothing"
    fresh = replayed(made.driver, chunk)
    assert judged(fresh) == made.wanted
    assert digest(fresh.reader) == digest(made.driver.reader)
    assert answers(fresh, made) == answers(made.driver, made)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_event_keeps_its_verdict_through_repeats_a_replay_and_a_restart(seed: int) -> None:
    """A rule edited twice in the middle of the stream: each event judged by the version its log position says, also
    after repeats of all of them behind both edits, a replay of the log into an empty engine, and a restart."""
    made = told(seed)
    before, moment = answers(made.driver, made), made.moments[-1]
    firsts = {
        message.key: message.value
        for log in made.driver.topics["raw-events"]
        for message in reversed(log)
        if message.value is not None and message.value[:1] == b"{"
    }
    chance = random.Random(seed)
    again = [orjson.loads(value) for value in firsts.values()]
    assert {one["id"] for one in again} == set(made.edition)
    for event in chance.sample(again, len(again)):
        made.driver.produce(event, moment)
        if chance.random() < 0.1:
            made.driver.run()
            restart(made.driver)
    made.driver.run()
    fresh = Driver(SECRET, partitions=3, chunk=5, seed=seed)
    fresh.topics["definitions"] = made.driver.topics["definitions"]
    fresh.topics["raw-events"] = [list(log) for log in made.driver.topics["raw-events"]]
    fresh.follow()
    for turn in range(40):
        for name, number in list(fresh.state):
            fresh.step(name, number)
        if turn % 8 == 7:
            restart(fresh)
    fresh.run()
    for engine in (made.driver, fresh, replayed(made.driver, 7)):
        assert judged(engine) == made.wanted
        assert answers(engine, made) == before


class Newest(dict[bytes, Catalog]):
    """Positive control: whichever bundle is asked for, the one that was applied last comes."""

    def get(self, bundle: bytes, default: Any = None) -> Any:
        return list(self.values())[-1] if bundle in self else default


def test_an_engine_that_judges_by_the_newest_version_is_caught() -> None:
    """Positive control: judged by what holds when a record is folded, events differ in most streams."""
    wrong = 0
    for seed in SEEDS:
        made = told(seed)
        fresh = Driver(SECRET, partitions=3, chunk=7)
        fresh.topics["definitions"] = made.driver.topics["definitions"]
        fresh.topics["raw-events"] = [list(log) for log in made.driver.topics["raw-events"]]
        fresh.decisions.catalogs = Newest()
        fresh.follow()
        fresh.run()
        wrong += judged(fresh) != made.wanted
    assert wrong == len(SEEDS)


def test_the_same_engine_over_the_whole_log_is_not() -> None:
    """The control's way of folding the whole log anew is right with the engine as it is."""
    made = told(1)
    fresh = Driver(SECRET, partitions=3, chunk=7)
    fresh.topics["definitions"] = made.driver.topics["definitions"]
    fresh.topics["raw-events"] = [list(log) for log in made.driver.topics["raw-events"]]
    fresh.follow()
    fresh.run()
    assert judged(fresh) == made.wanted


def unchanged(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in one if one[name].version == other[name].version}


def test_what_an_edit_does_not_touch_keeps_its_version_and_its_cells() -> None:
    """visits and its cells know nothing of the edits; long_visits has cells of three versions."""
    catalogs = [load_bundle(files) for files in EDITIONS]
    assert unchanged(catalogs[0].rules, catalogs[2].rules) == {"visited"}
    assert unchanged(catalogs[0].metrics, catalogs[2].metrics) == set(catalogs[0].metrics) - {
        "long_visits",
        "long_rate",
    }
    made = told(3)
    now = made.moments[-1]
    question = Question(metric="visits", now_ms=now)
    assert run(Questions(made.driver.reader).value(question))["value"] == len(made.edition)
    newest = sum(1 for id, at in made.edition.items() if at == 2 and made.minutes[id] > LONG[2])
    question = Question(metric="long_visits", now_ms=now)
    assert run(Questions(made.driver.reader).value(question))["value"] == newest
