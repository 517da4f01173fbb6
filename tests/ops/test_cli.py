"""The commands: what they print, where, and their exit codes."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from milepost.ops import cli, processes, provision
from milepost.ops.settings import Settings
from milepost.topology.line import all_topics
from tests.support.broker import broker_ports, shared_jars


class Views(http.server.BaseHTTPRequestHandler):
    """A worker's views, as far as the commands look."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/v1/metrics/nothing"):
            self._say(
                404, {"title": "unknown metric", "detail": "no metric 'nothing'", "guess": "departures", "status": 404}
            )
        elif self.path == "/v1/digest":
            self._say(200, {"cells": "ab", "total": "cd"})
        elif "series" in self.path:
            self._say(200, {"points": [{"start": "2013-01-01T00:00:00Z", "value": 842.0}]})
        elif "breakdown" in self.path:
            self._say(200, {"by": "origin", "rows": [{"key": "JFK", "label": "JFK", "value": 1.0}], "next": "3"})
        else:
            self._say(200, {"value": 328521, "unit": "flights", "basis": "corrected", "finality": "final"})

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        items: list[dict[str, Any]] = [
            {"status": "accepted", "receipt": f"raw-events/0@{event['id']}"}
            if "id" in event
            else {"status": "rejected", "problem": {"title": "no id", "detail": "id is missing"}}
            for event in events
        ]
        self._say(202, {"items": items})

    def _say(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A stub worker that the environment points to; yields the paths it was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Views)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MILEPOST_PORT", str(server.server_address[1]))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    yield server.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), input=stdin)


def test_query_asks_for_a_value_a_breakdown_or_a_series(asked: list[str]) -> None:
    """Each option of `query` becomes a parameter of the one route that answers it."""
    value = run("query", "departures", "--company", "carrier_code:UA", "--dim", "origin=EWR", "--json")
    assert value.exit_code == 0 and json.loads(value.stdout)["value"] == 328521
    assert asked[-1] == "/v1/metrics/departures/value?company=carrier_code%3AUA&dim.origin=EWR"
    assert run("query", "departures", "--org", "port-authority", "--after", "raw-events/0@1").exit_code == 0
    assert asked[-1] == "/v1/metrics/departures/value?after=raw-events%2F0%401&org=port-authority"
    assert run("query", "departures").stdout.strip() == "328,521  flights  corrected  final"
    assert "842.0" in run("query", "departures", "--from", "2013-01-01T00:00:00Z", "--every", "1d").stdout
    assert asked[-1] == "/v1/metrics/departures/series?from=2013-01-01T00%3A00%3A00Z&every=1d"
    paged = run("query", "departures", "--by", "origin", "--limit", "2", "--next", "2")
    assert paged.exit_code == 0 and asked[-1] == "/v1/metrics/departures/breakdown?by=origin&limit=2&next=2"
    assert "1 rows; `--next 3` shows more" in paged.stderr
    assert run("query", "departures", "--next", "2").exit_code == cli.DECLARATION
    assert run("query", "departures", "--by", "origin", "--every", "1d").exit_code == cli.DECLARATION
    assert run("query", "departures", "--dim", "origin").exit_code == cli.DECLARATION


def test_a_refused_question_is_said_in_the_workers_words(asked: list[str]) -> None:
    """A 404 ends with its own exit code, the reason on stderr, and with --json the problem on stdout."""
    refused = run("query", "nothing", "--json")
    assert refused.exit_code == cli.REFUSED
    assert "no metric 'nothing'; did you mean departures?" in refused.stderr
    assert json.loads(refused.stdout)["problem"]["guess"] == "departures"


def test_send_counts_outcomes_and_names_bad_lines(asked: list[str], tmp_path: Path) -> None:
    """Lines that are no JSON, and events that cannot be keyed, are rejected by number; the rest goes on; exit 1."""
    file = tmp_path / "events.ndjson"
    file.write_text('{"id": "1"}\n\nnot json\n{"no": "id"}\n{"id": "2"}\n')
    sent = run("send", str(file), "--json")
    assert sent.exit_code == cli.FAILED
    report = json.loads(sent.stdout)
    assert (report["accepted"], report["rejected"], report["last_receipt"]) == (2, 2, "raw-events/0@2")
    assert sorted(one["line"] for one in report["problems"]) == [3, 4]
    assert run("send", "-", stdin='{"id": "1"}\n').exit_code == 0
    assert run("send", str(tmp_path / "absent")).exit_code == cli.DECLARATION


def test_digest_prints_one_line_a_table_and_a_total(asked: list[str]) -> None:
    """The digest is printed as its tables and the total."""
    assert run("digest").stdout == "ab  cells\ncd  total\n"


