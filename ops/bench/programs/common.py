"""Common to the peers written in Python: their arguments, the rules of the job, lines of progress.

These programs run with another framework's interpreter, where Milepost is not installed: they import nothing of it.
"""

from __future__ import annotations

import json
import sys
import time

PANE_MS = 900_000


def arguments() -> dict[str, str]:
    """The key=value arguments of the command line."""
    return dict(one.split("=", 1) for one in sys.argv[1:])


def rule_of(type: str, amount: float, plan: str) -> str:
    """The rule that an event meets; "" for none."""
    if type == "login":
        return "login"
    if type == "ticket_opened":
        return "ticket"
    if type == "invoice_paid":
        return "paid" if amount > 10.0 else ""
    if type == "feature_used":
        return "used" if plan != "free" else ""
    return ""


class Progress:
    """Counts what was done and prints it as JSON lines, timed from the first event read."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.read = self.signals = self.measured = 0
        self._begun = self._told = 0.0
        self._finished = False

    @property
    def done(self) -> bool:
        return self.read >= self.events and self.measured >= self.signals

    def took(self, count: int = 1) -> None:
        """`count` events were read."""
        now = time.monotonic()
        if not self._begun:
            self._begun = self._told = now
        self.read += count
        if now - self._told > 0.2:
            self._told = now
            self._say(now)

    def ended(self) -> bool:
        """Whether all is done; the last line is printed when that is found for the first time."""
        if self.done and not self._finished:
            self._finished = True
            self._say(time.monotonic(), done=True)
        return self._finished

    def _say(self, now: float, **more: bool) -> None:
        line = {"at_s": round(now - self._begun, 3), "read": self.read, "signals": self.signals}
        print(json.dumps({**line, "measured": self.measured, **more}), flush=True)
