"""Apply: definitions into the log.

    files -> validated -> `definitions` (key: the attempt) -> acknowledged -> a marker in every raw partition

From a marker's offset on the new bundle holds for what comes behind it.  The bundle is acknowledged before the first
marker is sent, because ingest waits at a marker until it has the bundle; each attempt has keys of its own, so nothing
is ever overwritten.  An apply that was cut short has its record and not all its markers: the next one finds that out
and applies anew.
"""

from __future__ import annotations

import importlib.resources
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

from confluent_kafka import KafkaException, TopicPartition

from milepost.ops.reader import PATIENCE_S, partition_count, plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.errors import ContractError, DeclarationError, StoreError
from milepost.schemas.keys import PART_BYTES_MAX, checked_secret, org_key
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.catalog import Catalog, Source, load_bundle
from milepost.topology.uncompiled import Uncompiled, uncompiled

MARKER: Final = b"marker"
LOOK_BACK_MS: Final = 60_000
"""A marker is looked for from a minute before its bundle on: two clocks stamped them.  Further apart, it is not found,
and the bundle is applied once more, which changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One record of `definitions`: a bundle that someone applied.

    attempt: 16 bytes, the record's key;  at_ms: its time stamp;  k_ms: 0, or the known time it was backdated to
    """

    org: str
    bundle_id: bytes
    attempt: bytes
    at_ms: int
    k_ms: int
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedReport:
    """What an apply did.  `changed` is False when the same bundle was in force in every raw partition already."""

    org: str
    bundle: str
    attempt: str
    changed: bool
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One definition that an apply would add, change or remove."""

    what: Literal["source", "signal", "metric"]
    name: str
    how: Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What an apply would do.

    current:    the bundle in force, "" when there is none
    uncompiled: expressions of rules that the library evaluates, some tens of microseconds each, and why
    """

    org: str
    bundle: str
    current: str
    changes: tuple[Change, ...]
    uncompiled: tuple[Uncompiled, ...] = ()


Bundle = Path | Mapping[str, bytes]
"""A folder with milepost.yaml and schemas/*.avsc, or its files by name."""


def apply_bundle(settings: Settings, bundle: Bundle, org: str, effective: int | None = None) -> AppliedReport:
    """Put the bundle in force for `org`, unless it is already.

    effective: known time in ms from which the definitions count as decided (backdated; the answers say so).
    Raises BundleError (the definitions do not validate, nothing is sent), DeclarationError or StoreError.
    """
    files = read_files(bundle)
    catalog = load_bundle(files)
    if not 1 <= len(org.encode()) <= PART_BYTES_MAX:
        raise DeclarationError(f"org has {len(org.encode())} bytes; expected 1 to {PART_BYTES_MAX}")
    partitions = partition_count(settings, "raw-events")
    now = in_force(settings, org)
    if now is not None and now.bundle_id == catalog.bundle_id and effective is None and _marked(settings, now):
        return _report(now, changed=False, partitions=partitions)
    attempt = Attempt(
        org=org, bundle_id=catalog.bundle_id, attempt=uuid.uuid4().bytes, at_ms=0, k_ms=effective or 0, files=files
    )
    _append(settings, attempt, partitions)
    return _report(attempt, changed=True, partitions=partitions)


def plan_bundle(settings: Settings, bundle: Bundle, org: str) -> PlanReport:
    """What applying the bundle would change against the one in force.  Raises BundleError as `apply_bundle` does."""
    files = read_files(bundle)
    catalog = load_bundle(files)
    now = in_force(settings, org)
    before = load_bundle(now.files) if now is not None else None
    return PlanReport(
        org=org,
        bundle=catalog.bundle_id.hex(),
        current=now.bundle_id.hex() if now is not None else "",
        changes=tuple(_changes(before, now.files if now else {}, catalog, files)),
        uncompiled=uncompiled(catalog.rules),
    )


def read_files(bundle: Bundle) -> dict[str, bytes]:
    """The files of a bundle by name: milepost.yaml and schemas/NAME.avsc."""
    if not isinstance(bundle, Path):
        return dict(bundle)
    if not (bundle / "milepost.yaml").is_file():
        raise DeclarationError(
            f"{bundle} holds no milepost.yaml; a bundle is a folder with milepost.yaml and schemas/*.avsc"
        )
    return _tree(bundle)


def demo_bundle() -> dict[str, bytes]:
    """The demo's bundle, which travels in the wheel."""
    return _tree(importlib.resources.files("milepost.ops").joinpath("demo_bundle"))


