"""The views over HTTP: what they answer, and that every bad request ends as a clear problem.

The tables are filled by the driver; the broker is a list, because what is tested here is the HTTP layer."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import faust
import pytest
from aiohttp import web

from milepost.agents.peers import Refused, Sealer
from milepost.agents.views import Health, SendFailed, attach
from milepost.ops.access import Book, Doorkeys
from milepost.ops.apply import AppliedReport, demo_bundle
from milepost.ops.settings import Settings
from milepost.ops.telemetry import Observed
from milepost.schemas import serde
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.schemas.records import Envelope
from milepost.topology import decode
from milepost.topology.bases import instant, written
from milepost.topology.catalog import bundle_id
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.problems import Problems
from milepost.topology.reading import Reader, Unavailable
from milepost.topology.recognitions import Recognition
from milepost.topology.state import Output
from milepost.topology.steps import Got, Part, run
from tests.support.demo import demo_of
from tests.support.repairing import problems_of, records_at

NOW = instant("2014-02-05T00:00:00Z")


class Tables:
    """A reader that can be told to be restoring."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.restoring = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def stores(self, leg: str, partition: int) -> Any:
        if self.restoring and leg == "measure":
            raise Unavailable(leg, partition, "restoring")
        return self._reader.stores(leg, partition)


@dataclass
class Worker:
    """The worker's services, without a worker."""

    settings: Settings
    reader: Any
    sent: list[Output] = field(default_factory=list)
    said: list[Recognition] = field(default_factory=list)
    noted: list[Mapping[str, Any]] = field(default_factory=list)
    fails: bool = False
    state: Health = field(default_factory=Health)

    patience_s = 0.0
    landings = 0

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.settings.secret())

    @cached_property
    def book(self) -> Book:
        return Book(Doorkeys(self.settings))

    async def note(self, change: Mapping[str, Any]) -> None:
        if self.fails:
            raise SendFailed("no broker")
        self.noted.append(dict(change))

    def now_ms(self) -> int:
        return NOW

    async def gather(self, parts: Sequence[Part], stale_ms: int | None = None) -> list[Got]:
        return [Got(0, run(part.read(self.reader))) for part in parts]

    async def here(self, parts: Sequence[Part], stale_ms: int | None) -> list[Got | Refused]:
        return list(await self.gather(parts))

    async def raw(self, partition: int, offset: int) -> Any:
        log = self.reader.driver.topics["raw-events"][partition]
        return log[offset] if offset < len(log) else None

    async def letters(self, partition: int, offset: int) -> Sequence[Mapping[str, Any]]:
        letters = self.reader.driver.dead_letters
        return [one for one in letters if (one["partition"], one["offset"]) == (partition, offset)]

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        if self.fails:
            raise SendFailed("no broker")
        self.sent.extend(outputs)
        return list(range(100, 100 + len(outputs)))

    async def recognitions(self, companies: Collection[bytes]) -> Sequence[Recognition]:
        return [one for one in self.said if one.subject.company in companies]

    async def problems(self) -> Problems:
        return problems_of(self.reader.driver)

    async def raw_records(self, places: Sequence[int]) -> Sequence[tuple[int, bytes | None]]:
        return records_at(self.reader.driver, places)

    def topology(self) -> Mapping[str, Any]:
        return {"legs": []}

    def status(self) -> Mapping[str, Any]:
        told = {"fates": {"accepted": 7}, "next_offset": {"0": 12}, "lag": {"0": 3}, "restoring": []}
        return {"legs": {"ingest": told}}

    def observed(self) -> Observed:
        return Observed(legs=self.status()["legs"])

    def health(self) -> Health:
        return self.state


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    port: int
    worker: Worker
    loop: asyncio.AbstractEventLoop

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            link.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            got = link.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            link.close()

    def get(self, path: str, **query: str) -> Answer:
        return self.call("GET", f"{path}?{urlencode({name.replace('dim_', 'dim.'): v for name, v in query.items()})}")

    def post(self, body: bytes, content_type: str = "application/json", **headers: str) -> Answer:
        return self.call("POST", "/v1/events", body, Content_Type=content_type, **headers)


def filled() -> Driver:
    """Three airlines, one flight every hour of the first ten days, from origins in turn."""
    driver = Driver(b"a secret of thirty-two bytes long", partitions=3)
    driver.apply("port-authority", demo_bundle(), NOW)
    start = instant("2013-01-01T00:00:00Z")
    for carrier, name in (("UA", "United Air Lines Inc."), ("AA", "American Airlines Inc."), ("DL", "Delta")):
        event = {"org": "port-authority", "source": "registry", "id": carrier, "type": "airline.listed",
                 "time": written(start), "data": {"carrier": carrier, "name": name}}  # fmt: skip
        driver.produce(event, NOW, known_ms=start)
    for i in range(240):
        t_ms = start + i * 3_600_000
        data = {"carrier": ("UA", "AA")[i % 2], "flight": i, "tailnum": f"N{i % 7}", "origin": ("EWR", "JFK", "LGA")[i % 3],
                "dest": ("IAH", "MIA")[i % 5 == 0], "dep_delay": float(i % 60), "distance": 100.0}  # fmt: skip
        event = {"org": "port-authority", "source": "flights", "id": f"f{i}", "type": "flight.departed",
                 "time": written(t_ms), "data": data}  # fmt: skip
        driver.produce(event, NOW, known_ms=t_ms + (3 * 86_400_000 if i == 5 else 0))
    driver.run()
    driver.tick(NOW)
    driver.run()
    return driver


