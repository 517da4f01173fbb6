"""The engine equals the oracle: the same raw log, the same answers (design §1.1)."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.equality import Total, equality
from tests.support.events import HARD, Scenario, questions, scenarios, seeded, share
from tests.support.invariants import conservation, held, same_answers, same_counts
from tests.support.versus import ask_engine, ask_oracle, counts_of, engine_of, oracle_of, records_of

EXAMPLES = 300
QUESTIONS = 8
PLANNED = 100
"""Logs in which plans are followed; the campaign takes 2,000 (tests/faults/test_equality.py)."""
COPIES = {"copy", "read"}
"""Fates the oracle has no word for: the engine reads its own copies again, and counts them as read."""
seen: Counter[str] = Counter()

# Hypothesis searches the rare corners and leaves the weights of the cases behind; seeds keep them.
BY_SEED = st.builds(
    seeded, st.integers(0, 2**32), size=st.integers(10, 60), partitions=st.sampled_from((3, 2, 4, 5, 1))
)
MOMENTS = st.sampled_from((itemgetter(slice(3)), itemgetter(slice(-3, None))))
DRAWN = scenarios() | BY_SEED | BY_SEED


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(DRAWN, st.data(), st.sampled_from((1, 7, 500)), st.integers(0, 99))
def test_every_answer_is_the_oracles(scenario: Scenario, data: st.DataObject, chunk: int, seed: int) -> None:
    """Whatever the log holds, in whatever chunks it is read, each answer equals a plain batch computation over it."""
    engine, oracle = engine_of(scenario, chunk=chunk, seed=seed), oracle_of(scenario)
    asked = [data.draw(questions(scenario)) for _ in range(QUESTIONS)]
    counts = {name: n for name, n in counts_of(engine).items() if name not in COPIES}
    expected = {name: n for name, n in oracle.counts.items() if name not in COPIES}
    held(
        conservation(counts_of(engine)),
        same_counts(expected, counts) if scenario.settled else [],
        same_answers(
            {str(one): ask_oracle(oracle, one) for one in asked}, {str(one): ask_engine(engine, one) for one in asked}
        ),
        records_of(
            oracle, engine, data.draw(st.sampled_from([scenario.moments[:3], scenario.moments[-3:]])), scenario.now_ms
        ),
    )
    seen.update(scenario.labels)
    seen["records"] += scenario.size


def test_the_hard_cases_were_really_there() -> None:
    """Of the records that the test before this one drew, at least a twentieth shows each hard case."""
    if not seen["records"]:
        pytest.skip("the test before this one did not run")
    assert {name: part for name, part in share(seen, seen["records"]).items() if part < 0.05} == {}
    assert set(HARD) <= set(seen)


def test_plans_are_followed_as_the_oracle_says() -> None:
    """With ticks, completions, links, memberships and other definitions, late, amended and voided: milestones, figures,
    records, identity and explanations are the oracle's, at any time and on each basis."""
    total = Total()
    for seed in range(PLANNED):
        total.add(equality(seed))
        assert total.wrong == {}
    assert total.rare() == []
