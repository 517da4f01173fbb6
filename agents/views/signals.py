"""Signals over HTTP: what a company's events meant, the newest first."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Parameter, found
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import AFTER, INSTANT, ORG, PAGING, STALE, TIME
from milepost.ops.access import Role
from milepost.topology.latest_questions import SignalsAsked, latest


async def signals(doors: Doors, asking: Asking) -> web.Response:
    asks = SignalsAsked(
        company=asking.needed("company"),
        now_ms=doors.services.now_ms(),
        org=asking.text("org"),
        at_ms=asking.instant("at"),
        basis=asking.text("basis"),
        from_ms=asking.instant("from"),
        behind=asking.text("next"),
        limit=asking.limit(),
    )
    return asking.answer(await found(doors, asking, lambda: latest(doors.services.reader, asks)))


ROUTES: Final = (
    Route(
        path="/v1/signals",
        role=Role.READ,
        about="The signals of a company, the newest event first",
        answers=signals,
        parameters=(
            ORG,
            Parameter(name="company", about="mk_… or key:value", required=True),
            *TIME[:2],
            Parameter(name="from", about="events from this time on; without it all", schema=INSTANT),
            STALE,
            AFTER,
            *PAGING,
        ),
    ),
)
"""The rows of the table."""
