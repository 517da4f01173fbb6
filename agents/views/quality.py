"""Quality over HTTP: whether sources keep what their contracts promise, now and in the past.

The types below are what `/openapi.json` says of the answer.  Times are RFC 3339; `ok` is null where nothing is known of
a promise, and `reason` says why: `no_expectation` (nothing is promised), `no_events` (nothing came since it was),
`no_ticks` (the worker does not know yet how far it is), `no_window` (no whole window has passed), `window_too_long`.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Parameter, found
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import ORG, PAGING, STALE, TIME
from milepost.ops.access import Role
from milepost.topology.quality_questions import QualityQuestion, QualityQuestions

Why = Literal["no_expectation", "no_events", "no_ticks", "no_window", "window_too_long"]
Broken = Literal["stale", "silent", "schema", "unmatched"]


class Spell(msgspec.Struct, forbid_unknown_fields=True):
    """A breach; end: null while it lasts."""

    breach: Broken
    begin: str
    end: str | None


class Freshness(msgspec.Struct, forbid_unknown_fields=True):
    """How long a source may be silent, and how long it is (`age_ms`, up to `judged_to`).

    newest_event: the largest event time (latest only);  newest_known: when its last record became known
    heard_to: the end of the quarter of an hour of event time up to which it has sent
    """

    expected_ms: int | None
    ok: bool | None
    reason: Why | None
    newest_event: str | None
    newest_known: str | None
    heard_to: str | None
    age_ms: int | None


class Count(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """A window of known time."""

    from_: str
    to: str
    events: int
    ok: bool


class Volume(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Events of the last whole window, and of those before it, the oldest first."""

    per_ms: int | None
    min: int | None
    ok: bool | None
    reason: Why | None
    from_: str | None
    to: str | None
    events: int | None
    windows: list[Count]


class Nobodys(msgspec.Struct, forbid_unknown_fields=True):
    """An event that nobody is known for.  key: the kind of key;  why: absent, blocked (it means nothing) or missing"""

    known: str
    receipt: str
    type: str
    key: str
    why: str


class Unmatched(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """The share of events of the last whole window that nobody is known for: `events` of `of`."""

    max: float | None
    ok: bool | None
    reason: Why | None
    from_: str | None
    to: str | None
    share: float | None
    events: int | None
    of: int | None
    examples: list[Nobodys]


class Refusal(msgspec.Struct, forbid_unknown_fields=True):
    """Dead letters of one reason; breach: whether the reason breaks the contract's form."""

    reason: str
    records: int
    breach: bool
    first: str
    receipt: str


class Schema(msgspec.Struct, forbid_unknown_fields=True):
    """The dead letters of the last day."""

    ok: bool | None
    reason: Why | None
    refused: int | None
    by_reason: list[Refusal]


class SourceQuality(msgspec.Struct, forbid_unknown_fields=True):
    """A source.  state: null when it is not known;  since: of the breach that `state` names

    breaches: those that last, the gravest first;  types: events of the last day;  history: the latest breach first
    """

    source: str
    owner: str
    state: Literal["ok", "stale", "silent", "schema", "unmatched", "waiting", "unwatched"] | None
    reason: Why | None
    since: str | None
    breaches: list[Broken]
    freshness: Freshness
    volume: Volume
    unmatched: Unmatched
    schema: Schema
    types: dict[str, int]
    history: list[Spell]


class Quality(msgspec.Struct, forbid_unknown_fields=True):
    """The answer.  judged_to: known time up to which all partitions have been seen"""

    org: str
    at: str
    basis: str
    judged_to: str | None
    sources: list[SourceQuality]
    next: str | None
    lag_ms: int | msgspec.UnsetType = msgspec.UNSET


async def states(doors: Doors, asking: Asking) -> web.Response:
    offset, limit = asking.page()
    question = QualityQuestion(
        now_ms=doors.services.now_ms(),
        org=asking.text("org"),
        source=asking.text("source"),
        at_ms=asking.instant("at"),
        basis=asking.text("basis"),
    )
    questions = QualityQuestions(doors.services.reader)
    return asking.answer(await found(doors, asking, lambda: questions.states(question, offset, limit)))


ROUTES: Final = (
    Route(
        path="/v1/quality",
        role=Role.READ,
        about="Whether sources keep what they promise: freshness, volume, unmatched share, schema; and their breaches",
        answers=states,
        tells=Quality,
        parameters=(
            ORG,
            Parameter(name="source", about="of this source only"),
            *TIME[:2],
            STALE,
            *PAGING,
        ),
    ),
)
