"""Access log: the topics `access` (tokens) and `audit` (who changed what) at the broker, for commands and for a start.

tokens create -> a sealed record, acknowledged -> every worker's book within milliseconds
audit         <- both topics, in the order of their times
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Final

from milepost.ops.access import TOKENS_MAX, Book, Doorkeys
from milepost.ops.reader import partition_count, plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import ContractError, DeclarationError
from milepost.schemas.serde import wire

TOPIC: Final = "access"
AUDIT: Final = "audit"
AUDIT_MAX: Final = 100_000
"""Lines of the audit that are read at most, the newest."""


def read_book(settings: Settings) -> Book:
    """Every token there is.  Raises DeclarationError, StoreError."""
    book = Book(Doorkeys(settings))
    for value in _values(settings, TOPIC):
        with suppress(ContractError):  # counted: `passed_over`
            book.add(value)
    return book


def write(settings: Settings, book: Book, record: Mapping[str, Any]) -> None:
    """Append what was made or revoked; the broker has it when this returns."""
    if record["what"] == "made" and len(book.tokens) >= TOKENS_MAX:
        raise DeclarationError(f"there are {TOKENS_MAX} tokens already, the most a deployment has")
    key = f"{record['id']}/{record['what']}".encode()
    _append(settings, TOPIC, key, wire("Access").encode(dict(record)))


def note(settings: Settings, call: str, receipt: str) -> None:
    """A line of the audit for what a command changed past the doors: it spoke to the broker itself."""
    id = os.urandom(16)
    record = {
        "id": id, "what": "done", "at_ms": time.time_ns() // 1_000_000, "who": myself(), "token": "",
        "org": None, "call": call[:512], "status": 200, "receipt": receipt, "worker": "",
    }  # fmt: skip
    _append(settings, AUDIT, id + b"done", wire("Change").encode(record))


def audit(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """The newest lines, the oldest of them first: changes with what came of them, tokens made and revoked."""
    lines: dict[bytes, dict[str, Any]] = {}
    for value in deque(_values(settings, AUDIT), maxlen=2 * AUDIT_MAX):
        with suppress(ContractError):  # not ours: nothing of it can be said
            fields = wire("Change").decode(value or b"")
            line = lines.setdefault(fields["id"], {**fields, "id": fields["id"].hex(), "status": None, "receipt": None})
            if fields["what"] == "done":
                line |= {"status": fields["status"], "receipt": fields["receipt"] or None}
    found = [{name: one for name, one in line.items() if name != "what"} for line in lines.values()]
    book = read_book(settings)
    found += (_token_line(one.id, one.name, one.made_ms, one.by, "tokens create") for one in book.tokens.values())
    found += (
        _token_line(id, book.tokens[id].name if id in book.tokens else "", at_ms, by, "tokens revoke")
        for id, (at_ms, by) in book.revoked.items()
    )
    return sorted(found, key=lambda line: (line["at_ms"], line["id"]))[-limit:]


def check_bind(settings: Settings) -> None:
    """Refuse to listen where strangers come by, as long as nothing tells them from friends.

    Raises DeclarationError, which says how to make a token; StoreError when the broker does not answer."""
    if not settings.exposed or settings.own_token or settings.oidc_issuer:
        return
    book, now_ms = read_book(settings), time.time_ns() // 1_000_000
    if not any(book.holds(id, now_ms) for id in book.tokens):
        where = f"MILEPOST_HOST={settings.host!r}" if not settings.loopback else "MILEPOST_HOSTS"
        raise DeclarationError(
            f"{where} lets others in, and no token holds; fix: start on 127.0.0.1 (or `milepost up --broker-only`), "
            "`milepost tokens create NAME --role read`, start again; or set MILEPOST_OIDC_ISSUER or MILEPOST_TOKEN"
        )


def myself() -> str:
    """Who runs a command, as the machine says."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _token_line(id: str, name: str, at_ms: int, by: str, call: str) -> dict[str, Any]:
    return {
        "id": id, "at_ms": at_ms, "who": by, "token": "", "org": None, "call": f"{call} {name}", "status": 200,
        "receipt": id, "worker": "",
    }  # fmt: skip


def _append(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    partition_count(settings, topic)  # an absent topic or broker is said at once, where a producer would wait
    with Sender(settings.bootstrap) as sender:
        sender.send(settings.topic(topic), 0, key, value)


def _values(settings: Settings, topic: str) -> Any:
    """The values of a topic of one partition.  Raises DeclarationError when it is not there."""
    partition_count(settings, topic)
    with closing(plain_consumer(settings.bootstrap)) as consumer:
        for message in read_to_end(consumer, settings.topic(topic), 1):
            yield message.value()
