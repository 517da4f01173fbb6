"""Why: the answers of `explain` and `diff` as text, a line an event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def explained(answer: Mapping[str, Any]) -> str:
    """The value, whether its events add up to it, and they."""
    return "\n".join(_explained(answer))


def differing(answer: Mapping[str, Any]) -> str:
    """Both values, what each cause adds, and the events."""
    return "\n".join(_differing(answer))


def _explained(answer: Mapping[str, Any]) -> Iterator[str]:
    yield "  ".join([_number(answer), str(answer["unit"]), answer["basis"], f"at {answer['at']}"])
    for one in answer["operands"]:
        agrees = {True: "agrees", False: "DIFFERS", None: "not added again"}[one["agrees"]]
        yield f"  {one['metric']}: {one['counted']:,} counted, {agrees}"
    yield from _limited(answer)
    for row in answer["rows"]:
        yield _row(row)
    yield from _further(answer)


def _differing(answer: Mapping[str, Any]) -> Iterator[str]:
    for name in ("before", "after"):
        yield f"{name:7} {_number(answer[name])}  {answer['unit']}  {answer[name]['basis']}  at {answer[name]['at']}"
    for one in answer["operands"]:
        for cause, told in one["causes"].items():
            counts = ", ".join(f"{told[kind]:,} {kind}" for kind in ("added", "removed", "changed") if told[kind])
            yield f"  {one['metric']}: {cause}: {counts}: {told['sum']:+,}"
        if one["adds_up"] is False:
            yield f"  {one['metric']}: these DO NOT ADD UP to the difference"
    yield from _limited(answer)
    for row in answer["rows"]:
        yield f"{row['cause']:10}  {_row(row)}"
    yield from _further(answer)


def _row(row: Mapping[str, Any]) -> str:
    revision = f" r{row['revision']}" if row["revision"] else ""
    event = f"{row['source']}/{row['id']}{revision}"
    whose = row["key"] or row["company"]
    return f"{row['adds']:>+8,}  {row['time']}  known {row['known']}  {event}  {whose}  {row['position']}"


def _number(row: Mapping[str, Any]) -> str:
    return f"– ({row['reason']})" if row["value"] is None else f"{row['value']:,}"


def _limited(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer["limited"]:
        yield f"  {answer['limited']}"


def _further(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer["next"]:
        yield f"…  --next {answer['next']}"
