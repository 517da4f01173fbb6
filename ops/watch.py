"""Watch: the frames of a stream (`GET /v1/stream`), through ends and restarts of the worker, without a gap.

connect -> frames -> the connection ends -> wait as long as the worker said -> connect with the last id -> frames
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from milepost.ops.client import Refused, foreign
from milepost.schemas.errors import StoreError

SILENT_S: Final = 45.0
"""A connection that says nothing for so long is given up, seconds: a worker that is there says something every 15."""
RETRY_S: Final = 1.0
LINE_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One event: `event` is value, milestone, revoked or presence, `data` its JSON."""

    event: str
    id: str
    data: Any


def watch(
    url: str,
    asked: Sequence[tuple[str, str]],
    *,
    token: str | Callable[[], str] = "",
    last: str = "",
    patience_s: float = 60.0,
) -> Iterator[Frame]:
    """The frames, for ever; `token` is shown at each connection.

    Raises Refused, and StoreError when no worker answers for `patience_s`."""
    parts = urllib.parse.urlsplit(url)
    target = f"/v1/stream?{urllib.parse.urlencode(asked)}"
    until = time.monotonic() + patience_s
    while True:
        why = "the stream ended"
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=SILENT_S)
        try:
            with contextlib.closing(connection):
                answer = _opened(connection, target, token if isinstance(token, str) else token(), last)
                for frame in _read(answer):
                    until = time.monotonic() + patience_s
                    last = frame.id or last
                    yield frame
        except (OSError, http.client.HTTPException) as error:
            why = str(getattr(error, "strerror", None) or error or "the connection ended")
        if time.monotonic() > until:
            raise StoreError(f"the worker at {url} gave no answer in {patience_s:.0f} s: {why}")
        time.sleep(RETRY_S)


def _opened(connection: http.client.HTTPConnection, target: str, token: str, last: str) -> http.client.HTTPResponse:
    headers = {"Accept": "text/event-stream"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Last-Event-ID": last} if last else {}
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    if answer.status == 503:
        raise OSError("the worker starts or stops")
    if answer.status != 200:
        try:
            problem = json.loads(answer.read())
        except ValueError as error:
            raise foreign(f"http://{connection.host}:{connection.port}", "JSON was expected") from error
        raise Refused(answer.status, target, problem)
    return answer


def _read(answer: http.client.HTTPResponse) -> Iterator[Frame]:
    """Frames as the HTML standard reads them; ends with the connection."""
    event, id, data = "message", "", list[str]()
    while line := answer.readline(LINE_BYTES_MAX).decode():
        name, _, value = line.rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line.startswith(":"):
                if data:
                    yield Frame(event=event, id=id, data=json.loads("\n".join(data)))
                event, id, data = "message", "", []
            case "event":
                event = value
            case "id":
                id = value
            case "data":
                data.append(value)
            case _:  # a comment, or how soon to come back
                continue
