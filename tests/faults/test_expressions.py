"""The law of expressions at its full size: 100,000 of them, whoever evaluates (tests/topology/test_expression_equality)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tests.support.expressions import Tally, compare

Sized = Callable[[int, int], int]

EACH = 5000


def test_a_hundred_thousand_expressions_are_one_language(sized: Sized) -> None:
    """Compiled, by the library, and as written: the value, null or error of each expression is the same."""
    seeds, each = range(sized(20, 1)), sized(EACH, 100)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tallies: list[Tally] = list(pool.map(partial(compare, count=each), seeds))
    wrong = [one for tally in tallies for one in tally.wrong]
    assert not wrong, "\n".join(wrong[:3])
    met = sum((tally.met for tally in tallies), Counter[str]())
    judged = met["compiled"] + met["by the library"]
    assert judged >= 0.98 * each * len(seeds), met
