"""`python -m milepost.agents`: one worker, until it is told to stop."""

from __future__ import annotations

import faulthandler
import logging.config
import sys

import faust

from milepost.agents.app import build
from milepost.ops import access_log, logs
from milepost.ops.settings import read_settings
from milepost.ops.supervise import EXIT_DECLARATION
from milepost.schemas.errors import DeclarationError


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
    faust.Worker(app, override_logging=False, loglevel=None, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