def test_no_worker_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that needs a worker says where it looked and how to start one."""
    monkeypatch.setenv("MILEPOST_PORT", str(processes.free_ports(1)[0]))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    silent = run("query", "departures")
    assert silent.exit_code == cli.NOTHING_ANSWERS
    assert "no worker answers at http://127.0.0.1:" in silent.stderr and "start one with `milepost up`" in silent.stderr


def test_a_wrong_setting_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that does not hold ends every command before it does anything."""
    monkeypatch.setenv("MILEPOST_PARTITIONS", "many")
    wrong = run("describe")
    assert wrong.exit_code == cli.DECLARATION and "MILEPOST_PARTITIONS='many'" in wrong.stderr


def test_describe_tells_the_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Text, picture and data of the line name its legs."""
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    assert "Leg ingest" in run("describe").stdout
    assert run("describe", "--mermaid").stdout.startswith("flowchart LR")
    assert json.loads(run("describe", "--json").stdout)["agents"] == {
        "ingest": "raw-events",
        "measure": "signals",
        "record": "record-changes",
    }


def test_tail_decodes_what_lies_in_a_topic(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, bytes of no known form and tombstones are shown with position and key; an unknown topic is refused."""
    provision.provision(settings)
    producer = Producer({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    for value in (b'{"id": "1"}', b"\xc3\x01garbage that is none of ours", None, b"\xff\xfe"):
        producer.produce(settings.topic("raw-events"), value, b"\x01\x02", partition=0)
    assert producer.flush(10) == 0
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    told = run("tail", "raw-events", "--from-start", "--no-wait")
    assert told.exit_code == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["key"] for line in lines] == ["0102"] * 4
    assert lines[0]["value"] == {"id": "1"} and lines[2]["value"] is None
    assert "undecodable" in lines[1]["value"] and lines[3]["value"] == {"hex": "fffe", "bytes": 2}
    assert run("tail", "raw-events", "--from-start", "-n", "1").stdout.count("\n") == 1
    assert "known: raw-events" in run("tail", "raw").stderr


def test_describe_check_sees_a_topic_that_is_gone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the broker names each topic that is not there, and none when all are."""
    from milepost.ops import describe

    assert len(describe.broker_differences(settings)) == len(all_topics())
    provision.provision(settings)
    assert describe.broker_differences(settings) == []
    said = {**describe.as_data(settings), "agents": {"ingest": settings.topic("raw-events")}}
    assert describe.worker_differences(settings, said) == [
        "agents: the worker has no measure",
        "agents: the worker has no record",
    ]


def test_doctor_finds_what_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy deployment has nothing wrong; a secret that others may read is wrong, and the demo's is noted."""
    from milepost.ops import doctor
    from milepost.ops.settings import DEMO_SECRET

    provision.provision(settings)
    findings = {one.check: one for one in doctor.examine(settings)}
    assert not [one for one in findings.values() if one.verdict == "wrong"]
    assert findings["broker"].verdict == findings["topics"].verdict == "ok"
    ours = replace(settings, secret_text="")
    ours.secret()
    ours.secret_file.chmod(0o644)
    (wrong,) = [one for one in doctor.examine(ours) if one.check == "secret"]
    assert wrong.verdict == "wrong" and wrong.fix == f"chmod 600 {ours.secret_file}"
    (noted,) = [one for one in doctor.examine(replace(settings, secret_text=DEMO_SECRET)) if one.check == "secret"]
    assert noted.verdict == "note" and "fixed and public" in noted.said


def test_reset_asks_and_keeps_the_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is deleted without a yes; then what the deployment made is, and neither jars nor foreign files."""
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    monkeypatch.setenv("MILEPOST_PORT", str(processes.free_ports(1)[0]))
    for name in ("state/default", "broker", "kafka", "mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret").write_text("x" * 32)
    assert run("reset", stdin="n\n").exit_code == cli.FAILED
    assert (tmp_path / "state").exists()
    done = run("reset", "--yes", "--json")
    assert done.exit_code == 0 and len(json.loads(done.stdout)["deleted"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka", "mine"]


def test_up_starts_the_broker_and_stops_it(tmp_path: Path) -> None:
    """`up --broker-only` answers with its addresses, and SIGTERM leaves no process and exit code 0."""
    broker_port, port = broker_ports()
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MILEPOST_HOME": str(tmp_path),
        "MILEPOST_JARS": str(shared_jars()),
        "MILEPOST_PORT": str(port),
    }
    command = [sys.executable, "-m", "milepost", "up", "--broker-only", "--broker-port", str(broker_port), "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert running.stdout is not None and running.stderr is not None
    said = ""
    while not said.rstrip().endswith("}"):
        said += running.stdout.readline()
    assert json.loads(said).get("broker") == f"127.0.0.1:{broker_port}", said
    children = psutil.Process(running.pid).children(recursive=True)
    assert [child for child in children if "java" in child.name()]
    running.send_signal(signal.SIGTERM)
    _, progress = running.communicate(timeout=40)
    assert running.returncode == 0, progress
    assert f"{len(all_topics())} topics made" in progress and "all parts have stopped" in progress
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
