"""Dashboards: one dashboard of a deployment, made from the line's and the telemetry's declarations.

    row: the deployment · a row a stage, in the line's order · answers · the workers
    stage -> what it decides (topology/fates.py) -> its panels
             the first stage of a leg shows its lag, the last its checkpoints and stores

`make docs` writes it to ops/grafana/dashboards/milepost.json; a test holds it against a live Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from milepost.topology import line
from milepost.topology.fates import of_stage

WIDE: Final = 24
HEIGHT: Final = 7
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart.

    queries: (expression, legend)
    unit:    as Grafana names them: ops, s, bytes, short, percentunit
    quiet:   why it may show nothing, or only zeros, where all is well; "": it must show something
    """

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    quiet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def rows() -> tuple[Row, ...]:
    """The dashboard's rows, top to bottom."""
    return (_deployment(), *_stages(), _answers(), _workers())


def _deployment() -> Row:
    return Row(
        title="The deployment",
        panels=(
            Panel(
                title="Ready",
                about="1: every question can be answered whole. Why not: milepost_unready.",
                queries=(("milepost_ready", "{{instance}}"),),
            ),
            Panel(
                title="Why not ready",
                about="Restoring, a full disk, decisions not read yet, a lag of 24 h.",
                queries=(("sum by (why) (milepost_unready)", "{{why}}"),),
                quiet="a ready worker has no reason",
            ),
            Panel(
                title="Age of answers",
                about="How long ago the moment is up to which answers know everything.",
                queries=(("max by (instance) (milepost_answers_age_seconds)", "{{instance}}"),),
                unit="s",
            ),
            Panel(
                title="Dead letters a minute",
                about="Records, or pairs of event and rule, that broke their contract.",
                queries=(('sum by (leg) (rate(milepost_records_total{fate=~"dead.*"}[5m])) * 60', "{{leg}}"),),
                quiet="no record breaks its contract",
            ),
            Panel(
                title="Silence of sources",
                about="Since when nothing has become known of a source. Backdated imports were known long ago.",
                queries=(
                    (
                        "time() - max by (org, source) (milepost_source_heard_timestamp_seconds)",
                        "{{org}} {{source}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                title="Sources that break their contract",
                about="Stale, silent, broken in form, or unmatched (`expect` of the bundle), by source.",
                queries=(
                    (
                        "max by (org, source, breach) (milepost_source_breach)",
                        "{{org}} {{source}} {{breach}}",
                    ),
                ),
                quiet="every source keeps what it promises",
            ),
            Panel(
                title="Restarts in an hour",
                about="How often each worker has begun anew.",
                queries=(('changes(process_start_time_seconds{job="milepost"}[1h])', "{{instance}}"),),
                quiet="nobody restarts",
            ),
        ),
    )


def _stages() -> Iterator[Row]:
    for leg in line.LEGS:
        for number, stage in enumerate(leg.stages):
            panels = list(_fates(leg.name, stage))
            if number == 0:
                panels += _lag(leg.name)
            if number == len(leg.stages) - 1:
                panels += _state(leg.name)
            yield Row(title=f"{leg.name} · {stage}", panels=tuple(panels))
    for asking in line.ASKING:
        for stage in asking.stages:
            yield Row(title=f"{asking.name} · {stage}", panels=tuple(_recognition(asking.name)))


def _fates(leg: str, stage: str) -> Iterator[Panel]:
    """What the stage decides, by kind.  A stage that decides nothing of its own shows what it hands on."""

    def rate(fates: list[str]) -> tuple[tuple[str, str], ...]:
        named = "|".join(fates)
        return ((f'sum by (fate) (rate(milepost_records_total{{leg="{leg}", fate=~"{named}"}}[1m]))', "{{fate}}"),)

    result, control = of_stage(leg, stage, "result"), of_stage(leg, stage, "control")
    dropped, dead = of_stage(leg, stage, "drop"), of_stage(leg, stage, "dead")
    if result:
        yield Panel(
            title="Taken a second", about="What went on, or changed state.", queries=rate(result), unit="ops",
            quiet="the demo has no records" if stage in ("writes", "records") else "",
        )  # fmt: skip
    if dropped:
        yield Panel(
            title="Dropped a second", about="Without effect, as intended.", queries=rate(dropped), unit="ops",
            quiet="nothing is dropped" if stage in ("decode", "metrics") else "",
        )  # fmt: skip
    if dead:
        yield Panel(
            title="Dead letters a second", about="Their contract is broken.", queries=rate(dead), unit="ops",
            quiet="no record breaks its contract",
        )  # fmt: skip
    if control:
        yield Panel(
            title="The engine's own traffic a second", about="Ticks, markers, copies, repeats after a crash.",
            queries=rate(control), unit="ops", quiet="" if "tick" in control else "nothing was sent again",
        )  # fmt: skip


def _lag(leg: str) -> Iterator[Panel]:
    yield Panel(
        title="Lag, records",
        about="Between the log's end and what was taken.",
        queries=((f'sum by (partition) (milepost_lag_records{{leg="{leg}"}})', "{{partition}}"),),
    )
    if leg == "ingest":
        yield Panel(
            title="Lag, seconds",
            about="Age of the oldest raw record not taken. /readyz turns red at 24 h.",
            queries=((f'max by (instance) (milepost_lag_seconds{{leg="{leg}"}})', "{{instance}}"),),
            unit="s",
        )


def _state(leg: str) -> Iterator[Panel]:
    bucket = f'sum by (le) (rate(milepost_checkpoint_seconds_bucket{{leg="{leg}"}}[5m]))'
    yield Panel(
        title="Checkpoint, time",
        about="Outputs acknowledged, one batch, one local write, commit.",
        queries=tuple((f"histogram_quantile({q}, {bucket})", f"p{q * 100:.0f}") for q in (0.5, 0.99)),
        unit="s",
        quiet="the demo has no records" if leg == "record" else "",
    )
    yield Panel(
        title="Checkpoint, bytes a second",
        about="Changes written to the changelog.",
        queries=((f'sum(rate(milepost_checkpoint_bytes_total{{leg="{leg}"}}[1m]))', "bytes"),),
        unit="Bps",
        quiet="the demo has no records" if leg == "record" else "",
    )
    yield Panel(
        title="Waiting for a checkpoint",
        about="How long the oldest checkpoint on its way is waited for; partitions that wait for room.",
        queries=(
            (f'max by (instance) (milepost_checkpoint_away_seconds{{leg="{leg}"}})', "{{instance}}"),
            (f'sum by (instance) (milepost_stalled_partitions{{leg="{leg}"}})', "{{instance}} without room"),
        ),
        unit="s",
        quiet="a checkpoint takes milliseconds",
    )
    yield Panel(
        title="Sent a second",
        about="Records that the broker has acknowledged, by topic.",
        queries=((f'sum by (topic) (rate(milepost_sent_records_total{{leg="{leg}"}}[1m]))', "{{topic}}"),),
        unit="ops",
        quiet="" if leg == "ingest" else "it sends dead letters alone",
    )
    yield Panel(
        title="Stores",
        about="Bytes on disk, by partition.",
        queries=((f'sum by (partition) (milepost_store_bytes{{leg="{leg}"}})', "{{partition}}"),),
        unit="bytes",
    )
    yield Panel(
        title="Restore",
        about="Partitions being restored; rows that restores have applied since the start.",
        queries=(
            (f'sum by (instance) (milepost_restoring_partitions{{leg="{leg}"}})', "{{instance}} restoring"),
            (f'sum by (instance) (milepost_restored_rows_total{{leg="{leg}"}})', "{{instance}} rows"),
        ),
        quiet="nothing is being restored",
    )
    yield Panel(
        title="Standby lag",
        about="How far the worst copy of another worker's partition is behind.",
        queries=((f'max by (instance) (milepost_standby_lag_seconds{{leg="{leg}"}})', "{{instance}}"),),
        unit="s",
        quiet="without MILEPOST_STANDBY there are no copies",
    )


def _recognition(leg: str) -> Iterator[Panel]:
    yield Panel(
        title="Recognised up to",
        about="Age of the moment up to which everything is said of milestones.",
        queries=(
            (f'time() - min by (instance) (milepost_recognised_timestamp_seconds{{leg="{leg}"}})', "{{instance}}"),
        ),
        unit="s",
    )
    yield Panel(
        title="Said a second",
        about="Records on `milestones`: transitions, corrections and marks.",
        queries=((f'sum by (topic) (rate(milepost_sent_records_total{{leg="{leg}"}}[5m]))', "{{topic}}"),),
        unit="ops",
        quiet="nothing has changed of a milestone",
    )


def _answers() -> Row:
    questions = '{route=~"/v1/.*", route!="/v1/stream"}'
    bucket = f"sum by (le) (rate(milepost_http_request_seconds_bucket{questions}[5m]))"
    return Row(
        title="Answers",
        panels=(
            Panel(
                title="Questions a second",
                about="Requests below /v1, by route.",
                queries=(('sum by (route) (rate(milepost_http_answers_total{route=~"/v1/.*"}[1m]))', "{{route}}"),),
                unit="ops",
            ),
            Panel(
                title="Time of an answer",
                about="Half are quicker than p50, all but one in a hundred quicker than p99.",
                queries=tuple((f"histogram_quantile({q}, {bucket})", f"p{q * 100:.0f}") for q in (0.5, 0.99)),
                unit="s",
            ),
            Panel(
                title="Answers by status",
                about="4xx: the asker's; 503: a partition is handed over; 500: ours.",
                queries=(("sum by (status) (rate(milepost_http_answers_total[1m]))", "{{status}}"),),
                unit="ops",
            ),
            Panel(
                title="Waiting, streaming",
                about="Questions that wait for a partition or a receipt; open streams.",
                queries=(
                    ("sum(milepost_questions_waiting)", "waiting"),
                    ("sum(milepost_stream_clients)", "streams"),
                ),
                quiet="nobody waits, no page is open",
            ),
        ),
    )


def _workers() -> Row:
    return Row(
        title="The workers",
        panels=(
            Panel(
                title="Processor",
                about="Cores that each worker uses.",
                queries=(('rate(process_cpu_seconds_total{job="milepost"}[1m])', "{{instance}}"),),
            ),
            Panel(
                title="Memory",
                about="Resident, what it may take, and what the stores hold of it.",
                queries=(
                    ('process_resident_memory_bytes{job="milepost"}', "{{instance}}"),
                    ("milepost_memory_limit_bytes", "{{instance}} limit"),
                    ("sum by (instance, held) (milepost_memory_bytes)", "{{instance}} {{held}}"),
                ),
                unit="bytes",
            ),
            Panel(
                title="Room on the disk",
                about="Free bytes on the disk of the stores.",
                queries=(("milepost_disk_free_bytes", "{{instance}}"),),
                unit="bytes",
            ),
            Panel(
                title="Open files, of those allowed",
                about="Stores, connections and streams.",
                queries=(('process_open_fds{job="milepost"} / process_max_fds{job="milepost"}', "{{instance}}"),),
                unit="percentunit",
            ),
            Panel(
                title="Silence of the broker",
                about="Since the last heartbeat that it answered.",
                queries=(("milepost_broker_silent_seconds", "{{instance}}"),),
                unit="s",
            ),
            Panel(
                title="Release",
                about="Which version each worker runs.",
                queries=(("max by (instance, version) (milepost_build_info)", "{{instance}} {{version}}"),),
            ),
        ),
    )


def dashboard() -> str:
    """The dashboard as Grafana reads it."""
    made = {
        "uid": "milepost",
        "title": "Milepost",
        "description": "Written by `make docs` from ops/dashboards.py: change that.",
        "tags": ["milepost"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": list(_laid_out()),
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _laid_out() -> Iterator[dict[str, Any]]:
    """Rows and panels with their places: up to four panels side by side."""
    number, y = 0, 0
    for row in rows():
        number += 1
        place = {"x": 0, "y": y, "w": WIDE, "h": 1}
        yield {"id": number, "title": row.title, "type": "row", "collapsed": False, "gridPos": place, "panels": []}
        y += 1
        abreast = min(4, len(row.panels))
        for at, panel in enumerate(row.panels):
            number += 1
            width = WIDE // abreast
            place = {"x": at % abreast * width, "y": y + at // abreast * HEIGHT, "w": width, "h": HEIGHT}
            yield _chart(number, panel, place)
        y += -(-len(row.panels) // abreast) * HEIGHT


def _chart(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }
