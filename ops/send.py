"""Send: events to the worker's gateway, in order, in requests of a bounded size; what became of each is counted.

lines of a file  ──▶ (line, event, bytes) ─┐
connectors       ──▶ (place, event, bytes) ─┴──▶ POST /v1/events ──▶ accepted · duplicate · rejected
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client, Refused

ITEMS_MAX: Final = 1000
BYTES_MAX: Final = 4 * 1024 * 1024
SHOWN_MAX: Final = 10
"""So many rejections are shown in full; the rest are counted."""
Place = int | str
"""Where an event comes from: the number of a line, or words, as `commit 1a2b`."""
Item = tuple[Place, Any, int]
"""(place, event, its size in bytes)"""


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
        return "\n".join([said, *(f"  {_written(one)}: {one['said']}" for one in self.problems)])

    def reject(self, place: Place, said: str) -> None:
        """Note that what came from `place` was not taken."""
        self.outcomes["rejected"] += 1
        if len(self.problems) < SHOWN_MAX:
            self.problems.append(
                {"line": place, "said": said} if isinstance(place, int) else {"at": place, "said": said}
            )


def send_lines(client: Client, lines: Iterable[bytes], *, say: Say = silent) -> SendReport:
    """POST the lines.  A line that is no JSON is rejected here, with its number, and the rest goes on."""
    report = SendReport()
    send_events(client, _parsed(lines, report), report, say=say)
    return report


def send_events(
    client: Client,
    events: Iterable[Item],
    report: SendReport,
    *,
    say: Say = silent,
    what: str = "lines",
    taken: Callable[[Sequence[Item]], None] = lambda _: None,
) -> None:
    """POST events in their order; `report` counts.

    what:  what is counted in the progress
    taken: told of each request's items once they are answered, so that whoever sends can say how far it has come
    """
    for items in _requests(events):
        try:
            answer = client.post("/v1/events", [event for _, event, _ in items])
        except Refused as refused:  # where none of a request could be keyed, the problem says of each why
            if not isinstance(refused.problem.get("items"), list):
                raise
            answer = refused.problem
        for (place, event, _), item in zip(items, _items(answer), strict=True):
            outcome = str(item.get("status", item.get("outcome", "accepted")))
            if receipt := item.get("receipt"):
                report.last_receipt = receipt
                report.receipts[receipt.partition("@")[0]] = (
                    receipt,
                    event.get("org") if isinstance(event, dict) else None,
                )
            if outcome == "rejected":
                problem = item.get("problem") or {}
                report.reject(place, str(problem.get("detail") or problem.get("title") or "no reason given"))
            else:
                report.outcomes[outcome] += 1
        taken(items)
        say(f"{sum(report.outcomes.values()):,} {what} sent")


def wait_included(client: Client, report: SendReport) -> None:
    """Wait until every answer includes what was sent.  StoreError when the worker does not get there."""
    for receipt, org in report.receipts.values():
        with contextlib.suppress(Refused):  # an organisation without definitions: nothing of it is ever answered
            client.get("/v1/metrics", org=org, after=receipt)


def _parsed(lines: Iterable[bytes], report: SendReport) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line), len(line)
        except (ValueError, RecursionError) as error:
            report.reject(number, f"not JSON: {error}")


def _requests(events: Iterable[Item]) -> Iterator[list[Item]]:
    items: list[Item] = []
    size = 0
    for item in events:
        if items and (len(items) >= ITEMS_MAX or size + item[2] > BYTES_MAX):
            yield items
            items, size = [], 0
        items.append(item)
        size += item[2]
    if items:
        yield items


def _written(problem: dict[str, Any]) -> str:
    return f"line {problem['line']}" if "line" in problem else str(problem["at"])


def _items(answer: Any) -> list[dict[str, Any]]:
    """The items of the gateway's answer, one an event, in order."""
    items = answer.get("items", answer.get("results")) if isinstance(answer, dict) else answer
    return items if isinstance(items, list) else [answer]
