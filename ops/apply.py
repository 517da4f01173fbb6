"""Apply: definitions into the log.

    files -> validated -> contracts registered, where a registry is configured
          -> `definitions` (key: the attempt) -> acknowledged -> a marker in every raw partition

From a marker's offset on the new bundle holds for what comes behind it.  The bundle is acknowledged before the first
marker is sent, because ingest waits at a marker until it has the bundle; each attempt has keys of its own, so nothing
is ever overwritten.  An apply that was cut short has its record and not all its markers: the next one finds that out
and applies anew.  A rollback is an apply of the files that the log still holds.
"""

from __future__ import annotations

import importlib.resources
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, TopicPartition

from milepost.ops import registering, retained
from milepost.ops.reader import PATIENCE_S, partition_count, plain_consumer, read_to_end, topic_ends
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.errors import BundleError, ContractError, DeclarationError, Finding, StoreError
from milepost.schemas.framing import NO_TABLE, RegisteredSchema, Table, table_of
from milepost.schemas.keys import PART_BYTES_MAX, checked_secret, org_key
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.breaking import Version, Versions, broken, changed, findings, follow
from milepost.topology.catalog import Catalog, check_owner, load_bundle
from milepost.topology.changes import Change, compared, kept, lines
from milepost.topology.lenient import lenient_bundle, nothing_holds
from milepost.topology.lineage import unowned
from milepost.topology.uncompiled import Uncompiled, uncompiled

