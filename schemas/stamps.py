"""Stamps: the header `milepost-first`, by which the engine says where a record first lay and when it was known.

    kind(1) k(8) partition(4) offset(8) bundle(8) mac(16)

Kinds: `a` a first record appended again, `f` a misrouted record forwarded to its place, `b` an import that backdates,
`m` a definitions marker, `t` a tick, `q` a verdict about another record (topology/quarantine.py).  The MAC (keyed
BLAKE2b-128 under the organisation's key, for `m`, `t` and `q` under the key of the empty organisation) covers raw key,
bytes and stamp, so a stamp cannot be moved to another record.  Without a right MAC it is ignored and counted (design
§3).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from milepost.schemas.keys import lp

HEADER = "milepost-first"
AGAIN, FORWARDED, BACKDATED, MARKER, TICK, VERDICT = b"a", b"f", b"b", b"m", b"t", b"q"
NO_BUNDLE = bytes(8)

_LAYOUT = struct.Struct(">cqiq8s")
SIZE = _LAYOUT.size + 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the header says.  `k_ms` counts for kinds a, f and b; `bundle` was in force at the first position."""

    kind: bytes
    k_ms: int = 0
    partition: int = -1
    offset: int = -1
    bundle: bytes = NO_BUNDLE

    def pack(self) -> bytes:
        """The 29 bytes before the MAC."""
        return _LAYOUT.pack(self.kind, self.k_ms, self.partition, self.offset, self.bundle)


def unpack(data: bytes) -> Stamp:
    """A stamp from its 29 bytes (or from a whole header: the MAC is not looked at)."""
    kind, k_ms, partition, offset, bundle = _LAYOUT.unpack_from(data)
    return Stamp(kind=kind, k_ms=k_ms, partition=partition, offset=offset, bundle=bundle)


def seal(org_key: bytes, key: bytes, value: bytes | None, packed: bytes) -> bytes:
    """The header's bytes: the stamp and its MAC."""
    return packed + _mac(org_key, key, value, packed)


def header(org_key: bytes, key: bytes, value: bytes | None, stamp: Stamp) -> tuple[str, bytes]:
    """The header to put on a record."""
    return HEADER, seal(org_key, key, value, stamp.pack())


def find(headers: Sequence[tuple[str, bytes]]) -> bytes | None:
    """The header's bytes if a record has one of the right size."""
    for name, data in headers:
        if name == HEADER and data is not None and len(data) == SIZE:
            return data
    return None


def verified(org_key: bytes, key: bytes | None, value: bytes | None, data: bytes) -> Stamp | None:
    """The stamp if its MAC is right for this record."""
    packed, mac = data[: _LAYOUT.size], data[_LAYOUT.size :]
    if not hmac.compare_digest(mac, _mac(org_key, key or b"", value, packed)):
        return None
    return unpack(packed)


def _mac(org_key: bytes, key: bytes, value: bytes | None, packed: bytes) -> bytes:
    body = lp(key) + lp(value or b"") + packed
    return hashlib.blake2b(body, key=org_key, digest_size=16, person=b"milepost-first").digest()
