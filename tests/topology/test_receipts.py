"""Receipts: once a receipt is included, every answer holds what it stands for, however the partitions interleave."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.receipts import Reached, Receipt, receipt, sent, taken
from milepost.topology.refusals import BadParameter
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit


def value(made: Driver, company: str) -> Any:
    asked = Question(metric="minutes_sum", now_ms=T0 + 400 * DAY, company=f"crm_id:{company}")
    return run(Questions(made.reader).value(asked))["value"]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_included_is_in_the_answer(seed: int) -> None:
    """At every step of every interleaving: a receipt that is included counts, one that is not may or may not."""
    chance = random.Random(seed)
    made = Driver(SECRET, partitions=3, chunk=chance.choice((1, 3)))
    made.apply(ORG, FILES, T0 - HOUR)
    sums: dict[Receipt, tuple[str, float]] = {}
    expected: dict[str, float] = {}
    early, waited = 0, 0
    for i in range(60):
        event = visit(f"e{i}", T0, company=f"c{i}", minutes=float(i + 1))
        one = Receipt(**dict(zip(("partition", "offset"), made.produce(event, T0 + HOUR), strict=True)))
        sums[one] = f"c{i}", float(i + 1)
        needed: dict[Receipt, dict[int, int]] = {}
        for _ in range(chance.randrange(6)):
            made.step(*chance.choice(list(made.state)))
            for one, (company, minutes) in sums.items():
                if one not in needed and (found := run(sent(made.reader, one))) is not None:
                    needed[one] = found
                if one in needed and run(taken(made.reader, one, needed[one])):
                    assert value(made, company) == minutes
                    expected[company] = minutes
                elif one in needed:
                    waited += 1
                else:
                    early += 1
    assert early and waited and expected, "every state was seen"
    made.run()
    for one, (company, minutes) in sums.items():
        known = run(sent(made.reader, one))
        assert known is not None and run(taken(made.reader, one, known)) and value(made, company) == minutes


def test_what_leads_to_nothing_is_included_when_it_is_read() -> None:
    """A repeat, a dead letter and an event without rule are included as soon as ingest has passed them."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, T0 - HOUR)
    for event in (visit("e", T0, type="idle"), visit("e", T0, type="idle"), visit("f", T0, minutes="ten")):
        partition, offset = made.produce(event, T0 + HOUR)
        one = Receipt(partition=partition, offset=offset)
        assert run(sent(made.reader, one)) is None
        made.step("ingest", 0)
        assert run(sent(made.reader, one)) == {} and run(taken(made.reader, one, {}))


def test_ingest_alone_is_not_enough() -> None:
    """Positive control: what ingest has passed and measure has not taken is not in the answers."""
    made = Driver(SECRET, partitions=1)
    made.apply(ORG, FILES, T0 - HOUR)
    partition, offset = made.produce(visit("e", T0, minutes=1.0), T0 + HOUR)
    made.step("ingest", 0)
    one = Receipt(partition=partition, offset=offset)
    needed = run(sent(made.reader, one))
    assert needed == {0: offset} and not run(taken(made.reader, one, needed)) and value(made, "1") is None


def test_a_receipt_is_a_position_of_the_raw_log() -> None:
    """Anything else is refused with the form that was expected; what a part says survives its journey."""
    assert receipt("raw-events/3@1288", 4) == Receipt(partition=3, offset=1288)
    assert str(Receipt(partition=3, offset=1288)) == "raw-events/3@1288"
    for text in ("", "raw-events/4@1", "signals/0@1", "raw-events/0@-1", "raw-events/0@1 ", "raw-events/٣@1"):
        with pytest.raises(BadParameter, match="receipt"):
            receipt(text, 4)
    part = Reached(partition=0, leg="ingest")
    assert part.unpack(part.pack((7, {0: 3, 1: -1}))) == (7, {0: 3, 1: -1})
