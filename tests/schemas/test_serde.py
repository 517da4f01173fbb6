"""Serde: single-object encoding, held against the `avro` package and against golden bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import NAMES, decode_any, wire

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES: dict[str, dict[str, Any]] = {
    "RawEvent": {"org": "o", "source": "s", "id": "i", "type": "t", "time": "2013-01-01T00:00:00Z", "revision": 0, "void": False, "repair": 0, "data": b"{}"},
    "Signals": {"bundle": b"b" * 8, "org": "o", "source": "s", "id": "i", "type": "t", "event": b"e" * 16, "leaf": b"l" * 16, "t_ms": 1, "k_ms": 2, "lane": 0,
                "raw_partition": 3, "raw_offset": 4, "prev": -1, "first_partition": 3, "first_offset": 4, "members": [{"entity": "device", "leaf": b"d" * 16}],
                "signals": [{"rule": "departed", "version": b"v" * 8, "fields": b'{"delay":2.0}'}]},
    "Tick": {"raw_partition": 1, "raw_offset": 9, "prev": 8, "k_ms": 7, "sources": [{"org": "o", "source": "s", "t_ms": 1, "k_ms": 2}]},
    "Link": {"org": "o", "entity": "company", "a": b"a" * 16, "b": b"b" * 16, "key_a": "x", "key_b": "y", "rank_a": 0, "rank_b": 1, "k_ms": 5, "raw_partition": 0, "raw_offset": 6},
    "Bundle": {"org": "o", "bundle": b"b" * 8, "attempt": "a1", "k_ms": 0, "files": {"milepost.yaml": b"sources: {}"}},
    "DeadLetter": {"topic": "raw-events", "partition": 0, "offset": 1, "stage": "decode", "rule": "", "reason": "not_decodable", "detail": "d", "problem": b"p" * 8,
                   "org": "", "source": "", "type": "", "k_ms": 3, "bundle": b"b" * 8},
    "Own": {"worker": "w", "incarnation": "i", "leg": "ingest", "partition": 2},
    "Mark": {"epoch": 1, "x": -1, "body": b"", "decisions": {"definitions": 3}, "cluster": "c", "source_topic": "t"},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_the_avro_package_and_never_change(name: str) -> None:
    """fastavro and avro write the same body, and both write what they wrote when the contract was made."""
    made = wire(name)
    data = made.encode(EXAMPLES[name])
    assert data[:2] == b"\xc3\x01"
    out = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(json.dumps(made.json))).write(EXAMPLES[name], avro.io.BinaryEncoder(out))
    assert data[10:] == out.getvalue()
    assert data.hex() == (GOLDEN / f"{name}.hex").read_text().strip()
    assert made.decode(data) == EXAMPLES[name] and decode_any(data) == (name, EXAMPLES[name])


def test_fingerprints_differ() -> None:
    """Each contract is known by its own fingerprint."""
    assert len({wire(name).header for name in NAMES}) == len(NAMES)


@given(st.binary(max_size=200))
def test_garbage_is_a_contract_error(data: bytes) -> None:
    """Any bytes that are not a message of ours end as a ContractError, never as another exception."""
    with pytest.raises(ContractError):
        decode_any(data)


@given(st.integers(10, 200), st.binary(min_size=1, max_size=3))
def test_a_cut_or_longer_message_is_a_contract_error(cut: int, tail: bytes) -> None:
    """A message that is cut, or has bytes behind it, is not decodable."""
    data = wire("Signals").encode(EXAMPLES["Signals"])
    for broken in (data[: min(cut, len(data) - 1)], data + tail):
        with pytest.raises(ContractError) as error:
            wire("Signals").decode(broken)
        assert error.value.reason == "not_decodable"
