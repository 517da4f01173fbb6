"""Questions across workers, over HTTP: the same answers from whichever worker is asked, or a 503, and nobody else is told.

Two workers share the tables of one driver by partition; the broker, and so the group, is only their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from milepost.agents import gathering, peers
from milepost.agents.breathing import answered
from milepost.agents.gathering import Gathering
from milepost.agents.lease import Lease
from milepost.agents.peers import Peers, Refused, Sealer
from milepost.agents.views import asking
from milepost.ops.settings import Settings
from milepost.topology.digest import digest
from milepost.topology.parts import FirstDay, Sums, Told
from milepost.topology.questions import Question, Questions
from milepost.topology.reading import Unavailable
from milepost.topology.steps import Got, Part, gather, run
from tests.agents.test_views import NOW, Site, Tables, Worker, filled, served

SECRET = "a secret that only tests use"
ASKED = (
    ("/v1/metrics/departures/value", {}),
    ("/v1/metrics/departures/value", {"company": "carrier_code:UA", "dim.origin": "EWR"}),
    ("/v1/metrics/departures/value", {"at": "2013-01-04T00:00:00Z", "basis": "as_shown"}),
    ("/v1/metrics/aircraft_in_service/value", {}),
    ("/v1/metrics/departures/series", {"from": "2013-01-01T00:00:00Z", "to": "2013-01-08T00:00:00Z"}),
    ("/v1/metrics/departures/breakdown", {"by": "company"}),
    ("/v1/metrics/departures/breakdown", {"by": "origin", "company": "carrier_code:AA"}),
    ("/v1/metrics/departures/explain", {"company": "carrier_code:UA", "limit": "7"}),
    ("/v1/metrics/on_time_rate/explain", {"dim.origin": "EWR", "limit": "3"}),
    ("/v1/metrics/departures/diff", {"at": "2013-01-04T00:00:00Z", "limit": "4"}),
    ("/v1/metrics", {}),
    ("/v1/companies", {}),
    ("/v1/companies/carrier_code:UA", {}),
    ("/v1/identity/resolve", {"key": "carrier_code", "value": "DL"}),
    ("/v1/digest", {}),
    ("/v1/metrics/departures/value", {"company": "carrier_code:nobody"}),
)


class Share(Tables):
    """The partitions of one worker."""

    def __init__(self, reader: Any, numbers: set[int]) -> None:
        super().__init__(reader)
        self.numbers = numbers
        self.epochs: Mapping[int, int] = {}

    def epoch(self, leg: str, partition: int) -> int:
        if partition not in self.numbers:
            raise Unavailable(leg, partition, "not with this worker")
        return self.epochs.get(partition, 7)

    def stores(self, leg: str, partition: int) -> Any:
        self.epoch(leg, partition)
        return super().stores(leg, partition)

    def reached(self, leg: str, partition: int) -> Any:
        self.epoch(leg, partition)
        return self._reader.reached(leg, partition)

    def progress(self, partition: int) -> Any:
        self.epoch("measure", partition)
        return self._reader.progress(partition)


@dataclass
class Member(Worker):
    """A worker of a group of two."""

    url: str = ""
    owners: dict[int, str] = field(default_factory=dict)
    lease: Lease | None = None
    turn: asyncio.Lock | None = None
    peers: Peers = field(default_factory=lambda: Peers(SECRET.encode()))

    async def close(self) -> None:
        await self.peers.close()

    @property
    def gathering(self) -> Gathering:
        return Gathering(
            self.reader,
            lambda: self.lease,
            self.peers,
            lambda _leg, _partition: self.turn,
            lambda _leg, partition: None if self.owners[partition] == self.url else self.owners[partition],
            lambda: sorted({one for one in self.owners.values() if one != self.url}),
        )

    @property
    def sealer(self) -> Sealer:
        return self.peers.seal

    async def gather(self, parts: Sequence[Part], stale_ms: int | None = None) -> list[Got]:
        return await self.gathering.read(parts, stale_ms)

    async def here(self, parts: Sequence[Part], stale_ms: int | None) -> list[Got | Refused]:
        return await self.gathering.here(parts, stale_ms)


@dataclass
class Pair:
    whole: Site
    sites: tuple[Site, Site]

    @property
    def members(self) -> list[Member]:
        return [one.worker for one in self.sites if isinstance(one.worker, Member)]


@pytest.fixture(scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    reader = filled().reader
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    shares = ({0, 2}, {1})
    makers = [served(Member(settings, Share(reader, set(share)))) for share in shares]
    sites = (next(makers[0]), next(makers[1]))
    whole = served(Worker(settings, Tables(reader)))
    yield Pair(next(whole), sites)
    for one in (*makers, whole):
        next(one, None)


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    owners = {}
    for site, share in zip(_pair.sites, ({0, 2}, {1}), strict=True):
        member = site.worker
        assert isinstance(member, Member)
        member.url, member.lease, member.peers.seal = f"http://127.0.0.1:{site.port}", None, Sealer(SECRET.encode())
        member.reader.numbers, member.reader.epochs, member.reader.restoring = set(share), {}, False
        owners |= dict.fromkeys(share, member.url)
    for member in _pair.members:
        member.owners = dict(owners)
    return _pair


@pytest.mark.parametrize(("path", "query"), ASKED)
def test_any_worker_answers_as_one_that_has_everything(pair: Pair, path: str, query: dict[str, str]) -> None:
    """Every question, asked of either of two workers that share the partitions, is answered as by one that has all."""
    wanted = pair.whole.get(path, **query)
    for site in pair.sites:
        got = site.get(path, **query)
        assert (got.status, got.json) == (wanted.status, wanted.json)
    assert wanted.status == (404 if "nobody" in str(query) else 200)


def test_any_worker_waits_for_what_a_receipt_stands_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `after` the answer is the same from either worker once the receipt is included, and else a 503."""
    monkeypatch.setattr(asking, "INCLUDED_S", 0.2)
    path = "/v1/metrics/departures/value"
    for partition in range(3):
        end, _ = pair.whole.worker.reader.reached("ingest", partition)
        for site in (pair.whole, *pair.sites):
            got = site.get(path, after=f"raw-events/{partition}@{end - 1}")
            assert (got.status, got.json["value"]) == (200, 240)
            late = site.get(path, after=f"raw-events/{partition}@{end}")
            assert late.status == 503 and late.headers["retry-after"] and late.json["type"] == "/problems/late"
    for site in pair.sites:
        refused = [site.get(path, after="raw-events/9@1"), site.get(path, after="raw-events/0@1", stale_ms="5")]
        assert [one.status for one in refused] == [422, 422]


