"""How plans stand, out of cells, against a walk over every pane end over the raw log."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology import standings
from milepost.topology.driver import Driver
from milepost.topology.milestones import Course
from milepost.topology.panes import PANE_MS
from milepost.topology.refusals import UnknownMilestone, UnknownPlan
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.oracle.keys import metakey
from tests.oracle.oracle import Oracle
from tests.oracle.outcomes import Outcome, outcome
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, by_hand, iso, visit
from tests.support.versus import oracle_over

START, DEADLINE, GRACE = T0 + 6 * HOUR, T0 + 12 * HOUR, HOUR
NOW = T0 + 20 * HOUR
ZONE = "Asia/Kathmandu"
MILESTONES: dict[str, dict[str, Any]] = {
    "busy": {"kind": "achieve", "need": "all", "actions": {
        "visits": {"metric": "visits", "window": "3h", "op": ">=", "value": 3},
        "long": {"metric": "minutes_max", "window": "2h", "op": ">", "value": 40},
    }},
    "steady": {"kind": "maintain", "need": "all", "actions": {
        "seen": {"metric": "visits", "window": "90m", "op": ">=", "value": 1, "sustain": 2 * PANE_MS},
    }},
    "some": {"kind": "achieve", "need": {"at_least": 2}, "actions": {
        "devices": {"metric": "devices", "window": "day", "op": ">=", "value": 3},
        "rate": {"metric": "long_rate", "window": "4h", "op": ">=", "value": 0.5},
        "ever": {"metric": "minutes_sum", "op": ">=", "value": 300},
        "idle": {"metric": "visits", "window": "1h", "op": "==", "value": 0, "affects": False},
    }},
    "quiet": {"kind": "maintain", "need": "all", "actions": {
        "few": {"metric": "visits", "window": "1h", "op": "<=", "value": 1},
        "average": {"metric": "minutes_avg", "op": "<", "value": 60},
    }},
    "agreed": {"kind": "achieve", "need": "all", "actions": {
        "signed": {"manual": "contract signed"},
        "met": {"metric": "visits", "window": "4h", "op": ">=", "value": 1},
    }},
    "kept": {"kind": "maintain", "need": {"at_least": 1}, "actions": {
        "review": {"manual": "review held"},
        "call": {"manual": "call held"},
        "note": {"manual": "note taken", "affects": False},
    }},
}  # fmt: skip


def date(t_ms: int) -> str:
    """A time as a bundle writes it."""
    return standings.written(t_ms)


def text() -> dict[str, bytes]:
    """The small organisation with the milestones above in a plan of another zone."""
    lines = ["milestones:"]
    for name, one in MILESTONES.items():
        lines += [
            f"  {name}:",
            f"    kind: {one['kind']}",
            f"    start: {date(START)}",
            f"    deadline: {date(DEADLINE)}",
        ]
        need = one["need"] if one["need"] == "all" else f"{{at_least: {one['need']['at_least']}}}"
        lines += ["    grace: 1h", f"    need: {need}", "    actions:"]
        for action, given in one["actions"].items():
            shown = {**given, "op": f'"{given["op"]}"'} if "op" in given else dict(given)
            if "sustain" in shown:
                shown["sustain"] = f"{given['sustain'] // 60_000}m"
            if "affects" in shown:
                shown["affects"] = "false"
            lines.append(f"      {action}: {{{', '.join(f'{key}: {value}' for key, value in shown.items())}}}")
    lines += ["plans:", f'  growth: {{bridge: "{ORG}/*", milestones: [{", ".join(MILESTONES)}], tz: {ZONE}}}']
    main = FILES["milepost.yaml"].decode() + "\n".join(lines) + "\n"
    return {**FILES, "milepost.yaml": main.encode()}


def history(seed: int) -> list[tuple[dict[str, Any], int]]:
    """Visits, and what people tick and untick, also long before, late, and by mistake."""
    chance = random.Random(seed)
    return visits(chance) + ticks(chance)


def visits(chance: random.Random) -> list[tuple[dict[str, Any], int]]:
    """Visits of two companies over half a day, some late, some amended or taken back; what is said of their source,
    often before the last of them."""
    sent = []
    for i in range(chance.randrange(10, 50)):
        t_ms = T0 + chance.randrange(2 * HOUR, 14 * HOUR, 60_000)
        event = visit(
            f"e{i}", t_ms, company=f"c{i % 2}", minutes=float(chance.randrange(90)), device=f"d{chance.randrange(5)}"
        )
        k_ms = t_ms + chance.choice((0, 0, 60_000, HOUR, 3 * HOUR))
        sent.append((event, k_ms))
        if chance.random() < 0.2:
            sent.append(({**event, "revision": 1, "void": chance.random() < 0.5}, k_ms + chance.randrange(4 * HOUR)))
    for i in range(chance.randrange(3)):
        until_ms = T0 + chance.randrange(4 * HOUR, 16 * HOUR, 60_000)
        known_ms = until_ms + chance.randrange(-600_000, 4 * HOUR, 60_000)
        sent.append((by_hand("source_complete", f"c{i}", known_ms, source="app", until=iso(until_ms)), known_ms))
    return sent


def tick(id: str, t_ms: int, of: str, company: str, done: bool = True, **more: Any) -> dict[str, Any]:
    """An action ticked or not: `of` is milestone/action, `company` a key:value."""
    milestone, action = of.split("/")
    made = by_hand(
        "action", id, t_ms, plan="growth", milestone=milestone, action=action, company=company, done=done, by=id
    )
    return {**made, **more}


def ticks(chance: random.Random) -> list[tuple[dict[str, Any], int]]:
    """Ticks of two companies, one of which is also known by its domain; sometimes a link, and its opposite."""
    found = []
    for i in range(chance.randrange(12)):
        t_ms = T0 + chance.randrange(1 * HOUR, 14 * HOUR, 60_000)
        of = chance.choice(("agreed/signed", "kept/review", "kept/call", "kept/note"))
        company = chance.choice(("crm_id:c0", "crm_id:c1", "domain:c0.example"))
        event = tick(f"t{i}", t_ms, of, company, done=chance.random() < 0.6)
        known_ms = t_ms + chance.choice((0, 0, 60_000, HOUR, 3 * HOUR))
        found.append((event, known_ms))
        if chance.random() < 0.3:
            again = tick(f"t{i}", t_ms + chance.randrange(-HOUR, HOUR, 60_000), of, company, chance.random() < 0.5)
            other = {**again, "revision": 1, "void": chance.random() < 0.5}
            found.append((other, known_ms + HOUR + chance.randrange(4 * HOUR)))
    for what in ("link", "unlink")[: chance.randrange(3)]:
        known_ms = T0 + chance.randrange(2 * HOUR, 14 * HOUR)
        keys = ["crm_id:c0", "crm_id:c1"][: 2 if what == "link" else 1]
        found.append((by_hand(what, what, known_ms, keys=keys), known_ms))
    found.append((by_hand("link", "own", T0, keys=["crm_id:c0", "domain:c0.example"]), T0))
    return found


def both(seed: int) -> tuple[Driver, Oracle]:
    """The engine's tables and the oracle's reading of one history."""
    made = Driver(SECRET, partitions=3, chunk=7, seed=seed)
    files = text()
    bundle = made.apply(ORG, files, T0 - HOUR)
    for event, k_ms in history(seed):
        made.produce(event, NOW, known_ms=k_ms)
    made.tick(NOW)
    made.run()
    return made, oracle_over(made, SECRET, {bundle: files})


def told(row: dict[str, Any]) -> Outcome:
    values = {
        one["name"]: (one["holds"], one["since"], one["by"]) if "manual" in one else one["value"]
        for one in row["actions"]
    }
    achieved = row["achieved_at"]
    held = {one["name"]: (one["since"], one["first_held"]) for one in row["actions"] if "metric" in one}
    return Outcome(state=row["state"], achieved_ms=achieved, lapses=row["lapsed"], values=values, held=held)


def expected(oracle: Oracle, name: str, company: str, asked: dict[str, Any], seen_ms: int = NOW) -> Outcome:
    one = {**MILESTONES[name], "name": ("growth", name), "start": START, "deadline": DEADLINE, "grace": GRACE}
    found = outcome(oracle, one, company, asked, tz=ZONE, seen_ms=seen_ms)
    written = None if found.achieved_ms is None else standings.written(found.achieved_ms)
    values = {
        action: (value[0], None if value[1] is None else standings.written(value[1]), value[2])
        if "manual" in one["actions"][action]
        else value
        for action, value in found.values.items()
    }
    held = {
        action: tuple(None if one is None else standings.written(one) for one in both)
        for action, both in found.held.items()
    }
    return Outcome(state=found.state, achieved_ms=written, lapses=found.lapses, values=values, held=held)  # type: ignore[arg-type]


def moments(seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    asked: list[dict[str, Any]] = [{"at": None, "basis": "latest", "now": NOW}]
    for basis in ("corrected", "as_shown", "as_shown"):
        asked.append({"at": T0 + chance.randrange(4 * HOUR, 16 * HOUR, PANE_MS), "basis": basis, "now": NOW})
    return asked


@pytest.mark.parametrize("seed", range(12))
def test_every_milestone_stands_as_a_walk_over_the_log_says(seed: int) -> None:
    """State, date, lapses and values are the oracle's, on each basis, for every aggregate, window and need."""
    made, oracle = both(seed)
    questions = Standings(made.reader)
    leaves = [leaf for one in oracle.companies() for leaf in one.leaves]
    for asked in moments(seed):
        decided_at = asked["at"] if asked["basis"] == "as_shown" else None
        companies = {metakey(oracle.root(leaf, decided_at)) for leaf in leaves}
        answer = run(questions.states(Asks(now_ms=NOW, at_ms=asked["at"], basis=asked["basis"])))
        rows = {(row["milestone"], row["company"]): told(row) for row in answer["milestones"]}
        assert len(rows) == len(MILESTONES) * len(companies)
        for (name, company), row in rows.items():
            assert row == expected(oracle, name, company, asked), (name, company, asked)


