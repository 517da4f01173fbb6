"""Identity over HTTP: resolve and review; links, unlinks and memberships by hand.

body -> keys found, or refused with a guess -> dry_run: what it would do | a raw event of ours (by_hand.py)
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from milepost.agents.views import by_hand
from milepost.agents.views.asking import Asking, Doors, Parameter, answer, found, paged
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import AFTER, DRY_RUN, INSTANT, KEY, ORG, PAGING, STALE
from milepost.ops.access import Role
from milepost.topology.asked import organisation
from milepost.topology.identities import Identities, What
from milepost.topology.refusals import BadParameter

BODY: Final = '{"entity": "company", "keys": ["airline_name:…", "carrier_code:…"], "by": "…"}'
MEMBERSHIP_BODY: Final = '{"entity": "person", "member": "email:…", "company": "crm_id:…", "from": "…", "to": "…"}'


class Keys(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a link or unlink."""

    keys: list[str]
    entity: str = "company"
    by: str | None = None
    org: str | None = None
    id: str | None = None


class Membership(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """The body of a membership.  A higher revision of the same id replaces it, void takes it back."""

    member: str
    company: str
    entity: str = "person"
    from_: str | None = None
    to: str | None = None
    by: str | None = None
    org: str | None = None
    id: str | None = None
    revision: int = 0
    void: bool = False


async def link(doors: Doors, asking: Asking) -> web.Response:
    return await _decide(doors, asking, "link")


async def unlink(doors: Doors, asking: Asking) -> web.Response:
    return await _decide(doors, asking, "unlink")


async def membership(doors: Doors, asking: Asking) -> web.Response:
    body = await by_hand.body(asking, Membership, MEMBERSHIP_BODY)
    identities = _identities(doors, body.org)
    await found(
        doors, asking, lambda: identities.membership(body.entity, body.member, body.company, body.from_, body.to)
    )
    data = {"entity": body.entity, "member": body.member, "company": body.company, "from": body.from_, "to": body.to}
    data["by"] = body.by
    return await by_hand.send(
        doors, identities.org, "membership", data, body.id, revision=body.revision, void=body.void
    )


async def review(doors: Doors, asking: Asking) -> web.Response:
    offset, limit = asking.page()
    rows = await found(doors, asking, lambda: _identities(doors, asking.text("org")).review())
    some, further = paged(rows, offset, limit)
    return asking.answer({"review": some, "next": further})


async def resolve(doors: Doors, asking: Asking) -> web.Response:
    entity, key, value = asking.text("entity") or "company", asking.needed("key"), asking.needed("value")
    at_ms = asking.instant("at")
    told = await found(
        doors, asking, lambda: doors.questions.companies(asking.text("org")).resolve(entity, key, value, at_ms)
    )
    return asking.answer(told)


async def _decide(doors: Doors, asking: Asking, what: What) -> web.Response:
    dry_run = asking.text("dry_run") or "false"
    if dry_run not in ("true", "false"):
        raise BadParameter(f"dry_run is true or false, not {dry_run[:32]!r}")
    body = await by_hand.body(asking, Keys, BODY)
    identities = _identities(doors, body.org)
    if dry_run == "true":
        now_ms = doors.services.now_ms()
        told = await found(doors, asking, lambda: identities.preview(what, body.entity, body.keys, now_ms))
        return answer({"dry_run": True, **told})
    await found(doors, asking, lambda: identities.keys(what, body.entity, body.keys))
    data = {"entity": body.entity, "keys": list(dict.fromkeys(body.keys)), "by": body.by}
    return await by_hand.send(doors, identities.org, what, data, body.id)


def _identities(doors: Doors, org: str | None) -> Identities:
    reader = doors.services.reader
    return Identities(reader, doors.questions, organisation(reader, org))


ROUTES: Final = (
    Route(
        path="/v1/identity/resolve",
        role=Role.READ,
        about="What an alternate key stands for, and the chain of why",
        answers=resolve,
        parameters=(ORG, *KEY, Parameter(name="at", about="as decided by then", schema=INSTANT), STALE, AFTER),
    ),
    Route(
        path="/v1/identity/review",
        role=Role.READ,
        about="Links that were refused and wait for a decision",
        answers=review,
        parameters=(ORG, STALE, *PAGING),
    ),
    Route(
        method="POST",
        path="/v1/identity/link",
        role=Role.OPERATE,
        about="Say that keys are one thing",
        answers=link,
        parameters=(DRY_RUN,),
        body=BODY,
        holds=Keys,
    ),
    Route(
        method="POST",
        path="/v1/identity/unlink",
        role=Role.OPERATE,
        about="Say that keys leave what they are part of",
        answers=unlink,
        parameters=(DRY_RUN,),
        body=BODY,
        holds=Keys,
    ),
    Route(
        method="POST",
        path="/v1/identity/membership",
        role=Role.OPERATE,
        about="Say when a person or device belonged to a company",
        answers=membership,
        body=MEMBERSHIP_BODY,
        holds=Membership,
    ),
)
"""The calls of this module, for the table."""
