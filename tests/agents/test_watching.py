"""The watch over sources: each beginning and each end of a breach is said once, as a record of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from milepost.agents.watching import Watching
from milepost.topology.breach_records import TYPES
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.state import Output
from milepost.topology.steps import Got, Part, run
from tests.support.small import FILES, ORG, SECRET, T0, visit
from tests.support.versus import oracle_over

M = 60_000
_TEXT = FILES["milepost.yaml"].replace(
    b"    volatile:", b"    expect: {freshness: 15m, volume: {per: 1h, min: 5}}\n    volatile:"
)
_RULES = b"""\
signals:
  went_stale: {on: milepost.source_stale, when: data.holds, fields: {source: data.source}}
  went_silent: {on: milepost.source_silent}
"""
_METRICS = b"""\
metrics:
  outages: {from: went_stale, aggregate: count, dimensions: [source]}
"""
BUNDLE = {
    **FILES,
    "milepost.yaml": _TEXT.replace(b"signals:\n", _RULES).replace(b"metrics:\n", _METRICS),
}


class Desk:
    """A driver, and watchers over it whose records it takes."""

    def __init__(self, partitions: int = 3) -> None:
        self.driver = Driver(SECRET, partitions=partitions, chunk=7)
        self.driver.apply(ORG, BUNDLE, T0, k_ms=T0)
        self.sure = True
        self.mine = True
        self.sent: list[dict[str, Any]] = []

    def watching(self) -> Watching:
        async def read(parts: Sequence[Part]) -> Sequence[Got]:
            return [Got(0, run(one.read(self.driver.reader))) for one in parts]

        async def send(outputs: Sequence[Output]) -> None:
            for one in outputs:
                self.sent.append(orjson.loads(one.value or b""))
                self.driver.append(one.topic, one.partition, one.key, one.value, one.headers)

        async def sure() -> bool:
            return self.sure

        return Watching(self.driver.reader, read, send, lambda: self.mine, sure)

    def visits(self, minutes: Sequence[int]) -> None:
        for minute in minutes:
            self.driver.produce(visit(f"e{minute}", T0 + minute * M), T0 + minute * M)

    def turn(self, watcher: Watching, minute: float) -> list[tuple[str, bool, int]]:
        """What a watcher says once the ticks have come to a minute: (type, whether it begins, at which minute)."""
        self.driver.tick(T0 + int(minute * M))
        self.driver.run()
        before = len(self.sent)
        asyncio.run(watcher.turn())
        self.driver.run()
        said = self.sent[before:]
        return [(one["type"], one["data"]["holds"], int(one["id"].split("/")[2]) // M - T0 // M) for one in said]


def test_a_breach_is_said_when_it_begins_and_when_it_ends() -> None:
    """Once each, as soon as the ticks have passed the moment; between them nothing is said."""
    desk = Desk()
    watcher = desk.watching()
    desk.visits(range(10))
    assert desk.turn(watcher, 10) == desk.turn(watcher, 24) == []
    assert desk.turn(watcher, 24.1) == [("milepost.source_stale", True, 24)]
    assert watcher.lasting == {(ORG, "app"): ["stale"]}
    assert desk.turn(watcher, 30) == []
    desk.visits([31])
    assert desk.turn(watcher, 32) == [("milepost.source_stale", False, 31)]
    assert watcher.lasting == {(ORG, "app"): []}


def test_whoever_takes_over_says_what_was_not_said_and_nothing_twice() -> None:
    """A second watcher looks back, finds what is in the log, and adds what the first did not come to say."""
    desk = Desk()
    first = desk.watching()
    desk.visits(range(10))
    assert len(desk.turn(first, 30)) == 1
    desk.visits([40])
    second = desk.watching()
    assert desk.turn(second, 41) == [("milepost.source_stale", False, 40)]
    assert desk.turn(first, 42) == []  # the first one is still there: its own turn finds it said
    assert desk.turn(desk.watching(), 43) == []
    ids = [one["id"] for one in desk.sent]
    assert len(ids) == len(set(ids)) == 2


def test_two_watchers_at_a_time_count_once() -> None:
    """Both may say the same record before either sees it: its id and its bytes are one, so the second is a repeat."""
    desk = Desk()
    desk.visits(range(10))
    desk.driver.tick(T0 + 30 * M)
    desk.driver.run()
    before = dict(desk.driver.fates["ingest"])
    for watcher in (desk.watching(), desk.watching()):
        asyncio.run(watcher.turn())  # nothing is folded in between
    desk.driver.run()
    assert [one["id"] for one in desk.sent] == [f"stale/begins/{T0 + 24 * M}/app"] * 2
    after = desk.driver.fates["ingest"]
    assert (after["accepted"] - before["accepted"], after["duplicate"] - before.get("duplicate", 0)) == (1, 1)
    assert not [name for name in after if name.startswith("dead")]


def test_nothing_is_said_before_it_is_sure() -> None:
    """While a copy of a misrouted record may be on its way, a breach that it would heal is not said."""
    desk = Desk()
    watcher = desk.watching()
    desk.visits(range(10))
    desk.sure = False
    assert desk.turn(watcher, 30) == []
    desk.sure = True
    assert desk.turn(watcher, 31) == [("milepost.source_stale", True, 24)]


def test_who_is_not_elected_says_nothing() -> None:
    """And forgets what lasts: its telemetry must not speak beside another's."""
    desk = Desk()
    watcher = desk.watching()
    desk.visits(range(10))
    desk.turn(watcher, 30)
    desk.mine = False
    assert desk.turn(watcher, 60) == [] and watcher.lasting == {}


