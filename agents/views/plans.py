"""Plans: how plans and their milestones stand, and what was recognised of them, over HTTP; actions that people tick.

How they stand is computed; what was recognised is read from the topic `milestones` (agents/milestone_log.py), of all
leaves that are the company now: each of them may have been its root.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
LEAVES_MAX: Final = 200_000
"""Keys of the companies that one answer looks at, together, at most."""

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
    roots = {keys.from_metakey(row["company"]) for row in told["milestones"]}
    leaves = await found(doors, asking, lambda: _leaves(doors, told["org"], roots, until))
    said = await _told(doors, told["org"], leaves, until)
    rows = []
    for row in told["milestones"]:
        mine = said.get((keys.from_metakey(row["company"]), row["plan"], row["milestone"]), [])
        last = mine[-1] if mine and mine[-1].now.state == row["state"] else None
        corrections = [one.as_dict() for one in mine if one.kind == CORRECTED][-CORRECTIONS_MAX:]
        recognised = None if last is None else written(last.recognised_at * PANE_MS)
        rows.append({**row, "recognised_at": recognised, "corrections": corrections})
    return asking.answer({**told, "milestones": rows})


async def history(doors: Doors, asking: Query) -> web.Response:
    """What was recognised of a company's milestones, as it was said."""
    offset, limit = asking.page()
    org = organisation(doors.services.reader, asking.text("org"))
    company = asking.needed("company")
    plan, milestone = asking.text("plan"), asking.text("milestone")
    root = await found(doors, asking, lambda: _root(doors, org, company))
    said = await _told(doors, org, await found(doors, asking, lambda: _leaves(doors, org, {root}, None)), None)
    wanted = [
        one
        for (_, of_plan, of_milestone), some in said.items()
        for one in some
        if plan in (None, of_plan) and milestone in (None, of_milestone)
    ]
    wanted.sort(key=lambda one: (one.k, one.subject))
    rows = [
        {
            "plan": one.subject.plan,
            "milestone": one.subject.milestone,
            "company": keys.metakey(one.subject.company),
            **one.as_dict(),
        }
        for one in wanted
    ]
    page, further = paged(rows, offset, limit)
    return asking.answer({"org": org, "company": keys.metakey(root), "transitions": page, "next": further})


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


def _root(doors: Doors, org: str, company: str) -> Steps[bytes]:
    decisions = doors.services.reader.decisions
    companies = Companies(doors.services.reader, org, decisions.history[org][-1].catalog.key_rank)
    leaf = yield from companies.leaf(company)
    return (yield from decisions.components(org, None)).root(leaf)


def _leaves(doors: Doors, org: str, roots: Collection[bytes], until: int | None) -> Steps[dict[bytes, bytes]]:
    """Leaf -> root, of some companies as they are now, or were at a bucket end."""
    c_ms = None if until is None else until * PANE_MS
    components = yield from doors.services.reader.decisions.components(org, c_ms)
    found = {leaf: root for root in roots for leaf in components.leaves(root)}
    if len(found) > LEAVES_MAX:
        raise BadParameter(
            f"the companies have more than {LEAVES_MAX} keys together", fix="ask for one company, or a smaller page"
        )
    return found


async def _told(
    doors: Doors, org: str, leaves: Mapping[bytes, bytes], until: int | None
) -> dict[tuple[bytes, str, str], list[Recognition]]:
    """(root, plan, milestone) -> what was said by the bucket end `until`, in its order."""
    found: dict[tuple[bytes, str, str], list[Recognition]] = {}
    told: Sequence[Recognition] = await doors.services.recognitions(leaves.keys()) if leaves else ()
    for one in told:
        if one.subject.org == org and (until is None or one.k <= until):
            place = leaves[one.subject.company], one.subject.plan, one.subject.milestone
            found.setdefault(place, []).append(one)
    return found


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
