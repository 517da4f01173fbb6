"""Fixtures for every room: a broker a session, a namespace and settings a test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from milepost.ops.processes import free_ports
from milepost.ops.settings import Settings

if TYPE_CHECKING:  # the rooms below agents are tested where no Kafka client is installed: see tests/test_pure.py
    from tests.support.broker import TestBroker
    from tests.support.workers import Deployment

# Speed is the bench's: machines are shared.
hypothesis.settings.register_profile("milepost", deadline=None)
hypothesis.settings.load_profile("milepost")

FAULTS = Path(__file__).parent / "faults"
LONGEST = "test_readme.py"
"""One test of minutes: begun last it would be waited for."""
WAITING = ("agents", "faults", "ops", "page", LONGEST)
"""Rooms and files whose tests wait more than they compute."""
_FULL_YEAR = os.environ.get("MILEPOST_FULL_YEAR", "") == "1"

# A setting of the person who runs the tests must not change what they test.
_BROKER = "MILEPOST_TEST_BROKER"
_TURNS = "TEST_TURNS"
_KEPT = (_BROKER, "MILEPOST_JARS")
for _name in [name for name in os.environ if name.startswith("MILEPOST_") and name not in _KEPT]:
    del os.environ[_name]
os.environ.pop("FAULT_AT", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make campaign` sets: the faults in full, and where their report goes."""
    parser.addoption("--campaign", action="store_true", help="the faults in their full counts (make campaign)")
    parser.addoption("--fault-report", default="", metavar="FILE", help="write the faults' report as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Several test processes share one broker, which the process that starts them keeps."""
    if not config.getoption("numprocesses", None) or config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory(prefix="milepost-turns-")
    config.add_cleanup(folder.cleanup)
    os.environ[_TURNS] = folder.name
    if _BROKER in os.environ:
        return
    from milepost.schemas.errors import MilepostError
    from tests.support.broker import running_broker

    kept = contextlib.ExitStack()
    try:
        os.environ[_BROKER] = kept.enter_context(running_broker()).bootstrap
    except MilepostError as error:  # the tests that need one say so, the others run
        print(f"no broker for all test processes: {error}", file=sys.stderr)
        return
    kept.callback(os.environ.pop, _BROKER)
    config.add_cleanup(kept.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `campaign` runs with --campaign only; of other rooms than the faults nothing else runs then."""
    campaign = config.getoption("--campaign")

    def runs(item: pytest.Item) -> bool:
        marked = item.get_closest_marker("campaign") is not None
        return marked or item.path.is_relative_to(FAULTS) if campaign else not marked

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = filter(runs, items)
    if campaign:  # first, before others are on their way for minutes
        items.sort(key=lambda item: item.get_closest_marker("alone") is None)
    elif hasattr(config, "workerinput"):
        items[:] = mixed(items)


def mixed(items: list[pytest.Item]) -> list[pytest.Item]:
    """For several processes: files that wait for brokers and browsers, those that compute dealt out among them."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    kinds: dict[bool, list[Path]] = {}
    for path in files:
        kinds.setdefault(path.parent.name in WAITING or path.name in WAITING, []).append(path)
    places = {path: (n + 0.5) / len(some) for some in kinds.values() for n, path in enumerate(some)}
    order = sorted(files, key=lambda path: (path.name != LONGEST, places[path], path))
    return [item for path in order for item in files[path]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Of several test processes of the campaign the others wait while one measures with all of the machine."""
    if _TURNS not in os.environ or not item.config.getoption("--campaign"):
        return (yield)
    with (Path(os.environ[_TURNS]) / "turn").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(scope="session")
def broker() -> Iterator[TestBroker]:
    """One broker for the whole session (MILEPOST_TEST_BROKER, else an embedded one)."""
    from tests.support.broker import running_broker

    with running_broker() as running:
        yield running


@pytest.fixture
def full_year() -> None:
    """For tests that take many minutes: they run where MILEPOST_FULL_YEAR is 1."""
    if not _FULL_YEAR:
        pytest.skip("the full year runs with MILEPOST_FULL_YEAR=1")


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; its topics are deleted afterwards when the test used the broker."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield name
    if "broker" in request.fixturenames:
        broker: TestBroker = request.getfixturevalue("broker")
        broker.drop(name)


@pytest.fixture
def settings(broker: TestBroker, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a deployment of the test's own: session broker, own namespace, own home, a free web port."""
    from tests.support.broker import shared_jars

    return Settings(
        home=tmp_path / "home",
        broker=broker.bootstrap,
        namespace=namespace,
        replication=1,
        port=free_ports(1)[0],
        secret_text="a secret that only tests use",
        jars_folder=shared_jars(),
    )


@pytest.fixture(scope="session")
def demo(broker: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment with the first week of the demo's flights, its worker running: to be asked, not to be changed."""
    from tests.support.broker import shared_jars
    from tests.support.workers import Deployment, week

    settings = Settings(
        home=tmp_path_factory.mktemp("demo"),
        broker=broker.bootstrap,
        namespace=f"demo{uuid.uuid4().hex[:8]}",
        replication=1,
        secret_text="a secret that only tests use",
        jars_folder=shared_jars(),
    )
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        deployment.send(week())
        deployment.settle()
        yield deployment
    broker.drop(settings.namespace)


@pytest.fixture(scope="session")
def demo_url(demo: Deployment) -> str:
    """Where the demo's worker answers."""
    return demo.settings.url