MARKER: Final = b"marker"
EARLIER_MAX: Final = 32
"""Bundles that a plan and a rollback look back to."""
TRIES_MAX: Final = 5
RIVAL_MS: Final = 600_000
"""Who applied so long before may still be sending markers, and so long behind: a sender fails sooner."""
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
    """What an apply did.

    changed:      False when the same bundle was in force in every raw partition already
    overtaken_by: the bundle that somebody else applied at the same time and that is in force now, else ""
    """

    org: str
    bundle: str
    attempt: str
    changed: bool
    partitions: int
    overtaken_by: str = ""

    def text(self) -> str:
        """For people."""
        if self.overtaken_by:
            return f"bundle {self.bundle} was overtaken: {self.overtaken_by} is in force now for {self.org}"
        done = "is in force now" if self.changed else "was in force already"
        return f"bundle {self.bundle} {done} for {self.org}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What an apply would do.

    current:    the bundle in force, "" when there is none
    kept:       how many definitions of each kind keep their version
    unfinished: the last apply was cut short: the bundle in force did not reach every raw partition
    uncompiled: expressions of rules that the library evaluates, some tens of microseconds each, and why
    owners:     sources that nobody answers for, or one person for all of them
    """

    org: str
    bundle: str
    current: str
    changes: tuple[Change, ...]
    kept: Mapping[str, int]
    unfinished: bool = False
    uncompiled: tuple[Uncompiled, ...] = ()
    owners: tuple[str, ...] = ()

    def text(self) -> str:
        """For people."""
        told = lines(self.changes, self.kept, first=not self.current)
        if self.unfinished:
            told.append(
                "the last apply was cut short and did not reach every partition; an apply, also of the same, does"
            )
        told += [f"  {one}" for one in self.uncompiled]
        told += [f"  warning: {one}" for one in self.owners]
        return "\n".join(told)


Bundle = Path | Mapping[str, bytes]
"""A folder with milepost.yaml and schemas/*.avsc, or its files by name."""


def apply_bundle(settings: Settings, bundle: Bundle, org: str, effective: int | None = None) -> AppliedReport:
    """Put the bundle in force for `org`, unless it is already.

    effective: known time in ms from which the definitions count as decided (backdated; the answers say so).
    Raises BundleError (the definitions do not validate, nothing is sent), DeclarationError or StoreError.
    """
    files = read_files(bundle)
    catalog = _checked(settings, files, org)
    partitions = partition_count(settings, "raw-events")
    if settings.registry_url:
        _put_table(settings, registering.register(settings, org, files), partitions)
    now = in_force(settings, org)
    if now is not None and now.bundle_id == catalog.bundle_id and effective is None and _marked(settings, now):
        return _report(now, changed=False, partitions=partitions)
    attempt = Attempt(
        org=org, bundle_id=catalog.bundle_id, attempt=uuid.uuid4().bytes, at_ms=0, k_ms=effective or 0, files=files
    )
    return _report(attempt, changed=True, partitions=partitions, newest=_put(settings, attempt, partitions))


def plan_bundle(settings: Settings, bundle: Bundle, org: str) -> PlanReport:
    """What applying the bundle would change against the one in force.  Raises BundleError as `apply_bundle` does."""
    files = read_files(bundle)
    _checked(settings, files, org)
    report = plan_against([lenient_bundle(one.files) for one in history(settings, org)], files, org)
    if settings.registry_url:
        registering.check(settings, org, files)
    now = in_force(settings, org)
    return replace(report, unfinished=now is not None and not _marked(settings, now))


def plan_against(
    past: Sequence[Catalog], files: Mapping[str, bytes], org: str, contracts: Versions | None = None
) -> PlanReport:
    """The same against what was in force, the newest first.  contracts: the versions that contracts had, to be read."""
    before = past[0] if past else None
    catalog = checked(files, org, before, contracts or {})
    return PlanReport(
        org=org,
        bundle=catalog.bundle_id.hex(),
        current=before.bundle_id.hex() if before is not None else "",
        changes=compared(before, catalog, past[1:]),
        kept=kept(before, catalog),
        uncompiled=uncompiled(catalog.rules),
        owners=unowned(catalog.sources.values()),
    )


def earlier_bundle(settings: Settings, org: str, *, back: int = 1, to: str = "") -> dict[str, bytes]:
    """The files of the bundle that was in force `back` bundles ago, or of the one whose id begins with `to`.

    Applied again they are a new attempt, like any other: rolled back twice, the log is where it was.  Raises
    DeclarationError when there is none.
    """
    _check_org(org)
    past = history(settings, org)
    if not past:
        raise DeclarationError(f"{org} has no definitions yet; there is nothing to go back to")
    before = past[1:]
    if to:
        found = [one for one in past if one.bundle_id.hex().startswith(to.lower())]
        if len({one.bundle_id for one in found}) == 1:
            return dict(found[0].files)
        said = "several bundles have" if found else "no bundle of the last has"
        raise DeclarationError(f"{said} an id that begins with {to[:32]!r}; {_ids(before)}")
    if back < 1:
        raise DeclarationError(f"a bundle back from now was expected, {back} came; --rollback 1 is the one before")
    if back > len(before):
        bound = f"at most {len(before)} bundles can be taken back for {org}, {back} were asked for"
        raise DeclarationError(f"{bound}; {_ids(before)}")
    return dict(before[back - 1].files)


def history(settings: Settings, org: str) -> list[Attempt]:
    """The bundles that were in force, the newest first, each once where it was applied several times in a row.

    The last `EARLIER_MAX` of them.  Of what nothing holds was passed over by the workers, and is here."""
    last: deque[Attempt] = deque(maxlen=EARLIER_MAX)
    for attempt in attempts(settings):
        if attempt.org != org or (last and last[-1].bundle_id == attempt.bundle_id):
            continue
        if not nothing_holds(lenient_bundle(attempt.files)):
            last.append(attempt)
    return list(reversed(last))


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


def tables(settings: Settings) -> Table:
    """What the log knows of a registry's ids: the newest table."""
    found = NO_TABLE
    for one in _tables(settings):
        found = one[1]
    return found


def _tables(settings: Settings) -> Iterator[tuple[Attempt, Table]]:
    """The tables in `definitions`, in the order of the log, each as an attempt of nobody's."""
    consumer = plain_consumer(settings.bootstrap)
    try:
        for message in read_to_end(consumer, settings.topic("definitions"), 1):
            try:
                table = table_of(wire("Registered").decode(message.value() or b""))
            except ContractError:
                continue
            at_ms = message.timestamp()[1]
            yield (
                Attempt(org="", bundle_id=table.id, attempt=message.key() or b"", at_ms=at_ms, k_ms=0, files={}),
                table,
            )
    finally:
        consumer.close()


def _put_table(settings: Settings, schemas: Sequence[RegisteredSchema], partitions: int) -> None:
    """See to it that a table which holds these schemas is the last in every raw partition."""
    for _ in range(TRIES_MAX):
        past = list(_tables(settings))
        newest = past[-1][1] if past else NO_TABLE
        whole = registering.joined(newest, schemas)
        if past and whole.id == newest.id and _marked(settings, past[-1][0], [one for one, _ in past]):
            return
        attempt = Attempt(org="", bundle_id=whole.id, attempt=uuid.uuid4().bytes, at_ms=0, k_ms=0, files={})
        told = [one.as_fields() for one in whole.schemas.values()]
        fields = {"table": whole.id, "attempt": attempt.attempt.hex(), "schemas": told}
        _send(settings, attempt, wire("Registered").encode(fields), partitions)
    raise StoreError(f"others register schemas at the same time, {TRIES_MAX} times in a row; apply again")


def in_force(settings: Settings, org: str) -> Attempt | None:
    """The bundle that was applied last for the organisation."""
    last = None
    for attempt in attempts(settings):
        if attempt.org == org:
            last = attempt
    return last


def checked(
    files: Mapping[str, bytes],
    org: str,
    before: Catalog | None = None,
    contracts: Versions | None = None,
    unread: Callable[[Sequence[str], Catalog], Mapping[str, str]] = lambda _changed, _before: {},
) -> Catalog:
    """The catalog of a bundle that may be applied for `org`.  Raises BundleError or DeclarationError.

    before:    what is in force;  contracts: the versions that contracts had, all of which are to be read
    unread:    of contracts that change: contract -> which records of the log it could not read, where there are any
    """
    _check_org(org)
    faults: list[Finding] = []
    try:
        catalog = load_bundle(files)
        check_owner(files, org)
    except BundleError as error:
        faults += error.findings
    if before is not None and contracts and (others := changed(contracts, files)):
        faults += findings(broken(contracts, files), before, files, unread(others, before))
    if faults:
        raise BundleError(faults)
    return catalog


def _checked(settings: Settings, files: Mapping[str, bytes], org: str) -> Catalog:
    """The same against all that the log holds: every bundle, and for what they break every record."""
    contracts: dict[str, list[Version]] = {}
    last: Catalog | None = None
    for attempt in attempts(settings):
        if attempt.org == org and not nothing_holds(held := lenient_bundle(attempt.files)):
            follow(contracts, attempt.files, attempt.bundle_id)
            last = held

    def unread(others: Sequence[str], before: Catalog) -> Mapping[str, str]:
        return retained.unread(settings, org, others, before, files, tables(settings))

    return checked(files, org, last, contracts, unread)


def _check_org(org: str) -> None:
    if not 1 <= len(org.encode()) <= PART_BYTES_MAX:
        raise DeclarationError(f"org has {len(org.encode())} bytes; expected 1 to {PART_BYTES_MAX}")


def _ids(past: Sequence[Attempt]) -> str:
    return "known are " + ", ".join(one.bundle_id.hex() for one in past) if past else "there is none before this one"


def _put(settings: Settings, attempt: Attempt, partitions: int) -> Attempt:
    """Append the attempt, and see to it that one bundle holds in every partition; answers the newest attempt.

    Of two who apply at the same time one may have the newer bundle, the other the later marker in some partitions.
    Each looks at what lies there behind its own markers; the last to look sees all of them, and sends the newest again.
    """
    newest = attempt
    for _ in range(TRIES_MAX):
        start = topic_ends(settings, "raw-events")
        _append(settings, newest, partitions)
        found = in_force(settings, attempt.org)
        assert found is not None, "it was acknowledged"
        if _last_markers(settings, attempt.org, start, partitions) == {found.bundle_id: partitions}:
            return found
        newest = replace(found, attempt=uuid.uuid4().bytes, k_ms=0)
    raise StoreError(f"others apply for {attempt.org} at the same time, {TRIES_MAX} times in a row; apply again")


def _last_markers(
    settings: Settings, org: str, start: Mapping[int, int], partitions: int, stop: Mapping[int, int] | None = None
) -> dict[bytes, int]:
    """Bundle -> in how many raw partitions its marker is the organisation's last, from `start` to `stop` or the end."""
    sealing = org_key(checked_secret(settings.secret()), "")
    last: dict[int, bytes] = {}
    consumer = plain_consumer(settings.bootstrap)
    try:
        for message in read_to_end(consumer, settings.topic("raw-events"), partitions, start, stop):
            key, value = message.key() or b"", message.value() or b""
            if not key.startswith(MARKER) or value[8:] != org.encode():
                continue
            stamp = stamps.find(message.headers() or ())
            if stamp is not None and stamps.verified(sealing, key, value, stamp) is not None:
                last[message.partition()] = value[:8]
    finally:
        consumer.close()
    return dict(Counter(last.values()))


def _append(settings: Settings, attempt: Attempt, partitions: int) -> None:
    """The bundle, acknowledged, and then its markers."""
    fields = {
        "org": attempt.org,
        "bundle": attempt.bundle_id,
        "attempt": attempt.attempt.hex(),
        "k_ms": attempt.k_ms,
        "files": dict(attempt.files),
    }
    _send(settings, attempt, wire("Bundle").encode(fields), partitions)


def _send(settings: Settings, attempt: Attempt, definition: bytes, partitions: int) -> None:
    sealing = org_key(checked_secret(settings.secret()), "")
    key, value = MARKER + attempt.attempt, attempt.bundle_id + attempt.org.encode()
    header = stamps.header(sealing, key, value, Stamp(kind=stamps.MARKER))
    with Sender(settings.bootstrap, linger_ms=0) as sender:
        sender.send(settings.topic("definitions"), 0, attempt.attempt, definition)
        sender.flush()
        for partition in range(partitions):
            sender.send(settings.topic("raw-events"), partition, key, value, (header,))


def _marked(settings: Settings, attempt: Attempt, among: Sequence[Attempt] | None = None) -> bool:
    """Whether the attempt's marker lies in every raw partition.  among: what may be its rivals, else all bundles.

    Markers come right behind their bundle, so the look starts at its time and mostly ends with the first record.  Where
    another bundle was applied at about that time, its markers may lie behind, and then they must not be the last.
    """
    topic, wanted = settings.topic("raw-events"), MARKER + attempt.attempt
    partitions = partition_count(settings, "raw-events")
    since = [TopicPartition(topic, partition, max(0, attempt.at_ms - LOOK_BACK_MS)) for partition in range(partitions)]
    consumer = plain_consumer(settings.bootstrap)
    try:
        found = consumer.offsets_for_times(since, timeout=PATIENCE_S)
        start = {place.partition: place.offset for place in found if place.offset >= 0}
        if _rivals(attempt, attempts(settings) if among is None else among):
            until = [TopicPartition(topic, place.partition, attempt.at_ms + RIVAL_MS) for place in since]
            later = consumer.offsets_for_times(until, timeout=PATIENCE_S)
            stop = {place.partition: place.offset for place in later if place.offset >= 0}
            return _last_markers(settings, attempt.org, start, partitions, stop) == {attempt.bundle_id: partitions}
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


def _rivals(attempt: Attempt, among: Iterable[Attempt]) -> bool:
    """Whether another bundle was applied for the organisation shortly before."""
    return any(
        one.org == attempt.org
        and one.bundle_id != attempt.bundle_id
        and attempt.at_ms - RIVAL_MS <= one.at_ms <= attempt.at_ms
        for one in among
    )


def _tree(root: Path | Traversable) -> dict[str, bytes]:
    files = {"milepost.yaml": root.joinpath("milepost.yaml").read_bytes()}
    schemas = root.joinpath("schemas")
    if schemas.is_dir():
        for file in schemas.iterdir():
            if file.name.endswith(".avsc"):
                files[f"schemas/{file.name}"] = file.read_bytes()
    return dict(sorted(files.items()))


def _report(attempt: Attempt, *, changed: bool, partitions: int, newest: Attempt | None = None) -> AppliedReport:
    overtaken = newest is not None and newest.bundle_id != attempt.bundle_id
    return AppliedReport(
        org=attempt.org,
        bundle=attempt.bundle_id.hex(),
        attempt=attempt.attempt.hex(),
        changed=changed,
        partitions=partitions,
        overtaken_by=newest.bundle_id.hex() if newest is not None and overtaken else "",
    )
