"""The doors: who comes in, on every route of the table, and what attackers try.

table of routes x {no token, wrong role, revoked, expired, another organisation, a foreign page, a foreign name}
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from milepost.agents.views import SendFailed
from milepost.agents.views.openapi import EVERYBODY, Route
from milepost.ops.access import ALL, Role
from milepost.ops.apply import demo_bundle
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from milepost.topology.bases import instant, written
from milepost.topology.driver import Driver
from tests.agents.test_stream import Stream
from tests.agents.test_views import NOW, VALUE, Answer, Site, Tables, Worker, event, filled, served
from tests.support.doors import call, revoking, table, token

CANARY = "Canary of the other organisation"
ROUTES = [one for one in table() if one.role != EVERYBODY]
BY_NAME = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
HOST = "metrics.example.org"


def two() -> Driver:
    """The airlines of `port-authority`, and those of `rival`, each of which has a name that only it knows."""
    driver = filled()
    driver.apply("rival", demo_bundle(), NOW)
    start = instant("2013-01-01T00:00:00Z")
    for carrier in ("UA", "AA"):
        listed = {"org": "rival", "source": "registry", "id": carrier, "type": "airline.listed",
                  "time": written(start), "data": {"carrier": carrier, "name": f"{CANARY} {carrier}"}}  # fmt: skip
        driver.produce(listed, NOW, known_ms=start)
        data = {"carrier": carrier, "flight": 1, "tailnum": "N1", "origin": "EWR", "dest": "IAH", "dep_delay": 1.0,
                "distance": 1.0}  # fmt: skip
        driver.produce(event(org="rival", id=f"r{carrier}", data=data), NOW, known_ms=start + 86_400_000)
    for org, name in (("rival", CANARY), ("port-authority", "United Air Lines")):  # a problem of each
        driver.produce(event(org=org, id="bad", data={"carrier": 7, "tailnum": name}), NOW, known_ms=start + 86_400_000)
    driver.run()
    driver.tick(NOW)
    driver.run()
    return driver


@pytest.fixture(scope="module")
def _shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, str]]]:
    worker = Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(two().reader))
    book = worker.book
    made = {role.value: token(book, role, name=role.value) for role in Role}
    made |= {
        "all": token(book, *Role), "expired": token(book, *Role, days=90, age_days=91), "revoked": token(book, *Role),
        "theirs": token(book, *Role, org="port-authority"), "rival": token(book, *Role, org="rival"),
    }  # fmt: skip
    book.add(revoking(book, made["revoked"]))
    for site in served(worker):
        yield site, made


@pytest.fixture
def site(_shut: tuple[Site, dict[str, str]]) -> Site:
    site, _ = _shut
    site.worker.sent.clear()
    site.worker.noted.clear()
    return site


@pytest.fixture
def tokens(_shut: tuple[Site, dict[str, str]]) -> dict[str, str]:
    return _shut[1]


def ask(site: Site, route: Route, text: str | None, org: str | None = None, **more: str) -> Answer:
    """A request of a route with a token.  Of a stream the first frames are read."""
    one = call(route, org)
    headers = {**one.headers, **more, **({"Authorization": f"Bearer {text}"} if text is not None else {})}
    link = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        link.request(one.method, one.path, one.body, {name.replace("_", "-"): told for name, told in headers.items()})
        got = link.getresponse()
        body = _frame(got) if route.path == "/v1/stream" and got.status == 200 else got.read()
        return Answer(got.status, {name.lower(): told for name, told in got.getheaders()}, body)
    finally:
        link.close()


def _frame(got: http.client.HTTPResponse) -> bytes:
    """What a stream says up to its first data."""
    said = b""
    while b"data:" not in said and (line := got.readline()):
        said += line
    return said


# --- every route


@BY_NAME
@pytest.mark.parametrize("given", [None, "", "mp_", "mp_000000000000_" + "a" * 52, "revoked", "expired"])
def test_no_route_answers_without_a_token_that_holds(
    site: Site, tokens: Mapping[str, str], route: Route, given: str | None
) -> None:
    """No token, half a token, an unknown, a revoked and an expired one: 401, and nothing is done."""
    got = ask(site, route, tokens.get(given or "", given))
    assert (
        got.status == 401
        and got.headers["www-authenticate"].startswith("Bearer")
        and "tokens create" in got.json["fix"]
    )
    assert not site.worker.sent and not site.worker.noted


@BY_NAME
def test_no_route_answers_to_another_role(site: Site, tokens: Mapping[str, str], route: Route) -> None:
    """A token with every role but the one that the table names gets a 403, and nothing is done."""
    for role in ALL - {route.role}:
        got = ask(site, route, tokens[role])
        assert got.status == 403 and f"--role {route.role}" in got.json["fix"], role
    assert not site.worker.sent and not site.worker.noted
    assert ask(site, route, tokens[str(route.role)], "port-authority").status not in (401, 403)


@BY_NAME
def test_no_route_tells_of_another_organisation(site: Site, tokens: Mapping[str, str], route: Route) -> None:
    """A token of one organisation reaches nothing of another, whether the request names that or leaves it out."""
    for whose, other in (("theirs", "rival"), ("rival", "port-authority")):
        named = ask(site, route, tokens[whose], other)
        left_out = ask(site, route, tokens[whose], None)
        takes_one = any(one.name == "org" for one in route.parameters) or b'"org"' in (call(route).body or b"")
        if not route.of_one or (takes_one and route.path != "/v1/events"):
            assert named.status == 403, (named.status, named.body[:200])
        if not route.of_one:
            assert left_out.status == 403
        for got in (named, left_out):
            shown = got.body.decode()
            assert (CANARY not in shown) if whose == "theirs" else ("United Air Lines" not in shown), shown[:500]
        for output in site.worker.sent:
            assert json.loads(output.value or b"{}")["org"] == ("port-authority" if whose == "theirs" else "rival")
        site.worker.sent.clear()


def test_the_control_of_organisations_would_see_a_leak(site: Site, tokens: Mapping[str, str]) -> None:
    """Positive control: a token for all organisations is told of each, so their names are there to be leaked."""
    for org, name in (("rival", CANARY), ("port-authority", "United Air Lines")):
        assert (
            name
            in site.call("GET", f"/v1/companies?org={org}", None, Authorization=f"Bearer {tokens['all']}").body.decode()
        )
    own = site.call("GET", "/v1/companies", None, Authorization=f"Bearer {tokens['rival']}").body.decode()
    assert CANARY in own


def test_events_of_another_organisation_are_rejected_one_by_one(site: Site, tokens: Mapping[str, str]) -> None:
    """Of a batch the token's own events are taken, the others are told why not, and none of them is sent."""
    body = json.dumps([event(id="a"), event(id="b", org="rival"), event(id="c", org="port-authority ")]).encode()
    got = site.post(body, Authorization=f"Bearer {tokens['theirs']}")
    assert [row["status"] for row in got.json["items"]] == ["accepted", "rejected", "rejected"]
    assert got.json["items"][1]["problem"]["title"] == "foreign" and len(site.worker.sent) == 1


