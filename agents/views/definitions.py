"""Definitions over HTTP: what a bundle would change, and putting it in force.  The commands do the same.

    {"org": "acme", "files": {"milepost.yaml": "…", "schemas/Order.avsc": "…"}}
    {"org": "acme", "rollback": 1}        the bundle before the present one, from the log;  2: the one before that
    {"org": "acme", "to": "5f0c"}         an earlier bundle by the beginning of its id

A plan is made against what this worker has read of `definitions`.  A fault of the bundle is a problem that holds every
finding; one to go back to is checked like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Final

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer
from milepost.agents.views.bodies import typed_body
from milepost.agents.views.problems import Problem
from milepost.agents.views.services import SendFailed
from milepost.ops.apply import EARLIER_MAX, apply_bundle, checked, earlier_bundle, plan_against
from milepost.schemas.errors import StoreError
from milepost.topology.bundle import BYTES_MAX
from milepost.topology.catalog import Catalog

BODY: Final = (
    "an object with org and files: names (milepost.yaml, schemas/NAME.avsc) to texts; "
    "instead of files rollback: how many bundles back, or to: the beginning of an earlier bundle's id"
)
BODY_BYTES_MAX: Final = 2 * BYTES_MAX
"""JSON writes some letters as two."""


class Bundle(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one of files, rollback and to."""

    org: str
    files: dict[str, str] | None = None
    rollback: Annotated[int, msgspec.Meta(ge=1, le=EARLIER_MAX)] | None = None
    to: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] | None = None


async def plan(doors: Doors, asking: Asking) -> web.Response:
    org, files = await _asked(doors, asking)
    contracts = doors.services.reader.decisions.contracts.get(org, {})
    report = plan_against(_past(doors, org), files, org, contracts)
    return answer({**asdict(report), "text": report.text()})


async def apply(doors: Doors, asking: Asking) -> web.Response:
    """The bundle is compiled here, on the loop; the thread finds it done and only talks to the broker."""
    org, files = await _asked(doors, asking)
    checked(files, org)
    try:
        report = await asyncio.to_thread(apply_bundle, doors.services.settings, files, org)
    except StoreError as error:
        raise SendFailed(str(error)) from error
    return answer(asdict(report))


async def _asked(doors: Doors, asking: Asking) -> tuple[str, Mapping[str, bytes]]:
    """The organisation and the files of a bundle: those that came, or an earlier one's out of the log."""
    title = "the body is no bundle"
    found = await typed_body(asking.request, Bundle, bytes_max=BODY_BYTES_MAX, title=title, fix=BODY)
    given = [name for name in ("files", "rollback", "to") if getattr(found, name) is not None]
    if len(given) != 1:
        said = f"one of files, rollback and to was expected, {' and '.join(given) or 'none'} came"
        raise Problem(422, title, said, fix=BODY)
    if found.files is not None:
        return found.org, {name: text.encode(errors="replace") for name, text in found.files.items()}
    back, to = found.rollback or 1, found.to or ""
    try:
        return found.org, await asyncio.to_thread(earlier_bundle, doors.services.settings, found.org, back=back, to=to)
    except StoreError as error:
        raise SendFailed(str(error)) from error


def _past(doors: Doors, org: str) -> list[Catalog]:
    """The catalogs that were in force, the newest first, each once where it was applied several times in a row."""
    applied = doors.services.reader.decisions.history.get(org, [])
    found: list[Catalog] = []
    for one in reversed(applied):
        if not found or found[-1].bundle_id != one.catalog.bundle_id:
            found.append(one.catalog)
        if len(found) == EARLIER_MAX:
            break
    return found
