"""Positive control: the comparison with the oracle catches an engine that is deliberately broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from milepost.topology import dedupe, graph, identity, ingest, measure, metrics, panes, sketches
from milepost.topology.dedupe import Seen, Verdict
from milepost.topology.graph import Fold, Graph
from milepost.topology.memberships import FOREVER, Memberships, Stay
from tests.support.events import METRICS, NAMES, ORG, Question, Scenario, seeded
from tests.support.invariants import same_answers, same_counts
from tests.support.versus import ask_engine, ask_oracle, counts_of, engine_of, oracle_of

SEEDS = range(12)
COUNTED = ("accepted", "duplicate", "misrouted", "signal", "dead:id_conflict", "dead:future_event")


def asked(scenario: Scenario) -> list[Question]:
    """The same questions of every scenario: each metric, alone and of a company, at its moments, on each basis; two of
    them also by company."""
    out = []
    for i, metric in enumerate(METRICS):
        for basis in ("latest", "corrected", "as_shown"):
            arguments: dict[str, Any] = {
                "now": scenario.now_ms,
                "org": ORG,
                "basis": basis,
                "window": "all",
                "tz": "UTC",
            }
            if basis != "latest":
                arguments["at"] = scenario.moments[len(scenario.moments) * (i + 1) // (len(METRICS) + 1)]
            for company in (None, NAMES[i % len(NAMES)]):
                out.append(Question(kind="value", metric=metric, company=company, arguments=arguments))
            if metric in ("sales", "people"):
                by = {**arguments, "by": "company"}
                out.append(Question(kind="breakdown", metric=metric, company=None, arguments=by))
    return out


def faults(seed: int) -> list[str]:
    scenario = seeded(seed, size=120, partitions=3)
    engine, oracle = engine_of(scenario, chunk=7, seed=seed), oracle_of(scenario)
    questions = asked(scenario)
    return same_counts(oracle.counts, counts_of(engine), COUNTED) + same_answers(
        {str(one): ask_oracle(oracle, one) for one in questions},
        {str(one): ask_engine(engine, one) for one in questions},
    )


def caught(seed: int) -> bool:
    """Whether a broken engine differs, or finds itself that its tables cannot be."""
    try:
        return bool(faults(seed))
    except AssertionError:
        return True


def test_the_engine_itself_has_no_fault() -> None:
    """Unbroken, the engine has none of the faults that the mutants below are caught by."""
    assert [fault for seed in SEEDS for fault in faults(seed)] == []


def _forget(patch: pytest.MonkeyPatch) -> None:
    real = dedupe.judge

    def judge(known: Seen | None, *rest: Any) -> Verdict:
        verdict = real(known, *rest)
        return Verdict.FIRST if verdict is Verdict.REPEAT else verdict

    patch.setattr(ingest.dedupe, "judge", judge)


def _latest_body(patch: pytest.MonkeyPatch) -> None:
    real = dedupe.judge

    def judge(known: Seen | None, *rest: Any) -> Verdict:
        verdict = real(known, *rest)
        return Verdict.FIRST if verdict is Verdict.CONFLICT else verdict

    patch.setattr(ingest.dedupe, "judge", judge)


def _late_dropped(patch: pytest.MonkeyPatch) -> None:
    real = metrics.add
    patch.setattr(
        measure.metrics, "add", lambda store, hits, held, out: real(store, [one for one in hits if one[1].hit.end * panes.PANE_MS - one[1].hit.t_ms < 2 * panes.DAY_MS], held, out)
    )  # fmt: skip


def _place_not_first(patch: pytest.MonkeyPatch) -> None:
    """A forwarded record is known when its copy arrives, not when it first arrived."""
    real = ingest.Ingest._forward

    def forward(self: Any, a: Any, out: Any) -> None:
        a.k_ms += 3 * panes.DAY_MS
        real(self, a, out)

    patch.setattr(ingest.Ingest, "_forward", forward)


def _no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Graph, "add", lambda self, link: None)


def _wide_buckets(patch: pytest.MonkeyPatch) -> None:
    """Known time is kept by the day: as_shown forgets what it was shown within a day."""
    patch.setattr(measure.panes, "bucket_end", lambda pane, k_ms: (k_ms // panes.DAY_MS + 1) * panes.PANES_A_DAY)


def _day_rows_lag(patch: pytest.MonkeyPatch) -> None:
    real = metrics.add
    patch.setattr(
        measure.metrics,
        "add",
        lambda store, hits, held, out: (
            None if store.name == "days" and len(hits) % 3 == 0 else real(store, hits, held, out)
        ),
    )


def _root_by_arrival(patch: pytest.MonkeyPatch) -> None:
    """A component goes under the leaf that it met first."""
    real = Fold._join

    def join(self: Any, a: bytes, b: bytes) -> bytes:
        first = self.first[a]
        label = real(self, a, b)
        self.first[label] = first
        return label

    patch.setattr(Fold, "_join", join)


def _cut_ignored(patch: pytest.MonkeyPatch) -> None:
    """An unlink closes its edges, and the next proposal joins the sides again."""
    patch.setattr(Fold, "_between", lambda self, a, b: set())


def _edges_stay(patch: pytest.MonkeyPatch) -> None:
    """An unlink is read and forgotten."""
    patch.setattr(Fold, "_unlink", lambda self, label, leaving: iter(()))


def _limits_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph, "_limits", lambda protection: ())


def _membership_by_now(patch: pytest.MonkeyPatch) -> None:
    """All that a person ever did is the employer's of now."""
    real = Memberships.stays

    def stays(self: Any, company: Any, components: Any, c_ms: int | None) -> list[Stay]:
        found = real(self, company, components, c_ms)
        return [Stay(leaf, 0, FOREVER) for leaf in sorted({one.leaf for one in found if one.stop == FOREVER})]

    patch.setattr(Memberships, "stays", stays)


def _blocked_values_are_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(identity, "means_nothing", lambda entity, value: False)


def _rounded_values(patch: pytest.MonkeyPatch) -> None:
    """A percentile's values are told to a tenth instead of a hundredth."""
    real = sketches.percentile
    patch.setattr(sketches, "percentile", lambda counts, percent: real(counts, percent) * 11 / 10)


MUTANTS = (
    _forget, _latest_body, _late_dropped, _place_not_first, _no_links, _wide_buckets, _day_rows_lag,
    _root_by_arrival, _cut_ignored, _edges_stay, _limits_ignored, _membership_by_now, _blocked_values_are_keys,
    _rounded_values,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_broken_engine_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mutant differs from the oracle within a dozen seeds."""
    mutate(monkeypatch)
    assert any(caught(seed) for seed in SEEDS)