def served(worker: Worker) -> Iterator[Site]:
    """The views on a free port, in a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        app = faust.App("views-test", broker="kafka://127.0.0.1:1", store="memory://")
        attach(app, worker)
        server: Any = app.web
        server.init_server()
        if (close := getattr(worker, "close", None)) is not None:
            server.web_app.on_cleanup.append(lambda _: close())
        runner: web.AppRunner = server._runner
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield Site(port, worker, loop)
    asyncio.run_coroutine_threadsafe(_stop(runner), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _stop(runner: web.AppRunner) -> None:
    await runner.cleanup()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    yield from served(Worker(Settings(home=home), Tables(filled().reader)))


@pytest.fixture
def site(_site: Site) -> Site:
    _site.worker.sent.clear()
    _site.worker.fails, _site.worker.state, _site.worker.reader.restoring = False, Health(), False
    return _site


VALUE = "/v1/metrics/departures/value"


def event(**changes: Any) -> dict[str, Any]:
    return {"org": "port-authority", "source": "flights", "id": "new-1", "type": "flight.departed",
            "time": "2013-01-01T05:17:00Z", "data": {}, **changes}  # fmt: skip


def test_value(site: Site) -> None:
    """A value comes with unit, time, basis, version, finality and completeness."""
    got = site.get(VALUE)
    assert got.status == 200
    assert got.json["value"] == 240 and got.json["unit"] == "flights" and got.json["basis"] == "latest"
    assert got.json["finality"] == "open" and got.json["company"] is None
    assert got.json["complete_to"] == "2013-01-10T23:00:00Z" and len(got.json["version"]) == 16


def test_corrected_and_as_shown(site: Site) -> None:
    """A record that came late counts in the corrected value and not in the one shown then."""
    at = "2013-01-02T00:07:00Z"
    assert site.get(VALUE, at=at).json["value"] == 24
    shown = site.get(VALUE, at=at, basis="as_shown").json
    assert shown["value"] == 23 and shown["at"] == "2013-01-02T00:00:00Z" and shown["shown_lag_ms"] == 0
    assert shown["definition"] == "backfilled"
    assert site.get(VALUE, at="2013-01-05T00:00:00Z", basis="as_shown", window="1d").json["value"] == 24


def test_a_company_by_any_of_its_keys(site: Site) -> None:
    """A MetaKey, a key and a name of one company give one answer, which names the root."""
    by_code = site.get(VALUE, company="carrier_code:UA").json
    by_name = site.get(VALUE, company="airline_name:United Air Lines Inc.").json
    assert by_code == by_name and by_code["value"] == 120
    assert site.get(VALUE, company=by_code["company"]).json == by_code


def test_formula_and_distinct(site: Site) -> None:
    """A ratio is computed at read; aircraft that fly for two airlines count once."""
    assert site.get("/v1/metrics/on_time_rate/value").json["value"] == pytest.approx(64 / 240)
    assert site.get("/v1/metrics/aircraft_in_service/value").json["value"] == 7
    assert site.get("/v1/metrics/cancellations/value").json | {"value": None, "reason": "no_events"} == (
        site.get("/v1/metrics/cancellations/value").json
    )
    assert site.get("/v1/metrics/on_time_rate/value", window="1d").json["reason"] == "division_by_zero"


def test_explain_and_diff(site: Site) -> None:
    """A value is explained by its events, page by page; a difference names what made it."""
    path = "/v1/metrics/departures"
    first = site.get(f"{path}/explain", company="carrier_code:UA", dim_origin="JFK", limit="30").json
    assert first["value"] == first["recomputed"] == 40 and first["agrees"] is True
    rest = site.get(f"{path}/explain", company="carrier_code:UA", dim_origin="JFK", limit="30", next=first["next"]).json
    assert (len(first["rows"]), len(rest["rows"]), rest["next"]) == (30, 10, None)
    assert len({row["id"] for row in first["rows"] + rest["rows"]}) == 40
    assert first["rows"][0]["key"] == "carrier_code:UA" and first["rows"][0]["position"].startswith("raw-events/")
    told = site.get(
        f"{path}/diff", at="2013-01-03T00:00:00Z", basis="corrected", to="2013-01-04T00:00:00Z", to_basis="corrected"
    ).json
    assert told["after"]["value"] - told["before"]["value"] == 24 == told["operands"][0]["causes"]["period"]["sum"]
    assert told["operands"][0]["adds_up"] is True
    assert (
        site.get(f"{path}/explain", next="xyz").status == 422
        and site.get(f"{path}/explain", limit="1001").status == 422
    )


def test_cloudevents_in_every_form(site: Site) -> None:
    """Structured, batch and binary requests are taken like our own form; a wrong one is a problem that says why."""
    one = {"specversion": "1.0", **event(id="ce-1")}
    structured, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
    sent = len(site.worker.sent)
    assert site.post(json.dumps(one).encode(), structured).json["accepted"] == 1
    assert site.post(json.dumps([one, {**one, "id": "ce-2"}]).encode(), batch).json["accepted"] == 2
    attributes = {f"ce_{name}": one[name] for name in ("specversion", "id", "source", "type", "time", "org")}
    assert site.post(json.dumps(one["data"]).encode(), **attributes).json["accepted"] == 1
    keys = [output.key for output in site.worker.sent[sent:]]
    assert len(keys) == 4 and keys[0] == keys[1] == keys[3]
    last = decode.envelope(site.worker.sent[-1].value or b"")
    assert isinstance(last, Envelope) and (last.id, last.data) == ("ce-1", one["data"])
    for body, kind, headers in (
        (json.dumps([one]), structured, {}), (json.dumps(one), batch, {}), (json.dumps(event(id="x")), structured, {}),
        (json.dumps(one["data"]), "text/plain", attributes),
        (json.dumps(one["data"]), "application/json", {**attributes, "ce_specversion": "0.3"}),
    ):  # fmt: skip
        refused = site.post(body.encode(), kind, **headers)
        assert refused.status == 400 and refused.json["title"] == "the request is no CloudEvent"
    nobody = site.post(json.dumps({name: told for name, told in one.items() if name != "org"}).encode(), structured)
    assert nobody.status == 422 and "extension attribute org" in nobody.json["detail"]


def test_the_outcome_of_a_receipt(settings: Settings) -> None:
    """Accepted with its signals, a duplicate of which record, a dead letter with its reason, a misrouted record."""
    driver = filled()
    serving = served(Worker(settings, Tables(driver.reader)))
    try:
        _outcomes(next(serving), driver)
    finally:
        next(serving, None)


def _outcomes(site: Site, driver: Driver) -> None:

    def outcome(at: str) -> Any:
        return site.get(f"/v1/events/{at}").json

    def sent(one: Mapping[str, Any]) -> str:
        partition, offset = driver.produce(one, NOW)
        driver.run()
        return f"raw-events/{partition}@{offset}"

    data = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "dep_delay": 1.0}
    first = sent(event(id="o-1", data=data))
    told = outcome(first)
    assert (told["outcome"], told["first"]) == ("accepted", first) and told["failed_rules"] == []
    assert {one["rule"] for one in told["signals"]} == {"departed", "departed_on_time"}
    assert told["signals"][0]["fields"]["origin"] == "EWR" and told["leaf"].startswith("mk_")
    again = outcome(sent(event(id="o-1", data=data)))
    assert (again["outcome"], again["first"]) == ("duplicate", first)
    dead = outcome(sent(event(id="o-2", data={"carrier": "UA"})))
    assert (dead["outcome"], dead["reason"], dead["stage"]) == ("dead_letter", "contract_violation", "decode")
    conflict = outcome(sent(event(id="o-1", data={**data, "dep_delay": 2.0})))
    assert (conflict["outcome"], conflict["reason"]) == ("dead_letter", "id_conflict")
    offset = driver.append("raw-events", 0, b"any key", json.dumps(event(id="o-3", data=data)).encode(), (), NOW)
    driver.run()
    assert outcome(f"raw-events/0@{offset}")["outcome"] == "misrouted"
    assert site.get("/v1/events/raw-events/9@1").status == 422


def test_series_and_breakdown(site: Site) -> None:
    """Points of a series and rows of a breakdown add up to the value."""
    series = site.get(
        "/v1/metrics/departures/series", **{"from": "2013-01-01T00:00:00Z", "to": "2013-01-11T00:00:00Z", "every": "1d"}
    ).json
    assert [point["value"] for point in series["points"]] == [24] * 10
    rows = site.get("/v1/metrics/departures/breakdown", by="origin").json["rows"]
    assert {row["key"]: row["value"] for row in rows} == {"EWR": 80, "JFK": 80, "LGA": 80}
    rows = site.get("/v1/metrics/departures/breakdown", by="company").json["rows"]
    assert [(row["label"], row["value"]) for row in rows] == [
        (name, 120) for name in sorted(("American Airlines Inc.", "United Air Lines Inc."), key=lambda n: _key(rows, n))
    ]
    both = site.get("/v1/metrics/departures/breakdown", by="dest", dim_origin="JFK").json["rows"]
    assert sum(row["value"] for row in both) == 80
    assert site.get(VALUE, dim_origin="JFK", dim_dest="MIA").json["value"] == 16
    paged = site.get("/v1/metrics/departures/breakdown", by="origin", limit="2").json
    assert len(paged["rows"]) == 2 and paged["next"] == "2"


def _key(rows: list[dict[str, Any]], label: str) -> str:
    return next(str(row["key"]) for row in rows if row["label"] == label)


def test_a_point_is_explained(site: Site) -> None:
    """`from` and `to` stand instead of a window, and the answer says what it read; half of it or both are refused."""
    path = "/v1/metrics/departures/explain"
    told = site.get(path, **{"from": "2013-01-02T00:00:00Z", "to": "2013-01-03T00:00:00Z"}).json
    assert (told["value"], told["recomputed"], told["agrees"], len(told["rows"])) == (24, 24, True, 24)
    assert (told["from"], told["to"]) == ("2013-01-02T00:00:00Z", "2013-01-03T00:00:00Z") and "window" not in told
    assert site.get(path, **{"from": "2013-01-02T00:00:00Z"}).status == 422
    both = site.get(path, window="day", **{"from": "2013-01-02T00:00:00Z", "to": "2013-01-03T00:00:00Z"})
    assert both.status == 422 and "leave window out" in both.json["fix"]


def test_the_record_at_a_position_is_shown_as_it_came(site: Site) -> None:
    """Its very text; of bytes that are no event what is text of them; and that nothing lies behind the log's end."""
    row = site.get("/v1/metrics/departures/explain", limit="1").json["rows"][0]
    told = site.get(f"/v1/events/{row['position']}/record").json
    assert (told["position"], told["form"], told["cut"]) == (row["position"], "json", False)
    assert json.loads(told["text"])["id"] == row["id"] and told["bytes"] == len(told["text"].encode())
    driver: Driver = site.worker.reader.driver
    data = {
        "carrier": "UA",
        "flight": 1,
        "tailnum": "N1",
        "origin": "EWR",
        "dest": "IAH",
        "dep_delay": 1.0,
        "distance": 9.0,
    }
    value = serde.wire("RawEvent").encode({**event(id="avro", data={}), "data": json.dumps(data).encode()})
    shown = {
        content: site.get(
            f"/v1/events/raw-events/0@{driver.append('raw-events', 0, b'k', content, (), NOW)}/record"
        ).json
        for content in (value, b"\xff<script>", b"x" * 70_000)
    }
    assert shown[value]["form"] == "avro" and json.loads(shown[value]["text"])["data"] == data
    assert (shown[b"\xff<script>"]["form"], shown[b"\xff<script>"]["text"]) == ("other", "\ufffd<script>")
    long = shown[b"x" * 70_000]
    assert long["cut"] and len(long["text"]) == 65_536 and long["bytes"] == 70_000
    assert site.get("/v1/events/raw-events/0@999999/record").status == 404
    assert site.get("/v1/events/raw-events/9@1/record").status == 422


