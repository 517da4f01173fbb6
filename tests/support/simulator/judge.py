"""Judge: what is wrong with a history that has come to rest.

same as an undisturbed run? -> all disks lost, logs cleaned -> restored: the same?
                            -> the cleaned raw log into an empty engine, ours or a plain one: the same?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import decode_any, wire
from milepost.topology.decisions import Decisions
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, follow
from milepost.topology.reading import Reader
from milepost.topology.recognitions import TOPIC, Recognition, load
from milepost.topology.state import Store
from tests.support.events import SECRET, sweep
from tests.support.invariants import same_answers
from tests.support.simulator.achieving import passed_by
from tests.support.simulator.kafka import Rec
from tests.support.simulator.replay import replay
from tests.support.simulator.world import World
from tests.support.versus import ask_engine, ask_oracle, oracle_of, records_of
from tests.support.walking import walked

REPLAYED_EVERY: Final = 3
"""One seed of so many is also replayed from its cleaned raw log."""

QUESTIONS: Final = 20

REBUILT_EVERY: Final = 6
"""One seed of so many also loses its changelogs, and is rebuilt from the cleaned log by the engine itself."""

ASKED_EVERY: Final = 10
"""One seed of so many is also asked what the oracle is asked."""


def judge(world: World) -> None:
    """Add to `world.wrong` what is wrong with the history that has come to rest."""
    wrong = world.wrong
    if wrong:
        return
    live = Live(world, _decided(world))
    world.stats["taken again"] += taken_again(world)
    if _condemned(world):
        # Kills enough with one record in hand: it is passed over, which an undisturbed run would not have done.
        world.stats["condemned"] += 1
        _restored(world, digest(live), "restored from the changelogs")
        return
    undisturbed = expected(world)
    wanted = digest(undisturbed.reader)
    wrong += differences("live", digest(live), wanted)
    wrong += _unpaid(live)
    wrong += _topics(world, undisturbed)
    if world.achieves:
        wrong += _milestones(world, undisturbed)
    if world.seed % ASKED_EVERY == 0 and world.scenario.settled and not wrong:
        world.stats["asked beside the oracle"] += 1
        wrong += _answers(world, live)
    if wrong:
        return
    _restored(world, wanted, "restored from the changelogs")
    if wrong or world.seed % REPLAYED_EVERY:
        return
    world.stats["replayed"] += 1
    again = replay(world.partitions, _raw(world, cleaned=True), world.log("definitions", 0).every, world.load)
    wrong += differences("replayed from the cleaned log", digest(again), wanted)
    if not wrong and world.seed % REBUILT_EVERY == 0:
        world.stats["rebuilt"] += 1
        world.begin_anew("ingest", "measure", "record")
        world.rest(0.2)
        wrong += (
            differences("rebuilt without changelogs", digest(Live(world, _decided(world))), wanted) if not wrong else []
        )
        if not wrong:
            _restored(world, wanted, "restored from rebuilt changelogs")


def _restored(world: World, wanted: Mapping[str, str], what: str) -> None:
    """From the cleaned changelogs into an empty disk: the same tables, and nothing is said anew."""
    world.begin_anew()
    ends = {place: log.end for place, log in world.logs.items()}
    world.rest(0.2)
    if world.wrong:
        return
    world.wrong += differences(what, digest(Live(world, _decided(world))), wanted)
    for place, end in ends.items():
        if not place[0].endswith("-changelog") and world.logs[place].end != end:
            world.wrong.append(f"{what}: {place} grew from {end} to {world.logs[place].end}")


def _condemned(world: World) -> bool:
    logs = [log for (topic, _), log in world.logs.items() if topic in ("raw-events", "signals", "record-changes")]
    return any(record.key and record.key.startswith(b"verdict") for log in logs for record in log.every)


def expected(world: World) -> Driver:
    """The driver over the raw log as it was written, in order and undisturbed."""
    made = Driver(SECRET, partitions=world.partitions, load=world.load)
    for record in world.log("definitions", 0).every:
        made.append("definitions", 0, record.key, record.value, record.headers, record.timestamp)
    for number, records in enumerate(_raw(world, cleaned=False)):
        for record in records:
            made.append("raw-events", number, record.key, record.value, record.headers, record.timestamp)
    made.follow()
    made.run()
    return made


def _raw(world: World, *, cleaned: bool) -> list[list[Rec]]:
    logs = [world.log("raw-events", number) for number in range(world.partitions)]
    return [log.records if cleaned else log.every for log in logs]


@dataclass(frozen=True, slots=True)
class Live:
    """`topology.reading.Reader` over the processes' open partitions."""

    world: World
    decisions: Decisions

    @property
    def partitions(self) -> int:
        return self.world.partitions

    @property
    def org_key(self) -> Any:
        return self.world.org_keys

    def epoch(self, leg: str, partition: int) -> int:
        return 0

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        (at,) = self.world.owners()[leg, partition]
        stores: Mapping[str, Store] = at.stores
        return stores

    def reached(self, leg: str, partition: int) -> Any:
        (at,) = self.world.owners()[leg, partition]
        return at.next_offset, at.mark.reached

    def progress(self, partition: int) -> Any:
        (at,) = self.world.owners()["measure", partition]
        return at.mark.progress


