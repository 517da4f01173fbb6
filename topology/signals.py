"""Signals: rules turn an event into signals.

A rule is judged by the definitions in force at the event's first position.  An expression that fails sends the pair
(event, rule) to the dead letters: never a crash, never a silent false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from milepost.schemas.errors import ContractError
from milepost.schemas.records import Event, Reject
from milepost.topology.aggregates import scaled
from milepost.topology.catalog import Catalog

SAFE: Final = 2.0**53
"""Numbers below fit at every scale (at most 12 decimals): 2^53 * 10^12 < 2^95."""


class Judged(NamedTuple):
    """What the rules made of an event: signals in the order of the rules, pairs that failed, how many rules said no.

    signals: (rule, version, fields)
    """

    signals: list[tuple[str, bytes, dict[str, object]]]
    failed: list[tuple[str, Reject]]
    declined: int


NOTHING: Final = Judged([], [], 0)
Judge = Callable[[Event], Judged]


def judge_of(catalog: Catalog, type: str) -> Judge:
    """What judges the events of a type: one function, written for the rules of that type.

    def judge(event):
        signals, failed, declined, data, view = [], [], 0, event.data, None
        try:
            if when0(data, view) is True:
                fields = {'amount': field0_0(data, view), 'plan': field0_1(data, view)}
                value = fields['amount']
                if type(value) is not float or not -SAFE < value < SAFE: in_range(value, 6, 'amount')
                signals.append(('paid', version0, fields))
            else: declined += 1
        except ContractError as error: failed.append(('paid', refused(error)))
        return Judged(signals, failed, declined)
    """
    rules = catalog.rules_by_type.get(type, ())
    if not rules:
        return lambda event: NOTHING
    scope: dict[str, Any] = {
        "ContractError": ContractError, "Judged": Judged, "SAFE": SAFE, "in_range": _in_range, "refused": _refused,
    }  # fmt: skip
    view = "{'type': event.type, 'time': event.time, 'source': event.source, 'org': event.org}"
    reads = [path for rule in rules for one in (rule.when, *rule.fields.values()) if one for path in one.paths]
    if not any(path.startswith("event.") for path in reads):
        view = "None"
    lines = ["def judge(event):", f" signals, failed, declined, data, view = [], [], 0, event.data, {view}"]
    for i, rule in enumerate(rules):
        scope[f"version{i}"] = rule.version
        condition = "True"
        if rule.when is not None:
            scope[f"when{i}"], condition = rule.when.evaluate, f"when{i}(data, view) is True"
        scope |= {f"field{i}_{n}": one.evaluate for n, one in enumerate(rule.fields.values())}
        fields = ", ".join(f"{name!r}: field{i}_{n}(data, view)" for n, name in enumerate(rule.fields))
        lines += [" try:", f"  if {condition}:", f"   fields = {{{fields}}}"]
        for field, scale in dict.fromkeys((m.field, m.scale) for m in catalog.measures_by_rule.get(rule.name, ())):
            if field is not None:
                lines += [
                    f"   value = fields.get({field!r})",
                    f"   if type(value) is not float or not -SAFE < value < SAFE: in_range(value, {scale}, {field!r})",
                ]
        lines += [
            f"   signals.append(({rule.name!r}, version{i}, fields))",
            "  else: declined += 1",
            f" except ContractError as error: failed.append(({rule.name!r}, refused(error)))",
        ]
    lines.append(" return Judged(signals, failed, declined)")
    exec(compile("\n".join(lines), "<rules>", "exec"), scope)
    return cast(Judge, scope["judge"])


def _refused(error: ContractError) -> Reject:
    return Reject(error.reason, error.detail)


def _in_range(value: object, scale: int, field: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ContractError(
            "rule_error", f"field {field} is a {type(value).__name__}; a number is expected by its metric"
        )
    if -SAFE < value < SAFE:
        return
    try:
        scaled(value, scale)
    except (OverflowError, ValueError) as error:
        raise ContractError(
            "out_of_range", f"field {field} is beyond what a metric holds (2^95 at scale {scale})"
        ) from error