def test_companies(site: Site) -> None:
    """Companies are listed by name, searched by any key, and shown with their links."""
    names = [one["name"] for one in site.get("/v1/companies").json["companies"]]
    assert names == ["American Airlines Inc.", "Delta", "United Air Lines Inc."]
    found = site.get("/v1/companies", q="united").json["companies"]
    assert len(found) == 1 and found[0]["keys"] == ["carrier_code:UA", "airline_name:United Air Lines Inc."]
    detail = site.get(f"/v1/companies/{found[0]['metakey']}").json
    assert len(detail["alternate_keys"]) == 2 and len(detail["links"]) == 1
    resolved = site.get("/v1/identity/resolve", entity="company", key="carrier_code", value="UA").json
    assert resolved["metakey"] == found[0]["metakey"]
    assert (resolved["name"], resolved["keys"]) == (found[0]["name"], found[0]["keys"])
    before = site.get("/v1/identity/resolve", key="carrier_code", value="UA", at="2012-01-01T00:00:00Z").json
    assert before["links"] == [] and before["keys"] == ["carrier_code:UA"]
    first = site.get("/v1/companies", limit="1").json
    assert first["next"] == "1" and len(first["companies"]) == 1


def test_metrics_are_listed_with_the_time_they_span(site: Site) -> None:
    """The list of metrics says unit, aggregate, dimensions, and the time of the data."""
    got = site.get("/v1/metrics").json
    assert got["time_range"] == {"from": "2013-01-01T00:00:00Z", "to": "2013-01-10T23:00:00Z"}
    assert {"departures", "departure_delay_sum", "on_time_rate"} <= {one["name"] for one in got["metrics"]}


