"""Raw logs for tests: scenarios written act by act, with the hard cases labelled.

An act is plain data, so Hypothesis can draw and shrink it and a seed can choose it.  `play` writes the log that a
broker would hold, the engine's own re-appends and forwarded copies left out.  `labels` counts the hard cases of a
scenario; `share` says whether a test has seen enough of each.

    scenario = play(acts(), partitions=3)          # or scenarios() under Hypothesis, or seeded(7)
    oracle = Oracle(SECRET, scenario.partitions, scenario.bundles, scenario.applied); oracle.read(scenario.log)
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.oracle import avro, clock, keys
from tests.oracle.keys import RawRecord, Stamp
from tests.support.editions import EDITIONS, bundle_id

SECRET = b"a secret that only tests use"
ORG, OTHER_ORG = "acme", "beta"
SKEW = 10 * clock.MINUTE

KINDS = (
    "sale", "visit", "linked", "device_only", "late", "far_late", "early", "boundary", "avro",
    "duplicate", "rewritten", "volatile", "conflict", "misrouted", "misrouted_key", "backdated",
    "future", "garbage", "unknown_type", "unknown_source", "missing_key", "contract", "amended", "voided",
    "revised", "moved", "repaired", "changed_company", "null_amount",
    "by_hand_link", "by_hand_unlink", "rejoined", "membership", "person_only", "unique", "blocked",
    "quiet", "tombstone", "forged", "clock_back", "tick", "apply", "other_org", "out_of_range",
)  # fmt: skip
"""Every kind of act.  The first nine make events that count."""

WEIGHTS: Mapping[str, int] = {
    "sale": 12, "visit": 6, "linked": 90, "device_only": 3, "late": 44, "far_late": 4, "boundary": 6,
    "duplicate": 40, "rewritten": 3, "volatile": 3, "conflict": 48, "misrouted": 42, "misrouted_key": 4, "garbage": 3,
    "amended": 12, "voided": 44, "revised": 12, "moved": 8, "by_hand_link": 10, "by_hand_unlink": 12, "rejoined": 4, "membership": 14,
    "person_only": 14, "unique": 8, "blocked": 2,
}  # fmt: skip
"""How often a kind is drawn; the others once."""

HARD = ("late", "duplicate", "conflict", "linked_apart", "misrouted", "amended", "voided")
"""The cases of which a test wants at least a twentieth each.  `linked_apart`: over two partitions of signals."""

STARTS = (
    "2013-03-31T00:40:00.000Z",  # Europe/Berlin loses an hour at 01:00Z
    "2013-10-27T00:40:00.000Z",  # and wins one
    "2013-03-10T05:20:00.000Z",  # America/St_Johns loses one at 05:30Z
    "2013-11-03T04:20:00.000Z",  # and wins one at 04:30Z
    "2012-12-31T18:10:00.000Z",  # the year ends in Asia/Kathmandu at 18:15Z
    "2013-12-31T23:58:00.000Z",
)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "America/New_York")
WINDOWS = ("all", "15m", "90m", "24h", "7d", "day", "week", "month", "year")


@dataclass(frozen=True, kw_only=True)
class Act:
    """One thing that happens to the log.  The numbers choose among what the kind allows; any number does."""

    kind: str
    step: int = 0
    who: int = 0
    what: int = 0


@dataclass(kw_only=True)
class Scenario:
    """A raw log and what a test needs to know of it.

    log:     a list of records a partition
    bundles: bundle id -> files;  applied: organisation -> (known time, bundle id), as `definitions` would say
    labels:  hard case -> how many records show it
    moments: times (ms) worth asking about
    settled: no event that lies in a wrong place lies anywhere else.  Else its forwarded copy may come before or behind
             the other, which a broker decides; a driver that gets the whole log first puts it behind, as the oracle.
    """

    partitions: int
    log: list[list[RawRecord]]
    bundles: dict[bytes, Mapping[str, bytes]]
    applied: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    moments: list[int] = field(default_factory=list)
    now_ms: int = 0
    settled: bool = True

    @property
    def size(self) -> int:
        return sum(len(records) for records in self.log)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question as plain data: `kind` is value, series or breakdown; `arguments` are the oracle's."""

    kind: str
    metric: str
    company: str | None
    arguments: Mapping[str, Any]

    def ask(self, of: Any) -> Any:
        """The answer of an oracle, or of anything with its three methods."""
        return getattr(of, self.kind)(self.metric, company=self.company, **self.arguments)


