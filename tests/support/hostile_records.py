"""Records that are not as they should be: thirty-odd kinds of bytes, and events of one company, for logs and for the driver.

Each record carries a stamp that says its known time, so that a run on a broker and a run of the driver agree.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import orjson
from confluent_kafka import Producer

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import FLIGHTS, ORG, FlightEvent
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.keys import checked_secret, org_key, raw_place
from milepost.schemas.records import Envelope
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.decode import VALUE_BYTES_MAX, envelope
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.flights_driver import FIRST_MS
from tests.support.workers import SECRET

K_MS: Final = 1_357_100_000_000
DATA: Final = {"carrier": "UA", "flight": 1, "origin": "EWR", "dest": "IAH", "dep_delay": 5}


class Sent(NamedTuple):
    """A record as any client may append it."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def event(ident: str, **changes: Any) -> dict[str, Any]:
    """A departure as JSON fields, with changes."""
    fields: dict[str, Any] = {
        "org": ORG, "source": FLIGHTS, "id": ident, "type": "flight.departed", "time": "2013-01-01T10:00:00Z",
        "revision": 0, "void": False, "data": DATA,
    }  # fmt: skip
    return fields | changes


def _text(id: str, data: str) -> bytes:
    return orjson.dumps(event(id)).replace(orjson.dumps(DATA), data.encode())