BAD_QUESTIONS = [
    ("/v1/metrics/departure/value", {}, 404, "departures"),
    ("/v1/metrics/%F0%9F%9B%AB/value", {}, 404, None),
    (VALUE, {"compny": "x"}, 422, "company"),
    (VALUE, {"dim.orgin": "JFK"}, 422, "origin"),
    (VALUE, {"basis": "as_show"}, 422, "as_shown"),
    (VALUE, {"basis": "latest", "at": "2013-01-01T00:00:00Z"}, 422, None),
    (VALUE, {"at": "2013-02-30T00:00:00Z"}, 422, None),
    (VALUE, {"at": "2013-01-01"}, 422, None),
    (VALUE, {"at": "2013-01-01T00:00:60Z"}, 422, None),
    (VALUE, {"at": "1356998400"}, 422, None),
    (VALUE, {"window": "fortnight"}, 422, None),
    (VALUE, {"window": "monht"}, 422, "month"),
    (VALUE, {"window": "3661d"}, 422, None),
    (VALUE, {"window": "0d"}, 422, None),
    (VALUE, {"window": "10m"}, 422, None),
    (VALUE, {"window": "-1d"}, 422, None),
    (VALUE, {"window": "9" * 500 + "d"}, 422, None),
    (VALUE, {"tz": "Europe/Berln"}, 422, "Europe/Berlin"),
    (VALUE, {"tz": "../../etc/passwd"}, 422, None),
    (VALUE, {"tz": "Europe"}, 422, None),
    (VALUE, {"tz": "\x00"}, 422, None),
    (VALUE, {"tz": "Africa/Monrovia", "window": "year", "at": "1965-06-01T00:00:00Z"}, 422, None),
    (VALUE, {"company": "carrier_code:UB"}, 404, "carrier_code:UA"),
    (VALUE, {"company": "carrier_cod:UA"}, 404, "carrier_code:UA"),
    (VALUE, {"company": "UA"}, 404, None),
    (VALUE, {"company": "mk_nonsense"}, 404, None),
    (VALUE, {"company": "mk_" + "a" * 26}, 404, None),
    (VALUE, {"org": "port-authorty"}, 404, "port-authority"),
    (VALUE, {"company": "x" * 2000}, 422, None),
    ("/v1/metrics/departures/series", {}, 422, None),
    ("/v1/metrics/departures/series", {"from": "2013-01-01T00:07:00Z"}, 422, None),
    ("/v1/metrics/departures/series", {"from": "2013-01-01T00:00:00Z", "every": "15m"}, 422, None),
    ("/v1/metrics/departures/series", {"from": "2013-01-01T00:00:00Z", "every": "fortnight"}, 422, None),
    ("/v1/metrics/departures/series", {"from": "2015-01-01T00:00:00Z", "to": "2014-01-01T00:00:00Z"}, 422, None),
    ("/v1/metrics/departures/breakdown", {}, 422, None),
    ("/v1/metrics/departures/breakdown", {"by": "orign"}, 422, "origin"),
    ("/v1/metrics/departures/breakdown", {"by": "origin", "dim.origin": "JFK"}, 422, None),
    ("/v1/metrics/departures/breakdown", {"by": "origin", "limit": "1001"}, 422, None),
    ("/v1/companies", {"next": "-1"}, 422, None),
    ("/v1/companies/mk_x", {}, 404, None),
    ("/v1/identity/resolve", {"key": "carrier_code"}, 422, None),
    ("/v1/identity/resolve", {"key": "carrier_code", "value": "??"}, 404, None),
    ("/v1/identity/resolve", {"entity": "compny", "key": "a", "value": "b"}, 404, "company"),
    ("/nowhere", {}, 404, None),
    ("/table", {}, 404, None),
    ("/router", {}, 404, None),
    ("/graph", {}, 404, None),
    ("/page/../services.py", {}, 404, None),
    ("/page/..%2f..%2fservices.py", {}, 404, None),
]


