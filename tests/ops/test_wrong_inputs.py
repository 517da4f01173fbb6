"""What a new user gets wrong, and what they are told: every message says what came, what was expected, and what to do.

all commands   an option that is misspelt, an argument too many or missing, a setting, no worker, another one, Ctrl-C
some           files of another kind, folders that are none, ports that are taken, a second `up`
with a worker  names that nobody knows, times and dimensions that are none
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from milepost.ops import cli, processes, provision
from milepost.ops.processes import free_ports
from milepost.ops.settings import Settings
from milepost.ops.supervise import Supervisor
from milepost.schemas.errors import DeclarationError
from tests.agents.test_views import Site, Tables, Worker, filled, served
from tests.support.commands import TABLE, needed, run

HELPS = re.compile(
    r"fix: |Fix: |expected|did you mean|known|Known|one of|Possible options|Missing (argument|option|parameter)"
    r"|unexpected extra argument|give --|was sent before|again|holds no|Did you mean|lists them|lists which|Input should be|is not a folder"
)
PYTHON = re.compile(r"Traceback|\b[A-Z][A-Za-z]+(Error|Exception)\b|\[Errno|<class|object at 0x")
NO_SETTINGS = {("init",), ("test",), ("doctor",), ("connect", "csv"), ("connect", "ndjson"), ("restore",)}
"""Commands that read none, or (of an absent mapping) something else first."""


def flat(text: str) -> str:
    """Without the frames that usage errors are shown in."""
    return re.sub(r"\s+", " ", re.sub(r"[│╭╮╰╯─]", " ", text))


def checked(told: Result, code: int) -> str:
    """What was said on stderr, of which no word is Python's, and which helps."""
    said = flat(told.stderr)
    assert isinstance(told.exception, SystemExit), (told.exception, said)
    assert told.exit_code == code, said
    assert not PYTHON.search(said), said
    assert HELPS.search(said) or code == cli.INTERRUPTED, said
    return said


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home and folder, and a broker and a worker that are not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MILEPOST_BROKER", "127.0.0.1:1")
    monkeypatch.setenv("MILEPOST_PORT", str(free_ports(1)[0]))
    monkeypatch.setattr(provision, "ANSWER_S", 0.3)
    return tmp_path


# --- all commands


@pytest.mark.parametrize("path", TABLE, ids=" ".join)
def test_an_option_that_is_misspelt(path: tuple[str, ...], nowhere: Path) -> None:
    """It is named, with the option that was meant, and nothing is done."""
    said = checked(run(*path, *needed(path), "--jsno"), cli.DECLARATION)
    assert "No such option: --jsno" in said and "--json" in said
    assert not list(nowhere.iterdir())


@pytest.mark.parametrize("path", TABLE, ids=" ".join)
def test_an_argument_too_many_or_missing(path: tuple[str, ...], nowhere: Path) -> None:
    """A word that no argument takes is named; one that is missing, too."""
    many = any(one.nargs == -1 for one in TABLE[path].params)
    if not many and not hasattr(TABLE[path], "commands"):
        arguments = [one for one in TABLE[path].params if one.param_type_name == "argument"]
        given = [word for one in arguments if not one.required for word in ["absent"]]
        said = checked(run(*path, *needed(path), *given, "toomuch"), cli.DECLARATION)
        assert "unexpected extra argument" in said and "toomuch" in said
    for one in TABLE[path].params:
        if one.required:
            said = checked(run(*path), cli.DECLARATION)
            assert "Missing" in said
            break
    assert not list(nowhere.iterdir())


