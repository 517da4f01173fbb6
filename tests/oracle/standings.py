"""The oracle's plans at a moment: whose milestones there are, how each stands, and how complete its sources are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.oracle.definitions import Definitions
from tests.oracle.keys import metakey
from tests.oracle.oracle import AS_SHOWN, Oracle, _moment
from tests.oracle.outcomes import Asked, Outcome, complete, outcome


class Row(NamedTuple):
    """A milestone of a company.  complete_ms: up to when the sources that it needs are complete; None: not known."""

    outcome: Outcome
    complete_ms: int | None


def in_force(oracle: Oracle, org: str, c_ms: int | None) -> Definitions:
    """The bundle that holds at `c_ms` (None: now); before the first one, the first."""
    history = oracle._history()[org]
    past = [bundle for k_ms, bundle in history if c_ms is None or k_ms <= c_ms]
    return oracle.bundles[past[-1] if past else history[0][1]]


def rows(
    oracle: Oracle,
    asked: Asked,
    *,
    seen_ms: int,
    plan: str | None = None,
    milestone: str | None = None,
    company: str | None = None,
) -> dict[tuple[str, str, str], Row]:
    """(plan, milestone, MetaKey) -> how it stands.  LookupError: there is no such plan, milestone or company.

    asked: `at`, `basis`, `now`, `org`;  seen_ms: how far the raw log was seen
    """
    basis, at_ms = _moment(asked["at"], asked["basis"], asked["now"])
    org, c_ms = asked["org"], at_ms if basis == AS_SHOWN else None
    known = in_force(oracle, org, c_ms)
    if plan is not None and plan not in known.plans:
        raise LookupError(f"no plan {plan}")
    plans = [one for name, one in known.plans.items() if plan in (None, name)]
    if milestone is not None and all(milestone not in one.milestones for one in plans):
        raise LookupError(f"no milestone {milestone}")
    if company is not None:
        roots = {_root(oracle, oracle._leaf(company, org), c_ms)}
    else:
        leaves = [leaf for leaf, fact in oracle.reading.keys.items() if (fact.org, fact.entity) == (org, "company")]
        roots = {_root(oracle, leaf, c_ms) for leaf in leaves}
    end = (asked["now"] if at_ms is None else at_ms) // 900_000 * 900_000
    found = {}
    for one in plans:
        whose = roots
        if one.company is not None:
            root = _root(oracle, one.company, c_ms)
            whose = {root} if company is None or root in roots else set()
        for name, text in one.milestones.items():
            if milestone in (None, name):
                known_ms = complete(oracle, text, asked, seen_ms, end) if whose else None
                for root in whose:
                    stands = outcome(oracle, text, root, asked, tz=one.tz, seen_ms=seen_ms)
                    found[one.name, name, metakey(root)] = Row(stands, known_ms)
    return found


def complete_to(oracle: Oracle, metric: str, asked: Mapping[str, object], seen_ms: int) -> int | None:
    """Up to when the sources of a metric are complete: of what they have sent by now, and of what was said of them by
    the moment whose decisions count."""
    found, frame = oracle._asked(metric, None, asked.get("at"), asked["basis"], None, asked["now"], asked["org"])  # type: ignore[arg-type]
    types = {frame.known.rules[one.rule or ""].on for one in oracle._below(found, frame)}
    before_ms = seen_ms if frame.c_ms is None else min(seen_ms, frame.c_ms + 1)
    ends: list[int | None] = []
    for name in [name for name, source in frame.known.sources.items() if types & set(source.types)]:
        sent = [one.t_ms for one in oracle.reading.events if (one.org, one.source) == (frame.org, name)]
        said = [one for one in oracle.reading.completions if (one.org, one.source) == (frame.org, name)]
        ends.append(max([*sent, *(one.until_ms for one in said if one.k_ms < before_ms)], default=None))
    return None if None in ends or not ends else min(one for one in ends if one is not None)


def _root(oracle: Oracle, leaf: bytes, c_ms: int | None) -> bytes:
    """A leaf that nobody has named is its own company."""
    return oracle.root(leaf, c_ms) if leaf in oracle.reading.keys else leaf
