"""Keys: raw keys, partitions, leaves and MetaKeys.  No look-up, no coordination, no personal data in any of them.

Every part is length-prefixed (`lp`), so that no two different tuples have the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from functools import lru_cache

from milepost.schemas.errors import DeclarationError

LEAF_BYTES = 16
PART_BYTES_MAX = 256
"""Bound of org, source and id in UTF-8 bytes (interface: 1 to 256)."""


def lp(part: bytes) -> bytes:
    """A part with its length before it: four bytes, big-endian."""
    return len(part).to_bytes(4, "big") + part


_UNREVISED = lp(b"0") + lp(b"0")
_first_bytes = struct.Struct(">I").unpack_from


def raw_key(org: str, source: str, id: str, revision: int = 0, repair: int = 0) -> bytes:
    """The key of an event in `raw-events`: BLAKE2b-128 of its length-prefixed identity."""
    return raw_place(org, source, id, revision, repair, 1)[0]


def raw_place(org: str, source: str, id: str, revision: int, repair: int, partitions: int) -> tuple[bytes, int]:
    """(raw key, raw partition): the partition is that of (org, source, id), so that all revisions lie together."""
    hashed, name = _names_hash(org, source).copy(), id.encode()
    hashed.update(len(name).to_bytes(4, "big") + name)
    (first,) = _first_bytes(hashed.digest())
    unrevised = revision == 0 == repair
    hashed.update(_UNREVISED if unrevised else lp(str(revision).encode()) + lp(str(repair).encode()))
    return hashed.digest(), first % partitions


@lru_cache(maxsize=4096)
def _names_hash(org: str, source: str) -> hashlib.blake2b:
    """The hash of what all raw keys of a source begin with."""
    return hashlib.blake2b(lp(org.encode()) + lp(source.encode()), digest_size=16)


def org_key(secret: bytes, org: str) -> bytes:
    """The organisation's own key, from the deployment's secret.  32 bytes."""
    return hashlib.blake2b(org.encode(), key=secret[:64], digest_size=32, person=b"milepost-org").digest()


def leaf(key: bytes, entity: str, kind: str, value: str, epoch: int = 0) -> bytes:
    """The leaf of an alternate key (`company/carrier_code/UA`) under the organisation's key: keyed BLAKE2b-128."""
    made, text = _leaf_hash(key, entity, kind).copy(), value.encode()
    made.update(len(text).to_bytes(4, "big") + text + epoch.to_bytes(4, "big"))
    return made.digest()


@lru_cache(maxsize=4096)
def _leaf_hash(key: bytes, entity: str, kind: str) -> hashlib.blake2b:
    """The hash of what all leaves of a kind of key begin with."""
    begun = lp(entity.encode()) + lp(kind.encode())
    return hashlib.blake2b(begun, key=key, digest_size=LEAF_BYTES, person=b"milepost-leaf")


def metakey(of: bytes) -> str:
    """A leaf as people write it: `mk_` and 26 lower-case base32 letters."""
    return "mk_" + base64.b32encode(of).decode().lower().rstrip("=")


def from_metakey(text: str) -> bytes:
    """The leaf of a MetaKey; ValueError says what was expected."""
    if not (text.startswith("mk_") and len(text) == 29):
        raise ValueError(f"a MetaKey is mk_ and 26 letters, not {text!r}")
    try:
        return base64.b32decode(text[3:].upper() + "======")
    except ValueError as error:
        raise ValueError(f"a MetaKey has only the letters a-z and 2-7: {text!r}") from error


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (Java's default partitioner, and Faust's): a non-negative 31-bit number.

    Source: org.apache.kafka.common.utils.Utils.murmur2, `toPositive`.
    """
    length, m = len(data), 0x5BD1E995
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return (h ^ h >> 15) & 0x7FFFFFFF


def leaf_partition(of: bytes, partitions: int) -> int:
    """Where a leaf's signals lie: murmur2, so that Faust's routing agrees."""
    return murmur2(of) % partitions


def checked_secret(secret: bytes) -> bytes:
    """The deployment's secret, or a DeclarationError: 16 to 64 bytes."""
    if not 16 <= len(secret) <= 64:
        raise DeclarationError(
            f"the secret has {len(secret)} bytes; 16 to 64 are expected (file `secret` or MILEPOST_SECRET)"
        )
    return secret


class OrgKeys(dict[str, bytes]):
    """Each organisation's key, made on demand; the empty name is the key of markers and ticks.  Remembers 10,000."""

    REMEMBERED_MAX = 10_000

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._secret = checked_secret(secret)

    def __missing__(self, org: str) -> bytes:
        if len(self) >= self.REMEMBERED_MAX:
            self.clear()
        made = self[org] = org_key(self._secret, org)
        return made
