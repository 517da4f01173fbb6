"""Internal: what one worker answers another.  Sealed both ways (agents/peers.py); a foreigner gets a 403."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from milepost.agents import peers
from milepost.agents.views.asking import Asking, Doors
from milepost.agents.views.bodies import whole_body
from milepost.agents.views.problems import Problem

PARTS_MAX: Final = 4_096
BODY_BYTES_MAX: Final = 1024 * 1024


async def parts(doors: Doors, asking: Asking) -> web.Response:
    """What this worker has of the parts asked for; a part that it has not is answered with why."""
    services = doors.services
    # Whoever sends it is known when it has been read, so it has no longer than a worker waits for the answer.
    body = await whole_body(asking.request, BODY_BYTES_MAX, whole_s=peers.ASK_S)
    seal = asking.request.headers.get(peers.SEAL, "")
    sealer = services.sealer
    try:
        sealer.check(seal, peers.PATH.encode(), body)
        wanted, stale_ms = peers.load_parts(body)
    except peers.Forged as error:
        raise Problem(403, "only workers of this deployment are answered here", str(error)[:200]) from error
    if len(wanted) > PARTS_MAX:
        raise Problem(413, "too many parts", f"at most {PARTS_MAX}, {len(wanted)} came")
    told = peers.dump_answers(wanted, await services.here(wanted, stale_ms))
    headers = {peers.SEAL: sealer(seal.encode(), told)}
    return web.Response(body=told, content_type="application/msgpack", headers=headers)
