"""Serde: single-object encoding, held against the `avro` package and against golden bytes."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import avro.errors
import avro.io
import avro.schema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milepost.schemas import signal_message
from milepost.schemas.errors import ContractError
from milepost.schemas.serde import NAMES, decode_any, wire
from milepost.schemas.signal_message import SignalMessage

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES: dict[str, dict[str, Any]] = {
    "RawEvent": {"org": "o", "source": "s", "id": "i", "type": "t", "time": "2013-01-01T00:00:00Z", "revision": 0, "void": False, "repair": 0, "data": b"{}"},
    "Signals": {"bundle": b"b" * 8, "org": "o", "source": "s", "id": "i", "type": "t", "event": b"e" * 16, "leaf": b"l" * 16, "t_ms": 1, "k_ms": 2, "lane": 0,
                "raw_partition": 3, "raw_offset": 4, "prev": -1, "first_partition": 3, "first_offset": 4, "revision": 2, "repair": 0, "void": False, "earlier": [{"revision": 0, "repair": 0, "pane": 1234567}], "members": [{"entity": "device", "leaf": b"d" * 16}],
                "signals": [{"rule": "departed", "version": b"v" * 8, "fields": b'{"delay":2.0}'}]},
    "Tick": {"raw_partition": 1, "raw_offset": 9, "prev": 8, "k_ms": 7, "sources": [{"org": "o", "source": "s", "t_ms": 1, "k_ms": 2}]},
    "Link": {"org": "o", "entity": "company", "a": b"a" * 16, "b": b"b" * 16, "key_a": "x", "key_b": "y", "rank_a": 0, "rank_b": 1, "k_ms": 5, "raw_partition": 0, "raw_offset": 6},
    "Decision": {"org": "o", "what": "membership", "id": b"i" * 16, "revision": 1, "repair": 0, "void": False,
                 "keys": [{"leaf": b"p" * 16, "entity": "person", "kind": "email", "rank": 2}, {"leaf": b"c" * 16, "entity": "company", "kind": "code", "rank": 0}],
                 "from_ms": None, "to_ms": 900000, "by": "ann", "k_ms": 5, "raw_partition": 0, "raw_offset": 6},
    "Completion": {"org": "o", "source": "s", "until_ms": 900000, "by": "ann", "k_ms": 5, "raw_partition": 0, "raw_offset": 6},
    "RecordChange": {"record": b"r" * 16, "event": b"e" * 16, "revision": 1, "repair": 0, "op": "upsert", "fields": b'{"a":1}', "t_ms": 3, "k_ms": 4,
                     "higher": [{"revision": 2, "repair": 0, "pane": 1543000, "k_ms": 9}], "org": "o", "type": "aircraft", "id": "N1", "version": b"v" * 8,
                     "source": "s", "event_id": "i", "event_type": "aircraft.listed", "raw_partition": 1, "origin": 7 << 20, "prev": -1},
    "Recognition": {"org": "o", "plan": "p", "milestone": "m", "version": b"v" * 8, "company": b"c" * 16, "k_ms": 900_000, "kind": "corrected", "state": "achieved",
                    "achieved_ms": 1_800_000, "lapsed": 0, "lapsed_ms": None, "recognised_ms": 900_000, "first": False,
                    "before": {"version": b"v" * 8, "state": "missed", "achieved_ms": None, "lapsed": 0, "lapsed_ms": None}, "cause": "late", "dispute": None,
                    "heir": b"h" * 16, "backdated": True,
                    "withdrawn": {"cause": "late", "instead": {"version": b"v" * 8, "state": "achieved", "achieved_ms": 900_000, "lapsed": 1, "lapsed_ms": 800_000}}},
    "Acceptance": {"org": "o", "id": b"i" * 16, "revision": 1, "repair": 0, "void": False, "dispute": b"d" * 16, "by": "ann", "k_ms": 5, "raw_partition": 0, "raw_offset": 6},
    "Recognised": {"partition": 2, "k_ms": 900_000, "until_ms": 1_800_000, "behind": [-1, 7], "bundles": 3},
    "Bundle": {"org": "o", "bundle": b"b" * 8, "attempt": "a1", "k_ms": 0, "files": {"milepost.yaml": b"sources: {}"}},
    "Registered": {"table": b"t" * 8, "attempt": "a1", "schemas": [{"id": 7, "subject": "raw-events-value", "version": 1, "text": "{}"}]},
    "DeadLetter": {"topic": "raw-events", "partition": 0, "offset": 1, "stage": "decode", "rule": "", "reason": "not_decodable", "detail": "d", "problem": b"p" * 8,
                   "org": "", "source": "", "type": "", "k_ms": 3, "bundle": b"b" * 8},
    "Repair": {"what": "sent", "problem": b"p" * 8, "repair": b"r" * 8, "k_ms": 3, "by": "", "mapping": "", "replaces": False, "sent": [1, 2**61], "settled": [], "left": 0},
    "Own": {"worker": "w", "incarnation": "i", "leg": "ingest", "partition": 2},
    "Verdict": {"offset": 7, "key": b"k", "digest": b"d" * 16, "reason": "poison", "detail": "it ended the process"},
    "Trying": {"epoch": 1, "kind": "alone", "first": 5, "last": 5, "count": 1, "crashes": 2},
    "Mark": {"epoch": 1, "x": -1, "body": b"", "decisions": {"definitions": 3}, "cluster": "c", "source_topic": "t", "ahead": 7},
    "Access": {"id": "0123456789ab", "what": "made", "name": "gateway", "roles": ["read", "write"], "org": "o", "verifier": b"v" * 32, "at_ms": 5, "expires_ms": 9, "by": "ann@host", "seal": b"s" * 32},
    "Change": {"id": b"i" * 16, "what": "done", "at_ms": 5, "who": "gateway", "token": "0123456789ab", "org": None, "call": "POST /v1/identity/link", "status": 202, "receipt": "raw-events/3@1288", "worker": "worker-1"},
}  # fmt: skip


def as_avro(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """The example with the bytes of its numbers of fixed size."""
    sizes = {"Int64": 8, "Int32": 4}
    types = {field["name"]: field["type"] for field in schema["fields"]}
    names = {name: of.get("name", "") if isinstance(of, dict) else str(of) for name, of in types.items()}
    return {
        name: value.to_bytes(sizes[names[name]], "big", signed=True) if names[name] in sizes else value
        for name, value in example.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_the_avro_package_and_never_change(name: str) -> None:
    """fastavro and avro write the same body, and both write what they wrote when the contract was made."""
    made = wire(name)
    data = made.encode(EXAMPLES[name])
    assert data[:2] == b"\xc3\x01"
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", avro.errors.IgnoredLogicalType)  # a number of fixed size: bytes to that package
        schema = avro.schema.parse(json.dumps(made.json))
    avro.io.DatumWriter(schema).write(as_avro(made.json, EXAMPLES[name]), avro.io.BinaryEncoder(out))
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


NAME = st.text(max_size=40)
MESSAGES = st.tuples(
    st.tuples(
        st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16),
        *[st.integers(-(2**63), 2**63 - 1)] * 5, *[st.integers(-(2**31), 2**31 - 1)] * 5,
    ),
    st.tuples(NAME, NAME, st.text(max_size=300), NAME),
    st.lists(st.tuples(NAME, st.binary(min_size=16, max_size=16)), max_size=70),
    st.lists(st.tuples(NAME, st.binary(min_size=8, max_size=8), st.dictionaries(NAME, NAME | st.integers(-9, 9), max_size=9)), max_size=70),
    st.booleans(),
    st.lists(st.tuples(*[st.integers(0, 2**31 - 1)] * 3), max_size=70),
)  # fmt: skip


@example(
    (
        (bytes(8), bytes(16), bytes(16), *[0] * 10),
        ("", "", "", ""),
        [("é", bytes(16))],
        [("ü", bytes(8), {})],
        False,
        [],
    )
)
@given(MESSAGES)
def test_a_signal_message_by_hand_is_the_contract(made: tuple[Any, ...]) -> None:
    """What is written by hand is to the byte what the schema says, and both readers read it alike."""
    head, names, members, signals, void, earlier = made
    fields = dict(zip(SignalMessage._fields, head, strict=False)) | dict(
        zip(("org", "source", "id", "type"), names, strict=True)
    )
    fields["members"] = [{"entity": entity, "leaf": leaf} for entity, leaf in members]
    encoded = [(rule, version, json.dumps(told).encode()) for rule, version, told in signals]
    fields["signals"] = [{"rule": rule, "version": version, "fields": told} for rule, version, told in encoded]
    fields["void"] = void
    fields["earlier"] = [dict(zip(("revision", "repair", "pane"), one, strict=True)) for one in earlier]
    value = signal_message.write(head, names, members, encoded, void, earlier)
    assert value == wire("Signals").encode(fields)
    expected = SignalMessage(*head, tuple(members), tuple(signals), void, tuple(earlier))
    assert signal_message.read(value) == expected == signal_message._read_any(value)


@given(st.binary(max_size=300), st.integers(0, 200))
def test_what_is_no_signal_message_is_none(junk: bytes, cut: int) -> None:
    """Bytes behind the header that do not hold, and messages cut anywhere, are no message: never an exception."""
    header = wire("Signals").header
    whole = wire("Signals").encode(EXAMPLES["Signals"])
    for value in (header + junk, whole[: min(cut, len(whole) - 1)], whole + b"\0"):
        found = signal_message.read(value)
        assert found is None or wire("Signals").decode(value)


def test_another_block_structure_is_read_too() -> None:
    """An array in two blocks, or with its size before it, is right Avro, and the slower reader reads it."""
    plain = EXAMPLES["Signals"] | {"members": [], "earlier": []}
    value, tail = wire("Signals").encode(plain), b"\0\0"  # void, earlier
    at = len(value) - len(wire("Signals").encode(plain | {"signals": []})) + 1
    value = value.removesuffix(tail)
    block = value[-at:-1]
    sized = value[:-at] + b"\x01" + bytes(((len(block) - 1) * 2,)) + block[1:] + b"\0"
    assert signal_message.read(sized + tail) == signal_message.read(value + tail) is not None
