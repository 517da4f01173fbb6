"""Posts of Segment and Snowplow over HTTP: mapped, appended, answered item by item as `POST /v1/events` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from milepost.ops.settings import Settings
from milepost.schemas.keys import raw_place
from tests.agents.test_views import Answer, Site, Tables, Worker, filled, served
from tests.topology.test_posts import CALLS, PAYLOADS, payload

ORG = "port-authority"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(filled().reader)))


@pytest.fixture(autouse=True)
def nothing_sent(site: Site) -> None:
    site.worker.sent.clear()


def post(site: Site, path: str, body: Any, content_type: str = "application/json; charset=UTF-8") -> Answer:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    return site.call("POST", f"/v1/connect/{path}", given, Content_Type=content_type)


def test_a_batch_of_calls_is_appended_and_answered_one_by_one(site: Site) -> None:
    """Outcomes in order, receipts, a problem for what is no call; each event lies under its raw key."""
    got = post(site, "segment", {"batch": [*CALLS, {"type": "nothing"}, CALLS[0]]})
    assert got.status == 202
    assert [one["status"] for one in got.json["items"]] == ["accepted"] * 4 + ["rejected", "duplicate"]
    assert (got.json["accepted"], got.json["rejected"], got.json["duplicate"]) == (4, 1, 1)
    refused = got.json["items"][4]["problem"]
    assert refused["title"] == "not_mapped" and "type is 'nothing'" in refused["detail"] and refused["fix"]
    assert len(site.worker.sent) == 4
    for output, call in zip(site.worker.sent, CALLS, strict=True):
        event = json.loads(output.value or b"")
        assert (event["org"], event["source"], event["id"]) == (ORG, "segment", call["messageId"])
        assert raw_place(ORG, "segment", event["id"], 0, 0, 3) == (output.key, output.partition)


@pytest.mark.parametrize(
    ("path", "type"), [("track", "track.order_completed"), ("t", "track.order_completed"), ("page", "page")]
)
def test_the_addresses_of_segments_libraries_name_the_call(site: Site, path: str, type: str) -> None:
    """A call without a type goes by the address; `batch` takes batches."""
    call = {**CALLS[2]}
    del call["type"]
    assert post(site, f"segment/{path}?org={ORG}&source=web", call).status == 202
    (output,) = site.worker.sent
    event = json.loads(output.value or b"")
    assert (event["type"], event["source"]) == (type, "web")
    assert post(site, "segment/batch", {"batch": CALLS}).json["accepted"] == 4


def test_a_payload_of_snowplow_is_appended(site: Site) -> None:
    """Each event of it; one that is none is rejected in its place."""
    got = post(site, "snowplow", payload(*PAYLOADS, {"e": "pv"}))
    assert got.status == 202 and [one["status"] for one in got.json["items"]] == ["accepted"] * 4 + ["rejected"]
    assert "eid is missing" in got.json["items"][4]["problem"]["detail"]
    assert {json.loads(one.value or b"")["source"] for one in site.worker.sent} == {"snowplow"}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("segment", b"{", 400, "not JSON"),
        ("segment", b"", 400, "not JSON"),
        ("segment", {"batch": []}, 422, "no event in the body"),
        ("segment", {"type": "x"}, 422, "could be keyed"),
        ("segment", {"batch": [{"type": "page"}] * 10_001}, 413, "too many"),
        ("segment?org=nobody", CALLS[0], 404, "organisation"),
        ("segment?org=nobody&sorce=x", CALLS[0], 422, "sorce"),
        ("segment?source=" + "x" * 257, CALLS[0], 422, "source"),
        ("segment/trak", CALLS[0], 404, "call"),
        ("segment", b'{"type": "page", "messageId": 7}', 422, "keyed"),
        ("segment", b'{"type": "page", "properties": ' + b"[" * 600 + b"]" * 600 + b"}", 422, "keyed"),
        ("snowplow", {}, 422, "keyed"),
        ("snowplow", payload(), 422, "no event in the body"),
    ],
)
def test_what_is_no_post_is_a_problem(site: Site, path: str, body: Any, status: int, said: str) -> None:
    """A status, a reason, a fix; nothing is appended."""
    got = post(site, path, body)
    assert got.status == status and said in json.dumps(got.json) and got.json["fix"]
    assert site.worker.sent == []


def test_another_content_type_or_method_is_refused(site: Site) -> None:
    """JSON is taken, and POST."""
    assert post(site, "segment", CALLS[0], "text/plain").status == 415
    assert site.get("/v1/connect/snowplow").status == 405


def test_the_description_has_the_addresses(site: Site) -> None:
    """OpenAPI names the calls, their parameters and bodies."""
    paths = site.get("/openapi.json").json["paths"]
    for path in ("/v1/connect/segment", "/v1/connect/segment/{call}", "/v1/connect/snowplow"):
        told = paths[path]["post"]
        assert {"org", "source"} <= {one["name"] for one in told["parameters"]} and told["requestBody"]["required"]
