"""Plans: how plans and their milestones stand, and what was recognised of them, over HTTP; actions that people tick,
and disputes that they settle.

How they stand is computed; what was recognised is read from the topic `milestones` (agents/milestone_log.py).  Behind
`final` the two together say what holds (topology/disputes.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from milepost.agents.views import by_hand
from milepost.agents.views.asking import Asking, Doors, Query, found, paged
from milepost.schemas import keys
from milepost.topology import bases, disputes
from milepost.topology.asked import organisation
from milepost.topology.bases import instant, written
from milepost.topology.companies import Companies
from milepost.topology.disputes import Accepted
from milepost.topology.panes import PANE_MS
from milepost.topology.recognitions import OF_STATES, Recognition, Subject
from milepost.topology.refusals import BadParameter, UnknownDispute
from milepost.topology.standings import Asks
from milepost.topology.steps import Steps

CORRECTIONS_MAX: Final = 20
"""Corrections that a row shows, the latest ones."""
TICK_BODY: Final = '{"company": "crm_id:…", "done": true, "at": "2013-02-12T10:00:00Z", "by": "…"}'
ACCEPT_BODY: Final = '{"company": "crm_id:…", "by": "…"}'


class Accept(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an acceptance.  A higher revision of the same id replaces it, void takes it back."""

    company: str
    by: str | None = None
    org: str | None = None
    id: str | None = None
    revision: int = 0
    void: bool = False


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
    rows = []
    for row, said, accepted in await _said(doors, told, told["milestones"]):
        stands = disputes.standing(row, instant(told["at"]), said, accepted)
        firsts = [(one, announcement) for one in said if one.first for announcement in one.announcements[:1]]
        rows.append(
            {
                **stands,
                "recognised_at": _recognised_at(stands, said, accepted),
                "announced": [
                    {"event": event, "id": id.hex(), "recognised_at": written(one.recognised_at * PANE_MS)}
                    for one, (event, id) in firsts
                ],
                "corrections": [
                    one for one in disputes.told(said, accepted) if one["kind"] not in OF_STATES
                ][-CORRECTIONS_MAX:],
            }
        )  # fmt: skip
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
    told: dict[Subject, list[Recognition]] = {}
    for one in wanted:
        told.setdefault(one.subject, []).append(one)
    accepted = _accepted(doors, org, None)
    shown = {
        one.key: row for some in told.values() for one, row in zip(some, disputes.told(some, accepted), strict=True)
    }
    page, further = paged(wanted, offset, limit)
    rows = [
        {
            "plan": one.subject.plan,
            "milestone": one.subject.milestone,
            "company": keys.metakey(one.subject.company),
            **shown[one.key],
        }
        for one in page
    ]
    return asking.answer({"org": org, "company": keys.metakey(leaves[0]), "transitions": rows, "next": further})


async def plans(doors: Doors, asking: Asking) -> web.Response:
    return asking.answer(doors.standings.plans(asking.text("org")))


async def plan(doors: Doors, asking: Asking) -> web.Response:
    name = asking.path["plan"]
    told = await found(doors, asking, lambda: doors.standings.portfolio(_asks(doors, asking, name)))
    for one in told["milestones"]:
        rows = [
            disputes.standing(row, instant(told["at"]), said, accepted)
            for row, said, accepted in await _said(doors, told, one["companies"])
        ]
        states = Counter(row["state"] for row in rows)
        one |= {"companies": rows, "states": dict(sorted(states.items()))}
    return asking.answer(told)


async def accept(doors: Doors, asking: Asking) -> web.Response:
    told = await by_hand.body(asking, Accept, ACCEPT_BODY)
    org, path = organisation(doors.services.reader, told.org), asking.path
    leaves = await found(doors, asking, lambda: _leaves(doors, org, told.company))
    of = org, path["plan"], path["milestone"]
    known = {
        one.key.hex(): one
        for one in await doors.services.recognitions(leaves)
        if one.subject[:3] == of and one.dispute and one.withdrawn is None
    }
    if path["dispute"] not in known:
        raise UnknownDispute(
            "no such dispute about the milestone of this company",
            guess=next(reversed(known), None),
            fix="GET /v1/milestones/history lists them",
        )
    company = known[path["dispute"]].subject.company
    name = await found(doors, asking, lambda: doors.standings.named(org, company))
    data = {"plan": of[1], "milestone": of[2], "company": name, "dispute": path["dispute"], "by": told.by}
    return await by_hand.send(doors, org, "dispute_accepted", data, told.id, revision=told.revision, void=told.void)


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


async def _said(
    doors: Doors, told: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[Recognition], Accepted]]:
    """Each row of an answer with what was said of it, and of disputes, by the moment of the answer."""
    until = instant(told["at"]) // PANE_MS if told["basis"] == "as_shown" else None
    said: dict[tuple[str, str, str, bytes], list[Recognition]] = {}
    for one in await doors.services.recognitions({keys.from_metakey(row["company"]) for row in rows}):
        if one.withdrawn is None and (until is None or one.k <= until):
            said.setdefault(one.subject, []).append(one)
    accepted = _accepted(doors, told["org"], None if until is None else until * PANE_MS)
    of = ((told["org"], row["plan"], row["milestone"], keys.from_metakey(row["company"])) for row in rows)
    return [(row, said.get(subject, []), accepted) for row, subject in zip(rows, of, strict=True)]


def _accepted(doors: Doors, org: str, c_ms: int | None) -> Accepted:
    acceptances = doors.services.reader.decisions.acceptances(org)
    return lambda dispute: acceptances.of(dispute, c_ms)


def _recognised_at(row: Mapping[str, Any], said: Sequence[Recognition], accepted: Accepted) -> str | None:
    """Since when the state that a row shows is recognised; None: not yet."""
    if row["dispute"] is not None:
        said = [one for one in said if not one.dispute or accepted(one.key) is not None]
    last = said[-1] if said and said[-1].now.state == row["state"] else None
    return None if last is None else written(last.recognised_at * PANE_MS)


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
