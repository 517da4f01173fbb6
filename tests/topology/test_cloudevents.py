"""CloudEvents: a structured one in the raw log is the event it describes; one that is wrong says what is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from milepost.schemas.records import Envelope, Reject
from milepost.topology import cloudevents, decode
from milepost.topology.cloudevents import NoCloudEvent
from tests.support.small import T0, visit
from tests.topology.test_revisions import TEN, engine, reasons, value

EVENT: dict[str, Any] = {"specversion": "1.0", **visit("e", T0, minutes=3.0)}


def test_a_structured_cloudevent_is_the_event() -> None:
    """It is counted like our own form, and is the same event: one after the other is a duplicate."""
    own, cloud = visit("e", TEN, minutes=3.0), {**EVENT, "time": visit("e", TEN)["time"]}
    cloud |= {
        "datacontenttype": "application/json",
        "dataschema": "https://schemas.example/visit",
        "traceparent": "00-1",
    }
    for first, second in ((own, cloud), (cloud, own)):
        made = engine((first, TEN), (second, TEN), partitions=1)
        assert value(made, "minutes_sum") == 3 and made.fates["ingest"]["duplicate"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"specversion": "0.3"}, "specversion is '0.3'"),
        ({"specversion": 1}, "specversion is '1'"),
        ({"datacontenttype": "application/xml"}, "datacontenttype is 'application/xml'"),
        ({"data": "text"}, "data of the CloudEvent is no JSON object"),
        ({"data": None, "data_base64": "AAAA"}, "has data_base64"),
        ({"time": None}, "no attribute time"),
        ({"org": None}, "no extension attribute org"),
    ],
)
def test_a_wrong_cloudevent_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    """Each way of not being an event of ours is a dead letter that names the attribute."""
    event = {name: one for name, one in {**EVENT, **changes}.items() if one is not None}
    found = decode.envelope(json.dumps(event).encode())
    assert isinstance(found, Reject) and found.reason == "contract_violation" and said in found.detail
    assert isinstance(decode.envelope(json.dumps(EVENT).encode()), Envelope)


def test_an_event_that_is_none_may_hold_what_it_likes() -> None:
    """Without `specversion` the other attributes of CloudEvents mean nothing."""
    event = {**visit("e", TEN, minutes=3.0), "datacontenttype": 7, "data_base64": 1}
    made = engine((event, TEN))
    assert value(made, "minutes_sum") == 3 and reasons(made) == []


HEADERS = {"ce-specversion": "1.0", "Ce-Id": "e", "ce-source": "app", "ce-type": "visit", "ce-org": "acme"}


def test_binary_mode_is_the_same_event() -> None:
    """Attributes come from headers, percent-decoded and with their types, the data is the body."""
    more = {"ce-time": "2023-11-14T00:00:00Z", "ce-revision": "2", "ce-void": "true", "X-Other": "no"}
    told = json.loads(
        cloudevents.binary({**HEADERS, **more, "ce-id": "caf%C3%A9"}, "application/json", b'{"company": "1"}')
    )
    assert told["id"] == "café" and (told["revision"], told["void"]) == (2, True) and "x-other" not in told
    found = decode.envelope(json.dumps({**told, "id": "e"}).encode())
    assert isinstance(found, Envelope) and (found.org, found.revision, found.data) == ("acme", 2, {"company": "1"})
    assert json.loads(cloudevents.binary(HEADERS, "application/octet-stream", b""))["data"] == {}


@pytest.mark.parametrize(
    ("headers", "kind", "body", "said"),
    [
        ({"ce-specversion": "0.3"}, "application/json", b"{}", "ce-specversion"),
        ({"ce-revision": "one"}, "application/json", b"{}", "ce-revision"),
        ({"ce-void": "1"}, "application/json", b"{}", "ce-void"),
        ({"ce-subject": "%ff"}, "application/json", b"{}", "ce-subject"),
        ({}, "text/plain", b"{}", "content type"),
        ({}, "application/json", b"{", "not JSON"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(headers: dict[str, str], kind: str, body: bytes, said: str) -> None:
    """What cannot be made an event is refused with the header or body that is wrong."""
    with pytest.raises(NoCloudEvent, match=said):
        cloudevents.binary({**HEADERS, **headers}, kind, body)
