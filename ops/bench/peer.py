"""Peer: a program of another framework that does the job, in a process of its own.

    arguments key=value -> the program -> a JSON line of progress now and then, one with "done" -> cells in `out`

The program says when it took its first record; everything is timed by its own clock from there, so that the start of a
virtual machine or of an interpreter counts for nobody.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.bench.stage import Run, Stage, second_half, watched
from milepost.ops.bench.work import Work, differences, read_cells
from milepost.schemas.errors import StoreError

RUN_S_MAX: Final = 900.0
STILL_S_MAX: Final = 90.0
"""A program that prints nothing for so long has stopped working."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How a peer is started, and what it says about itself."""

    name: str
    command: Sequence[str]
    arguments: Mapping[str, str]
    does: str
    leaves_out: str


def run_peer(stage: Stage, peer: Peer, work: Work, place: Path, *, kinds: Sequence[str]) -> Run:
    """Run a peer to its end and compare its cells; StoreError when it fails."""
    dump = place / "cells.tsv"
    arguments = {"bootstrap": stage.bootstrap, "out": str(dump), **peer.arguments}
    lines = run_program(peer.command, arguments, place)
    last = lines[-1]
    events, samples = int(last["read"]), watched(iter(lines))
    return Run(
        name=peer.name,
        events=events,
        seconds=float(last["at_s"]),
        second_half=second_half(samples, events),
        signals=int(last["signals"]),
        wrong=differences(work, read_cells(dump), kinds),
        does=peer.does,
        leaves_out=peer.leaves_out,
    )


def run_program(command: Sequence[str], arguments: Mapping[str, str], place: Path) -> list[dict[str, Any]]:
    """Start the program with key=value arguments and wait for its end; returns its JSON lines, the last one "done"."""
    log = place / "program.log"
    process = processes.spawn([*command, *(f"{name}={value}" for name, value in arguments.items())], log=log)
    begun = moved = time.monotonic()
    size = -1
    try:
        while process.poll() is None:
            now = time.monotonic()
            if log.stat().st_size != size:
                size, moved = log.stat().st_size, now
            if now - begun > RUN_S_MAX or now - moved > STILL_S_MAX:
                raise StoreError(f"{command[0]} has not come to its end; it said\n{processes.last_lines(log)}")
            time.sleep(0.05)
    finally:
        processes.stop(process, patience_s=2.0)
    lines = [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith('{"at_s"')]
    if process.returncode or not lines or "done" not in lines[-1]:
        raise StoreError(f"{command[0]} ended with code {process.returncode}; it said\n{processes.last_lines(log)}")
    return lines
