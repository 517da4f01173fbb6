"""The wheel: it holds ordinary files and all of them, and without the clone it runs the demo.

files of the repository -> copy -> wheel -> an empty environment -> milepost demo, in an empty directory
"""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support import flights_expected as other
from tests.support import wheels
from tests.support.broker import broker_ports, shared_jars

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT, ROOMS = wheels.ROOT, wheels.ROOMS
BUNDLES = (
    ("demo", "milepost.yaml"), ("demo", "tests/departures.yaml"), ("demo", "tests/weather.yaml"), ("starter", "milepost.yaml"), ("starter", "tests/orders.yaml"),
)  # fmt: skip
LINK = 0o120000
KIND = 0o170000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.built(tmp_path_factory.mktemp("wheel"))


def _shipped() -> set[str]:
    """What the rooms hold and a running deployment needs: code, contracts, lists, the demo's bundle, the page."""
    suffixes = {".py", ".avsc", ".json", ".html", ".js", ".css", ".svg"}
    wanted = {f"ops/{one}_bundle/{file}" for one, file in BUNDLES}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix in suffixes and not {"grafana", "results"} & set(path.parts):
                wanted.add(str(path.relative_to(ROOT)))
    return {f"milepost/{one}" for one in wanted} | {
        f"milepost/{one}" for one in ("__init__.py", "__main__.py", "py.typed")
    }


def test_the_wheel_holds_ordinary_files(wheel: Path) -> None:
    """Code, contracts, the jar list, the demo's bundle and the page are in the wheel, under one name, none a link."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert not [one.filename for one in archive.infolist() if (one.external_attr >> 16) & KIND == LINK]
        assert all(archive.read(name) for name in names if name.endswith((".avsc", ".html", ".json", ".yaml")))
    missing = _shipped() - names
    assert not missing, sorted(missing)
    for one in (
        "milepost/schemas/RawEvent.avsc",
        "milepost/ops/jars.lock.json",
        "milepost/ops/registry.lock.json",
        "milepost/ops/demo_bundle/milepost.yaml",
        "milepost/ops/demo_bundle/schemas/FlightDeparted.avsc",
        "milepost/agents/views/page/index.html",
        "milepost/agents/views/page/vendor/uPlot.esm.js",
        "milepost/agents/views/page/vendor/LICENSE",
    ):
        assert one in names, one
    # `agents`, `ops`, `schemas` and `topology` are other projects' names: at the top they would overwrite them.
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not re.fullmatch(r"milepost-[^/]+\.dist-info", top)} == {"milepost"}


@pytest.fixture
def empty(wheel: Path, tmp_path: Path) -> wheels.Empty:
    return wheels.installed(wheel, tmp_path)


@pytest.mark.campaign
def test_a_wheel_alone_runs_the_demo(empty: wheels.Empty, tmp_path: Path) -> None:
    """Installed from the wheel, in an empty directory, the first week ends with 0 and answers as the CSV does."""
    where = subprocess.run(
        [empty.python, "-c", "import milepost.agents, milepost.ops; print(milepost.__file__, milepost.ops.__file__)"],
        cwd=empty.here,
        env=wheels.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert where.returncode == 0, where.stderr
    assert all(Path(one).is_relative_to(empty.folder) for one in where.stdout.split()), where.stdout
    broker_port, port = broker_ports()
    home = tmp_path / "home"
    done = subprocess.run(
        [empty.milepost, "demo", "--exit", "--json", "--week"],
        cwd=empty.here,
        env={
            **wheels.environment(),
            "MILEPOST_HOME": str(home),
            "MILEPOST_JARS": str(shared_jars()),
            "MILEPOST_BROKER_PORT": str(broker_port),
            "MILEPOST_PORT": str(port),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    week = other.first_week(other.read_csv())
    assert week.height == 6_099
    expected = other.expected(week)
    assert answers["totals"] == pytest.approx(expected.totals)
    assert answers["by_company"].keys() == expected.by_company.keys()
    for carrier, own in expected.by_company.items():
        assert answers["by_company"][carrier] == pytest.approx(own), carrier
    assert answers["events"]["dead_letters"] == 0
    assert not list(empty.here.iterdir()), "the demo writes into its home, not into the directory where it was started"
