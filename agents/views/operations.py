"""Operations: health, status, telemetry, digest and topology over HTTP."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from milepost.agents.views.asking import Asking, Doors, answer, found
from milepost.agents.views.problems import problem
from milepost.agents.views.services import Health
from milepost.ops import telemetry
from milepost.topology.digest import digest_steps

LEFT_OUT_MAX: Final = 20
"""So many parts of definitions that are left out are named."""


async def healthz(doors: Doors, asking: Asking) -> web.Response:
    return answer({"status": "alive"})


async def readyz(doors: Doors, asking: Asking) -> web.Response:
    """200, or 503 with every reason.  What of the definitions is left out is said and is none: the rest holds."""
    health = doors.services.health()
    reasons = [reason for _, reason in unready(health)]
    if reasons:
        return problem(503, "not ready", reasons[0], reasons=reasons)
    told = {"left_out": health.left_out[:LEFT_OUT_MAX]} if health.left_out else {}
    return answer({"status": "ready", **told})


def unready(health: Health) -> list[tuple[str, str]]:
    """Why the worker is not ready: (one of `telemetry.WHYS`, in words)."""
    reasons = [("restoring", f"{partition} is being restored") for partition in health.restoring]
    reasons += (("disk", why) for why in health.stalled)
    if not health.decisions:
        reasons.append(("decisions", "the decision topics are not read to their end yet"))
    if health.ingest_lag_ms is not None and health.ingest_lag_ms > telemetry.INGEST_LAG_S_MAX * 1000:
        reasons.append(("lag", f"ingest lags by {health.ingest_lag_ms // 3_600_000} h; red from 24 h on"))
    return reasons


async def status(doors: Doors, asking: Asking) -> web.Response:
    return answer(doors.services.status())


async def topology(doors: Doors, asking: Asking) -> web.Response:
    return answer(doors.services.topology())


async def digest(doors: Doors, asking: Asking) -> web.Response:
    return answer(await found(doors, asking, lambda: digest_steps(doors.services.reader)))


async def exposition(doors: Doors, asking: Asking) -> web.Response:
    services = doors.services
    health = services.health()
    telemetry.ready({why for why, _ in unready(health)})
    telemetry.observe(services.observed())
    telemetry.asked(doors.waiting, doors.streams())
    telemetry.left_out(len(health.left_out))
    return web.Response(body=telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
