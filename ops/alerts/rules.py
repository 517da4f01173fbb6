"""Rules: the declared alerts as Prometheus reads them, as promtool tries them, as people read them.

ALERTS -> alerts.yml · alerts_test.yml · the sections of RUNBOOK.md          (`make docs` writes all three)
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import YAML

from milepost.ops.alerts import ALERTS, Alert
from milepost.ops.alerts.alert import TRIED_MIN

RUNBOOK: Final = "ops/RUNBOOK.md"
LOOKED_MIN: Final = 5
"""How often promtool evaluates the rules in a trial, minutes."""
_WRITTEN: Final = "# Written by `make docs` from ops/alerts: change that.\n"


def heading(alert: Alert) -> str:
    """The heading of an alert's section: `WorkerDown` is `Worker down`."""
    words = re.findall(r"[A-Z][a-z]*", alert.name)
    return " ".join([words[0], *(word.lower() for word in words[1:])])


def anchor(alert: Alert) -> str:
    """The address of its section, as renderers of Markdown make it of the heading."""
    return heading(alert).lower().replace(" ", "-")


def rules(alerts: Sequence[Alert] = ALERTS, *, at_once: bool = False) -> str:
    """Prometheus' rule file.  at_once: without the waiting, for tests."""
    made = [
        {
            "alert": one.name,
            "expr": one.expr,
            **({} if at_once else {"for": f"{one.hold_min}m"}),
            "labels": {"severity": one.severity},
            "annotations": {"summary": one.summary, "runbook_url": f"{RUNBOOK}#{anchor(one)}"},
        }
        for one in alerts
    ]
    return _WRITTEN + _yaml({"groups": [{"name": "milepost", "rules": made}]})


def trials(alerts: Sequence[Alert] = ALERTS) -> str:
    """promtool's tests: each alert over an hour and a half that is sound, and over one with its fault."""
    tests: list[dict[str, Any]] = []
    for one in alerts:
        for name, series, fires in (("sound", one.sound, False), ("fault", one.fault, True)):
            tests.append(
                {
                    "name": f"{one.name}: {name}",
                    "interval": "1m",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "alert_rule_test": [
                        {
                            "eval_time": f"{TRIED_MIN}m",
                            "alertname": one.name,
                            "exp_alerts": [_expected(one)] if fires else [],
                        }
                    ],
                }
            )
    return _WRITTEN + _yaml({"rule_files": ["alerts.yml"], "evaluation_interval": f"{LOOKED_MIN}m", "tests": tests})


def sections(alerts: Sequence[Alert] = ALERTS) -> str:
    """The alerts for people: a heading each, what it means, what to look at, what to do."""
    return "\n".join(_section(one) for one in alerts)


def _section(alert: Alert) -> str:
    lines = [
        f"### {heading(alert)}",
        "",
        f"`{alert.name}`, {alert.severity}, when for {alert.hold_min} min `{alert.expr}`",
        "",
        alert.means,
        "",
        "Look at:",
        "",
        *(f"* {one}" for one in alert.look),
        "",
        "Do:",
        "",
        *(f"* {one}" for one in alert.do),
    ]
    return "\n".join(lines) + "\n"


def _expected(alert: Alert) -> dict[str, Any]:
    summary = alert.summary
    for name, value in alert.labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    return {
        "exp_labels": {"severity": alert.severity, **alert.labels},
        "exp_annotations": {"summary": summary, "runbook_url": f"{RUNBOOK}#{anchor(alert)}"},
    }


def _yaml(data: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 4096  # an expression stays on one line, so that a search finds it
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()
