"""Plans: how plans and their milestones stand, over HTTP; actions that people tick."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from milepost.agents.views import by_hand
from milepost.agents.views.asking import Asking, Doors, Query, found, paged
from milepost.topology import bases
from milepost.topology.asked import organisation
from milepost.topology.bases import written
from milepost.topology.refusals import BadParameter
from milepost.topology.standings import Asks

TICK_BODY: Final = '{"company": "crm_id:…", "done": true, "at": "2013-02-12T10:00:00Z", "by": "…"}'


class Tick(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a tick.  at: when it was done, without it now.  A higher revision of the same id replaces it, void
    takes it back."""

    company: str
    done: bool = True
    at: str | None = None
    by: str | None = None
    org: str | None = None
    id: str | None = None
    revision: int = 0
    void: bool = False


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


async def tick(doors: Doors, asking: Asking) -> web.Response:
    told = await by_hand.body(asking, Tick, TICK_BODY)
    org, path = organisation(doors.services.reader, told.org), asking.path
    of = {name: path[name] for name in ("plan", "milestone", "action")}
    company = await found(doors, asking, lambda: doors.standings.tickable(org, company=told.company, **of))
    at_ms, now_ms = None, doors.services.now_ms()
    if told.at is not None:
        at_ms = bases.instant(told.at, "at")
        if at_ms > now_ms + by_hand.SKEW_MS:
            raise BadParameter(f"at lies ahead: it is {written(now_ms)}", fix="at is when it was done")
    data = {**of, "company": company, "done": told.done, "by": told.by}
    return await by_hand.send(doors, org, "action", data, told.id, at_ms, revision=told.revision, void=told.void)


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