def play(
    acts: Sequence[Act],
    *,
    partitions: int = 3,
    start: str = STARTS[0],
    editions: Sequence[Mapping[str, bytes]] = EDITIONS,
) -> Scenario:
    """The scenario that these acts write.  editions: the bundle, and what is applied behind it"""
    return Writer(partitions, clock.ms(start), editions).write(acts)


def acts() -> st.SearchStrategy[Act]:
    """Any act, the weighted kinds more often."""
    bag = [kind for kind in KINDS for _ in range(WEIGHTS.get(kind, 1))]
    number = st.integers(0, 999)
    return st.builds(Act, kind=st.sampled_from(bag), step=number, who=number, what=number)


@st.composite
def scenarios(draw: st.DrawFn, size_max: int = 60) -> Scenario:
    """A scenario of up to `size_max` acts."""
    return play(
        draw(st.lists(acts(), min_size=1, max_size=size_max)),
        partitions=draw(st.sampled_from((3, 2, 4, 5, 1))),
        start=draw(st.sampled_from(STARTS)),
    )


def seeded(
    seed: int,
    *,
    size: int = 200,
    partitions: int = 3,
    editions: Sequence[Mapping[str, bytes]] = EDITIONS,
    without: frozenset[str] = frozenset(),
) -> Scenario:
    """A scenario chosen by a seed.  without: kinds of acts that are left out"""
    chance = random.Random(seed)
    weights = [WEIGHTS.get(kind, 1) for kind in KINDS]
    drawn = [
        Act(kind=kind, step=chance.randrange(1000), who=chance.randrange(1000), what=chance.randrange(1000))
        for kind in chance.choices(KINDS, weights, k=size)
    ]
    kept = [one for one in drawn if one.kind not in without]
    return play(kept, partitions=partitions, start=chance.choice(STARTS), editions=editions)


def questions(scenario: Scenario) -> st.SearchStrategy[Question]:
    """Any question that has an exact answer.  `latest` is asked at the scenario's end."""
    return st.integers(0, 2**32).map(lambda seed: one_question(scenario, random.Random(seed)))


