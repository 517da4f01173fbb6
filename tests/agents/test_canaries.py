"""Canaries: secrets that are planted everywhere, and looked for wherever the worker says something.

planted: the deployment's secret, MILEPOST_TOKEN, API tokens, tokens of an issuer, a webhook's key, fields of events
scanned: logs at their most talkative, /metrics, problems, the page, the audit, OpenAPI, status, what a process prints
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.ops.access import Role
from milepost.ops.apply import demo_bundle
from milepost.ops.settings import Settings, read_settings
from milepost.schemas.errors import DeclarationError
from milepost.topology.driver import Driver
from tests.agents.test_doors import ask, sign_in
from tests.agents.test_views import NOW, Site, Tables, Worker, event, filled, served
from tests.support.doors import table, token

SECRET = "canary-secret-of-the-deployment-01"
OWN = "canary-token-of-the-worker-itself"
JWT = "eyJhbGciOiJub25lIn0.Y2FuYXJ5LWp3dA.canary-signature"
WEBHOOK = "canary-key-of-a-webhook"
FIELD = "canary-field-of-an-event"


SHOWS: dict[str, str] = {
    "/v1/dead-letters": "the type of the events that a problem is of",
}
"""Calls that show readers what events hold, and what of them: there a field is no secret."""


def found(canaries: list[str], said: str) -> list[str]:
    """Those that are in a text."""
    return [one for one in canaries if one in said]


def planted() -> Driver:
    """The airlines' definitions with a reaction whose address holds a key, and events that hold a canary."""
    driver = filled()
    files = demo_bundle()
    text = files["milepost.yaml"].decode()
    reaction = f'reactions:\n  tell: {{on: milestone.achieved, webhook: "https://hooks.example.org/{WEBHOOK}"}}\n'
    driver.apply("port-authority", {**files, "milepost.yaml": (text + reaction).encode()}, NOW)
    for number, data in enumerate(({"carrier": 7, "x": FIELD}, {"carrier": "UA", "dep_delay": FIELD}, {FIELD: FIELD})):
        driver.produce(event(id=f"canary{number}", data=data), NOW)
    driver.produce(event(id="unknown", type=f"flight.{FIELD}"[:40], data={}), NOW)
    driver.run()
    return driver


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), secret_text=SECRET, token=OWN)
    yield from served(Worker(settings, Tables(planted().reader)))


def test_no_secret_is_said_anywhere(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every route is asked rightly and wrongly with secrets in hand; none of them is in anything that was said."""
    caplog.set_level(logging.DEBUG)
    text = token(site.worker.book, *Role, name="gateway")
    old = token(site.worker.book, *Role, age_days=91)
    canaries = [SECRET, OWN, JWT, "Y2FuYXJ5LWp3dA", WEBHOOK, FIELD, text, text.split("_")[2], old.split("_")[2]]
    said, leaking = list[str](), set[str]()
    for route in table():
        if route.path == "/v1/stream":
            continue  # what it says are the answers of the calls
        for given in (None, text, old, OWN, JWT, f"{OWN}x", f"mp_{text}"):
            got = ask(site, route, given, "port-authority")
            shown = f"{got.status} {got.headers} {got.body.decode(errors='replace')}"
            said.append(shown.replace(FIELD, "…") if got.status == 200 and route.path in SHOWS else shown)
            if FIELD in said[-1]:
                leaking.add(route.path)
            assert got.status < 500 or got.status == 503, (route.path, got.body)
    for body in (
        json.dumps(event(data={"carrier": FIELD})), json.dumps({"org": 7, "x": FIELD}), f'{{"org": "{FIELD}', f'[{{"data": "{FIELD}"}}]',
        json.dumps({"specversion": "1.0", "data": FIELD}),
    ):  # fmt: skip
        for path in ("/v1/events", "/v1/definitions:apply", "/v1/identity/link", "/v1/presence", "/v1/connect/segment"):
            got = site.call(
                "POST", path, body.encode(), Authorization=f"Bearer {text}", Content_Type="application/json"
            )
            said.append(got.body.decode())
    cookie = sign_in(site, text)
    said.append(f"{cookie.headers} {cookie.body.decode()}")
    for path in (
        "/metrics",
        "/v1/status",
        "/v1/topology",
        "/openapi.json",
        "/",
        "/page/main.js",
        "/page/api.js",
        "/nowhere",
    ):
        said.append(site.call("GET", path, None, Authorization=f"Bearer {text}").body.decode())
    printed = capfd.readouterr()
    heard = {
        "answers": "\n".join(said), "logs": caplog.text, "audit": repr(site.worker.noted), "book": repr(site.worker.book),
        "printed": printed.out + printed.err, "settings": repr(site.worker.settings),
    }  # fmt: skip
    assert not leaking
    assert {where: found(canaries, text) for where, text in heard.items() if found(canaries, text)} == {}
    assert heard["audit"].count("'asked'") >= 7 and len(said) > 200


def test_the_scan_finds_what_is_there(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Positive control: a secret that is logged, and a field that is asked for, are found."""
    logging.getLogger("milepost.agents").warning("a token: %s", OWN)
    assert found([OWN, SECRET], caplog.text) == [OWN]
    sent = json.dumps(event(id=FIELD)).encode()
    assert site.post(sent, Authorization=f"Bearer {OWN}").status == 202
    assert found([FIELD], repr(site.worker.sent)) == [FIELD]


def test_a_faulty_start_prints_no_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a process says when its settings do not hold has no value of a secret in it."""
    for wrong in ({"MILEPOST_SECRET": "canary"}, {"MILEPOST_TOKEN": "canary", "MILEPOST_HOST": "0.0.0.0"}):
        with pytest.raises(DeclarationError) as refused:
            read_settings({"MILEPOST_HOME": str(tmp_path), **wrong})
        assert "canary" not in str(refused.value)
    assert "canary" not in capfd.readouterr().err
