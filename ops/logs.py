"""Logs: one line an event that an operator can act on; text for people, or JSON for machines.

A quiet log means a healthy line.  A line about a record has its place bound (`place`), which follows the message.
No values of `data` and no secrets: they travel further than anyone remembers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from milepost.ops.settings import Settings

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data", "taskName"}


ALIKE_MAX: Final = 5
"""Lines of one logger, level and wording in `ALIKE_S` seconds; the rest are counted and left out."""

ALIKE_S: Final = 10.0
WORDINGS_MAX: Final = 1000
"""Wordings remembered; beyond, memory begins anew.  A wording is the text before its values are put in."""


class Repeats(logging.Filter):
    """Lets a line pass `ALIKE_MAX` times in `ALIKE_S` seconds; the next one to pass says how many were `left_out`.

    Without a broker the client libraries wrote a hundred lines a second, all alike: the disk is bounded, and so is what
    a person can read.  Critical lines always pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], list[float]] = {}  # -> [since, passed, left out]

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        now = self._clock()
        # A library's lines are alike when their wording is; ours tell of one partition each, and each is wanted.
        ours = record.name.partition(".")[0] == "milepost"
        key = (record.name, record.levelno, (record.getMessage() if ours else str(record.msg))[:200])
        seen = self._seen.get(key)
        if seen is None or now - seen[0] >= ALIKE_S:
            if seen is not None and seen[2]:
                record.left_out = int(seen[2])
            if len(self._seen) >= WORDINGS_MAX:
                self._seen.clear()
            self._seen[key] = [now, 1, 0]
            return True
        if seen[1] < ALIKE_MAX:
            seen[1] += 1
            return True
        seen[2] += 1
        return False


def place(topic: str, partition: int, offset: int) -> dict[str, str]:
    """What a line about a record says beside its words: `log.error(…, extra=place("raw-events", 3, 1288))`.

    topic: as in the line, so that `GET /v1/events/raw-events/3@1288` tells what became of the record
    """
    return {"at": f"{topic}/{partition}@{offset}"}


class TextFormatter(logging.Formatter):
    """`2013-01-01T05:17:00.123Z WARNING milepost.worker: message (at=raw-events/3@1288)`"""

    def format(self, record: logging.LogRecord) -> str:
        bound = " ".join(f"{name}={value}" for name, value in _bound(record).items())
        line = f"{_moment(record)} {record.levelname} {record.name}: {record.getMessage()}"
        line += f" ({bound})" if bound else ""
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the bound fields, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_bound(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def logging_config(settings: Settings) -> dict[str, Any]:
    """A `logging.config.dictConfig` for a worker: everything to stderr, the libraries' chatter at warning."""
    formatter: Literal["JsonFormatter", "TextFormatter"]
    formatter = "JsonFormatter" if settings.log_format == "json" else "TextFormatter"
    level = settings.log.upper()
    filters = [] if settings.log == "debug" else ["repeats"]
    chatter = level if settings.log == "debug" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{__name__}.{formatter}"}},
        "filters": {"repeats": {"()": f"{__name__}.Repeats"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": filters}},
        "root": {"handlers": ["stderr"], "level": chatter},
        "loggers": {"milepost": {"level": level}, "aiohttp.access": {"level": "WARNING"}},
    }


def _bound(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