@pytest.mark.parametrize(("path", "query", "status", "guess"), BAD_QUESTIONS)
def test_a_bad_question_ends_as_a_problem(
    site: Site, path: str, query: dict[str, str], status: int, guess: str | None
) -> None:
    """Whatever is wrong with a question, the answer is a problem with status, title, detail and often a guess."""
    got = site.call("GET", f"{path}?{urlencode(query, quote_via=quote)}")
    assert got.status == status, got.body
    assert got.headers["content-type"].startswith("application/problem+json")
    assert got.json["status"] == status and got.json["title"] and got.json["detail"]
    if guess is not None:
        assert got.json["guess"] == guess


def test_a_parameter_twice_is_refused(site: Site) -> None:
    """A parameter that is given twice is refused: which one would count?"""
    assert site.call("GET", f"{VALUE}?basis=latest&basis=corrected").status == 422


def test_a_wrong_method_is_a_problem(site: Site) -> None:
    """A method that a path does not take is a 405 problem."""
    for method, path in (("DELETE", VALUE), ("GET", "/v1/events"), ("HEAD", "/v1/events"), ("PUT", "/")):
        assert site.call(method, path).status == 405


def test_malformed_http_is_a_problem(site: Site) -> None:
    """What is no HTTP at all still ends as a problem, and the worker lives."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n")
        got = link.recv(65536)
    assert b" 400 " in got.split(b"\r\n")[0] and b"application/problem+json" in got
    assert site.get("/healthz").status == 200


def test_events_are_placed_and_acknowledged(site: Site) -> None:
    """One event, an array and NDJSON are appended as they came, each with a receipt."""
    one = json.dumps(event()).encode()
    got = site.post(one)
    assert got.status == 202 and got.json["accepted"] == 1
    assert site.worker.sent[0].value == one
    assert got.json["items"][0]["receipt"] == f"raw-events/{site.worker.sent[0].partition}@100"
    many = json.dumps([event(id="a"), event(id="b"), event(id="a")]).encode()
    got = site.post(many)
    assert [row["status"] for row in got.json["items"]] == ["accepted", "accepted", "duplicate"]
    lines = b"\n".join(json.dumps(event(id=name)).encode() for name in "xyz") + b"\n\n"
    got = site.post(lines, "application/x-ndjson")
    assert got.json["accepted"] == 3 and len(site.worker.sent) == 6


def test_an_event_that_was_taken_before_is_a_duplicate(site: Site) -> None:
    """The owner of the partition knows an event that it has taken, and answers duplicate."""
    known = site.worker.reader.driver.topics["raw-events"]
    value = next(m.value for log in known for m in log if m.value is not None and b'"f17"' in m.value)
    assert site.post(value).json["items"][0]["status"] == "duplicate"


def test_only_what_cannot_be_keyed_is_rejected(site: Site) -> None:
    """An item without identity is rejected beside its neighbours; a wrong contract is not the gateway's matter."""
    bodies = [
        event(id=""),
        event(org=None),
        event(id="x" * 257),
        event(source=7),
        {"type": "x"},
        [],
        event(type="no.such"),
    ]
    got = site.post(json.dumps(bodies).encode())
    assert got.status == 202
    assert [row["status"] for row in got.json["items"]] == ["rejected"] * 6 + ["accepted"]
    assert all(row["problem"]["detail"] for row in got.json["items"][:6])