def test_the_digest_across_workers_is_the_drivers(pair: Pair) -> None:
    """The digest of shared tables is that of the pure run."""
    assert pair.sites[1].get("/v1/digest").json == digest(pair.whole.worker.reader)


def test_what_nobody_has_is_a_503(pair: Pair) -> None:
    """A partition that its owner has not open, or that has no worker at its address, is a 503 for every worker."""
    pair.members[1].reader.numbers = set()
    for site in pair.sites:
        got = site.get("/v1/metrics/departures/value")
        assert got.status == 503 and got.headers["retry-after"] and got.json["type"] == "/problems/unavailable"
    pair.members[1].reader.numbers = {1}
    pair.members[0].owners[1] = "http://127.0.0.1:1"
    assert pair.sites[0].get("/v1/metrics/departures/value").status == 503
    assert pair.sites[1].get("/v1/metrics/departures/value").status == 200


def test_an_owner_without_a_lease_says_nothing(pair: Pair) -> None:
    """A worker that the broker may have given up answers neither clients nor workers, unless its age is allowed."""
    clock = [0.0]
    lease = Lease(6.0, lambda: clock[0])
    lease.renewed(0.0)
    pair.members[1].lease = lease
    assert [site.get("/v1/metrics/departures/value").status for site in pair.sites] == [200, 200]
    clock[0] = 20.0
    for site in pair.sites:
        assert site.get("/v1/metrics/departures/value").status == 503
        assert site.get("/v1/metrics/departures/value", stale_ms="19000").status == 503
        got = site.get("/v1/metrics/departures/value", stale_ms="21000").json
        assert got["value"] == 240 and got["lag_ms"] == 20_000


