"""Observing: what telemetry tells of a running worker, gathered at each scrape (ops/telemetry.py declares it).

status, holdings, marks, lease, disk, memory -> Observed

It reads what is in memory, and the disk's free space; it asks nobody and waits for nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from milepost.agents.bindings import Runtime
from milepost.ops.telemetry import Observed
from milepost.topology.decisions import Decisions
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.measure import MeasureMark

CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's memory limit stands, in the second version and the first."""


def observed(
    runtime: Runtime,
    decisions: Decisions,
    status: Mapping[str, Any],
    *,
    ingest_lag_ms: int | None,
    recognised_ms: int | None,
    now_ms: int,
    lasting: Mapping[tuple[str, str], Collection[str]],
) -> Observed:
    """What a worker says of itself now.  status: as of /v1/status;  recognised_ms: how far milestones are recognised;
    lasting: the breaches of each source that promises something, where this worker watches"""
    lease = getattr(runtime.app.consumer, "lease", None)
    silent_ms = None if lease is None else lease.age_ms
    return Observed(
        legs=status["legs"],
        ingest_lag_s=None if ingest_lag_ms is None else ingest_lag_ms / 1000,
        answers_age_s=_answers_age_s(runtime, now_ms),
        away_s=_away_s(runtime),
        standby_ms=status["standby"],
        sources=_sources(runtime, decisions),
        lasting=lasting,
        recognised_s=None if recognised_ms is None else recognised_ms / 1000,
        refused_decisions=status["refused_decisions"],
        broker_silent_s=None if silent_ms is None else silent_ms / 1000,
        disk=_disk(runtime.settings.state),
        held_bytes=status["memory"],
        memory_limit=memory_limit(),
    )


def _answers_age_s(runtime: Runtime, now_ms: int) -> float | None:
    """The age of what the measures' partitions here have been told by the ticks of all raw partitions."""
    marks = [at.mark for at in runtime.legs["measure"].partitions.values()]
    told = [mark.progress for mark in marks if isinstance(mark, MeasureMark)]
    if not told or any(len(one) < runtime.settings.partitions for one in told):
        return None
    return (now_ms - min(raw.k_ms for one in told for raw in one.values())) / 1000


def _away_s(runtime: Runtime) -> dict[str, float]:
    """Leg -> how long its oldest checkpoint on its way has been waited for; 0: none is."""
    now = time.monotonic()
    return {
        name: max((now - one.away_since for one in leg.holdings.values() if one.away_since is not None), default=0.0)
        for name, leg in runtime.legs.items()
    }


def _sources(runtime: Runtime, decisions: Decisions) -> dict[tuple[str, str], tuple[float, float | None]]:
    """(organisation, source) -> (known time of its newest event here, how long it may be silent), seconds.

    A source is waited for from the first event that became known behind its definition: an import of the past says
    nothing about what comes.
    """
    heard: dict[tuple[str, str], int] = {}
    for at in runtime.legs["ingest"].partitions.values():
        assert isinstance(at.mark, IngestMark)
        for place, (_, k_ms) in at.mark.progress.items():
            heard[place] = max(k_ms, heard.get(place, k_ms))
    found: dict[tuple[str, str], tuple[float, float | None]] = {}
    for (org, name), k_ms in heard.items():
        known = decisions.catalog(org)
        source = None if known is None else known[0].sources.get(name)
        if source is None:
            continue  # nobody defines it any more: its name is no label
        limit_ms, since = source.expect.freshness_ms, _defined_ms(decisions, org, name)
        awaited = limit_ms is not None and since is not None and k_ms > since
        found[org, name] = k_ms / 1000, limit_ms / 1000 if awaited and limit_ms is not None else None
    return found


def _defined_ms(decisions: Decisions, org: str, source: str) -> int | None:
    """When the first definitions that name a source became known."""
    return next((one.k_ms for one in decisions.history.get(org, ()) if source in one.catalog.sources), None)


def _disk(folder: Path) -> tuple[int, int] | None:
    """(free bytes, size) of the disk under a folder, which may not be there yet."""
    try:
        usage = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists()))
    except OSError:
        return None  # a disk that is gone: what it held will say so
    return usage.free, usage.total


@cache
def memory_limit() -> int:
    """Bytes of memory that this process may take: its container's limit, else the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in CGROUPS:
        try:
            text = file.read_text().strip()
        except OSError:
            continue  # not this version, or no container
        if text.isdigit() and int(text) < machine:
            return int(text)
    return machine
