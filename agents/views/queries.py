"""Queries: metrics, companies and identity over HTTP."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Query, found, paged
from milepost.topology.companies import Company
from milepost.topology.refusals import BadParameter
from milepost.topology.steps import Steps


async def metrics(doors: Doors, asking: Asking) -> web.Response:
    return asking.answer(await found(doors, asking, lambda: doors.questions.metrics(asking.text("org"))))


async def value(doors: Doors, asking: Query) -> web.Response:
    question = asking.question(asking.path["metric"], doors.services.now_ms())
    return asking.answer(await found(doors, asking, lambda: doors.questions.value(question)))


async def series(doors: Doors, asking: Asking) -> web.Response:
    now_ms = doors.services.now_ms()
    question = asking.question(asking.path["metric"], now_ms)
    asking.needed("from")
    from_ms, to_ms = asking.instant("from"), asking.instant("to")
    assert from_ms is not None
    if to_ms is None:
        to_ms = question.at_ms if question.at_ms is not None else now_ms
    every = asking.text("every") or "1d"
    return asking.answer(await found(doors, asking, lambda: doors.questions.series(question, from_ms, to_ms, every)))


async def breakdown(doors: Doors, asking: Asking) -> web.Response:
    question = asking.question(asking.path["metric"], doors.services.now_ms())
    offset, limit = asking.page()
    by = asking.needed("by")
    if by == "company" and question.company is not None:
        raise BadParameter("by=company lists all companies", fix="leave company out")
    told = await found(doors, asking, lambda: doors.questions.breakdown(question, by))
    told["rows"], told["next"] = paged(told["rows"], offset, limit)
    return asking.answer(told)


async def explain(doors: Doors, asking: Asking) -> web.Response:
    question = asking.question(asking.path["metric"], doors.services.now_ms())
    behind, limit, stretch = asking.text("next"), asking.limit(), _stretch(asking)
    return asking.answer(await found(doors, asking, lambda: doors.questions.explain(question, behind, limit, stretch)))


async def diff(doors: Doors, asking: Asking) -> web.Response:
    before, after = asking.two_moments(asking.question(asking.path["metric"], doors.services.now_ms()))
    behind, limit = asking.text("next"), asking.limit()
    return asking.answer(await found(doors, asking, lambda: doors.questions.diff(before, after, behind, limit)))


async def companies(doors: Doors, asking: Asking) -> web.Response:
    offset, limit = asking.page()
    everyone = await found(doors, asking, lambda: doors.questions.companies(asking.text("org")).all())
    sought = (asking.text("q") or "").casefold()
    rows, further = paged([one for one in everyone if _matches(one, sought)], offset, limit)
    return asking.answer({"companies": [one.as_dict() for one in rows], "next": further})


async def company(doors: Doors, asking: Asking) -> web.Response:
    def detail() -> Steps[dict[str, Any]]:
        companies = doors.questions.companies(asking.text("org"))
        return (yield from companies.detail((yield from companies.leaf(asking.path["metakey"]))))

    return asking.answer(await found(doors, asking, detail))


def _stretch(asking: Query) -> tuple[int, int] | None:
    """[from, to) in ms, given instead of a window."""
    from_ms, to_ms = asking.instant("from"), asking.instant("to")
    if from_ms is None and to_ms is None:
        return None
    if from_ms is None or to_ms is None:
        raise BadParameter("from and to go together: one of them is missing", fix="from=…&to=…, or window=…")
    if asking.text("window") is not None:
        raise BadParameter("from and to stand instead of a window", fix="leave window out")
    return from_ms, to_ms


def _matches(company: Company, sought: str) -> bool:
    if not sought or sought in company.name.casefold():
        return True
    shown = company.as_dict()
    return any(sought in key.casefold() for key in shown["keys"]) or bool(shown["metakey"].startswith(sought))
