"""The reference job: events of about 330 bytes, four rules, cells by two dimensions.

    events -> decode · dedupe · rules -> signals by company -> cells by (company, rule, pane, plan, country)

Every hundredth event is sent a second time a little later, so that a contestant that does not dedupe is found out.
All contestants read the same bytes under the same keys in the same partitions.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from milepost.ops.flights import rfc3339
from milepost.ops.sender import Sender
from milepost.schemas.keys import raw_place

EVENTS: Final = 400_000
COMPANIES: Final = 1_000
USERS: Final = 50_000
REPEAT_EVERY: Final = 100
REPEAT_BEHIND: Final = 1_000
"""An event that is sent twice comes again behind so many others."""

BEGIN_MS: Final = 1_735_689_600_000
"""2025-01-01T00:00Z: the first event; the others follow at 10 ms, so that 400,000 lie in five panes."""

STEP_MS: Final = 10
TYPES: Final = ("login", "page_view", "invoice_paid", "ticket_opened", "feature_used")
PLANS: Final = ("free", "pro", "ent")
COUNTRIES: Final = ("US", "DE", "FR", "JP")
ORG: Final = "acme"
SOURCE: Final = "app"

METRICS: Final = {"login": "logins", "ticket": "tickets", "paid": "invoices", "used": "features"}
"""Rule -> the metric that sums its signals."""

BUNDLE: Final = """\
sources:
  app:
    owner: bench@example.org
    types:
      login: {schema: Activity}
      page_view: {schema: Activity}
      invoice_paid: {schema: Activity}
      ticket_opened: {schema: Activity}
      feature_used: {schema: Activity}
    identities:
      - {entity: company, key: crm_id, from: data.company, required: true}
      - {entity: person, key: email, from: data.user}
    pii: []
signals:
  login: {on: login, fields: FIELDS}
  ticket: {on: ticket_opened, fields: FIELDS}
  paid: {on: invoice_paid, when: data.amount > 10.0, fields: FIELDS}
  used: {on: feature_used, when: data.plan != "free", fields: FIELDS}
metrics:
  logins: {from: login, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  tickets: {from: ticket, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  invoices: {from: paid, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  features: {from: used, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
""".replace("FIELDS", "{amount: data.amount, plan: data.plan, country: data.country}")

ACTIVITY: Final = {
    "type": "record",
    "name": "Activity",
    "fields": [
        {"name": "company", "type": "string"},
        {"name": "user", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "plan", "type": "string"},
        {"name": "country", "type": "string"},
        {"name": "session", "type": "string", "default": ""},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One record of the raw topic: its key, its place and its bytes."""

    key: bytes
    partition: int
    value: bytes


def bundle() -> dict[str, bytes]:
    """The job's definitions."""
    return {"milepost.yaml": BUNDLE.encode(), "schemas/Activity.avsc": orjson.dumps(ACTIVITY)}


def generate(
    events: int, seed: int = 1, *, begin_ms: int = BEGIN_MS, step_ms: float = STEP_MS
) -> Iterator[dict[str, Any]]:
    """Different events: 1,000 companies, 50,000 persons, five types, three plans, four countries."""
    source = random.Random(seed)
    for i in range(events):
        company, user = source.randrange(COMPANIES), source.randrange(USERS)
        event_id, t_ms = str(uuid.UUID(int=source.getrandbits(128))), begin_ms + int(i * step_ms)
        yield event(
            event_id,
            t_ms,
            company,
            type=source.choice(TYPES),
            user=f"email:u{user}@c{company}.example.com",
            amount=round(source.random() * 100, 6),
            plan=source.choice(PLANS),
            country=source.choice(COUNTRIES),
            session=f"{source.getrandbits(128):032x}",
        )


def event(event_id: str, t_ms: int, company: int | str, *, type: str, **data: str | float) -> dict[str, Any]:
    """One raw event of the job's source."""
    return {
        "org": ORG,
        "source": SOURCE,
        "id": event_id,
        "type": type,
        "time": f"{rfc3339(t_ms)[:17]}{t_ms % 60_000 // 1000:02d}.{t_ms % 1000:03d}Z",
        "revision": 0,
        "void": False,
        "data": {"company": f"crm:{company}", **data},
    }


def message(body: dict[str, Any], partitions: int) -> Message:
    """The record of an event."""
    key, partition = raw_place(ORG, SOURCE, body["id"], 0, 0, partitions)
    return Message(key=key, partition=partition, value=orjson.dumps(body))


def messages(events: int, partitions: int, seed: int = 1) -> list[Message]:
    """The raw topic's records in the order of sending, repeats among them."""
    out: list[Message] = []
    waiting: list[tuple[int, Message]] = []
    for i, body in enumerate(generate(events, seed)):
        if waiting and waiting[0][0] <= i:
            out.append(waiting.pop(0)[1])
        out.append(message(body, partitions))
        if i % REPEAT_EVERY == 0:
            waiting.append((i + REPEAT_BEHIND, out[-1]))
    return out + [late for _, late in waiting]


def fill(bootstrap: str, topic: str, records: Sequence[Message]) -> None:
    """Write the records into the topic; returns when all are acknowledged."""
    with Sender(bootstrap, linger_ms=50) as sender:
        for one in records:
            sender.send(topic, one.partition, one.key, one.value)
