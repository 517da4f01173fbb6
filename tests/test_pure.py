"""The pure half stands alone: topology's tests pass where nothing of the engine is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = ("faust", "mode", "aiokafka", "aiohttp", "confluent_kafka", "rocksdict")

SITE = f'''"""Makes the engine's libraries look as if they were not installed."""
import sys

BLOCKED = {BLOCKED!r}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {{name!r}}: absent on purpose", name=name)
        return None


sys.meta_path.insert(0, Absent())
'''


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with `arguments`, from the repository, without the engine's libraries."""
    (folder / "sitecustomize.py").write_text(SITE)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT / "src"), str(ROOT)))}
    command = [sys.executable, "-B", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("name", BLOCKED)
def test_the_environment_lacks_it(tmp_path: Path, name: str) -> None:
    """Positive control: in that environment the library cannot be imported, nor the room that needs it."""
    done = run(tmp_path, "-c", f"import {name}")
    assert done.returncode == 1 and "absent on purpose" in done.stderr
    assert run(tmp_path, "-c", "import milepost.agents.app").returncode == 1


SOME = ("ingest", "metrics", "records", "identity", "framing")
"""Tests that drive the line from end to end: they run in that environment, the others are collected."""

MODULES = """
import importlib, pkgutil
import milepost.schemas, milepost.topology
for room in (milepost.schemas, milepost.topology):
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        print(importlib.import_module(module.name).__name__)
"""


def test_every_module_of_topology_and_schemas_needs_no_engine(tmp_path: Path) -> None:
    """Neither Faust nor Kafka nor RocksDB has to be there to import any of them."""
    done = run(tmp_path, "-c", MODULES)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"milepost.topology.driver", "milepost.topology.measure", "milepost.schemas.serde"} <= set(
        done.stdout.split()
    )


@pytest.mark.campaign
def test_the_tests_of_topology_need_no_engine(tmp_path: Path) -> None:
    """All of them import, and those that drive the line from end to end pass."""
    # --confcutdir: the tests' own conftest starts brokers, which need what is absent.
    options = ["-q", "-p", "no:cacheprovider", "--confcutdir=tests/topology"]
    collected = run(tmp_path, "-m", "pytest", *options, "tests/topology", "--collect-only")
    assert collected.returncode == 0 and "test_equality" in collected.stdout, collected.stdout[-3000:]
    done = run(tmp_path, "-m", "pytest", *options, *(f"tests/topology/test_{name}.py" for name in SOME))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "error" not in done.stdout
