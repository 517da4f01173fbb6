"""Plans: how plans and their milestones stand, and what was recognised of them, over HTTP; actions that people tick.

How they stand is computed; what was recognised is read from the topic `milestones` (agents/milestone_log.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from milepost.agents.views import by_hand
from milepost.agents.views.asking import Asking, Doors, Query, found, paged
from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.asked import organisation
from milepost.topology.bases import instant, written
from milepost.topology.companies import Companies
from milepost.topology.panes import PANE_MS
from milepost.topology.recognitions import CORRECTED, Recognition
from milepost.topology.refusals import BadParameter
from milepost.topology.standings import Asks
from milepost.topology.steps import Steps

CORRECTIONS_MAX: Final = 20
"""Corrections that a row shows, the latest ones."""
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
    until = instant(told["at"]) // PANE_MS if told["basis"] == "as_shown" else None
    said: dict[tuple[str, str, str, bytes], list[Recognition]] = {}
    for one in await doors.services.recognitions({keys.from_metakey(row["company"]) for row in told["milestones"]}):
        if until is None or one.k <= until:
            said.setdefault(one.subject, []).append(one)
    rows = []
    for row in told["milestones"]:
        mine = said.get((told["org"], row["plan"], row["milestone"], keys.from_metakey(row["company"])), [])
        last = mine[-1] if mine and mine[-1].now.state == row["state"] else None
        corrections = [one.as_dict() for one in mine if one.kind == CORRECTED][-CORRECTIONS_MAX:]
        recognised = None if last is None else written(last.recognised_at * PANE_MS)
        rows.append({**row, "recognised_at": recognised, "corrections": corrections})
    return asking.answer({**told, "milestones": rows})


async def history(doors: Doors, asking: Query) -> web.Response:
    """What was recognised of a company's milestones, as it was said: of each leaf that is the company now, since each
    may have been its root."""
    offset, limit = asking.page()
    org = organisation(doors.services.reader, asking.text("org"))
    company = asking.needed("company")
    plan, milestone = asking.text("plan"), asking.text("milestone")
    leaves = await found(doors, asking, lambda: _leaves(doors, org, company))
    wanted = [
        one
        for one in await doors.services.recognitions(leaves)
        if one.subject.org == org and plan in (None, one.subject.plan) and milestone in (None, one.subject.milestone)
    ]
    page, further = paged(wanted, offset, limit)
    rows = [
        {
            "plan": one.subject.plan,
            "milestone": one.subject.milestone,
            "company": keys.metakey(one.subject.company),
            **one.as_dict(),
        }
        for one in page
    ]
    return asking.answer({"org": org, "company": keys.metakey(leaves[0]), "transitions": rows, "next": further})


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


def _leaves(doors: Doors, org: str, company: str) -> Steps[Sequence[bytes]]:
    """The leaves that are a company now, its root first."""
    decisions = doors.services.reader.decisions
    companies = Companies(doors.services.reader, org, decisions.history[org][-1].catalog.key_rank)
    leaf = yield from companies.leaf(company)
    components = yield from decisions.components(org, None)
    return components.leaves(components.root(leaf))


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
