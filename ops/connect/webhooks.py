"""Webhooks: where Segment and Snowplow post to, and a post of each to try it with.

agents/views/connect.py takes them.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "segment": {
        "type": "track", "messageId": "try-1", "userId": "u-1", "event": "Order Completed",
        "timestamp": "2025-03-03T10:15:00Z", "properties": {"total": 12.5},
    },
    "snowplow": {
        "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",
        "data": [
            {"e": "pv", "eid": "6f1f6a52-2c67-4c55-9c5c-0d9f2a3a1b11", "dtm": "1740996900000", "aid": "shop",
             "uid": "u-1", "p": "web", "url": "https://shop.example/"},
        ],
    },
}  # fmt: skip
TYPES: Final[Mapping[str, str]] = {
    "segment": "track.order_completed for what is tracked, else identify, page, screen, group, alias",
    "snowplow": "com.acme.viewed_product for a self-describing event, else page_view, page_ping, struct, transaction",
}


def address(settings: Settings, system: str, org: str | None) -> dict[str, Any]:
    """`{url, headers, source, types, example}`.  Raises DeclarationError for a system that is not known."""
    if system not in EXAMPLES:
        raise DeclarationError(f"{system!r} is no system that posts here; fix: one of {', '.join(EXAMPLES)}")
    query = f"?{urllib.parse.urlencode({'org': org})}" if org else ""
    headers = {"Content-Type": "application/json"}
    if settings.token:
        headers["Authorization"] = "Bearer $MILEPOST_TOKEN"
    return {
        "url": f"{settings.url}/v1/connect/{system}{query}", "headers": headers, "source": system,
        "types": TYPES[system], "example": EXAMPLES[system],
    }  # fmt: skip


def text(told: Mapping[str, Any]) -> str:
    """For people."""
    headers = " ".join(f'-H "{name}: {value}"' for name, value in told["headers"].items())
    return "\n".join(
        [
            f"post to  {told['url']}",
            f"source   {told['source']}: declare it in the bundle; its types are",
            f"         {told['types']}",
            "to try it:",
            f"  curl {headers} -d '{json.dumps(told['example'])}' '{told['url']}'",
        ]
    )
