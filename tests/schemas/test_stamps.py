"""Stamps: what the engine says of a record's first position, and why nobody else can."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milepost.schemas import stamps
from milepost.schemas.stamps import Stamp

KEY = b"k" * 32
STAMP = Stamp(kind=stamps.AGAIN, k_ms=1_700_000_000_000, partition=3, offset=1288, bundle=b"bundle-8")


def test_a_stamp_reads_back() -> None:
    """A sealed stamp is found, verified and read back whole."""
    name, data = stamps.header(KEY, b"key", b"value", STAMP)
    assert stamps.find([("other", b"x"), (name, data)]) == data
    assert stamps.verified(KEY, b"key", b"value", data) == STAMP


def test_a_stamp_has_known_bytes() -> None:
    """The layout is kind, k, partition, offset, bundle and a 16-byte MAC: 45 bytes that never change."""
    data = stamps.seal(KEY, b"key", b"value", STAMP.pack())
    assert len(data) == stamps.SIZE == 45
    assert data.hex() == "610000018bcfe5680000000003000000000000050862756e646c652d38184a8806647ac55cbde8a105ccd4c1ac"


@given(st.integers(0, 44), st.integers(1, 255))
def test_a_changed_stamp_is_ignored(at: int, flip: int) -> None:
    """No byte of a stamp can change without the MAC saying so."""
    data = bytearray(stamps.seal(KEY, b"key", b"value", STAMP.pack()))
    data[at] ^= flip
    assert stamps.verified(KEY, b"key", b"value", bytes(data)) is None


def test_a_stamp_cannot_be_moved() -> None:
    """A right stamp on another key, other bytes, or another organisation's record is ignored."""
    data = stamps.seal(KEY, b"key", b"value", STAMP.pack())
    assert stamps.verified(KEY, b"yek", b"value", data) is None
    assert stamps.verified(KEY, b"key", b"eulav", data) is None
    assert stamps.verified(KEY, b"keyv", b"alue", data) is None
    assert stamps.verified(b"j" * 32, b"key", b"value", data) is None


def test_a_header_of_another_size_is_no_stamp() -> None:
    """A header with our name and another size is not looked at."""
    assert stamps.find([(stamps.HEADER, b""), (stamps.HEADER, b"x" * 44)]) is None
