"""`milepost connect` as users run it: with a real broker and a real worker; and what needs neither."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from milepost.ops import cli, starter
from milepost.ops.client import Client
from milepost.ops.settings import Settings
from milepost.ops.testing import run_tests
from tests.support import repositories
from tests.support.workers import Deployment
from tests.topology.test_posts import BUNDLE, CALLS, PAYLOADS, payload

MAPPING = """
source: segment
type: track.order_completed
id: Id
time: At
delimiter: ";"
data:
  user_id: {value: nobody}
  properties: {column: Bought, as: json, required: true}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def rows(*arguments: str) -> Counter[str]:
    answer = told(run("query", "commits", "--json", "--org", "acme", *arguments))
    return Counter({row["label"]: row["value"] for row in answer["rows"]})


@pytest.mark.broker
def test_a_repository_is_counted_by_a_worker(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """init, apply, connect, query, one after the other: counts by person and domain are git's; again, nothing is sent."""
    at = repositories.written(tmp_path / "engine", 300)
    with Deployment(settings) as deployment:
        deployment.start()
        for name, value in deployment.settings.environment().items():
            monkeypatch.setenv(name, value)
        bundle = str(tmp_path / "bundle")
        early = run("connect", "git", str(at.path), "--org", "acme")
        assert early.exit_code == cli.DECLARATION and "milepost init FOLDER --for git" in early.stderr
        told(run("init", bundle, "--for", "git", "--json"))
        told(run("apply", bundle, "--org", "acme", "--json"))
        report = told(run("connect", "git", str(at.path), "--wait", "--json"))
        assert report["commits"]["accepted"] == 300 and report["org"] == "acme" and report["dead_letters"] == 0
        people = at.counts("%aE", 2**40)
        assert rows("--by", "person") == people
        domains: Counter[str] = Counter()
        for mail, count in people.items():
            if "@" in mail and not mail.endswith("@gmail.com"):
                domains[mail.rpartition("@")[2]] += count
        assert rows("--by", "company") == domains
        half = sorted(int(date) for (date,) in at.log("--format=%at"))[150] // 900 * 900
        assert rows("--by", "person", "--at", f"{iso(half)}") == at.counts("%aE", half)
        again = told(run("connect", "git", str(at.path), "--json"))
        assert again["sent_before"] == 300 and "accepted" not in again["commits"]
        with Client(deployment.settings.url) as client:
            assert client.get("/v1/dead-letters")["problems"] == []


def iso(seconds: int) -> str:
    from milepost.topology.bases import written

    return written(seconds * 1000)


@pytest.mark.broker
def test_tables_and_posts_are_counted_by_a_worker(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a table and posts over HTTP come into the same metrics; a second time they change nothing."""
    with Deployment(settings) as deployment:
        deployment.start()
        for name, value in deployment.settings.environment().items():
            monkeypatch.setenv(name, value)
        (tmp_path / "bundle" / "schemas").mkdir(parents=True)
        for name, text in BUNDLE.items():
            (tmp_path / "bundle" / name).write_bytes(text)
        told(run("apply", str(tmp_path / "bundle"), "--org", "acme", "--json"))
        (tmp_path / "map.yaml").write_text(MAPPING)
        lines = [f'R-{i};2025-03-0{i + 1}T10:15:00Z;{{"company": "bakery", "total": {i}}}\n' for i in range(5)]
        (tmp_path / "table.csv").write_text("".join(["Id;At;Bought\n", *lines]))
        table = ("connect", "csv", str(tmp_path / "table.csv"), "--map", str(tmp_path / "map.yaml"), "--org", "acme")
        assert told(run(*table, "--wait", "--json"))["accepted"] == 5
        with Client(deployment.settings.url) as client:
            for _ in range(2):
                receipts = [
                    item["receipt"]
                    for path, body in (("segment", {"batch": [CALLS[2]]}), ("snowplow", payload(*PAYLOADS[1:3])))
                    for item in client.post(f"/v1/connect/{path}", body)["items"]
                ]
                for receipt in receipts:
                    client.get("/v1/metrics", after=receipt)
                assert client.value("revenue")["value"] == 22.5
                assert client.value("revenue", company="company:bakery")["value"] == 10
                assert client.value("viewed", company="app:shop")["value"] == 2
        assert told(run(*table, "--wait", "--json"))["duplicate"] == 5


def test_the_bundle_for_git_passes_its_tests(tmp_path: Path) -> None:
    """What `init --for git` writes holds, and its rules do what its tests say; another kind is refused."""
    starter.write(tmp_path, "git")
    tested = run_tests(tmp_path)
    assert tested.failed == 0 and len(tested.results) == 2, tested.text()
    assert "one of shop, git" in run("init", str(tmp_path / "b"), "--for", "svn").stderr


def test_where_to_post_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The address with the organisation, what the types are, a post to try it with; a token is named, not shown."""
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    monkeypatch.setenv("MILEPOST_PORT", "6099")
    monkeypatch.setenv("MILEPOST_TOKEN", "a token of sixteen letters")
    for system in ("segment", "snowplow"):
        shown = run("connect", "webhook", system, "--org", "a b")
        assert f"http://127.0.0.1:6099/v1/connect/{system}?org=a+b" in shown.stdout
        assert "$MILEPOST_TOKEN" in shown.stdout and "sixteen" not in shown.stdout
        assert told(run("connect", "webhook", system, "--json"))["example"]
    assert "one of segment, snowplow" in run("connect", "webhook", "amplitude").stderr


def test_shells_complete_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """What bash, zsh and fish ask for while one types is answered with the commands' names."""
    monkeypatch.setenv("_MILEPOST_COMPLETE", "complete_bash")
    for typed, expected in (("milepost conn", {"connect"}), ("milepost connect ", {"git", "csv", "ndjson", "webhook"})):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
        shown = CliRunner().invoke(cli.app, [], prog_name="milepost")
        assert set(shown.stdout.split()) == expected
