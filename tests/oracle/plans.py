"""Plans as the oracle reads them: what was agreed, by whom, with every date an instant.

A milestone is its text as a mapping, with `start`, `deadline`, `grace` and `sustain` in ms: what `outcome` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle import clock, keys

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan on a bridge.

    company:    the leaf that the bridge names; None: each company has the plan
    milestones: those of its template, then its own, with what the plan changes of them
    """

    name: str
    company: bytes | None
    tz: str
    milestones: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read(document: Mapping[str, Any]) -> dict[str, Plan]:
    """The plans on bridges of a bundle's document."""
    texts, declared = document.get("plans") or {}, document.get("milestones") or {}
    found = {}
    for name, text in texts.items():
        if "bridge" not in text:
            continue
        template = texts.get(str(text.get("template", "")).partition("@")[0]) or {}
        tz, company = text.get("tz", "UTC"), text["bridge"].partition("/")[2]
        milestones = {}
        for one in [*(template.get("milestones") or ()), *(text.get("milestones") or ())]:
            whole = declared[one]
            for patch in ((template.get("overrides") or {}).get(one), (text.get("overrides") or {}).get(one)):
                whole = whole if patch is None else _patched(whole, patch)
            milestones[one] = {**_timed(whole, tz), "name": (name, one)}
        found[name] = Plan(
            name=name, company=None if company == "*" else keys.leaf_of_metakey(company), tz=tz, milestones=milestones
        )
    return found


def _patched(text: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    actions = {name: {**one, **(patch.get("actions") or {}).get(name, {})} for name, one in text["actions"].items()}
    return {**text, **patch, "actions": actions}


def _timed(text: Mapping[str, Any], tz: str) -> dict[str, Any]:
    return {
        **text,
        "start": _instant(text["start"], tz),
        "deadline": _instant(text["deadline"], tz),
        "grace": clock.duration(text.get("grace", "0d")),
        "need": text.get("need", "all"),
        "actions": {
            name: {**one, "sustain": clock.duration(one["sustain"])} if "sustain" in one else dict(one)
            for name, one in text["actions"].items()
        },
    }


def _instant(text: str, tz: str) -> int:
    """A date in ms: of the plan's zone, unless it names one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(tz))
    return (moment - _EPOCH) // timedelta(milliseconds=1)
