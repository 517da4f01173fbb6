"""Registry client: what Milepost asks of a schema registry, over the API that Confluent's and Apicurio's share.

    compatibility of a subject -> is a schema compatible? -> register -> its id         versions, each with id and text

One connection, the standard library alone.  What an id means never changes, so it is asked once.  Everything is
bounded: an answer in bytes and seconds, and all of one command in seconds (`PATIENCE_S`).
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from milepost.schemas.errors import DeclarationError, StoreError
from milepost.schemas.framing import SCHEMAS_MAX, RegisteredSchema

FULL_TRANSITIVE: Final = "FULL_TRANSITIVE"
ANSWER_S: Final = 10.0
"""How long one answer may take, in seconds."""
PATIENCE_S: Final = 60.0
"""How long a registry that does not answer, or answers slowly, is asked by one command."""
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
PAUSES_S: Final = (0.1, 0.3, 1.0)
"""Before a question that was not answered is asked again; all of them may be asked twice."""
_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class Incompatible(DeclarationError):
    """The registry refuses a schema: it does not go with the versions of its subject.  `messages`: its own words."""

    def __init__(self, subject: str, messages: tuple[str, ...]) -> None:
        super().__init__(subject, messages)
        self.subject, self.messages = subject, messages

    def __str__(self) -> str:
        why = "; ".join(self.messages[:5]) or "it gives no reason"
        return f"the registry refuses the schema of {self.subject}, which is {FULL_TRANSITIVE}: {why[:1000]}"


class RegistryClient:
    """Questions to one registry.  Not for several threads.

    patience_s: for all questions together, `PATIENCE_S` if nothing is said
    url: of the API, as http://127.0.0.1:8081/apis/ccompat/v7 (Apicurio) or http://registry:8081 (Confluent)

    StoreError: it does not answer, not in time, or not as a registry does;  DeclarationError: it refuses.
    """

    def __init__(
        self, url: str, *, patience_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._clock = clock
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._until = clock() + self._patience_s
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=ANSWER_S)
        self._known: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def subjects(self) -> list[str]:
        """The names of all subjects: also the shortest question that only a registry answers."""
        found = self._ask("GET", "/subjects")
        if not isinstance(found, list):
            raise StoreError(f"{self.url} does not answer as a schema registry: a list of subjects was expected")
        return [str(one) for one in found]

    def compatibility(self, subject: str) -> str:
        """The level of a subject, or the registry's own where the subject has none."""
        answer = self._ask("GET", f"/config/{_quoted(subject)}?defaultToGlobal=true", absent=(404,))
        answer = answer or self._ask("GET", "/config")
        return str(answer.get("compatibilityLevel") or answer.get("compatibility") or "")

    def guard_all(self) -> None:
        """Make FULL_TRANSITIVE the registry's own level: of a registry that is ours, where it is NONE at first."""
        self._ask("PUT", "/config", {"compatibility": FULL_TRANSITIVE})

    def guard(self, subject: str) -> None:
        """Make a subject FULL_TRANSITIVE, if it is not."""
        if self.compatibility(subject) != FULL_TRANSITIVE:
            self._ask("PUT", f"/config/{_quoted(subject)}", {"compatibility": FULL_TRANSITIVE})

    def check(self, subject: str, text: str) -> None:
        """Raise Incompatible when the schema does not go with the subject's versions.  A new subject takes any."""
        body = {"schema": text, "schemaType": "AVRO"}
        path = f"/compatibility/subjects/{_quoted(subject)}/versions?verbose=true"
        answer = self._ask("POST", path, body, absent=(404,))
        if answer is not None and not answer.get("is_compatible", False):
            raise Incompatible(subject, tuple(str(one) for one in answer.get("messages") or ()))

    def register(self, subject: str, text: str) -> int:
        """The id of the schema under a subject, registered now if it was not.  Twice is no error."""
        try:
            answer = self._ask("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": text, "schemaType": "AVRO"})
        except _Refused as refused:
            if refused.status == 409:
                raise Incompatible(subject, (refused.said,)) from refused
            raise
        return int(answer["id"])

    def registered(self, subject: str, text: str) -> RegisteredSchema:
        """How a schema is known under a subject that has it."""
        answer = self._ask("POST", f"/subjects/{_quoted(subject)}", {"schema": text, "schemaType": "AVRO"})
        return RegisteredSchema(
            id=int(answer["id"]), subject=subject, version=int(answer["version"]), text=str(answer["schema"])
        )

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """All versions of a subject, oldest first; none when there is no such subject."""
        numbers = self._ask("GET", f"/subjects/{_quoted(subject)}/versions", absent=(404,)) or []
        if len(numbers) > SCHEMAS_MAX:
            raise DeclarationError(f"{subject} has {len(numbers)} versions in the registry; at most {SCHEMAS_MAX}")
        found = []
        for number in sorted(int(one) for one in numbers):
            answer = self._ask("GET", f"/subjects/{_quoted(subject)}/versions/{number}")
            one = RegisteredSchema(id=int(answer["id"]), subject=subject, version=number, text=str(answer["schema"]))
            self._known[one.id] = one.text
            found.append(one)
        return found

    def schema(self, id: int) -> str | None:
        """The text of a schema by its id; None when there is none."""
        if id not in self._known:
            answer = self._ask("GET", f"/schemas/ids/{id}", absent=(404,))
            if answer is None:
                return None
            if len(self._known) >= SCHEMAS_MAX:
                self._known.clear()
            self._known[id] = str(answer["schema"])
        return self._known[id]

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, absent: tuple[int, ...] = ()) -> Any:
        """The JSON of an answer; None for a status in `absent`.  Who does not answer is asked again, for a while."""
        why = ""
        for pause_s in (*PAUSES_S, None):
            left = self._until - self._clock()
            if left <= 0:
                break
            try:
                status, content = self._once(method, path, body, min(ANSWER_S, left))
                if status < 500:
                    return _answer(self.url, method, path, status, content, absent)
                why = f"it answers {status}: {_said(content)}"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                why = f"{type(error).__name__}: {error}"
            if pause_s is None:
                break
            time.sleep(min(pause_s, max(0.0, self._until - self._clock())))
        why = why or f"it did not answer in {self._patience_s:.0f} s"
        raise StoreError(
            f"the schema registry at {self.url} does not answer ({why}); fix: start it (`milepost up --registry` "
            "starts one on this machine), correct MILEPOST_REGISTRY, or leave it out to go on without a registry"
        )

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float) -> tuple[int, bytes]:
        headers = {"Accept": f"{_TYPE}, application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), _TYPE
        connection = self._connection
        connection.timeout = patience_s
        if connection.sock is not None:
            connection.sock.settimeout(patience_s)
        connection.request(method, self._path + path, data, headers)
        answer = connection.getresponse()
        content = bytearray()
        while part := answer.read1(65_536):
            content += part
            if len(content) > ANSWER_BYTES_MAX:
                connection.close()
                raise StoreError(f"{self.url}{path}: the answer has more than {ANSWER_BYTES_MAX} bytes")
            if self._clock() > self._until:  # it comes drop by drop: no wait was too long, all of them are
                raise TimeoutError("the answer does not end")
        answer.close()  # read to its end: the connection may be used again
        return answer.status, bytes(content)


class _Refused(DeclarationError):
    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__(f"the schema registry refuses {where}: {status}, {said}")
        self.status, self.said = status, said


def _answer(url: str, method: str, path: str, status: int, content: bytes, absent: tuple[int, ...]) -> Any:
    if status in absent:
        return None
    if status >= 400:
        raise _Refused(status, _said(content), f"{method} {path.partition('?')[0]}")
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreError(f"{url}{path} does not answer as a schema registry: no JSON came") from error


def _said(content: bytes) -> str:
    """A registry's own words for a failure."""
    try:
        answer = json.loads(content)
    except ValueError:
        return content[:200].decode(errors="replace")
    return str(answer.get("message") or answer.get("title") or answer)[:500] if isinstance(answer, dict) else ""


def _quoted(subject: str) -> str:
    return quote(subject, safe="")
