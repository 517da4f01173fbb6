"""Standing: the demo's flights, and what a worker costs that has nothing to do."""

from __future__ import annotations

import time
from typing import Any, Final

from milepost.ops import demo
from milepost.ops.apply import apply_bundle
from milepost.ops.bench import job, machine
from milepost.ops.bench.ours import Fleet, forget
from milepost.ops.bench.stage import Stage
from milepost.ops.demo_data import read_demo
from milepost.ops.provision import provision
from milepost.schemas.errors import StoreError

SETTLE_S: Final = 10.0
"""What a start leaves behind is over after so long."""


def measure_flights(stage: Stage, *, week: bool = False) -> dict[str, Any]:
    """The demo's import, shuffled and with repeats, and the worker beside it; every event must be accepted once."""
    data = read_demo(week=week)
    settings = stage.deployment("flights")
    with Fleet(settings, 1, say=stage.say) as fleet:
        summary = demo.perform(settings, data, fleet.running[0], say=stage.say)
    forget(stage, fleet)
    events = summary.events
    if events["accepted"] != len(data) or events["dead_letters"]:
        raise StoreError(f"{len(data)} events were sent, and this became of them: {events}")
    return {
        "events": events["sent"],
        "duplicates": events["duplicates"],
        "seconds": summary.seconds,
        "events_per_s": summary.events_per_s,
        "digest": summary.digest,
    }


def measure_idle(stage: Stage, *, seconds: float) -> dict[str, Any]:
    """Processor time in percent of one core, and resident memory, of a worker that is left alone."""
    settings = stage.deployment("idle")
    provision(settings)
    apply_bundle(settings, job.bundle(), job.ORG)
    with Fleet(settings, 1, say=stage.say) as fleet:
        worker = fleet.running[0].worker
        assert worker is not None, "a fleet that runs has workers"
        time.sleep(min(SETTLE_S, seconds))
        begun, used = time.monotonic(), machine.cpu_s(worker.pid)
        time.sleep(seconds)
        took = time.monotonic() - begun
        out = {
            "seconds": round(took, 1),
            "cpu_percent": round((machine.cpu_s(worker.pid) - used) / took * 100, 2),
            "rss_mb": machine.rss_mb(worker.pid),
            "peak_mb": machine.peak_mb(worker.pid),
        }
        fleet.check()
    forget(stage, fleet)
    return out
