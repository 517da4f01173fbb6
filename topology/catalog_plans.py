"""Catalog: milestones and plans out of a bundle's models.

    milestone (dates, need, actions) ─▶ plan: its template's, then its own, its overrides applied ─▶ checked in its zone

A plan takes its template's milestones as they are now, and its version says which: `name@version` pins them, and a
template that has changed is then a finding in every plan that pins it, so that nobody's terms move unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.bundle import ActionText, BundleText, MilestonePatch, MilestoneText, PlanText, duration_ms
from milepost.topology.definitions import CLOSE, Action, Date, Metric, Milestone, Need, Plan, version
from milepost.topology.document import Findings, Path
from milepost.topology.expressions import closest
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.refusals import QuestionError

PLANNED_MAX: Final = 10_000
"""Milestones of all plans together, those of templates counted in each plan."""
LENGTH_MS_MAX: Final = 3_660 * DAY_MS
"""From a milestone's start to its deadline."""


class PlanReader:
    """Reads `milestones` and `plans`, over metrics that were read.

    families: metrics with a list of aggregates -> the names they became
    broken:   names of metrics, then also of milestones, that have a finding
    """

    def __init__(self, text: BundleText, metrics: Mapping[str, Metric], broken: set[str], findings: Findings) -> None:
        self.text, self.metrics, self.findings = text, metrics, findings
        self.broken_metrics = broken
        self.broken: set[str] = set()
        self.planned = 0
        self.milestones: dict[str, Milestone] = {}
        self.plans: dict[str, Plan] = {}

    def read(self) -> None:
        for name, text in self.text.milestones.items():
            milestone = self._milestone(name, text, ("milestones", name), "UTC")
            if milestone is not None:
                self.milestones[name] = milestone
        templates = {one.template.partition("@")[0] for one in self.text.plans.values() if one.template}
        for name in sorted(self.text.plans, key=lambda one: self.text.plans[one].template is not None):
            self._plan(name, self.text.plans[name], used=name in templates)
        self.plans = {name: self.plans[name] for name in self.text.plans if name in self.plans}

    # -- milestones

    def _milestone(self, name: str, text: MilestoneText, here: Path, tz: str) -> Milestone | None:
        """The milestone of a model, checked in a zone; None after a finding, or when a metric of it has one."""
        before = len(self.findings.found)
        start, deadline = Date(text=text.start), Date(text=text.deadline)
        end_ms = self._check_dates(start, deadline, here, tz)
        actions = {one: _action(one, action) for one, action in text.actions.items()}
        whole = True
        for one, action in actions.items():
            at = (*here, "actions", one)
            fault = text.actions[one].fault()
            if fault is not None:
                self.findings.add(at, fault, key=True)
            elif action.metric is not None:
                known = self._metric(action.metric, (*at, "metric"))
                whole = whole and known is not None
                if known is not None and end_ms is not None:
                    self._check_window(action, known, at, end_ms, tz)
            if action.weight <= 0:
                self.findings.add((*at, "weight"), "a weight is more than 0", fix="affects: false")
        need = self._need(text, actions, here)
        if len(self.findings.found) > before or not whole or need is None:
            self.broken.add(name)
            return None
        versions = sorted({self.metrics[one.metric].version.hex() for one in actions.values() if one.metric})
        grace_ms = duration_ms(text.grace)
        own = [text.kind, text.start, text.deadline, grace_ms, need.of, need.amount]
        conditions = [
            [one.name, one.metric, one.window, one.op, one.value, one.sustain_ms, one.manual, one.affects, one.weight]
            for one in actions.values()
        ]
        return Milestone(
            name=name,
            kind=text.kind,
            start=start,
            deadline=deadline,
            grace_ms=grace_ms,
            need=need,
            actions=actions,
            version=version("milestone", name, own, sorted(conditions, key=str), versions),
        )

    def _check_dates(self, start: Date, deadline: Date, here: Path, tz: str) -> int | None:
        """The deadline in ms, when both dates are dates and in order."""
        moments = []
        for key, one in (("start", start), ("deadline", deadline)):
            try:
                at_ms = one.ms(tz)
            except (ValueError, OverflowError):
                self.findings.add((*here, key), f"there is no such time as {one.text}")
                continue
            if at_ms < 0:
                self.findings.add((*here, key), "times before 1970 have no history")
            elif at_ms % PANE_MS:
                where = "" if tz == "UTC" else f" (its zone is {tz})"
                message = f"{one.text} does not lie on a quarter of an hour in UTC{where}"
                self.findings.add((*here, key), message, fix="metrics have steps of 15 minutes")
            moments.append(at_ms)
        if len(moments) < 2:
            return None
        if moments[0] >= moments[1]:
            message = f"the deadline {deadline.text} is not after the start {start.text}"
            self.findings.add((*here, "deadline"), message)
            return None
        if moments[1] - moments[0] > LENGTH_MS_MAX:
            self.findings.add((*here, "deadline"), "a milestone lasts 3660 days at most")
        return moments[1]

    def _check_window(self, action: Action, metric: Metric, here: Path, end_ms: int, tz: str) -> None:
        """The window has an exact answer at the deadline: whole steps of the metric, in this zone."""
        moment = bases.moment("corrected", end_ms, end_ms)
        try:
            bases.window(action.window, moment, tz, metric.grain_ms)
        except QuestionError as error:
            fix = (error.fix or "").replace("window=", "window: ")
            self.findings.add((*here, "window"), error.detail, guess=error.guess or "", fix=fix)
        if action.sustain_ms % metric.grain_ms:
            grain = bases.grain(metric.grain_ms)
            message = f"sustain is no multiple of {grain}, the grain of {metric.name}"
            self.findings.add((*here, "sustain"), message, fix=f"a multiple of {grain}")

    def _metric(self, name: str, here: Path) -> Metric | None:
        known = self.metrics.get(name)
        if known is None and name not in self.broken_metrics:
            family = self.text.metrics.get(name)
            if family is not None and isinstance(family.aggregate, list):
                guess = f"{name}_{family.aggregate[0].partition('(')[0]}"
            else:
                guess = closest(name, sorted(self.metrics))
            self.findings.add(here, f"no metric is named {name!r}", guess=guess)
        return known

    def _need(self, text: MilestoneText, actions: Mapping[str, Action], here: Path) -> Need | None:
        affecting = [one for one in actions.values() if one.affects]
        if not affecting:
            message = "no action affects the milestone: it could never be reached"
            self.findings.add((*here, "actions"), message, fix="affects: true at one of them at least", key=True)
            return None
        if text.need == "all":
            return Need(of="all")
        at = (*here, "need")
        if len(text.need) != 1:
            self.findings.add(at, "need is all, {at_least: 2} or {weight: 0.8}")
            return None
        if (count := text.need.get("at_least")) is not None:
            if count != int(count) or not 1 <= count <= len(affecting):
                message = f"at_least is a whole number from 1 to {len(affecting)}, the actions that affect it"
                self.findings.add((*at, "at_least"), f"{message}; {count} came", fix=f"at_least: {len(affecting)}")
                return None
            return Need(of="at_least", amount=float(count))
        weight, total = text.need["weight"], sum(one.weight for one in affecting)
        if not 0 < weight <= total + CLOSE:
            message = f"weight is more than 0 and at most {total:g}, the weights of the actions that affect it"
            self.findings.add((*at, "weight"), f"{message}; {weight} came", fix=f"weight: {total:g}")
            return None
        return Need(of="weight", amount=float(weight))

    # -- plans

    def _plan(self, name: str, text: PlanText, *, used: bool) -> None:
        here: Path = ("plans", name)
        before = len(self.findings.found)
        try:
            bases.zone(text.tz)
        except QuestionError as error:
            self.findings.add((*here, "tz"), error.detail, guess=error.guess or "", fix="tz: Europe/Berlin")
        org, company = self._bridge(text, here, used=used)
        template = self._template(text, here)
        whole = text.template is None or template is not None
        milestones: dict[str, Milestone] = dict(template.milestones) if template is not None else {}
        for i, one in enumerate(text.milestones):
            at = (*here, "milestones", i)
            if one in milestones:
                where = f"the template {template.name}" if template and one in template.milestones else "this plan"
                self.findings.add(at, f"the milestone {one!r} is in {where} already", fix="leave it out")
            elif one in self.milestones:
                milestones[one] = self.milestones[one]
            elif one in self.broken:
                whole = False
            else:
                guess = closest(one, sorted(self.text.milestones))
                self.findings.add(at, f"no milestone is named {one!r}", guess=guess)
        self.planned += len(milestones)
        if self.planned > PLANNED_MAX:
            if self.planned - len(milestones) <= PLANNED_MAX:  # told once, at the plan that goes beyond
                message = f"the plans of a bundle have at most {PLANNED_MAX} milestones together"
                self.findings.add(here, message, key=True)
            return
        if len(self.findings.found) == before and whole:
            fitted = self._fitted(text, here, milestones, template)
            whole, milestones = fitted is not None, fitted or {}
        metrics = list(template.metrics) if template is not None else []
        for i, one in enumerate(text.metrics):
            whole = self._metric(one, (*here, "metrics", i)) is not None and whole
            if one not in metrics:
                metrics.append(one)
        if len(self.findings.found) > before or not whole:
            return
        template_name = template.name if template is not None else ""
        terms = version(
            "terms",
            sorted((one, milestone.version.hex()) for one, milestone in milestones.items()),
            sorted((one, self.metrics[one].version.hex()) for one in metrics),
        )
        self.plans[name] = Plan(
            name=name,
            org=org,
            company=company,
            tz=text.tz,
            milestones=milestones,
            metrics=tuple(metrics),
            template=template_name,
            terms=terms,
            own=version("own", {**text.model_dump(exclude_unset=True), "template": template_name}),
            version=version("plan", name, text.bridge, text.tz, terms.hex()),
        )

    def _bridge(self, text: PlanText, here: Path, *, used: bool) -> tuple[str, bytes | None]:
        if text.bridge is None:
            if not used:
                fix = "add bridge: organisation/*"
                message = "'bridge' is missing, and no plan uses this one as its template"
                self.findings.add(here, message, fix=fix, key=True)
            return "", None
        org, _, company = text.bridge.partition("/")
        if company == "*":
            return org, None
        try:
            return org, keys.from_metakey(company)
        except ValueError:
            message = f"a bridge is organisation/* or organisation/MetaKey; {company[:64]!r} is neither"
            self.findings.add((*here, "bridge"), message, fix=f"{org}/*")
            return org, None

    def _template(self, text: PlanText, here: Path) -> Plan | None:
        if text.template is None:
            return None
        at = (*here, "template")
        name, _, pinned = text.template.partition("@")
        model = self.text.plans.get(name)
        if model is None:
            self.findings.add(at, f"no plan is named {name!r}", guess=closest(name, sorted(self.text.plans)))
            return None
        if model.template is not None:
            message = f"{name} has a template itself; a template has none"
            self.findings.add(at, message, fix=f"template: {model.template}")
            return None
        known = self.plans.get(name)
        if known is not None and pinned and known.terms.hex() != pinned:
            message = f"{name} is at version {known.terms.hex()} now, this plan pins {pinned}"
            fix = f"look at what has changed, then write template: {name}@{known.terms.hex()}"
            self.findings.add(at, message, fix=fix)
            return None
        return known

    def _fitted(
        self, text: PlanText, here: Path, milestones: Mapping[str, Milestone], template: Plan | None
    ) -> dict[str, Milestone] | None:
        """The plan's milestones with its overrides, checked in its own zone; None when one does not hold."""
        fitted, whole = dict(milestones), True
        for name in text.overrides:
            if name not in milestones:
                at = (*here, "overrides", name)
                message = f"the plan has no milestone {name!r}"
                self.findings.add(at, message, guess=closest(name, sorted(milestones)), key=True)
        for name, milestone in milestones.items():
            patches = [text.overrides.get(name)]
            if template is not None and name in template.milestones:
                patches.insert(0, self.text.plans[template.name].overrides.get(name))
            model, own = self.text.milestones[name], patches[-1]
            for patch in patches:
                if patch is not None:
                    model = self._patched(model, patch, (*here, "overrides", name))
            if own is not None or text.tz != "UTC":
                at = (*here, "overrides", name) if own is not None else (*here, "tz")
                made = self._milestone(name, model, at, text.tz)
                self.broken.discard(name)
                fitted[name], whole = made or milestone, whole and made is not None
            else:
                fitted[name] = milestone
        return fitted if whole else None

    def _patched(self, model: MilestoneText, patch: MilestonePatch, here: Path) -> MilestoneText:
        """The model with what the patch says, field by field, action by action."""
        actions = dict(model.actions)
        for name, change in patch.actions.items():
            if name not in actions:
                guess = closest(name, sorted(actions))
                self.findings.add(
                    (*here, "actions", name), f"the milestone has no action {name!r}", guess=guess, key=True
                )
                continue
            actions[name] = actions[name].model_copy(update=_given(change))
        return model.model_copy(update={**_given(patch), "actions": actions})


