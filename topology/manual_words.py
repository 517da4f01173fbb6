"""Manual, its sentences: what a definition means, in words.  Each function gives one sentence, with links."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from milepost.schemas.contracts import FieldType
from milepost.topology.cel_words import in_words
from milepost.topology.definitions import Action, Expect, Metric, Milestone, Plan, Reaction, Rule, Write
from milepost.topology.expressions import Expression
from milepost.topology.lineage import Node
from milepost.topology.manual import Code, Link, Text, joined, link, text

_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second"), (1, "millisecond"))
_KINDS: Final[Mapping[str, str]] = {
    "number": "number", "string": "text", "boolean": "true or false", "null": "nothing", "record": "object",
    "list": "list", "map": "map", "mixed": "one of several kinds",
}  # fmt: skip
_FOLDS: Final[Mapping[str, str]] = {
    "sum": "The sum of {} over", "min": "The least {} of", "max": "The greatest {} of", "avg": "The mean {} of",
    "last": "The latest {} of",
}  # fmt: skip
_OPERATORS: Final[Mapping[str, str]] = {
    "<": "below", "<=": "at most", "==": "exactly", "!=": "other than", ">=": "at least", ">": "above",
}  # fmt: skip
_WINDOWS: Final[Mapping[str, str]] = {
    "all": "since the beginning", "year": "in the year", "month": "in the month", "week": "in the week",
    "day": "on the day",
}  # fmt: skip
_LETTERS: Final[Mapping[str, str]] = {"m": "minute", "h": "hour", "d": "day"}


def duration(ms: int) -> str:
    """`900000` as 15 minutes."""
    size, unit = next(one for one in _UNITS if ms % one[0] == 0)
    return f"{ms // size:,} {unit}{'' if ms == size else 's'}"


def moment(ms: int) -> str:
    """`12 May 2013, 12:00 UTC`."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def ago(ms: int) -> str:
    """How long, for people: in the largest unit that there are two of."""
    size, unit = next((one for one in _UNITS if ms >= 2 * one[0]), _UNITS[-1])
    return "just now" if ms < 2_000 else f"{ms // size:,} {unit}s ago"


def kind(of: FieldType) -> str:
    """What a field's values are."""
    said = "whole number" if of.kind == "number" and of.whole else _KINDS[of.kind]
    if of.of is not None:
        said += f" of {kind(of.of)}"
    return f"{said}, or nothing" if of.nullable and of.kind != "null" else said


def promises(expect: Expect) -> str:
    """What a source promises; "" for nothing."""
    said = []
    if expect.freshness_ms is not None:
        said.append(f"an event at least every {duration(expect.freshness_ms).removeprefix('1 ')}")
    if expect.volume_min is not None and expect.volume_per_ms is not None:
        said.append(f"at least {expect.volume_min:,} in {duration(expect.volume_per_ms)}")
    if expect.unmatched_max is not None:
        said.append(f"at most {100 * expect.unmatched_max:g} % that lead to nothing")
    return "; ".join(said)


def plain(line: Text) -> str:
    """A line without its links."""
    return "".join(one if isinstance(one, str) else one.text for one in line)


def expression(one: Expression) -> Text:
    """An expression as it is written, with its words where they say more."""
    words, written = in_words(one.text), one.text.strip()
    plain = written.removeprefix("data.")
    return text(Code(written)) if words in ("", written, plain) else text(words, " (", Code(written), ")")


def of_rule(rule: Rule) -> Text:
    """Which events become a signal."""
    each = text("Each ", Link(rule.on, Node("type", rule.on).id), " event")
    if rule.when is None:
        return text(each, f" is a signal {rule.name}.")
    words = in_words(rule.when.text)
    condition = text(" of which ", words) if words else text(" for which ", Code(rule.when.text.strip()))
    return text(each, condition, f" is a signal {rule.name}.")


def of_metric(metric: Metric) -> Text:
    """What a number says."""
    if metric.formula is not None:
        operands = joined((link(Node("metric", one)) for one in metric.operands), ", ", " and ")
        words = in_words(metric.formula.text) or metric.formula.text.strip()
        return text(words, ", computed from ", operands, " when it is asked for.")
    assert metric.measure is not None
    signals = text(Link(metric.measure.rule, Node("rule", metric.measure.rule).id), " signals")
    match metric.aggregate:
        case "count":
            return text("How many ", signals, " there are.")
        case "distinct":
            return text(f"How many different {metric.measure.entity}s the ", signals, " name.")
        case "percentile":
            share = f"The {metric.measure.field} that {metric.percent} % of the "
            return text(share, signals, " do not exceed, to 1 %.")
        case fold:
            return text(f"{_FOLDS[str(fold)].format(metric.measure.field)} the ", signals, ".")


def window(said: str) -> str:
    """`28d` as over 28 days."""
    if said in _WINDOWS:
        return _WINDOWS[said]
    number, unit = int(said[:-1]), _LETTERS[said[-1]]
    return f"over {number:,} {unit}{'' if number == 1 else 's'}"


def of_action(action: Action) -> Text:
    """What has to be so."""
    if action.metric is None:
        said = text(f"somebody ticks: {action.manual}")
    else:
        value = "" if action.value is None else f"{action.value:,.15g}"
        bound = f" is {_OPERATORS[action.op or '==']} {value}, {window(action.window)}"
        said = text(link(Node("metric", action.metric)), bound)
        if action.sustain_ms:
            said = text(said, f", without a break for {duration(action.sustain_ms)}")
    return said if action.affects else text(said, " (shown, and does not count)")


def of_milestone(milestone: Milestone) -> Text:
    """By when, and how much of it is needed."""
    reached = "It is reached once " if milestone.kind == "achieve" else "It is kept as long as "
    counting = [one for one in milestone.actions.values() if one.affects]
    match milestone.need.of:
        case "at_least":
            need = text(f"at least {milestone.need.amount:g} of its actions hold")
        case "weight":
            need = text(f"actions that weigh {milestone.need.amount:g} together hold")
        case _:
            need = text("all its actions hold") if len(counting) > 1 else of_action(counting[0])
    grace = f", with {duration(milestone.grace_ms)} of grace" if milestone.grace_ms else ""
    return text(reached, need, f"; from {milestone.start.text} to {milestone.deadline.text}{grace}.")


def of_plan(plan: Plan) -> Text:
    """Who watches it."""
    if not plan.org:
        return text("A template: other plans are made from it.")
    whom = "each of its companies" if plan.company is None else "one company"
    return text(f"Watched by {plan.org} and {whom}; dates are of the zone {plan.tz}.")


def of_write(write: Write) -> Text:
    """What an event does to a record."""
    does = {"upsert": "creates or replaces", "create": "creates", "update": "replaces", "patch": "changes",
            "delete": "deletes"}[write.op]  # fmt: skip
    on = Link(write.on, Node("type", write.on).id)
    return text("Each ", on, f" event {does} the record whose id is ", Code(".".join(("data", *write.id))), ".")


def of_reaction(reaction: Reaction) -> Text:
    """Whom it tells.  Of the address only the host is shown: the rest may be a secret."""
    host = urlsplit(reaction.webhook).hostname or "an address"
    replayed = "" if reaction.on_replay == "suppress" else ", also of what a replay finds"
    if reaction.signal is not None:
        said = text("each ", Link(reaction.signal, Node("rule", reaction.signal).id), " signal")
    elif reaction.state == "corrected":
        said = text("each correction of a milestone’s past")
    else:
        said = text(f"each milestone that is {str(reaction.state).replace('_', ' ')}")
    return text(f"Tells {host} of ", said, f"{replayed}.")