def attempts(settings: Settings) -> Iterator[Attempt]:
    """The bundles in `definitions`, in the order of the log.  Bytes that are no bundle of ours are passed over."""
    topic = settings.topic("definitions")
    consumer = plain_consumer(settings.bootstrap)
    try:
        for message in read_to_end(consumer, topic, 1):
            try:
                fields = wire("Bundle").decode(message.value() or b"")
            except ContractError:
                continue  # garbage in the topic is counted by the workers, who follow it; it decides nothing
            yield Attempt(
                org=fields["org"],
                bundle_id=fields["bundle"],
                attempt=message.key() or b"",
                at_ms=message.timestamp()[1],
                k_ms=fields["k_ms"],
                files=fields["files"],
            )
    finally:
        consumer.close()


def in_force(settings: Settings, org: str) -> Attempt | None:
    """The bundle that was applied last for the organisation."""
    last = None
    for attempt in attempts(settings):
        if attempt.org == org:
            last = attempt
    return last


def _append(settings: Settings, attempt: Attempt, partitions: int) -> None:
    fields = {
        "org": attempt.org,
        "bundle": attempt.bundle_id,
        "attempt": attempt.attempt.hex(),
        "k_ms": attempt.k_ms,
        "files": dict(attempt.files),
    }
    sealing = org_key(checked_secret(settings.secret()), "")
    key, value = MARKER + attempt.attempt, attempt.bundle_id + attempt.org.encode()
    header = stamps.header(sealing, key, value, Stamp(kind=stamps.MARKER))
    with Sender(settings.bootstrap, linger_ms=0) as sender:
        sender.send(settings.topic("definitions"), 0, attempt.attempt, wire("Bundle").encode(fields))
        sender.flush()
        for partition in range(partitions):
            sender.send(settings.topic("raw-events"), partition, key, value, (header,))


def _marked(settings: Settings, attempt: Attempt) -> bool:
    """Whether the attempt's marker lies in every raw partition.

    Markers come right behind their bundle, so the look starts at its time and mostly ends with the first record.
    """
    topic, wanted = settings.topic("raw-events"), MARKER + attempt.attempt
    partitions = partition_count(settings, "raw-events")
    since = [TopicPartition(topic, partition, max(0, attempt.at_ms - LOOK_BACK_MS)) for partition in range(partitions)]
    consumer = plain_consumer(settings.bootstrap)
    try:
        found = consumer.offsets_for_times(since, timeout=PATIENCE_S)
        start = {place.partition: place.offset for place in found if place.offset >= 0}
        marked: set[int] = set()
        for message in read_to_end(consumer, topic, partitions, start):
            if message.key() == wanted:
                marked.add(message.partition())
                if len(marked) == partitions:
                    return True
    except KafkaException as error:
        raise StoreError(f"{topic} cannot be read: {error}") from error
    finally:
        consumer.close()
    return False


def _changes(
    before: Catalog | None, old: Mapping[str, bytes], after: Catalog, new: Mapping[str, bytes]
) -> Iterator[Change]:
    sources = {name: _source(source, old) for name, source in before.sources.items()} if before else {}
    yield from _compared("source", sources, {name: _source(source, new) for name, source in after.sources.items()})
    rules = {name: rule.version for name, rule in before.rules.items()} if before else {}
    yield from _compared("signal", rules, {name: rule.version for name, rule in after.rules.items()})
    metrics = {name: metric.version for name, metric in before.metrics.items()} if before else {}
    yield from _compared("metric", metrics, {name: metric.version for name, metric in after.metrics.items()})


def _source(source: Source, files: Mapping[str, bytes]) -> object:
    """What makes two versions of a source equal: all but the functions that its contracts were compiled to."""
    types = sorted(
        (name, contract.schema_name, files.get(f"schemas/{contract.schema_name}.avsc", b""))
        for name, contract in source.types.items()
    )
    return source.owner, types, source.identities, source.pii, source.volatile, source.future_skew_ms


def _compared(
    what: Literal["source", "signal", "metric"], old: Mapping[str, object], new: Mapping[str, object]
) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield Change(what=what, name=name, how="added")
        elif name not in new:
            yield Change(what=what, name=name, how="removed")
        elif old[name] != new[name]:
            yield Change(what=what, name=name, how="changed")


def _tree(root: Path | Traversable) -> dict[str, bytes]:
    files = {"milepost.yaml": root.joinpath("milepost.yaml").read_bytes()}
    schemas = root.joinpath("schemas")
    if schemas.is_dir():
        for file in schemas.iterdir():
            if file.name.endswith(".avsc"):
                files[f"schemas/{file.name}"] = file.read_bytes()
    return dict(sorted(files.items()))


def _report(attempt: Attempt, *, changed: bool, partitions: int) -> AppliedReport:
    return AppliedReport(
        org=attempt.org,
        bundle=attempt.bundle_id.hex(),
        attempt=attempt.attempt.hex(),
        changed=changed,
        partitions=partitions,
    )
