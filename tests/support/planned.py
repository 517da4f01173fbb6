"""Raw logs in which plans are followed: the acts of events.py, and besides ticks, completions, changes of records and other definitions.

    scenario = planned(7)                     # a seed is a log; `labels` says what is in it
    editions(start_ms)                        # what is applied, one after the other: rules, metrics, milestones, plans

The dates of the milestones lie around the beginning of a log, so that most of them are decided while it goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle import clock, keys
from tests.oracle.keys import Stamp
from tests.support import events
from tests.support.editions import bundle
from tests.support.events import COMPANIES, ORG, SECRET, SKEW, STARTS, Act, Scenario, Writer

WEIGHTS: Mapping[str, int] = {
    "sale": 60, "visit": 40, "linked": 40, "device_only": 2, "late": 20, "far_late": 5, "early": 4, "boundary": 12,
    "avro": 4, "duplicate": 14, "rewritten": 3, "volatile": 3, "conflict": 12, "misrouted": 16, "misrouted_key": 3,
    "backdated": 8, "future": 4, "garbage": 3, "unknown_type": 2, "unknown_source": 2, "missing_key": 3, "contract": 3,
    "amended": 12, "voided": 10, "revised": 8, "moved": 10, "repaired": 5, "changed_company": 4, "null_amount": 4,
    "by_hand_link": 10, "by_hand_unlink": 12, "rejoined": 8, "membership": 16, "person_only": 16, "unique": 6,
    "blocked": 4, "quiet": 4, "tombstone": 3, "forged": 3, "clock_back": 3, "tick": 12, "apply": 16, "other_org": 4,
    "out_of_range": 2, "ticked": 44, "ticked_late": 12, "tick_amended": 14, "tick_voided": 12, "tick_refused": 6,
    "ticked_backdated": 5, "completed": 22, "completed_back": 10, "completed_backdated": 8, "completed_ahead": 4,
    "left": 10, "recorded": 12, "record_amended": 6, "record_refused": 3,
}  # fmt: skip
"""How often a kind of act is drawn."""

HARD = (
    "late", "far_late", "boundary", "duplicate", "conflict", "linked_apart", "misrouted", "backdated", "amended",
    "voided", "moved", "revised", "future", "by_hand_link", "unlinked", "rejoined", "membership", "membership_ends",
    "person_only", "left", "unique", "engine_tick", "redefined", "redefined_twice", "ticked", "unticked", "ticked_late",
    "tick_amended", "tick_voided", "tick_refused", "completed", "completed_back", "completed_backdated", "quiet",
    "recorded", "record_amended",
)  # fmt: skip
"""The cases that many logs are to show, each at least a twentieth of them."""

OFTEN = (1, 2, 7, 8, 13, 14)
"""Numbers that choose the same two companies by their codes: half of all acts are theirs."""

TICKABLE = (
    ("pilot", "opened", "signed"), ("pilot", "agreed", "signed"), ("pilot", "agreed", "delivered"),
    ("growth", "steady", "review"), ("growth", "grown", "note"), ("account", "opened", "signed"),
    ("growth", "steady", "review"), ("pilot", "agreed", "delivered"),
)  # fmt: skip
"""What people tick; the last ones of an edition are not there in another."""
NOTHING_TO_TICK = (
    ("pilot", "opened", "sold"), ("pilot", "opnd", "signed"), ("standard", "opened", "signed"), ("growth", "quiet", "few"),
)  # fmt: skip
RECORDS = (
    *(("channel", one) for one in ("web", "desk")), *(("shop", f"c{n}") for n in range(COMPANIES)),
    ("place", "north"), ("place", "süd"),
)  # fmt: skip
"""Records that events or people write."""
OPS = ("upsert", "create", "update", "patch", "delete")
PLANS: Mapping[str, tuple[str, ...]] = {
    "pilot": ("opened", "agreed"), "growth": ("steady", "grown", "quiet"), "account": ("opened", "agreed"),
}  # fmt: skip
"""Each plan on a bridge, and its milestones in the first edition."""


def planned(seed: int, *, size: int | None = None) -> Scenario:
    """A log chosen by a seed; `size` acts, else 25 to 50."""
    chance = random.Random(seed)
    partitions, start = chance.choice((3, 3, 2, 4, 1)), clock.ms(chance.choice(STARTS))
    size = chance.randint(25, 50) if size is None else size

    def number() -> int:
        return chance.choice(OFTEN) if chance.random() < 0.5 else chance.randrange(1000)

    acts = [
        Act(kind=kind, step=chance.randrange(1000), who=number(), what=chance.randrange(1000))
        for kind in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=size)
    ]
    return PlanWriter(partitions, start, editions(start)).write(acts)


@lru_cache(maxsize=16)
def editions(start_ms: int) -> tuple[Mapping[str, bytes], ...]:
    """The bundles: another condition and an easier milestone; other metrics, one gone, another deadline; other plans, one
    tick gone; then the first again."""
    first = _terms(start_ms)
    easier, later, other = (json.loads(json.dumps(first)) for _ in range(3))
    easier["milestones"]["grown"]["actions"]["amount"]["value"] = 50
    easier["milestones"]["steady"]["need"] = "all"
    later["milestones"]["opened"]["deadline"] = _utc(clock.floor(start_ms) + 18 * clock.HOUR)
    later["milestones"]["steady"]["kind"] = "achieve"
    other["plans"]["growth"] |= {"tz": "Asia/Kathmandu", "milestones": ["steady", "grown"]}
    other["plans"]["account"]["overrides"]["opened"]["actions"]["sold"]["value"] = 4
    del other["milestones"]["agreed"]["actions"]["delivered"]
    texts = [
        _bundle("100.0", 1, first),
        _bundle("50.0", 2, easier),
        _bundle("50.0", 2, later),
        _bundle("25.0", 2, other),
    ]
    replaced = {
        b"visitors: {from: visited, aggregate: sum(visitors), ": b"visitors: {from: visited, aggregate: sum(visitors), scale: 2, ",
        b"  big_half: {from: sold_big, aggregate: sum(half), unit: euro}\n": b"",
        b"people: {from: sold, aggregate: distinct(person), dimensions: [channel]": b"people: {from: sold, aggregate: distinct(person), dimensions: [channel, region]",
    }  # fmt: skip
    for old, new in replaced.items():
        text = texts[2]["milepost.yaml"]
        assert old in text, old
        texts[2]["milepost.yaml"] = text.replace(old, new)
    return (*texts, texts[0])


def _bundle(big: str, logins: int, terms: Mapping[str, Any]) -> dict[str, bytes]:
    return bundle(big, logins, "".join(f"{name}: {json.dumps(section)}\n" for name, section in terms.items()))


def _terms(start_ms: int) -> dict[str, Any]:
    """Milestones and plans of the first edition.  A key account's bridge names one company."""
    start, zone = clock.floor(start_ms), "Europe/Berlin"
    account = keys.metakey(keys.leaf(SECRET, ORG, "company", "code", "c1"))

    def spell(first: int, hours: int, **rest: Any) -> dict[str, Any]:
        return {"start": _utc(start + first * clock.HOUR), "deadline": _utc(start + hours * clock.HOUR), **rest}

    milestones = {
        "opened": spell(0, 12, kind="achieve", grace="2h", need={"at_least": 2}, actions={
            "sold": {"metric": "sales", "op": ">=", "value": 2},
            "visited": {"metric": "visits", "op": ">=", "value": 1},
            "signed": {"manual": "contract signed"},
        }),
        "agreed": spell(1, 24, kind="achieve", need={"at_least": 1}, actions={
            "signed": {"manual": "contract signed"}, "delivered": {"manual": "first delivery made"},
        }),
        "steady": spell(0, 30, kind="maintain", grace="6h", need={"at_least": 1}, actions={
            "seen": {"metric": "sales", "window": "3h", "op": ">=", "value": 1, "sustain": "30m"},
            "review": {"manual": "review held"},
        }),
        "grown": {"kind": "achieve", "grace": "1d", "need": {"weight": 0.7},
                  "start": _local(start, zone), "deadline": _local(start + 36 * clock.HOUR, zone), "actions": {
            "amount": {"metric": "amount_sum", "window": "7d", "op": ">=", "value": 100, "weight": 0.4},
            "people": {"metric": "people", "window": "day", "op": ">=", "value": 2, "weight": 0.3},
            "rate": {"metric": "big_rate", "window": "24h", "op": ">=", "value": 0.5, "weight": 0.3},
            "note": {"manual": "note taken", "affects": False},
        }},
        "quiet": spell(6, 24, kind="maintain", grace="1h", actions={
            "few": {"metric": "sales", "op": "<=", "value": 3},
        }),
    }  # fmt: skip
    patch = {"opened": {"need": "all", "actions": {"sold": {"value": 3}}}}
    plans = {
        "standard": {"milestones": ["opened", "agreed"], "metrics": ["sales"]},
        "pilot": {"bridge": f"{ORG}/*", "template": "standard"},
        "growth": {"bridge": f"{ORG}/*", "tz": zone, "milestones": list(PLANS["growth"])},
        "account": {"bridge": f"{ORG}/{account}", "template": "standard", "overrides": patch},
    }
    return {"milestones": milestones, "plans": plans}


