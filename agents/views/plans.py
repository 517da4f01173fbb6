"""Plans: how plans and their milestones stand, over HTTP."""

from __future__ import annotations

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Query, found, paged
from milepost.topology.standings import Asks


async def milestones(doors: Doors, asking: Query) -> web.Response:
    offset, limit = asking.page()
    told = await found(doors, asking, lambda: doors.standings.states(_asks(doors, asking)))
    told["milestones"], told["next"] = paged(told["milestones"], offset, limit)
    return asking.answer(told)


async def plans(doors: Doors, asking: Asking) -> web.Response:
    return asking.answer(doors.standings.plans(asking.text("org")))


async def plan(doors: Doors, asking: Asking) -> web.Response:
    name = asking.path["plan"]
    return asking.answer(await found(doors, asking, lambda: doors.standings.portfolio(_asks(doors, asking, name))))


def _asks(doors: Doors, asking: Query, plan: str | None = None) -> Asks:
    return Asks(
        now_ms=doors.services.now_ms(),
        org=asking.text("org"),
        company=asking.text("company"),
        at_ms=asking.instant("at"),
        basis=asking.text("basis"),
        plan=plan if plan is not None else asking.text("plan"),
        milestone=asking.text("milestone"),
    )
