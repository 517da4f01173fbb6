"""Faults: named places at which a test kills the worker.

`FAULT_AT=after_fold:3` kills the process with -9 at the third passage of `after_fold`; without a number, at the first.
Unset, `point` does nothing.  Callers write `faults.point("after_fold")`: the attribute is looked up at each call, so
arming works whenever it happens.

    own_appended -> restoring -> restored -> after_fetch -> after_fold
                 -> outputs_half -> outputs_acked -> batch_sent -> batch_acked -> local_written -> committed
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from milepost.schemas.errors import DeclarationError

POINTS: Final = (
    "after_fetch",  # a chunk has come from the broker
    "after_fold",  # a slice is folded, nothing of it is written
    "outputs_half",  # half of a group of outputs is acknowledged
    "outputs_acked",  # all outputs are acknowledged, the batch is not sent
    "batch_sent",  # the batch is on its way
    "batch_acked",  # the changelog holds the checkpoint, the store does not
    "local_written",  # the store holds it, the offset is not committed
    "committed",  # everything but the re-appends is done
    "own_appended",  # the partition is ours, nothing is restored
    "restoring",  # a part of the changelog is applied
    "restored",  # everything is applied, the partition is not open
)


def _nothing(_name: str) -> None:
    """No fault is armed."""


point: Callable[[str], None] = _nothing


def arm(spec: str) -> None:
    """Arm `name` or `name:n` (n from 1); "" disarms.  DeclarationError names the points when the name is unknown."""
    global point
    if not spec:
        point = _nothing
        return
    name, _, count = spec.partition(":")
    if name not in POINTS or not (count == "" or (count.isascii() and count.isdigit() and int(count) > 0)):
        raise DeclarationError(f"FAULT_AT={spec!r}: expected name or name:n, n from 1; names: {', '.join(POINTS)}")
    left = int(count or "1")
    lock = threading.Lock()  # delivery reports pass in another thread

    def armed(passed: str) -> None:
        nonlocal left
        if passed != name:
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    point = armed
