"""Hashes and stamps, restated from the design: raw keys, partitions, leaves, MetaKeys and the header `milepost-first`.

Nothing here is imported from the engine, so an error in its hashing shows as a difference and not twice.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

HEADER = "milepost-first"
AGAIN, FORWARDED, BACKDATED, MARKER, TICK = b"a", b"f", b"b", b"m", b"t"
KINDS = frozenset({AGAIN, FORWARDED, BACKDATED, MARKER, TICK})
NO_BUNDLE = bytes(8)
_BODY = 29
_MAC = 16


@dataclass(frozen=True, kw_only=True)
class RawRecord:
    """A message of the raw log.  `timestamp_ms` is the broker's append time."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def timestamp(self) -> int:
        """The append time under the name that Kafka clients use, so an engine can be fed with these records."""
        return self.timestamp_ms


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What `milepost-first` says: the kind, known time and place of a first arrival, and the bundle in force there."""

    kind: bytes
    k_ms: int
    partition: int
    offset: int
    bundle: bytes

    def body(self) -> bytes:
        return (
            self.kind
            + self.k_ms.to_bytes(8, "big", signed=True)
            + self.partition.to_bytes(4, "big")
            + self.offset.to_bytes(8, "big", signed=True)
            + self.bundle
        )


def lp(data: bytes) -> bytes:
    """`data` behind its length, four bytes big-endian."""
    return len(data).to_bytes(4, "big") + data


def raw_key(org: str, source: str, event_id: str, revision: int = 0, repair: int = 0) -> bytes:
    """The key of a record of the raw log, 16 bytes."""
    text = b"".join(lp(part.encode()) for part in (org, source, event_id, str(revision), str(repair)))
    return hashlib.blake2b(text, digest_size=16).digest()


def raw_partition(org: str, source: str, event_id: str, partitions: int) -> int:
    """Where an event belongs in the raw log."""
    text = b"".join(lp(part.encode()) for part in (org, source, event_id))
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest()[:4], "big") % partitions


def secret_key(secret: bytes, org: str) -> bytes:
    """The organisation's key, 32 bytes.  Markers and ticks use the organisation ""."""
    return hashlib.blake2b(org.encode(), key=secret, digest_size=32, person=b"milepost-org").digest()


def leaf(secret: bytes, org: str, entity: str, key: str, value: str, epoch: int = 0) -> bytes:
    """The leaf of an alternate key, 16 bytes."""
    text = lp(entity.encode()) + lp(key.encode()) + lp(value.encode()) + epoch.to_bytes(4, "big")
    return hashlib.blake2b(text, key=secret_key(secret, org), digest_size=16, person=b"milepost-leaf").digest()


def metakey(of: bytes) -> str:
    """The leaf as people read it: mk_ and 26 letters."""
    return "mk_" + base64.b32encode(of).decode().rstrip("=").lower()


def leaf_of_metakey(text: str) -> bytes:
    """The inverse of `metakey`; ValueError when it is none."""
    if not text.startswith("mk_") or len(text) != 29:
        raise ValueError(f"not a MetaKey: {text!r}")
    return base64.b32decode(text[3:].upper() + "======")


def seal(secret: bytes, org: str, stamp: Stamp, key: bytes | None, value: bytes | None) -> tuple[str, bytes]:
    """The header for a record with this key and value."""
    return HEADER, stamp.body() + _mac(secret, org, stamp.body(), key, value)


def opened(secret: bytes, org: str, record: Any) -> Stamp | None:
    """The stamp of a record, or None where there is none or its MAC is not right.  The last such header counts."""
    for name, data in reversed(tuple(record.headers)):
        if name != HEADER or data is None or len(data) != _BODY + _MAC:
            continue
        body, mac = data[:_BODY], data[_BODY:]
        if body[:1] in KINDS and mac == _mac(secret, org, body, record.key, record.value):
            return Stamp(
                kind=body[:1],
                k_ms=int.from_bytes(body[1:9], "big", signed=True),
                partition=int.from_bytes(body[9:13], "big"),
                offset=int.from_bytes(body[13:21], "big", signed=True),
                bundle=body[21:29],
            )
    return None


def claims(record: Any) -> bool:
    """Whether a record has a header of a stamp's name and size, right or not."""
    return any(name == HEADER and data is not None and len(data) == _BODY + _MAC for name, data in record.headers)


def _mac(secret: bytes, org: str, body: bytes, key: bytes | None, value: bytes | None) -> bytes:
    text = lp(key or b"") + lp(value or b"") + body
    return hashlib.blake2b(text, key=secret_key(secret, org), digest_size=_MAC, person=b"milepost-first").digest()