def test_a_receipt_of_another_organisation_is_unknown(site: Site, tokens: Mapping[str, str]) -> None:
    """What became of a record is told to whoever may know of it; to others it is not there."""
    logs = site.worker.reader.driver.topics["raw-events"]
    places = [
        f"{number}@{offset}"
        for number, log in enumerate(logs)
        for offset, one in enumerate(log)
        if one.value is not None and b'"org":"rival"' in one.value.replace(b" ", b"")
    ]
    assert places
    for place in places:
        told = {
            whose: site.call(
                "GET", f"/v1/events/raw-events/{place}", None, Authorization=f"Bearer {tokens[whose]}"
            ).json
            for whose in ("theirs", "rival")
        }
        assert told["theirs"] == {"receipt": f"raw-events/{place}", "outcome": "unknown", "failed_rules": []}
        assert told["rival"]["outcome"] in ("accepted", "dead_letter")
        shown = {
            whose: site.call(
                "GET", f"/v1/events/raw-events/{place}/record", None, Authorization=f"Bearer {tokens[whose]}"
            )
            for whose in ("theirs", "rival")
        }
        assert (shown["theirs"].status, shown["rival"].status) == (404, 200) and b"rival" not in shown["theirs"].body


def test_a_problem_of_another_organisation_is_not_there(site: Site, tokens: Mapping[str, str]) -> None:
    """Problems among the dead letters are listed, shown and repaired by the organisation that they are of, or by all."""

    def problems(whose: str) -> dict[str, str]:
        listed = site.call("GET", "/v1/dead-letters", None, Authorization=f"Bearer {tokens[whose]}").json["problems"]
        return {row["problem"]: row["org"] for row in listed}

    every = problems("all")
    assert set(every.values()) == {"rival", "port-authority"}
    for whose, org in (("theirs", "port-authority"), ("rival", "rival")):
        assert set(problems(whose).values()) == {org}
        given = {"Authorization": f"Bearer {tokens[whose]}", "Content_Type": "application/json"}
        for problem, of in every.items():
            path = f"/v1/dead-letters/{problem}"
            got = [site.call("GET", path, None, **given), site.call("GET", f"{path}/members", None, **given)]
            assert [one.status for one in got] == ([200, 200] if of == org else [404, 404])
            if of != org:
                assert site.call("POST", f"{path}/repair", b'{"mapping": {}}', **given).status in (403, 404, 422)
                assert CANARY not in got[0].body.decode() or org == "rival"
    assert not site.worker.sent


