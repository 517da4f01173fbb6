"""Packed: the rows of a store in one record of a changelog.

    epoch(8) upto(8) (u16 key length, u32 value length | FFFFFFFF: deleted, key, value)*      numbers big-endian

agents/changelog.py writes them, one record a checkpoint; a restore and `milepost tail` read them.
"""

from __future__ import annotations

import struct
from typing import Final

from milepost.schemas.errors import ContractError

HEAD_BYTES: Final = 16
DELETED: Final = 0xFFFFFFFF
ROW: Final = struct.Struct(">HI")


def load_packed(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """The rows of a packed record; ContractError when its lengths do not add up."""
    rows: list[tuple[bytes, bytes | None]] = []
    at, end, unpack = HEAD_BYTES, len(value), ROW.unpack_from
    try:
        while at < end:
            key_length, value_length = unpack(value, at)
            at += 6
            key = value[at : at + key_length]
            at += key_length
            if value_length == DELETED:
                rows.append((key, None))
            else:
                rows.append((key, value[at : at + value_length]))
                at += value_length
    except struct.error as error:
        raise ContractError("not_decodable", "a packed changelog record ends in the middle of a row") from error
    if at != end:
        raise ContractError("not_decodable", f"a packed changelog record has {end} bytes, its rows say {at}")
    return rows
