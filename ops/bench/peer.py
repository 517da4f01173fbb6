"""Peer: a program of another framework that does the job, in a process of its own.

    arguments key=value -> the program -> a JSON line of progress now and then, one with "done" -> cells in `out`

The program says when it took its first record; everything is timed by its own clock from there, so that the start of a
virtual machine or of an interpreter counts for nobody.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.bench import machine
from milepost.ops.bench.stage import Run, Stage, second_half
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
    said = run_program(peer.command, arguments, place)
    last = said.last
    return Run(
        name=peer.name,
        events=int(last["read"]),
        seconds=float(last["at_s"]),
        second_half=second_half(said.samples(), int(last["read"])),
        signals=int(last["signals"]),
        cpu_s=said.cpu_s,
        wrong=differences(work, read_cells(dump), kinds),
        does=peer.does,
        leaves_out=peer.leaves_out,
    )


@dataclass(slots=True)
class Said:
    """What a program printed: its JSON lines, and the processor time it used from the first of them to the last."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def done(self) -> bool:
        return bool(self.lines) and "done" in self.lines[-1]

    def samples(self) -> list[tuple[float, int]]:
        """(seconds, events): so many of the events as the share of signals that are measured; of a program without
        signals, the events read."""
        events, signals = int(self.last["read"]), int(self.last["signals"])
        if not signals:
            return [(float(one["at_s"]), int(one["read"])) for one in self.lines]
        return [(float(one["at_s"]), events * int(one["measured"]) // signals) for one in self.lines]


def run_program(command: Sequence[str], arguments: Mapping[str, str], place: Path) -> Said:
    """Start the program with key=value arguments and wait for its end; its last JSON line must say "done"."""
    log = place / "program.log"
    process = processes.spawn([*command, *(f"{name}={value}" for name, value in arguments.items())], log=log)
    begun = moved = time.monotonic()
    said, used = Said(), 0.0
    try:
        with log.open(errors="replace") as output:
            rest = ""
            while True:
                alive = process.poll() is None
                *lines, rest = (rest + output.read()).split("\n")
                found = [json.loads(line) for line in lines if line.startswith('{"at_s"')]
                if found and alive and machine.measurable():
                    now_s = machine.cpu_s(process.pid)
                    used = used if said.lines else now_s
                    said.cpu_s = now_s - used
                said.lines += found
                now = time.monotonic()
                moved = now if lines else moved
                if not alive:
                    break
                if now - begun > RUN_S_MAX or now - moved > STILL_S_MAX:
                    raise StoreError(f"{command[0]} has not come to its end; it said\n{processes.last_lines(log)}")
                time.sleep(0.05)
    finally:
        processes.stop(process, patience_s=2.0)
    if process.returncode or not said.done:
        raise StoreError(f"{command[0]} ended with code {process.returncode}; it said\n{processes.last_lines(log)}")
    return said