@pytest.mark.parametrize("route", table(), ids=lambda route: route.name)
def test_no_page_of_another_origin_writes_or_listens(site: Site, tokens: Mapping[str, str], route: Route) -> None:
    """With the right token or none: another page, another port, no origin, another site are refused before anything."""
    if route.method == "GET" and route.path != "/v1/stream":
        pytest.skip("what is only read is kept from other pages by what browsers let them see")
    for more in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{site.port + 1}"},
        {"Origin": "http://["}, {"Origin": f"file://127.0.0.1:{site.port}"}, {"Origin": f"http://127.0.0.1:{site.port}@evil.example"},
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    ):  # fmt: skip
        assert ask(site, route, tokens["all"], "port-authority", **more).status == 403, more
    assert not site.worker.sent and not site.worker.noted


@pytest.mark.parametrize("route", table(), ids=lambda route: route.name)
def test_no_route_answers_under_a_foreign_name(site: Site, tokens: Mapping[str, str], route: Route) -> None:
    """A name that was bound to our address a moment ago (DNS rebinding) is none of ours."""
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:6066",
        "2130706433",
        "",
        "[",
        "8.8.8.8",
    ):
        assert ask(site, route, tokens["all"], Host=host).status == 421, host
    assert not site.worker.sent


def test_every_answer_closes_the_doors_behind_it(site: Site, tokens: Mapping[str, str]) -> None:
    """Whatever a route answers has the content policy, and nothing that is private is stored."""
    for route in table():
        for text in (None, tokens["all"]):
            got = ask(site, route, text)
            assert "unsafe" not in got.headers["content-security-policy"]
            assert (
                got.headers["x-content-type-options"] == "nosniff" and got.headers["referrer-policy"] == "no-referrer"
            )
            page = route.path in ("/", "/page/{path:.+}")  # the same for everybody, and asked for again each time
            assert got.headers["cache-control"] == ("no-cache" if page else "no-store"), route.path


def test_openapi_says_which_role_opens_what(site: Site, tokens: Mapping[str, str]) -> None:
    """Each call names its role, or that it asks for none; both ways to show a token are described."""
    told = json.loads(site.call("GET", "/openapi.json", None, Authorization=f"Bearer {tokens['rival']}").body)
    assert set(told["components"]["securitySchemes"]) == {"token", "session"}
    for route in table():
        if not route.internal:
            said = told["paths"][route.path.replace(":.+", "")][route.method.lower()]["security"]
            assert said == ([] if route.role == EVERYBODY else [{"token": [route.role]}, {"session": [route.role]}])


# --- the doors as a whole


def test_unknown_paths_and_methods_tell_a_stranger_nothing(site: Site, tokens: Mapping[str, str]) -> None:
    """Without a token everything but the page and the probes is a 401, also what is not there."""
    for method, path in (
        ("GET", "/nowhere"),
        ("PUT", VALUE),
        ("DELETE", "/v1/events"),
        ("HEAD", VALUE),
        ("OPTIONS", "/v1/events"),
    ):
        assert site.call(method, path).status == 401, (method, path)
    with_token = {"Authorization": f"Bearer {tokens['all']}"}
    assert site.call("GET", "/nowhere", None, **with_token).status == 404
    assert site.call("PUT", VALUE, None, **with_token).status == 405


