"""Problems: dead letters with one fingerprint, and what was done about them, folded from their topic."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import wire
from milepost.topology import problems
from milepost.topology.problems import (
    PROBLEMS_MAX,
    Place,
    Problem,
    Problems,
    begun,
    concerned,
    ended,
    fingerprint,
    place,
    sent,
)
from tests.support.repairing import problems_of
from tests.support.small import HOUR, ORG, T0, visit
from tests.topology.test_revisions import engine

ONE, OTHER = b"one repa", b"another "


def letter(offset: int, detail: str = "wrong", k_ms: int = T0, **more: Any) -> bytes:
    fields = {
        "topic": "raw-events", "partition": 0, "offset": offset, "stage": "decode", "rule": "",
        "reason": "contract_violation", "detail": detail, "org": ORG, "source": "app", "type": "visit", "k_ms": k_ms,
        "bundle": bytes(8), **more,
    }  # fmt: skip
    named = (fields[name] for name in ("stage", "reason", "detail", "org", "source", "type", "rule"))
    return wire("DeadLetter").encode({**fields, "problem": fingerprint(*named)})


def folded(*values: bytes) -> tuple[Problems, Problem]:
    made = Problems()
    for value in values:
        made.take(0, value)
    return made, next(iter(made.problems.values()))


@pytest.mark.parametrize(
    "at", [Place("raw-events", 0, 0), Place("raw-events", 255, 2**43), Place("record-changes", 3, 7)]
)
def test_a_place_is_a_number_and_back(at: Place) -> None:
    """Topic, partition and offset fit one number of 64 bits."""
    assert place(at.pack()) == at and 0 <= at.pack() < 2**63


def test_places_are_in_the_order_of_topic_partition_and_offset() -> None:
    """So a page of members needs no sorting."""
    places = [
        Place("raw-events", 0, 9),
        Place("raw-events", 1, 0),
        Place("signals", 0, 0),
        Place("record-changes", 0, 0),
    ]
    assert [one.pack() for one in places] == sorted(one.pack() for one in places)


def test_numbers_of_one_event_make_no_problem_of_their_own() -> None:
    """Lengths, distances and unknown schemas' fingerprints differ from event to event; names and fields do not."""
    assert fingerprint("decode", "too_large", "at most 10 bytes, 12 came") == fingerprint(
        "decode", "too_large", "at most 10 bytes, 99 came"
    )
    assert fingerprint("d", "r", "schema 00112233aabbccdd") == fingerprint("d", "r", "schema ffee2233aabbccdd")
    assert fingerprint("d", "r", "data.q1: text") != fingerprint("d", "r", "data.q2: text")
    assert fingerprint("d", "r", "x", type="a") != fingerprint("d", "r", "x", source="a")


def test_events_too_far_ahead_are_one_problem_however_far() -> None:
    """The line gives letters of one kind one fingerprint, also where its detail says by how much."""
    made = engine(*((visit(f"e{n}", T0 + (2 + n) * HOUR), T0) for n in range(5)))
    (one,) = problems_of(made).problems.values()
    assert (one.reason, len(one.members), one.org, one.type) == ("future_event", 5, ORG, "visit")


def test_what_can_be_read_of_a_broken_envelope_names_its_problem() -> None:
    """A deploy that sends no `time` is a problem of its source and type, not of everybody's."""
    made = engine()
    for n, source in enumerate(("app", "app", "other")):
        event = {name: value for name, value in visit(f"e{n}", T0).items() if name != "time"} | {"source": source}
        made.produce(event, T0)
    made.run()
    found = {(one.org, one.source, one.type): len(one.members) for one in problems_of(made).problems.values()}
    assert found == {(ORG, "app", "visit"): 2, (ORG, "other", "visit"): 1}


def test_a_letter_that_is_told_again_is_one_member() -> None:
    """After a crash ingest tells the same letter once more, perhaps long after."""
    made, one = folded(letter(4), letter(9), letter(4), letter(12), letter(9))
    assert [place(int(at)).offset for at in one.members] == [4, 9, 12] and one.example.offset == 9
    assert made.state(one) == "open"


