"""Asker: a process that asks `value` over HTTP in an open loop: a question is due when its time has come, whatever the
answers before it took.

    python -m milepost.ops.bench.asker port=6066 rate=300 seconds=20 companies=1000 seed=3

A latency runs from when the question was due, so that a stall is not hidden by questions that were never sent.  It
prints one line: `{"asked": n, "failed": n, "questions_per_s": r, "p50_ms": …, "p99_ms": …, "max_ms": …}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
import urllib.parse
from typing import Final

from milepost.ops.bench import job

CONNECTIONS: Final = 32
"""Questions under way at a time at most; more than are due in the time of a slow answer."""

ANSWER_S: Final = 5.0
WINDOWS: Final = ("all", "1d", "1h")


def main() -> None:
    """Ask until the time is over, and print the figures."""
    given = dict(one.split("=", 1) for one in sys.argv[1:])
    rate, count = float(given["rate"]), int(float(given["rate"]) * float(given["seconds"]))
    source = random.Random(int(given["seed"]))
    targets = [_target(source, int(given["companies"])) for _ in range(count)]
    took_ms, failed, seconds = asyncio.run(_ask(int(given["port"]), targets, rate))
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive") if len(took_ms) > 1 else [0.0] * 99
    figures = {
        "asked": count,
        "failed": failed,
        "questions_per_s": round(count / seconds, 1),
        "p50_ms": round(cuts[49], 3),
        "p99_ms": round(cuts[98], 3),
        "max_ms": round(max(took_ms, default=0.0), 3),
    }
    print(json.dumps(figures), flush=True)


def _target(source: random.Random, companies: int) -> str:
    """The path of a question: a metric of a company, mostly without, sometimes with a dimension."""
    metric = f"{source.choice(list(job.METRICS.values()))}_{source.choice(('sum', 'avg'))}"
    question = {"company": f"crm_id:crm:{source.randrange(companies)}", "window": source.choice(WINDOWS)}
    if source.random() < 0.3:
        question["dim.plan"] = source.choice(job.PLANS)
    return f"/v1/metrics/{metric}/value?{urllib.parse.urlencode(question)}"


async def _ask(port: int, targets: list[str], rate: float) -> tuple[list[float], int, float]:
    """(milliseconds of the answers, failures, seconds from the first due to the last answer)."""
    took_ms: list[float] = []
    failed = 0
    begun = time.perf_counter() + 0.1
    waiting = iter(enumerate(targets))

    async def connection() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number, target in waiting:
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
            if head[9:12] == b"200":
                took_ms.append((time.perf_counter() - due) * 1000)
            else:
                failed += 1
        writer.close()

    ended = await asyncio.gather(*(connection() for _ in range(CONNECTIONS)), return_exceptions=True)
    failed += sum(isinstance(one, BaseException) for one in ended) + len(list(waiting))
    return took_ms, failed, time.perf_counter() - begun


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


if __name__ == "__main__":
    main()
