"""An organisation with a bit of everything that documentation has to say: two sources of one type, people, personal
data, nested fields, loops, a template with an override, reactions, and a source that nobody owns."""

from __future__ import annotations

from typing import Final

ORG: Final = "acme"
CANARY: Final = "canary-4711"
"""A person's value that no page may show."""

MILEPOST: Final = f"""
sources:
  app:
    owner: "app <b>team</b> | [x](y) _z_ `q`"
    types:
      visit: {{schema: Visit}}
      order: {{schema: Order}}
    identities:
      - {{entity: company, key: crm_id, from: data.company, required: true}}
      - {{entity: person, key: email, from: data.email}}
      - {{entity: person, key: phone, from: data.phone, unique: true, limit: 1}}
    pii: [data.email, data.address.street]
    expect: {{freshness: 15m, unmatched_max: 2%}}
  shop:
    types:
      order: {{schema: ShopOrder}}
    identities:
      - {{entity: company, key: crm_id, from: data.company}}
identity:
  blocked: {{crm_id: [test]}}
signals:
  visited:
    on: visit
    when: data.address.city != "minutes" && data.tags.exists(tag, tag == "page")
    fields: {{minutes: data.minutes, length: "data.minutes > 60.0 ? 'long' : 'short'"}}
  ordered:
    on: order
    fields: {{amount: data.amount * 2.0}}
metrics:
  visits: {{from: visited, aggregate: count, dimensions: [length], unit: visits}}
  minutes: {{from: visited, aggregate: [sum(minutes), max(minutes), "percentile(minutes, 95)"]}}
  people: {{from: visited, aggregate: distinct(person)}}
  orders: {{from: ordered, aggregate: count}}
  worth: {{from: ordered, aggregate: sum(amount), unit: EUR}}
  worth_a_visit: {{formula: worth / visits}}
records:
  city:
    - {{on: visit, id: data.address.city, op: patch, fields: {{pages: data.minutes}}}}
    - {{on: order, id: data.company, op: upsert, fields: {{amount: data.amount}}}}
milestones:
  active:
    kind: achieve
    start: 2023-11-01
    deadline: 2024-11-01
    grace: 2d
    need: {{at_least: 1}}
    actions:
      visiting: {{metric: visits, window: 28d, op: ">=", value: 20, sustain: 1d}}
      reviewed: {{manual: "the review was held"}}
  buying: {{kind: maintain, start: 2023-11-01, deadline: 2024-11-01, actions: {{some: {{metric: worth, op: ">", value: 0.5}}}}}}
plans:
  usual: {{milestones: [active]}}
  growth:
    bridge: "{ORG}/*"
    tz: Europe/Berlin
    template: usual
    milestones: [buying]
    metrics: [worth_a_visit]
    overrides: {{active: {{actions: {{visiting: {{metric: people, value: 3}}}}}}}}
  small: {{bridge: "{ORG}/*", template: usual}}
reactions:
  tell: {{on: milestone.achieved, webhook: "https://hooks.example.org/secret-path"}}
  order: {{on: ordered, webhook: "https://hooks.example.org/orders"}}
"""

FILES: Final = {
    "milepost.yaml": MILEPOST.encode(),
    "schemas/Visit.avsc": b"""
{"type": "record", "name": "Visit", "doc": "Somebody looked at a page.", "fields": [
  {"name": "company", "type": "string", "doc": "As in the CRM | <i>"},
  {"name": "email", "type": ["null", "string"], "default": null},
  {"name": "phone", "type": ["null", "string"], "default": null},
  {"name": "minutes", "type": "double"},
  {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
  {"name": "address", "type": {"type": "record", "name": "Address", "fields": [
    {"name": "city", "type": "string"},
    {"name": "street", "type": ["null", "string"], "default": null}]}}]}
""",
    "schemas/Order.avsc": b"""
{"type": "record", "name": "Order", "fields": [
  {"name": "company", "type": "string"},
  {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["new", "again"]}},
  {"name": "amount", "type": "double"}]}
""",
    "schemas/ShopOrder.avsc": b"""
{"type": "record", "name": "ShopOrder", "fields": [
  {"name": "company", "type": "string"},
  {"name": "amount", "type": "double"},
  {"name": "prices", "type": {"type": "map", "values": "long"}, "default": {}}]}
""",
}
