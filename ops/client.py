"""Client: the worker's web views from Python, one connection, the standard library alone.

503 (restoring, handing over) -> waits as long as the worker says, within a deadline, and says so
4xx                           -> Refused, with the problem's own words
no JSON, no HTTP              -> StoreError: something else listens on the worker's port
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from milepost.ops.broker import Say, silent
from milepost.schemas.errors import MilepostError, StoreError

PATIENCE_S: Final = 60.0
ANSWER_S: Final = 30.0
"""How long one answer may take, in seconds."""

DIGEST_S: Final = 1800.0
"""The same for a digest: about ten microseconds a row."""

PAUSE_S_MAX: Final = 2.0
SAY_S: Final = 3.0
"""What is waited for is said so often, in seconds."""
PAGE: Final = 1000

PORT: Final = "set MILEPOST_PORT to the port of the worker's page"


def foreign(url: str, expected: str) -> StoreError:
    """That something else listens where a worker was expected."""
    return StoreError(f"what answers at {url} is no worker of Milepost: {expected}; fix: {PORT}")


class Refused(MilepostError):
    """The worker's answer to a question that does not hold: `status`, and the problem details (RFC 9457)."""

    def __init__(self, status: int, path: str, problem: Mapping[str, Any]) -> None:
        super().__init__(status, path, problem)
        self.status, self.path, self.problem = status, path, problem

    def __str__(self) -> str:
        said = self.problem.get("detail") or self.problem.get("title") or "no reason given"
        return f"{self.status} for {self.path}: {said}"


class Client:
    """Questions to one worker.  Not for several threads: it holds one connection.

    token: what is shown at the door, or what makes it anew for each request (access.bearer)
    patience_s: how long a question waits for a worker that is restoring or does not answer yet (then StoreError).
    answer_s:   how long one answer may take
    say:        is told when something is waited for
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] = "",
        patience_s: float = PATIENCE_S,
        answer_s: float = ANSWER_S,
        say: Say = silent,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._say = say
        self._token = token
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=answer_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def get(self, path: str, /, **parameters: str | int | None) -> Any:
        """The JSON of GET `path`; parameters that are None are left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._ask("GET", f"{path}?{urllib.parse.urlencode(given)}" if given else path, None)

    def post(self, path: str, body: Any) -> Any:
        """The JSON of POST `path` with a JSON body."""
        return self._ask("POST", path, json.dumps(body).encode())

    def digest(self) -> dict[str, str]:
        """Table -> digest, and `total`.  It reads every row there is, so it may take minutes."""
        self._wait(DIGEST_S)
        try:
            found: dict[str, str] = self.get("/v1/digest")
        finally:
            self._wait(ANSWER_S)
        return found

    def value(self, metric: str, **question: str | None) -> Any:
        """The answer of `value`: {value, unit, at, basis, version, finality, complete_to, reason}."""
        return self.get(f"/v1/metrics/{urllib.parse.quote(metric)}/value", **question)

    def pages(self, path: str, items: str, **parameters: str | int | None) -> Iterator[Any]:
        """All items of a paged list, page by page."""
        following: str | None = None
        while True:
            page = self.get(path, limit=PAGE, next=following, **parameters)
            yield from page[items]
            following = page.get("next")
            if not following:
                return

    def _ask(self, method: str, target: str, body: bytes | None) -> Any:
        deadline, pause = time.monotonic() + self.patience_s, 0.05
        say_at = time.monotonic() + SAY_S
        while True:
            why = "it does not answer"
            try:
                status, headers, content = self._once(method, target, body)
                if status < 400:
                    return self._read(content)
                if status != 503:
                    raise Refused(status, target, self._problem(content))
                why = str(_read_or_none(content).get("detail") or "it is not ready")
                with contextlib.suppress(ValueError):
                    pause = float(headers.get("Retry-After") or pause)
            except http.client.BadStatusLine as error:
                self._connection.close()
                if not isinstance(error, http.client.RemoteDisconnected):
                    raise foreign(self.url, "HTTP was expected") from error
                why = f"it ends the connection without an answer ({PORT})"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                why = str(getattr(error, "strerror", None) or error or "the connection ended")
            now = time.monotonic()
            if now + pause > deadline:
                raise StoreError(f"the worker at {self.url} gave no answer in {self.patience_s:.0f} s: {why}")
            if now > say_at:
                say_at = now + SAY_S
                self._say(f"waiting for the worker at {self.url}: {why}")
            time.sleep(min(pause, PAUSE_S_MAX))
            pause = min(pause * 2, PAUSE_S_MAX)

    def _read(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise foreign(self.url, "JSON was expected") from error

    def _problem(self, content: bytes) -> dict[str, Any]:
        """Problem details, of which JSON that is no object becomes the detail."""
        problem = self._read(content)
        return problem if isinstance(problem, dict) else {"detail": str(problem)[:200]}

    def _wait(self, seconds: float) -> None:
        """How long one answer may take from here on."""
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)

    def _once(self, method: str, target: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        token = self._token if isinstance(self._token, str) else self._token()
        headers = {"Accept": "application/json"} if body is None else {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        self._connection.request(method, target, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()


def _read_or_none(content: bytes) -> dict[str, Any]:
    """Problem details; {} for anything else, of a proxy, say."""
    try:
        problem = json.loads(content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
