"""What is not as it should be, sent to a running worker: a clear answer each, the line goes on, nothing is lost."""

from __future__ import annotations

import http.client
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from milepost.ops.flights import FLIGHTS, ORG, FlightEvent
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.keys import raw_place
from milepost.schemas.serde import NAMES, wire
from milepost.schemas.stamps import Stamp
from milepost.topology.line import LEGS
from tests.support.flights_driver import driver_digest
from tests.support.invariants import conservation, held
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SOME = 600
"""Events of the week that these tests send."""
Sent = tuple[int, bytes | None, bytes | None]
"""Partition, key, value."""
BRACKETS = b"[" * (1024 * 1024)


def some() -> list[FlightEvent]:
    numbers = random.Random(51).sample(range(len(week())), SOME)
    return [week()[number] for number in numbers]


@pytest.fixture
def deployment(settings: Settings) -> Iterator[Deployment]:
    """A running worker that has half of the events; the tests send the other half behind the bad input."""
    with Deployment(settings) as made:
        made.apply()
        made.send(some()[: SOME // 2])
        made.start()
        made.settle()
        yield made


def the_line_goes_on(deployment: Deployment) -> dict[str, int]:
    """The other half is taken, the tables are those of good input alone, also after a restart without a folder.

    Answers with ingest's fates before that restart.
    """
    deployment.send(some()[SOME // 2 :])
    status = deployment.settle()
    wanted = driver_digest(some())
    assert deployment.digest() == wanted
    problems = deployment.problems()
    deployment.kill()
    deployment.lose_state()
    deployment.start()
    deployment.settle()
    assert deployment.digest() == wanted
    assert deployment.problems() == problems
    fates: dict[str, int] = status["fates"]["ingest"]
    held(conservation(fates))
    return fates


def garbage(seed: int, keys: tuple[bytes, ...], partitions: int, n: int = 60) -> list[Sent]:
    """Records of random bytes; some begin as one of our messages does, some hold nothing."""
    rng = random.Random(seed)
    starts = [b"", b"{", b"\xc3\x01", *(wire(name).header for name in NAMES)]
    values = [rng.choice(starts) + rng.randbytes(rng.randrange(60)) for _ in range(n)]
    return [(rng.randrange(partitions), rng.choice(keys), value) for value in values]


def event(**changes: Any) -> dict[str, Any]:
    """A departure as JSON fields, with changes."""
    data = {"carrier": "UA", "flight": 1, "origin": "EWR", "dest": "IAH", "dep_delay": 5}
    fields: dict[str, Any] = {
        "org": ORG, "source": FLIGHTS, "id": "bad-1", "type": "flight.departed", "time": "2013-01-01T10:00:00Z",
        "revision": 0, "void": False, "data": data,
    }  # fmt: skip
    return fields | changes


def ask(deployment: Deployment, body: bytes, content_type: str = "application/json") -> tuple[int, str, dict[str, Any]]:
    """POST /v1/events as it is: status, content type and the JSON of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", deployment.settings.port, timeout=30)
    try:
        connection.request("POST", "/v1/events", body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.campaign
def test_a_foreign_tombstone_is_answered_by_the_first_record(deployment: Deployment) -> None:
    """A tombstone changes no table, is counted, and the log ends with the event's own bytes again."""
    gone = some()[0]
    key, partition = raw_place(ORG, gone.source, gone.id, 0, 0, deployment.settings.partitions)
    deployment.put("raw-events", [(partition, key, None), (partition, b"nobody's", None), (partition, b"", None)])
    deployment.settle()
    fates = the_line_goes_on(deployment)
    assert (fates["foreign_tombstone"], fates["copy"]) == (3, 1)
    last = [message for message in deployment.read("raw-events") if message.key() == key][-1]
    assert last.value() == gone.body()
    assert stamps.unpack(dict(last.headers())[stamps.HEADER]).kind == stamps.AGAIN
    assert deployment.dead() == {}


def test_garbage_on_raw_events_becomes_dead_letters(deployment: Deployment) -> None:
    """Each record of random bytes under random keys is one dead letter with its reason; no accepted one is hurt."""
    good = raw_place(ORG, some()[1].source, some()[1].id, 0, 0, deployment.settings.partitions)[0]
    junk = garbage(52, (b"", b"k", good), deployment.settings.partitions)
    deployment.put("raw-events", junk)
    fates = the_line_goes_on(deployment)
    dead = deployment.dead()
    assert sum(dead.values()) == len(junk)
    assert {stage for stage, _ in dead} == {"decode"}
    assert {reason for _, reason in dead} <= {"not_decodable", "contract_violation", "unknown_schema"}
    assert sum(count for fate, count in fates.items() if fate.startswith("dead:")) == len(junk)


def test_forged_stamps_are_ignored_and_counted(deployment: Deployment) -> None:
    """Markers, ticks and backdated events under another secret do nothing but be counted; an event counts as it is,
    with ten thousand headers too."""
    key, partition = raw_place(ORG, FLIGHTS, "bad-1", 0, 0, deployment.settings.partitions)
    value = orjson.dumps(event())
    for kind in (stamps.MARKER, stamps.TICK, stamps.AGAIN, stamps.BACKDATED, stamps.FORWARDED):
        stamp = Stamp(kind=kind, k_ms=1, partition=0, offset=0, bundle=b"nobody's")
        deployment.put(
            "raw-events", [(partition, key, value)], (stamps.header(b"another secret of 24 by.", key, value, stamp),)
        )
    for headers in ([(stamps.HEADER, b"short")] * 2, [("x", b"")] * 10_000):
        deployment.put("raw-events", [(partition, key, value)], headers)
    deployment.settle()
    fates = deployment.worker.status()["fates"]["ingest"]
    assert (fates["bad_stamp"], fates["accepted"], fates["duplicate"]) == (5, SOME // 2 + 1, 6)
    deployment.send(some()[SOME // 2 :])
    deployment.settle()
    held(conservation(deployment.worker.status()["fates"]["ingest"]))
    assert deployment.dead() == {}


def test_garbage_on_signals_becomes_dead_letters(deployment: Deployment) -> None:
    """Bytes on `signals` that are none of ours are dead letters of the stage metrics, and no cell has changed."""
    junk = garbage(53, (b"", b"k" * 32), deployment.settings.partitions)
    deployment.put("signals", [*junk, (0, b"k", None)])
    the_line_goes_on(deployment)
    assert deployment.dead() == {("metrics", "not_decodable"): len(junk) + 1}


@pytest.mark.campaign
def test_garbage_among_the_decisions_is_passed_over(deployment: Deployment) -> None:
    """Bytes that are no bundle and no link are refused, counted, and the definitions in force stay in force."""
    bundle = wire("Bundle").encode(
        {"org": ORG, "bundle": b"notvalid", "attempt": "x", "k_ms": 0, "files": {"milepost.yaml": b"sources: ["}}
    )
    junk = [*garbage(54, (b"k", b"l"), 1), (0, b"k", bundle)]
    deployment.put("definitions", [*junk, (0, b"k", None)])
    deployment.put("identity-links", [*garbage(55, (b"k", b"l"), 1), (0, b"k", None)])
    deployment.wait(
        lambda: deployment.worker.status().get("refused_decisions") == len(junk) + 1 + 61, "garbage is not refused"
    )
    the_line_goes_on(deployment)
    assert deployment.worker.status()["refused_decisions"] == len(junk) + 1 + 61
    assert "is not a bundle and is passed over" in deployment.worker.log


@pytest.mark.campaign
def test_garbage_among_the_dead_letters_hides_none(deployment: Deployment) -> None:
    """Bytes on `dead-letters` that are none of ours are left out of the answer; the real ones are in it."""
    deployment.put("dead-letters", garbage(56, (b"k", b"l"), deployment.settings.partitions))
    assert deployment.problems() == []
    deployment.put("raw-events", [(0, b"k", b"no event")])
    the_line_goes_on(deployment)
    assert deployment.dead() == {("decode", "not_decodable"): 1}


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.campaign)], ids=["running", "stopped"])
def test_garbage_on_the_changelogs_covers_nothing(deployment: Deployment, running: bool) -> None:
    """Foreign bytes under our own keys, with a worker or without: what they cover is written again, and restored right."""
    if not running:
        deployment.kill()
    for leg in LEGS:
        rows = [message for message in deployment.read(leg.changelog) if len(message.key()) > 8]
        ours = random.Random(57).sample(rows, min(30, len(rows)))
        rng = random.Random(58)
        junk: list[Sent] = [(row.partition(), row.key(), rng.randbytes(rng.randrange(40))) for row in ours]
        junk += [(row.partition(), row.key(), None) for row in ours[:10]]
        junk += [(row.partition(), b"\x00mark", rng.randbytes(30)) for row in ours[:5]]
        tags = tuple(bytes((tag,)) for tag in range(8))
        junk += garbage(59, (b"", b"\xff", *tags), deployment.settings.partitions)
        deployment.put(leg.changelog, junk)
    if not running:
        deployment.start()
        deployment.settle()
        assert "written again" in deployment.worker.log
    the_line_goes_on(deployment)


def test_a_foreign_own_ends_the_worker_and_the_next_one_restores(deployment: Deployment) -> None:
    """Whoever writes `own` to a changelog takes the partition: the worker stops with 75 and comes back whole."""
    deployment.put("measure-changelog", [(0, b"\x00own", b"nobody")])
    assert deployment.worker.wait_end() == 75
    assert "another worker has the partition" in deployment.worker.log
    deployment.start()
    deployment.settle()
    the_line_goes_on(deployment)


def test_events_that_break_their_contract_are_dead_letters_and_can_be_found(deployment: Deployment) -> None:
    """Unknown type and source, a missing required key, a wrong field, the future: accepted at the door,
    each a dead letter with its reason, at its receipt's position."""
    keyless = {"flight": 1, "origin": "EWR", "dest": "IAH", "dep_delay": 5}
    cases = {
        "unknown_type": event(id="bad-type", type="flight.vanished"),
        "unknown_source": event(id="bad-source", source="nowhere"),
        "contract_violation": event(id="bad-field", data={**keyless, "carrier": "UA", "dep_delay": "late"}),
        "missing_key": event(id="bad-key", data={**keyless, "carrier": ""}),
        "future_event": event(id="bad-time", time="2999-01-01T00:00:00Z"),
    }
    status, _, answer = ask(deployment, orjson.dumps(list(cases.values())))
    assert (status, answer["accepted"], answer["rejected"]) == (202, len(cases), 0)
    the_line_goes_on(deployment)
    problems = {one["reason"]: one for one in deployment.problems()}
    assert problems.keys() == cases.keys()
    for receipt, reason in zip((item["receipt"] for item in answer["items"]), cases, strict=True):
        assert (problems[reason]["example"], problems[reason]["count"]) == (receipt, 1)
        assert "late" not in problems[reason]["detail"]  # no bytes of the event


def test_a_body_that_is_no_event_is_refused_with_a_problem(deployment: Deployment) -> None:
    """What cannot be keyed never enters the log: 4xx, problem details, and ingest reads no record more."""
    cases = [
        (b"", 400), (b"not json", 400), (b"{", 422), (b"\xff\xfe{}", 400), (BRACKETS, 400), (b"[]", 422), (b"{}", 422),
        (b'{"a":' * 100_000, 422), (orjson.dumps(event(org="")), 422), (orjson.dumps(event(id="x" * 257)), 422),
        (b'{"org":"a","source":"b","id":"c","data":' + b"[" * 200_000, 422), (b" " * 2_000_000, 400),
        (b'{"org":"' + b"x" * 2_000_000 + b'"}', 413), (b"[" + b"{}," * 10_000 + b"{}]", 413),
    ]  # fmt: skip
    for body, expected in cases:
        status, kind, answer = ask(deployment, body)
        assert (status, kind) == (expected, "application/problem+json"), (body[:40], len(body), answer)
        assert answer["status"] == expected and answer["title"] and answer["detail"], answer
    assert ask(deployment, b"<a/>", "text/xml")[0] == 415
    assert deployment.worker.status()["fates"]["ingest"]["read"] == SOME // 2
    the_line_goes_on(deployment)
    assert deployment.dead() == {}


def test_deep_and_large_records_on_the_raw_log_are_dead_letters(deployment: Deployment) -> None:
    """1 MiB of brackets, deep data and a record beyond the limit, sent past the gateway: one dead letter each."""
    deep = orjson.dumps(event(id="deep"))[:-2] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    nested = orjson.dumps(event(id="nested", data={"carrier": "UA", "x": json.loads("[" * 40 + "]" * 40)}))
    values = [BRACKETS, deep, nested, b"{" * 1000, b'"' + b"x" * (1024 * 1024) + b'"', struct.pack(">d", float("nan"))]
    deployment.put(
        "raw-events", [(n % deployment.settings.partitions, b"k%d" % n, value) for n, value in enumerate(values)]
    )
    the_line_goes_on(deployment)
    dead = deployment.dead()
    assert sum(dead.values()) == len(values)
    assert dead["decode", "too_large"] == 1 and dead["decode", "not_decodable"] >= 3


def test_questions_that_have_no_meaning_name_the_fix(deployment: Deployment) -> None:
    """Unknown metric and company with a guess, an impossible window, a time that is none: problem details over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", deployment.settings.port, timeout=30)
    for path, expected, guess in (
        ("/v1/metrics/departure/value", 404, "departures"),
        ("/v1/metrics/departures/value?company=carrier_cod:UA", 404, "carrier_code:UA"),
        ("/v1/metrics/departures/value?company=carrier_code:XX", 404, None),
        ("/v1/metrics/departures/value?window=7x", 422, None),
        ("/v1/metrics/departures/value?at=yesterday", 422, None),
    ):
        connection.request("GET", path)
        answer = connection.getresponse()
        problem = json.loads(answer.read())
        assert (answer.status, answer.headers["Content-Type"]) == (expected, "application/problem+json"), problem
        assert guess is None or problem["guess"] == guess, problem
    connection.close()
