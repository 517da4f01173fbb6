"""Telemetry: declared in one place, documented, and bounded whatever a worker says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from milepost.ops import telemetry
from milepost.ops.telemetry import DECLARED, LABELS, Observed
from milepost.schemas.errors import DROPS, REASONS
from milepost.topology import line
from milepost.topology.fates import FATES, OTHER

ROOT = Path(__file__).resolve().parents[2]


STRANGE = """
from milepost.ops import telemetry
telemetry.http("/v1/status", "BREW", 799, 0.1)
told = {"fates": {"made up": 3}, "restoring": [], "next_offset": {}, "lag": {}}
telemetry.observe(telemetry.Observed(legs={"record": told}))
print(telemetry.exposition().decode())
"""
"""A process in which something unheard of has happened, and nothing else: other tests have legs of their own here."""


def series(exposed: str = "") -> dict[str, list[dict[str, str]]]:
    """Name -> labels of each series that is exposed, here and now if nothing else is given."""
    found: dict[str, list[dict[str, str]]] = {}
    text = exposed or telemetry.exposition().decode()
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)))
    return found


def test_every_metric_is_documented() -> None:
    """The runbook's table has a row for each metric and label, and what is exposed under our name is declared."""
    page = (ROOT / "ops/RUNBOOK.md").read_text()
    for one in DECLARED:
        assert f"| `{one.name}` | {one.kind} |" in page, one.name
        assert one.about
    for label in LABELS:
        assert f"| `{label}` |" in page, label
    known = {name for one in DECLARED for name in one.series} | {f"{one.name}_created" for one in DECLARED}
    assert {name for name in series() if name.startswith("milepost_")} <= known


def test_every_label_is_bounded() -> None:
    """Each label has a closed list or a bound, and what comes from outside of it is shown as `other`."""
    assert all(label.bound > 0 for label in LABELS.values())
    assert {name for one in DECLARED for name in one.labels} == LABELS.keys()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", STRANGE], env=env, capture_output=True, text=True, check=True)
    shown = series(done.stdout)
    assert {"leg": "record", "fate": OTHER} in shown["milepost_records_total"]
    assert {"route": "/v1/status", "method": OTHER, "status": OTHER} in shown["milepost_http_answers_total"]
    for name, found in shown.items():
        for labels in found if name.startswith("milepost_") else ():
            for label, value in labels.items():
                closed = LABELS[label].values if label in LABELS else ()
                assert not closed or value in closed, (name, label, value)


def test_sources_are_shown_up_to_their_bound_and_forgotten() -> None:
    """Of ten thousand sources five hundred are shown; what nobody defines any more is gone at the next scrape."""
    many = {("acme", f"source-{number:05}"): (1.0, 60.0) for number in range(10_000)}
    telemetry.observe(Observed(sources=many))
    assert len(series()["milepost_source_heard_timestamp_seconds"]) == telemetry.SOURCES_MAX
    assert len(series()["milepost_source_awaited_seconds"]) == telemetry.SOURCES_MAX
    telemetry.observe(Observed(sources={("acme", "tickets"): (2.0, None)}))
    shown = series()
    assert shown["milepost_source_heard_timestamp_seconds"] == [{"org": "acme", "source": "tickets"}]
    assert "milepost_source_awaited_seconds" not in shown
    telemetry.observe(Observed())
    assert "milepost_source_heard_timestamp_seconds" not in series()


def test_a_breach_is_a_one_and_a_kept_promise_a_zero() -> None:
    """Of each source that promises something every kind is shown, up to the bound; who watches no more shows none."""
    telemetry.observe(Observed(lasting={("acme", "tickets"): ["stale"], ("acme", "calls"): []}))
    shown = telemetry.exposition().decode()
    kinds = LABELS["breach"].values
    assert len(series()["milepost_source_breach"]) == 2 * len(kinds)
    for kind in kinds:
        value = 1.0 if kind == "stale" else 0.0
        assert f'milepost_source_breach{{breach="{kind}",org="acme",source="tickets"}} {value}' in shown
    telemetry.observe(Observed(lasting={("acme", f"s{number:05}"): [] for number in range(10_000)}))
    assert len(series()["milepost_source_breach"]) == telemetry.SOURCES_MAX * len(kinds)
    telemetry.observe(Observed())
    assert "milepost_source_breach" not in series()


def test_fates_are_the_line_s() -> None:
    """Legs and stages are those of the line, each fate has a stage of its leg, and all reasons and drops are there."""
    assert list(FATES) == [spec.name for spec in line.LEGS]
    for spec in line.LEGS:
        assert {one.stage for one in FATES[spec.name].values()} <= set(spec.stages), spec.name
        assert {f"dead:{reason}" for reason in REASONS} <= FATES[spec.name].keys()
    assert {one for fates in FATES.values() for one in fates} >= DROPS
    assert all(one.name == name and one.about for fates in FATES.values() for name, one in fates.items())


def test_what_the_code_counts_is_a_fate() -> None:
    """Every name that a stage counts in a fold stands in the list, and nothing else does."""
    counted: set[str] = set()
    for path in [*(ROOT / "topology").glob("*.py"), *(ROOT / "agents").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "count":
                of = node.func.value
                if isinstance(of, ast.Name) and of.id == "out" and node.args:
                    counted |= _texts(node.args[0])
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                of = node.value
                if isinstance(of, ast.Attribute) and of.attr == "fates" and isinstance(node.slice.value, str):
                    counted.add(node.slice.value)
    listed = {one for fates in FATES.values() for one in fates if not one.startswith("dead")}
    assert {one for one in counted if not one.startswith("dead")} == listed
    assert {one for one in counted if one.startswith("dead")} == {"dead:", "dead_pair:"}


def _texts(node: ast.expr) -> set[str]:
    """The texts that an argument may be; of one with values in it, its beginning."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.JoinedStr):
        return _texts(node.values[0])
    if isinstance(node, ast.IfExp):
        return _texts(node.body) | _texts(node.orelse)
    return {ast.unparse(node)}