def kinds(n: int) -> Iterator[tuple[str, bytes | None]]:
    """(name, value) of every kind; `n` makes the ids of this round its own."""
    avro = wire("RawEvent").encode(
        {**{k: v for k, v in event(f"avro-{n}").items() if k != "data"}, "repair": 0, "data": orjson.dumps(DATA)}
    )
    plain = orjson.dumps(event(f"plain-{n}"))
    yield "empty", b""
    yield "null value", None
    yield "brackets", b"[" * 100_000
    for depth in (33, 1_000, 100_000):
        yield f"depth {depth}", _text(f"deep-{n}-{depth}", '{"carrier":"UA","x":' + "[" * depth + "]" * depth + "}")
    yield "10^5 keys", _text(f"keys-{n}", "{" + ",".join(f'"k{i}":1' for i in range(60_000)) + "}")
    yield (
        "duplicate keys",
        _text(f"twice-{n}", '{"carrier":"UA","carrier":"AA","flight":1,"origin":"EWR","dest":"IAH"}'),
    )
    for name, number in (
        ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e400", "1e400"), ("2^53+1", "9007199254740993"),
        ("5,000 digits", "9" * 5_000), ("negative zero", "-0.0"), ("minus", "-"),
    ):  # fmt: skip
        yield (
            name,
            _text(f"number-{n}-{name}", orjson.dumps(DATA).decode().replace('"dep_delay":5', f'"dep_delay":{number}')),
        )
    yield "lone surrogate", _text(f"alone-{n}", orjson.dumps(DATA).decode().replace("IAH", "\\ud800"))
    yield "NUL", orjson.dumps(event(f"nul-{n}", data={**DATA, "dest": "I\0H"}))
    yield "bidi", orjson.dumps(event(f"bidi-{n}", data={**DATA, "dest": "\u202eHAI"}))
    for name in ("__proto__", "__faust", "__class__"):
        yield name, orjson.dumps(event(f"name-{n}-{name}", data={**DATA, name: {"ns": "x"}}))
    for name, time in (
        ("30 February", "2013-02-30T00:00:00Z"), ("leap second", "2012-06-30T23:59:60Z"), ("year 0", "0000-01-01T00:00:00Z"),
        ("year 9999", "9999-12-31T23:59:59Z"), ("no zone", "2013-01-01T00:00:00"), ("10 digits", "1357000000"),
        ("13 digits", "1357000000000"), ("no time", ""),
    ):  # fmt: skip
        yield name, orjson.dumps(event(f"time-{n}-{name}", time=time))
    for name, id in (("id empty", ""), ("id long", "x" * 257), ("id null", None), ("id 0", 0), ("id list", [n])):
        yield name, orjson.dumps(event("", id=id))
    yield "id object", orjson.dumps(event("[object Object]", data={**DATA, "flight": n}))
    yield "id emoji", orjson.dumps(event(f"😀{n}"))
    yield "another body", orjson.dumps(event("conflict", data={**DATA, "flight": n}))
    yield "another organisation", orjson.dumps(event(f"other-{n}", org="somebody"))
    yield "unknown type", orjson.dumps(event(f"type-{n}", type="flight.vanished"))
    yield "unknown source", orjson.dumps(event(f"source-{n}", source="nowhere"))
    yield "no key", orjson.dumps(event(f"nokey-{n}", data={**DATA, "carrier": ""}))
    yield "wrong field", orjson.dumps(event(f"field-{n}", data={**DATA, "dep_delay": "late"}))
    yield "UTF-16", plain.decode().encode("utf-16")
    yield "gzip", gzip.compress(plain, mtime=0)
    yield "deflate bomb", zlib.compress(b"0" * 1_000_000)
    yield "Avro, unknown schema", b"\xc3\x01" + b"nobody's" + avro[10:]
    yield (
        "Avro, another of ours",
        wire("Tick").encode({"raw_partition": 1, "raw_offset": 9, "prev": 8, "k_ms": 7, "sources": []}),
    )
    yield "Avro, cut", avro[: len(avro) // 2]
    yield "Avro, longer", avro + b"\0"
    yield "Avro, a huge length", avro[:10] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + avro[11:]
    yield "registry framing", b"\0" + struct.pack(">I", 41) + avro[10:]
    for more in (-1, 0, 1):
        room = VALUE_BYTES_MAX - len(orjson.dumps(event(f"size-{n}-{more}", data={**DATA, "x": ""}))) + more
        if n == 0:
            yield f"limit {more:+d}", orjson.dumps(event(f"size-{n}-{more}", data={**DATA, "x": "x" * room}))


def stamped(value: bytes | None, partitions: int, k_ms: int, spread: int) -> Sent:
    """The record in its place, known since `k_ms`; what cannot be placed goes to `spread` under a key of its own."""
    found = None if value is None else envelope(value)
    if not isinstance(found, Envelope) or value is None:
        return Sent(spread % partitions, b"bad-%d" % spread, value, ())
    key, partition = raw_place(found.org, found.source, found.id, found.revision, found.repair, partitions)
    sealing = org_key(checked_secret(SECRET.encode()), found.org)
    header = stamps.header(sealing, key, value, Stamp(kind=stamps.BACKDATED, k_ms=k_ms))
    return Sent(partition, key, value, (header,))


def good(events: Iterable[FlightEvent], partitions: int) -> list[Sent]:
    return [stamped(one.body(), partitions, one.k_ms, 0) for one in events]


def bad(rounds: int, partitions: int) -> list[Sent]:
    """All kinds, `rounds` times."""
    values = [value for n in range(rounds) for _, value in kinds(n)]
    return [stamped(value, partitions, K_MS + i, i) for i, value in enumerate(values)]


def mixed(some: Sequence[Sent], others: Sequence[Sent], every: int) -> list[Sent]:
    """One of `others` behind every `every` of `some`, as long as there are any."""
    rest = iter(others)
    out: list[Sent] = []
    for i, one in enumerate(some, 1):
        out.append(one)
        if i % every == 0 and (extra := next(rest, None)) is not None:
            out.append(extra)
    return out + list(rest)


def one_company(events: Sequence[FlightEvent], share: float) -> list[FlightEvent]:
    """The same events, but `share` of those with a carrier are flown by UA."""
    out = []
    for i, one in enumerate(events):
        if one.type != "airline.listed" and "carrier" in one.data and i % 1000 < share * 1000:
            one = msgspec.structs.replace(one, data={**one.data, "carrier": "UA"})
        out.append(one)
    return out


def append(settings: Settings, records: Iterable[Sent]) -> None:
    """Append to the raw log in this order; acknowledged on return."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap, "linger.ms": 5, "log_level": 2, "enable.idempotence": True,
            "message.max.bytes": 16 * 1024 * 1024, "compression.type": "lz4",
        }
    )  # fmt: skip
    refused: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            refused.append(str(error))

    topic = settings.topic("raw-events")
    for one in records:
        producer.produce(
            topic, one.value, one.key, one.partition, headers=list(one.headers) or None, on_delivery=delivered
        )
        producer.poll(0)
    assert producer.flush(60) == 0 and not refused, f"not acknowledged: {refused[:3]}"


def driven(records: Iterable[Sent], partitions: int) -> tuple[dict[str, str], Mapping[str, int]]:
    """(digest, ingest's fates) of the driver over the same records in the same order."""
    driver = Driver(SECRET.encode(), partitions=partitions, chunk=1000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for one in records:
        driver.append("raw-events", one.partition, one.key, one.value, one.headers, FIRST_MS)
    driver.run()
    return digest(driver.reader), driver.fates["ingest"]
