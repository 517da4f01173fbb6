"""Dead letters over HTTP: listed, shown, previewed, repaired part by part; refused with a fix.  The line is a driver."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from milepost.agents.views import dead_letters
from milepost.ops import cli
from milepost.ops.settings import Settings
from milepost.topology.problems import begun
from milepost.topology.state import Output
from tests.agents.test_views import Answer, Site, Worker, served
from tests.support.repairing import problems_of
from tests.support.small import DAY, FILES, ORG, T0, visit
from tests.topology.test_repairs import FIX, broken, events
from tests.topology.test_revisions import engine, value

NOW = T0 + 30 * DAY


@dataclass
class Line(Worker):
    """Services whose sends are taken by the line at once.  dies: so many sends are acknowledged before it is killed"""

    dies: int = 1_000_000

    def now_ms(self) -> int:
        return NOW

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        if self.dies <= 0:
            raise RuntimeError("killed")
        self.dies -= 1
        driver = self.reader.driver
        offsets = [driver.append(one.topic, one.partition, one.key, one.value, one.headers, NOW) for one in outputs]
        driver.run()
        return offsets


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """60 events, of which 40 are broken by one deploy, and one of a type that nobody knows."""
    sent = [(broken(one) if n % 3 else one, T0 + 20 * DAY) for n, one in enumerate(events(60))]
    made = engine(*sent, (visit("odd", T0, type="vist"), T0 + 21 * DAY))
    yield from served(Line(Settings(home=tmp_path), made.reader))


def listed(site: Site, **query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = site.get("/v1/dead-letters", **query).json["problems"]
    return rows


def the(site: Site, reason: str = "contract_violation") -> str:
    (row,) = listed(site, reason=reason)
    return str(row["problem"])


def repair(site: Site, body: Any, *, dry_run: bool = False, problem: str = "") -> Answer:
    path = f"/v1/dead-letters/{problem or the(site)}/repair{'?dry_run=true' if dry_run else ''}"
    return site.call("POST", path, orjson.dumps(body), Content_Type="application/json")


def test_problems_are_listed_with_what_they_keep_from_being_counted(site: Site) -> None:
    """The newest first, filtered by what they are; every number a person needs to begin with."""
    unknown, deploy = listed(site)
    assert (unknown["reason"], unknown["type"], unknown["count"]) == ("unknown_type", "vist", 1)
    assert (deploy["state"], deploy["count"], deploy["open"], deploy["org"]) == ("open", 40, 40, ORG)
    assert deploy["concerned"]["rules"] == ["visited", "long_visit"] and "visits" in deploy["concerned"]["metrics"]
    assert (
        deploy["first"].startswith("2023-12-04")
        and deploy["obstacle"] is None
        and deploy["example"].startswith("raw-events/")
    )
    assert listed(site, reason="unknown_type") == [unknown] and listed(site, source="nobody") == []
    assert listed(site, state="open") == [unknown, deploy] and listed(site, state="repaired") == []
    got = site.get("/v1/dead-letters", state="opne")
    assert got.status == 422 and got.json["guess"] == "open"
    assert site.get("/v1/dead-letters", limit="1").json["next"] == "1"


def test_a_problem_is_shown_with_an_example_and_its_members(site: Site) -> None:
    """The example shows what the contract declares; members are all there, page by page, each with its place."""
    got = site.get(f"/v1/dead-letters/{the(site)}").json
    assert got["event"]["data"]["compani"] == "(text)" and got["event"]["data"]["page"] in "ab" and got["repairs"] == []
    rows: list[Any] = []
    following: str | None = "0"
    while following is not None:
        page = site.get(f"/v1/dead-letters/{the(site)}/members", limit="7", next=following).json
        rows += page["members"]
        following = page["next"]
    assert len({row["at"] for row in rows}) == 40 and {row["state"] for row in rows} == {"open"}
    for wrong in ("0" * 16, "x", "é" * 16, "../secret"):
        assert site.get(f"/v1/dead-letters/{wrong.encode().hex() if wrong == 'é' * 16 else wrong}").status == 404


def test_a_preview_writes_nothing_and_says_what_then_happens(site: Site) -> None:
    """All members are looked at; the effect on each metric, and the reasons of what would fail."""
    before = site.call("GET", "/v1/digest").body
    told = repair(site, {"mapping": FIX}, dry_run=True).json
    assert (told["open"], told["looked_at"], told["pass"], told["fail"], told["settled"]) == (40, 40, 40, 0, {})
    visits = next(one for one in told["metrics"] if one["metric"] == "visits")
    assert (visits["before"], visits["after"]) == (20, 60)
    without = repair(site, {}, dry_run=True).json
    assert (without["pass"], without["fail"]) == (0, 40) and without["failing"][0]["count"] == 40
    assert without["failing"][0]["why"] == "decode/contract_violation" and without["failing"][0]["example"].startswith(
        "raw-events/"
    )
    assert site.call("GET", "/v1/digest").body == before and listed(site)[1]["state"] == "open"


def test_a_problem_is_repaired_and_a_second_repair_changes_nothing(site: Site) -> None:
    """The mapping may be YAML; what was done is told with who did it; the second answer says that nothing is left."""
    yaml = "steps:\n  - {rename: data.compani, to: company}\n"
    told = repair(site, {"mapping": yaml, "by": "ann"}).json
    assert (told["state"], told["sent"], told["open"], told["next"]) == ("repaired", 40, 0, None)
    driver = site.worker.reader.driver
    assert value(driver, "visits") == 60
    got = site.get(f"/v1/dead-letters/{the(site)}").json
    assert got["state"] == "repaired" and [(one["by"], one["sent"], one["state"]) for one in got["repairs"]] == [
        ("ann", 40, "ended")
    ]
    assert got["repairs"][0]["mapping"] == FIX
    before, length = site.call("GET", "/v1/digest").body, [len(log) for log in driver.topics["raw-events"]]
    again = repair(site, {"mapping": FIX}).json
    assert (again["state"], again["sent"], again["open"]) == ("repaired", 0, 0)
    assert site.call("GET", "/v1/digest").body == before and [len(log) for log in driver.topics["raw-events"]] == length


def test_a_repair_goes_part_by_part_and_on_after_a_kill(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call repairs a bounded part.  Killed between half of the sends: asked again, each event counts once."""
    monkeypatch.setattr(dead_letters, "BATCH", 15)
    worker: Any = site.worker
    first = repair(site, {"mapping": FIX}).json
    assert (first["state"], first["sent"], first["open"]) == ("repairing", 15, 25) and first["next"]
    worker.dies = 1  # half of the next part is in the log
    assert repair(site, {"mapping": FIX, "next": first["next"]}).status == 500
    worker.dies = 1_000_000
    assert listed(site)[1]["state"] == "repairing" and value(worker.reader.driver, "visits") == 42
    sent, settled, following = 0, 0, None
    for _ in range(5):
        told = repair(site, {"mapping": FIX, "next": following}).json
        sent, settled = sent + told["sent"], settled + sum(told["settled"].values())
        if (following := told["next"]) is None:
            break
    assert (sent, settled, told["state"]) == (18, 7, "repaired") and value(worker.reader.driver, "visits") == 60
    assert not [one for one in worker.reader.driver.dead_letters if one["reason"] == "id_conflict"]


