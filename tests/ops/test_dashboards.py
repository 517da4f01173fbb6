"""Dashboards: a row for each stage in the line's order, and nothing asked that nobody tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from milepost.ops import dashboards
from milepost.topology import line
from tests.support import prometheus

ROOT = Path(__file__).resolve().parents[2]
PANELS: list[dict[str, Any]] = json.loads((ROOT / "ops/grafana/dashboards/milepost.json").read_text())["panels"]


def test_each_stage_has_its_row_in_the_line_s_order() -> None:
    """Between the deployment and the answers there is one row a stage, as the line has them, each with panels."""
    titles = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    legs = [*line.LEGS, *line.ASKING]
    assert titles == [
        "The deployment",
        *(f"{leg.name} · {stage}" for leg in legs for stage in leg.stages),
        "Answers",
        "The workers",
    ]
    assert all(row.panels for row in dashboards.rows())


def test_the_dashboard_asks_for_what_the_worker_tells() -> None:
    """Every series and label of a panel is one that the telemetry declares."""
    asked = [(panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", ())]
    assert len(asked) >= 40
    for title, expression in asked:
        assert not prometheus.unknown(expression), title


@prometheus.needed
def test_prometheus_can_read_every_panel(tmp_path: Path) -> None:
    """Each expression parses: promtool takes them as the expressions of rules, and refuses one that is broken."""

    def checked(expressions: list[str]) -> int:
        rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions)]
        (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
        return prometheus.promtool("check", "rules", "--lint=none", "panels.yml", folder=tmp_path).returncode

    expressions = [expression for row in dashboards.rows() for panel in row.panels for expression, _ in panel.queries]
    assert checked(expressions) == 0
    assert checked([*expressions, "sum by (leg (up)"]) != 0


def test_panels_do_not_lie_over_each_other() -> None:
    """No two panels share a place, none is wider than the page, and ids are different."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= dashboards.WIDE
        place = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not place & taken, panel["title"]
        taken |= place
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
