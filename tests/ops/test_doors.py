"""The commands of the doors, and a worker behind them, on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from milepost.ops import access_log, cli
from milepost.ops.access import Role, bearer
from milepost.ops.apply import demo_bundle
from milepost.ops.client import Client, Refused
from milepost.ops.flights import ORG
from milepost.ops.provision import provision
from milepost.ops.settings import Settings
from milepost.ops.supervise import EXIT_DECLARATION
from milepost.schemas.errors import DeclarationError
from tests.agents.test_stream import Stream
from tests.support.workers import SRC, Deployment

pytestmark = pytest.mark.broker


def run(settings: Settings, *command: str, code: int = 0) -> Result:
    told = CliRunner().invoke(cli.app, list(command), env=settings.environment())
    assert told.exit_code == code, told.output
    return told


def told(settings: Settings, *command: str) -> Any:
    return json.loads(run(settings, *command, "--json").stdout)


@pytest.fixture
def ready(settings: Settings) -> Settings:
    provision(settings)
    return settings


def test_tokens_are_made_listed_and_revoked(ready: Settings) -> None:
    """A token is on stdout once and nowhere afterwards; by name or id it is revoked; both are in the audit."""
    assert run(ready, "tokens", "list").stdout.startswith("no token was made")
    text = run(ready, "tokens", "create", "gateway", "--role", "write", "--org", ORG, "--days", "7").stdout.strip()
    id, private = text.split("_")[1:]
    (row,) = told(ready, "tokens", "list")["tokens"]
    assert (row["id"], row["name"], row["roles"], row["org"], row["state"]) == (id, "gateway", ["write"], ORG, "valid")
    made = told(ready, "tokens", "create", "viewer")
    assert made["roles"] == ["read"] and made["token"].startswith(f"mp_{made['id']}_") and made["org"] is None
    book = access_log.read_book(ready)
    who = book.find(text, time.time_ns() // 1_000_000)
    assert who is not None and who.roles == {Role.WRITE} and book.passed_over == 0
    assert told(ready, "tokens", "revoke", "gateway")["state"] == "revoked"
    assert told(ready, "tokens", "revoke", made["id"])["state"] == "revoked"
    assert access_log.read_book(ready).find(text, time.time_ns() // 1_000_000) is None
    for wrong in ("gateway", "nobody"):
        assert "tokens list" in run(ready, "tokens", "revoke", wrong, code=cli.DECLARATION).output
    lines = told(ready, "audit")["changes"]
    assert [one["call"] for one in lines] == [
        "tokens create gateway", "tokens create viewer", "tokens revoke gateway", "tokens revoke viewer"
    ]  # fmt: skip
    assert all(one["who"] == access_log.myself() for one in lines)
    said = [run(ready, *one.split()).output for one in ("tokens list", "audit", "tail access --from-start --no-wait")]
    assert private not in "".join(said) and id in said[2]
    assert run(ready, "tokens", "create", "x", "--role", "root", code=2).exit_code == 2


def test_a_worker_for_others_declines_without_a_token_that_holds(ready: Settings) -> None:
    """Beyond the loopback, or under a name for others, nothing listens until a token holds; it says how to make one."""
    for exposed in (replace(ready, host="0.0.0.0"), replace(ready, hosts=("metrics.example.org",))):
        env = {**os.environ, **exposed.environment(), "PYTHONPATH": str(SRC)}
        done = subprocess.run(
            [sys.executable, "-m", "milepost.agents"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == EXIT_DECLARATION and "milepost tokens create" in done.stderr
        assert "Traceback" not in done.stderr
        with pytest.raises(DeclarationError):
            access_log.check_bind(exposed)
        access_log.check_bind(replace(exposed, token="0123456789abcdef"))
        with pytest.raises(DeclarationError):
            access_log.check_bind(replace(exposed, token=f"mp_{'0' * 12}_{'a' * 52}"))
    made = told(ready, "tokens", "create", "one")
    access_log.check_bind(replace(ready, host="0.0.0.0"))
    told(ready, "tokens", "revoke", made["id"])
    with pytest.raises(DeclarationError, match="no token holds"):
        access_log.check_bind(replace(ready, host="0.0.0.0"))
    access_log.check_bind(ready)


@pytest.fixture
def deployment(settings: Settings) -> Iterator[Deployment]:
    with Deployment(settings) as made:
        made.apply()
        made.start()
        made.settle()
        yield made


@pytest.mark.slow
def test_a_worker_obeys_the_log_of_tokens(deployment: Deployment) -> None:
    """The first token shuts the doors of a running worker; a revocation ends its stream within a second; a change by hand
    and one past the doors are both in the audit, with who, what and where."""
    settings = deployment.settings
    url, port = settings.url, settings.port
    with Client(url) as stranger, Client(url, token=lambda: bearer(settings)) as holder:
        assert "legs" in stranger.get("/v1/status")
        made = told(settings, "tokens", "create", "ann", "--role", "operate", "--role", "read", "--org", ORG)
        _until(lambda: _refused(stranger, "/v1/status") == 401)
        assert "legs" in holder.get("/v1/status")
        with Client(url, token=made["token"]) as ann:
            assert ann.get("/v1/metrics")["org"] == ORG
            assert _refused(ann, "/v1/status") == 403
            completed = _posted(
                ann,
                "/v1/identity/membership",
                {"member": "tailnum:N1", "company": "carrier_code:UA", "entity": "device"},
            )
        worst = 0.0
        for number in range(5):
            viewer = told(settings, "tokens", "create", f"viewer-{number}")
            _until(lambda viewer=viewer: _known(url, viewer["token"]))  # type: ignore[misc]
            with Stream(port, ("metric", "departures"), Authorization=f"Bearer {viewer['token']}") as stream:
                assert (stream.next() or ("",))[0] == "value"
                told(settings, "tokens", "revoke", viewer["id"])
                began = time.monotonic()
                assert stream.next(5.0) is None and stream.ended
                worst = max(worst, time.monotonic() - began)
        assert worst < 1.0, worst
    run(settings, "apply", str(_changed(deployment)), "--org", ORG)
    lines = told(settings, "audit", "-n", "1000")["changes"]
    by_hand = [one for one in lines if one["call"] == "POST /v1/identity/membership"]
    assert [(one["who"], one["token"], one["status"]) for one in by_hand] == [("ann", made["id"], completed[0])]
    assert by_hand[0]["receipt"] == completed[1] and by_hand[0]["org"] == ORG
    (applied,) = [one for one in lines if one["call"] == f"milepost apply {ORG}"]
    assert applied["who"] == access_log.myself() and applied["receipt"]
    assert made["token"].split("_")[2] not in json.dumps(lines) + deployment.worker.log


def _changed(deployment: Deployment) -> Any:
    folder = deployment.settings.home / "changed"
    for name, body in demo_bundle().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body.replace(b"<= 15.0", b"<= 16.0"))
    return folder


def _posted(client: Client, path: str, body: Any) -> tuple[int, str | None]:
    try:
        answer = client.post(path, body)
    except Refused as error:
        return error.status, None
    return 202, answer["receipt"]


def _refused(client: Client, path: str) -> int:
    try:
        client.get(path)
    except Refused as error:
        return error.status
    return 200


def _known(url: str, token: str) -> bool:
    with Client(url, token=token) as client:
        return _refused(client, "/v1/metrics") == 200


def _until(true: Any, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