def test_a_lease_that_ends_while_the_tables_are_read_voids_what_was_read(pair: Pair) -> None:
    """A process that is stopped in the middle of an answer and goes on a minute later does not give it."""
    clock = [0.0]
    lease = Lease(6.0, lambda: clock[0])
    lease.renewed(0.0)
    member = pair.members[1]
    member.lease = lease

    class Sleepy(FirstDay):
        def read(self, reader: Any) -> Any:
            found = yield from super().read(reader)
            clock[0] += 60.0
            return found

    part = Sleepy(partition=1, version=bytes(8))
    (got,) = asyncio.run(member.gathering.here([part]))
    assert isinstance(got, Refused) and "not heard of late" in got.why
    clock[0] = 0.0
    (got,) = asyncio.run(member.gathering.here([FirstDay(partition=1, version=bytes(8))]))
    assert got == Got(7, None)


def test_a_fold_that_cannot_write_makes_no_question_wait_for_ever(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a slice waits for the broker, its partition is unavailable; read, it keeps the fold out."""
    monkeypatch.setattr(gathering, "TURN_S", 0.05)
    member = pair.members[1]
    part = FirstDay(partition=1, version=bytes(8))

    class Looking(FirstDay):
        def read(self, reader: Any) -> Any:
            assert member.turn is not None and member.turn.locked()
            return (yield from super().read(reader))

    async def body() -> None:
        member.turn = asyncio.Lock()
        async with member.turn:
            (got,) = await member.gathering.here([part])
            assert isinstance(got, Refused) and "waiting to write" in got.why
        assert await member.gathering.here([Looking(partition=1, version=bytes(8))]) == [Got(7, None)]
        assert not member.turn.locked()

    try:
        asyncio.run(body())
    finally:
        member.turn = None


def test_parts_of_two_ownerships_are_not_put_together(pair: Pair) -> None:
    """When a partition changes hands between two parts of a question, the question is asked anew."""
    reader = pair.whole.worker.reader
    epochs = iter((7, 8))

    async def read(parts: Sequence[Part]) -> list[Got]:
        return [Got(next(epochs), run(one.read(reader))) for one in parts]

    def steps() -> Any:
        yield from gather(reader, [Told(partition=0)])
        yield from gather(reader, [Told(partition=0)])

    with pytest.raises(Unavailable, match="handed over"):
        asyncio.run(answered(steps(), read))


def test_stale_ms_is_a_number_of_milliseconds(pair: Pair) -> None:
    """Anything else is refused, and an answer that may lag says by how much it does."""
    assert pair.sites[0].get("/v1/metrics/departures/value", stale_ms="soon").status == 422
    assert pair.sites[0].get("/v1/metrics/departures/value", stale_ms="5000").json["lag_ms"] == 0
    assert "lag_ms" not in pair.sites[0].get("/v1/metrics/departures/value").json


BODY = peers.dump_parts([Told(partition=1)], None)


@pytest.mark.parametrize(
    ("seal", "body"),
    [
        ("", BODY),
        ("00" * 32, BODY),
        (Sealer(b"another deployment's secret")(peers.PATH.encode(), BODY), BODY),
        (Sealer(SECRET.encode())(peers.PATH.encode(), BODY), BODY + b"\0"),
        (Sealer(SECRET.encode())(b"/elsewhere", BODY), BODY),
        (Sealer(SECRET.encode())(peers.PATH.encode(), b"\xc1"), b"\xc1"),
        (Sealer(SECRET.encode())(peers.PATH.encode(), b""), b""),
    ],
)
def test_a_foreigner_is_told_nothing(pair: Pair, seal: str, body: bytes) -> None:
    """Without the deployment's seal on exactly this body the answer is a 403 without content of the tables."""
    got = pair.sites[1].call("POST", peers.PATH, body, **{peers.SEAL: seal})
    assert got.status == 403 and got.headers["content-type"].startswith("application/problem+json")


def test_a_sealed_question_is_answered_under_its_own_seal(pair: Pair) -> None:
    """The answer's seal covers the question's: an answer to another question does not pass."""
    sealer = Sealer(SECRET.encode())
    seal = sealer(peers.PATH.encode(), BODY)
    got = pair.sites[1].call("POST", peers.PATH, BODY, **{peers.SEAL: seal})
    assert got.status == 200
    sealer.check(got.headers[peers.SEAL.lower()], seal.encode(), got.body)
    with pytest.raises(peers.Forged):
        sealer.check(got.headers[peers.SEAL.lower()], ("0" + seal[1:]).encode(), got.body)
    (answer,) = peers.load_answers([Told(partition=1)], got.body)
    assert isinstance(answer, Got) and answer.epoch == 7 and len(answer.value) == 3
    assert pair.sites[1].call("GET", peers.PATH).status == 405
    assert peers.PATH not in pair.sites[1].get("/openapi.json").json["paths"]


def test_an_impostor_at_the_owners_address_is_not_believed(pair: Pair) -> None:
    """A process that answers at the owner's address without the deployment's secret makes a 503, not a number."""
    pair.members[1].peers.seal = Sealer(b"the secret of somebody else")
    assert pair.sites[0].get("/v1/metrics/departures/value").status == 503


def test_unknown_parts_and_wrong_fields_are_refused() -> None:
    """What is asked is decoded against the parts there are; nothing else can be named."""
    for body in (
        msgspec.msgpack.encode([None, [["Secrets", {}]]]),
        msgspec.msgpack.encode([None, [["Told", {"partition": "x"}]]]),
        msgspec.msgpack.encode([None, [["Sums", {"partition": 1}]]]),
        msgspec.msgpack.encode({"parts": []}),
    ):
        with pytest.raises(peers.Forged):
            peers.load_parts(body)


def test_every_kind_of_part_survives_the_way() -> None:
    """Parts and what they hold are the same after being sent: every question over parts that were packed and unpacked
    is answered as without."""
    reader = filled().reader
    met: set[str] = set()

    async def through(parts: Sequence[Part]) -> list[Got]:
        sent, _ = peers.load_parts(peers.dump_parts(parts, None))
        assert sent == list(parts)
        answers = [Got(0, run(one.read(reader))) for one in sent]
        met.update(type(one).__name__ for one in parts)
        return [one for one in peers.load_answers(parts, peers.dump_answers(sent, answers)) if isinstance(one, Got)]

    questions = Questions(reader)
    for metric in run(questions.metrics())["metrics"]:
        for company in (None, "carrier_code:UA"):
            question = Question(metric=metric["name"], now_ms=NOW, company=company)
            assert asyncio.run(answered(questions.value(question), through)) == (run(questions.value(question)), 0)
            if company is None:
                asked = questions.breakdown(question, "company")
                assert asyncio.run(answered(asked, through))[0] == run(questions.breakdown(question, "company"))
    assert asyncio.run(answered(questions.companies().all(), through))[0] == run(questions.companies().all())
    assert {"Sums", "Told", "KeyRows", "CompanyKeys", "Leaves"} <= met


def test_a_worker_that_leaves_out_the_others_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: a gathering that answers from this worker's partitions alone gives other numbers."""
    wanted = pair.whole.get("/v1/metrics/departures/value").json["value"]
    whole = Gathering.read

    async def own(self: Gathering, parts: Sequence[Part], stale_ms: int | None = None) -> list[Got]:
        got = []
        for one in parts:
            mine = self._place(one) is None
            empty: Any = {} if isinstance(one, Sums | Told) else None
            got += await whole(self, [one], stale_ms) if mine else [Got(-1, empty)]
        return got

    monkeypatch.setattr(Gathering, "read", own)
    found = [site.get("/v1/metrics/departures/value").json["value"] for site in pair.sites]
    assert found != [wanted, wanted]


def test_peers_do_not_follow_elsewhere(tmp_path: Path) -> None:
    """An answer that sends on to another address, or that is no answer, is Unavailable."""

    async def ask() -> None:
        async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1024)
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(moved, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asking = Peers(SECRET.encode())
        try:
            await asking.ask(f"http://127.0.0.1:{port}", [Told(partition=0)], None)
        finally:
            await asking.close()
            server.close()

    with pytest.raises(Unavailable) as met:
        asyncio.run(ask())
    assert not isinstance(met.value.__cause__, aiohttp.TooManyRedirects)
