"""Recognition: what is to be said of milestones, at each bucket end K, out of how they stand as shown at K.

    what was said before                 ─┐
    the K before, by what is known at K  ─┼─▶ nothing new · a state is reached · `corrected`: what was said is wrong
    standing as shown at K               ─┘

A history is a function of the log: whoever walks from K to K at whatever time finds the same transitions.  Most bucket
ends need no look: between two at which something became known of a company (`ends.py`) or was decided only time goes
on, and what time does follows from one look at the end of the stretch.

What was said of a state that can be wrong (achieved, lapsed, missed) is held against what is known now of the moment at
which it was said.  If that differs, it is corrected; what came after is told as it came.

A root that a merge takes is closed, with the root whose it is now; when it is its own again it resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from milepost.topology import acts, bases
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import Span
from milepost.topology.companies import Companies
from milepost.topology.completeness import FINAL_AFTER_MS
from milepost.topology.decisions import Decisions
from milepost.topology.definitions import Action, Catalog, Milestone, Plan, State
from milepost.topology.ends import Ends
from milepost.topology.explain import Read, changes
from milepost.topology.memberships import Stay
from milepost.topology.milestones import Course
from milepost.topology.panes import PANE_MS, PANES_A_DAY
from milepost.topology.parts import StaySums
from milepost.topology.recognitions import (
    CLOSED,
    CORRECTED,
    OF_STATES,
    RESUMED,
    Cause,
    Kind,
    Past,
    Recognition,
    Said,
    Subject,
    Withdrawn,
)
from milepost.topology.standings import Asks, AsOf, Standings, Stood
from milepost.topology.steps import Steps, gather
from milepost.topology.windows import Window

CLAIMS: Final[frozenset[State]] = frozenset({"achieved", "lapsed", "missed"})
"""States that can be wrong.  The others say that it is not known yet, or no more."""
OF_TIME: Final[frozenset[State]] = frozenset({"missed", "unknown_stale"})
CAUSES: Final[Mapping[str, Cause]] = {
    "unmerged": "unmerge", "merged": "merge", "voided": "void", "amended": "amend", "late": "late",
}  # fmt: skip
"""Of several causes the first is told."""
STRETCH_MAX: Final = 28 * PANES_A_DAY
"""Bucket ends of a stretch at most."""


class Recogniser(Standings):
    """Finds what is to be said.  Everything is read as shown, so it needs no memory but what was said (`Said`)."""

    @property
    def decisions(self) -> Decisions:
        return self._reader.decisions

    # -- which bucket ends, whose milestones

    def begins(self, org: str) -> int | None:
        """The first bucket end at which an organisation had definitions."""
        history = self.decisions.history.get(org)
        return decided(min(one.k_ms for one in history)) if history else None

    def plans_begin(self, org: str) -> int | None:
        """The first bucket end at which it had a plan on a bridge."""
        history = self.decisions.history.get(org, ())
        return min((decided(one.k_ms) for one in history if _planned(one.catalog)), default=None)

    def has_plans(self, org: str, k: int) -> bool:
        """Whether any plan on a bridge was in force at a bucket end."""
        catalog = self.catalog(org, k)
        return catalog is not None and _planned(catalog)

    def stretches(self, org: str, first: int, last: int) -> list[tuple[int, int]]:
        """[first, last] cut at the bucket ends from which other decisions hold, and into four weeks at most."""
        begins = self.begins(org)
        if begins is None or max(first, begins) > last:
            return []
        decisions, since, until = self.decisions, (first - 1) * PANE_MS, last * PANE_MS
        moments = [one.k_ms for one in decisions.history[org]]
        moments += decisions.graph(org).moments(since, until)
        moments += decisions.memberships(org).moments
        first = max(first, begins)
        cuts = {first, *(decided(k_ms) for k_ms in moments), *range(first, last + 1, STRETCH_MAX)}
        starts = sorted(one for one in cuts if first <= one <= last)
        return [(one, (starts[i + 1] if i + 1 < len(starts) else last + 1) - 1) for i, one in enumerate(starts)]

    def companies_of(self, org: str, last: int, mine: Callable[[bytes], bool]) -> Steps[dict[bytes, int]]:
        """Root companies of a stretch that ends at `last` -> the first bucket end at which they were known."""
        decisions = self.decisions
        known = decisions.catalog(org, last * PANE_MS)
        if known is None:
            return {}
        components = yield from decisions.components(org, last * PANE_MS)
        found: dict[bytes, int] = {}
        for company in (yield from Companies(self._reader, org, known[0].key_rank).all()):
            for row in company.keys:
                first, root = row.k_ms // PANE_MS + 1, components.root(row.leaf)
                if first <= last and mine(root):
                    found[root] = min(first, found.get(root, first))
        return found

    def catalog(self, org: str, k: int) -> Catalog | None:
        """The definitions in force at a bucket end; None: there were none yet."""
        known = self.decisions.catalog(org, k * PANE_MS)
        return None if known is None or known[1] else known[0]

    def closings(self, org: str, k: int, said: Mapping[Subject, Said]) -> Steps[list[Recognition]]:
        """What is to be said at a bucket end of companies that are others' now: whose."""
        catalog, found = self.catalog(org, k), list[Recognition]()
        if catalog is None or not self.decisions.graph(org).items:
            return found
        components = yield from self.decisions.components(org, k * PANE_MS)
        for subject, one in said.items():
            heir = components.root(subject.company)
            if subject.org == org and heir not in (subject.company, one.heir) and _agreed(catalog, subject):
                found.append(
                    Recognition(
                        subject=subject, k=k, kind=CLOSED, now=one.last, recognised_at=k, first=False, before=one.last,
                        cause="merge", dispute=one.disputed, heir=heir,
                    )
                )  # fmt: skip
        return found

    def withdrawn(self, one: Recognition, instead: Past | None) -> Steps[Recognition]:
        """A record that was told and that a walk over the same time does not say any more.

        instead: what it says last by then; None: nothing
        """
        subject, c_ms = one.subject, one.k * PANE_MS
        components = yield from self.decisions.components(subject.org, c_ms)
        catalog = self.catalog(subject.org, one.k)
        cause: Cause = "late"
        version = None if catalog is None else _version(catalog, subject)
        if components.root(subject.company) != subject.company:
            cause = "merge"
        elif one.kind == CLOSED:
            cause = "unmerge"
        elif version != one.now.version:
            cause = "definition"
        if instead is None:
            instead = Past(version or one.now.version, "pending", None, 0, None)
        return replace(one, withdrawn=Withdrawn(cause, instead))

    # -- one company

    def company(
        self, org: str, root: bytes, first: int, last: int, said: Mapping[Subject, Said]
    ) -> Steps[list[Recognition]]:
        """What is to be said of a company's milestones at the bucket ends [first, last] of one stretch.

        said: what was said before `first`
        """
        catalog = self.catalog(org, first)
        if catalog is None:
            return []
        components = yield from self.decisions.components(org, first * PANE_MS)
        found: list[Recognition] = []
        for plan in catalog.plans.values():
            if not plan.org or (plan.company is not None and components.root(plan.company) != root):
                continue
            for milestone in plan.milestones.values():
                subject = Subject(org, plan.name, milestone.name, root)
                walk = _Walk(self, subject, catalog, plan, milestone, said.get(subject))
                found += yield from walk.along(first, last)
        return found

    def as_shown(self, catalog: Catalog, org: str, k: int, since: int) -> Steps[AsOf]:
        """What plans are looked at with at K; how far sources had sent is wanted from `since` on."""
        asks = Asks(now_ms=k * PANE_MS, org=org, at_ms=k * PANE_MS, basis="as_shown")
        components = yield from self.decisions.components(org, k * PANE_MS)
        return AsOf(
            asks=asks,
            org=org,
            moment=bases.moment("as_shown", k * PANE_MS, k * PANE_MS),
            catalog=catalog,
            backfilled=False,
            components=components,
            roots=(),
            companies={},
            since=since,
        )

    def reads(
        self, of: AsOf, action: Action, plan: Plan, milestone: Milestone, course: Course, root: bytes
    ) -> Steps[Read]:
        """What an action is read from up to the moment: the cells of its windows, or of its ticks."""
        if action.metric is None:
            asked = self._ticks(of, acts.named(plan.name, milestone.name, action.name), root)
        else:
            asked = yield from asked_of(self._reader, self._question(of, action.metric, plan.tz, root))
        first = max(0, course.start - action.sustain_ms // PANE_MS)
        until = max(first, min(of.at, course.deadline))
        span = Span(start=Window(action.window, plan.tz, asked.grain_ms // PANE_MS, first, until).begin, stop=until)
        sums = []
        for measure in asked.measures.values():
            sums += yield from self._sums(asked, measure, (span,), None)
        return Read(asked, span, sums)

    def ends(self, reads: Iterable[Read], since: int, until: int) -> Steps[list[int]]:
        """The bucket ends in (since, until] at which something became known that `reads` may see."""
        parts: dict[Ends, None] = {}
        for read in reads:
            days = read.span.start // PANES_A_DAY, read.span.stop // PANES_A_DAY + 1
            for one in read.sums:
                leaves = one.leaves or ()
                if isinstance(one, StaySums):
                    leaves = tuple(sorted({leaf for leaf, *_ in one.stays}))
                part = Ends(
                    partition=one.partition, version=one.version, shape=one.shape, leaves=leaves, start=days[0],
                    stop=days[1], since=since, until=until,
                )  # fmt: skip
                parts[part] = None
        told: list[list[int]] = yield from gather(self._reader, list(parts))
        return sorted({end for some in told for end in some})

    def cause(self, before: Sequence[Read], after: Sequence[Read]) -> Steps[Cause]:
        """Why what is known of a time is not what was known of it: of the facts that count on one side only."""
        parts = []
        for old, new in zip(before, after, strict=True):
            same = _until(new, min(old.span.stop, new.span.stop))
            was = _until(old, same.span.stop)
            for version in sorted({*was.asked.measures, *same.asked.measures}):
                parts += changes(was, same, version, version, b"", 0)
        found = {cause for told in (yield from gather(self._reader, parts)) for cause in told[0]}
        return next((said for name, said in CAUSES.items() if name in found), "late")


class _Walk:
    """One milestone of one company along a stretch."""

    def __init__(
        self, of: Recogniser, subject: Subject, catalog: Catalog, plan: Plan, milestone: Milestone, said: Said | None
    ) -> None:
        self.of, self.subject, self.catalog = of, subject, catalog
        self.plan, self.milestone, self.said = plan, milestone, said
        self.course = Course.of(milestone, plan.tz)
        self.found: list[Recognition] = []

    def along(self, first: int, last: int) -> Steps[list[Recognition]]:
        if self._settled(first):
            starts = yield from self.of.ends((yield from self._reads(last)), first - 1, last)
            before, now = (yield from self._whose(first - 1)), (yield from self._whose(first))
            if before != now or self._defined(first - 1) != self.milestone.version:
                starts = sorted({first, *starts})
            if not starts:
                return []
            first = starts[0]
        starts = [first]
        if last > first and last >= self.course.start:
            starts += yield from self.of.ends((yield from self._reads(last)), first, last)
        for i, start in enumerate(starts):
            stop = starts[i + 1] if i + 1 < len(starts) else last + 1
            yield from self._look(start, stop - 1)
        return self.found

    def _settled(self, k: int) -> bool:
        """Whether time alone changes nothing any more."""
        if self.said is None or self.said.heir is not None or self.said.last.version != self.milestone.version:
            return False
        latched = self.milestone.kind == "achieve" and self.said.last.state == "achieved"
        return latched or (k > self.course.final and self.said.last.state in CLAIMS)

    def _whose(self, k: int) -> Steps[tuple[Sequence[bytes], Sequence[Stay]]]:
        """The leaves that are the company at a bucket end, and whose stays count for it."""
        decisions, org, c_ms = self.of.decisions, self.subject.org, k * PANE_MS
        components = yield from decisions.components(org, c_ms)
        leaves = components.leaves(components.root(self.subject.company))
        return leaves, decisions.memberships(org).stays(leaves, components, c_ms)

    def _look(self, first: int, last: int) -> Steps[None]:
        """The bucket ends [first, last], before which nothing but at `first` became known."""
        if last < self.course.start and self.said is None:
            return  # pending, and nothing was said
        stood = yield from self._stood(last, first - 1)
        then: Past | None = self._past(stood, first - 1)
        for k in self._turns(stood, first, last):
            now = self._past(stood, k)
            kind = self._kind(then, now)
            if kind is not None:
                self.found.append((yield from self._recognised(kind, now, k)))
                self.said = Said.after(self.said, self.found[-1])
            then = None  # nothing becomes known any more: whatever changes is the time

    def _kind(self, then: Past | None, now: Past) -> Kind | None:
        """What is to be said, if anything.

        then: what is known now of the bucket end before; None: the same as was known
        """
        if self.said is None:
            return None if now.state == "pending" else now.state
        if self.said.heir is not None:
            return RESUMED
        before = self.said.last
        if now.says(before):
            return None
        if before.state in CLAIMS and then is not None and not then.says(before):
            return CORRECTED
        if self.milestone.kind == "achieve" and now.state in CLAIMS & self.said.states:
            return CORRECTED  # it was said, and taken back
        return now.state

    def _recognised(self, kind: Kind, now: Past, k: int) -> Steps[Recognition]:
        before = None if self.said is None else self.said.last
        disputed = self.said is not None and self.said.disputed
        wrong = kind not in OF_STATES and before is not None and not now.says(before)
        first = self.said is None or now.state not in self.said.states
        recognised_at = k
        cause: Cause | None = None
        if kind == RESUMED:
            cause = "unmerge"
        elif kind == CORRECTED:
            assert before is not None
            cause = "definition" if self._defined(k - 1) != now.version else (yield from self._cause(k))
        elif before is None and now.state in OF_TIME and k > self.course.final:
            # It was so when its time was over, only nobody looked.
            over = yield from self._stood(self.course.final, self.course.final)
            if self._past(over, self.course.final).state == now.state:
                recognised_at = self.course.final
        return Recognition(
            subject=self.subject,
            k=k,
            kind=kind,
            now=now,
            recognised_at=recognised_at,
            first=first,
            before=before,
            cause=cause,
            dispute=disputed or (wrong and k > self.course.final + FINAL_AFTER_MS // PANE_MS),
        )

    def _turns(self, stood: Stood, first: int, last: int) -> list[int]:
        """The bucket ends of [first, last] at which time alone may change something, and `first`."""
        course = self.course
        grace = course.final - course.deadline
        turns = {first, course.start, course.deadline, course.final}
        for start, stop in stood.met:
            turns.update((start, stop, stop + grace))
        if stood.heard is not None:
            turns |= stood.heard.turns
        return sorted(one for one in turns if first <= one <= last)

    def _defined(self, k: int) -> bytes | None:
        """The milestone's version at a bucket end."""
        known = self.of.catalog(self.subject.org, k)
        return None if known is None else _version(known, self.subject)

    def _past(self, stood: Stood, k: int) -> Past:
        return Past.of(self.milestone.version, stood.at(k, k))

    def _stood(self, k: int, since: int) -> Steps[Stood]:
        of = yield from self.of.as_shown(self.catalog, self.subject.org, k, since)
        return (yield from self.of.stood(of, self.plan, self.milestone, self.subject.company))

    def _cause(self, k: int) -> Steps[Cause]:
        before, after = (yield from self._reads(k - 1)), (yield from self._reads(k))
        return (yield from self.of.cause(before, after))

    def _reads(self, k: int) -> Steps[list[Read]]:
        of = yield from self.of.as_shown(self.catalog, self.subject.org, k, k)
        found = []
        for action in self.milestone.actions.values():
            if action.affects:
                found.append(
                    (yield from self.of.reads(of, action, self.plan, self.milestone, self.course, self.subject.company))
                )
        return found


def _until(read: Read, stop: int) -> Read:
    """The same up to an earlier pane."""
    return read._replace(span=replace(read.span, stop=stop))


def _version(catalog: Catalog, subject: Subject) -> bytes | None:
    """The version of a milestone in definitions; None: they do not have it."""
    plan = catalog.plans.get(subject.plan)
    milestone = None if plan is None else plan.milestones.get(subject.milestone)
    return None if milestone is None else milestone.version


def _agreed(catalog: Catalog, subject: Subject) -> bool:
    """Whether a milestone is one of a plan on a bridge."""
    return _version(catalog, subject) is not None and bool(catalog.plans[subject.plan].org)


def _planned(catalog: Catalog) -> bool:
    return any(plan.org for plan in catalog.plans.values())


def decided(k_ms: int) -> int:
    """The first bucket end at which a decision holds: what is decided at K holds at K."""
    return -(-k_ms // PANE_MS)
