"""Send: events from a file of JSON lines to the worker's gateway, in order, in requests of a bounded size."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client, Refused

ITEMS_MAX: Final = 1000
BYTES_MAX: Final = 4 * 1024 * 1024
SHOWN_MAX: Final = 10
"""So many rejections are shown in full; the rest are counted."""


@dataclass(slots=True)
class SendReport:
    """What became of the lines: outcome (accepted, duplicate, rejected) -> count, and the first rejections.

    receipts: raw partition, as `raw-events/3` -> the last receipt there, and its event's organisation
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    last_receipt: str = ""
    receipts: dict[str, tuple[str, str | None]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        return self.outcomes["rejected"]

    def as_data(self) -> dict[str, Any]:
        return {**self.outcomes, "problems": self.problems, "last_receipt": self.last_receipt}

    def text(self) -> str:
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())) or "no events"
        return "\n".join([said, *(f"  line {one['line']}: {one['said']}" for one in self.problems)])


def send_lines(client: Client, lines: Iterable[bytes], *, say: Say = silent) -> SendReport:
    """POST the lines.  A line that is no JSON is rejected here, with its number, and the rest goes on."""
    report = SendReport()
    for numbers, events in _requests(lines, report):
        answer = client.post("/v1/events", events)
        for number, event, item in zip(numbers, events, _items(answer), strict=True):
            outcome = str(item.get("status", item.get("outcome", "accepted")))
            report.outcomes[outcome] += 1
            if receipt := item.get("receipt"):
                report.last_receipt = receipt
                report.receipts[receipt.partition("@")[0]] = (
                    receipt,
                    event.get("org") if isinstance(event, dict) else None,
                )
            if outcome == "rejected":
                problem = item.get("problem") or {}
                _reject(report, number, str(problem.get("detail") or problem.get("title") or "no reason given"))
        say(f"{sum(report.outcomes.values()):,} lines sent")
    return report


def wait_included(client: Client, report: SendReport) -> None:
    """Wait until every answer includes what was sent.  StoreError when the worker does not get there."""
    for receipt, org in report.receipts.values():
        with contextlib.suppress(Refused):  # an organisation without definitions: nothing of it is ever answered
            client.get("/v1/metrics", org=org, after=receipt)


def _requests(lines: Iterable[bytes], report: SendReport) -> Iterator[tuple[list[int], list[Any]]]:
    numbers: list[int] = []
    events: list[Any] = []
    size = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            report.outcomes["rejected"] += 1
            _reject(report, number, f"not JSON: {error}")
            continue
        if events and (len(events) >= ITEMS_MAX or size + len(line) > BYTES_MAX):
            yield numbers, events
            numbers, events, size = [], [], 0
        numbers.append(number)
        events.append(event)
        size += len(line)
    if events:
        yield numbers, events


def _reject(report: SendReport, line: int, said: str) -> None:
    if len(report.problems) < SHOWN_MAX:
        report.problems.append({"line": line, "said": said})


def _items(answer: Any) -> list[dict[str, Any]]:
    """The items of the gateway's answer, one an event, in order."""
    items = answer.get("items", answer.get("results")) if isinstance(answer, dict) else answer
    return items if isinstance(items, list) else [answer]
