"""Telemetry: what the worker tells Prometheus, declared in one place.

    DECLARED (name, kind, labels, meaning)  ->  /metrics, the table in RUNBOOK.md, dashboards.py, alerts.py
    LABELS   (what a label's values are, and how many at most)

Names begin with `milepost_`, times are in seconds, sizes in bytes.  Labels come from closed lists, or from the
definitions that an organisation has applied, up to a bound: nothing that an event says becomes a label, so the number
of series is bounded.  There is no personal data in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from milepost import __version__
from milepost.ops.settings import PARTITIONS_MAX
from milepost.topology import line
from milepost.topology.breach_records import KINDS
from milepost.topology.fates import FATES, OTHER

FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SLOW_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LEGS: Final = tuple(spec.name for spec in line.LEGS)
ASKING: Final = tuple(spec.name for spec in line.ASKING)
ROUTES_MAX: Final = 200
SOURCES_MAX: Final = 500
"""Sources that are shown, of all organisations together; which, is decided by their names."""
WHYS: Final = ("restoring", "disk", "decisions", "lag")
"""Why a worker is not ready: partitions are restored or handed over, the disk is full, the decision topics are not
read to their end yet, ingest is too far behind."""
HELD: Final = ("memtables", "block_cache")
INGEST_LAG_S_MAX: Final = 24 * 3600
"""An ingest lag at which the worker is no longer ready: at 72 h the log may lose first bodies (design §3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a label's values are.  values: all that there can be; else `most` says how many different ones."""

    about: str
    values: tuple[str, ...] = ()
    most: int = 0

    @property
    def bound(self) -> int:
        return len(self.values) or self.most


LABELS: Final[Mapping[str, Label]] = {
    "leg": Label(about="a leg of the line", values=(*LEGS, *ASKING)),
    "fate": Label(
        about="what became of records (topology/fates.py)",
        values=(*dict.fromkeys(fate for fates in FATES.values() for fate in fates), OTHER),
    ),
    "partition": Label(about="number of a partition", most=PARTITIONS_MAX),
    "topic": Label(about="a topic of the line, without the namespace", values=tuple(t.name for t in line.all_topics())),
    "route": Label(about="a path of /openapi.json, `page` or `other`", most=ROUTES_MAX),
    "method": Label(about="HTTP method", values=(*METHODS, OTHER)),
    "status": Label(about="HTTP status", values=(*(str(one.value) for one in HTTPStatus), OTHER)),
    "why": Label(about="why a worker is not ready", values=WHYS),
    "held": Label(about="what holds memory", values=HELD),
    "org": Label(about="an organisation with definitions", most=SOURCES_MAX),
    "source": Label(about="a source of its definitions", most=SOURCES_MAX),
    "breach": Label(about="how a source breaks its contract", values=KINDS),
    "version": Label(about="the release that runs", most=1),
}

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A metric of the worker's.  only: when it is there, if not always."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...]
    only: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        return {
            "counter": (f"{self.name}_total",),
            "histogram": (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"),
        }.get(self.kind, (self.name,))


DECLARED: Final[list[Declared]] = []
registry: Final = CollectorRegistry()
for _collector in (ProcessCollector, PlatformCollector, GCCollector):
    _collector(registry=registry)


def _declared(kind: Kind, name: str, about: str, labels: tuple[str, ...], only: str) -> str:
    assert all(one in LABELS for one in labels), (name, labels)
    DECLARED.append(Declared(name=f"milepost_{name}", kind=kind, about=about, labels=labels, only=only))
    return f"milepost_{name}"


def _counter(name: str, about: str, *labels: str, only: str = "") -> Counter:
    return Counter(_declared("counter", name, about, labels, only), about, labels, registry=registry)


def _gauge(name: str, about: str, *labels: str, only: str = "") -> Gauge:
    return Gauge(_declared("gauge", name, about, labels, only), about, labels, registry=registry)


def _histogram(name: str, about: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    made = _declared("histogram", name, about, labels, "")
    return Histogram(made, about, labels, buckets=buckets, registry=registry)


BUILD: Final = _gauge("build_info", "1; the label says which release runs", "version")
READY: Final = _gauge("ready", "1 when every question can be answered whole, as /readyz says, else 0")
UNREADY: Final = _gauge("unready", "1 for each reason why the worker is not ready, else 0", "why")
RECORDS: Final = _counter("records", "Records by what became of them", "leg", "fate")
LAG: Final = _gauge("lag_records", "Records between the log's end and what was taken", "leg", "partition")
LAG_SECONDS: Final = _gauge("lag_seconds", "Age of the oldest raw record not taken; 0 when all are", "leg")
POSITION: Final = _gauge("position", "Offset to be read next", "leg", "partition")
ANSWERS_AGE: Final = _gauge(
    "answers_age_seconds", "Age of the moment up to which answers know everything, as ticks say it", "leg"
)
CHECKPOINT: Final = _histogram(
    "checkpoint_seconds", "Time of a checkpoint, acknowledged and written", "leg", buckets=FAST_S
)
CHECKPOINT_BYTES: Final = _counter("checkpoint_bytes", "Bytes changed by checkpoints", "leg")
AWAY: Final = _gauge("checkpoint_away_seconds", "How long the oldest checkpoint on its way is waited for", "leg")
RESTORE: Final = _histogram("restore_seconds", "Time to restore a partition", "leg", buckets=SLOW_S)
RESTORING: Final = _gauge("restoring_partitions", "Partitions being restored", "leg")
RESTORED: Final = _counter("restored_rows", "Rows applied from changelogs", "leg")
STORE_BYTES: Final = _gauge("store_bytes", "Size of a partition's store on disk", "leg", "partition")
STALLED: Final = _gauge("stalled_partitions", "Partitions that wait for room on a full disk", "leg")
QUARANTINED: Final = _counter("stores_quarantined", "Store folders set aside as damaged or foreign", "leg")
SENT: Final = _counter("sent_records", "Records acknowledged by the broker", "leg", "topic")
STANDBY_LAG: Final = _gauge(
    "standby_lag_seconds", "How far the worst standby copy here lags", "leg", only="where MILEPOST_STANDBY is not 0"
)
STANDBY: Final = _gauge(
    "standby_partitions", "Partitions of others that are copied here", "leg", only="where MILEPOST_STANDBY is not 0"
)
RECOGNISED: Final = _gauge(
    "recognised_timestamp_seconds",
    "Known time up to which everything is said of milestones",
    "leg",
    only="where an organisation has plans",
)
HEARD: Final = _gauge("source_heard_timestamp_seconds", "Known time of the newest event of a source", "org", "source")
AWAITED: Final = _gauge(
    "source_awaited_seconds",
    "How long a source may be silent (`expect: freshness`), once it has sent since it was defined",
    "org",
    "source",
    only="for sources with `expect: freshness` that are live",
)
BREACH: Final = _gauge(
    "source_breach",
    "1 while a source breaks what it promises (`expect`), else 0",
    "org",
    "source",
    "breach",
    only="at the worker that watches, for sources with `expect`",
)
LEFT_OUT: Final = _gauge("definitions_left_out", "Parts of bundles in force that this release refuses and leaves out")
REFUSED: Final = _counter("refused_decisions", "Records of decision topics that are not ours and were passed over")
BROKER: Final = _gauge("broker_silent_seconds", "Since when the broker has not answered a heartbeat of this worker")
DISK_FREE: Final = _gauge("disk_free_bytes", "Room on the disk of the stores")
DISK: Final = _gauge("disk_bytes", "Size of the disk of the stores")
MEMORY: Final = _gauge("memory_bytes", "Memory of the stores", "held")
MEMORY_LIMIT: Final = _gauge(
    "memory_limit_bytes", "Memory that the process may take: its container's, or the machine's"
)
WAITING: Final = _gauge("questions_waiting", "Questions that wait for a partition or for a receipt")
STREAMS: Final = _gauge("stream_clients", "Open streams")
HTTP: Final = _histogram("http_request_seconds", "Time of HTTP requests", "route", "method", buckets=FAST_S)
HTTP_ANSWERS: Final = _counter("http_answers", "HTTP answers by status", "route", "method", "status")

BUILD.labels(__version__).set(1)
# What has not happened yet is a zero, not an absence: a rate needs something to begin from.
for _leg, _fates in FATES.items():
    for _fate in (*_fates, OTHER):
        RECORDS.labels(_leg, _fate)
for _leg in LEGS:
    for _of in (CHECKPOINT, CHECKPOINT_BYTES, AWAY, RESTORE, RESTORED, QUARANTINED):
        _of.labels(_leg)
_writes = {**{spec.name: spec.writes for spec in line.LEGS}, **{spec.name: spec.writes for spec in line.ASKING}}
for _leg, _topics in _writes.items():
    for _topic in _topics:
        SENT.labels(_leg, _topic)

_counted: dict[tuple[str, str], int] = {}
_refused = 0
_shown: dict[tuple[Gauge, str], tuple[tuple[str, ...], ...]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a worker says of itself at a scrape.  None: not known.

    legs:       name -> {"fates": fate -> count since the start, "next_offset": partition -> offset, "lag": partition ->
                records, "bytes": partition -> bytes on disk, "restoring": partitions, "stalled": partition -> why}
    away_s:     leg -> age of its oldest checkpoint on its way
    standby_ms: leg -> partition -> lag of the copy here, ms
    lasting:    (organisation, source) -> the breaches that last, of sources that promise something
    sources:    (organisation, source) -> (known time of its newest event, how long it may be silent), seconds
    disk:       (free bytes, size)
    """

    legs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ingest_lag_s: float | None = None
    answers_age_s: float | None = None
    away_s: Mapping[str, float] = field(default_factory=dict)
    standby_ms: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    sources: Mapping[tuple[str, str], tuple[float, float | None]] = field(default_factory=dict)
    lasting: Mapping[tuple[str, str], Collection[str]] = field(default_factory=dict)
    recognised_s: float | None = None
    refused_decisions: int = 0
    broker_silent_s: float | None = None
    disk: tuple[int, int] | None = None
    held_bytes: Mapping[str, int] = field(default_factory=dict)
    memory_limit: int | None = None


def observe(told: Observed) -> None:
    """Take over what the worker says of itself; called at each scrape.

    Partitions that lie with another worker now, and sources that nobody defines any more, lose their gauges."""
    global _refused
    for leg, one in told.legs.items():
        _observe_leg(leg, one)
    for leg, seconds in told.away_s.items():
        AWAY.labels(leg).set(seconds)
    REFUSED.inc(max(0, told.refused_decisions - _refused))
    _refused = told.refused_decisions
    for gauge, value in (
        (BROKER, told.broker_silent_s),
        (MEMORY_LIMIT, told.memory_limit),
        (DISK_FREE, told.disk and told.disk[0]),
        (DISK, told.disk and told.disk[1]),
    ):
        if value is not None:
            gauge.set(max(0.0, value))
    for age, leg, age_s in ((LAG_SECONDS, "ingest", told.ingest_lag_s), (ANSWERS_AGE, "measure", told.answers_age_s)):
        _show(age, {} if age_s is None else {(leg,): max(0.0, age_s)})
    for held, size in told.held_bytes.items():
        MEMORY.labels(held).set(size)
    _observe_parts(told)


def _observe_leg(leg: str, told: Mapping[str, Any]) -> None:
    known = FATES.get(leg, {})
    for fate, n in told["fates"].items():
        RECORDS.labels(leg, fate if fate in known else OTHER).inc(max(0, n - _counted.get((leg, fate), 0)))
        _counted[leg, fate] = n
    RESTORING.labels(leg).set(len(told["restoring"]))
    STALLED.labels(leg).set(len(told.get("stalled", ())))
    for gauge, values in ((POSITION, told["next_offset"]), (LAG, told["lag"]), (STORE_BYTES, told.get("bytes", {}))):
        _show(gauge, {(leg, partition): value for partition, value in values.items()}, leg)


def _observe_parts(told: Observed) -> None:
    """What is there only sometimes."""
    sources = sorted(told.sources)[:SOURCES_MAX]
    _show(HEARD, {name: told.sources[name][0] for name in sources})
    limits = {name: told.sources[name][1] for name in sources}
    _show(AWAITED, {name: limit for name, limit in limits.items() if limit is not None})
    promising = sorted(told.lasting)[:SOURCES_MAX]
    _show(BREACH, {(*name, kind): float(kind in told.lasting[name]) for name in promising for kind in KINDS})
    _show(STANDBY, {(leg,): len(copies) for leg, copies in told.standby_ms.items()})
    lags = {leg: [ms for ms in copies.values() if ms is not None] for leg, copies in told.standby_ms.items()}
    _show(STANDBY_LAG, {(leg,): max(some) / 1000 for leg, some in lags.items() if some})
    recognised = told.recognised_s
    _show(RECOGNISED, {} if recognised is None else {(leg,): recognised for leg in ASKING})


def _show(gauge: Gauge, values: Mapping[tuple[str, ...], float], part: str = "") -> None:
    """The gauge has these values; those of `part` that it had before, and are not among them, are taken away."""
    for labels in _shown.get((gauge, part), ()):
        if labels not in values:
            gauge.remove(*labels)
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    _shown[gauge, part] = tuple(values)


def ready(unready: Collection[str]) -> None:
    """Whether the worker is ready, and if not, which of `WHYS` are why."""
    READY.set(0 if unready else 1)
    for why in WHYS:
        UNREADY.labels(why).set(1 if why in unready else 0)


def asked(waiting: int, streams: int) -> None:
    """Questions that wait, and open streams."""
    WAITING.set(waiting)
    STREAMS.set(streams)


def left_out(parts: int) -> None:
    """So many parts of the bundles in force do not hold in this release."""
    LEFT_OUT.set(parts)


def checkpoint(leg: str, seconds: float, changed_bytes: int) -> None:
    """A checkpoint was acknowledged and written."""
    CHECKPOINT.labels(leg).observe(seconds)
    CHECKPOINT_BYTES.labels(leg).inc(changed_bytes)


def restored(leg: str, seconds: float, rows: int) -> None:
    """A partition was restored from its changelog."""
    RESTORE.labels(leg).observe(seconds)
    RESTORED.labels(leg).inc(rows)


def quarantined(leg: str) -> None:
    """A store's folder was set aside."""
    QUARANTINED.labels(leg).inc()


def sent(leg: str, topic: str, records: int) -> None:
    """Outputs of a checkpoint were acknowledged; `topic` as in the line, without the namespace."""
    SENT.labels(leg, topic).inc(records)


def http(route: str, method: str, status: int, seconds: float) -> None:
    """A request was answered.  `route` is a path of the table of routes, or `other`."""
    method = method if method in METHODS else OTHER
    told = str(status) if str(status) in LABELS["status"].values else OTHER
    HTTP.labels(route, method).observe(seconds)
    HTTP_ANSWERS.labels(route, method, told).inc()


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    return generate_latest(registry)


def table() -> str:
    """The metrics as a Markdown table, and the labels as another."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.about}{f' ({one.only})' if one.only else ''} |"
        for one in DECLARED
    ]
    labels = [
        f"| `{name}` | {label.about} | {f'{label.bound:,}' if label.values else f'{label.most:,} at most'} |"
        for name, label in LABELS.items()
    ]
    head = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", "| label | what its values are | how many |", "|---|---|---|", *labels]) + "\n"
