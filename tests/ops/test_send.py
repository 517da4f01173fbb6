"""`milepost send`: every line has one outcome, and a run that is cut short goes on without counting anything twice."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.ops import cli, resuming
from milepost.ops.client import Client
from milepost.ops.resuming import CutShort, send_file
from milepost.ops.send import LINE_BYTES_MAX, SendReport
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.driver import Driver
from tests.support.posting import NOW, DriverClient
from tests.support.small import FILES, ORG, SECRET, T0, visit

LINES = 40


class Gateway:
    """As much of a worker as `send` asks: events with an id are taken, the first time as new.

    ends: what it raises at the post of that number;  lost: whether it had taken the events of that post
    """

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.posted: list[Any] = []
        self.posts = 0
        self.ends: tuple[int, BaseException] | None = None
        self.lost = True

    def get(self, path: str, /, **_: Any) -> Any:
        return {}

    def post(self, path: str, body: Any) -> Any:
        self.posts += 1
        self.posted += body
        ending = self.ends is not None and self.posts == self.ends[0]
        if ending and self.lost:
            raise self.ends[1]  # type: ignore[index]
        items = [self._take(event) for event in body]
        if ending:
            raise self.ends[1]  # type: ignore[index]
        return {"items": items}

    def _take(self, event: Any) -> dict[str, Any]:
        if not isinstance(event, dict) or "id" not in event:
            problem = {"detail": "Object missing required field `id`", "fix": "org, source and id"}
            return {"status": "rejected", "receipt": None, "problem": problem}
        known = event["id"] in self.taken
        offset = self.taken.setdefault(event["id"], len(self.taken))
        return {"status": "duplicate" if known else "accepted", "receipt": f"raw-events/0@{offset}"}


@pytest.fixture(autouse=True)
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of four events, noted after each."""
    monkeypatch.setattr("milepost.ops.send.ITEMS_MAX", 4)
    monkeypatch.setattr(resuming, "SAVE_S", 0.0)


def line(number: int) -> bytes:
    """Most lines are events; some are empty, some no JSON, some an event without id."""
    if number % 11 == 5:
        return b"\n"
    if number % 7 == 3:
        return b'{"id": "cut off\n'
    if number % 13 == 4:
        return b'{"org": "acme"}\n'
    return json.dumps({"org": "acme", "source": "s", "id": f"e{number}"}).encode() + b"\n"


def written(folder: Path, lines: int = LINES) -> Path:
    file = folder / "events.ndjson"
    file.write_bytes(b"".join(line(number) for number in range(1, lines + 1)))
    return file


def run(to: Any, home: Path, file: Path, **more: Any) -> SendReport:
    report = SendReport()
    send_file(to, Settings(home=home), file, report, **more)
    return report


def notes(home: Path) -> list[Path]:
    return list(home.rglob("send-*.json"))


def whole(folder: Path, file: Path) -> dict[str, Any]:
    """What a run that nothing cut short says."""
    return run(Gateway(), folder / "elsewhere", file).as_data()


@pytest.mark.parametrize("cut", range(1, 9))
@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("gone")])
def test_a_run_that_is_cut_short_anywhere_ends_as_a_whole_one(
    tmp_path: Path, cut: int, lost: bool, error: BaseException
) -> None:
    """Wherever it is cut, and whether the last request had arrived: every event once, and the same counts in the end."""
    file, home, to = written(tmp_path), tmp_path / "home", Gateway()
    to.ends, to.lost = (cut, error), lost
    with pytest.raises(CutShort) as caught:
        run(to, home, file)
    assert caught.value.asked == isinstance(error, KeyboardInterrupt)
    assert "the same command again goes on from there" in str(caught.value)
    rest = run(to, home, file)
    expected = whole(tmp_path, file)
    arrived = 0 if lost else rest.outcomes["duplicate"]
    assert arrived <= 4, "at most the request that was under way is a repeat"
    assert rest.outcomes["accepted"] + rest.outcomes["duplicate"] == expected["accepted"]
    assert (rest.outcomes["rejected"], rest.problems) == (expected["rejected"], expected["problems"])
    assert len(to.taken) == expected["accepted"] and not notes(home)