def test_an_event_more_may_decide() -> None:
    """Positive control: without its last visits a history has other standings."""
    made, _ = both(1)
    fewer, _ = both(2)
    rows = [run(Standings(one.reader).states(Asks(now_ms=NOW)))["milestones"] for one in (made, fewer)]
    assert [told(row) for row in rows[0]] != [told(row) for row in rows[1]]


def test_a_portfolio_counts_the_companies_by_state() -> None:
    """A plan's portfolio says of each milestone how many companies stand how."""
    made, _ = both(3)
    questions = Standings(made.reader)
    found = run(questions.portfolio(Asks(now_ms=NOW, plan="growth")))
    states = run(questions.states(Asks(now_ms=NOW)))["milestones"]
    for one in found["milestones"]:
        mine = [row["state"] for row in states if row["milestone"] == one["name"]]
        assert one["states"] == {state: mine.count(state) for state in sorted(set(mine))} and len(mine) == 2


def test_what_is_not_planned_is_refused_with_a_guess() -> None:
    """A plan or a milestone that nobody declared is an error that names the one probably meant."""
    made, _ = both(3)
    questions = Standings(made.reader)
    with pytest.raises(UnknownPlan) as plan:
        run(questions.states(Asks(now_ms=NOW, plan="grow")))
    with pytest.raises(UnknownMilestone) as milestone:
        run(questions.states(Asks(now_ms=NOW, milestone="bussy")))
    assert (plan.value.guess, milestone.value.guess) == ("growth", "busy")


