"""Meaning: how soon a milestone's change is seen after its event, an old event in its pane, a merge in every answer.

    a new company's event beside 2,000 a second    -> GET /v1/milestones says `achieved`
    one of three years ago beside as many          -> the series of its quarter of an hour has it; what was shown stays
    two companies with known sums, linked by hand  -> value, breakdown, companies, milestones are of both

Events are an hour old, so that their pane has ended: a milestone is reached at the end of a pane.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from milepost.ops.bench import job, rates
from milepost.ops.bench.stage import Stage
from milepost.ops.client import Client, Refused
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from milepost.topology.bases import written
from milepost.topology.panes import DAY_MS, PANE_MS

RATE: Final = 2_000
"""Events a second beside the milestones."""

OLD_MS: Final = 3 * 365 * DAY_MS

LATE_S: Final = 30.0
"""A change that is not seen so long after its event is lost."""

PLAN: Final = """\
milestones:
  welcome: {kind: achieve, start: 2025-01-01, deadline: 2035-01-01,
            actions: {in: {metric: logins_sum, window: all, op: ">=", value: 1, affects: true}}}
plans:
  begin: {bridge: "acme/*", milestones: [welcome], metrics: [logins_sum]}
"""


def bundle() -> dict[str, bytes]:
    """The job's definitions, and a milestone."""
    files = job.bundle()
    return {**files, "milepost.yaml": files["milepost.yaml"] + PLAN.encode()}


def measure_milestones(stage: Stage, *, seconds: float, rate: int = RATE) -> dict[str, Any]:
    """Milliseconds from the call of produce to the first answer in which the milestone is achieved."""
    with rates.living(stage, "milestones", bundle()) as fleet:
        settings = fleet.members[0]
        took: list[float] = []
        log = settings.home / "pacer.log"
        with (
            rates.paced(settings, log, rate=rate, seconds=rates.WARM_S + seconds, seed=300) as pacer,
            Client(settings.url) as client,
            Sender(settings.bootstrap, linger_ms=0) as sender,
        ):
            time.sleep(rates.WARM_S)
            while pacer.poll() is None:
                company = f"probe-{uuid.uuid4().hex[:12]}"
                begun = time.monotonic()
                _send(settings, sender, company, 1.0)
                _until(lambda one=company: _state(client, one) == "achieved", company)  # type: ignore[misc]
                took.append((time.monotonic() - begun) * 1000)
                time.sleep(0.02)
        return {"rate": rate, "backlog": rates.backlog(settings), **_figures(took)}


