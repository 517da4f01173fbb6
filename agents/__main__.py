"""`python -m milepost.agents`: one worker, until it is told to stop."""

from __future__ import annotations

import asyncio
import faulthandler
import logging.config
import sys
from typing import Final

import faust

from milepost.agents.app import build
from milepost.ops import access_log, logs
from milepost.ops.settings import read_settings
from milepost.ops.supervise import EXIT_DECLARATION
from milepost.schemas.errors import DeclarationError

TASKS_S: Final = 1.0
"""How long tasks that are left at the end may take, in seconds, to be cancelled."""


class Worker(faust.Worker):
    """Stock waits a second for tasks that wait for ever, and another for nothing, when everything is given back."""

    def _gather_all(self) -> None:
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left, timeout=TASKS_S))

    async def _sentinel_task(self) -> None:
        await asyncio.sleep(0)


def main() -> None:
    """Run a worker.  Exit code 78: what was declared does not hold, and starting again would change nothing."""
    faulthandler.enable()  # an abort or a segfault in C code says in the worker's log which call it was
    try:
        settings = read_settings()
        logging.config.dictConfig(logs.logging_config(settings))
        access_log.check_bind(settings)
        app, _ = build(settings)
    except DeclarationError as error:
        sys.stderr.write(f"milepost worker: {error}\n")
        sys.exit(EXIT_DECLARATION)
    # Our own logging: Faust's sets the root logger to DEBUG for levels above INFO.
    Worker(app, override_logging=False, loglevel=None, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
