"""Ending: how the worker stops when going on would be wrong.

A failure never acknowledges (design §7.8): whatever cannot be answered by a dead letter ends the process at once, the
supervisor starts it again, and it restores.  `os._exit` on purpose: an orderly stop would flush, commit and checkpoint,
which is what must not happen.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final, NoReturn

FAILED: Final = 70
"""Exit code: something the process cannot answer; the log line before says what and what to do."""

ZOMBIE: Final = 75
"""Exit code: another worker has taken one of our partitions; nothing is wrong with the data, start again."""

STUCK: Final = 1
"""Exit code: a restore made no progress."""

log = logging.getLogger("milepost.agents")


def end(reason: str, code: int = FAILED, error: BaseException | None = None) -> NoReturn:
    """Log `reason` and leave the process with `code`, without any of the work of an orderly stop."""
    log.critical("worker ends with code %d: %s", code, reason, exc_info=error)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
