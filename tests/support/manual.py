"""The bundle of the manual, with all its sections, to be loaded with one text put in the place of another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from milepost.schemas.errors import BundleError, Finding
from milepost.topology.catalog import Catalog, load_bundle

MANUAL = """\
sources:
  flights:
    owner: ops@example.org                  # who answers for it
    types:
      flight.departed: {schema: FlightDeparted}
      flight.cancelled: {schema: FlightCancelled}
    identities:                             # priority = order; an absent optional key is no error
      - {entity: company, key: carrier_code, from: data.carrier, required: true}
      - {entity: device, key: tailnum, from: data.tailnum}
    pii: []
    expect: {freshness: 15m, volume: {per: 1h, min: 1}, unmatched_max: 0.5%}
  registry:
    types: {airline.listed: {schema: AirlineListed}, aircraft.listed: {schema: AircraftListed}}
    identities:                             # two company keys in one event: a proposed link
      - {entity: company, key: carrier_code, from: data.carrier}
      - {entity: company, key: airline_name, from: data.name, label: true}    # the display name
signals:
  departed: {on: flight.departed, fields: {delay: data.dep_delay, origin: data.origin, dest: data.dest}}
  departed_on_time: {on: flight.departed, when: data.dep_delay <= 15.0, fields: {origin: data.origin, dest: data.dest}}
metrics:
  departures: {from: departed, aggregate: count, dimensions: [origin, dest], unit: flights}
  on_time_departures: {from: departed_on_time, aggregate: count, dimensions: [origin, dest], unit: flights}
  departure_delay: {from: departed, aggregate: [sum(delay), avg(delay), max(delay)], dimensions: [origin], unit: min}
  aircraft_in_service: {from: departed, aggregate: distinct(device), unit: aircraft}
  on_time_rate: {formula: on_time_departures / departures, unit: ratio}
records:
  aircraft: {on: aircraft.listed, id: data.tailnum, op: upsert, fields: {model: data.model, seats: data.seats}}
milestones:
  punctual_month:
    {kind: achieve, start: 2013-02-01, deadline: 2013-03-01, grace: 2d, need: all,
     actions: {punctual: {metric: on_time_rate, window: 28d, op: ">=", value: 0.8, affects: true},
               reviewed: {manual: review held, affects: false}}}
plans:
  on_time_2013: {bridge: "port-authority/*", milestones: [punctual_month], metrics: [on_time_rate, aircraft_in_service]}
reactions:
  tell: {on: milestone.achieved, webhook: "https://example.org/hook", on_replay: suppress}
"""


def schema(name: str, /, **fields: Any) -> bytes:
    rows = [{"name": field, "type": kind} for field, kind in fields.items()]
    return json.dumps({"type": "record", "name": name, "fields": rows}, indent=1).encode()


PLACE = {"carrier": "string", "tailnum": ["null", "string"], "origin": "string", "dest": "string"}
SCHEMAS = {
    "schemas/FlightDeparted.avsc": schema("FlightDeparted", **PLACE, dep_delay="double", seats=["null", "long"]),
    "schemas/FlightCancelled.avsc": schema("FlightCancelled", **PLACE),
    "schemas/AirlineListed.avsc": schema("AirlineListed", carrier="string", name="string"),
    "schemas/AircraftListed.avsc": schema("AircraftListed", tailnum="string", model="string", seats="int"),
}


def bundle(text: str = MANUAL, **schemas: bytes) -> dict[str, bytes]:
    changed = {f"schemas/{name}.avsc": content for name, content in schemas.items()}
    return {"milepost.yaml": text.encode(), **SCHEMAS, **changed}


def load(old: str = "", new: str = "", **schemas: bytes) -> Catalog:
    assert old in MANUAL
    return load_bundle(bundle(MANUAL.replace(old, new, 1) if old else MANUAL, **schemas))


def findings(files: Mapping[str, bytes]) -> tuple[Finding, ...]:
    with pytest.raises(BundleError) as raised:
        load_bundle(files)
    return raised.value.findings
