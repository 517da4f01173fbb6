"""Internal: what one worker answers another.  Sealed both ways (agents/peers.py); a foreigner gets a 403."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from milepost.agents import peers
from milepost.agents.views.asking import Asking, Doors
from milepost.agents.views.problems import Problem

PARTS_MAX: Final = 4_096


async def parts(doors: Doors, asking: Asking) -> web.Response:
    """What this worker has of the parts asked for; a part that it has not is answered with why."""
    services = doors.services
    body = await asking.request.read()  # of bounded size: aiohttp refuses more than 1 MiB
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
