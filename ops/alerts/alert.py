"""Alert: what an alert is, and the words that several have in common.

Each is tried on a sound history and on a fault (promtool's notation, a sample a minute): it must be silent in the one
and fire in the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

TRIED_MIN: Final = 90
"""Length of a trial, minutes; the alert is looked at on its end."""

W: Final = 'job="milepost", instance="worker-1:6066"'
INSTANCE: Final = {"job": "milepost", "instance": "worker-1:6066"}
DOCTOR: Final = "`milepost doctor`, which looks at disk, broker, topics, secret and worker, each with its fix"
LOG: Final = "the worker's log: `$MILEPOST_HOME/log/` under `milepost up`, `docker compose logs worker` in compose"


def flat(value: float) -> str:
    return f"{value}+0x{TRIED_MIN}"


def rising(each: float) -> str:
    return f"0+{each}x{TRIED_MIN}"


def begun(value: float) -> str:
    """Nothing, and `value` from the last ten minutes on."""
    return f"0+0x{TRIED_MIN - 10} {value}+0x10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert.

    expr, hold_min: fires when `expr` gives anything for so many minutes
    summary:        a line, with Prometheus' `{{ $labels.leg }}`
    means, look, do: its section in the runbook
    sound, fault:   series -> values; labels: of the alert that the fault fires, beside its severity
    """

    name: str
    severity: Literal["page", "ticket"]
    expr: str
    hold_min: int
    summary: str
    means: str
    look: tuple[str, ...]
    do: tuple[str, ...]
    sound: Mapping[str, str]
    fault: Mapping[str, str]
    labels: Mapping[str, str]
