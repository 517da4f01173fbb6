"""Rules: what an event and a rule cost, in nanoseconds: the demo's rules, and typical expressions.

Each is evaluated on events with other values in turn, so that nothing is answered from a cache.  Processor time of this
thread, and the best of many short rounds, because others use the machine, too.  The call from a loop is in the figure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from milepost.ops.apply import demo_bundle
from milepost.schemas.contracts import compile_contract, paths_of
from milepost.topology.catalog import load_bundle
from milepost.topology.definitions import Rule
from milepost.topology.expressions import Expression, compile_expression

Evaluate = Callable[[Mapping[str, Any], Mapping[str, Any]], object]
Events = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]

ROUNDS: Final = 60
TIMES: Final = 2_048
LIBRARY_TIMES: Final = 128

_TYPES: Final[Mapping[str, Any]] = {
    "n": "double",
    "maybe": ["null", "double"],
    "kind": "string",
    "code": "string",
    "at": "string",
    "tags": {"type": "array", "items": "string"},
    "parts": {
        "type": "array",
        "items": {
            "type": "record",
            "name": "Part",
            "fields": [{"name": "price", "type": "double"}, {"name": "count", "type": "long"}],
        },
    },
}
TYPICAL: Final[Mapping[str, str]] = {
    "a comparison": "data.n <= 15.0",
    "three conditions, one of null": "data.maybe != null && data.maybe > 30.0 && data.kind == 'paid'",
    "one of a list": "data.kind in ['paid', 'free', 'trial']",
    "a ratio": "data.n / 60.0 + 1.0",
    "text put together": "data.kind + '/' + data.code",
    "a pattern": "data.code.matches('^[A-Z]{2}-[0-9]+$')",
    "an hour of the day": "timestamp(event.time).getHours() >= 18",
    "a loop over three texts": "data.tags.exists(t, t.startsWith('vip'))",
    "a loop over three objects": "data.parts.exists(p, p.price * p.count > 100)",
    "by the library: a pattern": "data.code.matches('^([A-Z]|[0-9]-?)+$')",
    "by the library: a comparison of objects": "data.parts == data.parts",
}
"""What it is -> the expression."""


def measure_rules(*, quick: bool = False) -> dict[str, Any]:
    """Nanoseconds an event of each of the demo's rules, and an evaluation of typical expressions."""
    times = LIBRARY_TIMES if quick else TIMES
    demo = {rule.name: _rule(rule, times) for rule in load_bundle(demo_bundle()).rules.values()}
    return {
        "demo_ns": {name: round(ns) for name, ns in demo.items()},
        "slowest_ns": round(max(demo.values())),
        "typical_ns": {name: round(_typical(text, times)) for name, text in TYPICAL.items()},
    }


def _rule(rule: Rule, times: int) -> float:
    """A rule as `signals.judge` evaluates it: the condition, then the fields."""
    when, fields = rule.when, rule.fields

    def judged(data: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        if when is None or when.evaluate(data, event) is True:
            {name: field.evaluate(data, event) for name, field in fields.items()}

    flight = {"carrier": "UA", "origin": "EWR", "dest": "IAH"}
    weather = {"visib": 10.0, "wind_speed": 6.9, "precip": 0.0}
    events: Events = [({**flight, **weather, "tailnum": f"N{i}", "dep_delay": float(i % 40)}, {}) for i in range(64)]
    return _best(judged, events, times)


def expression(text: str) -> Expression:
    """A typical expression, compiled."""
    fields = [{"name": name, "type": of} for name, of in _TYPES.items()]
    contract = compile_contract("Typical", json.dumps({"type": "record", "name": "T", "fields": fields}).encode())
    return compile_expression(text, "rule", data=paths_of(contract.type))


def _typical(text: str, times: int) -> float:
    made = expression(text)
    return _best(made.evaluate, _events(), times if made.compiled else min(times, LIBRARY_TIMES))


def _events() -> Events:
    return [
        (
            {
                "n": float(i),
                "maybe": float(i) if i % 3 else None,
                "kind": ("paid", "free", "other")[i % 3],
                "code": f"{'AB' if i % 2 else 'b'}-{i}",
                "at": "",
                "tags": ["new", f"tag{i}", "vip" if i % 4 else "web"],
                "parts": [{"price": float(i + j), "count": j} for j in range(3)],
            },
            {"type": "t", "time": f"2013-01-01T{i % 24:02}:30:00Z", "source": "s", "org": "o"},
        )
        for i in range(64)
    ]


def _best(evaluate: Evaluate, events: Events, times: int) -> float:
    """Nanoseconds a call, of the best round."""
    whole = list(events) * max(1, times // len(events))
    return min(_round(evaluate, whole) for _ in range(ROUNDS))


def _round(evaluate: Evaluate, events: Events) -> float:
    begun = time.thread_time_ns()
    for data, event in events:
        evaluate(data, event)
    return (time.thread_time_ns() - begun) / len(events)
