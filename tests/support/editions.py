"""The bundles that generated raw logs are read under: contracts, rules, metrics, and editions of them.

EDITIONS: the first bundle and what is applied behind it    PLANNED: the same with a plan for every company
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.oracle import keys


def _schema(name: str, *fields: tuple[str, Any]) -> bytes:
    listed = [
        {"name": one, "type": ["null", kind], "default": None} if optional else {"name": one, "type": kind}
        for one, kind, optional in ((one.rstrip("?"), kind, one.endswith("?")) for one, kind in fields)
    ]
    return json.dumps({"type": "record", "name": name, "fields": listed}).encode()


_YAML = """\
sources:
  shop:
    owner: shop@example.org
    types:
      sale: {schema: Sale}
      quiet: {schema: Quiet}
    identities:
      - {entity: company, key: code, from: data.code}
      - {entity: company, key: name, from: data.name, label: true}
      - {entity: company, key: vat, from: data.vat, unique: true}
      - {entity: device, key: serial, from: data.serial}
      - {entity: person, key: email, from: data.email}
      - {entity: person, key: login, from: data.login, limit: LOGINS}
    volatile: [data.note]
    future_skew: 10m
  till:
    owner: till@example.org
    types:
      visit: {schema: Visit}
    identities:
      - {entity: company, key: code, from: data.code, required: true}
signals:
  sold: {on: sale, fields: {amount: data.amount, region: data.region, channel: data.channel}}
  sold_big:
    on: sale
    when: data.channel == "web" && data.amount >= BIG || data.amount > 1000.0
    fields: {half: data.amount / 2.0, region: data.region, channel: data.channel}
  visited:
    on: visit
    when: '!(data.visitors == 0.0) && event.source in ["till", "shop"]'
    fields: {visitors: data.visitors, region: data.region}
metrics:
  sales: {from: sold, aggregate: count, dimensions: [region, channel], unit: sales}
  amount:
    from: sold
    aggregate: [sum(amount), min(amount), max(amount), avg(amount), last(amount), "percentile(amount, 95)", "percentile(amount, 50)"]
    dimensions: [region]
    unit: euro
    scale: 2
  buyers: {from: sold, aggregate: distinct(device), dimensions: [region], unit: devices}
  people: {from: sold, aggregate: distinct(person), dimensions: [channel], unit: people}
  big_sales: {from: sold_big, aggregate: count, dimensions: [region, channel], unit: sales}
  big_half: {from: sold_big, aggregate: sum(half), unit: euro}
  visitors: {from: visited, aggregate: sum(visitors), dimensions: [region], unit: people}
  visits: {from: visited, aggregate: count, unit: visits}
  big_rate: {formula: big_sales / sales, unit: ratio}
  spread: {formula: (amount_max - amount_min) * 2.0 + visitors, unit: euro}
  conversion: {formula: sales / (visits - big_sales), unit: ratio}
records:
  channel: {on: sale, id: data.channel, op: upsert, fields: {amount: data.amount, region: data.region}}
  shop:
    - {on: visit, id: data.code, op: update, fields: {visitors: data.visitors}}
    - {on: sale, id: data.code, op: create, fields: {region: data.region, channel: data.channel}}
    - {on: quiet, id: data.code, op: delete}
  place:
    - {on: sale, id: data.region, op: upsert, fields: {channel: data.channel}}
    - {on: visit, id: data.region, op: patch, fields: {visitors: data.visitors}}
identity:
  blocked: {code: [test], person/login: [guest]}
  free_mail: {kinds: [person/login], domains: [mail.example]}
"""

_SCHEMAS = {
    "schemas/Sale.avsc": _schema(
        "Sale", ("code?", "string"), ("name?", "string"), ("vat?", "string"), ("serial?", "string"),
        ("email?", "string"), ("login?", "string"), ("amount?", "double"),
        ("region?", "string"), ("channel", "string"), ("note?", "string"),
    ),
    "schemas/Quiet.avsc": _schema(
        "Quiet", ("code?", "string"), ("name?", "string"), ("vat?", "string"), ("serial?", "string"),
        ("email?", "string"), ("login?", "string"),
    ),
    "schemas/Visit.avsc": _schema("Visit", ("code?", "string"), ("visitors", "long"), ("region?", "string")),
}  # fmt: skip


def bundle(big: str, logins: int, more: str = "") -> dict[str, bytes]:
    """The bundle with its condition and limit, and what a test adds to its text."""
    return {"milepost.yaml": (_YAML.replace("BIG", big).replace("LOGINS", str(logins)) + more).encode(), **_SCHEMAS}


BUNDLE: Mapping[str, bytes] = bundle("100.0", 1)
"""Uses every aggregate, dimensions, formulas, conditions, volatile fields, optional and required keys."""
EDITIONS: Sequence[Mapping[str, bytes]] = (BUNDLE, bundle("50.0", 2), bundle("25.0", 2), BUNDLE)
"""The same with another condition in `sold_big`: `big_sales` and `big_half` are new versions, the rest is untouched; then
back to the first.  In between a person may have two logins."""

_PLANS = b"""\
milestones:
  two_sales: {kind: achieve, start: 2012-12-01, deadline: 2014-02-01, actions: {sold: {metric: sales, op: ">=", value: 2}}}
  visited:
    kind: maintain
    start: 2012-12-01
    deadline: 2014-02-01
    actions: {seen: {metric: visitors, window: 6h, op: ">=", value: 1}}
plans:
  growth: {bridge: "acme/*", milestones: [two_sales, visited]}
"""
PLANNED: Sequence[Mapping[str, bytes]] = tuple(
    {**files, "milepost.yaml": files["milepost.yaml"] + _PLANS} for files in EDITIONS
)
"""The same with a plan."""


def bundle_id(files: Mapping[str, bytes]) -> bytes:
    """The id of a bundle: BLAKE2b-64 over its files, sorted by name, every part behind its length."""
    text = b"".join(keys.lp(name.encode()) + keys.lp(files[name]) for name in sorted(files))
    return hashlib.blake2b(text, digest_size=8).digest()
