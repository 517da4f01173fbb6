"""Posts: what other systems' posts become: events of ours, or why one is none (segment.py, snowplow.py)."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

_OTHER: Final = re.compile(r"[^a-z0-9]+")
_SLUG_MAX: Final = 100


class Refusal(NamedTuple):
    """Why a part of a post is no event."""

    detail: str


Posted = dict[str, Any] | Refusal


def slug(name: str) -> str:
    """A name in small letters, digits and _: `Order Completed` is order_completed."""
    return _OTHER.sub("_", name.lower()).strip("_")[:_SLUG_MAX]