NO_EVENTS = [
    (b"", "application/json", 400),
    (b"   ", "application/json", 400),
    (b"not json", "application/json", 400),
    (b'{"org": ', "application/json", 422),
    (b"[" * 1_048_576, "application/json", 400),
    (b'{"data":' + b"[" * 1_000_000, "application/json", 422),
    (b"[]", "application/json", 422),
    (b"[1, 2]", "application/json", 422),
    (b'["a"', "application/json", 400),
    (b"\xff\xfe{\x00}\x00", "application/json", 400),
    (b'{"org":"\xed\xa0\x80","source":"s","id":"i"}', "application/json", 422),
    (b'{"org":"\\ud800","source":"s","id":"i"}', "application/json", 422),
    (b"nonsense\nmore", "application/x-ndjson", 422),
    (b"{}", "text/plain", 415),
    (b"{}", "application/xml", 415),
    (b'{"org":"o","source":"s","id":"i","revision":-1}', "application/json", 422),
    (b'{"org":"o","source":"s","id":"i","revision":99999999999999999999}', "application/json", 422),
    (b'{"org":"o","source":"s","id":"i","x":"' + b"y" * 1_100_000 + b'"}', "application/json", 413),
    (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413),
]


@pytest.mark.parametrize(("body", "content_type", "status"), NO_EVENTS, ids=range(len(NO_EVENTS)))
def test_a_body_without_events_is_a_problem(site: Site, body: bytes, content_type: str, status: int) -> None:
    """Whatever is sent that holds no event, the answer is a 4xx problem and nothing is appended."""
    got = site.post(body, content_type)
    assert got.status == status, got.body[:300]
    assert got.headers["content-type"].startswith("application/problem+json") and not site.worker.sent


def test_a_body_beyond_16_mib_is_refused(site: Site) -> None:
    """A body that says it is larger than 16 MiB is refused before it is read."""
    link = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    link.putrequest("POST", "/v1/events")
    link.putheader("Content-Type", "application/json")
    link.putheader("Content-Length", str(17 * 1024 * 1024))
    link.endheaders()
    got = link.getresponse()
    assert got.status == 413 and got.headers["Content-Type"].startswith("application/problem+json")
    link.close()


def test_a_broker_that_does_not_acknowledge_is_a_503(site: Site) -> None:
    """When the broker does not acknowledge, no event is answered as accepted."""
    site.worker.fails = True
    got = site.post(json.dumps(event()).encode())
    assert got.status == 503 and got.headers["retry-after"] == "1"


