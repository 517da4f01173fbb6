"""Backup: what a deployment cannot lose, as files, and an empty deployment filled with it.

    raw-events, then definitions, to their ends of this moment -> TOPIC-N.log.gz …, manifest.json last
    manifest.json -> the same topics, empty -> each record at its offset, with its time -> the worker makes the rest

All else is a function of these two topics and the secret, which is not in the files: it is kept apart.  Offsets and
times are part of what the log means (the first position decides; a record's time is its known time), so both are
restored: a gap that compaction left is filled with tombstones of a key of their own, and `raw-events` takes our times
until it is full.  Definitions are read after the raw log, so each marker finds its bundle.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import orjson
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from milepost import __version__
from milepost.ops import provision
from milepost.ops.broker import Say
from milepost.ops.reader import plain_consumer, read_to_end, topic_ends
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.schemas.keys import checked_secret

TOPICS: Final = ("raw-events", "definitions")
FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
GAP_KEY: Final = b"milepost-gap"
"""Key of the tombstones that stand where compaction has removed a record."""
HELD_MS: Final = str(3_650 * 24 * 3_600_000)
"""How long the cleaner leaves a restored raw log alone, at most."""
LEFT_MAX: Final = 1_000
"""Records that may still come in while a restore is finished: ticks, and what is sent now."""
RECORD_BYTES_MAX: Final = 16 * 1024 * 1024
TOLD_S: Final = 2.0
_MISMATCH: Final = "fix: take the backup again, or another copy of it"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A record as a file holds it, behind its length (4 bytes)."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class PartFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A partition's file.  end: the offset that the next record would have had."""

    topic: str
    partition: int
    file: str
    records: int
    end: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup holds.  secret: a digest of the secret, by which another one is noticed."""

    format: int
    milepost: str
    made: str
    partitions: int
    secret: str
    parts: list[PartFile]

    @property
    def records(self) -> int:
        return sum(one.records for one in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was written, to files or to a broker."""

    folder: Path
    records: int
    seconds: float

    def as_data(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "records": self.records, "seconds": round(self.seconds, 3)}


def backup(settings: Settings, folder: Path, *, say: Say) -> Done:
    """Write the deployment's topics to `folder`, which must be empty.  The worker may run meanwhile."""
    begun = time.monotonic()
    if folder.exists() and any(folder.iterdir()):
        raise DeclarationError(f"{folder} is not empty; fix: name a new folder for each backup")
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[PartFile] = []
    for topic in TOPICS:
        parts += _write_topic(settings, folder, topic, say)
    manifest = Manifest(
        format=FORMAT,
        milepost=__version__,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        partitions=sum(one.topic == "raw-events" for one in parts),
        secret=_secret_digest(settings),
        parts=parts,
    )
    unfinished = folder / f"{MANIFEST}.part"
    unfinished.write_bytes(orjson.dumps(msgspec.to_builtins(manifest), option=orjson.OPT_INDENT_2))
    unfinished.rename(folder / MANIFEST)  # last, so that a folder with it is whole
    return Done(folder=folder, records=manifest.records, seconds=time.monotonic() - begun)


def restore(settings: Settings, folder: Path, *, say: Say) -> Done:
    """Fill an empty deployment from `folder`; no worker may run.

    Raises DeclarationError (it is not empty, another secret, another number of partitions) and StoreError (files are
    damaged, the broker does not take what it is sent).
    """
    begun = time.monotonic()
    manifest = read_manifest(folder)
    _check(settings, manifest)
    for part in manifest.parts:
        if _digest(folder / part.file) != part.sha256:
            raise StoreError(f"{folder / part.file} is not what {MANIFEST} says it is; {_MISMATCH}")
    _make_topics(settings)
    with Sender(settings.bootstrap) as sender:
        for part in manifest.parts:
            say(f"{part.topic}/{part.partition}: {part.records:,} records, up to {part.end:,}")
            _send_part(settings, folder, part, sender)
    for topic in TOPICS:
        ends = topic_ends(settings, topic)
        wanted = {one.partition: one.end for one in manifest.parts if one.topic == topic}
        if ends != wanted:
            raise StoreError(
                f"{topic} ends at {ends}; {wanted} was expected: somebody else writes to it; "
                "fix: stop every worker and sender, delete the topics, restore again"
            )
    provision.set_config(settings, "raw-events", {"message.timestamp.type": "LogAppendTime"})
    provision.provision(settings)
    return Done(folder=folder, records=manifest.records, seconds=time.monotonic() - begun)


def finish(settings: Settings, status: Mapping[str, Any]) -> None:
    """Let the cleaner work again, once the worker has taken what was restored.  status: of /v1/status

    Raises DeclarationError while it has not."""
    at = status["legs"]["ingest"]["next_offset"]
    left = sum(max(0, end - at.get(str(number), 0)) for number, end in topic_ends(settings, "raw-events").items())
    if not status["ready"] or left > LEFT_MAX:
        raise DeclarationError(
            f"the worker at {settings.url} has {left:,} records to take, or is not ready; fix: wait until it has"
        )
    (wanted,) = (one for one in provision.wanted(settings) if one.name == settings.topic("raw-events"))
    provision.set_config(settings, "raw-events", {name: wanted.config[name] for name in provision.AT_LEAST})