def foreign_bridges(text: BundleText, org: str, findings: Findings) -> None:
    """Findings for the bridges of another organisation than the one that the bundle is applied for."""
    for name, plan in text.plans.items():
        if plan.bridge is not None and plan.bridge.partition("/")[0] != org:
            whose, _, company = plan.bridge.partition("/")
            message = f"the bridge is one of {whose!r}, and the bundle is applied for {org!r}"
            findings.add(("plans", name, "bridge"), message, fix=f"{org}/{company}")


def _given(patch: Any) -> dict[str, Any]:
    return {name: getattr(patch, name) for name in patch.model_fields_set if name != "actions"}


def _action(name: str, text: ActionText) -> Action:
    return Action(
        name=name,
        metric=text.metric,
        window=text.window or "all",
        op=text.op,
        value=float(text.value) if text.value is not None else None,
        sustain_ms=duration_ms(text.sustain) if text.sustain is not None else 0,
        manual=text.manual,
        affects=text.affects,
        weight=float(text.weight) if text.weight is not None else 1.0,
    )


def referred(plan: Plan) -> Iterable[str]:
    """The metrics that a plan shows or watches."""
    watched = (action.metric for one in plan.milestones.values() for action in one.actions.values())
    return dict.fromkeys([*plan.metrics, *(one for one in watched if one is not None)])
