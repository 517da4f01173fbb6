"""Faults: named places at which a test kills the worker.

`FAULT_AT=after_fold:3` kills the process with -9 at the third passage of `after_fold`; without a number, at the first.
`record/after_fold:3` counts the passages of one leg only.  Unset, `point` does nothing.  Callers write
`faults.point("after_fold", leg)`: the attribute is looked up at each call, so arming works whenever it happens.

    own_appended -> restoring -> restored -> after_fetch -> after_fold
                 -> outputs_half -> outputs_acked -> batch_sent -> batch_acked -> local_written -> committed

The leg `achieve` has no tables and passes those that it has an equal of: its log is read (restoring, restored), what is
to be said is known (after_fold), records are acknowledged (outputs_half, outputs_acked), the mark is on its way
(batch_sent), and acknowledged (committed).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final, Protocol

from milepost.schemas.errors import DeclarationError
from milepost.topology.line import ASKING, LEGS

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
ASKED_POINTS: Final = ("repair_half",)  # half of what a repair sends is acknowledged
"""Passed by a view, for nobody's leg."""
LEG_NAMES: Final = (*(leg.name for leg in LEGS), *(leg.name for leg in ASKING))


class Point(Protocol):
    """A crash point is passed by a leg; "" where it is nobody's."""

    def __call__(self, name: str, leg: str = "", /) -> None: ...


def _nothing(_name: str, _leg: str = "", /) -> None:
    """No fault is armed."""


point: Point = _nothing


def arm(spec: str) -> None:
    """Arm `[leg/]name[:n]` (n from 1); "" disarms.  DeclarationError names legs and points when one is unknown."""
    global point
    if not spec:
        point = _nothing
        return
    place, _, count = spec.partition(":")
    wanted, slash, name = place.rpartition("/")
    known = (name in POINTS and wanted in LEG_NAMES) if slash else name in POINTS + ASKED_POINTS
    if not known or not (count == "" or (count.isascii() and count.isdigit() and int(count) > 0)):
        names = f"names: {', '.join(POINTS + ASKED_POINTS)}; legs: {', '.join(LEG_NAMES)}"
        raise DeclarationError(f"FAULT_AT={spec!r}: expected [leg/]name[:n], n from 1; {names}")
    left = int(count or "1")
    lock = threading.Lock()  # delivery reports pass in another thread

    def armed(passed: str, leg: str = "", /) -> None:
        nonlocal left
        if passed != name or (wanted and leg != wanted):
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    point = armed
