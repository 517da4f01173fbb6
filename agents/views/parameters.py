"""Parameters: what the calls of the table have in common, so that one word means one thing in all of them."""

from __future__ import annotations

from typing import Final

from milepost.agents.views.asking import LIMIT_MAX, Parameter


def in_path(name: str, about: str) -> Parameter:
    return Parameter(name=name, about=about, required=True, place="path")


INSTANT: Final = {"type": "string", "format": "date-time"}
BASIS: Final = {"type": "string", "enum": ["latest", "corrected", "as_shown"]}
LENGTH: Final = r"[1-9][0-9]{0,6}[mhd]|day|week|month|year"
WHOLE: Final = {"type": "integer", "minimum": 0, "maximum": 999_999_999}

ORG: Final = Parameter(name="org", about="organisation; may be left out when there is one")
TIME: Final = (
    Parameter(
        name="at", about="RFC 3339 with zone; floored to 15 minutes; alone it means basis=corrected", schema=INSTANT
    ),
    Parameter(name="basis", about="latest (default), corrected or as_shown", schema=BASIS),
    Parameter(name="tz", about="IANA time zone of calendar units, default UTC"),
)
BEFORE: Final = (
    Parameter(name="at", about="the first moment; without it now, with basis=latest", schema=INSTANT),
    Parameter(name="basis", about="at the first moment: as_shown (default with at), corrected or latest", schema=BASIS),
    Parameter(name="tz", about="IANA time zone of calendar units, default UTC"),
)
TO: Final = (
    Parameter(name="to", about="the second moment; without it now, with to_basis=latest", schema=INSTANT),
    Parameter(
        name="to_basis", about="at the second moment: as_shown (default with to), corrected or latest", schema=BASIS
    ),
)
WINDOW: Final = Parameter(
    name="window",
    about="all (default), <n>m, <n>h, <n>d up to 3660d, year, month, week or day of tz",
    schema={"type": "string", "pattern": f"^(all|{LENGTH})$"},
)
STRETCH: Final = (
    Parameter(name="from", about="start of the first point", required=True, schema=INSTANT),
    Parameter(name="to", about="starts lie before it; default at, or now", schema=INSTANT),
    Parameter(
        name="every",
        about="<n>m, <n>h, <n>d, day, week, month or year; default 1d; 4,000 points at most",
        schema={"type": "string", "pattern": f"^({LENGTH})$"},
    ),
)
POINT: Final = (
    Parameter(name="from", about="with to, instead of window: the start of a point of a series", schema=INSTANT),
    Parameter(name="to", about="where that point ends", schema=INSTANT),
)
BY: Final = Parameter(
    name="by",
    about="a dimension, company, or another entity (person, …): then of events that name no company",
    required=True,
)
KEY: Final = (
    Parameter(name="entity", about="default company"),
    Parameter(name="key", about="kind of key", required=True),
    Parameter(name="value", about="its value", required=True),
)
WHO: Final = (
    ORG,
    Parameter(name="company", about="mk_… or key:value; without it the whole organisation"),
    Parameter(name="dim.*", about="value of a dimension: dim.origin=JFK"),
)
STALE: Final = Parameter(
    name="stale_ms",
    about="how much the answer may lag, so that a standby may give it; it says lag_ms then",
    schema=WHOLE,
)
AFTER: Final = Parameter(
    name="after",
    about="a receipt (raw-events/3@1288): the answer includes it, and waits up to 5 s for that, else 503",
    schema={"type": "string", "pattern": "^raw-events/[0-9]{1,9}@[0-9]{1,18}$"},
)
PAGING: Final = (
    Parameter(
        name="limit", about="rows a page, at most 1,000", schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}
    ),
    Parameter(name="next", about="the value of next in the answer before"),
)
DRY_RUN: Final = Parameter(
    name="dry_run", about="true: only say what it would do", schema={"type": "string", "enum": ["true", "false"]}
)
METRIC: Final = in_path("metric", "name of a metric")
RECORD: Final = (in_path("type", "type of the record"), in_path("id", "id of the record"), ORG)
