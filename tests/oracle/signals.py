"""The signals of a company, as the oracle sees them: every event that is the company's and counts at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.oracle.log import Signal
from tests.oracle.oracle import Frame, Oracle, _counts, _moment


def latest(oracle: Oracle, of: Mapping[str, Any]) -> list[Any]:
    """[(time, source, id, revision, repair, [(name, fields)])], sorted."""
    basis, at_ms = _moment(of["at"], of["basis"], of["now"])
    frame = Frame(org=oracle._org(of["org"]), basis=basis, at_ms=at_ms, dims={})
    leaf = oracle._leaf(of["company"], frame.org)
    frame = Frame(org=frame.org, basis=basis, at_ms=at_ms, dims={}, leaves=oracle.component(leaf, frame.c_ms))
    return sorted(
        (
            event.t_ms, event.source, event.id, *event.rank,
            sorted((one.rule, sorted(_fields(one).items())) for one in event.signals),
        )
        for event in oracle.reading.events
        if event.org == frame.org
        and event.signals
        and oracle._whose(event, frame)
        and _counts(event, event.signals[0], frame)
        and (of["from"] is None or event.t_ms >= of["from"])
    )  # fmt: skip


def _fields(one: Signal) -> Mapping[str, Any]:
    """The fields as they are shown: of a tick the action's whole name, by whom, and 1 or 0."""
    if one.rule != "milepost.action":
        return one.fields
    of = one.fields
    action = "/".join(of[name] for name in ("plan", "milestone", "action"))
    return {"action": action, "by": of.get("by"), "done": float(of["done"])}