def test_restoring_is_a_503_and_never_a_part(site: Site) -> None:
    """While a partition that the answer needs is restored, there is no answer."""
    site.worker.reader.restoring = True
    for path in (VALUE, "/v1/metrics/departures/breakdown?by=company", "/v1/metrics"):
        got = site.call("GET", path)
        assert got.status == 503 and got.headers["retry-after"] == "1"
    site.worker.state = Health(restoring=("measure/1",))
    assert site.get("/readyz").json["reasons"] == ["measure/1 is being restored"]
    site.worker.state = Health(ingest_lag_ms=25 * 3_600_000)
    assert site.get("/readyz").status == 503 and site.get("/healthz").status == 200


def test_foreign_hosts_and_pages_are_refused(site: Site) -> None:
    """A request under another host's name, or from another page, is refused."""
    body = json.dumps(event()).encode()
    assert site.post(body, Host="evil.example:80").status == 421
    assert site.call("GET", VALUE, None, Host="evil.example").status == 421
    assert site.post(body, Origin="http://evil.example").status == 403
    assert site.post(body, Origin="null").status == 403
    assert site.post(body, Origin=f"http://127.0.0.1:{site.port}").status == 202
    assert site.post(body, Host="[::1]:6066").status == 202


def test_headers_close_the_doors(site: Site) -> None:
    """Every answer carries the content policy and forbids sniffing; data is not stored."""
    for path in (VALUE, "/nowhere", "/", "/metrics"):
        got = site.call("GET", path)
        policy = got.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "*" not in policy and ":" not in policy and got.headers["referrer-policy"] == "no-referrer"
        assert got.headers["x-content-type-options"] == "nosniff"
    assert site.get(VALUE).headers["cache-control"] == "no-store"


def test_the_page_is_served_with_its_tag(site: Site) -> None:
    """The page's files are served with an ETag and asked for again each time."""
    got = site.call("GET", "/")
    assert got.status == 200 and got.headers["content-type"].startswith("text/html")
    assert got.headers["cache-control"] == "no-cache"
    assert site.call("GET", "/", None, If_None_Match=got.headers["etag"]).status == 304
    script = site.call("GET", "/page/main.js")
    assert script.status == 200 and script.headers["content-type"].startswith("text/javascript")
    assert site.call("HEAD", "/").status == 200


def bundle_body(org: str = "port-authority", old: str = "", new: str = "", **more: Any) -> bytes:
    files = {name: text.decode() for name, text in demo_of(org).items()}
    files["milepost.yaml"] = files["milepost.yaml"].replace(old, new, 1)
    return json.dumps({"org": org, "files": files, **more}).encode()


def define(site: Site, call: str, body: bytes, content_type: str = "application/json") -> Answer:
    return site.call("POST", f"/v1/definitions:{call}", body, Content_Type=content_type)


def test_a_plan_says_what_a_bundle_would_change(site: Site) -> None:
    """Against the bundle in force nothing, against nothing everything; a changed rule with what it touches."""
    assert define(site, "plan", bundle_body()).json["changes"] == []
    assert {one["how"] for one in define(site, "plan", bundle_body("another")).json["changes"]} == {"added"}
    got = define(site, "plan", bundle_body(old="<= 15.0", new="<= 30.0"))
    assert got.status == 200 and got.json["kept"]["metric"] >= 5
    (rule,) = [one for one in got.json["changes"] if one["what"] == "signal"]
    touched = ["metric on_time_departures", "metric on_time_rate", "milestone punctual_month", "plan on_time_2013"]
    assert rule["how"] == "changed" and rule["touches"] == touched
    assert "because of signal departed_on_time" in got.json["text"]