def test_no_path_leaves_the_page(site: Site) -> None:
    """The page's files are a closed list: no way to write an address reaches another file."""
    for path in (
        "/page/../routes.py", "/page/..%2froutes.py", "/page/%2e%2e/routes.py", "/page/....//routes.py", "/page//etc/passwd",
        "/page/%2fetc%2fpasswd", "/page/..\\routes.py", "/page/..%5croutes.py", "/page/main.js%00.css", "/page/%c0%ae%c0%ae/x",
        "/page/./../../views/routes.py", "/page/vendor/../../session.py", "/../pyproject.toml", "/page/~root/.ssh/id_rsa",
    ):  # fmt: skip
        got = site.call("GET", path)
        assert got.status in (400, 401, 404) and b"import" not in got.body and b"root:" not in got.body, path
    assert site.call("GET", "/page/main.js").status == 200


def test_the_doors_stand_open_on_the_loopback_until_a_token_is_made(tmp_path: Path) -> None:
    """Nobody is asked for a token on a laptop; from the first one on everybody is, also when it is revoked."""
    worker = Worker(Settings(home=tmp_path), Tables(filled().reader))
    for site in served(worker):
        assert site.get(VALUE).status == 200
        with Stream(site.port, ("metric", "departures")) as stream:
            assert stream.next() is not None
            text = _in_loop(site, token, worker.book, Role.READ)
            assert stream.next(2.0) is None and stream.ended
        assert site.get(VALUE).status == 401
        assert site.call("GET", VALUE, None, Authorization=f"Bearer {text}").status == 200
        _in_loop(site, worker.book.add, revoking(worker.book, text))
        assert site.get(VALUE).status == site.call("GET", VALUE, None, Authorization=f"Bearer {text}").status == 401
        assert site.get("/readyz").status == site.get("/").status == 200


def test_until_the_tokens_are_read_nobody_is_let_in(tmp_path: Path) -> None:
    """A worker that starts does not know yet whether it is to ask: it says 503, to everybody."""
    worker = Worker(Settings(home=tmp_path), Tables(filled().reader))
    worker.book.ready = False
    for site in served(worker):
        got = site.get(VALUE)
        assert got.status == 503 and got.headers["retry-after"] == "1" and site.get("/healthz").status == 200
        worker.book.ready = True
        assert site.get(VALUE).status == 200


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_an_open_stream_ends_with_its_token(tmp_path: Path, how: str) -> None:
    """Within a second of a revocation, or of a token's last moment, the stream is over and does not come back."""
    worker = Worker(Settings(home=tmp_path), Tables(filled().reader))
    text = token(worker.book, Role.READ)
    one = worker.book.tokens[text.split("_")[1]]
    for site in served(worker):
        with Stream(site.port, ("metric", "departures"), Authorization=f"Bearer {text}") as stream:
            assert (stream.next() or ("",))[0] == "value"
            began = time.monotonic()
            if how == "revoked":
                _in_loop(site, worker.book.add, revoking(worker.book, text))
            else:
                gone = replace(one, expires_ms=one.made_ms)
                _in_loop(site, worker.book.tokens.update, {one.id: gone})
            assert (
                stream.next(5.0) is None
                and stream.ended
                and time.monotonic() - began < (1.0 if how == "revoked" else 2.5)
            )
        with Stream(site.port, ("metric", "departures"), Authorization=f"Bearer {text}") as stream:
            assert stream.answer.status == 401


def _in_loop(site: Site, do: Callable[..., Any], *given: Any) -> Any:
    """What a follower does it does in the worker's loop."""

    async def done() -> Any:
        return do(*given)

    return asyncio.run_coroutine_threadsafe(done(), site.loop).result(10)


