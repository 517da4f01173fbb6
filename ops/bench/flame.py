"""Flame: where a worker's time goes during the job, drawn by py-spy, which lies beside the peers (`make bench`).

It runs beside a second pass over the job, so that the figures of the first are not the sampler's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from milepost.ops.bench import ours
from milepost.ops.bench.job import Message
from milepost.ops.bench.stage import Stage
from milepost.ops.broker import Say

SECONDS: Final = 12


class Flame:
    """Draws into `out`; `draw` says in a sentence what came of it."""

    def __init__(self, out: Path, say: Say) -> None:
        self.out = out
        self.say = say

    def draw(self, stage: Stage, records: Sequence[Message], *, seconds: int = SECONDS) -> str:
        """Run the job once more under py-spy; returns the file's name, or why there is none."""
        beside = (Path(sys.prefix) / "bench" / "bin" / "py-spy", Path(sys.executable).with_name("py-spy"))
        tool = next((str(one) for one in beside if one.exists()), shutil.which("py-spy"))
        if not tool:
            return "not drawn: py-spy is not installed; fix: `make bench`, which installs it, or pip install py-spy"
        said: list[str] = []
        ours.take(stage, "ours-flame", records, during=self._recorder(tool, seconds, said))
        return said[0] if said else "not drawn: the job ended before the sampler"

    def _recorder(self, tool: str, seconds: int, said: list[str]) -> Callable[[ours.Fleet], object]:
        def record(fleet: ours.Fleet) -> None:
            worker = fleet.running[0].worker
            assert worker is not None, "a fleet that runs has workers"
            self.out.parent.mkdir(parents=True, exist_ok=True)
            command = [tool, "record", "--nonblocking", "-d", str(seconds), "-o", str(self.out), "-p", str(worker.pid)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
            failed = done.returncode != 0 or not self.out.exists()
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            said.append(f"not drawn: py-spy could not attach: {lines[-1][:200]}" if failed else self.out.name)

        return record