def test_of_two_repairs_one_goes_on(site: Site) -> None:
    """Another mapping while one has begun is refused, unless it says that it replaces it."""
    driver = site.worker.reader.driver
    problem = problems_of(driver).problems[bytes.fromhex(the(site))]
    key, told = begun(problem, b"somebody", '{"steps":[]}', "bob", NOW, replaces=False)
    driver.append("dead-letters", problem.partition, key, told, (), NOW)
    refused = repair(site, {"mapping": FIX})
    assert refused.status == 409 and b"somebody".hex() in refused.json["detail"] and "replace" in refused.json["fix"]
    assert repair(site, {"mapping": FIX, "replace": True}).json["state"] == "repaired"
    states = [one["state"] for one in site.get(f"/v1/dead-letters/{the(site)}").json["repairs"]]
    assert states == ["replaced", "ended"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"mapping": {"steps": [{"renam": "data.a"}]}}, 422, "rename"),
        ({"mapping": {"steps": [{"rename": "data.company_", "to": "company"}]}}, 422, "data.compani"),
        ({"mapping": {"steps": [{"set": "data.pge", "value": 1}]}}, 422, "data.page"),
        ({"mapping": "steps: ["}, 422, "not YAML"),
        ({"mapping": 5}, 422, "mapping"),
        ({"maping": {}}, 422, "maping"),
        ({"by": "x" * 300}, 422, "256"),
        ({"mapping": FIX, "next": "later"}, 422, "next"),
        ([], 422, "mapping"),
    ],
)
def test_a_wrong_repair_is_refused_and_sends_nothing(site: Site, body: Any, status: int, said: str) -> None:
    """Findings as for definitions, with place, guess and fix; nothing has begun."""
    length = [len(log) for log in site.worker.reader.driver.topics["raw-events"]]
    got = repair(site, body)
    assert got.status == status and said in got.body.decode() and got.json["fix"]
    assert [len(log) for log in site.worker.reader.driver.topics["raw-events"]] == length
    assert listed(site)[1]["state"] == "open" and site.get(f"/v1/dead-letters/{the(site)}").json["repairs"] == []