def measure_old(stage: Stage, *, seconds: float, rate: int = RATE) -> dict[str, Any]:
    """A three-year-old event lands in its pane within a second, and the as-shown past does not move: milliseconds from
    the call of produce to the first answer of the pane that has it."""
    with rates.living(stage, "old") as fleet:
        settings = fleet.members[0]
        took: list[float] = []
        log = settings.home / "pacer.log"
        with (
            rates.paced(settings, log, rate=rate, seconds=rates.WARM_S + seconds, seed=400) as pacer,
            Client(settings.url) as client,
            Sender(settings.bootstrap, linger_ms=0) as sender,
        ):
            time.sleep(rates.WARM_S)
            between = written(int(time.time() * 1000) - OLD_MS // 2)
            shown = client.value("logins_sum", at=between, basis="as_shown")["value"]
            while pacer.poll() is None:
                company = f"old-{uuid.uuid4().hex[:12]}"
                begun = time.monotonic()
                t_ms = _send(settings, sender, company, 1.0, age_ms=OLD_MS)
                _until(lambda one=company, at=t_ms: _of_pane(client, one, at) == 1, company)  # type: ignore[misc]
                took.append((time.monotonic() - begun) * 1000)
                time.sleep(0.02)
            if client.value("logins_sum", at=between, basis="as_shown")["value"] != shown:
                raise StoreError("old events changed what was shown before they came")
        return {"rate": rate, "backlog": rates.backlog(settings), **_figures(took)}


def measure_merges(stage: Stage, *, merges: int) -> dict[str, Any]:
    """Milliseconds from the call that links two companies to the moment since which every answer is of both."""
    with rates.living(stage, "merges", bundle()) as fleet:
        settings = fleet.members[0]
        took: list[float] = []
        with Client(settings.url) as client, Sender(settings.bootstrap, linger_ms=0) as sender:
            # Of one length: a search finds whatever begins with what is looked for.
            pairs = [(f"left-{number:04}", f"right-{number:04}") for number in range(merges)]
            for one in pairs:
                for company, amount in zip(one, (3.0, 4.0), strict=True):
                    _send(settings, sender, company, amount)
            for left, right in pairs:
                _until(lambda a=left, b=right: (_sum(client, a), _sum(client, b)) == (3, 4), left)  # type: ignore[misc]
            before = client.digest()["cells"]
            for left, right in pairs:
                begun = time.monotonic()
                client.post("/v1/identity/link", {"keys": [_key(left), _key(right)]})
                _until(lambda a=left, b=right: _merged(client, a, b), left)  # type: ignore[misc]
                took.append((time.monotonic() - begun) * 1000)
            if client.digest()["cells"] != before:
                raise StoreError("a merge changed cells")
        return {"merges": merges, "cells_unchanged": True, **_figures(took)}


def _send(settings: Settings, sender: Sender, company: str, amount: float, *, age_ms: int = 3_600_000) -> int:
    """Send an event of so long ago; answers when it happened."""
    t_ms = int(time.time() * 1000) - age_ms
    body = job.event(
        str(uuid.uuid4()), t_ms, company, type="login", user="email:probe@example.com", amount=amount, plan="free",
        country="US", session="",
    )  # fmt: skip
    one = job.message(body, settings.partitions)
    sender.send(settings.topic("raw-events"), one.partition, one.key, one.value)
    return t_ms


def _of_pane(client: Client, company: str, t_ms: int) -> float | None:
    """What the pane of a time holds of a company; None: nothing, or the company is not known yet."""
    start = t_ms - t_ms % PANE_MS
    asked = {"from": written(start), "to": written(start + PANE_MS), "every": "15m"}
    try:
        points = client.get("/v1/metrics/logins_sum/series", company=_key(company), **asked)["points"]
    except Refused as refused:
        if refused.status != 404:
            raise
        return None
    return None if points[0]["value"] is None else float(points[0]["value"])


def _key(company: str) -> str:
    return f"crm_id:crm:{company}"


def _state(client: Client, company: str) -> str | None:
    """The milestone's state; None: the company is not known yet."""
    try:
        rows = client.get("/v1/milestones", company=_key(company))["milestones"]
    except Refused as refused:
        if refused.status != 404:
            raise
        return None
    return str(rows[0]["state"]) if rows else None


def _sum(client: Client, company: str) -> float | None:
    try:
        value = client.value("logins_sum", company=_key(company))["value"]
    except Refused as refused:
        if refused.status != 404:
            raise
        return None
    return None if value is None else float(value)


def _merged(client: Client, left: str, right: str) -> bool:
    """Whether value, breakdown, companies and milestones take both for one."""
    if (_sum(client, left), _sum(client, right)) != (7, 7):
        return False
    company = client.get("/v1/companies", q=_key(left))["companies"]
    if len(company) != 1 or not {_key(left), _key(right)} <= set(company[0]["keys"]):
        return False
    rows = client.get("/v1/metrics/logins_sum/breakdown", company=_key(right), by="plan")["rows"]
    milestones = client.get("/v1/milestones", company=_key(right))["milestones"]
    return sum(float(row["value"]) for row in rows) == 7 and milestones[0]["actions"][0]["value"] == 7


def _until(seen: Callable[[], bool], company: str) -> None:
    until = time.monotonic() + LATE_S
    while not seen():
        if time.monotonic() > until:
            raise StoreError(f"what was sent for {company} was not seen in {LATE_S:.0f} s")
        time.sleep(0.01)


def _figures(took_ms: list[float]) -> dict[str, Any]:
    if len(took_ms) < 2:
        raise StoreError(f"{len(took_ms)} changes were seen: too few to say anything")
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return {
        "seen": len(took_ms),
        "p50_ms": round(cuts[49], 1),
        "p99_ms": round(cuts[98], 1),
        "max_ms": round(max(took_ms), 1),
    }
