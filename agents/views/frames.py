"""Frames: server-sent events, and the id by which a client that comes back is told only what it has not seen.

    answer -> pieces (one a value, one a milestone and company) -> frames     id = what the client has seen, in short
                                                                              of each piece: question, key, content

The id is made of what was sent, not of a place in a history: nothing has to be kept for clients that are away, any
worker understands the id of any other, and a state that changed there and back is not told.  A piece is told by its
content without what moves with the clock alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

RETRY_MS: Final = 1_000
"""How soon a browser comes back, ms."""
OPENING: Final = f"retry: {RETRY_MS}\n: milepost\n\n".encode()
ENTRIES_MAX: Final = 150
"""Pieces that an id names at most, the newest: it comes back in a header, and 2,400 characters fit in any."""
CLOCK: Final = frozenset({"at", "shown_lag_ms", "lag_ms"})
"""Members of an answer that move with the clock alone: they are told with it and are no reason to tell it again."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_WHOLE: Final = 1
_CUT: Final = 2
_SHORT: Final = 3
_ENTRY: Final = 2 * _SHORT + 6

Mark = tuple[bytes, bytes]
"""Short names of a question and of one of its pieces."""


def frame(event: str, data: bytes, id: str = "") -> bytes:
    """One event.  `data` is UTF-8; each of its lines becomes a line of the frame."""
    lines = [f"event: {event}".encode()]
    if id:
        lines.append(f"id: {id}".encode())
    lines += [b"data: " + line for line in _LINE_END.split(data)]
    return b"\n".join(lines) + b"\n\n"


def comment(text: str = "") -> bytes:
    """A line that clients pass over; it keeps a connection open."""
    return f": {' '.join(text.split())}\n\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one frame tells.  digest: of its content, without the clock."""

    event: str
    data: bytes
    digest: bytes


def short(text: bytes) -> bytes:
    """The short name of a question or key."""
    return hashlib.blake2b(text, digest_size=_SHORT).digest()


def piece(event: str, body: Mapping[str, Any]) -> Piece:
    told = {name: one for name, one in body.items() if name not in CLOCK}
    digest = hashlib.blake2b(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), digest_size=_ENTRY - 2 * _SHORT).digest()
    return Piece(event=event, data=orjson.dumps(body), digest=digest)


def value_pieces(question: Mapping[str, str], answer: Mapping[str, Any]) -> dict[bytes, Piece]:
    """The one piece of a value."""
    return {key(question): piece("value", answer)}


def milestone_pieces(answer: Mapping[str, Any]) -> dict[bytes, Piece]:
    """A piece for each milestone of a plan and company."""
    return {
        key({name: row[name] for name in ("plan", "milestone", "company")}): piece("milestone", row)
        for row in answer["milestones"]
    }


def key(of: Mapping[str, Any]) -> bytes:
    """What a piece is called, as JSON: a `revoked` frame says it."""
    return orjson.dumps(of, option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True)
class Seen:
    """What a client has been sent: mark -> digest, the oldest first.

    cut: it has seen more than its id could say
    """

    of: dict[Mark, bytes] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def parse(cls, text: str) -> Seen:
        """What an id says.  One that is none of ours says nothing: then everything is sent."""
        try:
            data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return cls()
        if (
            not data
            or data[0] not in (_WHOLE, _CUT)
            or (len(data) - 1) % _ENTRY
            or len(data) > 1 + ENTRIES_MAX * _ENTRY
        ):
            return cls()
        entries = (data[at : at + _ENTRY] for at in range(1, len(data), _ENTRY))
        found = {(one[:_SHORT], one[_SHORT : 2 * _SHORT]): one[2 * _SHORT :] for one in entries}
        return cls(found, data[0] == _CUT)

    def id(self) -> str:
        newest = list(self.of.items())[-ENTRIES_MAX:]
        begin = bytes([_CUT if self.cut or len(newest) < len(self.of) else _WHOLE])
        data = begin + b"".join(question + key + digest for (question, key), digest in newest)
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def holds(self, mark: Mark, digest: bytes) -> bool:
        return self.of.get(mark) == digest

    def add(self, mark: Mark, digest: bytes) -> None:
        self.of.pop(mark, None)
        self.of[mark] = digest

    def forget(self, marks: Iterable[Mark]) -> None:
        for mark in list(marks):
            self.of.pop(mark, None)

    def marks(self, question: bytes) -> Iterator[Mark]:
        """What has been seen of a question."""
        return (mark for mark in self.of if mark[0] == question)
