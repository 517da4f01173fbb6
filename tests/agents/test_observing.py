"""Observing: what telemetry is told of sources, answers and the machine, over marks and definitions made by hand."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from milepost.agents import observing
from milepost.agents.observing import memory_limit, observed
from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG
from milepost.ops.telemetry import Observed
from milepost.topology.catalog import load_bundle
from milepost.topology.decisions import Decisions
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.measure import MeasureMark
from milepost.topology.reading import Progress

NOW_MS = 1_800_000_000_000
DEFINED_MS = NOW_MS - 3_600_000
FLIGHTS, REGISTRY = (ORG, "flights"), (ORG, "registry")


def told(
    folder: Path,
    heard: list[dict[tuple[str, str], list[int]]],
    ticks: list[dict[int, int]],
    *,
    partitions: int = 2,
    defined: bool = True,
) -> Observed:
    """What a worker says whose ingest partitions have heard of sources, and whose measure partitions were told ticks."""
    decisions = Decisions(load_bundle)
    if defined:
        decisions.add_bundle(ORG, demo_bundle(), DEFINED_MS)
        decisions.add_bundle(ORG, demo_bundle(), NOW_MS)  # applied again: it was defined before
    marks: dict[str, list[Any]] = {
        "ingest": [IngestMark(prev=[], record_prev=[], progress=one) for one in heard],
        "measure": [
            MeasureMark(progress={raw: Progress(k_ms=k, sources={}) for raw, k in one.items()}) for one in ticks
        ],
    }
    legs = {
        name: SimpleNamespace(partitions=dict(enumerate(SimpleNamespace(mark=one) for one in some)), holdings={})
        for name, some in marks.items()
    }
    runtime: Any = SimpleNamespace(
        app=SimpleNamespace(consumer=None),
        legs=legs,
        settings=SimpleNamespace(state=folder / "not" / "there" / "yet", partitions=partitions),
    )
    status = {"legs": {}, "standby": {}, "refused_decisions": 0, "memory": {}}
    return observed(runtime, decisions, status, ingest_lag_ms=None, recognised_ms=None, now_ms=NOW_MS, lasting={})


def test_a_source_is_awaited_from_its_first_event_behind_its_definition(tmp_path: Path) -> None:
    """What was known before the definition is an import of the past; one live event, in any partition, and it is awaited.

    A source without `expect: freshness` never is."""
    past, live = DEFINED_MS - 1, DEFINED_MS + 1
    imported = told(tmp_path, [{FLIGHTS: [0, past], REGISTRY: [0, past]}, {FLIGHTS: [0, past - 5]}], [])
    assert imported.sources == {FLIGHTS: (past / 1000, None), REGISTRY: (past / 1000, None)}
    begun = told(tmp_path, [{FLIGHTS: [0, past], REGISTRY: [0, live]}, {FLIGHTS: [0, live]}], [])
    assert begun.sources == {FLIGHTS: (live / 1000, 900.0), REGISTRY: (live / 1000, None)}


def test_what_nobody_defines_is_no_label(tmp_path: Path) -> None:
    """A source that the definitions in force do not name, or of an organisation without any, is not told of."""
    assert told(tmp_path, [{(ORG, "made up"): [0, 1], ("elsewhere", "flights"): [0, 1]}], []).sources == {}
    assert told(tmp_path, [{FLIGHTS: [0, 1]}], [], defined=False).sources == {}


def test_answers_are_as_old_as_the_oldest_tick(tmp_path: Path) -> None:
    """The age is that of the raw partition that is heard of least; until all were heard of it is not known."""
    assert told(tmp_path, [], [{0: NOW_MS - 500, 1: NOW_MS - 7000}, {0: NOW_MS, 1: NOW_MS}]).answers_age_s == 7.0
    assert told(tmp_path, [], [{0: NOW_MS}, {0: NOW_MS, 1: NOW_MS}]).answers_age_s is None
    assert told(tmp_path, [], []).answers_age_s is None


def test_the_disk_of_a_folder_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    """Room and size are those of the disk on which the folder will be made."""
    free, size = told(tmp_path, [], []).disk or (0, 0)
    assert 0 < free <= size


@pytest.mark.parametrize(("content", "limit"), [("1073741824", 2**30), ("max", None), ("9" * 18, None), ("", None)])
def test_memory_is_limited_by_the_container_or_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, limit: int | None
) -> None:
    """A container's limit counts where it is a number below the machine's memory."""
    file = tmp_path / "memory.max"
    file.write_text(content + "\n")
    monkeypatch.setattr(observing, "CGROUPS", (tmp_path / "absent", file))
    memory_limit.cache_clear()
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit() == (limit or machine)
    memory_limit.cache_clear()
