"""Requests that nobody would write, to a running worker: what its OpenAPI allows, what it does not, and bytes of every kind.

/openapi.json ─▶ schemathesis: cases that hold under it, cases that do not ─┐
hostile_records.kinds: the corpus of bad bytes, to every call with a body  ─┴▶ an answer, or a problem with its fix
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode

from milepost.ops.apply import demo_bundle
from milepost.ops.demo_data import aircraft
from milepost.ops.flights import ORG, FlightEvent
from milepost.ops.settings import Settings
from milepost.schemas.keys import raw_place
from milepost.topology.problems import fingerprint
from tests.support.broker import TestBroker, shared_jars
from tests.support.hostile_records import event, kinds
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

Sized = Callable[[int, int], int]


def some() -> list[FlightEvent]:
    """Flights of two airlines, and the aircraft of the first of them."""
    flights = [one for one in week() if one.data.get("carrier") in ("UA", "AA")][:300]
    return [*flights, aircraft((flights[0].data["tailnum"], *("NA",) * 8))]


FILES: Final = {
    **demo_bundle(),
    "milepost.yaml": demo_bundle()["milepost.yaml"].replace(
        b'{punctual: {metric: on_time_rate, window: 28d, op: ">=", value: 0.80}}',
        b'{punctual: {metric: on_time_rate, window: 28d, op: ">=", value: 0.80}, reviewed: {manual: seen, affects: false}}',
    ),
}
"""The demo's definitions, with an action that people tick."""
TAIL: Final = f"tailnum:{some()[0].data['tailnum']}"
BUNDLE: Final = {"org": ORG, "files": {name: text.decode() for name, text in FILES.items()}}
LOST: Final = event("lost", type="flight.lost")
"""An event of a type that nobody knows: a dead letter, so that there is a problem to ask for."""
PROBLEM: Final = fingerprint(
    "decode", "unknown_type", "source flights has no contract for this type", ORG, LOST["source"], LOST["type"]
)
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "problem": (PROBLEM.hex(), "0" * 16, "x"),
    "metric": ("departures", "on_time_rate", "aircraft_in_service", "departure_delay_max", "departure"),
    "company": ("carrier_code:UA", "carrier_code:XX", "mk_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    "metakey": ("carrier_code:UA", "carrier_code:XX", "mk_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    "plan": ("on_time_2013", "on_time"),
    "milestone": ("punctual_month", "twenty_departures", "punctual"),
    "org": ("port-authority", "port"),
    "by": ("origin", "company", "dest", "carrier"),
    "entity": ("company", "device", "person"),
    "key": ("carrier_code", "tailnum", "airline_name"),
    "value": ("UA", "AA", ""),
    "position": ("0@3", "1@999999999", "99@0", "0@-1"),
    "path": ("main.js", "../main.js", "%2e%2e/main.js"),
    "at": ("2013-01-05T00:00:00Z", "2013-01-05T00:07:00+05:45", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
    "from": ("2013-01-01T00:00:00Z", "1969-12-31T00:00:00Z", "2013-01-01T00:00:01Z"),
    "to": ("2013-01-03T00:00:00Z", "2013-01-01T00:00:00Z", "9999-12-31T00:00:00Z"),
    "every": ("1d", "15m", "week", "1h", "0d", "3661d"),
    "window": ("all", "7d", "month", "15m", "3660d", "1m"),
    "basis": ("latest", "corrected", "as_shown"),
    "tz": ("UTC", "Asia/Kathmandu", "../etc/passwd", "Europe/Berli"),
    "limit": ("1", "1000", "1001", "١"),
    "next": ("1", "999999999", "x"),
    "type": ("aircraft", "airliner"),
    "call": ("track", "batch", "tracks"),
    "dispute": ("0" * 32, "none"),
    "id": (str(some()[0].data["tailnum"]), "N0"),
    "action": ("reviewed", "punctual", "review"),
    "source": ("flights", "flight"),
    "to_basis": ("latest", "corrected", "as_shown"),
    "q": ("united", "mk_", "\0"),
}
"""Parameter -> values that mean something here, or nearly: half of what is asked has them, so that it comes deep."""
TRACKED: Final = {
    "type": "track", "event": "Paid", "messageId": "m-1", "userId": "u-1", "timestamp": "2013-01-01T10:00:00Z",
}  # fmt: skip
SANE: Final[dict[str, dict[str, Any]]] = {
    "/v1/metrics/{metric}/series": {"query": {"to": "2013-01-03T00:00:00Z"}},
    "/v1/milestones": {"query": {"company": "carrier_code:UA"}},
    "/v1/events": {"body": event("sane")},
    "/v1/identity/link": {"query": {"dry_run": "true"}, "body": {"keys": ["carrier_code:UA", "carrier_code:AA"]}},
    "/v1/identity/unlink": {"query": {"dry_run": "true"}, "body": {"keys": ["carrier_code:UA"]}},
    "/v1/identity/membership": {"body": {"entity": "device", "member": TAIL, "company": "carrier_code:UA"}},
    "/v1/records/{type}/{id}/restore": {"body": {"at": "2013-01-05T00:00:00Z"}},
    "/v1/plans/{plan}/milestones/{milestone}/actions/{action}": {"body": {"company": "carrier_code:UA"}},
    "/v1/sources/{source}/complete": {"body": {"until": "2013-01-02T00:00:00Z"}},
    "/v1/dead-letters/{problem}/repair": {"query": {"dry_run": "true"}, "body": {"by": "ann"}},
    "/v1/presence": {"body": {"who": "ann", "company": "carrier_code:UA"}},
    "/v1/connect/segment": {"body": TRACKED},
    "/v1/connect/segment/{call}": {"body": TRACKED},
    "/v1/connect/snowplow": {
        "body": {
            "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",
            "data": [{"e": "pv", "eid": "f3a1b6ce-77d4-4a3a-9d4e-2c9a1d0b5f11", "dtm": "1357034400000", "aid": "shop"}],
        }
    },
    "/v1/definitions:plan": {"body": BUNDLE},
    "/v1/definitions:apply": {"body": BUNDLE},
}
"""What a request of a call has beside its required parameters, so that it is answered."""
DEAR: Final = ("/v1/milestones", "/v1/plans/{plan}")
"""Calls that look at every pane end of a year: a few requests each."""
ENDLESS: Final = ("/v1/stream",)
"""Calls whose answer does not end: what they refuse is asked for in tests/agents/test_stream.py."""
REFUSED: Final = ("POST /v1/plans/{plan}/milestones/{milestone}/disputes/{dispute}:accept",)
"""Calls that have nothing to answer here: a week without disputes (tests/agents/test_disputes.py has some)."""
RECEIPT: Final = "raw-events/0@1"
"""What `after` asks for: of a receipt that never comes an answer waits five seconds."""
NONE: Final = 20.0
"""Seconds after which an answer has not come."""


@pytest.fixture(scope="module")
def worker(broker: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running worker with the flights of two airlines."""
    settings = Settings(
        home=tmp_path_factory.mktemp("requests"),
        broker=broker.bootstrap,
        namespace=f"t{uuid.uuid4().hex[:10]}",
        replication=1,
        secret_text="a secret that only tests use",
        jars_folder=shared_jars(),
    )
    with Deployment(settings) as made:
        made.apply(FILES)
        made.send(some())
        key, partition = raw_place(ORG, LOST["source"], LOST["id"], 0, 0, settings.partitions)
        made.put("raw-events", [(partition, key, json.dumps(LOST).encode())])
        made.start()
        made.settle()
        yield made
    broker.drop(settings.namespace)


def fault(status: int, content_type: str, content: bytes) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if status < 400:
        return ""
    if status >= 500 and status != 503:
        return f"status {status}: {content[:200]!r}"
    if content_type != "application/problem+json":
        return f"{content_type} is no problem"
    told: dict[str, Any] = json.loads(content)
    if told.get("status") != status or not all(told.get(one) for one in ("type", "title", "detail", "fix")):
        return f"the problem lacks something: {json.dumps(told)[:300]}"
    items = [item["problem"] for item in told.get("items", ()) if item["status"] == "rejected"]
    return "" if all(item.get("fix") for item in items) else f"a rejected item without a fix: {items[:1]}"


@pytest.mark.parametrize("status, body, wrong", [
    (200, {}, False), (422, {"type": "a", "title": "b", "status": 422, "detail": "c", "fix": "d"}, False),
    (422, {"type": "a", "title": "b", "status": 422, "detail": "c"}, True), (404, {}, True), (500, {}, True),
])  # fmt: skip
def test_a_wrong_answer_is_found(status: int, body: dict[str, Any], wrong: bool) -> None:
    """Positive control: a problem without a fix, an error that is no problem and a 500 are faults."""
    assert bool(fault(status, "application/problem+json", json.dumps(body).encode())) == wrong
    assert bool(fault(status, "text/html", json.dumps(body).encode())) == (status >= 400)


def test_whatever_is_asked_there_is_an_answer_or_a_problem_with_a_fix(worker: Deployment, sized: Sized) -> None:
    """Each call of the description, with values that hold under it and values that do not: no 5xx but 503, every error
    says how to do better, and every call was answered as well as refused."""
    url = worker.settings.url
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    session = requests.Session()
    wrong: list[str] = []
    met: dict[str, Counter[str]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in ENDLESS:
            continue
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            for case in cases(operation, mode, sized(15, 1) if operation.path in DEAR else sized(100, 4)):
                answer = case.call(base_url=url, session=session, timeout=NONE, allow_redirects=False)
                status = met.setdefault(operation.label, Counter())
                status["answered" if answer.status_code < 400 else "refused"] += 1
                if what := fault(answer.status_code, answer.headers.get("content-type", [""])[0], answer.content):
                    wrong.append(f"{what}\n    {case.as_curl_command()[:600]}")
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong[:10])
    assert worker.worker.alive
    unanswered = {label for label, one in met.items() if not one["answered"]} - {*REFUSED}
    assert not unanswered, (unanswered, met)
    assert sum(one["refused"] for one in met.values()) > sum(one.total() for one in met.values()) / 4


def cases(operation: APIOperation[Any, Any, Any], mode: GenerationMode, count: int) -> list[Case]:
    """At most `count` requests for a call, the same in every run; none where a mode has none (nothing can be wrong)."""
    made: list[Case] = []

    @hypothesis.seed(2013)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode), st.randoms(use_true_random=False))
    def collect(case: Case, chance: random.Random) -> None:
        names = [one.name for one in operation.query]
        if mode == GenerationMode.POSITIVE and (not made or chance.random() < 0.1):
            sane = SANE.get(operation.path, {})
            needed = {one.name: KNOWN[one.name][0] for one in operation.query if one.is_required}
            case.path_parameters = {name: KNOWN[name][0] for name in case.path_parameters}
            case.query = {**needed, **sane.get("query", {})}
            case.body = sane.get("body", case.body)
            case.media_type = "application/json" if "body" in sane else case.media_type
            made.append(case)
            return
        for name in [*case.path_parameters]:
            if name in KNOWN and chance.random() < 0.7:
                case.path_parameters[name] = chance.choice(KNOWN[name])
        for name in names:
            if name in KNOWN and (name in case.query or chance.random() < 0.2) and chance.random() < 0.7:
                case.query[name] = chance.choice(KNOWN[name])
        for name in [*case.query]:
            if mode == GenerationMode.POSITIVE and name not in ("from", "by", "key", "value") and chance.random() < 0.5:
                del case.query[name]  # the fewer are given, the more of them are looked at
        if "after" in case.query:
            case.query["after"] = RECEIPT
        made.append(case)

    try:
        collect()
    except hypothesis.errors.Unsatisfiable:
        return made
    return made


def test_bytes_of_every_kind_to_every_call_with_a_body(worker: Deployment, sized: Sized) -> None:
    """The corpus of bad input, each as each content type that is taken and one that is not: an answer or a problem."""
    url = worker.settings.url
    document = requests.get(f"{url}/openapi.json", timeout=NONE).json()
    calls = [
        (path, [*call["post"]["requestBody"]["content"], "text/plain"])
        for path, call in document["paths"].items()
        if "requestBody" in call.get("post", {})  # a session is begun and ended without a body
    ]
    assert len(calls) >= 6
    session, wrong, statuses = requests.Session(), list[str](), Counter[int]()
    for n in range(sized(3, 1)):
        for name, body in [*kinds(n), *shaped()]:
            for path, types in calls:
                for content_type in types:
                    answer = session.post(
                        url + path,
                        data=body,
                        headers={"Content-Type": content_type},
                        timeout=NONE,
                        allow_redirects=False,
                    )
                    statuses[answer.status_code] += 1
                    if what := fault(answer.status_code, answer.headers["Content-Type"], answer.content):
                        wrong.append(f"{name} to {path} as {content_type}: {what}")
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong[:10])
    assert worker.worker.alive and statuses[202] and statuses[422] and statuses[415]
    worker.settle()


def shaped() -> Iterator[tuple[str, bytes]]:
    """Bodies that have the shape of what identity and definitions take, and hold something odd."""
    odd = (
        "",
        "x" * 100_000,
        "\0",
        "carrier_code:",
        ":UA",
        "carrier_code:UA",
        "mk_",
        "😀:😀",
        "carrier_code:" + "x" * 300,
    )
    for one in odd:
        yield f"keys {one[:20]!r}", json.dumps({"keys": [one, "carrier_code:AA"], "by": one}).encode()
        yield f"entity {one[:20]!r}", json.dumps({"keys": ["carrier_code:AA"], "entity": one, "org": one}).encode()
        yield (
            f"member {one[:20]!r}",
            json.dumps({"member": one, "company": one, "from": one, "revision": 2**40}).encode(),
        )
        yield f"files {one[:20]!r}", json.dumps({"org": one, "files": {"milepost.yaml": one, one: one}}).encode()
    yield "surrogate keys", b'{"keys": ["carrier_code:\\ud800", "\\udfff:x"], "by": "\\ud800"}'
    yield "surrogate member", b'{"member": "email:\\ud800", "company": "carrier_code:\\ud800", "id": "\\ud800"}'
    yield "surrogate files", b'{"org": "\\ud800", "files": {"milepost.yaml": "sources: \\ud800"}}'
    yield "not UTF-8", b'{"keys": ["carrier_code:\xff"], "org": "\xff", "files": {}, "member": "\xff"}'
    yield "alias bomb", json.dumps({"org": "o", "files": {"milepost.yaml": BOMB}}).encode()


BOMB: Final = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
"""Nine lists of nine lists of nine lists…: a short text that is long when it is read."""
