"""The stream over HTTP: over a driver's tables for what one worker does, on a real broker for what workers do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlencode

import pytest
from typer.testing import CliRunner

from milepost.agents.views import clients, streams
from milepost.ops import cli
from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG
from milepost.ops.settings import Settings
from milepost.ops.watch import watch
from tests.agents.test_views import NOW, Site, Tables, Worker, filled, served
from tests.support.workers import Deployment

JSON = {"Content_Type": "application/json"}
BUSY = b"""  busy:
    {kind: achieve, start: 2013-01-01, deadline: 2013-03-01, grace: 2d, need: all,
     actions: {flown: {metric: departures, window: all, op: ">=", value: 3, affects: true}}}
"""


class Stream:
    """One open stream: its frames, one by one, read by a thread of its own."""

    def __init__(self, port: int, *asked: tuple[str, str], last: str = "", **headers: str) -> None:
        self.link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        given = {"Last-Event-ID": last} if last else {}
        self.link.request("GET", f"/v1/stream?{urlencode(asked)}", headers={**given, **headers})
        self.answer = self.link.getresponse()
        self.comments: list[str] = []
        self.id = last
        self.ended = False
        self._frames: queue.Queue[tuple[str, Any, str] | None] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.link.sock is not None:
            with contextlib.suppress(OSError):
                self.link.sock.shutdown(socket.SHUT_RDWR)
        if "reader" in vars(self):
            self.reader.join(10)
        self.answer.close()
        self.link.close()

    @property
    def problem(self) -> Any:
        return json.loads(self.answer.read())

    @cached_property
    def reader(self) -> threading.Thread:
        assert self.answer.status == 200, self.answer.read()
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        return thread

    def next(self, seconds: float = 30.0) -> tuple[str, Any] | None:
        """The next frame; None: none came in time, or the stream has ended."""
        assert self.reader
        try:
            told = self._frames.get(timeout=seconds)
        except queue.Empty:
            return None
        if told is None:
            self.ended = True
            return None
        event, data, id = told
        self.id = id or self.id
        return event, data

    def until(self, value: Any) -> list[Any]:
        """The values of the frames up to one that has this."""
        seen: list[Any] = []
        while not seen or seen[-1] != value:
            told = self.next()
            assert told is not None, f"{value} is not among {seen}"
            seen.append(told[1].get("value", told[1].get("state")))
        return seen

    def _read(self) -> None:
        now: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            while line := self.answer.readline().decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line == "\n":
                    if "data" in now:
                        self._frames.put((now["event"], json.loads(now["data"]), now.get("id", "")))
                    now = {}
                elif name:
                    now[name] = value
                else:
                    self.comments.append(value)
        self._frames.put(None)


# -- over a driver's tables


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(filled().reader)))


@pytest.fixture
def site(_site: Site) -> Site:
    _site.worker.reader.restoring = False
    return _site


def flies(site: Site, id: str) -> None:
    """One more departure is in the tables."""
    driver = site.worker.reader.driver
    data = {
        "carrier": "UA",
        "flight": 1,
        "tailnum": "N1",
        "origin": "EWR",
        "dest": "IAH",
        "dep_delay": 1.0,
        "distance": 1.0,
    }
    event = {
        "org": ORG,
        "source": "flights",
        "id": id,
        "type": "flight.departed",
        "time": "2013-01-11T00:00:00Z",
        "data": data,
    }
    driver.produce(event, NOW)
    driver.run()
    site.worker.landings += 1


def test_the_state_and_then_its_changes(site: Site) -> None:
    """A frame for the state, equal to what GET answers, one for each change, and none where nothing changed."""
    with Stream(site.port, ("metric", "departures"), ("company", "carrier_code:UA")) as stream:
        assert (
            stream.answer.getheader("Cache-Control") == "no-store"
            and stream.answer.getheader("X-Accel-Buffering") == "no"
        )
        assert stream.answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        event, first = stream.next() or ("", None)
        assert event == "value" and first == site.get("/v1/metrics/departures/value", company="carrier_code:UA").json
        site.worker.landings += 1
        assert stream.next(1.0) is None


def test_what_changed_while_away_is_told_at_once(site: Site) -> None:
    """With its last id a client that comes back is told what has changed, and nothing when nothing has."""
    asked = (("metric", "departures"), ("metric", "aircraft_in_service"), ("window", "all"))
    with Stream(site.port, *asked) as stream:
        (_, one), (_, two) = stream.next() or ("", {}), stream.next() or ("", {})
        assert (one["metric"], two["metric"]) == ("departures", "aircraft_in_service")
        id = stream.id
    with Stream(site.port, *asked, last=id) as stream:
        assert stream.next(1.0) is None
        flies(site, "while-there")
        assert (stream.next() or ("", {}))[1]["value"] == one["value"] + 1
    flies(site, "while-away")
    with Stream(site.port, *asked, last=stream.id) as stream:
        seen = {}
        while (told := stream.next(1.0)) is not None:
            seen[told[1]["metric"]] = told[1]["value"]
        assert seen["departures"] == one["value"] + 2


def test_while_a_partition_is_away_nothing_is_told(site: Site) -> None:
    """A stream opens although its answer is not to be had; a comment says so, and the value comes when it is there."""
    site.worker.reader.restoring = True
    with Stream(site.port, ("metric", "departures")) as stream:
        assert stream.next(1.5) is None and any("restored" in one for one in stream.comments)
        site.worker.reader.restoring = False
        assert (stream.next() or ("", {}))[0] == "value"


def test_what_cannot_be_asked_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The problems of GET, a bound on questions and clients, and no stream for a foreign page."""
    for asked, status in (
        ((("metric", "departure"),), 404),
        ((("milestone", "none"),), 404),
        ((("company", "carrier_code:UA"),), 422),
        ((("metric", "departures"), ("metrik", "x")), 422),
        ((("metric", "departures"), ("dim.planet", "x")), 422),
        (tuple(("metric", f"m{n}") for n in range(51)), 422),
    ):
        with Stream(site.port, *asked) as stream:
            assert stream.answer.status == status, asked
            problem = stream.problem
            assert problem.get("fix") or problem.get("guess"), problem
    with Stream(site.port, ("metric", "departures"), Origin="http://evil.example") as stream:
        assert stream.answer.status == 403
    with Stream(site.port, ("metric", "departures"), Host="evil.example") as stream:
        assert stream.answer.status == 421
    monkeypatch.setattr(streams, "CLIENTS_MAX", 1)
    with Stream(site.port, ("metric", "departures")) as one, Stream(site.port, ("metric", "departures")) as other:
        assert one.next() is not None and other.answer.status == 429 and other.problem["fix"]


