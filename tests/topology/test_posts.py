"""Posts: calls in Segment's shape and payloads in Snowplow's become events; what is none says why, in its place."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from milepost.topology import segment, snowplow
from milepost.topology.driver import Driver
from milepost.topology.posts import Refusal
from milepost.topology.questions import Question, Questions
from milepost.topology.steps import run
from tests.support.small import SECRET, T0, iso

NOW = T0

CALLS: list[dict[str, Any]] = [
    {
        "type": "identify", "messageId": "m-1", "timestamp": "2025-03-03T10:15:00.250Z", "anonymousId": "anon-7",
        "userId": "u-1", "traits": {"email": "ann@orchard.example", "plan": "gold"},
        "context": {"ip": "192.0.2.7", "library": {"name": "tests", "version": "1"}},
    },
    {
        "type": "group", "messageId": "m-2", "timestamp": "2025-03-03T10:15:01Z", "userId": "u-1", "groupId": "orchard",
        "traits": {"name": "Orchard & Sons", "employees": 12},
    },
    {
        "type": "track", "messageId": "m-3", "timestamp": "2025-03-03T11:15:02+01:00", "userId": "u-1",
        "event": "Order Completed", "properties": {"total": 12.5, "currency": "EUR", "company": "orchard"},
    },
    {
        "type": "page", "messageId": "m-4", "originalTimestamp": "2025-03-03T10:16:00Z", "anonymousId": "anon-7",
        "name": "Prices", "category": "Shop", "properties": {"url": "https://shop.example/prices"},
    },
]  # fmt: skip


def described(name: str, data: Any, vendor: str = "com.acme") -> dict[str, Any]:
    return {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-2", "data": data}


def coded(told: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


VIEWED = described("unstruct_event", described("viewed_product", {"sku": "ASO?>~", "price": 9.5}), "com.snowplow")
USER = described("contexts", [described("user", {"tier": "gold"}), described("user", {"tier": "late"})], "com.snowplow")
PAYLOADS: list[dict[str, Any]] = [
    {"e": "pv", "eid": "e-1", "dtm": "1740996900250", "stm": "1740996999000", "aid": "shop", "uid": "u-1", "p": "web",
     "url": "https://shop.example/", "page": "Shop", "vid": "3", "tz": "Europe/Berlin"},
    {"e": "ue", "eid": "e-2", "dtm": "1740996901000", "ttm": "1740990000000", "aid": "shop", "duid": "d-1",
     "ue_pr": json.dumps(VIEWED), "co": json.dumps(USER)},
    {"e": "ue", "eid": "e-3", "dtm": "1740996901000", "aid": "shop", "ue_px": coded(VIEWED), "cx": coded(USER)},
    {"e": "se", "eid": "e-4", "dtm": 1740996902000, "se_ca": "shop", "se_ac": "add", "se_va": "2.5", "se_la": "x"},
]  # fmt: skip


def payload(*data: Any) -> dict[str, Any]:
    return {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": list(data)}


def test_segments_calls_are_events() -> None:
    """Each kind of call, alone or in a batch: its id, time, type, and what it holds under our kind of names."""
    batch = segment.events({"batch": CALLS, "sentAt": "2025-03-03T10:20:00Z"}, None, "acme", "web", NOW)
    assert batch == [one for call in CALLS for one in segment.events(call, None, "acme", "web", NOW)]
    identify, group, track, page = batch
    assert track == {
        "org": "acme", "source": "web", "id": "m-3", "type": "track.order_completed",
        "time": "2025-03-03T11:15:02+01:00",
        "data": {"event": "Order Completed", "user_id": "u-1", "properties": CALLS[2]["properties"]},
    }  # fmt: skip
    assert not isinstance(identify, Refusal) and identify["type"] == "identify"
    assert identify["data"] == {
        "user_id": "u-1", "anonymous_id": "anon-7", "traits": CALLS[0]["traits"], "context": CALLS[0]["context"],
    }  # fmt: skip
    assert not isinstance(group, Refusal) and group["data"]["group_id"] == "orchard"
    assert not isinstance(page, Refusal) and page["time"] == "2025-03-03T10:16:00Z"
    assert (page["data"]["name"], page["data"]["category"]) == ("Prices", "Shop")


def test_a_call_may_be_named_by_its_address_and_lack_id_and_time() -> None:
    """Libraries post to /track; without an id the same call is the same event; without a time it is that of arrival."""
    call = {"userId": "u", "event": "Signed Up!", "properties": {}}
    (first,), (again,) = (
        segment.events(one, "track", "acme", "web", NOW) for one in (call, dict(reversed(call.items())))
    )
    assert first == again and not isinstance(first, Refusal)
    assert (first["type"], first["time"], len(first["id"])) == (
        "track.signed_up",
        iso(NOW).replace(".000+00:00", "Z"),
        32,
    )
    (other,) = segment.events({**call, "userId": "v"}, "track", "acme", "web", NOW)
    assert not isinstance(other, Refusal) and other["id"] != first["id"]
    (sent,) = segment.events(
        {"batch": [{**call, "type": "track"}], "sentAt": "2025-03-03T10:20:00Z"}, None, "a", "w", NOW
    )
    assert not isinstance(sent, Refusal) and sent["time"] == "2025-03-03T10:20:00Z"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "a call is a JSON object"),
        ({"batch": {}}, "batch is a list of calls"),
        ({"batch": ["x"]}, "a call is a JSON object"),
        ({"messageId": "1"}, "type is 'None'; one of track, identify"),
        ({"type": "trak"}, "type is 'trak'"),
        ({"type": "track"}, "a track call names its event"),
        ({"type": "track", "event": "!!"}, "a track call names its event"),
    ],
)
def test_what_is_no_call_says_why(body: Any, said: str) -> None:
    """A refusal stands in the place of the event."""
    (found,) = segment.events(body, None, "acme", "web", NOW)
    assert isinstance(found, Refusal) and said in found.detail


def test_snowplows_payloads_are_events() -> None:
    """Page views, structured and self-describing events, plain or in base64, with their contexts and truest time."""
    view, plain, encoded, struct = snowplow.events(payload(*PAYLOADS), "acme", "snowplow")
    assert view == {
        "org": "acme", "source": "snowplow", "id": "e-1", "type": "page_view", "time": "2025-03-03T10:15:00.250Z",
        "data": {"app_id": "shop", "platform": "web", "user_id": "u-1", "domain_session_index": 3,
                 "timezone": "Europe/Berlin", "page_url": "https://shop.example/", "page_title": "Shop"},
    }  # fmt: skip
    assert not isinstance(plain, Refusal) and not isinstance(encoded, Refusal) and not isinstance(struct, Refusal)
    assert plain["type"] == "com.acme.viewed_product" and plain["time"] == "2025-03-03T08:20:00Z"
    assert plain["data"] == {
        "app_id": "shop", "domain_user_id": "d-1", "event": {"sku": "ASO?>~", "price": 9.5},
        "schema": "iglu:com.acme/viewed_product/jsonschema/1-0-2", "contexts": {"com_acme_user": {"tier": "gold"}},
    }  # fmt: skip
    del plain["data"]["domain_user_id"]
    assert encoded["data"] == plain["data"]
    assert struct["type"] == "struct" and struct["data"] == {
        "se_category": "shop", "se_action": "add", "se_label": "x", "se_value": 2.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"e": "zz"}, "e is 'zz'; one of pv, pp"),
        ({"eid": None}, "eid is missing"),
        ({"dtm": "soon"}, "ttm, dtm or stm is a time in milliseconds"),
        ({"dtm": None}, "ttm, dtm or stm is a time in milliseconds"),
        ({"ue_pr": None}, "a self-describing event has ue_pr or ue_px"),
        ({"ue_pr": "{"}, "ue_pr is not JSON"),
        ({"ue_pr": "[]"}, "ue_pr is self-describing: an object with schema and data"),
        ({"ue_pr": None, "ue_px": "ä"}, "ue_px is not base64"),
        ({"ue_pr": None, "ue_px": "e30"}, "self-describing"),
        ({"ue_pr": json.dumps(described("unstruct_event", {"schema": "other", "data": {}}))}, "'other' is no schema"),
        ({"co": json.dumps(described("contexts", {}))}, "co or cx holds a list of entities"),
    ],
)
def test_what_is_no_payload_says_why(changes: dict[str, Any], said: str) -> None:
    """The parameter and what was expected; the events beside it stay."""
    wrong = {name: one for name, one in {**PAYLOADS[1], "ttm": None, **changes}.items() if one is not None}
    first, found, last = snowplow.events(payload(PAYLOADS[0], wrong, PAYLOADS[3]), "acme", "snowplow")
    assert isinstance(found, Refusal) and said in found.detail
    assert not isinstance(first, Refusal) and not isinstance(last, Refusal)


@pytest.mark.parametrize("body", [[], {}, {"schema": 1, "data": []}, {"schema": payload()["schema"], "data": {}}])
def test_a_post_that_is_no_payload_is_refused(body: Any) -> None:
    """A post names the schema of payloads and holds a list."""
    (found,) = snowplow.events(body, "acme", "snowplow")
    assert isinstance(found, Refusal) and "payload_data" in found.detail


def test_posts_are_counted_under_contracts() -> None:
    """What a bundle declares of both systems is counted; what it does not name of a call stays in the raw log."""
    driver = Driver(SECRET, partitions=2)
    driver.apply("acme", BUNDLE, NOW)
    web = segment.events({"batch": CALLS}, None, "acme", "segment", NOW)
    shop = snowplow.events(payload(*PAYLOADS), "acme", "snowplow")
    for event in (*web, *shop):
        assert not isinstance(event, Refusal)
        driver.produce(event, NOW + 365 * 86_400_000 * 3)
    driver.run()
    assert sorted(one["reason"] for one in driver.dead_letters) == ["unknown_type"] * 5
    for metric, value in (("revenue", 12.5), ("viewed", 2), ("buyers", 1)):
        question = Question(metric=metric, now_ms=NOW + 365 * 86_400_000 * 4, org="acme")
        assert run(Questions(driver.reader).value(question))["value"] == value


BUNDLE = {
    "milepost.yaml": b"""
