"""Signals: rules turn an event into signals.

A rule is judged by the definitions in force at the event's first position.  An expression that fails sends the pair
(event, rule) to the dead letters: never a crash, never a silent false.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from milepost.schemas.errors import ContractError
from milepost.schemas.records import Event, Reject, Signal
from milepost.topology.aggregates import scaled
from milepost.topology.catalog import Catalog

SAFE: Final = 2.0**53
"""Numbers below fit at every scale (at most 12 decimals): 2^53 * 10^12 < 2^95."""


class Judged(NamedTuple):
    """What the rules made of an event: signals in the order of the rules, pairs that failed, how many rules said no."""

    signals: list[Signal]
    failed: list[tuple[str, Reject]]
    declined: int


NOTHING: Final = Judged([], [], 0)


def judge(event: Event, catalog: Catalog) -> Judged:
    signals: list[Signal] = []
    failed: list[tuple[str, Reject]] = []
    declined = 0
    rules = catalog.rules_by_type.get(event.type, ())
    if not rules:
        return Judged(signals, failed, 0)
    data, view = event.data, {"type": event.type, "time": event.time, "source": event.source, "org": event.org}
    for rule in rules:
        try:
            if rule.when is not None and rule.when.evaluate(data, view) is not True:
                declined += 1
                continue
            fields = {name: expression.evaluate(data, view) for name, expression in rule.fields.items()}
            for measure in catalog.measures_by_rule.get(rule.name, ()):
                if measure.field is not None:
                    _in_range(fields.get(measure.field), measure.scale, measure.field)
        except ContractError as error:
            failed.append((rule.name, Reject(error.reason, error.detail)))
            continue
        signals.append(Signal(rule=rule.name, version=rule.version, fields=fields))
    return Judged(signals, failed, declined)


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