def test_equal_questions_are_asked_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten clients of one question cost one answer a round, and each is told."""
    asked = 0
    value = streams.queries.value

    async def counted(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        return await value(*given)

    monkeypatch.setattr(streams.queries, "value", counted)
    opened = [Stream(site.port, ("metric", "departures")) for _ in range(10)]
    assert all(one.next() is not None for one in opened)
    time.sleep(1.0)
    before = asked
    flies(site, "for-all")
    assert all(one.next() is not None for one in opened)
    assert asked == before + 1
    for one in opened:
        one.__exit__()


def test_who_takes_nothing_is_let_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read is closed, after a while without a byte of progress; its tasks end with it."""
    monkeypatch.setattr(clients, "STALLED_S", 2.0)
    monkeypatch.setattr(clients.frames, "comment", lambda text="": b": " + b"x" * 4_000_000 + b"\n\n")
    monkeypatch.setattr(clients, "COMMENT_S", 0.2)
    with Stream(site.port, ("metric", "departures")):
        until = time.monotonic() + 30
        while "streams" in _tasks(site) and time.monotonic() < until:
            time.sleep(0.2)
        assert "streams" not in _tasks(site)


def test_presence_is_told_to_the_company(site: Site) -> None:
    """Who is there, and at which time they look, is told to the streams of that company alone."""
    there = {"who": "ann", "company": "carrier_code:UA", "at": "2013-01-05T00:00:00Z"}
    with (
        Stream(site.port, ("metric", "departures"), ("company", "carrier_code:UA")) as same,
        Stream(site.port, ("metric", "departures"), ("company", "carrier_code:AA")) as other,
    ):
        assert same.next() is not None and other.next() is not None
        told = site.call("POST", "/v1/presence", json.dumps(there).encode(), **JSON)
        assert told.status == 200 and told.json["present"] == [{"who": "ann", "at": there["at"]}]
        assert same.next() == ("presence", told.json) and same.id
        assert other.next(1.0) is None
    for wrong in ({}, {"who": ""}, {"who": "x" * 129}, {"who": "ann", "at": "noon"}, {"who": "ann", "more": 1}):
        assert site.call("POST", "/v1/presence", json.dumps(wrong).encode(), **JSON).status == 422
    assert site.call("POST", "/v1/presence", b'{"who":"ann","company":"carrier_code:ZZ"}', **JSON).status == 404


