"""Operations: health, status, telemetry, digest, topology and dead letters over HTTP."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from milepost.agents.views.asking import Asking, Doors, answer, found, paged
from milepost.agents.views.problems import problem
from milepost.ops import telemetry
from milepost.topology.digest import digest_steps
from milepost.topology.panes import DAY_MS

LAG_MS_MAX: Final = DAY_MS
"""An ingest lag at which the worker is no longer ready: at 72 h the log may lose first bodies (design §3)."""
LEFT_OUT_MAX: Final = 20
"""So many parts of definitions that are left out are named."""


async def healthz(doors: Doors, asking: Asking) -> web.Response:
    return answer({"status": "alive"})


async def readyz(doors: Doors, asking: Asking) -> web.Response:
    """200, or 503 with every reason.  What of the definitions is left out is said and is none: the rest holds."""
    health = doors.services.health()
    reasons = [f"{partition} is being restored" for partition in health.restoring]
    reasons += health.stalled
    if not health.decisions:
        reasons.append("the decision topics are not read to their end yet")
    if health.ingest_lag_ms is not None and health.ingest_lag_ms > LAG_MS_MAX:
        reasons.append(f"ingest lags by {health.ingest_lag_ms // 3_600_000} h; red from 24 h on")
    if reasons:
        return problem(503, "not ready", reasons[0], reasons=reasons)
    told = {"left_out": health.left_out[:LEFT_OUT_MAX]} if health.left_out else {}
    return answer({"status": "ready", **told})


async def status(doors: Doors, asking: Asking) -> web.Response:
    return answer(doors.services.status())


async def topology(doors: Doors, asking: Asking) -> web.Response:
    return answer(doors.services.topology())


async def digest(doors: Doors, asking: Asking) -> web.Response:
    return answer(await found(doors, asking, lambda: digest_steps(doors.services.reader)))


async def dead_letters(doors: Doors, asking: Asking) -> web.Response:
    offset, limit = asking.page()
    rows, further = paged(await doors.services.dead_letters(), offset, limit)
    return answer({"problems": rows, "next": further})


async def exposition(doors: Doors, asking: Asking) -> web.Response:
    health = doors.services.health()
    lag_ms = health.ingest_lag_ms
    telemetry.observe(doors.services.status().get("legs", {}))
    telemetry.lag_seconds("ingest", None if lag_ms is None else lag_ms / 1000)
    telemetry.left_out(len(health.left_out))
    return web.Response(body=telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
