"""Telemetry: what the worker tells Prometheus, declared in one place.

Names begin with `milepost_`, times are in seconds, sizes in bytes.  Labels come from closed lists (legs, fates,
partitions, routes, methods): a value from outside never becomes a label, so the number of series is bounded.  There is
no personal data in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SLOW_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
FATES_MAX: Final = 256
"""Different (leg, fate) pairs shown at most: fates are closed lists, this is the bound if one were not."""

registry: Final = CollectorRegistry()
for _collector in (ProcessCollector, PlatformCollector, GCCollector):
    _collector(registry=registry)

RECORDS: Final = Counter("milepost_records", "Records by what became of them", ("leg", "fate"), registry=registry)
LAG: Final = Gauge(
    "milepost_lag_records", "Records between the log's end and what was taken", ("leg", "partition"), registry=registry
)
LAG_SECONDS: Final = Gauge("milepost_lag_seconds", "Age of the oldest record not taken", ("leg",), registry=registry)
POSITION: Final = Gauge("milepost_position", "Offset to be read next", ("leg", "partition"), registry=registry)
CHECKPOINT: Final = Histogram(
    "milepost_checkpoint_seconds",
    "Time of a checkpoint, acknowledged and written",
    ("leg",),
    buckets=FAST_S,
    registry=registry,
)
CHECKPOINT_BYTES: Final = Counter(
    "milepost_checkpoint_bytes", "Bytes changed by checkpoints", ("leg",), registry=registry
)
RESTORE: Final = Histogram(
    "milepost_restore_seconds", "Time to restore a partition", ("leg",), buckets=SLOW_S, registry=registry
)
RESTORING: Final = Gauge("milepost_restoring_partitions", "Partitions being restored", ("leg",), registry=registry)
RESTORED: Final = Counter("milepost_restored_rows", "Rows applied from changelogs", ("leg",), registry=registry)
STORE_BYTES: Final = Gauge(
    "milepost_store_bytes", "Size of a partition's store on disk", ("leg", "partition"), registry=registry
)
STALLED: Final = Gauge(
    "milepost_stalled_partitions", "Partitions that wait for room on a full disk", ("leg",), registry=registry
)
LEFT_OUT: Final = Gauge(
    "milepost_definitions_left_out",
    "Parts of bundles in force that this release refuses and leaves out",
    registry=registry,
)
QUARANTINED: Final = Counter(
    "milepost_stores_quarantined", "Store folders set aside as damaged or foreign", ("leg",), registry=registry
)
SENT: Final = Counter(
    "milepost_sent_records", "Records acknowledged by the broker", ("leg", "topic"), registry=registry
)
HTTP: Final = Histogram(
    "milepost_http_request_seconds", "Time of HTTP requests", ("route", "method"), buckets=FAST_S, registry=registry
)
HTTP_ANSWERS: Final = Counter(
    "milepost_http_answers", "HTTP answers by status", ("route", "method", "status"), registry=registry
)

_counted: dict[tuple[str, str], int] = {}
_shown: dict[tuple[Gauge, str], tuple[str, ...]] = {}


def observe(legs: Mapping[str, Mapping[str, Any]]) -> None:
    """Take over what the worker's legs say of themselves; called at each scrape.

    legs: name -> {"fates": fate -> count since the start, "next_offset": partition -> offset, "lag": partition ->
    records, "bytes": partition -> bytes on disk, "restoring": partitions, "stalled": partition -> why}.  Partitions
    that lie with another worker now lose their gauges: they would be stale.
    """
    for leg, told in legs.items():
        for fate, n in told["fates"].items():
            if (leg, fate) not in _counted and len(_counted) >= FATES_MAX:
                continue
            RECORDS.labels(leg, fate).inc(max(0, n - _counted.get((leg, fate), 0)))
            _counted[leg, fate] = n
        RESTORING.labels(leg).set(len(told["restoring"]))
        STALLED.labels(leg).set(len(told.get("stalled", ())))
        for gauge, values in (
            (POSITION, told["next_offset"]),
            (LAG, told["lag"]),
            (STORE_BYTES, told.get("bytes", {})),
        ):
            for one in [one for one in _shown.get((gauge, leg), ()) if one not in values]:
                gauge.remove(leg, one)
            for partition, value in values.items():
                gauge.labels(leg, partition).set(value)
            _shown[gauge, leg] = tuple(values)


def lag_seconds(leg: str, seconds: float | None) -> None:
    """Age of the oldest record that the leg has not taken; None: not known."""
    if seconds is not None:
        LAG_SECONDS.labels(leg).set(max(0.0, seconds))


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
    method = method if method in METHODS else "other"
    HTTP.labels(route, method).observe(seconds)
    HTTP_ANSWERS.labels(route, method, str(status)).inc()


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    return generate_latest(registry)