def test_a_rule_makes_a_signal_of_a_breach() -> None:
    """So metrics count them: of the organisation, by source, and not of any company."""
    desk = Desk()
    watcher = desk.watching()
    desk.visits(range(10))
    desk.turn(watcher, 30)
    desk.visits([40])
    desk.turn(watcher, 90)
    desk.driver.tick(T0 + 120 * M)
    desk.driver.run()
    assert desk.driver.dead_letters == []
    questions = Questions(desk.driver.reader)
    answer = run(questions.value(Question(metric="outages", now_ms=T0 + 120 * M)))
    assert (answer["value"], answer["complete_to"] is not None) == (2, True)
    (row,) = run(questions.breakdown(Question(metric="outages", now_ms=T0 + 120 * M), "source"))["rows"]
    assert (row["key"], row["value"]) == ("app", 2)
    assert run(questions.breakdown(Question(metric="outages", now_ms=T0 + 120 * M), "company"))["rows"] == []


def test_records_of_breaches_are_the_oracles() -> None:
    """A plain program over the raw log, told of the watch's records, counts and answers what the engine does."""
    desk = Desk()
    watcher = desk.watching()
    for minute in range(10, 200, 30):
        desk.visits([minute])
        desk.turn(watcher, minute + 29)
    desk.driver.tick(T0 + 220 * M)
    desk.driver.run()
    oracle = oracle_over(desk.driver, SECRET, {load_bundle(BUNDLE).bundle_id: BUNDLE})
    counts = desk.driver.fates["ingest"]
    assert {name: oracle.counts[name] for name in ("accepted", "signal")} == {
        name: counts[name] for name in ("accepted", "signal")
    }
    asked = Question(metric="outages", now_ms=T0 + 220 * M)
    assert (
        run(Questions(desk.driver.reader).value(asked))["value"] == oracle.value("outages", now=T0 + 220 * M).value == 7
    )


def test_a_source_is_a_companys_where_a_membership_says_so() -> None:
    """Then what it breaks is the company's too, and a milestone can ask that nothing was broken."""
    desk = Desk()
    watcher = desk.watching()
    data = {"entity": "source", "member": "name:app", "company": "crm_id:1", "from": None, "to": None, "by": None}
    desk.visits(range(10))
    desk.driver.produce(
        {"org": ORG, "source": "milepost", "id": "m", "type": "milepost.membership", "time": "2023-11-01T00:00:00Z",
         "data": data}, T0 + 11 * M,
    )  # fmt: skip
    desk.turn(watcher, 30)
    desk.driver.tick(T0 + 60 * M)
    desk.driver.run()
    assert desk.driver.dead_letters == []
    question = Question(metric="outages", now_ms=T0 + 60 * M, company="crm_id:1")
    assert run(Questions(desk.driver.reader).value(question))["value"] == 1


def test_what_no_rule_names_is_not_said_until_one_does() -> None:
    """The log holds what somebody uses; a rule that comes later finds the breaches of the week before it."""
    desk = Desk()
    plain = {**BUNDLE, "milepost.yaml": _TEXT}
    desk.driver.apply(ORG, plain, T0 + M, k_ms=T0 + M)
    watcher = desk.watching()
    desk.visits(range(2, 10))
    assert desk.turn(watcher, 30) == [] and watcher.lasting == {(ORG, "app"): ["stale"]}
    desk.driver.apply(ORG, BUNDLE, T0 + 31 * M, k_ms=T0 + 31 * M)
    assert desk.turn(watcher, 32) == [("milepost.source_stale", True, 24)]
    assert desk.turn(watcher, 33) == []


def test_every_kind_has_a_type_of_ours() -> None:
    """Nobody's bundle can declare one: types that begin with milepost. are refused there."""
    assert set(TYPES) == {f"milepost.source_{one}" for one in ("stale", "silent", "schema", "unmatched")}