def test_where_nothing_was_noted_all_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 before the first note: everything goes again, what was there is a duplicate, and nothing doubles."""
    monkeypatch.setattr(resuming, "SAVE_S", 3600.0)
    file, home, to = written(tmp_path), tmp_path / "home", Gateway()
    to.ends = (5, SystemExit())
    with pytest.raises(SystemExit):
        run(to, home, file)
    assert not notes(home)
    before = len(to.taken)
    rest = run(to, home, file)
    assert rest.outcomes["duplicate"] == before > 0
    assert rest.outcomes["accepted"] + before == whole(tmp_path, file)["accepted"] == len(to.taken)


def cut_in_the_middle(folder: Path) -> tuple[Path, Path, Gateway]:
    file, home, to = written(folder), folder / "home", Gateway()
    to.ends = (5, KeyboardInterrupt())
    with pytest.raises(CutShort):
        run(to, home, file)
    assert notes(home)
    return file, home, to


def test_another_log_gets_everything(tmp_path: Path) -> None:
    """A log that does not know the last event was made anew: the note is not believed."""
    file, home, _ = cut_in_the_middle(tmp_path)
    anew, expected = run(Gateway(), home, file), whole(tmp_path, file)
    assert anew.outcomes["duplicate"] == 1, "the question whether it knows the last event was its first record"
    assert anew.outcomes["accepted"] + 1 == expected["accepted"] and anew.problems == expected["problems"]


def test_another_file_gets_everything(tmp_path: Path) -> None:
    """A file that changed before the cut is sent from its beginning, and so is one that became shorter."""
    file, home, to = cut_in_the_middle(tmp_path)
    note, text, before = notes(home)[0], file.read_bytes(), len(to.taken)
    kept = note.read_bytes()
    file.write_bytes(text.replace(b'"e1"', b'"E1"', 1))
    changed = run(to, home, file).outcomes
    assert changed["duplicate"] == before - 1 and "E1" in to.taken
    note.write_bytes(kept)
    file.write_bytes(text[:50])
    assert run(to, home, file).outcomes["duplicate"] == 1


def test_again_begins_anew(tmp_path: Path) -> None:
    """With --again what was sent is sent again, and is a duplicate."""
    file, home, to = cut_in_the_middle(tmp_path)
    before = len(to.taken)
    assert run(to, home, file, anew=True).outcomes["duplicate"] == before > 8


def test_a_file_that_grew_goes_on(tmp_path: Path) -> None:
    """Lines behind the end are new lines; those before the cut are not sent again."""
    file, home, to = cut_in_the_middle(tmp_path)
    with file.open("ab") as out:
        out.write(b'{"org": "acme", "source": "s", "id": "late"}')
    first, to.posted = len(to.taken), []
    report = SendReport()
    before = send_file(to, Settings(home=home), file, report)  # type: ignore[arg-type]
    probe, *rest = [event["id"] for event in to.posted if "id" in event]
    assert before > 10 and rest[-1] == "late" and list(to.taken)[first - 1] == probe
    assert not set(rest) & set(list(to.taken)[:first]) and not report.outcomes["duplicate"]


def test_what_became_of_each_line_is_written(tmp_path: Path) -> None:
    """One object a line that is not empty, in order, with a receipt or the reason; a run that goes on writes on."""
    file, home, to = written(tmp_path), tmp_path / "home", Gateway()
    to.ends = (5, KeyboardInterrupt())
    told = tmp_path / "outcomes.ndjson"
    with pytest.raises(CutShort):
        run(to, home, file, outcomes=told)
    run(to, home, file, outcomes=told)
    rows = [json.loads(one) for one in told.read_text().splitlines()]
    assert [row["line"] for row in rows] == [n for n in range(1, LINES + 1) if line(n).strip()]
    for row in rows:
        text = line(row["line"])
        if b"cut off" in text:
            assert row["status"] == "rejected" and row["said"].startswith("not JSON: "), row
        elif b"id" not in text:
            assert row["said"] == "Object missing required field `id`; expected: org, source and id"
        else:
            assert row["status"] == "accepted" and row["receipt"].startswith("raw-events/0@")
    with pytest.raises(DeclarationError, match="cannot be written"):
        run(to, home, file, outcomes=tmp_path / "no" / "folder")


def test_a_cut_counts_once_in_the_engine(tmp_path: Path) -> None:
    """A metric over what was sent in two parts, the second of which repeats a request, counts each event once."""
    driver = Driver(SECRET, partitions=3)
    driver.apply(ORG, FILES, NOW)
    to = DriverClient(driver, org=ORG)
    file = tmp_path / "visits.ndjson"
    file.write_text("".join(json.dumps(visit(f"v{i}", T0 + i * 1000)) + "\n" for i in range(30)))
    to.fails_after = 3
    with pytest.raises(CutShort):
        run(to, tmp_path / "home", file)
    to.fails_after = None
    assert run(to, tmp_path / "home", file).outcomes["accepted"] == 30
    assert to.ask("visits") == 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name;amount\n" + b"x;1\n" * 200, "none of the first 100 lines is JSON.*fix: of a table, `milepost connect csv"),
        (b'[\n' + b' {"id":\n' * 200, "none of the first 100 lines is JSON.*fix: `jq -c"),
        (bytes(range(256)) * 50_000, None),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused_early(tmp_path: Path, text: bytes, said: str | None) -> None:
    """A table, a document over many lines: refused at the hundredth line with what may help; bytes: no line is taken."""
    file = tmp_path / "file"
    file.write_bytes(text)
    to = Gateway()
    if said is None:
        with pytest.raises(DeclarationError, match="one whole event a line was expected"):
            run(to, tmp_path / "home", file)
    else:
        with pytest.raises(DeclarationError, match=said):
            run(to, tmp_path / "home", file)
    assert not to.taken


def test_lines_of_another_shape_are_named(tmp_path: Path) -> None:
    """An array on a line, a line that is too long, one nested too deep: each is rejected with its reason, others go."""
    file = tmp_path / "file"
    long = b'{"id": "' + b"x" * (LINE_BYTES_MAX + 10) + b'"}\n'
    file.write_bytes(b'{"id": "1"}\n[{"id": "2"}]\n' + long + b"[" * 200_000 + b'\n{"id": "5"}')
    report = run(Gateway(), tmp_path / "home", file)
    assert report.outcomes == {"accepted": 2, "rejected": 3}
    said = {one["line"]: one["said"] for one in report.problems}
    assert "a JSON array came" in said[2] and "at most 2,097,152 bytes" in said[3] and said[4].startswith("not JSON")


class Slow(http.server.BaseHTTPRequestHandler):
    """A gateway over HTTP that answers nothing behind 3,000 events before somebody has interrupted."""

    protocol_version = "HTTP/1.1"
    gateway = Gateway()
    got = threading.Event()
    interrupted = threading.Event()

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = json.dumps(self.gateway.post("", events)).encode()
        if len(self.gateway.taken) > 3000:
            self.got.set()
            self.interrupted.wait(60)
        self.send_response(202)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def slow() -> Iterator[http.server.ThreadingHTTPServer]:
    Slow.gateway, Slow.got, Slow.interrupted = Gateway(), threading.Event(), threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_ctrl_c_in_the_middle_says_how_to_go_on(slow: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    """SIGINT: exit code 130, one JSON document that says how far it came, no traceback; the second run does the rest."""
    total = 20_000
    file = tmp_path / "events.ndjson"
    file.write_text("".join(f'{{"org": "acme", "source": "s", "id": "{i}"}}\n' for i in range(total)))
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MILEPOST_HOME": str(tmp_path / "home"),
        "MILEPOST_PORT": str(slow.server_address[1]),
    }
    command = [sys.executable, "-m", "milepost", "send", str(file), "--json"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background of a shell it is ignored
    )  # fmt: skip
    assert Slow.got.wait(60)
    running.send_signal(signal.SIGINT)
    Slow.interrupted.set()
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == cli.INTERRUPTED, stderr
    told = json.loads(stdout)
    assert 3000 <= told["lines"] < total and told["accepted"] == told["lines"]
    assert "stopped by Ctrl-C" in told["error"] and "Traceback" not in stderr
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    rest = json.loads(done.stdout)
    assert rest["lines_before"] == told["lines"] and rest["accepted"] + rest.get("duplicate", 0) == total
    assert len(Slow.gateway.taken) == total and f"{told['lines']:,} lines were sent before" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_listens_is_no_worker(tmp_path: Path) -> None:
    """A port where something else speaks HTTP, or none: said at once, with the setting that names the right one."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"http://127.0.0.1:{server.server_address[1]}", patience_s=5.0) as client,
            pytest.raises(StoreError, match=r"is no worker of Milepost: JSON was expected; fix: set MILEPOST_PORT"),
        ):
            client.get("/v1/metrics")
    finally:
        server.shutdown()
        server.server_close()
