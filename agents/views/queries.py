"""Queries: metrics, companies and identity over HTTP."""

from __future__ import annotations

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer, breathing, paged
from milepost.topology.companies import Company
from milepost.topology.refusals import BadParameter


async def metrics(doors: Doors, asking: Asking) -> web.Response:
    return answer(await breathing(doors.questions.metrics(asking.text("org"))))


async def value(doors: Doors, asking: Asking) -> web.Response:
    question = asking.question(asking.path["metric"], doors.services.now_ms())
    return answer(await breathing(doors.questions.value(question)))


async def series(doors: Doors, asking: Asking) -> web.Response:
    now_ms = doors.services.now_ms()
    question = asking.question(asking.path["metric"], now_ms)
    asking.needed("from")
    from_ms, to_ms = asking.instant("from"), asking.instant("to")
    assert from_ms is not None
    if to_ms is None:
        to_ms = question.at_ms if question.at_ms is not None else now_ms
    every = asking.text("every") or "1d"
    return answer(await breathing(doors.questions.series(question, from_ms, to_ms, every)))


async def breakdown(doors: Doors, asking: Asking) -> web.Response:
    question = asking.question(asking.path["metric"], doors.services.now_ms())
    offset, limit = asking.page()
    by = asking.needed("by")
    if by == "company" and question.company is not None:
        raise BadParameter("by=company lists all companies", fix="leave company out")
    found = await breathing(doors.questions.breakdown(question, by))
    found["rows"], found["next"] = paged(found["rows"], offset, limit)
    return answer(found)


async def companies(doors: Doors, asking: Asking) -> web.Response:
    offset, limit = asking.page()
    found = await breathing(doors.questions.companies(asking.text("org")).all())
    sought = (asking.text("q") or "").casefold()
    rows, further = paged([one for one in found if _matches(one, sought)], offset, limit)
    return answer({"companies": [one.as_dict() for one in rows], "next": further})


async def company(doors: Doors, asking: Asking) -> web.Response:
    companies = doors.questions.companies(asking.text("org"))
    return answer(companies.detail(companies.leaf(asking.path["metakey"])))


async def resolve(doors: Doors, asking: Asking) -> web.Response:
    entity, key, value = asking.text("entity") or "company", asking.needed("key"), asking.needed("value")
    found = doors.questions.companies(asking.text("org")).resolve(entity, key, value, asking.instant("at"))
    return answer(found)


def _matches(company: Company, sought: str) -> bool:
    if not sought or sought in company.name.casefold():
        return True
    shown = company.as_dict()
    return any(sought in key.casefold() for key in shown["keys"]) or bool(shown["metakey"].startswith(sought))