def _decided(world: World) -> Decisions:
    """What a worker that has followed the decisions to their ends would know."""
    decisions = Decisions(world.load)
    follow(decisions, world.log("definitions", 0).every, world.log("identity-links", 0).every)
    return decisions


def _answers(world: World, live: Live) -> list[str]:
    """The oracle's answers against ours, over the records that the input held."""
    oracle, asked = oracle_of(world.scenario), SimpleNamespace(reader=live)
    questions = sweep(world.scenario, count=QUESTIONS, seed=world.seed)
    wrong = same_answers(
        {str(question): ask_oracle(oracle, question) for question in questions},
        {str(question): ask_engine(asked, question) for question in questions},  # type: ignore[arg-type]
    )
    wrong += records_of(oracle, asked, world.scenario.moments[-3:], world.scenario.now_ms)
    return [f"oracle: {one}" for one in wrong]


def differences(what: str, held: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    return [f"{what}: {name}" for name in wanted if name != "total" and held[name] != wanted[name]]


def _unpaid(live: Live) -> list[str]:
    """First records that are still owed to the log although everything is at rest."""
    owed = [
        sum(1 for _ in live.stores("ingest", number)["owed"].scan(b"", b"\xff" * 17))
        for number in range(live.partitions)
    ]
    return [f"live: {sum(owed)} first records are still owed to the log"] if any(owed) else []


def _topics(world: World, undisturbed: Driver) -> list[str]:
    """What the other topics hold: the last of each key, and each signal once under its origin."""
    wrong = []
    for name in ("dead-letters", "identity-links"):
        held = _last(world.logs[key] for key in sorted(world.logs) if key[0] == name)
        wanted = {
            one.key: one.value for log in undisturbed.topics[name] for one in log if not _beyond(world, name, one)
        }
        if held != wanted:
            wrong.append(f"{name}: {len(held)} records, expected {len(wanted)}, or others")
    told: dict[tuple[Any, ...], bytes | None] = {}
    for number in range(world.partitions):
        for record in world.log("signals", number).every:
            origin = _origin(record)
            if origin is None:
                wrong.append(f"signals/{number}@{record.offset}: not a message of ours")
            elif told.setdefault((number, *origin), record.value) != record.value:
                wrong.append(f"signals/{number}@{record.offset}: another message of the same origin")
    return wrong


def _milestones(world: World, undisturbed: Driver) -> list[str]:
    """What is said of milestones: what a walk over the whole log says up to the last tick.  Nothing of it had to be taken
    back or told after its time: nothing is backdated here, and what lies in a wrong partition is waited for."""
    held: dict[bytes, Recognition] = {}
    for number in range(world.partitions):
        for record in world.log(TOPIC, number).every:
            one = load(record.value or b"")
            if isinstance(one, Recognition):
                world.stats["recognised again"] += record.key in held
                held[record.key or b""] = one
    reader = undisturbed.reader
    passed = passed_by([reader.progress(number) for number in range(world.partitions)], world.partitions)
    wanted = {} if passed is None else recognised(reader, passed, world.partitions)
    world.stats["recognised"] += len(wanted)
    early = [one for one in held.values() if one.withdrawn is not None or one.backdated]
    missing, more = wanted.keys() - held.keys(), held.keys() - wanted.keys()
    wrong = [f"milestones: {len(early)} were said before they were sure: {early[0]}"] if early else []
    if missing or more:
        names, lacks = sorted(str(held[key]) for key in more)[:2], sorted(str(wanted[key]) for key in missing)[:2]
        wrong.append(f"milestones: {len(missing)} of {len(wanted)} are missing {lacks}, {len(more)} too many {names}")
    differ = [one for key, one in wanted.items() if key in held and not held[key].holds_as(one)]
    return wrong + [f"milestones: {one} differs" for one in differ]


def recognised(reader: Reader, until: int, partitions: int) -> dict[bytes, Recognition]:
    """The records of `milestones` up to a bucket end, by one walk."""
    found = (one for org in sorted(reader.decisions.history) for one in walked(reader, org, [until]))
    return {one.output(partitions).key: one for one in found}


def _beyond(world: World, topic: str, record: Any) -> bool:
    """Whether a dead letter is about a record that only the driver's own copies made."""
    if topic != "dead-letters":
        return False
    letter = wire("DeadLetter").decode(record.value)
    return letter["topic"] == "raw-events" and letter["offset"] >= world.log("raw-events", letter["partition"]).end


def _last(logs: Any) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value for log in logs for record in log.every}


def _origin(record: Rec) -> tuple[Any, ...] | None:
    try:
        name, message = decode_any(record.value or b"")
    except ContractError:
        return None
    if name not in ("Signals", "Tick"):
        return name, record.key, 0, record.offset  # a verdict: nothing comes from anywhere
    return name, record.key, message["raw_partition"], message["raw_offset"]


def taken_again(world: World) -> int:
    """Messages on `signals` that say again what was said before: what ingest folded more than once."""
    count = 0
    for number in range(world.partitions):
        values = [record.value for record in world.log("signals", number).every]
        count += len(values) - len(set(values))
    return count
