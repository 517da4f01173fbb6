"""A fleet: what the flights of the demo have not: records of every operation, amended and taken back, and plans.

    events of a day and a half, three days ago ─▶ metrics · records of aircraft and bases · milestones, with what people tick
    definitions as if decided an hour before   ─▶ everything that there is to be said of milestones lies in the past

Companies are linked and unlinked by hand in between, a source says twice how far it is complete, one event in six comes
hours late.  `undisturbed` is what the pure driver makes of it, `said` what a walk over it says of milestones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import orjson

from milepost.ops.apply import apply_bundle
from milepost.ops.sender import Sender
from milepost.schemas import stamps
from milepost.schemas.keys import checked_secret, org_key, raw_place
from milepost.schemas.stamps import Stamp
from milepost.topology.bases import written
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.panes import DAY_MS, HOUR_MS, PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.recognitions import Recognition
from milepost.topology.record_questions import RecordQuestion, RecordQuestions
from milepost.topology.steps import run
from tests.support.hostile import said as signals_of
from tests.support.walking import walked
from tests.support.workers import SECRET, Deployment

ORG: Final = "fleet"
COMPANIES: Final = 5
TAILS: Final = 12
SPAN_MS: Final = 36 * HOUR_MS
MINUTE_MS: Final = 60_000
REPEATS: Final = 0.3

_YAML: Final = """
sources:
  depot:
    owner: depot@example.org
    types:
      flown: {schema: Flown}
      listed: {schema: Aircraft}
      bought: {schema: Aircraft}
      repainted: {schema: Aircraft}
      refitted: {schema: Aircraft}
      scrapped: {schema: Aircraft}
    identities:
      - {entity: company, key: code, from: data.code, required: true}
      - {entity: device, key: tail, from: data.tail}
signals:
  flown: {on: flown, fields: {minutes: data.minutes, route: data.route}}
metrics:
  flights: {from: flown, aggregate: count, dimensions: [route]}
  minutes: {from: flown, aggregate: [sum(minutes), max(minutes), last(minutes)]}
  tails: {from: flown, aggregate: distinct(device)}
records:
  aircraft:
    - {on: listed, id: data.tail, op: upsert, fields: {model: data.model, seats: data.seats}}
    - {on: bought, id: data.tail, op: create, fields: {model: data.model, seats: data.seats}}
    - {on: repainted, id: data.tail, op: update, fields: {model: data.model}}
    - {on: refitted, id: data.tail, op: patch, fields: {seats: data.seats}}
    - {on: scrapped, id: data.tail, op: delete}
  base: {on: listed, id: data.base, op: upsert, fields: {tail: data.tail}}
"""
_PLANS: Final = """
milestones:
  ten_flights: {kind: achieve, TERM, actions: {flown: {metric: flights, op: ">=", value: 10}}}
  busy: {kind: maintain, TERM, actions: {flown: {metric: flights, window: 3h, op: ">=", value: 2}}}
  long_haul: {kind: achieve, TERM, actions: {far: {metric: minutes_sum, window: 6h, op: ">=", value: 3000}}}
  reviewed:
    {kind: maintain, TERM, actions: {held: {manual: review held}, flown: {metric: flights, window: 9h, op: ">=", value: 1}}}
plans:
  season: {bridge: "fleet/*", milestones: [ten_flights, busy, long_haul, reviewed]}