def test_a_repair_goes_from_begun_over_sent_to_ended() -> None:
    """open, repairing, repaired; a further letter of the same kind opens the problem again."""
    one = folded(letter(1))[1]
    log = [letter(1), letter(2), letter(3)]
    log.append(begun(one, ONE, "{}", "ann", T0, replaces=False)[1])
    made, told = folded(*log)
    assert (made.state(told), told.active and told.active.by) == ("repairing", "ann")
    places = [Place("raw-events", 0, offset).pack() for offset in (1, 2, 3)]
    log.append(sent(one, ONE, T0 + 1, places[:1], places[1:2])[1])
    made, told = folded(*log)
    assert (made.state(told), made.open(told).tolist()) == ("repairing", places[2:])
    log += [sent(one, ONE, T0 + 2, places[2:], ())[1], ended(one, ONE, T0 + 3, 0)[1]]
    made, told = folded(*log)
    assert (made.state(told), len(made.open(told)), told.active) == ("repaired", 0, None)
    (repair,) = told.repairs.values()
    assert (repair.sent, repair.settled, repair.left, repair.last_ms) == (2, 1, 0, T0 + 3)
    made, told = folded(*log, letter(2), letter(7))
    assert (made.state(told), len(made.open(told))) == ("open", 1)


def test_of_two_repairs_that_begin_at_a_time_the_first_in_the_log_goes_on() -> None:
    """The second does not begin, unless it says that it replaces the first."""
    one = folded(letter(1))[1]
    first = begun(one, ONE, "{}", "", T0, replaces=False)[1]
    _, told = folded(letter(1), first, begun(one, OTHER, "{}", "", T0, replaces=False)[1])
    assert told.active is not None and told.active.id == ONE and list(told.repairs) == [ONE]
    _, told = folded(letter(1), first, begun(one, OTHER, "{}", "", T0, replaces=True)[1], ended(one, ONE, T0, 1)[1])
    assert told.active is not None and told.active.id == OTHER


def test_an_event_that_was_sent_again_is_settled_in_all_its_problems() -> None:
    """Two rules failed for it: two problems, one event, sent again once; what is still wrong has a new letter."""
    made, one = folded(letter(5, rule="a", stage="signals"), letter(5, rule="b", stage="signals"))
    assert len(made.problems) == 2
    made.take(0, sent(one, ONE, T0, [Place("raw-events", 0, 5).pack()], ())[1])
    assert [made.state(each) for each in made.problems.values()] == ["repaired", "repaired"]


def test_problems_are_bounded_and_what_is_beyond_is_counted() -> None:
    """200 of a reason are told apart; the rest is one problem that is not repaired by a mapping."""
    made = Problems()
    for n in range(PROBLEMS_MAX + 30):
        made.take(0, letter(n, type=f"type-{chr(97 + n % 26)}{chr(97 + n // 26)}"))
    made.take(0, letter(999, reason="unknown_type"))
    others = [one for one in made.problems.values() if one.others]
    assert len(made.problems) == PROBLEMS_MAX + 2
    assert [len(one.members) for one in others] == [30] and "beyond" not in others[0].detail and others[0].obstacle


def test_places_are_bounded_and_what_is_beyond_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters beyond the bound are told as a number and keep the problem open."""
    monkeypatch.setattr(problems, "LETTERS_MAX", 3)
    made, one = folded(*(letter(n) for n in range(5)))
    assert (len(one.members), one.unlisted, made.state(one)) == (3, 2, "open")


@pytest.mark.parametrize("value", [b"", b"junk", letter(1)[:-3], letter(2**50), letter(1, topic="definitions")])
def test_bytes_that_are_neither_letter_nor_repair_are_refused(value: bytes) -> None:
    """Whoever reads the topic passes them over."""
    with pytest.raises(ContractError):
        Problems().take(0, value)


def test_what_a_problem_keeps_from_being_counted() -> None:
    """The rules of its type, the metrics they count in, also through formulas; of a pair those of its rule alone."""
    catalog = engine().decisions.history[ORG][-1].catalog
    _, whole = folded(letter(1))
    told = concerned(catalog, whole)
    assert told["rules"] == ["visited", "long_visit"] and {"visits", "long_rate", "devices"} <= set(told["metrics"])
    _, pair = folded(letter(1, stage="signals", reason="rule_error", rule="long_visit"))
    assert concerned(catalog, pair)["metrics"] == ["long_visits", "long_rate"]
    _, unknown = folded(letter(1, type="nothing"))
    assert not any(concerned(catalog, unknown).values()) and not any(concerned(None, whole).values())
