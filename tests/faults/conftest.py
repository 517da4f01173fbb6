"""The sizes of the faults, and their report.

    make test      one of each kind
    make campaign  pytest --campaign of all rooms: the full counts; void (exit 1) when it did not reach the code

What is marked `campaign`, in any room, runs there only.  A test that has two sizes takes the fixture `sized`: `sized(25, 3)` is 25 in the campaign and 3 elsewhere.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.agents.faults import POINTS
from milepost.ops.settings import Settings
from tests.support.broker import shared_jars
from tests.support.own_broker import OwnBroker, own_broker
from tests.support.report import REPORT

Sized = Callable[[int, int], int]
ROOMS = {"tests/faults", "tests/agents", "tests/ops", "tests/page"}
"""What the campaign is asked for: the first whole, of the others what is marked."""


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> bool:
    """Whether this is the campaign."""
    return bool(request.config.getoption("--campaign"))


@pytest.fixture(scope="session")
def sized(campaign: bool) -> Sized:
    """(in the campaign, else) -> how many."""
    return lambda full, reduced: full if campaign else reduced


@pytest.fixture(scope="session")
def fragile() -> Iterator[OwnBroker]:
    """A broker that may be killed, and a proxy before it: not the session's, which others use."""
    with own_broker() as made:
        yield made


@pytest.fixture
def fragile_settings(fragile: OwnBroker, tmp_path: Path) -> Settings:
    """Settings of a deployment on the broker that may be killed."""
    return Settings(
        home=tmp_path / "home",
        broker=fragile.bootstrap,
        namespace=f"t{uuid.uuid4().hex[:10]}",
        replication=1,
        secret_text="a secret that only tests use",
        jars_folder=shared_jars(),
        session_timeout_s=6,
    )


def whole_campaign(config: pytest.Config) -> bool:
    """Whether the run is the campaign and nothing was left out."""
    option = config.option
    return bool(option.campaign and not option.keyword and not option.markexpr and set(config.args) == ROOMS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """A test process has ended: take its part of the report.  One that died has none, and the run is failed by that."""
    if dumped := getattr(node, "workeroutput", {}).get("faults"):
        REPORT.take(json.loads(dumped))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the report; a whole campaign that did not reach the code has failed."""
    if REPORT.empty:
        return
    if hasattr(session.config, "workeroutput"):  # a test process: the one that started it writes the report
        session.config.workeroutput["faults"] = json.dumps(REPORT.dumped())
        return
    path = session.config.getoption("--fault-report")
    if path:
        REPORT.write(Path(path))
    if whole_campaign(session.config) and exitstatus == pytest.ExitCode.OK and REPORT.void(POINTS):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, below pytest's own summary."""
    if REPORT.empty:
        return
    terminalreporter.section("faults")
    for line in REPORT.table():
        terminalreporter.write_line(line)
    if whole_campaign(terminalreporter.config):
        for why in REPORT.void(POINTS):
            terminalreporter.write_line(f"VOID: {why}", red=True)
