"""Contracts in stream over HTTP and as a command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from milepost.agents.views.quality import Quality
from milepost.ops import cli
from milepost.ops.settings import Settings
from milepost.topology.bases import written
from milepost.topology.driver import Driver
from tests.agents.test_views import Site, Tables, Worker, served
from tests.support.small import ORG, SECRET, T0, visit
from tests.topology.test_quality import promised

M = 60_000
END = T0 + 240 * M


class Clock(Worker):
    def now_ms(self) -> int:
        return END


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four hours: events in the first two, some without a company, two of a type that nobody knows."""
    driver = Driver(SECRET, partitions=2)
    driver.apply(ORG, promised(), T0, k_ms=T0)
    for minute in range(120):
        event = visit(f"e{minute}", T0 + minute * M, company="1" if minute % 5 else "unknown", device="d1")
        driver.produce({**event, "type": "vizit" if minute in (70, 75) else "visit"}, T0 + minute * M)
    driver.tick(END)
    driver.run()
    yield from served(Clock(Settings(home=tmp_path_factory.mktemp("home")), Tables(driver.reader)))


def test_the_answer_is_what_the_description_says(site: Site) -> None:
    """Its JSON is read as the type from which /openapi.json describes it, on each basis."""
    for asked in (
        {},
        {"at": written(T0 + 90 * M)},
        {"at": written(T0 + 90 * M), "basis": "as_shown"},
        {"source": "app"},
    ):
        told = site.get("/v1/quality", **asked)
        assert told.status == 200, told.json
        found = msgspec.json.decode(told.body, type=Quality)
        assert [one.source for one in found.sources] == ["app"] and found.next is None
    described = site.get("/openapi.json").json
    shape = described["paths"]["/v1/quality"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shape == {"$ref": "#/components/schemas/Quality"}
    assert set(described["components"]["schemas"]["SourceQuality"]["required"]) >= {"state", "reason", "history"}


def test_it_is_told_now_and_as_it_was_shown(site: Site) -> None:
    """Now the source is stale; in its second hour it broke its schema, and too many of its events named nobody."""
    (now,) = site.get("/v1/quality").json["sources"]
    assert (now["state"], now["since"], now["breaches"]) == ("stale", written(T0 + 134 * M), ["stale", "silent"])
    (then,) = site.get("/v1/quality", at=written(T0 + 90 * M), basis="as_shown").json["sources"]
    assert (then["state"], then["breaches"]) == ("schema", ["schema", "unmatched"])
    assert then["schema"]["by_reason"][0]["reason"] == "unknown_type"


def test_what_cannot_be_asked_is_a_problem(site: Site) -> None:
    """An unknown source, parameter or basis is refused with a guess."""
    for asked, status, guess in (({"source": "ap"}, 404, "app"), ({"sorce": "app"}, 422, "source"), ({"basis": "latst"}, 422, "latest")):  # fmt: skip
        told = site.get("/v1/quality", **asked)
        assert (told.status, told.json["guess"]) == (status, guess), told.json


def test_the_command_says_it(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`milepost quality` tells each promise, examples and the last breaches; --check ends with 1 while one lasts."""
    monkeypatch.setenv("MILEPOST_PORT", str(site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    told = CliRunner().invoke(cli.app, ["quality"])
    assert told.exit_code == 0, told.output
    for line in ("stale since", "freshness  broken", "volume     broken: 0 events in 1h, 5 expected", "2 unknown_type"):
        assert line in told.stdout, told.stdout
    assert "company/crm_id blocked" in told.stdout
    assert CliRunner().invoke(cli.app, ["quality", "app", "--check"]).exit_code == 1
    before = ["quality", "--check", "--at", written(T0 + 30 * M), "--basis", "as_shown"]
    assert CliRunner().invoke(cli.app, before).exit_code == 0
    assert CliRunner().invoke(cli.app, ["quality", "ap"]).exit_code == cli.REFUSED
