"""Standings: how plans and their milestones stand, at any time, on each basis, out of the cells.

    plan as of the moment -> for each action: cells by pane -> value at each pane end -> milestones.py -> states

The conditions are evaluated at each pane end at which something can change: a pane counts from its end on until it
leaves the window.  So a milestone's past is had from the cells alone, as known now or as known then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from milepost.schemas import keys
from milepost.topology import acts, bases, milestones
from milepost.topology.asked import Asked, Question, organisation
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import Moment, written
from milepost.topology.companies import Companies, Company
from milepost.topology.completeness import completeness, partitions_of, progress_of, sources_of
from milepost.topology.definitions import Action, Catalog, Milestone, Plan
from milepost.topology.graph import Components
from milepost.topology.heard import Complete, complete
from milepost.topology.memberships import Memberships
from milepost.topology.milestones import Course, Standing, Step
from milepost.topology.panes import PANE_MS
from milepost.topology.questions import ZERO_IN_FORMULAS, Found, Questions
from milepost.topology.refusals import BadParameter, UnknownMilestone, UnknownPlan, closest
from milepost.topology.scans import Tally
from milepost.topology.steps import Steps, gather
from milepost.topology.ticks import TickedBy
from milepost.topology.windows import Running, Window

STEPS_A_TURN: Final = 200
_NO_DIMS: Final[Mapping[str, str]] = {}
ROOTS_MAX: Final = 10_000
"""Companies of a portfolio at most."""
LAPSES_MAX: Final = 100
"""Lapses that an answer lists, the latest ones; it counts all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What is asked of plans.  Without company: every company that the plan's bridges name."""

    now_ms: int
    org: str | None = None
    company: str | None = None
    at_ms: int | None = None
    basis: str | None = None
    plan: str | None = None
    milestone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """An action over time, for one company: its spans, its value at the moment, up to when its sources have sent, and
    who ticked it last.  What people do by hand has no sources: they do not fall silent."""

    spans: list[milestones.Span]
    value: float | int | None
    complete_to: int | None
    sources: Sequence[str]
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """A milestone over time, for one company, as its cells say at a moment.

    met:         when its need was met
    complete_to: up to when its sources have sent, ms;  heard: the same at each bucket end, of what is as shown
    """

    milestone: Milestone
    course: Course
    conditions: Mapping[str, _Condition]
    met: Sequence[milestones.Span]
    complete_to: int | None
    heard: Complete | None

    def at(self, at: int, clock: int) -> Standing:
        """How it stood at a pane end."""
        if self.heard is not None:
            known = self.heard.at(at)
        else:
            known = None if self.complete_to is None else self.complete_to // PANE_MS
        return milestones.standing(self.milestone, self.course, self.met, at, known, clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """A question with everything it looks at, found once for all plans and milestones.

    backfilled: the definitions came only later;  roots: the companies asked for
    since:      of what is as shown, from which bucket end on it is wanted how far sources had sent; None: the moment
    heard:      sources -> how far they had sent, a memory
    """

    asks: Asks
    org: str
    moment: Moment
    catalog: Catalog
    backfilled: bool
    components: Components
    roots: Sequence[bytes]
    companies: Mapping[bytes, Company]
    since: int | None = None
    heard: dict[tuple[str, ...], Complete] = field(default_factory=dict)

    @property
    def at(self) -> int:
        """The pane end that the moment has passed."""
        return self.asks.now_ms // PANE_MS if self.moment.basis == "latest" else self.moment.end


class Standings(Questions):
    """Questions about plans."""

    def states(self, asks: Asks) -> Steps[dict[str, Any]]:
        """Every milestone of every plan (or of one) for a company, or for all: `{org, at, basis, milestones: [...]}`.

        Raises QuestionError, Unavailable.
        """
        of = yield from self._as_of(asks)
        plans = [one for one in of.catalog.plans.values() if one.org]
        if asks.plan is not None:
            plans = [_plan(of.catalog, asks.plan)]
        rows: list[dict[str, Any]] = []
        known = False
        for plan in plans:
            for name, milestone in plan.milestones.items():
                if asks.milestone is None or name == asks.milestone:
                    known = True
                    rows += yield from self._rows(of, plan, milestone)
        if asks.milestone is not None and not known:
            names = sorted({name for plan in plans for name in plan.milestones})
            raise UnknownMilestone(
                f"no plan has a milestone {asks.milestone[:64]!r}",
                guess=closest(asks.milestone, names),
                fix="GET /v1/plans lists them",
            )
        return {**_head(of.org, of.moment, of.backfilled), "milestones": rows}

    def portfolio(self, asks: Asks) -> Steps[dict[str, Any]]:
        """How many companies stand how with each milestone of a plan: `{plan, milestones: [{name, states, ...}]}`."""
        assert asks.plan is not None
        of = yield from self._as_of(asks)
        plan = _plan(of.catalog, asks.plan)
        found = []
        for name, milestone in plan.milestones.items():
            rows = yield from self._rows(of, plan, milestone)
            states: dict[str, int] = {}
            for row in rows:
                states[row["state"]] = states.get(row["state"], 0) + 1
            terms = {key: one for key, one in _terms(plan, milestone).items() if key not in ("plan", "milestone")}
            found.append({"name": name, **terms, "states": dict(sorted(states.items())), "companies": rows})
        described = {"plan": plan.name, "version": plan.version.hex(), "tz": plan.tz, "metrics": list(plan.metrics)}
        return {**_head(of.org, of.moment, of.backfilled), **described, "milestones": found}

    def plans(self, org: str | None = None) -> dict[str, Any]:
        """The plans in force, with their milestones."""
        name = organisation(self._reader, org)
        catalog = self._reader.decisions.history[name][-1].catalog
        return {
            "org": name,
            "plans": [
                {
                    "plan": plan.name,
                    "version": plan.version.hex(),
                    "bridge": f"{plan.org}/{keys.metakey(plan.company) if plan.company else '*'}" if plan.org else None,
                    "template": plan.template or None,
                    "tz": plan.tz,
                    "metrics": list(plan.metrics),
                    "milestones": [_terms(plan, one) for one in plan.milestones.values()],
                }
                for plan in catalog.plans.values()
            ],
        }

    def tickable(self, org: str, plan: str, milestone: str, action: str, company: str) -> Steps[str]:
        """The company as key:value, if the action is one that people tick for it.  Raises QuestionError."""
        catalog = self._reader.decisions.history[org][-1].catalog
        acts.manual(catalog, plan, milestone, action)
        companies = Companies(self._reader, org, catalog.key_rank)
        leaf, whose = (yield from companies.leaf(company)), catalog.plans[plan].company
        if whose is not None:
            components = yield from self._reader.decisions.components(org, None)
            if components.root(leaf) != components.root(whose):
                raise BadParameter(f"{plan} is a plan of another company", fix=f"company={keys.metakey(whose)}")
        return (yield from self.named(org, leaf))

    def named(self, org: str, leaf: bytes) -> Steps[str]:
        """The key of a company's leaf as key:value."""
        catalog = self._reader.decisions.history[org][-1].catalog
        row = yield from Companies(self._reader, org, catalog.key_rank).row(leaf)
        assert row is not None, "a company that is found has a key"
        return f"{row.kind}:{row.value}"

    # -- one milestone

    def _as_of(self, asks: Asks) -> Steps[AsOf]:
        """What plans are looked at with: the definitions and the companies as of the moment."""
        moment = bases.moment(asks.basis, asks.at_ms, asks.now_ms)
        org = organisation(self._reader, asks.org)
        decisions = self._reader.decisions
        known = decisions.catalog(org, moment.decided_at)
        assert known is not None, "an organisation that is found has definitions"
        catalog, backfilled = known
        companies = Companies(self._reader, org, catalog.key_rank)
        components = yield from decisions.components(org, moment.decided_at)
        if asks.company is not None:
            roots = [components.root((yield from companies.leaf(asks.company)))]
        else:
            # By their keys: what is one company now may have been two at the moment asked for.
            rows = (row for one in (yield from companies.all()) for row in one.keys)
            roots = sorted({components.root(row.leaf) for row in rows})[:ROOTS_MAX]
        named = yield from companies.companies(roots, components)
        return AsOf(
            asks=asks,
            org=org,
            moment=moment,
            catalog=catalog,
            backfilled=backfilled,
            components=components,
            roots=roots,
            companies=named,
        )

    def _rows(self, of: AsOf, plan: Plan, milestone: Milestone) -> Steps[list[dict[str, Any]]]:
        """The milestone's standing, one row a company."""
        at = of.at
        roots = of.roots
        if plan.company is not None:
            whose = of.components.root(plan.company)
            roots = [whose] if of.asks.company is None or whose in roots else []
        clock = at if of.moment.basis == "as_shown" else of.asks.now_ms // PANE_MS
        rows = []
        # One company at a time: a part answers with a bounded number of (company, pane) pairs.
        for root in roots:
            stood = yield from self.stood(of, plan, milestone, root)
            rows.append(
                {
                    "company": keys.metakey(root),
                    "name": (of.companies.get(root) or Company(root=root, keys=())).name,
                    **_terms(plan, milestone),
                    **_stands(stood.at(at, clock)),
                    "complete_to": None if stood.complete_to is None else written(stood.complete_to),
                    "actions": [
                        self._said(one, stood.conditions[one.name], min(at, stood.course.deadline))
                        for one in milestone.actions.values()
                    ],
                }
            )
        return rows

    def stood(self, of: AsOf, plan: Plan, milestone: Milestone, root: bytes) -> Steps[Stood]:
        """A milestone over time, for one company, up to the moment."""
        course = Course.of(milestone, plan.tz)
        conditions: dict[str, _Condition] = {}
        held: dict[str, Sequence[milestones.Span]] = {}
        for action in milestone.actions.values():
            conditions[action.name] = found = yield from self._condition(of, action, plan, milestone.name, course, root)
            held[action.name] = found.spans
        needed = [one for name, one in conditions.items() if milestone.actions[name].affects]
        heard: Complete | None = None
        sources = tuple(sorted({source for one in needed for source in one.sources}))
        if of.moment.basis == "as_shown" and not sources:
            complete_to = of.at * PANE_MS if needed else None  # what people do is complete as far as it was seen
        elif of.moment.basis == "as_shown":
            if (heard := of.heard.get(sources)) is None:
                since = of.at if of.since is None else of.since
                wanted = [(of.org, source) for source in sources]
                heard = of.heard[sources] = yield from complete(self._reader, wanted, since, of.at)
            pane_end = heard.at(of.at)
            complete_to = None if pane_end is None else pane_end * PANE_MS
        else:
            ends = [one.complete_to for one in needed]
            complete_to = None if not ends or None in ends else min(one for one in ends if one is not None)
        return Stood(
            milestone=milestone,
            course=course,
            conditions=conditions,
            met=milestones.needed(milestone, held),
            complete_to=complete_to,
            heard=heard,
        )

    def _said(self, action: Action, condition: _Condition, at: int) -> dict[str, Any]:
        """An action as an answer shows it: what is asked, what is, and since when it holds."""
        since = next((start for start, stop in condition.spans if start <= at < stop), None)
        holds = {"holds": since is not None, "since": None if since is None else written(since * PANE_MS)}
        shown: dict[str, Any] = {"name": action.name, "affects": action.affects}
        if action.metric is None:
            return {**shown, "manual": action.manual, **holds, "by": condition.by}
        first = condition.spans[0][0] if condition.spans else None
        return {
            **shown,
            "metric": action.metric,
            "window": action.window,
            "op": action.op,
            "target": action.value,
            "value": condition.value,
            **holds,
            "first_held": None if first is None else written(first * PANE_MS),
        }

    # -- one action over time

    def _condition(
        self, of: AsOf, action: Action, plan: Plan, milestone: str, course: Course, root: bytes
    ) -> Steps[_Condition]:
        """When an action holds for a company up to the moment."""
        sustain = action.sustain_ms // PANE_MS
        until = min(of.at, course.deadline)
        first = max(0, course.start - sustain)
        if action.metric is None:
            asked, sources = self._ticks(of, acts.named(plan.name, milestone, action.name), root), list[str]()
            first = min(first, of.at)  # what a person has done shows before the milestone begins, too
        else:
            asked = yield from asked_of(self._reader, self._question(of, action.metric, plan.tz, root))
            sources = sources_of(asked.catalog, asked.measures.values())
            if of.at < course.start:
                told = yield from progress_of(self._reader, partitions_of(self._reader, asked))
                known = completeness(self._reader, asked, told).complete_to
                return _Condition(spans=[], value=None, complete_to=known, sources=sources)
        window = Window(action.window, plan.tz, asked.grain_ms // PANE_MS, first, until)
        found = yield from self._found(asked, window.head, None, window.panes)
        tallies = {
            version: {slot: tally for (_, slot), tally in some.items()} for version, some in found.tallies.items()
        }
        steps = yield from self._steps(asked, found, tallies, window)
        known = completeness(self._reader, asked, found.told).complete_to
        if action.metric is None:
            holds = milestones.holding(steps, ">=", 1, until)
            ticks = (one.last for one in tallies[acts.TICKS.version].values() if one.last is not None)
            last = max((one[:2] for one in ticks), default=None)
            if last is None:
                return _Condition(spans=holds, value=None, complete_to=known, sources=sources)
            by = yield from self._ticked_by(asked, *last)
            if holds and holds[0][0] == first and last[0] // PANE_MS < first:
                holds[0] = last[0] // PANE_MS + 1, holds[0][1]  # since when, although the walk begins only there
            return _Condition(spans=holds, value=steps[-1][1], complete_to=known, sources=sources, by=by)
        assert action.op is not None and action.value is not None
        holds = milestones.holding(steps, action.op, action.value, until, sustain)
        return _Condition(spans=holds, value=steps[-1][1], complete_to=known, sources=sources)

    def _question(self, of: AsOf, metric: str, tz: str, root: bytes, dims: Mapping[str, str] = _NO_DIMS) -> Question:
        return Question(
            metric=metric,
            now_ms=of.asks.now_ms,
            org=of.org,
            company=keys.metakey(root),
            at_ms=of.asks.at_ms,
            basis=of.asks.basis,
            tz=tz,
            dims=dims,
        )

    def _ticks(self, of: AsOf, action: str, root: bytes) -> Asked:
        """The question whether an action is ticked: the last value of a measure that no bundle declares (acts.py)."""
        return Asked(
            question=self._question(of, acts.TICKED.name, "UTC", root, {acts.DIMENSION: action}),
            org=of.org,
            catalog=of.catalog,
            backfilled=of.backfilled,
            metric=acts.TICKED,
            parts=[acts.TICKED],
            grain_ms=PANE_MS,
            moment=of.moment,
            components=of.components,
            companies=Companies(self._reader, of.org, of.catalog.key_rank),
            root=root,
            memberships=Memberships(),
        )

    def _ticked_by(self, asked: Asked, t_ms: int, event: bytes) -> Steps[str | None]:
        """Who made a tick."""
        assert asked.root is not None
        until = bases.FOREVER if asked.moment.known_until is None else max(asked.moment.known_until, 0)
        placed = self._placed(asked.components.leaves(asked.root))
        parts = [
            TickedBy(partition=number, leaves=some, t_ms=t_ms, event=event, until=until)
            for number, some in placed.items()
        ]
        return next((by for by in (yield from gather(self._reader, parts)) if by is not None), None)

    def _steps(
        self,
        asked: Asked,
        found: Found,
        tallies: Mapping[bytes, Mapping[int, Tally]],
        window: Window,
    ) -> Steps[list[Step]]:
        """What the metric is from each pane end on at which it can change."""
        running = {version: Running(measure.shape) for version, measure in asked.measures.items()}
        turns: dict[int, list[tuple[bytes, Tally | None]]] = {window.first: []}
        for version, some in tallies.items():
            for slot, tally in sorted(some.items()):
                enters, leaves = window.counts(window.span(slot))
                turns.setdefault(max(enters, window.first), []).append((version, tally))
                if leaves is not None and leaves <= window.until:
                    turns.setdefault(max(leaves, window.first), []).append((version, None))
        steps: list[Step] = []
        for number, at in enumerate(sorted(turns)):
            if at > window.until:
                break
            for version, taken in sorted(turns[at], key=lambda one: one[1] is None):
                if taken is None:
                    running[version].drop()
                else:
                    running[version].take(taken)
            here = {version: one.total() for version, one in running.items()}
            value, _ = yield from self._number(asked, here, found.epochs)
            if value is None and asked.metric.aggregate in ZERO_IN_FORMULAS:
                value = 0
            if not steps or steps[-1][1] != value:
                steps.append((at, value))
            if number % STEPS_A_TURN == STEPS_A_TURN - 1:
                yield None
        return steps or [(window.first, None)]


def _plan(catalog: Catalog, name: str) -> Plan:
    plan = catalog.plans.get(name)
    if plan is None:
        raise UnknownPlan(
            f"there is no plan {name[:64]!r}", guess=closest(name, catalog.plans), fix="GET /v1/plans lists them"
        )
    return plan


def _head(org: str, moment: Moment, backfilled: bool) -> dict[str, Any]:
    return {
        "org": org,
        "at": written(moment.at_ms),
        "basis": moment.basis,
        "definition": "backfilled" if backfilled else "current",
    }


def _terms(plan: Plan, milestone: Milestone) -> dict[str, Any]:
    """What was agreed."""
    need = milestone.need
    return {
        "plan": plan.name,
        "milestone": milestone.name,
        "version": milestone.version.hex(),
        "kind": milestone.kind,
        "start": written(milestone.start.ms(plan.tz)),
        "deadline": written(milestone.deadline.ms(plan.tz)),
        "final": written(milestone.deadline.ms(plan.tz) + milestone.grace_ms),
        "need": "all" if need.of == "all" else {need.of: need.amount},
    }


def _stands(found: Standing) -> dict[str, Any]:
    """What has come of it."""
    lapses = [written(at * PANE_MS) for at in found.lapses[-LAPSES_MAX:]]
    return {
        "state": found.state,
        "achieved_at": None if found.achieved_at is None else written(found.achieved_at * PANE_MS),
        "lapsed": len(found.lapses),
        "lapses": lapses,
    }