def test_the_command_prints_frames(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`milepost watch` prints a line for each frame, and goes on behind a connection that broke."""
    monkeypatch.setenv("MILEPOST_PORT", str(site.port))
    command = ["watch", "departures", "on_time_rate", "--company", "carrier_code:UA", "--window", "1d", "-n", "2"]
    told = CliRunner().invoke(cli.app, command)
    assert told.exit_code == 0 and [line.split()[0] for line in told.stdout.splitlines()] == [
        "departures",
        "on_time_rate",
    ]
    told = CliRunner().invoke(cli.app, [*command, "--json"])
    assert [json.loads(line)["data"]["window"] for line in told.stdout.splitlines()] == ["1d", "1d"]
    told = CliRunner().invoke(cli.app, ["watch", "departure"])
    assert told.exit_code == cli.REFUSED and "departures" in told.stderr
    frames = watch(f"http://127.0.0.1:{site.port}", [("metric", "departures")])
    one = next(frames)
    for transport in (client._transport for client in _clients(site)):
        site.loop.call_soon_threadsafe(transport.abort)
    flies(site, "behind-the-break")
    assert next(frames).data["value"] == one.data["value"] + 1
    frames.close()


def test_streams_are_described(site: Site) -> None:
    """OpenAPI names both calls, what may be given several times, and what comes."""
    paths = site.get("/openapi.json").json["paths"]
    stream = paths["/v1/stream"]["get"]
    assert {one["name"]: one["schema"]["type"] for one in stream["parameters"]}["metric"] == "array"
    assert "text/event-stream" in stream["responses"]["200"]["content"] and "post" in paths["/v1/presence"]


def test_no_task_is_left(site: Site) -> None:
    """When the last client is gone the streams' tasks are gone."""
    with Stream(site.port, ("metric", "departures")) as stream:
        assert stream.next() is not None and {"streams", "streams' clients"} <= _tasks(site)
    until = time.monotonic() + 10
    while _tasks(site) & {"streams", "streams' clients"} and time.monotonic() < until:
        time.sleep(0.1)
    assert not _tasks(site) & {"streams", "streams' clients"}


def _clients(site: Site) -> list[Any]:
    return [one for one in gc.get_objects() if isinstance(one, clients.Client) and not one.ended]


def _tasks(site: Site) -> set[str]:
    """The names of the tasks in the site's loop."""
    return {task.get_name() for task in asyncio.all_tasks(site.loop)}


# -- on a real broker


def departs(deployment: Deployment, *ids: str, carrier: str = "UA") -> None:
    """Departures through the gateway of the first worker."""
    made = [
        {"org": ORG, "source": "flights", "id": id, "type": "flight.departed", "time": "2013-01-02T00:00:00Z",
         "data": {"carrier": carrier, "flight": 1, "tailnum": "N1", "origin": "EWR", "dest": "IAH", "dep_delay": 1.0,
                  "distance": 1.0}}
        for id in ids
    ]  # fmt: skip
    with deployment.lives[0].client() as client:
        told = client.post("/v1/events", made)
    assert [one["status"] for one in told["items"]] == ["accepted"] * len(ids), told


def growing(settings: Settings) -> Deployment:
    deployment = Deployment(settings)
    files = demo_bundle()
    text = files["milepost.yaml"].replace(b"  twenty_departures:\n", BUSY + b"  twenty_departures:\n", 1)
    deployment.apply({**files, "milepost.yaml": text.replace(b"[twenty_departures,", b"[busy, twenty_departures,")})
    deployment.start()
    return deployment


@pytest.mark.broker
@pytest.mark.slow
def test_a_worker_tells_what_lands(settings: Settings) -> None:
    """Values and milestones come as events do, ticks tell nothing, a client that was away loses nothing, and a worker
    that is stopped ends its streams in time."""
    asked = (("metric", "departures"), ("milestone", "busy"), ("company", "carrier_code:UA"))
    with growing(settings) as deployment:
        departs(deployment, "one")
        deployment.settle()
        worker = deployment.worker
        with Stream(port(deployment), *asked) as stream:
            first: dict[str, Any] = {}
            while any(first.get(name, {}).get("complete_to") is None for name in ("value", "milestone")):
                told = stream.next()  # the first tick of every partition makes the answers complete
                assert told is not None, first
                first[told[0]] = told[1]
            assert first["value"]["value"] == 1 and first["milestone"]["milestone"] == "busy"
            assert first["milestone"]["state"] not in ("achieved", "pending")
            assert stream.next(3.0) is None
            departs(deployment, "two")
            assert stream.until(2)
        with Stream(port(deployment), *asked, last=stream.id) as stream:
            while (told := stream.next(2.0)) is not None:  # what else came of the second event
                assert told[1].get("value", 2) == 2
        with Stream(port(deployment), *asked, last=stream.id) as stream:
            assert stream.next(2.0) is None
        departs(deployment, "three")
        deployment.settle()
        with Stream(port(deployment), *asked, last=stream.id) as stream:
            assert {told[0] for told in (stream.next(), stream.next()) if told} == {"value", "milestone"}
            with worker.client() as client:
                states = client.get("/v1/milestones", milestone="busy", company="carrier_code:UA")["milestones"]
            assert [one["state"] for one in states] == ["achieved"]
            begun = time.monotonic()
            assert worker.stop() == 0 and time.monotonic() - begun < 20, worker.told()
            while stream.next(5.0) is not None:
                pass
            assert stream.ended
        assert "never retrieved" not in worker.log and "was destroyed" not in worker.log


@pytest.mark.broker
@pytest.mark.slow
def test_a_worker_tells_what_lands_elsewhere(settings: Settings) -> None:
    """A stream stays open while partitions go to another worker, and asked of either it tells what both take in: at
    no time a number that was never true."""
    asked = ("metric", "departures")
    with growing(settings) as deployment:
        departs(deployment, *(f"a{n}" for n in range(10)))
        with Stream(port(deployment), asked) as first:
            first.until(10)
            deployment.start(name="worker-2")
            deployment.wait(
                lambda: all(one.status()["legs"]["measure"]["open"] for one in deployment.running), "not shared"
            )
            with Stream(port(deployment), asked) as second:
                second.until(10)
                for carrier in ("UA", "AA", "DL", "B6", "WN", "EV"):
                    departs(deployment, f"b-{carrier}", carrier=carrier)
                for stream in (first, second):
                    assert all(value is not None and 10 <= value <= 16 for value in stream.until(16))


def port(deployment: Deployment) -> int:
    """Of the worker that was started last."""
    return deployment.worker.settings.port