def sweep(scenario: Scenario, count: int = 60, seed: int = 0) -> list[Question]:
    """Many questions of one scenario: a third of what was shown, and when it changed, the rest of any kind.

    A known-time bucket that ends too early or too late, or one event too many, is seen only at the moments between; so
    the first third asks as_shown at the ends of the quarter, the hour and the day in which something became known.
    """
    chance = random.Random(seed)
    asked = [one_question(scenario, chance) for _ in range(count - count // 3)]
    for _ in range(count // 3):
        at = clock.ceiling(chance.choice(scenario.moments), chance.choice((clock.QUARTER, clock.HOUR, clock.DAY)))
        shared: dict[str, Any] = {"now": scenario.now_ms, "org": ORG, "basis": "as_shown"}
        shared["at"] = at + chance.choice((0, 0, 0, clock.QUARTER, -clock.QUARTER))
        metric = chance.choice(("sales", "sales", "amount_sum", "visitors", "buyers"))
        asked.append(Question(kind="value", metric=metric, company=None, arguments=shared))
    return asked


def one_question(scenario: Scenario, chance: random.Random) -> Question:
    """A value, a series or a breakdown, of everything or of a company, at some moment on some basis."""
    kind = chance.choice(("value", "value", "value", "series", "breakdown"))
    metric = chance.choice(METRICS)
    company = chance.choice((None, chance.choice(NAMES)))
    arguments: dict[str, Any] = {"now": scenario.now_ms, "org": ORG, "tz": chance.choice(ZONES)}
    arguments["basis"] = chance.choice(("latest", "corrected", "as_shown"))
    if arguments["basis"] != "latest":
        arguments["at"] = chance.choice(scenario.moments)
    if kind == "series":
        day = chance.choice(scenario.moments)
        arguments["from_ms"] = clock.unit_start("day", day, arguments["tz"])
        arguments["to_ms"] = clock.floor(day) + 5 * clock.DAY
        arguments["every"] = chance.choice(("1d", "7d", "6h", "day", "week"))
    else:
        arguments["window"] = chance.choice(WINDOWS)
    if kind == "breakdown":
        arguments["by"] = chance.choice(("company", *DIMENSIONS[metric]))
    values = {"region": ("north", "süd", "__none__"), "channel": ("web", "desk")}
    free = [one for one in DIMENSIONS[metric] if one != arguments.get("by") and chance.random() < 0.3]
    arguments["dims"] = {one: chance.choice(values[one]) for one in free}
    return Question(kind=kind, metric=metric, company=company, arguments=arguments)


DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "sales": ("region", "channel"),
    "amount_sum": ("region",),
    "amount_min": ("region",),
    "amount_max": ("region",),
    "amount_avg": ("region",),
    "amount_last": ("region",),
    "amount_p95": ("region",),
    "amount_p50": ("region",),
    "buyers": ("region",),
    "people": ("channel",),
    "big_sales": ("region", "channel"),
    "big_half": (),
    "visitors": ("region",),
    "visits": (),
    "big_rate": ("region", "channel"),
    "spread": ("region",),
    "conversion": (),
}
"""Each metric of the bundle and its dimensions."""
METRICS = tuple(DIMENSIONS)
PERCENTILES = ("amount_p95", "amount_p50")


def share(labels: Mapping[str, int], records: int) -> dict[str, float]:
    """The share of each hard case among all records."""
    return {name: labels.get(name, 0) / max(records, 1) for name in HARD}


def leaf_partition(leaf: bytes, partitions: int) -> int:
    """Where the signals of a leaf lie: murmur2 of Kafka."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(leaf)
    for at in range(0, len(leaf), 4):  # a leaf is four words long
        k = int.from_bytes(leaf[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


_RAW_EVENT = avro.schema("RawEvent")
COMPANIES = 6
NAMES = (*(f"code:c{n}" for n in range(COMPANIES)), *(f"name:n{n}" for n in range(COMPANIES)), "vat:v0", "vat:v1")
"""The companies that a question may name; a scenario need not hold them all."""

_STEPS = (0, 0, 1, 999, clock.MINUTE, clock.QUARTER - 1, clock.QUARTER, clock.HOUR, 6 * clock.HOUR, clock.DAY)
LATE = (clock.HOUR, clock.DAY - 1, clock.DAY, clock.DAY + clock.QUARTER, 3 * clock.DAY, 40 * clock.DAY)
_FAR = (90 * clock.DAY - 1, 90 * clock.DAY, 90 * clock.DAY + clock.QUARTER, 400 * clock.DAY)
_AMOUNTS = (0, 1, 99.99, 100, 0.125, 0.135, 2.675, -3.5, 1e-9, 1234.565, 50.0, 1e6, 0.1, 1.015, 0.575)
_GARBAGE = (
    b"", b"{", b"[" * 3000, b"\xff\xfe\x00", b"null", b"[]", b'{"org":"acme"}', b'{"a":NaN}', b"\xc3\x01" + bytes(8),
    b'{"org":"acme","source":"shop","id":"","type":"sale","time":"2013-01-01T00:00:00Z","data":{}}',
    b'{"org":"acme","source":"shop","id":"x","type":"sale","time":"2013-01-01T00:00:00Z","data":[]}',
)  # fmt: skip


class Writer:
    """Writes one scenario: holds the broker's clock and the events sent so far.  editions: the bundles, in order."""

    def __init__(self, partitions: int, start_ms: int, editions: Sequence[Mapping[str, bytes]] = EDITIONS) -> None:
        self.now, self.editions = start_ms, editions
        self.scenario = Scenario(partitions=partitions, log=[[] for _ in range(partitions)], bundles={})
        self.sent: list[dict[str, Any]] = []
        self.bad = 0
        self.placed: Counter[bytes] = Counter()  # raw key -> records of the event, wherever they lie
        self.astray: set[bytes] = set()  # raw keys of events that lie in a wrong place

    def write(self, acts: Sequence[Act]) -> Scenario:
        """The scenario that these acts write, after the first edition."""
        self.apply(self.editions[0])
        for act in acts:
            self.act(act)
        scenario = self.scenario
        scenario.now_ms = self.now
        scenario.settled = all(self.placed[key] == 1 for key in self.astray)
        scenario.moments = sorted({one + shift for one in scenario.moments for shift in (0, clock.QUARTER, clock.DAY)})
        return scenario

    def act(self, act: Act) -> None:
        self.now += _STEPS[act.step % len(_STEPS)]
        getattr(self, f"_{act.kind}", self._event)(act)

    def apply(self, files: Mapping[str, bytes]) -> None:
        """A bundle for both organisations: a marker in every partition."""
        one = bundle_id(files)
        self.scenario.bundles[one] = files
        for org in (ORG, OTHER_ORG):
            self.scenario.applied.setdefault(org, []).append((self.now, one))
            number = len(self.scenario.applied[org])
            for partition in range(self.scenario.partitions):
                key, value = f"marker{org}{number}".encode(), one + org.encode()
                stamp = Stamp(kind=keys.MARKER, k_ms=0, partition=0, offset=-1, bundle=keys.NO_BUNDLE)
                self.append(partition, key, value, (keys.seal(SECRET, "", stamp, key, value),))
        self.scenario.moments.append(self.now)

    def append(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...] = (),
        at_ms: int | None = None,
    ) -> None:
        records = self.scenario.log[partition]
        records.append(
            RawRecord(
                partition=partition,
                offset=len(records),
                timestamp_ms=self.now if at_ms is None else at_ms,
                key=key,
                value=value,
                headers=headers,
            )
        )

    def send(self, event: Mapping[str, Any], value: bytes | None = None, **rest: Any) -> None:
        """An event in its place."""
        partition = keys.raw_partition(event["org"], event["source"], event["id"], self.scenario.partitions)
        value = json.dumps(event, ensure_ascii=False).encode() if value is None else value
        self.placed[key_of(event)] += 1
        self.append(partition, key_of(event), value, **rest)

    def _make(self, act: Act, t_ms: int | None = None, **data: Any) -> dict[str, Any]:
        """A new sale of company `who`, by its code or its name, at `t_ms` (default: now)."""
        t_ms = self.now if t_ms is None else t_ms
        by = {"code": f"c{act.who % COMPANIES}"} if act.who % 3 else {"name": f"n{act.who % COMPANIES}"}
        whole: dict[str, Any] = {
            **by,
            "serial": f"d{act.what % 5}",
            "email": f"p{act.step % 4}@a.example" if act.what % 3 else None,
            "login": f"l{act.who % 5}" if act.step % 3 == 0 else None,
            "amount": _AMOUNTS[act.what % len(_AMOUNTS)],
            "region": ("north", "süd", None)[act.what % 3],
            "channel": ("web", "desk")[act.who % 2],
            "note": f"seen {act.step}",
            **data,
        }
        return self._envelope("shop", "sale", t_ms, {name: one for name, one in whole.items() if one is not ...})

    def _envelope(self, source: str, kind: str, t_ms: int, data: dict[str, Any], org: str = ORG) -> dict[str, Any]:
        return {
            "org": org, "source": source, "id": f"e{len(self.sent) + self.bad}", "type": kind,
            "time": clock.rfc3339(t_ms), "data": data,
        }  # fmt: skip

    def _count(self, event: dict[str, Any], *labels: str) -> None:
        """Send an event that is expected to count."""
        self.sent.append(event)
        self.scenario.labels.update(labels)
        self.scenario.moments += [clock.ms(event["time"]), self.now]
        self.send(event)

    def _spoil(self, event: dict[str, Any], label: str, **rest: Any) -> None:
        """Send an event that is expected to end as a dead letter or to lead to nothing."""
        self.bad += 1
        self.scenario.labels[label] += 1
        self.send(event, **rest)

    # -- events that count

    def _event(self, act: Act) -> None:
        self._count(self._make(act))

    def _visit(self, act: Act) -> None:
        data = {"code": f"c{act.who % COMPANIES}", "visitors": act.what % 7, "region": ("north", None)[act.what % 2]}
        self._count(self._envelope("till", "visit", self.now, data))

    def _linked(self, act: Act) -> None:
        code, name = f"c{act.who % COMPANIES}", f"n{(act.who + (act.what % 8 == 0)) % COMPANIES}"
        leaves = [keys.leaf(SECRET, ORG, "company", kind, value) for kind, value in (("code", code), ("name", name))]
        apart = len({leaf_partition(leaf, self.scenario.partitions) for leaf in leaves}) == 2
        t_ms = self.now - LATE[act.step % len(LATE)] * (act.what % 2)
        self._count(self._make(act, t_ms, code=code, name=name), "linked", *(("linked_apart",) if apart else ()))

    def _device_only(self, act: Act) -> None:
        self._count(self._make(act, code=..., name=...), "device_only")

    def _person_only(self, act: Act) -> None:
        """An event of a person, or of a device, without a company: only a membership attributes it."""
        key = ("serial", "email", "login")[act.who % 3]
        none = {name: ... for name in ("code", "name", "serial", "email", "login") if name != key}
        value = {"serial": f"d{act.what % 5}", "email": f"p{act.what % 4}@a.example", "login": f"l{act.what % 5}"}[key]
        t_ms = self.now - LATE[act.step % len(LATE)] * (act.what % 2)
        self._count(self._make(act, t_ms, **{**none, key: value}), "person_only")

    def _unique(self, act: Act) -> None:
        """A company with a number of which a component has one at most."""
        self._count(self._make(act, vat=f"v{act.what % 3}"), "unique")

    def _blocked(self, act: Act) -> None:
        """A key that means nothing is no key."""
        nothing = ("null", " N/A", "0", "0000-00", "-1", "Unknown", "test", "gmail.com", "none ")[act.what % 9]
        which = ("code", "name", "serial", "login")[act.who % 4]
        value = ("guest", "gmx.de", "mail.example", nothing)[act.step % 4] if which == "login" else nothing
        self._count(self._make(act, **{which: value}), "blocked")

    # -- by hand

    def _by_hand(self, act: Act, kind: str, *labels: str, **data: Any) -> None:
        self._count(self._envelope("milepost", f"milepost.{kind}", self.now, data), *labels)

    def _some_key(self, entity: str, number: int) -> str:
        known = {
            "company": (*NAMES, *NAMES[:3], "vat:v2"),
            "device": tuple(f"serial:d{n}" for n in range(5)),
            "person": (*(f"email:p{n}@a.example" for n in range(4)), *(f"login:l{n}" for n in range(5))),
        }[entity]
        return known[number % len(known)]

    def _by_hand_link(self, act: Act) -> None:
        entity = ("company", "company", "device", "person")[act.step % 4]
        keys_ = [self._some_key(entity, number) for number in (act.who, act.what, act.who + act.step)]
        self._by_hand(
            act, "link", "by_hand", "by_hand_link", entity=entity, keys=keys_[: 2 + (act.what % 5 == 0)], by="ann"
        )

    def _by_hand_unlink(self, act: Act) -> None:
        entity = ("company", "company", "device", "person")[act.step % 4]
        keys_ = [self._some_key(entity, number) for number in (act.who, act.what)]
        self._by_hand(act, "unlink", "by_hand", "unlinked", entity=entity, keys=keys_[: 1 + (act.what % 3 == 0)])

    def _rejoined(self, act: Act) -> None:
        """Taken apart by hand, and proposed again over a third key."""
        code, name, other = (one % COMPANIES for one in (act.who, act.what, act.what + 1 + act.step % 4))
        self._count(self._make(act, code=f"c{code}", name=f"n{name}"))
        self._by_hand(act, "link", "by_hand", keys=[f"name:n{name}", f"name:n{other}"])
        self.now += 1 + act.step
        self._by_hand(act, "unlink", "by_hand", keys=[f"code:c{code}"])
        self.now += 1 + act.step
        self._count(self._make(act, code=f"c{code}", name=f"n{other}"), "rejoined")

    def _membership(self, act: Act) -> None:
        entity = ("person", "person", "device")[act.step % 3]
        start = self.now - LATE[act.who % len(LATE)] if act.what % 4 else None
        end = None if act.who % 3 == 0 else (start or self.now) + LATE[act.what % len(LATE)]
        times = {name: None if at is None else clock.rfc3339(at) for name, at in (("from", start), ("to", end))}
        who = self._some_key(entity, act.what)
        company = self._some_key("company", act.who)
        labels = ("membership",) if end is None else ("membership", "membership_ends")
        self._by_hand(act, "membership", *labels, entity=entity, member=who, company=company, **times)

    def _late(self, act: Act) -> None:
        t_ms = clock.floor(self.now - LATE[act.what % len(LATE)]) - act.who % 2
        self._count(self._make(act, t_ms), "late")

    def _far_late(self, act: Act) -> None:
        t_ms = self.now - _FAR[act.what % len(_FAR)]
        self._count(self._make(act, t_ms), "late", "far_late")

    def _early(self, act: Act) -> None:
        self._count(self._make(act, self.now + (SKEW, SKEW - 1, 1)[act.what % 3]), "early")

    def _boundary(self, act: Act) -> None:
        width = (clock.QUARTER, clock.HOUR, clock.DAY)[act.what % 3]
        self._count(self._make(act, clock.floor(self.now, width) - (0, 1)[act.who % 2]), "boundary")

    def _avro(self, act: Act) -> None:
        event = self._make(act)
        self.sent.append(event)
        self.scenario.labels["avro"] += 1
        self.send(event, _as_avro(event))

    def _other_org(self, act: Act) -> None:
        event = self._make(act) | {"org": OTHER_ORG}
        self._count(event, "other_org")

    def _backdated(self, act: Act) -> None:
        event = self._make(act, self.now - LATE[act.what % len(LATE)])
        k_ms = clock.ms(event["time"]) + (0, 3 * clock.DAY, -SKEW)[act.what % 3]
        stamp = Stamp(kind=keys.BACKDATED, k_ms=k_ms, partition=0, offset=-1, bundle=keys.NO_BUNDLE)
        value = json.dumps(event).encode()
        self.sent.append(event)
        self.scenario.labels["backdated"] += 1
        self.scenario.moments.append(k_ms)
        self.send(event, value, headers=(keys.seal(SECRET, ORG, stamp, key_of(event), value),))

    # -- events again

    def _one_sent(self, act: Act) -> dict[str, Any]:
        if not self.sent:
            self._event(act)
        return self.sent[-1 - act.what % min(len(self.sent), 12)]

    def _duplicate(self, act: Act) -> None:
        event = self._one_sent(act)
        self.scenario.labels["duplicate"] += 1
        self.send(event)

    def _rewritten(self, act: Act) -> None:
        """Equal, but for the order of its fields, its spaces and the form of its numbers."""
        event = self._one_sent(act)
        data = {
            name: float(one) if name == "amount" and one is not None else one for name, one in event["data"].items()
        }
        self.scenario.labels.update(("duplicate", "rewritten"))
        if act.who % 2:
            self.send(event, _as_avro({**event, "data": data}))
        else:
            self.send(event, json.dumps({**event, "data": data}, indent=2, sort_keys=True).encode())

    def _volatile(self, act: Act) -> None:
        event = self._one_sent(act)
        if event["source"] != "shop":
            self._duplicate(act)
            return
        self.scenario.labels.update(("duplicate", "volatile"))
        self.send({**event, "data": {**event["data"], "note": f"again {act.step}"}})

    def _conflict(self, act: Act) -> None:
        event = self._one_sent(act)
        self.scenario.labels["conflict"] += 1
        if event["source"] == "shop":
            self.send({**event, "data": {**event["data"], "amount": 7.25 + act.who, "serial": "d9"}})
        else:
            self.send({**event, "data": {**event["data"], "visitors": 7 + act.who}})

    def _misrouted(self, act: Act) -> None:
        """In the wrong partition: a new event, or one that was sent before."""
        event = self._make(act) if act.who % 2 or not self.sent else self._one_sent(act)
        if key_of(event) in self.astray:
            # Of two misplaced records of one event the first is the one that is forwarded first: no fact of the log.
            event = self._make(act)
        if event not in self.sent:
            self.sent.append(event)
        right = keys.raw_partition(event["org"], event["source"], event["id"], self.scenario.partitions)
        if self.scenario.partitions == 1:
            self._misrouted_key(act)
            return
        wrong = (right + 1 + act.what % (self.scenario.partitions - 1)) % self.scenario.partitions
        self._misplace(event)
        self.append(wrong, key_of(event), json.dumps(event, ensure_ascii=False).encode())

    def _misrouted_key(self, act: Act) -> None:
        event = self._make(act)
        self.sent.append(event)
        partition = act.what % self.scenario.partitions
        key = (None, b"", b"a key of their own", bytes(16), key_of(self.sent[0]))[act.who % 5]
        if key == key_of(event):
            key = None
        self._misplace(event)
        self.append(partition, key, json.dumps(event).encode())

    def _misplace(self, event: Mapping[str, Any]) -> None:
        self.scenario.labels["misrouted"] += 1
        self.placed[key_of(event)] += 1
        self.astray.add(key_of(event))

    # -- revisions

    def _revision(self, event: dict[str, Any], step: int, *labels: str, data: Any = None, **rest: Any) -> None:
        """Another version of an event: `step` above the highest so far, or a lower one that was left out."""
        known = [one.get("revision", 0) for one in self.sent if one["id"] == event["id"]]
        revision = max(known) + step
        changed = {**event, "revision": revision, "data": event["data"] if data is None else data, **rest}
        if revision in known and not rest.get("repair"):
            self.scenario.labels["duplicate"] += 1
        self.sent.append(changed)
        self.scenario.labels.update(("amended", *labels))
        self.scenario.moments += [clock.ms(changed["time"]), self.now]
        self.send(changed)

    def _other_data(self, event: Mapping[str, Any], act: Act) -> dict[str, Any]:
        if event["type"] == "milepost.action":
            return {**event["data"], "done": not event["data"]["done"], "by": ("bob", None)[act.who % 2]}
        if event["type"] == "milepost.membership":
            return {**event["data"], "to": (None, clock.rfc3339(self.now + clock.QUARTER))[act.who % 2]}
        if event["source"] != "shop" or event["type"] != "sale":
            return dict(event["data"])
        changed = {"amount": _AMOUNTS[act.step % len(_AMOUNTS)], "region": ("north", "süd", None)[act.who % 3]}
        return {**event["data"], **changed, "serial": f"d{act.who % 5}"}

    def _amended(self, act: Act) -> None:
        event = self._one_sent(act)
        self._revision(event, 1 + act.what % 2, data=self._other_data(event, act), void=False)

    def _voided(self, act: Act) -> None:
        self._revision(self._one_sent(act), 1, "voided", void=True)

    def _revised(self, act: Act) -> None:
        """Two versions of a new event, the higher one first; then perhaps the event itself."""
        event = self._make(act)
        high = {**event, "revision": 2 + act.what % 2, "data": self._other_data(event, act), "void": act.who % 5 == 0}
        low = {**event, "revision": act.what % 2}
        for one, label in ((high, "amended"), (low, "amended")):
            self._count(one, label)
            self.now += _STEPS[act.step % len(_STEPS)]

    def _moved(self, act: Act) -> None:
        """The event happened at another time."""
        event = self._one_sent(act)
        t_ms = clock.ms(event["time"]) - LATE[act.what % len(LATE)]
        self._revision(event, 1, "moved", data=self._other_data(event, act), time=clock.rfc3339(t_ms), void=False)

    def _repaired(self, act: Act) -> None:
        event = self._one_sent(act)
        repair = 1 + max(one.get("repair", 0) for one in self.sent if one["id"] == event["id"])
        self._revision(event, 0, data=self._other_data(event, act), repair=repair)

    # -- what does not count

    def _future(self, act: Act) -> None:
        self._spoil(self._make(act, self.now + SKEW + clock.DAY + act.what), "future")

    def _unknown_type(self, act: Act) -> None:
        self._spoil(self._make(act) | {"type": "refund"}, "unknown_type")

    def _unknown_source(self, act: Act) -> None:
        self._spoil(self._make(act) | {"source": "nobody"}, "unknown_source")

    def _missing_key(self, act: Act) -> None:
        if act.who % 2:
            self._spoil(self._make(act, code=..., name=..., serial=...), "missing_key")
        else:
            self._spoil(self._envelope("till", "visit", self.now, {"visitors": 1}), "missing_key")

    def _contract(self, act: Act) -> None:
        wrong: tuple[dict[str, Any], ...] = ({"amount": "12"}, {"channel": ...}, {"region": 5}, {"serial": True})
        self._spoil(self._make(act, **wrong[act.what % 4]), "contract")

    def _changed_company(self, act: Act) -> None:
        """A revision that names another company than the first one that was accepted."""
        event = self._one_sent(act)
        if event["source"] == "shop":
            data = {**event["data"], "code": f"other{act.who % 2}", "name": None}
            self._revision(event, act.what % 3, "changed_company", data=data)

    def _null_amount(self, act: Act) -> None:
        """A rule that compares nothing with a number fails for this event; the other one takes it."""
        self._count(self._make(act, amount=None), "null_amount")

    def _out_of_range(self, act: Act) -> None:
        self._count(self._make(act, amount=1e40), "out_of_range")

    def _quiet(self, act: Act) -> None:
        self._count(self._envelope("shop", "quiet", self.now, {"code": f"c{act.who % COMPANIES}"}), "quiet")

    def _garbage(self, act: Act) -> None:
        self.scenario.labels["garbage"] += 1
        key = (None, b"k", key_of(self.sent[0]) if self.sent else b"")[act.who % 3]
        self.append(act.who % self.scenario.partitions, key, _GARBAGE[act.what % len(_GARBAGE)])

    def _tombstone(self, act: Act) -> None:
        self.scenario.labels["tombstone"] += 1
        if act.who % 3 == 0 or not self.sent:
            self.append(act.what % self.scenario.partitions, (None, b"x", bytes(16))[act.what % 3], None)
            return
        event = self._one_sent(act)
        partition = keys.raw_partition(event["org"], event["source"], event["id"], self.scenario.partitions)
        self.append(partition, key_of(event), None)

    def _forged(self, act: Act) -> None:
        """A stamp without a right MAC is ignored: the record is live."""
        event = self._make(act)
        kind = (keys.BACKDATED, keys.AGAIN, keys.FORWARDED, keys.MARKER, keys.TICK)[act.what % 5]
        stamp = Stamp(kind=kind, k_ms=1, partition=0, offset=0, bundle=keys.NO_BUNDLE)
        self.sent.append(event)
        self.scenario.labels["forged"] += 1
        self.send(event, headers=(keys.seal(b"another secret, guessed", ORG, stamp, key_of(event), b"x"), ("x", b"y")))

    def _clock_back(self, act: Act) -> None:
        event = self._make(act, self.now - clock.HOUR)
        self.sent.append(event)
        self.scenario.labels["clock_back"] += 1
        self.send(event, at_ms=self.now - clock.HOUR)

    def _tick(self, act: Act) -> None:
        for partition in range(self.scenario.partitions):
            stamp = Stamp(kind=keys.TICK, k_ms=0, partition=0, offset=-1, bundle=keys.NO_BUNDLE)
            self.append(partition, b"tick", b"", (keys.seal(SECRET, "", stamp, b"tick", b""),))

    def _apply(self, act: Act) -> None:
        """The next edition of the bundle from here on; the last one is the first again."""
        number = len(self.scenario.applied[ORG])
        if number < len(self.editions):
            self.scenario.labels["changed"] += 1
            self.apply(self.editions[number])


def _as_avro(event: Mapping[str, Any]) -> bytes:
    """The event in Avro: the same event, for the line."""
    return avro.encode(_RAW_EVENT, {**event, "data": json.dumps(event["data"]).encode()})


def key_of(event: Mapping[str, Any]) -> bytes:
    return keys.raw_key(event["org"], event["source"], event["id"], event.get("revision", 0), event.get("repair", 0))