def test_a_plan_says_what_was_agreed() -> None:
    """The terms of a plan are told in UTC, whatever its zone."""
    made, _ = both(3)
    (plan,) = Standings(made.reader).plans()["plans"]
    assert plan["bridge"] == f"{ORG}/*" and plan["tz"] == ZONE
    assert {one["milestone"]: one["start"] for one in plan["milestones"]} == dict.fromkeys(
        MILESTONES, standings.written(START)
    )
    catalog = made.decisions.history[ORG][-1].catalog
    assert Course.of(catalog.milestones["busy"], ZONE).start * PANE_MS == START and DAY > DEADLINE - START


def test_companies_that_protection_keeps_apart_stand_apart() -> None:
    """Two companies under one domain are two standings where their own key is unique, and one where it is not."""
    event = [visit(f"e{i}", START, company=f"c{i}", domain="shared.example") for i in range(2)]
    for unique, companies in (("", 1), (", unique: true", 2)):
        made = Driver(SECRET)
        files = text()
        files["milepost.yaml"] = files["milepost.yaml"].replace(
            b"required: true}", f"required: true{unique}}}".encode()
        )
        made.apply(ORG, files, T0 - HOUR)
        for one in event:
            made.produce(one, NOW, known_ms=START)
        made.run()
        rows = run(Standings(made.reader).states(Asks(now_ms=NOW, milestone="busy")))["milestones"]
        assert len(rows) == companies
