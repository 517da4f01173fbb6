"""Contestants: the peers that are programs in Python, and how each is told what to do."""

from __future__ import annotations

import importlib.resources
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import orjson

from milepost.ops.bench.job import Message
from milepost.ops.bench.peer import Peer, run_peer, run_program
from milepost.ops.bench.stage import Run, Stage, second_half
from milepost.ops.bench.work import THREE, Work, read_cells
from milepost.schemas.errors import DeclarationError

COMMIT_MS: Final = 1000

QUIX_DOES: Final = "dict from JSON; dedupe and 3 cells a signal in RocksDB state, changelogs; group_by company"
FAUST_DOES: Final = (
    "dict from JSON; dedupe and 3 cells a signal in RocksDB tables, changelogs; signals topic by company"
)
LOOP_DOES: Final = "dict from JSON, one count by type in a dict"
LEAVES_OUT: Final = (
    "contracts, body hashes, persons and links, origins, facts, known time, day rows, cells by country alone"
)
LOOP_LEAVES_OUT: Final = "everything else: no dedupe, no rules, no output, no state, no commit"


def run_quix(stage: Stage, work: Work, raw: str, records: int) -> Run:
    """Quix Streams, at least once.  Raises DeclarationError when it is not installed."""
    python = quix_python()
    place = stage.place("quix")
    peer = Peer(
        name="Quix Streams",
        command=[python, _program("quix_job.py")],
        arguments={
            "app": place.name,
            "raw": raw,
            "events": str(records),
            "commit_ms": str(COMMIT_MS),
            "state": str(place / "state"),
        },
        does=QUIX_DOES,
        leaves_out=LEAVES_OUT,
    )
    run = run_peer(stage, peer, work, place, kinds=THREE)
    stage.drop(place)
    return run


def run_faust(stage: Stage, work: Work, raw: str, records: int) -> Run:
    """Faust as it is delivered, at least once."""
    place = stage.place("faust")
    peer = Peer(
        name="Faust",
        command=[sys.executable, _program("faust_job.py")],
        arguments={
            "app": place.name,
            "raw": raw,
            "signals": stage.topic("faust.signals"),
            "partitions": str(stage.partitions),
            "events": str(records),
            "commit_ms": str(COMMIT_MS),
            "state": str(place / "state"),
        },
        does=FAUST_DOES,
        leaves_out=LEAVES_OUT,
    )
    run = run_peer(stage, peer, work, place, kinds=THREE)
    stage.drop(place)
    return run


def run_loop(stage: Stage, raw: str, records: list[Message]) -> Run:
    """The bound: decode and count."""
    place = stage.place("loop")
    out = place / "counts.tsv"
    arguments = {
        "bootstrap": stage.bootstrap,
        "raw": raw,
        "partitions": str(stage.partitions),
        "events": str(len(records)),
        "out": str(out),
    }
    said = run_program([sys.executable, _program("loop_job.py")], arguments, place)
    found = {key[0]: cell[0] for key, cell in read_cells(out).items()}
    wanted = Counter(orjson.loads(one.value)["type"] for one in records)
    wrong = [] if found == wanted else [f"counted {found}, expected {dict(wanted)}"]
    events = int(said.last["read"])
    stage.drop(place)
    return Run(
        name="plain loop",
        events=events,
        seconds=float(said.last["at_s"]),
        second_half=second_half(said.samples(), events),
        signals=0,
        cpu_s=said.cpu_s,
        wrong=wrong,
        does=LOOP_DOES,
        leaves_out=LOOP_LEAVES_OUT,
    )


def quix_python() -> str:
    """An interpreter that has Quix Streams: .../bench of this environment (`make bench` makes it), or this one.

    It lives apart because it wants older versions of what Milepost uses.  DeclarationError, with the fix, if there is
    none.
    """
    for one in (Path(sys.prefix) / "bench" / "bin" / "python", Path(sys.executable)):
        if shutil.which(one) and _imports(str(one), "quixstreams"):
            return str(one)
    raise DeclarationError(
        "Quix Streams is not installed; fix: `make bench` installs requirements/bench.txt beside the environment, or: "
        f"{sys.executable} -m venv {Path(sys.prefix) / 'bench'} && "
        f"{Path(sys.prefix) / 'bench' / 'bin' / 'pip'} install quixstreams orjson"
    )


def _imports(python: str, module: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", look], check=False, capture_output=True, timeout=60).returncode == 0


def _program(name: str) -> str:
    return str(importlib.resources.files("milepost.ops.bench").joinpath("programs").joinpath(name))
