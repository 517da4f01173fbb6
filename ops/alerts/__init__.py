"""Alerts: when an operator is told, what it means, what to do; declared here, written everywhere else.

    ALERTS -> ops/alerts.yml (Prometheus' rules) · ops/alerts_test.yml (promtool's tests) · the sections of RUNBOOK.md

`make docs` writes all three (rules.py).
"""

from typing import Final

from milepost.ops.alerts.alert import Alert
from milepost.ops.alerts.of_line import OF_LINE
from milepost.ops.alerts.of_worker import OF_WORKER

ALERTS: Final[tuple[Alert, ...]] = (*OF_WORKER, *OF_LINE)

__all__ = ["ALERTS", "Alert"]
