"""A small organisation for examples worked by hand: one source of visits, one of accounts."""

from __future__ import annotations

from typing import Any

SECRET = b"a secret of the tests"
ORG = "acme"
HOUR = 3_600_000
DAY = 24 * HOUR
T0 = 1_700_000_100_000 - 1_700_000_100_000 % DAY
"""Midnight of a day in November 2023, UTC."""

FILES = {
    "milepost.yaml": b"""
sources:
  app:
    owner: app@example.org
    types:
      visit: {schema: Visit}
      idle: {schema: Visit}
    identities:
      - {entity: company, key: crm_id, from: data.company, required: true}
      - {entity: company, key: domain, from: data.domain}
      - {entity: device, key: serial, from: data.device}
    volatile: [data.sent_at]
signals:
  visited: {on: visit, fields: {minutes: data.minutes, page: data.page, plan: data.plan}}
  long_visit: {on: visit, when: data.minutes != null && data.minutes > 30.0, fields: {page: data.page}}
metrics:
  visits: {from: visited, aggregate: count, dimensions: [page, plan]}
  long_visits: {from: long_visit, aggregate: count, dimensions: [page]}
  minutes: {from: visited, aggregate: [sum(minutes), avg(minutes), min(minutes), max(minutes), last(minutes)], dimensions: [plan]}
  length: {from: visited, aggregate: ["percentile(minutes, 50)", "percentile(minutes, 99.9)"], dimensions: [plan]}
  devices: {from: visited, aggregate: distinct(device)}
  long_rate: {formula: long_visits / visits}
""",
    "schemas/Visit.avsc": b"""
{"type": "record", "name": "Visit", "fields": [
  {"name": "company", "type": "string"},
  {"name": "domain", "type": ["null", "string"], "default": null},
  {"name": "device", "type": ["null", "string"], "default": null},
  {"name": "minutes", "type": ["null", "double"], "default": null},
  {"name": "page", "type": "string", "default": "home"},
  {"name": "plan", "type": "string", "default": "free"},
  {"name": "sent_at", "type": ["null", "string"], "default": null}]}
""",
}


def iso(t_ms: int) -> str:
    """RFC 3339 in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds")


def visit(id: str, t_ms: int, company: str = "1", **data: Any) -> dict[str, Any]:
    """An event of a visit."""
    return {
        "org": ORG, "source": "app", "id": id, "type": data.pop("type", "visit"), "time": iso(t_ms),
        "data": {"company": company, **data},
    }  # fmt: skip


def by_hand(what: str, id: str, t_ms: int, **data: Any) -> dict[str, Any]:
    """An event of a person's: `milepost.WHAT`."""
    return {"org": ORG, "source": "milepost", "id": id, "type": f"milepost.{what}", "time": iso(t_ms), "data": data}