def test_who_has_the_secret_is_let_in(site: Site) -> None:
    """The commands of the worker's machine come in with a pass of the deployment's secret."""
    text = site.worker.book.keys.make_pass(time.time_ns() // 1_000_000)
    assert site.call("GET", VALUE + "?org=rival", None, Authorization=f"Bearer {text}").status == 200
    old = site.worker.book.keys.make_pass(time.time_ns() // 1_000_000 - 61_000)
    assert site.call("GET", VALUE, None, Authorization=f"Bearer {old}").status == 401
    for wrong in ("Basic dXNlcjpwYXNz", "Bearer", f"Token {text}", text, "Bearer é", "Bearer " + "x" * 8000):
        assert site.call("GET", VALUE, None, Authorization=wrong.encode().decode("latin-1")).status in (400, 401), wrong


def test_an_api_token_is_never_a_workers_own(tmp_path: Path) -> None:
    """A worker that was started with somebody's API token in MILEPOST_TOKEN gives it no more than it says."""
    plain = Worker(Settings(home=tmp_path), Tables(filled().reader))
    text = token(plain.book, Role.READ)
    worker = replace(plain, settings=Settings(home=tmp_path, token=text))
    record = next(iter(plain.book.tokens.values()))
    worker.book.tokens[record.id] = record
    for site in served(worker):
        given = {"Authorization": f"Bearer {text}"}
        assert site.call("GET", VALUE, None, **given).status == 200
        assert site.post(json.dumps(event()).encode(), **given).status == 403


def test_names_for_others(tmp_path: Path) -> None:
    """MILEPOST_HOSTS shuts the doors and names what the worker is reached by; listening on all, an address is enough."""
    home = tmp_path
    for settings, right, wrong in (
        (Settings(home=home, hosts=(HOST,)), (HOST, f"{HOST}:443", "localhost"), ("evil.example", "10.0.0.7")),
        (Settings(home=home, host="0.0.0.0"), ("10.0.0.7:6066", "[fd00::1]", "localhost"), ("evil.example", HOST)),
        (Settings(home=home, host="0.0.0.0", hosts=(HOST,)), (HOST, "10.0.0.7"), ("evil.example", f"x.{HOST}")),
        (Settings(home=home, host="0.0.0.0", peer="http://worker-2:6066"), ("worker-2:6066",), ("worker-3",)),
    ):
        for site in served(Worker(settings, Tables(filled().reader))):
            assert [site.call("GET", VALUE, None, Host=one).status for one in right] == [401] * len(right)
            assert [site.call("GET", VALUE, None, Host=one).status for one in wrong] == [421] * len(wrong)


# --- the page's session


def sign_in(site: Site, text: str, **more: str) -> Answer:
    return site.call("POST", "/v1/session", None, Authorization=f"Bearer {text}", **more)


def test_a_page_signs_in_and_out(site: Site, tokens: Mapping[str, str]) -> None:
    """A token becomes a cookie that no script reads and no other site sends; it opens what the token opens, streams too."""
    got = sign_in(site, tokens["read"], Origin=f"http://127.0.0.1:{site.port}")
    cookie = got.headers["set-cookie"]
    assert got.json["name"] == "read" and got.json["roles"] == ["read"] and tokens["read"] not in got.body.decode()
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and tokens["read"] not in cookie
    assert "Secure" not in cookie and "Domain" not in cookie
    sent = {"Cookie": cookie.partition(";")[0]}
    assert site.call("GET", VALUE + "?org=rival", None, **sent).status == 200
    assert site.call("GET", "/v1/digest", None, **sent).status == 403
    with Stream(site.port, ("metric", "departures"), ("org", "rival"), **sent) as stream:
        assert (stream.next() or ("",))[0] == "value"
    ended = site.call("POST", "/v1/session:end", None, **sent, Origin=f"http://127.0.0.1:{site.port}")
    assert ended.status == 200 and re.search(r'milepost_session_\d+=("")?;', ended.headers["set-cookie"])
    for wrong in ("expired", "revoked"):
        assert sign_in(site, tokens[wrong]).status == 401 and "set-cookie" not in sign_in(site, tokens[wrong]).headers
    assert site.call("POST", "/v1/session").status == 401


def test_a_session_is_for_our_own_page(site: Site, tokens: Mapping[str, str]) -> None:
    """A cookie comes along by itself: a request with it must be our page's, so no other port or site writes with it."""
    cookie = sign_in(site, tokens["all"]).headers["set-cookie"].partition(";")[0]
    body, ours = json.dumps(event()).encode(), {"Origin": f"http://127.0.0.1:{site.port}"}
    assert site.post(body, Cookie=cookie, **ours, Sec_Fetch_Site="same-origin").status == 202
    assert site.post(body, Cookie=cookie).status == 403
    assert site.post(body, Cookie=cookie, Origin=f"http://127.0.0.1:{site.port + 1}").status == 403
    for foreign in ("same-site", "cross-site"):
        assert site.call("GET", VALUE, None, Cookie=cookie, Sec_Fetch_Site=foreign).status == 403
        assert (
            site.call("GET", "/v1/stream?metric=departures", None, Cookie=cookie, Sec_Fetch_Site=foreign).status == 403
        )
    assert len(site.worker.sent) == 1
    name, _, value = cookie.partition("=")
    for wrong in (value[:-1], value[1:], "a.b", "e30." + value.partition(".")[2]):
        assert site.call("GET", VALUE, None, Cookie=f"{name}={wrong}").status == 401


def test_a_session_ends_with_its_token(tmp_path: Path) -> None:
    """A revocation ends the sessions that were opened with the token, for pages and for calls."""
    worker = Worker(Settings(home=tmp_path), Tables(filled().reader))
    text = token(worker.book, Role.READ, Role.WRITE)
    for site in served(worker):
        cookie = sign_in(site, text).headers["set-cookie"].partition(";")[0]
        assert site.call("GET", VALUE, None, Cookie=cookie).status == 200
        _in_loop(site, worker.book.add, revoking(worker.book, text))
        assert site.call("GET", VALUE, None, Cookie=cookie).status == 401


def test_behind_tls_the_cookie_is_for_tls(tmp_path: Path) -> None:
    """A page that came by https gets a cookie that never travels without it."""
    worker = Worker(Settings(home=tmp_path, hosts=(HOST,)), Tables(filled().reader))
    text = token(worker.book, Role.READ)
    for site in served(worker):
        assert "Secure" in sign_in(site, text, Host=HOST, Origin=f"https://{HOST}").headers["set-cookie"]


# --- the audit


def test_a_change_has_its_lines_before_and_after(site: Site, tokens: Mapping[str, str]) -> None:
    """Who asked is written before anything is done, what came of it after, with the receipt and without body or token."""
    body = json.dumps(
        {"keys": ["airline_name:United Air Lines Inc.", "carrier_code:DL"], "org": "port-authority"}
    ).encode()
    path = "/v1/identity/link"
    with_token = {"Authorization": f"Bearer {tokens['operate']}", "Content_Type": "application/json"}
    got = site.call("POST", path, body, **with_token)
    assert got.status == 202
    asked, done = site.worker.noted
    assert (asked["what"], asked["status"], done["what"], done["status"]) == ("asked", 0, "done", 202)
    assert asked["id"] == done["id"] and done["receipt"] == got.json["receipt"] and asked["at_ms"] <= done["at_ms"]
    assert (asked["who"], asked["call"], asked["token"]) == ("operate", f"POST {path}", tokens["operate"].split("_")[1])
    assert "United" not in repr(site.worker.noted) and tokens["operate"].split("_")[2] not in repr(site.worker.noted)
    assert json.loads(site.worker.sent[0].value or b"{}")["data"]["by"] == "operate"
    site.worker.noted.clear()
    assert site.call("POST", f"{path}?dry_run=true", body, **with_token).status == 200 and not site.worker.noted
    assert site.call("POST", path, b"{}", **with_token).status == 422
    assert [one["status"] for one in site.worker.noted] == [0, 422]


def test_a_change_without_its_line_is_not_begun(
    site: Site, tokens: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the audit cannot be written a change is refused with 503, though the broker takes everything else."""

    async def refused(change: Mapping[str, Any]) -> None:
        raise SendFailed("no audit")

    body = json.dumps({"keys": ["airline_name:Delta", "carrier_code:DL"], "org": "port-authority"}).encode()
    given = {"Authorization": f"Bearer {tokens['all']}", "Content_Type": "application/json"}
    monkeypatch.setattr(site.worker, "note", refused, raising=False)
    assert site.call("POST", "/v1/identity/link", body, **given).status == 503 and not site.worker.sent
    monkeypatch.undo()
    assert site.call("POST", "/v1/identity/link", body, **given).status == 202 and len(site.worker.sent) == 1


def test_every_change_of_the_table_is_audited(
    site: Site, tokens: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route that needs `operate` and changes something writes its two lines, whatever it answers."""
    monkeypatch.setattr("milepost.agents.views.definitions.apply_bundle", _refused)
    changing = [one for one in ROUTES if one.method == "POST" and one.role == Role.OPERATE]
    assert len(changing) >= 7
    for route in changing:
        site.worker.noted.clear()
        got = ask(site, route, tokens["all"], "port-authority")
        assert [one["what"] for one in site.worker.noted] == ["asked", "done"], route.path
        assert site.worker.noted[1]["status"] == got.status


def _refused(*_: object, **__: object) -> None:
    raise StoreError("no broker")