def _utc(at_ms: int) -> str:
    return clock.rfc3339(at_ms)[:19] + "Z"


def _local(at_ms: int, tz: str) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return moment.astimezone(ZoneInfo(tz)).strftime("%Y-%m-%dT%H:%M")


class PlanWriter(Writer):
    """Writes one log in which plans are followed."""

    def apply(self, files: Mapping[str, bytes]) -> None:
        if self.scenario.applied:
            self.scenario.labels["redefined_twice" if self.scenario.labels["redefined"] else "redefined"] += 1
        super().apply(files)

    def _left(self, act: Act) -> None:
        """A person leaves a company: what it does before is the company's, what it does behind is not."""
        email, end_ms = f"p{act.what % 4}@a.example", clock.floor(self.now)
        names = {"member": f"email:{email}", "company": f"code:c{act.who % 3}", "to": clock.rfc3339(end_ms)}
        self._by_hand(act, "membership", "membership", "membership_ends", entity="person", **names)
        alone: dict[str, Any] = dict.fromkeys(("code", "name", "serial", "login"), ...) | {"email": email}
        for t_ms in (end_ms - clock.HOUR, end_ms - 1, end_ms, self.now):
            self._count(self._make(act, t_ms, **alone), "person_only", "left")

    # -- what people tick

    def _tick_of(self, act: Act, t_ms: int, of: tuple[str, str, str]) -> dict[str, Any]:
        names = dict(zip(("plan", "milestone", "action"), of, strict=True))
        company = f"code:c{act.who % 3}" if act.who % 7 else self._some_key("company", act.what)
        data = {**names, "company": company, "done": act.what % 4 != 0, "by": ("ann", "bob", None)[act.step % 3]}
        return self._envelope("milepost", "milepost.action", t_ms, data)

    def _ticked(self, act: Act) -> None:
        event = self._tick_of(act, self.now, TICKABLE[act.step % len(TICKABLE)])
        self._count(event, "ticked" if event["data"]["done"] else "unticked")

    def _ticked_late(self, act: Act) -> None:
        t_ms = self.now - events.LATE[act.what % len(events.LATE)]
        self._count(self._tick_of(act, t_ms, TICKABLE[act.step % len(TICKABLE)]), "ticked", "ticked_late")

    def _ticked_backdated(self, act: Act) -> None:
        event = self._tick_of(act, self.now - clock.HOUR, TICKABLE[act.step % len(TICKABLE)])
        self._known_at(event, self.now - (0, clock.HOUR, 30 * clock.MINUTE)[act.what % 3], "ticked", "ticked_backdated")

    def _tick_refused(self, act: Act) -> None:
        self._spoil(self._tick_of(act, self.now, NOTHING_TO_TICK[act.step % len(NOTHING_TO_TICK)]), "tick_refused")

    def _tick_amended(self, act: Act) -> None:
        """Whether it is done, or when it was, told anew."""
        event = self._one_ticked(act)
        t_ms = clock.ms(event["time"]) - (0, 0, clock.HOUR, -clock.MINUTE)[act.what % 4]
        self._revision(
            event,
            1 + act.what % 2,
            "tick_amended",
            data=self._other_data(event, act),
            void=False,
            time=clock.rfc3339(t_ms),
        )

    def _tick_voided(self, act: Act) -> None:
        self._revision(self._one_ticked(act), 1, "voided", "tick_voided", void=True)

    def _one_ticked(self, act: Act) -> dict[str, Any]:
        """One of the last ticks; if there is none, one that is made now."""
        if not any(event["type"] == "milepost.action" for event in self.sent):
            self._ticked(act)
        found = [event for event in self.sent if event["type"] == "milepost.action"]
        return found[-1 - act.what % min(len(found), 4)]

    # -- how complete sources are said to be

    def _said(self, act: Act, until_ms: int) -> dict[str, Any]:
        data = {"source": ("shop", "till")[act.who % 2], "until": clock.rfc3339(until_ms), "by": "ann"}
        return self._envelope("milepost", "milepost.source_complete", self.now, data)

    def _completed(self, act: Act) -> None:
        until_ms = self.now + (0, 0, SKEW, -clock.MINUTE, -clock.HOUR, -clock.DAY)[act.what % 6]
        self._count(self._said(act, until_ms), "completed")

    def _completed_back(self, act: Act) -> None:
        """Of an earlier time than what was said before."""
        self._count(self._said(act, self.now), "completed")
        self.now += act.step * 1000
        self._count(self._said(act, self.now - events.LATE[act.what % len(events.LATE)]), "completed_back")

    def _completed_backdated(self, act: Act) -> None:
        """Known before what was said before: out of order."""
        self._count(self._said(act, self.now), "completed")
        self.now += act.step * 1000
        k_ms = self.now - events.LATE[act.what % 4]
        event = self._said(act, k_ms + (0, SKEW, -clock.HOUR)[act.step % 3])
        self._known_at({**event, "time": clock.rfc3339(k_ms)}, k_ms, "completed_backdated")

    def _completed_ahead(self, act: Act) -> None:
        """Of a time that nobody can know."""
        self._spoil(self._said(act, self.now + SKEW + 1 + act.what), "future")

    # -- what people write into records

    def _record(self, act: Act) -> dict[str, Any]:
        record, id = RECORDS[act.who % len(RECORDS)]
        fields = {"amount": act.step % 7, "region": ("north", None)[act.step % 2], "channel": "desk"}
        data = {"record": record, "id": id, "op": OPS[act.what % len(OPS)], "fields": json.dumps(fields), "by": "ann"}
        return self._envelope(
            "milepost", "milepost.record", self.now - events.LATE[act.step % 3] * (act.what % 2), data
        )

    def _recorded(self, act: Act) -> None:
        self._count(self._record(act), "recorded")

    def _record_amended(self, act: Act) -> None:
        """Another change in place of the last one, or none."""
        if not any(event["type"] == "milepost.record" for event in self.sent):
            self._recorded(act)
        event = [event for event in self.sent if event["type"] == "milepost.record"][-1]
        data = {**event["data"], "op": OPS[act.step % len(OPS)], "fields": json.dumps({"amount": act.who})}
        self._revision(event, 1, "record_amended", data=data, void=act.what % 3 == 0)

    def _record_refused(self, act: Act) -> None:
        event = self._record(act)
        wrong: tuple[dict[str, Any], ...] = ({"op": "make"}, {"record": "shops"}, {"fields": "[]"}, {"id": ""})
        self._spoil({**event, "data": {**event["data"], **wrong[act.what % len(wrong)]}}, "record_refused")

    def _known_at(self, event: dict[str, Any], k_ms: int, *labels: str) -> None:
        """Send an event with the stamp of an administrator who says since when it is known."""
        stamp = Stamp(kind=keys.BACKDATED, k_ms=k_ms, partition=0, offset=-1, bundle=keys.NO_BUNDLE)
        value, key = json.dumps(event).encode(), events.key_of(event)
        self.sent.append(event)
        self.scenario.labels.update(labels)
        self.scenario.moments += [clock.ms(event["time"]), k_ms, self.now]
        self.send(event, value, headers=(keys.seal(SECRET, ORG, stamp, key, value),))

    # -- the labels that events.py does not need

    def _tick(self, act: Act) -> None:
        self.scenario.labels["engine_tick"] += 1
        super()._tick(act)

    def _boundary(self, act: Act) -> None:
        self.scenario.labels["boundary"] += 1
        super()._boundary(act)

    def _revised(self, act: Act) -> None:
        self.scenario.labels["revised"] += 1
        super()._revised(act)
