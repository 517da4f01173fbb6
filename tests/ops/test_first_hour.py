"""What all commands have in common, and the small things of a first hour: --json, completion, lists, next steps."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from milepost.ops import cli, completing, provision, tail
from milepost.ops.messages import decoded
from milepost.ops.processes import free_ports
from milepost.schemas.errors import DeclarationError
from milepost.schemas.serde import wire
from milepost.topology.line import all_topics, leg
from tests.support.commands import TABLE, needed, run
from tests.support.workers import Deployment


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home and folder, and a broker and a worker that are not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MILEPOST_BROKER", "127.0.0.1:1")
    monkeypatch.setenv("MILEPOST_PORT", str(free_ports(1)[0]))
    monkeypatch.setattr(provision, "ANSWER_S", 0.3)
    return tmp_path


def test_the_table_holds_the_commands() -> None:
    """The walk over the commands finds those of the interface."""
    assert {("up",), ("send",), ("connect", "git"), ("milestones",), ("milestones", "tick")} <= set(TABLE)


@pytest.mark.parametrize("path", TABLE, ids=" ".join)
def test_every_command_takes_json(path: tuple[str, ...]) -> None:
    """Each command of the table has --json and --help, and says in a sentence what it does."""
    options = {name for one in TABLE[path].params for name in one.opts}
    assert "--json" in options
    assert (TABLE[path].help or "").strip().split("\n")[0].rstrip().endswith((".", ")"))


@pytest.mark.parametrize("path", TABLE, ids=" ".join)
def test_with_json_stdout_is_json_whatever_happens(path: tuple[str, ...], nowhere: Path) -> None:
    """Where nothing is there that a command needs, stdout is one JSON document, stderr the reason, the code one of ours."""
    told = run(*path, *needed(path), "--json")
    assert told.exit_code in (0, cli.FAILED, cli.DECLARATION, cli.NOTHING_ANSWERS), (told.stderr, told.exception)
    assert "Traceback" not in told.stderr and isinstance(told.exception, SystemExit | None)
    answer = json.loads(told.stdout)
    if told.exit_code:
        assert answer["error"] and str(answer["error"]).split("\n")[0] in told.stderr


def complete(monkeypatch: pytest.MonkeyPatch, typed: str) -> set[str]:
    """What bash is offered behind `milepost TYPED`."""
    words = f"milepost {typed}"
    monkeypatch.setenv("_MILEPOST_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    shown = CliRunner().invoke(cli.app, [], prog_name="milepost")
    return set(shown.stdout.split())


@pytest.mark.parametrize("path", TABLE, ids=" ".join)
def test_shells_complete_every_command_and_its_options(
    path: tuple[str, ...], nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed half is completed: each command by its first letters, and its options behind --."""
    *above, last = path
    assert last in complete(monkeypatch, " ".join([*above, last[: len(last) // 2 + 1]]))
    assert "--json" in complete(monkeypatch, " ".join([*path, "--js"]))


def test_shells_complete_what_can_be_named(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics, kinds of starters, systems and bases are offered; without a worker no metric is, and no error."""
    assert complete(monkeypatch, "tail raw") == {"raw-events"}
    assert complete(monkeypatch, "tail ") == {topic.name for topic in all_topics()}
    assert complete(monkeypatch, "init --for ") == {"shop", "git"}
    assert complete(monkeypatch, "connect webhook s") == {"segment", "snowplow"}
    assert complete(monkeypatch, "query m --basis ") == {"latest", "corrected", "as_shown"}
    assert complete(monkeypatch, "query de") == set()
    monkeypatch.setenv("MILEPOST_PARTITIONS", "many")
    assert completing.metrics("de") == [], "a setting that does not hold is said by the command, not while one types"


class Views(http.server.BaseHTTPRequestHandler):
    """A worker with two metrics."""

    def do_GET(self) -> None:
        metrics = [
            {"name": "departures", "unit": "flights", "aggregate": "count", "formula": None, "dimensions": ["origin"]},
            {"name": "rate", "unit": None, "aggregate": None, "formula": "a / b", "dimensions": []},
        ]
        span = {"from": "2013-01-01T00:00:00Z", "to": "2013-01-08T00:00:00Z"}
        content = json.dumps({"org": "acme", "metrics": metrics, "time_range": span}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def views(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Views)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MILEPOST_PORT", str(server.server_address[1]))
    yield
    server.shutdown()
    server.server_close()


def test_a_query_without_a_name_lists_what_can_be_asked(views: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, unit, what is counted, dimensions, and the time that events span; names are completed."""
    lines = run("query").stdout.splitlines()
    assert lines[0].split() == ["departures", "flights", "count", "by", "origin"]
    assert lines[1].split() == ["rate", "a", "/", "b"]
    assert lines[2] == "acme: events from 2013-01-01T00:00:00Z to 2013-01-08T00:00:00Z"
    assert json.loads(run("query", "--json").stdout)["org"] == "acme"
    assert "a metric was expected" in run("query", "--by", "origin").stderr
    assert complete(monkeypatch, "query de") == {"departures"}


def test_init_says_what_comes_next(nowhere: Path) -> None:
    """The next commands stand on stderr with the folder's name; stdout is the list of files."""
    told = run("init", "desk")
    assert "milepost test desk" in told.stderr and "milepost apply desk --org NAME" in told.stderr
    assert "next" not in told.stdout and "milepost.yaml" in told.stdout
    assert "milepost connect git PATH" in run("init", "history", "--for", "git").stderr
    assert "next" not in run("init", "desk", "--schema").stderr


def test_where_tail_begins() -> None:
    """start, end, a time, so many messages before the end; anything else is said with what was expected."""
    assert tail.beginning("start").kind == "start" and tail.beginning("end") == tail.END
    assert tail.beginning("-10") == tail.Beginning(kind="last", number=10)
    assert tail.beginning("2013-01-01T00:00:00Z") == tail.Beginning(kind="time", number=1_356_998_400_000)
    for text in ("-0", "--10", "10", "yesterday", "2013-01-01T00:00:00", "-99999999999", ""):
        with pytest.raises(DeclarationError, match="expected start, end, a time as"):
            tail.beginning(text)


class Message:
    """A message as the client gives it."""

    def __init__(self, topic: str, key: bytes, value: bytes | None) -> None:
        self._told = topic, key, value

    def topic(self) -> str:
        return self._told[0]

    def key(self) -> bytes:
        return self._told[1]

    def value(self) -> bytes | None:
        return self._told[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def headers(self) -> None:
        return None


@pytest.mark.parametrize(
    ("topic", "key", "value", "expected"),
    [
        ("raw-events", b"k", b'{"id": 1}', {"id": 1}),
        ("raw-events", b"k", None, None),
        ("raw-events", b"k", b"\xff\xfe", {"hex": "fffe", "bytes": 2}),
        ("ingest-changelog", b"\x00own", wire("Own").encode({"worker": "w", "incarnation": "i", "leg": "ingest", "partition": 3}),
         {"control": "own", "value": {"contract": "Own", "worker": "w", "incarnation": "i", "leg": "ingest", "partition": 3}}),
        ("ingest-changelog", b"\x02leaf", (5).to_bytes(8, "big") + (9).to_bytes(8, "big") + b"row",
         {"store": "keys", "epoch": 5, "upto": 9, "row": {"hex": b"row".hex(), "bytes": 3}}),
        ("ingest-changelog", b"\x02leaf", None, {"store": "keys", "deleted": True}),
        ("ingest-changelog", b"\x01x", (5).to_bytes(8, "big") + (9).to_bytes(8, "big") + b"\0\x02\0\0\0\x01abc" + b"\0\x01\xff\xff\xff\xffd",
         {"store": "seen", "epoch": 5, "upto": 9, "rows": 2,
          "first": [{"key": b"ab".hex(), "row": {"hex": b"c".hex(), "bytes": 1}}, {"key": b"d".hex(), "row": None}]}),
        ("measure-changelog", b"\x63x", b"1", {"undecodable": "measure has no store with the tag 99", "hex": "31", "bytes": 1}),
        ("measure-changelog", b"\x01x", b"1", {"store": "cells", "undecodable": "a row has 16 bytes or more, 1 came", "hex": "31", "bytes": 1}),
    ],
)  # fmt: skip
def test_each_kind_of_message_is_decoded(topic: str, key: bytes, value: bytes | None, expected: Any) -> None:
    """JSON, bytes, tombstones, what controls a changelog, rows, packed rows, and what is none of these."""
    told = decoded(Message(topic, key, value), topic)
    assert told["value"] == expected and told["at"] == f"{topic}/0@7" and told["key"] == key.hex()


@pytest.mark.broker
def test_tail_decodes_every_topic_of_ours(demo: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each topic of the line a few messages, of each kind there is: nothing of ours is shown as bytes."""
    for name, value in demo.settings.environment().items():
        monkeypatch.setenv(name, value)
    empty = set()
    for topic in all_topics():
        told = run("tail", topic.name, "--from", "-300", "--no-wait", "--json")
        assert told.exit_code == 0, told.stderr
        rows = [json.loads(one) for one in told.stdout.splitlines()]
        if not rows:
            empty.add(topic.name)
        for row in rows:
            value = row["value"]
            assert value is None or isinstance(value, dict), row
            assert value is None or not {"undecodable", "hex"} & value.keys(), row
        if topic.name.endswith("-changelog"):
            stores = {store.name for store in leg(topic.name.removesuffix("-changelog")).stores}
            assert {row["value"].get("store") for row in rows} - {None} <= stores
        if topic.name == "raw-events":
            assert {"control": "tick"} in [row["value"] for row in rows]
    assert {"raw-events", "signals", "definitions", "ingest-changelog", "measure-changelog"}.isdisjoint(empty)
    (bundle,) = [
        json.loads(one)["value"] for one in run("tail", "definitions", "--from-start", "--no-wait").stdout.splitlines()
    ]
    assert bundle["contract"] == "Bundle" and "departures" in bundle["files"]["milepost.yaml"]


def offset(at: str) -> int:
    """The offset of a position as tail writes it."""
    return int(at.rpartition("@")[2])


def places(positions: Iterable[str]) -> set[str]:
    """The partitions of positions: what stands before the offset."""
    return {f"{at.partition('@')[0]}@" for at in positions}


@pytest.mark.broker
def test_tail_begins_where_it_is_told(demo: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last n of each partition, those since a time, none at the end: as many as the log holds, in order."""
    for name, value in demo.settings.environment().items():
        monkeypatch.setenv(name, value)

    def rows(*where: str) -> list[Any]:
        told = run("tail", "raw-events", *where, "--no-wait")
        assert told.exit_code == 0, told.stderr
        return [json.loads(one) for one in told.stdout.splitlines()]

    assert rows() == [] and rows("--from", "end") == []
    assert len(rows("--from", "-2")) == 2 * demo.settings.partitions
    all_of = rows("--from", "start")
    assert len(all_of) >= 12_158 and rows("--from-start", "-n", "5") != []
    middle = sorted(row["time"] for row in all_of)[len(all_of) // 2]
    since = rows("--from", middle)
    known = {row["at"] for row in all_of}
    assert {row["at"] for row in since} & known == {row["at"] for row in all_of if row["time"] >= middle}
    # Ticks come each second: what came between the two looks is behind all that was there.
    ends = {place: max(offset(row["at"]) for row in all_of if row["at"].startswith(place)) for place in places(known)}
    assert all(offset(at) > ends[at.partition("@")[0] + "@"] for at in {row["at"] for row in since} - known)
    assert rows("--from", "2100-01-01T00:00:00Z") == []
    wrong = run("tail", "raw-event")
    assert wrong.exit_code == cli.DECLARATION and "did you mean raw-events?" in wrong.stderr


def test_no_setting_of_these_tests_is_left() -> None:
    """The tests above set the environment for themselves alone."""
    assert "_MILEPOST_COMPLETE" not in os.environ
