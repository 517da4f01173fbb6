"""Acts: what people do for plans by hand: an action of a milestone is ticked, or unticked, for a company.

    milepost.action {plan, milestone, action, company, done} -> a signal under the company's leaf -> cells

A tick is a signal like any other, under a rule and a measure that no bundle declares: the last value of `done`, by
action.  So merges and their opposite, amendments, voids, late ticks and what was known when need nothing of their own:
a ticked action is the condition that this last value is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from milepost.schemas.contracts import Contract, compile_contract, paths_of
from milepost.schemas.errors import ContractError
from milepost.topology.aggregates import Shape
from milepost.topology.definitions import Action, Catalog, Measure, Metric, Plan, Rule, version
from milepost.topology.expressions import compile_expression
from milepost.topology.panes import PANE_MS
from milepost.topology.refusals import BadParameter, closest

ACTION: Final = "milepost.action"
DIMENSION: Final = "action"
CONTRACT: Final[Contract] = compile_contract(
    "Acting",
    b"""{"type": "record", "name": "Acting", "fields": [
      {"name": "plan", "type": "string"}, {"name": "milestone", "type": "string"}, {"name": "action", "type": "string"},
      {"name": "company", "type": "string"}, {"name": "done", "type": "boolean"},
      {"name": "by", "type": ["null", "string"], "default": null}]}""",
)
_FIELDS: Final = {
    DIMENSION: 'data.plan + "/" + data.milestone + "/" + data.action',
    "done": "data.done ? 1.0 : 0.0",
    "by": "data.by",
}
RULE: Final = Rule(
    name=ACTION,
    on=ACTION,
    when=None,
    fields={name: compile_expression(text, "rule", data=paths_of(CONTRACT.type)) for name, text in _FIELDS.items()},
    version=version("rule", ACTION, _FIELDS),
)
TICKS: Final = Measure(
    name=ACTION,
    version=version("measure", ACTION, RULE.version.hex()),
    rule=ACTION,
    shape=Shape(last=True),
    field="done",
    entity=None,
    dimensions=(DIMENSION,),
    scale=0,
    values={},
    max_values=2**31,  # a bundle's actions are bounded, and nothing but an action of a bundle is accepted
)
TICKED: Final = Metric(
    name=ACTION,
    unit="",
    aggregate="last",
    measure=TICKS,
    formula=None,
    operands=(),
    grain_ms=PANE_MS,
    version=TICKS.version,
    dimensions=(DIMENSION,),
)


def named(plan: str, milestone: str, action: str) -> str:
    """An action as a dimension value: the names hold no slash."""
    return f"{plan}/{milestone}/{action}"


def any_manual(plans: Mapping[str, Plan]) -> bool:
    """Whether a person can do anything for one of the plans on bridges."""
    milestones = (one for plan in plans.values() if plan.org for one in plan.milestones.values())
    return any(action.manual is not None for one in milestones for action in one.actions.values())


def manual(catalog: Catalog, plan: str, milestone: str, action: str) -> Action:
    """The action that is ticked by hand.  Raises BadParameter with a guess."""
    bridged = {name: one for name, one in catalog.plans.items() if one.org}
    if plan not in bridged:
        raise BadParameter("there is no such plan on a bridge", guess=closest(plan, bridged), fix=_one_of(bridged))
    milestones = bridged[plan].milestones
    if milestone not in milestones:
        raise BadParameter(
            f"{plan} has no such milestone", guess=closest(milestone, milestones), fix=_one_of(milestones)
        )
    ours = {name: one for name, one in milestones[milestone].actions.items() if one.manual is not None}
    if action not in ours:
        what = "is no action that is ticked by hand"
        if action in milestones[milestone].actions:
            what = "is told by a metric, not by hand"
        raise BadParameter(f"the action named of {milestone} {what}", guess=closest(action, ours), fix=_one_of(ours))
    return ours[action]


def check(catalog: Catalog, plan: str, milestone: str, action: str) -> None:
    """The same for ingest: raises ContractError."""
    try:
        manual(catalog, plan, milestone, action)
    except BadParameter as error:
        raise ContractError("contract_violation", f"{error.detail}; expected: {error.fix}"[:500]) from error


def _one_of(names: Iterable[str]) -> str:
    known = list(names)
    return f"one of {', '.join(known[:20])}" if known else "no action of the definitions in force is ticked by hand"
