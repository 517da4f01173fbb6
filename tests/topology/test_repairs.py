"""Repairs: a problem's events sent again, mapped, once in effect; and a preview that is what then happens."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import orjson
import pytest

from milepost.schemas.keys import raw_key
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.repairs import example
from tests.oracle.repairs import resends
from tests.support.events import ORG as SHOP
from tests.support.events import SECRET as SHOPS_SECRET
from tests.support.events import Question, seeded
from tests.support.invariants import held, same_answers
from tests.support.repairing import effects, judged, problems_of, records_at, repaired, send, the_problem
from tests.support.small import DAY, FILES, HOUR, ORG, T0, visit
from tests.support.versus import ask_engine, ask_oracle, engine_of, oracle_over
from tests.topology.test_mutants import asked
from tests.topology.test_revisions import engine, reasons, value

FIX = {"steps": [{"rename": "data.compani", "to": "company"}]}
METRICS = (
    "visits",
    "long_visits",
    "minutes_sum",
    "minutes_avg",
    "minutes_min",
    "minutes_max",
    "minutes_last",
    "length_p50",
    "devices",
    "long_rate",
)
NOW = T0 + 30 * DAY


def broken(event: dict[str, Any]) -> dict[str, Any]:
    """The same as a deploy that misspells a field sends it."""
    data = {("compani" if name == "company" else name): value for name, value in event["data"].items()}
    return {**event, "data": data}


def events(count: int) -> list[dict[str, Any]]:
    some = random.Random(8)
    return [
        visit(f"e{n}", T0 + n * HOUR // 4, str(1 + n % 3), minutes=float(some.randrange(60)), device=f"d{n % 7}", page="ab"[n % 2])
        for n in range(count)
    ]  # fmt: skip


def values(made: Driver) -> dict[str, Any]:
    return {name: value(made, name) for name in METRICS}


def test_a_deploy_that_broke_events_is_one_problem_repaired_once() -> None:
    """Of 60 events 40 are broken: one problem.  The preview says what metrics will be, nothing is written; repaired,
    every value is as if all had been right; a second repair finds nothing and changes nothing."""
    sent = [broken(one) if n % 3 else one for n, one in enumerate(events(60))]
    made, right = engine(*((one, T0 + 20 * DAY) for one in sent)), engine(*((one, T0 + 20 * DAY) for one in events(60)))
    before, whole = values(made), digest(made.reader)
    problem = the_problem(made)
    work, fates = judged(made, problem, FIX, NOW)
    foreseen = effects(made, work)
    assert Counter(fate.what for fate in fates) == {"pass": 40}
    assert {name: foreseen[name][0] for name in METRICS} == before and digest(made.reader) == whole
    send(made, work, fates, NOW)
    assert values(made) == {name: foreseen[name][1] for name in METRICS} == values(right)
    assert problems_of(made).state(the_problem(made)) == "repaired"
    whole = digest(made.reader)
    assert repaired(made, the_problem(made), FIX, NOW + HOUR) == [] and digest(made.reader) == whole


def test_a_repair_that_was_killed_goes_on_and_sends_nothing_twice_in_effect() -> None:
    """Half was sent and not noted: whoever goes on finds it repaired; two who send at a time are one in effect."""
    made = engine(*((broken(one), T0) for one in events(20)))
    problem = the_problem(made)
    work, fates = judged(made, problem, FIX, NOW)
    again = judged(made, problem, FIX, NOW)
    send(made, work, fates[:10], NOW, noted=False)
    first = values(made)["visits"]
    second = repaired(made, the_problem(made), FIX, NOW + HOUR)
    assert (first, Counter((one.what, one.why) for one in second)) == (
        10,
        {("pass", ""): 10, ("settled", "repaired"): 10},
    )
    whole, duplicates = values(made), made.fates["ingest"].get("duplicate", 0)
    send(made, *again, NOW + 2 * HOUR)  # one who judged before all this and sends now
    assert values(made) == whole and whole["visits"] == 20 and not problems_of(made).open(problem).size
    assert made.fates["ingest"]["duplicate"] == duplicates + 20 and len(reasons(made)) == 20


def test_a_repair_counts_above_what_it_repairs_and_below_the_next_revision() -> None:
    """The order is (revision, repair): the next revision that had come before counts on."""
    bad = broken(visit("e", T0, minutes=5.0))
    later = {**visit("e", T0, minutes=9.0), "revision": 1}
    made = engine((bad, T0), (later, T0 + HOUR))
    (fate,) = repaired(made, the_problem(made), FIX, NOW)
    assert fate.what == "pass" and value(made, "minutes_sum") == 9 and value(made, "visits") == 1
    assert value(made, "minutes_sum", NOW + HOUR, "as_shown") == 9
    assert orjson.loads(fate.output.value or b"")["repair"] == 1 and fate.output.key == raw_key(ORG, "app", "e", 0, 1)  # type: ignore[union-attr]


def test_the_past_as_it_was_shown_does_not_move() -> None:
    """A repair is known from when it was sent."""
    made = engine((visit("a", T0), T0), (broken(visit("b", T0)), T0))
    repaired(made, the_problem(made), FIX, NOW)
    assert value(made, "visits", T0 + DAY, "as_shown") == 1 and value(made, "visits", T0 + DAY, "corrected") == 2
    assert value(made, "visits", NOW + DAY, "as_shown") == 2


def test_an_event_that_its_source_has_sent_right_is_not_repaired_over() -> None:
    """The resend became the first: sending the old body again would replace it."""
    event = visit("e", T0, minutes=5.0)
    made = engine((broken(event), T0), ({**event, "data": {**event["data"], "minutes": 7.0}}, T0 + HOUR))
    (fate,) = repaired(made, the_problem(made), FIX, NOW)
    assert (fate.what, fate.why) == ("settled", "resent") and value(made, "minutes_sum") == 7
    assert problems_of(made).state(the_problem(made)) == "repaired"


def test_a_repeat_that_is_broken_is_not_repaired_over_its_first() -> None:
    """An event was accepted, then came once more, broken: its first stays."""
    event = visit("e", T0, minutes=5.0)
    made = engine((event, T0), (broken({**event, "data": {**event["data"], "minutes": 7.0}}), T0 + HOUR))
    (fate,) = repaired(made, the_problem(made), FIX, NOW)
    assert (fate.what, fate.why) == ("settled", "resent") and value(made, "minutes_sum") == 5


def test_of_several_broken_records_of_one_event_the_newest_counts() -> None:
    """It is the one that compaction leaves; the others need not be sent."""
    made = engine(*((broken(visit("e", T0, minutes=float(n))), T0 + n) for n in range(4)))
    fates = repaired(made, the_problem(made), FIX, NOW)
    assert Counter((one.what, one.why) for one in fates) == {("pass", ""): 1, ("settled", "repeated"): 3}
    assert value(made, "minutes_sum") == 3


def test_a_record_that_compaction_has_removed_needs_no_repair() -> None:
    """Its name has a newer record."""
    made = engine((broken(visit("e", T0)), T0))
    work, _ = judged(made, the_problem(made), FIX, NOW)
    from milepost.topology.steps import run

    (fate,) = run(work.judge([(17, None)]))
    assert (fate.what, fate.why) == ("settled", "gone")


def test_what_would_fail_again_stays_open_with_its_reason() -> None:
    """Some of a problem have more than one fault: they are not sent."""
    worse = broken(visit("worse", T0, minutes="many"))
    odd = broken(visit("odd", T0)) | {"data": {"compani": "1", "company": None}}
    made = engine((broken(visit("e", T0)), T0), (worse, T0), (odd, T0))
    fates = repaired(made, the_problem(made), FIX, NOW)
    assert Counter((one.what, one.why) for one in fates) == {
        ("pass", ""): 1,
        ("fail", "decode/contract_violation"): 1,
        ("fail", "mapping"): 1,
    }
    found = problems_of(made)
    assert (len(found.open(the_problem(made))), found.state(the_problem(made)), value(made, "visits")) == (2, "open", 1)
    more = {"steps": [{"delete": "data.company"}, *FIX["steps"], {"set": "data.minutes", "value": 3.0}]}
    assert [one.what for one in repaired(made, the_problem(made), more, NOW + HOUR)] == ["pass", "pass"]
    assert problems_of(made).state(the_problem(made)) == "repaired" and value(made, "visits") == 3


def test_an_unknown_type_is_repaired_by_definitions_that_know_it() -> None:
    """Without a mapping events are judged anew under the definitions in force."""
    made = engine((visit("a", T0, type="visit2"), T0), (visit("b", T0), T0))
    assert [one.what for one in judged(made, the_problem(made), {}, NOW)[1]] == ["fail"]
    text = FILES["milepost.yaml"].replace(
        b"      idle: {schema: Visit}", b"      idle: {schema: Visit}\n      visit2: {schema: Visit}"
    )
    text = text.replace(b"signals:\n", b"signals:\n  visited2: {on: visit2, fields: {page: data.page}}\n")
    text = text.replace(b"metrics:\n", b"metrics:\n  visits2: {from: visited2, aggregate: count}\n")
    made.apply(ORG, {**FILES, "milepost.yaml": text}, NOW)
    made.run()
    work, fates = judged(made, the_problem(made), {}, NOW)
    assert effects(made, work)["visits2"] == (None, 1)
    send(made, work, fates, NOW)
    assert value(made, "visits2") == 1 and problems_of(made).state(the_problem(made)) == "repaired"


def rule_fixed(made: Driver) -> None:
    """The rule that failed for null has a value for it now."""
    text = FILES["milepost.yaml"].replace(
        b"data.minutes != null && data.minutes > 30.0", b"data.minutes == null || data.minutes > 30.0"
    )
    made.apply(ORG, {**FILES, "milepost.yaml": text}, NOW)
    made.run()


def failing() -> Driver:
    """A rule that has no value for events without minutes; two of four have none."""
    text = FILES["milepost.yaml"].replace(b"data.minutes != null && data.minutes > 30.0", b"data.minutes > 30.0")
    sent = [visit("a", T0, minutes=40.0), visit("b", T0, minutes=5.0), visit("c", T0), visit("d", T0 + 1)]
    return engine(*((one, T0) for one in sent), files={**FILES, "milepost.yaml": text})


def test_pairs_of_event_and_rule_are_repaired_by_sending_the_event_under_the_new_rule() -> None:
    """Applying the rule alone judges nothing again; the repaired event replaces itself, so what other rules counted is
    counted once; the preview says so."""
    made = failing()
    assert reasons(made) == ["rule_error"] * 2 and value(made, "visits") == 4
    assert {one.what for one in judged(made, the_problem(made), {}, NOW)[1]} == {"fail"}
    rule_fixed(made)
    assert problems_of(made).state(the_problem(made)) == "open"
    work, fates = judged(made, the_problem(made), {}, NOW)
    foreseen = effects(made, work)
    assert {one.what for one in fates} == {"pass"} and foreseen["long_visits"] == (None, 2)
    send(made, work, fates, NOW)
    assert (value(made, "long_visits"), value(made, "visits")) == (2, 4)
    assert problems_of(made).state(the_problem(made)) == "repaired"


def test_a_preview_does_not_claim_what_a_trial_cannot_know() -> None:
    """Where a repair takes away what other rules have counted, the value that would be is null, and says why."""
    made = failing()
    rule_fixed(made)
    work, fates = judged(made, the_problem(made), {"steps": [{"set": "data.page", "value": "repaired"}]}, NOW)
    assert {one.what for one in fates} == {"pass"}
    assert effects(made, work)["visits"] == (4, None) and "visited" in work.trial.lost


def test_a_conflict_is_repaired_when_its_body_is_the_right_one() -> None:
    """The second body, sent as a repair, replaces the first; with another company it would be refused."""
    made = engine((visit("e", T0, minutes=1.0), T0), (visit("e", T0, minutes=2.0), T0))
    assert [one.what for one in repaired(made, the_problem(made), {}, NOW)] == ["pass"]
    assert (value(made, "minutes_sum"), value(made, "visits")) == (2, 1)
    made = engine((visit("e", T0, "1"), T0), (visit("e", T0, "2"), T0))
    (fate,) = judged(made, the_problem(made), {}, NOW)[1]
    assert (fate.what, fate.why) == ("fail", "identity/identity_changed")


def test_a_repair_that_fails_after_all_is_a_letter_of_its_own() -> None:
    """Definitions changed between judging and sending: the event is open under its new record, and is repaired as
    (revision, repair + 2)."""
    made = engine((broken(visit("e", T0)), T0))
    work, fates = judged(made, the_problem(made), FIX, NOW)
    made.apply(ORG, {**FILES, "schemas/Visit.avsc": FILES["schemas/Visit.avsc"].replace(b'"name": "company"', b'"name": "compano"')}, NOW, checked=False)  # fmt: skip
    send(made, work, fates, NOW)
    still = [one for one in problems_of(made).problems.values() if problems_of(made).open(one).size]
    assert len(still) == 1 and value(made, "visits") is None
    rule_fixed(made)
    fates = repaired(made, still[0], {}, NOW + HOUR)
    assert [one.what for one in fates] == ["pass"] and value(made, "visits") == 1
    assert fates[0].output is not None and fates[0].output.key == raw_key(ORG, "app", "e", 0, 2)


@pytest.mark.parametrize(
    ("value_", "said"),
    [
        (b"{", "not_decodable"), (b"[]", "contract_violation"), (b"\xc3\x01" + bytes(8) + b"x", "unknown_schema"),
        (b'"' + b"x" * (1024 * 1024) + b'"', "too_large"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_that_it_is_not_repaired(value_: bytes, said: str) -> None:
    """Such a problem has an obstacle in words, or its members fail: nothing of them is sent."""
    made = engine()
    made.append("raw-events", 0, b"k", value_)
    made.run()
    problem = the_problem(made, said)
    assert problem.obstacle or {one.what for one in judged(made, problem, {}, NOW)[1]} == {"fail"}


def test_an_example_hides_what_is_personal_and_what_is_named_like_a_secret() -> None:
    """Of what the contract does not declare only the kind is shown: a renamed field must not bring it to light."""
    text = FILES["milepost.yaml"].replace(
        b"    volatile: [data.sent_at]", b"    volatile: [data.sent_at]\n    pii: [data.plan]"
    )
    text = (
        text.replace(b", plan: data.plan}", b"}")
        .replace(b"dimensions: [page, plan]", b"dimensions: [page]")
        .replace(b", dimensions: [plan]", b"")
    )
    made = engine(files={**FILES, "milepost.yaml": text})
    source = made.decisions.history[ORG][-1].catalog.sources["app"]
    event = visit(
        "e", T0, plan="CANARY", plann="CANARY", page="home", api_key="CANARY", minutes=3.0, deep={"x": "CANARY"}
    )
    event |= {"password": "CANARY", "note": "CANARY"}
    shown = example(orjson.dumps(event), source)
    assert shown is not None and b"CANARY" not in orjson.dumps(shown)
    assert shown["data"]["page"] == "home" and shown["data"]["plann"] == "(text)" and shown["id"] == "e"
    unknown = example(orjson.dumps({**event, "type": "nobody"}), source)
    assert unknown is not None and unknown["data"]["page"] == "(text)"
    assert example(b"{", source) == {"bytes": 1, "unreadable": "its bytes are not JSON, nor Avro of ours"}
    assert example(None, source) is None
    assert b"CANARY" not in orjson.dumps(
        example(json.dumps({**event, "data": [{"a": 2**70}, "CANARY"]}).encode(), source)
    )


STEPS: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"cast": "data.amount", "as": "number"}, {"set": "data.channel", "value": "web"}],
    [
        {"set": "data.code", "value": "c1"},
        {"delete": "data.region"},
        {"delete": "data.serial"},
        {"set": "data.channel", "value": "web"},
    ],
    [
        {"set": "event.type", "value": "sale"},
        {"set": "data.amount", "value": 2.5},
        {"set": "data.channel", "value": "shop"},
    ],
)


@pytest.mark.parametrize("seed", range(20))
def test_over_random_histories_a_repair_sends_and_leads_to_what_the_oracle_says(seed: int) -> None:
    """Late, amended, voided, merged, misrouted and broken in many ways, problem after problem repaired by one mapping or
    another: what is sent is what a plain program says, what passes is what it accepts, the preview of each metric is
    the value afterwards, and every answer is the oracle's."""
    scenario = seeded(seed, size=90, partitions=3)
    made = engine_of(scenario, chunk=50, seed=seed)
    chance, count = random.Random(seed), Counter[str]()
    for id in sorted(problems_of(made).problems):
        problem = problems_of(made).problems[id]
        if problem.obstacle:
            continue
        steps = chance.choice(STEPS)
        now = made.now_ms + HOUR
        work, fates = judged(made, problem, {"steps": steps}, now)
        foreseen = effects(made, work) if problem.org == SHOP else {}
        oracle = oracle_over(made, SHOPS_SECRET, scenario.bundles)
        places = {(one.partition, one.offset) for one in _members(made, problem)}
        letters = [
            one for one in oracle.dead_letters
            if (one.partition, one.offset) in places and (one.rule or "") == problem.rule and one.reason == problem.reason
        ]  # fmt: skip
        assert len(letters) == len(places)
        expected = resends(made.topics["raw-events"], oracle.reading, letters, steps)
        passing = {one.output.key: orjson.loads(one.output.value or b"") for one in fates if one.output is not None}
        assert passing.items() <= {key: orjson.loads(orjson.dumps(one)) for key, one in expected.items()}.items()
        count.update(f"{one.what} {one.why}".strip() for one in fates)
        send(made, work, fates, now)
        after = oracle_over(made, SHOPS_SECRET, scenario.bundles)
        accepted = {_key(one) for one in after.reading.events}
        assert passing.keys() <= accepted, "what passes is accepted"
        failed = expected.keys() - passing.keys()
        assert not failed & accepted
        for metric, (_, value_) in foreseen.items():
            arguments = {"now": now, "org": SHOP, "basis": "latest", "window": "all", "tz": "UTC"}
            question = Question(kind="value", metric=metric, company=None, arguments=arguments)
            came = ask_engine(made, question)
            if value_ is not None or came[0] is None:
                assert came[0] == value_, (metric, came, value_)
    final = oracle_over(made, SHOPS_SECRET, scenario.bundles)
    scenario.now_ms = made.now_ms
    questions = asked(scenario)
    held(
        same_answers(
            {str(one): ask_oracle(final, one) for one in questions},
            {str(one): ask_engine(made, one) for one in questions},
        )
    )
    assert count["pass"], "nothing was repaired"


def _members(made: Driver, problem: Any) -> list[Any]:
    from milepost.topology.problems import place

    return [place(int(one)) for one in problems_of(made).open(problems_of(made).problems[problem.id])]


def _key(one: Any) -> bytes:
    return raw_key(one.org, one.source, one.id, *one.rank)


def test_the_records_of_members_are_those_that_broke() -> None:
    """A place leads to the bytes that the source sent."""
    sent = broken(visit("e", T0))
    made = engine((sent, T0))
    ((_, found),) = records_at(made, [int(one) for one in the_problem(made).members])
    assert found == orjson.dumps(sent)