@pytest.mark.parametrize("path", sorted(TABLE.keys() - NO_SETTINGS), ids=" ".join)
def test_a_setting_that_is_none(path: tuple[str, ...], nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that does not hold, and a name that is misspelt, end every command, with what was expected."""
    monkeypatch.setenv("MILEPOST_PARTITIONS", "many")
    code = cli.FAILED if path == ("demo",) else cli.DECLARATION
    said = checked(run(*path, *needed(path)), code)
    if "absent" not in said:  # a file that is missing may be said first
        assert "MILEPOST_PARTITIONS='many': expected a whole number from 1 to 256" in said
        monkeypatch.delenv("MILEPOST_PARTITIONS")
        monkeypatch.setenv("MILEPOST_PARTITION", "4")
        assert "did you mean MILEPOST_PARTITIONS? `" in checked(run(*path, *needed(path)), code)


def asks_a_worker() -> list[tuple[str, ...]]:
    return [path for path in TABLE if path[0] in ASKING or path[:2] == ("connect", "git")]


ASKING = {"query", "explain", "diff", "watch", "digest", "identity", "records", "complete", "milestones"}


@pytest.mark.parametrize("path", asks_a_worker(), ids=" ".join)
def test_no_worker_or_ctrl_c(path: tuple[str, ...], nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker: where it was looked for, and how to start one.  Ctrl-C: its own exit code, and no more words."""
    words = [*path, *needed(path)]
    said = checked(run(*words), cli.NOTHING_ANSWERS)
    assert "no worker answers at http://127.0.0.1:" in said and "fix: start one with `milepost up`" in said

    def pressed(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "answers", pressed)
    told = run(*words)
    if path == ("watch",):
        assert told.exit_code == 0 and told.stderr == "", "watching is ended so"
    else:
        assert checked(told, cli.INTERRUPTED).strip() == "milepost: stopped by Ctrl-C"


@pytest.fixture
def another(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """MILEPOST_PORT leads to something that speaks HTTP and is no worker."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MILEPOST_PORT", str(server.server_address[1]))
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", asks_a_worker(), ids=" ".join)
def test_the_port_of_something_else(path: tuple[str, ...], another: int, tmp_path: Path) -> None:
    """What answers is no worker: that is said at once, with the setting that names the right port."""
    subprocess.run(["git", "init", "--quiet", "absent:x"], cwd=tmp_path, check=True)
    said = checked(run(*path, *needed(path)), cli.NOTHING_ANSWERS)
    assert f"what answers at http://127.0.0.1:{another} is no worker of Milepost" in said and "MILEPOST_PORT" in said


# --- files and folders


@pytest.fixture
def files(nowhere: Path) -> Path:
    """What a person may have at hand: tables, documents, pictures, bundles with mistakes."""
    (nowhere / "table.csv").write_text("Id;Name\n1;x\n")
    (nowhere / "empty").touch()
    (nowhere / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    (nowhere / "folder").mkdir()
    (nowhere / "rows.yaml").write_text("source: s\ntype: t\ntime: {column: At}\ndata: {name: Name}\n")
    (nowhere / "typo.yaml").write_text("sorce: s\ntype: t\ntime: {column: At}\ndata: {name: Name}\n")
    (nowhere / "tabs.yaml").write_text("source:\n\t- s\n")
    for name, text in (
        ("good", "sources: {}\n"),
        ("tabs", "sources:\n\tx: 1\n"),
        ("typo", "sorces: {}\n"),
        ("no", "3"),
    ):
        (nowhere / name).mkdir()
        (nowhere / name / "milepost.yaml").write_text(text)
    for name in ("good", "typo"):
        (nowhere / name / "tests").mkdir()
        (nowhere / name / "tests" / "t.yaml").write_text("tests: {a: {given: [{tme: now}]}}\n")
    return nowhere


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("init folder/../empty", 2, "empty is not a folder; fix: another name"),
        ("init --for svn", 2, "--for svn: there is no such bundle to begin with; fix: one of shop, git"),
        ("init good", 2, "good holds milepost.yaml already; nothing was written; fix: another folder, --schema"),
        ("test", 2, ". holds no milepost.yaml"),
        ("test absent", 2, "absent holds no milepost.yaml; a bundle is a folder with milepost.yaml"),
        ("test table.csv", 2, "table.csv holds no milepost.yaml"),
        ("test tabs", 2, "holds no tests; fix: `milepost init` writes one"),
        ("test good", 2, "tests/t.yaml:1:"),
        ("test typo", 2, "did you mean 'time'?"),
        ("plan absent --org a", 2, "absent holds no milepost.yaml"),
        ("plan --org a", 2, "either a folder, or --rollback [N] or --to BUNDLE was expected"),
        ("plan typo --org a", 2, "did you mean 'sources'?"),
        ("plan no --org a", 2, "milepost.yaml:1:1: "),
        ("plan good --rollback --org a", 2, "either a folder, or --rollback"),
        ("plan good --org a", 3, "no Kafka broker answers at 127.0.0.1:1 ("),
        ("apply table.csv --org a", 2, "table.csv holds no milepost.yaml"),
        ("apply tabs --org a", 2, "milepost.yaml:2:1: "),
        ("apply good --org a", 3, "fix: start the cluster, or correct MILEPOST_BROKER"),
        ("apply --rollback --org a", 3, "no Kafka broker answers"),
        ("apply --to 12 --org a", 3, "no Kafka broker answers"),
        ("send absent.ndjson", 2, "absent.ndjson is not there; expected a file with one JSON event a line, or - for stdin"),
        ("send folder", 2, "folder is not a file; expected"),
        ("send table.csv", 3, "no worker answers"),
        ("tail raw-event", 2, "did you mean raw-events? Known: raw-events, signals"),
        ("tail raw-events --from yesterday", 2, "expected start, end, a time as 2013-05-12T12:00:00Z, or -10"),
        ("tail raw-events -n 0", 2, "'-n': Input should be greater than or equal to 1"),
        ("tail raw-events", 3, "no Kafka broker answers at 127.0.0.1:1 ("),
        ("query m --by a --every 1d", 3, "no worker answers"),
        ("connect git folder", 3, "no worker answers"),
        ("connect csv table.csv --map absent.yaml", 2, "absent.yaml cannot be read: No such file or directory"),
        ("connect csv table.csv --map typo.yaml", 2, "typo.yaml:1:1: 'sorce' is no key"),
        ("connect csv table.csv --map tabs.yaml --dry-run", 2, "tabs.yaml:2:1: "),
        ("connect csv table.csv --map rows.yaml --dry-run", 2, "names no organisation; fix: org: … in it, or --org"),
        ("connect csv table.csv --map rows.yaml --dry-run --org a", 2, "column"),
        ("connect csv absent.csv --map rows.yaml --dry-run --org a", 2, "absent.csv is not a file; the table was expected"),
        ("connect csv empty --map rows.yaml --dry-run --org a", 2, "the file is empty; a first line with the names"),
        ("connect csv picture.png --map rows.yaml --dry-run --org a", 2, "picture.png is not utf-8"),
        ("connect ndjson table.csv --map rows.yaml --dry-run --org a", 1, ""),
        ("connect ndjson picture.png --map rows.yaml --dry-run --org a", 2, "picture.png is not utf-8"),
        ("connect webhook amplitude", 2, "'amplitude' is no system that posts here; fix: one of segment, snowplow"),
        ("backup folder", 3, "no Kafka broker answers"),
        ("restore", 2, "either a folder or --finish was expected"),
        ("restore folder", 2, "folder holds no manifest.json: no backup, or one that was not finished"),
        ("restore table.csv", 2, "table.csv holds no manifest.json"),
        ("restore folder --finish", 2, "either a folder or --finish was expected"),
        ("bench --only nothing", 2, "there is no such part; known are"),
        ("demo --exit --data absent", 1, "absent has neither flights.csv nor flights.csv.zip"),
        ("demo --exit --data folder", 1, "folder has neither flights.csv"),
        ("up --port many", 2, "Invalid value for '--port'"),
        ("up --port 99999", 2, "MILEPOST_PORT='99999': expected a whole number from 1 to 65535"),
        ("up --partitions 0", 2, "expected a whole number from 1 to 256"),
        ("up", 3, "no Kafka broker answers at 127.0.0.1:1 ("),
        ("worker", 3, "fix: start the cluster, or correct MILEPOST_BROKER"),
        ("worker --name A", 2, "MILEPOST_WORKER='A': expected at most 63 of a-z"),
        ("describe --check", 3, "no Kafka broker answers"),
        ("reset", 3, "no Kafka broker answers"),
    ],
)  # fmt: skip
def test_a_file_or_a_word_of_another_kind(typed: str, code: int, said: str, files: Path) -> None:
    """What came, what was expected, what to do; nothing is written but what was there."""
    before = sorted(files.rglob("*"))
    told = run(*typed.split())
    if said:
        assert said in checked(told, code)
    else:
        assert told.exit_code == code and "not JSON" in told.stdout
    made = [one for one in sorted(files.rglob("*")) if one not in before]
    assert [one for one in made if not one.is_relative_to(files / "home")] == []


def test_an_outside_broker_that_is_no_address(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MILEPOST_BROKER wants host:port."""
    for text in ("nonsense", "http://k:9092", "k:", "k:9092;k2:9092", ":9092"):
        monkeypatch.setenv("MILEPOST_BROKER", text)
        assert "expected host:port, or several" in checked(run("describe"), cli.DECLARATION)
    for text in ("k:9092", "k:9092, k2:9092", "[::1]:9092", "k_1.example:9092"):
        monkeypatch.setenv("MILEPOST_BROKER", text)
        assert run("describe").exit_code == 0


class Taker(http.server.BaseHTTPRequestHandler):
    """A gateway that takes every event with an id."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        items: list[dict[str, Any]] = [
            {"status": "accepted", "receipt": "raw-events/0@1"}
            if isinstance(one, dict) and "id" in one
            else {"status": "rejected", "problem": {"detail": "Object missing required field `id`", "fix": "org, source and id"}}
            for one in events
        ]  # fmt: skip
        content = json.dumps({"items": items}).encode()
        self.send_response(202)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def taker(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MILEPOST_PORT", str(server.server_address[1]))
    yield files
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (b"Id;Name\n1;x\n", 1, "line 1: not JSON: Expecting value in column 1; one whole event a line was expected"),
        (b"Id;Name\n" * 300, 2, "none of the first 100 lines is JSON, one whole event a line was expected; fix: of a table"),
        (b'[\n{"id": 1},\n{"id": 2}\n]\n', 1, "line 2: not JSON: Extra data in column 10"),
        (b'[{"id": 1}]\n', 1, "line 1: a JSON array came, one event a line was expected; fix: `jq -c '.[]' FILE"),
        (b'{\n  "id": 1\n}\n', 1, "line 1: not JSON: Expecting property name"),
        (b'{"id": "1"\n', 1, "line 1: not JSON: Expecting ',' delimiter in column"),
        (b'{"name": "1"}\n', 1, "line 1: Object missing required field `id`; expected: org, source and id"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", 1, "line 1: not JSON: "),
        (b"", 0, "no events"),
        (b"\n\n", 0, "no events"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_events(text: bytes, code: int, said: str, taker: Path) -> None:
    """`send` names the line, what came, and what helps; from a file and from stdin alike."""
    (taker / "some").write_bytes(text)
    told = run("send", "some")
    assert told.exit_code == code and said in flat(told.stdout + told.stderr), told.stdout + told.stderr
    assert not PYTHON.search(told.stdout + told.stderr)


# --- ports, and a second start


def test_ports_that_are_taken(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` names the port that is taken, what needs it, and the option and setting for another one."""
    monkeypatch.delenv("MILEPOST_BROKER")
    with socket.create_server(("127.0.0.1", 0)) as held:
        (port,) = held.getsockname()[1:2]
        said = checked(run("up", "--port", str(port)), cli.DECLARATION)
        assert f"port {port} is taken, the page and the web views need it; fix: stop what listens there" in said
        said = checked(run("up", "--broker-port", str(port)), cli.DECLARATION)
        assert f"port {port} is taken, the embedded broker needs {port} and {port + 1}; fix: " in said
        assert "--broker-port, MILEPOST_BROKER_PORT" in said


def test_a_second_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second `up` says that the first runs, and where; beside it another home and other ports would do."""
    answers = type("Ready", (Taker,), {"do_GET": Taker.do_POST})
    answers.do_GET = lambda self: (self.send_response(200), self.send_header("Content-Length", "0"), self.end_headers())  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        settings = Settings(home=tmp_path, port=server.server_address[1])
        with pytest.raises(
            DeclarationError, match=r"a worker of Milepost answers at http://127.* already; fix: use it"
        ):
            Supervisor(settings).start()
    finally:
        server.shutdown()
        server.server_close()


# --- with a worker


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("site")), Tables(filled().reader)))


@pytest.fixture
def worker(site: Site, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker's views over ten days of flights; an empty folder, a folder and a repository in it."""
    monkeypatch.setenv("MILEPOST_PORT", str(site.port))
    (nowhere / "folder").mkdir()
    subprocess.run(["git", "init", "--quiet", "repository"], cwd=nowhere, check=True)
    return nowhere


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("query departurs", "did you mean departures?"),
        ("query departures --dim orign=EWR", "did you mean origin?"),
        ("query departures --dim origin", "--dim 'origin': expected name=value"),
        ("query departures --company carrier_cod:UA", "carrier_code"),
        ("query departures --company united", "key:value"),
        ("query departures --at yesterday", "at is no RFC 3339 time with a zone: 'yesterday'"),
        ("query departures --at 2013-01-01T00:00:00", "at is no RFC 3339 time with a zone"),
        ("query departures --basis shown", "did you mean as_shown?"),
        ("query departures --window 3x", "window"),
        ("query departures --tz Europe/Berln", "did you mean Europe/Berlin?"),
        ("query departures --by orgin", "did you mean origin?"),
        ("query departures --every 1d", "from"),
        ("query departures --after x", "receipt"),
        ("query departures --org port-autority", "did you mean port-authority?"),
        ("query --by origin", "a metric was expected; `milepost query` alone lists which there are"),
        ("explain departurs", "did you mean departures?"),
        ("explain departures --limit 5000", "1000"),
        ("explain departures --next x", "next"),
        ("diff departures --to tomorrow", "to is no RFC 3339 time with a zone: 'tomorrow'"),
        ("diff departurs --at 2013-01-04T00:00:00Z", "did you mean departures?"),
        ("diff departures --to-basis shown", "as_shown"),
        ("watch departurs -n 1", "did you mean departures?"),
        ("watch -n 1", "metric"),
        ("watch --milestone twenty -n 1", "did you mean twenty_departures?"),
        ("identity resolve UA", "'UA' is no key:value; expected one as carrier_code:UA"),
        ("identity resolve carrier_cod:UA", "did you mean carrier_code"),
        ("identity link carrier_code:UA", "different ones, 1 came"),
        ("identity link carrier_code:UA carrier_code:NOPE", "NOPE"),
        ("identity unlink nothing:UA", "nothing"),
        ("identity membership x carrier_code:UA", "key:value"),
        ("identity review --org other", "no organisation 'other' has definitions"),
        ("records show aircrft N14228", "did you mean aircraft?"),
        ("records history aircrft N14228", "did you mean aircraft?"),
        ("records show aircraft N14228 --at yesterday", "at is no RFC 3339 time with a zone"),
        ("milestones --plan on_time", "did you mean on_time_2013?"),
        ("milestones --history", "--history is of one company and of all times: give --company"),
        ("milestones tick on_time_2013 nothing x carrier_code:UA", "has no such milestone"),
        ("milestones settle on_time_2013 twenty_departures carrier_code:UA x", "dispute"),
        ("complete flghts 2013-01-01T00:00:00Z", "did you mean flights?"),
        ("complete flights yesterday", "expected"),
        ("connect git folder", "folder is not a git repository; fix: the folder of a clone"),
        ("connect git absent", "absent is not a folder; fix: the folder of a clone"),
        ("connect git repository", "know no source git: nothing was sent; fix: `milepost init FOLDER --for git`"),
    ],
)  # fmt: skip
def test_a_name_that_nobody_knows(typed: str, said: str, worker: Path) -> None:
    """The worker's refusal, in its words, with a guess or a fix; its own exit code."""
    told = run(*typed.split())
    assert told.exit_code in (cli.REFUSED, cli.DECLARATION), told.stdout + told.stderr
    assert said in checked(told, told.exit_code)
    with_json = run(*typed.split(), "--json")
    assert json.loads(with_json.stdout)["error"] and with_json.exit_code == told.exit_code