def test_an_apply_is_the_commands_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle goes to the same function; a broker that does not take it is a 503 that says to send again."""
    given: list[tuple[str, str]] = []

    def applied(settings: Settings, files: Mapping[str, bytes], org: str) -> AppliedReport:
        given.append((org, bundle_id(files).hex()))
        return AppliedReport(org=org, bundle=bundle_id(files).hex(), attempt="ab", changed=True, partitions=3)

    monkeypatch.setattr("milepost.agents.views.definitions.apply_bundle", applied)
    got = define(site, "apply", bundle_body())
    assert got.status == 200 and got.json["changed"] and given == [("port-authority", got.json["bundle"])]

    def refused(*_: Any) -> AppliedReport:
        raise StoreError("no broker")

    monkeypatch.setattr("milepost.agents.views.definitions.apply_bundle", refused)
    assert define(site, "apply", bundle_body()).status == 503


def test_an_earlier_bundle_is_planned_and_applied_out_of_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rollback` and `to` name a bundle as the command does; it passes the same checks, and what came beside it is none."""
    asked: list[tuple[str, int, str]] = []
    log = {name: text.encode() for name, text in json.loads(bundle_body(new="", old=""))["files"].items()}
    log["milepost.yaml"] = log["milepost.yaml"].replace(b"<= 15.0", b"<= 30.0")

    def earlier(_: Settings, org: str, *, back: int = 1, to: str = "") -> dict[str, bytes]:
        asked.append((org, back, to))
        if back > 2:
            raise DeclarationError("at most 2 bundles can be taken back")
        if to == "00":
            raise StoreError("no broker")
        return {**log, "milepost.yaml": b"signals: {}\nmetrics: {m: {}}"} if to == "bad" else log

    def applied(_: Settings, files: Mapping[str, bytes], org: str) -> AppliedReport:
        return AppliedReport(org=org, bundle=bundle_id(files).hex(), attempt="ab", changed=True, partitions=3)

    monkeypatch.setattr("milepost.agents.views.definitions.earlier_bundle", earlier)
    monkeypatch.setattr("milepost.agents.views.definitions.apply_bundle", applied)

    def going(call: str, **named: Any) -> Answer:
        return define(site, call, json.dumps({"org": "port-authority", **named}).encode())

    (rule,) = [one for one in going("plan", rollback=1).json["changes"] if one["what"] == "signal"]
    assert (rule["name"], rule["how"]) == ("departed_on_time", "changed")
    assert going("apply", rollback=2).json["bundle"] == going("apply", to="5f").json["bundle"] == bundle_id(log).hex()
    assert asked == [("port-authority", 1, ""), ("port-authority", 2, ""), ("port-authority", 1, "5f")]
    for call in ("plan", "apply"):
        assert going(call, to="bad").json["findings"] and going(call, rollback=3).status == 422
        assert going(call, to="00").status == 503
        for wrong in ({"rollback": 0}, {"rollback": 33}, {"rollback": 1, "to": "5f"}, {"to": ""}, {}):
            assert going(call, **wrong).status == 422 and "rollback" in going(call, **wrong).json["fix"]
        both = json.dumps({**json.loads(bundle_body()), "rollback": 1}).encode()
        assert "files and rollback came" in define(site, call, both).json["detail"]
    schema = site.get("/openapi.json").json["components"]["schemas"]["Bundle"]
    assert set(schema["properties"]) == {"org", "files", "rollback", "to"} and schema["required"] == ["org"]


@pytest.mark.parametrize("call", ["plan", "apply"])
def test_definitions_that_do_not_hold_are_a_problem_with_findings(site: Site, call: str) -> None:
    """Every finding with file, line, column, guess and fix; a body that is no bundle says what one is."""
    got = define(site, call, bundle_body(old="on: flight.cancelled", new="on: flight.canceled"))
    assert got.status == 422 and got.json["guess"] == "flight.cancelled" and got.json["type"] == "/problems/definitions"
    (finding,) = got.json["findings"]
    assert (finding["file"], finding["guess"]) == ("milepost.yaml", "flight.cancelled") and finding["line"] > 1
    for body in (b"{}", b"[", b'{"org": "a", "files": {"milepost.yaml": 1}}', bundle_body(more=1)):
        assert define(site, call, body).status == 422 and "files" in define(site, call, body).json["fix"]
    assert define(site, call, bundle_body("x" * 257)).status == 422
    assert define(site, call, bundle_body(), "text/yaml").status == 415
    assert define(site, call, b" " * (2**21 + 1)).status == 413


def test_openapi_lists_every_route(site: Site) -> None:
    """The description of the interface holds every path with its parameters."""
    got = site.get("/openapi.json").json
    assert set(got["paths"]["/v1/metrics/{metric}/value"]["get"]) >= {"operationId", "parameters", "responses"}
    assert "/v1/events" in got["paths"] and got["openapi"].startswith("3.1")
    assert "202" in got["paths"]["/v1/events"]["post"]["responses"]
    assert "200" in got["paths"]["/v1/definitions:plan"]["post"]["responses"]


def test_operations(site: Site) -> None:
    """Digest, topology, status, dead letters and telemetry answer."""
    assert site.get("/v1/digest").json == digest(site.worker.reader)
    assert site.get("/v1/topology").status == site.get("/v1/status").status == site.get("/readyz").status == 200
    assert site.get("/v1/dead-letters", limit="2").json == {"problems": [], "next": None}
    text = site.get("/metrics").body.decode()
    assert 'milepost_http_answers_total{method="GET",route="/v1/digest",status="200"}' in text
    assert 'milepost_records_total{fate="accepted",leg="ingest"} 7.0' in text
    assert 'milepost_lag_records{leg="ingest",partition="0"} 3.0' in text
    assert 'milepost_records_total{fate="accepted",leg="ingest"} 7.0' in site.get("/metrics").body.decode()
    assert "nowhere" not in text


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path, site: Site) -> None:
    """With a token nothing but the probes answers without it."""
    worker = replace(site.worker, settings=Settings(home=tmp_path, token="0123456789abcdef"))
    guarded = served(worker)
    other = next(guarded)
    assert other.get(VALUE).status == 401 and other.get("/healthz").status == 200
    assert other.call("GET", VALUE, None, Authorization="Bearer wrong").status == 401
    assert other.call("GET", VALUE, None, Authorization="Bearer 0123456789abcdef").status == 200
    assert next(guarded, None) is None
