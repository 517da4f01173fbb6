"""Histories from the command line: `python -m tests.support.simulator FIRST [END] [--trace] [--first-only]`.

Prints what is wrong, seed by seed, and what happened in all of them; exit code 1 when anything is wrong.  One seed alone
with --trace prints its whole history.  --first-only stops at the first wrong one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import traceback
from collections import Counter

from tests.support.simulator.history import histories, history


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulator", description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int, nargs="?")
    parser.add_argument("--trace", action="store_true", help="print each event of the histories")
    parser.add_argument("--first-only", action="store_true", help="stop at the first wrong history")
    asked = parser.parse_args()
    end = asked.first + 1 if asked.end is None else asked.end
    total: Counter[str] = Counter()
    traces = hashlib.blake2b(digest_size=8)
    begun, wrong, seed = time.process_time(), 0, asked.first
    found_in = histories(range(asked.first, end))
    for seed in range(asked.first, end):
        try:
            found = history(seed, keep=True) if asked.trace else next(found_in)
        except Exception:  # noqa: BLE001 - a failure of its own must not look like a wrong history
            traceback.print_exc()
            print(f"seed {seed}: the simulator itself failed")
            return 2
        total.update(found.stats)
        traces.update(found.trace.encode())
        if found.world is not None:
            print(found.world.plan, *found.world.trace, sep="\n")
        if found.wrong:
            wrong += 1
            print(f"seed {seed}: {found.wrong}"[:600], flush=True)
            if asked.first_only:
                break
    spent = time.process_time() - begun
    count = seed + 1 - asked.first
    said = {"histories": count, "wrong": wrong, "cpu_s": round(spent, 1), "trace": traces.hexdigest()}
    print(json.dumps({**said, **dict(sorted(total.items()))}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