def test_what_cannot_be_repaired_says_why(site: Site) -> None:
    """A problem of bytes that nothing can be read of has an obstacle, and its repair is refused with it."""
    driver = site.worker.reader.driver
    driver.append("raw-events", 0, b"k", b"{", (), NOW)
    driver.run()
    row = listed(site, reason="not_decodable")[0]
    assert "source" in row["obstacle"]
    got = repair(site, {}, problem=row["problem"])
    assert got.status == 422 and got.json["detail"] == row["obstacle"]
    assert site.get(f"/v1/dead-letters/{row['problem']}").json["event"]["bytes"] == 1


def test_definitions_can_be_tried_before_they_are_applied(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that knows the unknown type: what its events would become, and add to a metric, before it is in force."""
    text = FILES["milepost.yaml"].replace(
        b"      idle: {schema: Visit}", b"      idle: {schema: Visit}\n      vist: {schema: Visit}"
    )
    text = text.replace(b"signals:\n", b"signals:\n  mistyped: {on: vist, fields: {page: data.page}}\n")
    text = text.replace(b"metrics:\n", b"metrics:\n  mistyped: {from: mistyped, aggregate: count}\n")
    files = {**FILES, "milepost.yaml": text}
    problem = the(site, "unknown_type")
    assert repair(site, {}, dry_run=True, problem=problem).json["fail"] == 1
    body = {"files": {name: one.decode() for name, one in files.items()}}
    told = repair(site, body, dry_run=True, problem=problem).json
    assert told["pass"] == 1 and told["metrics"] == [
        {"metric": "mistyped", "unit": "", "before": None, "after": 1, "reason": None}
    ]
    refused = repair(site, body, problem=problem)
    assert refused.status == 422 and "apply" in refused.json["fix"]
    body["files"]["milepost.yaml"] = text.decode().replace("on: vist", "on: vst")
    assert repair(site, body, dry_run=True, problem=problem).json["guess"] in ("vist", "visit")
    for name, one in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(one)
    code, out, _ = command(site, monkeypatch, "repair", problem, "--bundle", str(tmp_path), "--dry-run")
    assert code == 0 and "mistyped: None → 1" in out
    assert command(site, monkeypatch, "repair", problem, "--bundle", str(tmp_path))[0] == cli.DECLARATION


def command(site: Site, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setenv("MILEPOST_PORT", str(site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(site.worker.settings.home))
    done = CliRunner().invoke(cli.app, ["dead-letters", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_commands_list_show_preview_and_repair(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`milepost dead-letters list|show|repair`: for people, and as one JSON document; progress on stderr."""
    monkeypatch.setattr(dead_letters, "BATCH", 15)
    mapping = tmp_path / "fix.yaml"
    mapping.write_text("steps:\n  - {rename: data.compani, to: company}\n")
    code, out, _ = command(site, monkeypatch, "list")
    assert code == 0 and "40 of 40" in out and "contract_violation" in out
    code, out, _ = command(site, monkeypatch, "show", the(site)[:6])
    assert code == 0 and "kept from being counted" in out and '"compani": "(text)"' in out
    code, out, _ = command(site, monkeypatch, "repair", the(site), "--mapping", str(mapping), "--dry-run")
    assert (
        code == 0 and "40 of 40 would be accepted" in out and "visits: 20 → 60" in out and "nothing was written" in out
    )
    code, out, said = command(
        site, monkeypatch, "repair", the(site), "--mapping", str(mapping), "--by", "ann", "--json"
    )
    assert (code, json.loads(out)["sent"], json.loads(out)["open"]) == (
        0,
        40,
        0,
    ) and "15 sent again, 25 still open" in said
    assert command(site, monkeypatch, "repair", the(site))[0] == 0
    assert command(site, monkeypatch, "repair", the(site, "unknown_type"))[0] == cli.FAILED
    mapping.write_text("steps:\n  - {renam: data.compani}\n")
    code, _, said = command(site, monkeypatch, "repair", the(site), "--mapping", str(mapping))
    assert code == cli.REFUSED and "mapping:2:6" in said and "did you mean" in said
    assert command(site, monkeypatch, "show", "ffff")[0] == cli.DECLARATION
    assert command(site, monkeypatch, "repair", the(site), "--mapping", str(tmp_path / "none"))[0] == cli.DECLARATION
    code, out, _ = command(site, monkeypatch, "list", "--state", "repaired", "--json")
    assert [one["problem"] for one in json.loads(out)] == [the(site)] and value(
        site.worker.reader.driver, "visits"
    ) == 60
