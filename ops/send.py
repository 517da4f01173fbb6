"""Send: events to the worker's gateway, in order, in requests of a bounded size; what became of each is counted.

lines of a file  ──▶ (line, event, bytes) ─┐
connectors       ──▶ (place, event, bytes) ─┴──▶ POST /v1/events ──▶ accepted · duplicate · rejected
                      a line that is no JSON is not posted: it is rejected here, in its turn

How a file that was cut short goes on is in ops/resuming.py.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from milepost.ops.broker import Say, silent
from milepost.ops.client import Client, Refused
from milepost.schemas.errors import DeclarationError, StoreError

ITEMS_MAX: Final = 1000
BYTES_MAX: Final = 4 * 1024 * 1024
LINE_BYTES_MAX: Final = 2 * 1024 * 1024
"""A longer line is not read whole; the gateway takes events of 1 MiB."""
UNREAD_MAX: Final = 100
"""Where so many lines come first of which none is JSON, the file is not one of events."""
SHOWN_MAX: Final = 10
"""So many rejections are shown in full; the rest are counted."""
SAY_S: Final = 1.0
"""Progress is said so often, in seconds."""
_FLAT: Final = "`jq -c '.[]' FILE | milepost send -` makes lines of an array"
Place = int | str
"""Where an event comes from: the number of a line, or words, as `commit 1a2b`."""
Item = tuple[Place, Any, int]
"""(place, event, its size in bytes)"""
Outcome = dict[str, Any]
"""What became of one item: `line` or `at`, `status`, and `receipt` or `said`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """In the place of an event: what was expected, and what came."""

    said: str


@dataclass(slots=True)
class SendReport:
    """What became of the lines: outcome (accepted, duplicate, rejected) -> count, and the first rejections.

    receipts: raw partition, as `raw-events/3` -> the last receipt there, and its event's organisation
    each:     told of every item, in order
    taken:    the last event that was not rejected
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    last_receipt: str = ""
    receipts: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    each: Callable[[Outcome], None] | None = None
    taken: Any = None

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
        where = {"line": place} if isinstance(place, int) else {"at": place}
        if len(self.problems) < SHOWN_MAX:
            self.problems.append({**where, "said": said})
        if self.each is not None:
            self.each({**where, "status": "rejected", "said": said})

    def take(self, place: Place, event: Any, item: Mapping[str, Any]) -> None:
        """Note what the gateway said of an event."""
        outcome, receipt = str(item.get("status", item.get("outcome", "accepted"))), item.get("receipt")
        if receipt:
            self.last_receipt = receipt
            org = event.get("org") if isinstance(event, dict) else None
            self.receipts[receipt.partition("@")[0]] = (receipt, org)
        if outcome == "rejected":
            problem = item.get("problem") or {}
            said = str(problem.get("detail") or problem.get("title") or "no reason given")
            self.reject(place, f"{said}; expected: {problem['fix']}" if problem.get("fix") else said)
            return
        self.taken = event
        self.outcomes[outcome] += 1
        if self.each is not None:
            where = {"line": place} if isinstance(place, int) else {"at": place}
            self.each({**where, "status": outcome, "receipt": receipt})


def send_lines(client: Client, lines: Iterable[bytes], report: SendReport, *, say: Say = silent) -> None:
    """POST the lines.  A line that is no JSON is rejected here, with its number, and the rest goes on.

    Raises DeclarationError where none of the first hundred is JSON."""
    send_events(client, parsed(lines), report, say=say)


def send_events(
    client: Client,
    events: Iterable[Item],
    report: SendReport,
    *,
    say: Say = silent,
    what: str = "lines",
    taken: Callable[[Sequence[Item]], None] = lambda _: None,
    left: Callable[[], str] = str,
) -> None:
    """POST events in their order; `report` counts.

    what:  what is counted in the progress
    taken: told of each request's items once they are answered, so that whoever sends can say how far it has come
    left:  what else the progress says
    """
    said = time.monotonic()
    for items in _requests(events):
        readable = [event for _, event, _ in items if not isinstance(event, Unread)]
        answers = iter(_answered(client, readable) if readable else ())
        for place, event, _ in items:
            if isinstance(event, Unread):
                report.reject(place, event.said)
            else:
                report.take(place, event, next(answers))
        taken(items)
        if time.monotonic() - said >= SAY_S:
            said = time.monotonic()
            say(f"{sum(report.outcomes.values()):,} {what} sent{left()}")


def _answered(client: Client, events: Sequence[Any]) -> list[dict[str, Any]]:
    """What the gateway says of each event."""
    try:
        answer = client.post("/v1/events", list(events))
    except Refused as refused:  # where none of a request could be keyed, the problem says of each why
        if not isinstance(refused.problem.get("items"), list):
            raise
        answer = refused.problem
    items = _items(answer)
    if len(items) != len(events):
        raise StoreError(f"{len(events)} events were sent, and the worker answered {len(items)}")
    return items


def wait_included(client: Client, report: SendReport) -> None:
    """Wait until every answer includes what was sent.  StoreError when the worker does not get there."""
    for receipt, org in report.receipts.values():
        with contextlib.suppress(Refused):  # an organisation without definitions: nothing of it is ever answered
            client.get("/v1/metrics", org=org, after=receipt)


def known(client: Client, event: Any) -> bool:
    """Whether the log holds an event; sending it again changes nothing."""
    report = SendReport()
    send_events(client, [("the last event that was sent", event, 0)], report)
    return report.outcomes["duplicate"] == 1


def parsed(lines: Iterable[bytes], first: int = 1) -> Iterator[Item]:
    """The items of lines, of which the first has the number `first`; empty ones are passed over."""
    unread, read = 0, first > 1
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            if len(line) > LINE_BYTES_MAX:
                raise ValueError(f"a line of at most {LINE_BYTES_MAX:,} bytes was expected")
            event = json.loads(line)
            read = True
            if isinstance(event, list):
                event = Unread(said=f"a JSON array came, one event a line was expected; fix: {_FLAT}")
        except (ValueError, RecursionError) as error:
            unread += 1
            if unread == UNREAD_MAX and not read:
                raise DeclarationError(_no_events(line)) from error
            event = Unread(said=_unreadable(error))
        yield number, event, len(line)


def lines_of(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line of a stream and its bytes; of one that is too long only the beginning is kept."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        size = len(line)
        while not line.endswith(b"\n") and (more := stream.readline(LINE_BYTES_MAX)):
            size += len(more)
            if more.endswith(b"\n"):
                break
        yield line, size


def _unreadable(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} in column {error.colno}; one whole event a line was expected"
    return f"not JSON: {error}"


def _no_events(line: bytes) -> str:
    """That a file holds no events, and what may help."""
    fix = "of a table, `milepost connect csv FILE --map MAPPING.yaml` makes events"
    if line[:1] in (b" ", b"\t", b"[", b"{", b"}"):
        fix = _FLAT
    return f"none of the first {UNREAD_MAX} lines is JSON, one whole event a line was expected; fix: {fix}"


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