"""
_FLOWN: Final = b"""{"type": "record", "name": "Flown", "fields": [
  {"name": "code", "type": "string"}, {"name": "tail", "type": "string"}, {"name": "minutes", "type": "double"},
  {"name": "route", "type": "string"}]}"""
_AIRCRAFT: Final = b"""{"type": "record", "name": "Aircraft", "fields": [
  {"name": "code", "type": "string"}, {"name": "tail", "type": "string"}, {"name": "base", "type": "string"},
  {"name": "model", "type": ["null", "string"], "default": null},
  {"name": "seats", "type": ["null", "long"], "default": null}]}"""
CHANGES: Final = ("listed", "listed", "bought", "repainted", "refitted", "refitted", "scrapped")

Record = tuple[int, bytes, bytes, tuple[tuple[str, bytes], ...]]
"""Partition, key, value, headers."""


class Known(NamedTuple):
    """An event and when the log learned of it, ms."""

    event: dict[str, Any]
    k_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """What a run that nobody disturbed gives.  records: (type, id) -> its versions that hold, the latest first"""

    digest: Mapping[str, str]
    signals: Mapping[bytes, Any]
    records: Mapping[tuple[str, str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The fleet of a seed from `first_ms` on.  It is a value: two of one seed and time are the same.

    planned: whether it has plans.  Then all of it is sent before the first worker starts: what is backdated behind what
        was recognised does not reopen it
    """

    seed: int
    first_ms: int
    planned: bool = True

    @classmethod
    def of_late(cls, seed: int, *, planned: bool = True) -> Fleet:
        """One that lies wholly in the past, and not far."""
        first_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 4 * DAY_MS
        return cls(seed=seed, first_ms=first_ms, planned=planned)

    @property
    def decided_ms(self) -> int:
        """From when on the definitions hold."""
        return self.first_ms - HOUR_MS

    @property
    def deadline_ms(self) -> int:
        return self.first_ms + SPAN_MS - 3 * HOUR_MS

    def files(self) -> dict[str, bytes]:
        """The bundle."""
        start, end = written(self.first_ms), written(self.deadline_ms)
        text = _YAML + (
            _PLANS.replace("TERM", f'start: "{start}", deadline: "{end}", grace: 6h') if self.planned else ""
        )
        return {"milepost.yaml": text.encode(), "schemas/Flown.avsc": _FLOWN, "schemas/Aircraft.avsc": _AIRCRAFT}

    def events(self) -> Sequence[Known]:
        """Every event once, in the order of its known time."""
        return _events(self)

    def undisturbed(self) -> Undisturbed:
        """What the pure driver makes of the events."""
        return _undisturbed(self)

    def driver(
        self, now_ms: int, *, seed: int = 0, shuffled: bool = False, partitions: int = 3, without: Collection[str] = ()
    ) -> Driver:
        """The pure driver after all events, and a tick at `now_ms`.  without: ids of events that are left out"""
        made = Driver(SECRET.encode(), partitions=partitions, chunk=50, seed=seed)
        made.apply(ORG, self.files(), now_ms, k_ms=self.decided_ms)
        events = self.disordered(seed) if shuffled else self.events()
        for one in events:
            if one.event["id"] not in without:
                made.produce(one.event, now_ms, known_ms=one.k_ms)
        made.run()
        made.tick(now_ms)
        made.run()
        return made

    def said(self, partitions: int, until: int) -> dict[bytes, bytes]:
        """What is said of milestones up to a bucket end: the records of the topic `milestones`, by key."""
        return dict(_said(self, partitions, until))

    # -- into a deployment

    def apply(self, deployment: Deployment) -> None:
        """Put the bundle in force, as if it had been decided before the first event."""
        apply_bundle(deployment.settings, self.files(), ORG, effective=self.decided_ms)

    def disordered(self, seed: int) -> list[Known]:
        """The events shuffled, a share of them twice."""
        chance = random.Random(seed)
        order = list(self.events())
        order += chance.sample(order, round(len(order) * REPEATS))
        chance.shuffle(order)
        return order

    def parts(self, count: int) -> list[list[Known]]:
        """The disordered events, cut into `count` parts."""
        order = self.disordered(self.seed)
        size = -(-len(order) // count)
        return [order[at * size : (at + 1) * size] for at in range(count)]

    def send(self, deployment: Deployment, events: Iterable[Known]) -> None:
        """Append events, backdated as an importer does; acknowledged on return."""
        settings = deployment.settings
        sealing = org_key(checked_secret(settings.secret()), ORG)
        with Sender(settings.bootstrap, linger_ms=5) as sender:
            for event, k_ms in events:
                revision = event.get("revision", 0)
                key, partition = raw_place(ORG, event["source"], event["id"], revision, 0, settings.partitions)
                value = orjson.dumps(event)
                header = stamps.header(sealing, key, value, Stamp(kind=stamps.BACKDATED, k_ms=k_ms))
                sender.send(settings.topic("raw-events"), partition, key, value, (header,))


def recognised(reader: Reader, until: int) -> list[Recognition]:
    """Everything that is to be said up to a bucket end, by one walk."""
    found = walked(reader, ORG, [until])
    assert found, "no plan is in force"
    return found


def holding(versions: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Of a record's history what holds: event, revision, operation, value."""
    return [[one["event"]["id"], one["revision"], one["op"], one["value"]] for one in versions if one["holds"]]


@cache
def _said(of: Fleet, partitions: int, until: int) -> Mapping[bytes, bytes]:
    made = of.driver((until + 1) * PANE_MS, partitions=partitions)
    outputs = [one.output(partitions) for one in recognised(made.reader, until)]
    assert len({one.key for one in outputs}) == len(outputs)
    return {one.key: one.value or b"" for one in outputs}


@cache
def _undisturbed(of: Fleet) -> Undisturbed:
    now_ms = of.first_ms + 3 * DAY_MS
    made = of.driver(now_ms)
    questions = RecordQuestions(made.reader)
    ids = [("aircraft", f"N{number}") for number in range(TAILS)] + [("base", f"B{number}") for number in range(3)]
    records = {
        (type, id): holding(
            run(questions.history(RecordQuestion(type=type, id=id, now_ms=now_ms), 0, 1000))["versions"]
        )
        for type, id in ids
    }
    return Undisturbed(digest=digest(made.reader), signals=signals_of(made), records=records)


@cache
def _events(of: Fleet) -> Sequence[Known]:
    chance = random.Random(of.seed)
    found = [*_flights(of, chance), *_changes(of, chance), *_by_hand(of, chance)]
    return tuple(sorted(found, key=lambda one: (one.k_ms, one.event["id"], one.event.get("revision", 0))))


def _event(source: str, type: str, id: str, t_ms: int, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"org": ORG, "source": source, "id": id, "type": type, "time": written(t_ms), "data": dict(data)}


def _known(chance: random.Random, event: dict[str, Any], t_ms: int, **amended: Any) -> list[Known]:
    """The event, at times hours late; of one in five a higher revision, every other of them a void."""
    k_ms = t_ms + chance.choice((MINUTE_MS,) * 10 + (3 * HOUR_MS, 12 * HOUR_MS))
    found = [Known(event, k_ms)]
    if chance.random() < 0.2:
        data = {**event["data"], **amended}
        more: dict[str, Any] = {"revision": 1, "void": chance.random() < 0.5, "data": data}
        found.append(Known({**event, **more}, k_ms + chance.randrange(MINUTE_MS, 6 * HOUR_MS, MINUTE_MS)))
    return found


def _flights(of: Fleet, chance: random.Random) -> list[Known]:
    found = []
    for number in range(150):
        t_ms = of.first_ms + chance.randrange(0, SPAN_MS, MINUTE_MS)
        data = {
            "code": f"c{number % COMPANIES}", "tail": f"N{chance.randrange(TAILS)}",
            "minutes": float(chance.randrange(40, 600)), "route": chance.choice(("north", "south", "east")),
        }  # fmt: skip
        found += _known(chance, _event("depot", "flown", f"f{number}", t_ms, data), t_ms, minutes=30.0)
    return found


def _changes(of: Fleet, chance: random.Random) -> list[Known]:
    """What happens to aircraft; an amendment may say it of another one."""
    found = []
    for number in range(110):
        t_ms = of.first_ms + chance.randrange(0, SPAN_MS, MINUTE_MS)
        data = {
            "code": f"c{number % COMPANIES}", "tail": f"N{chance.randrange(TAILS)}", "base": f"B{chance.randrange(3)}",
            "model": f"model {chance.randrange(9)}", "seats": chance.randrange(20, 400),
        }  # fmt: skip
        event = _event("depot", chance.choice(CHANGES), f"a{number}", t_ms, data)
        found += _known(chance, event, t_ms, tail=f"N{chance.randrange(TAILS)}", seats=1)
    return found


def _by_hand(of: Fleet, chance: random.Random) -> list[Known]:
    """Ticks, changes of records, a link and its opposite, and how far the source is complete."""
    found = []
    for number in range(24) if of.planned else ():
        t_ms = of.first_ms + chance.randrange(0, SPAN_MS, MINUTE_MS)
        data = {
            "plan": "season", "milestone": "reviewed", "action": "held", "company": f"code:c{number % COMPANIES}",
            "done": chance.random() < 0.7, "by": "ann",
        }  # fmt: skip
        event = _event("milepost", "milepost.action", f"t{number}", t_ms, data)
        found += _known(chance, event, t_ms, done=not data["done"])
    for number in range(6):
        t_ms = of.first_ms + chance.randrange(0, SPAN_MS, MINUTE_MS)
        fields = orjson.dumps({"model": "by hand", "seats": number}).decode()
        data = {
            "record": "aircraft",
            "id": f"N{chance.randrange(TAILS)}",
            "op": "upsert",
            "fields": fields,
            "by": "ann",
        }
        found.append(Known(_event("milepost", "milepost.record", f"r{number}", t_ms, data), t_ms))
    for what, hours in (("link", 10), ("unlink", 22)):
        t_ms = of.first_ms + hours * HOUR_MS
        keys = {"entity": "company", "keys": ["code:c3", "code:c4"] if what == "link" else ["code:c4"], "by": "ann"}
        found.append(Known(_event("milepost", f"milepost.{what}", f"l{hours}", t_ms, keys), t_ms))
    for hours in (12, 40):
        t_ms = of.first_ms + hours * HOUR_MS
        complete = {"source": "depot", "until": written(t_ms - HOUR_MS), "by": "ann"}
        found.append(Known(_event("milepost", "milepost.source_complete", f"s{hours}", t_ms, complete), t_ms))
    return found