def read_manifest(folder: Path) -> Manifest:
    """What the backup in `folder` says of itself.  DeclarationError: there is none, or it is of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DeclarationError(f"{folder} holds no {MANIFEST}: no backup, or one that was not finished")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise DeclarationError(f"{path} is not a manifest of format {FORMAT}: {error}; {_MISMATCH}") from error
    if manifest.format != FORMAT:
        raise DeclarationError(
            f"{path} has format {manifest.format}, {FORMAT} is expected; "
            f"fix: restore it with the release that made it, {manifest.milepost}"
        )
    return manifest


def _check(settings: Settings, manifest: Manifest) -> None:
    if not settings.secret_text and not settings.secret_file.exists():
        raise DeclarationError(
            f"there is no secret; fix: put the backup's into MILEPOST_SECRET, or into {settings.secret_file}"
        )
    if manifest.secret != _secret_digest(settings):
        raise DeclarationError(
            "the backup was made under another secret, without which no leaf is found by its key; "
            "fix: set MILEPOST_SECRET to it, or put it into MILEPOST_HOME"
        )
    if manifest.partitions != settings.partitions:
        raise DeclarationError(
            f"the backup has {manifest.partitions} raw partitions, MILEPOST_PARTITIONS is {settings.partitions}; "
            f"fix: set it to {manifest.partitions}"
        )
    expected = {*((TOPICS[0], number) for number in range(manifest.partitions)), (TOPICS[1], 0)}
    if {(one.topic, one.partition) for one in manifest.parts} != expected or any(
        Path(one.file).name != one.file for one in manifest.parts
    ):
        raise DeclarationError(f"{MANIFEST} does not name each partition once; {_MISMATCH}")
    admin = provision.admin_client(settings)
    there = provision.found(admin, [one.name for one in provision.wanted(settings)])
    if there:
        raise DeclarationError(
            f"{settings.bootstrap} has {next(iter(there))} already; a backup is restored where nothing is yet; "
            "fix: another MILEPOST_NAMESPACE, or `milepost reset` if what is there may be lost"
        )
    if settings.state.exists() and any(settings.state.iterdir()):
        raise DeclarationError(f"{settings.state} holds state of another log; fix: delete it, or use another home")


def _make_topics(settings: Settings) -> None:
    """The line's topics.  The raw log takes the times that it is given, until it is filled; and what is old by these
    is kept from the cleaner, who might take a first record before the worker has seen it (`finish`)."""
    raw = settings.topic("raw-events")
    for topic in provision.wanted(settings):
        config = dict(topic.config)
        if topic.name == raw:
            config |= {"message.timestamp.type": "CreateTime", **dict.fromkeys(provision.AT_LEAST, HELD_MS)}
        provision.create(settings, replace(topic, config=config))


# -- files


def _write_topic(settings: Settings, folder: Path, topic: str, say: Say) -> list[PartFile]:
    ends = topic_ends(settings, topic)
    parts, told = [], time.monotonic()
    for number, end in ends.items():
        path = folder / f"{topic}-{number}.log.gz"
        count = 0
        with gzip.open(path, "wb", compresslevel=6) as file:
            for kept in _records(settings, topic, number, end, len(ends)):
                _dump(file, kept)
                count += 1
                if time.monotonic() - told > TOLD_S:
                    told = time.monotonic()
                    say(f"{topic}/{number}: {kept.offset + 1:,} of {end:,}")
        parts.append(
            PartFile(topic=topic, partition=number, file=path.name, records=count, end=end, sha256=_digest(path))
        )
    say(f"{topic}: {sum(one.records for one in parts):,} records")
    return parts


def _records(settings: Settings, topic: str, number: int, end: int, partitions: int) -> Iterator[Kept]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        for message in read_to_end(consumer, settings.topic(topic), partitions, {number: 0}, {number: end}):
            kind, timestamp_ms = message.timestamp()
            if kind == TIMESTAMP_NOT_AVAILABLE:
                raise StoreError(f"{topic}/{number}@{message.offset()} has no time; it is no record of this log")
            yield Kept(message.offset(), timestamp_ms, message.key(), message.value(), list(message.headers() or ()))
    finally:
        consumer.close()


def _dump(file: IO[bytes] | gzip.GzipFile, kept: Kept) -> None:
    data = msgspec.msgpack.encode(kept)
    file.write(len(data).to_bytes(4, "big") + data)


def read_part(file: IO[bytes] | gzip.GzipFile) -> Iterator[Kept]:
    """The records of a partition's file, in their order.  StoreError when it ends in the middle of one."""
    decode = msgspec.msgpack.Decoder(Kept).decode
    while head := file.read(4):
        size = int.from_bytes(head, "big")
        data = file.read(size) if size <= RECORD_BYTES_MAX else b""
        if len(head) < 4 or len(data) < size:
            raise StoreError(f"a file of the backup ends in the middle of a record; {_MISMATCH}")
        yield decode(data)


def _send_part(settings: Settings, folder: Path, part: PartFile, sender: Sender) -> None:
    topic = settings.topic(part.topic)
    at, time_ms = 0, 1  # (0 would mean now)
    with gzip.open(folder / part.file, "rb") as file:
        for kept in read_part(file):
            # A gap has the time before it: known time never goes back, and a filler must not move it on.
            for _ in range(kept.offset - at):
                sender.send(topic, part.partition, GAP_KEY, None, timestamp_ms=time_ms)
            time_ms = kept.timestamp_ms
            sender.send(topic, part.partition, kept.key, kept.value, kept.headers, timestamp_ms=time_ms)
            at = kept.offset + 1
    for _ in range(part.end - at):
        sender.send(topic, part.partition, GAP_KEY, None, timestamp_ms=time_ms)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}; {_MISMATCH}") from error


def _secret_digest(settings: Settings) -> str:
    secret = checked_secret(settings.secret())
    return hashlib.blake2b(b"milepost backup", key=secret, digest_size=8).hexdigest()