sources:
  segment:
    types: {track.order_completed: {schema: Order}}
    identities:
      - {entity: company, key: company, from: data.properties.company, required: true}
      - {entity: person, key: user, from: data.user_id}
  snowplow:
    types: {com.acme.viewed_product: {schema: Viewed}}
    identities: [{entity: company, key: app, from: data.app_id, required: true}]
signals:
  ordered: {on: track.order_completed, fields: {total: data.properties.total}}
  viewed: {on: com.acme.viewed_product, when: data.event.price > 1.0}
metrics:
  revenue: {from: ordered, aggregate: sum(total)}
  buyers: {from: ordered, aggregate: distinct(person)}
  viewed: {from: viewed, aggregate: count}
""",
    "schemas/Order.avsc": b"""{"type": "record", "name": "Order", "fields": [
      {"name": "user_id", "type": "string"},
      {"name": "properties", "type": {"type": "record", "name": "Bought", "fields": [
        {"name": "company", "type": "string"}, {"name": "total", "type": "double"}]}}]}""",
    "schemas/Viewed.avsc": b"""{"type": "record", "name": "Viewed", "fields": [
      {"name": "app_id", "type": "string"},
      {"name": "event", "type": {"type": "record", "name": "Product", "fields": [
        {"name": "sku", "type": "string"}, {"name": "price", "type": "double"}]}}]}""",
}
