"""Pacer: a process that sends events at a steady rate, like a source that lives.

    python -m milepost.ops.bench.pacer bootstrap=… topic=… partitions=4 rate=5000 seconds=30 seed=7

Events are made before the first one is sent, so that sending takes little from a machine that is shared; they bear the
time of now.  It prints `{"begun": true}` and, unless it is stopped before, `{"sent": n, "seconds": s}`.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from typing import Final

from milepost.ops.bench import job
from milepost.ops.sender import Sender

TICK_S: Final = 0.01
MADE_MAX: Final = 300_000
"""Bodies that are made beforehand at most; a longer run sends them again under new ids."""


def main() -> None:
    """Send until the time is over."""
    given = dict(one.split("=", 1) for one in sys.argv[1:])
    rate, seconds, partitions = int(given["rate"]), float(given["seconds"]), int(given["partitions"])
    total, seed = int(rate * seconds), int(given["seed"])
    now_ms = int(time.time() * 1000)
    bodies = list(job.generate(min(total, MADE_MAX), seed, begin_ms=now_ms, step_ms=1000 / rate))
    made = [job.message(body, partitions) for body in bodies]
    print(json.dumps({"begun": True}), flush=True)
    begun = time.monotonic()
    ids = random.Random(seed + 1)
    with Sender(given["bootstrap"], linger_ms=5) as sender:
        sent = 0
        while sent < total:
            due = min(total, int((time.monotonic() - begun) * rate) + 1)
            for number in range(sent, due):
                one = made[number] if number < len(made) else _again(bodies[number % len(bodies)], ids, partitions)
                sender.send(given["topic"], one.partition, one.key, one.value)
            sent = due
            time.sleep(TICK_S)
    print(json.dumps({"sent": sent, "seconds": round(time.monotonic() - begun, 3)}), flush=True)


def _again(body: dict[str, object], ids: random.Random, partitions: int) -> job.Message:
    return job.message({**body, "id": str(uuid.UUID(int=ids.getrandbits(128)))}, partitions)


if __name__ == "__main__":
    main()
