"""Records over HTTP: value, history, difference; and a restore, which is an event of ours.

body -> the record as it was at that time -> a raw event `milepost.record` -> its receipt
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Final

import msgspec
from aiohttp import web

from milepost.agents.views import by_hand
from milepost.agents.views.asking import Asking, Doors, answer, found
from milepost.topology.bases import instant
from milepost.topology.record_questions import RecordQuestion, RecordQuestions, restored

BODY: Final = '{"at": "2013-05-12T12:00:00Z", "basis": "corrected", "by": "…"}'


class Restore(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a restore: the moment whose value comes back."""

    at: str
    basis: str | None = None
    by: str | None = None
    org: str | None = None
    id: str | None = None


async def types(doors: Doors, asking: Asking) -> web.Response:
    return asking.answer(await found(doors, asking, lambda: _questions(doors).types(asking.text("org"))))


async def value(doors: Doors, asking: Asking) -> web.Response:
    question = _question(doors, asking)
    return asking.answer(await found(doors, asking, lambda: _questions(doors).value(question)))


async def history(doors: Doors, asking: Asking) -> web.Response:
    question, (offset, limit) = _question(doors, asking), asking.page()
    return asking.answer(await found(doors, asking, lambda: _questions(doors).history(question, offset, limit)))


async def diff(doors: Doors, asking: Asking) -> web.Response:
    before, after = asking.two_moments(_question(doors, asking))
    return asking.answer(await found(doors, asking, lambda: _questions(doors).diff(before, after)))


async def restore(doors: Doors, asking: Asking) -> web.Response:
    """Append the event; 202 once the broker has it."""
    body = await by_hand.body(asking, Restore, BODY)
    asked = replace(_question(doors, asking), org=body.org, at_ms=instant(body.at), basis=body.basis)
    told = await found(doors, asking, lambda: _questions(doors).value(asked))
    event = restored(asked, told["org"], told["value"], id=body.id or uuid.uuid4().hex, by=body.by)
    return answer({**await by_hand.append(doors, event), "value": told["value"]}, status=202)


def _questions(doors: Doors) -> RecordQuestions:
    return RecordQuestions(doors.services.reader)


def _question(doors: Doors, asking: Asking) -> RecordQuestion:
    return RecordQuestion(
        type=asking.path["type"],
        id=asking.path["id"],
        now_ms=doors.services.now_ms(),
        org=asking.text("org"),
        at_ms=asking.instant("at"),
        basis=asking.text("basis"),
    )
