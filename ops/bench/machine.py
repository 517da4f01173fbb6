"""Machine: what a figure was measured on, and what a process costs, from /proc."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from milepost.schemas.errors import DeclarationError, StoreError


def describe() -> dict[str, Any]:
    """Cores, processor, memory and system of this machine, and how busy it was with other work at the start."""
    return {
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "memory_gb": round(_kilobytes("/proc/meminfo", "MemTotal") / 1024**2, 1),
        "system": platform.platform(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def measurable() -> bool:
    """Whether a process's time can be read here."""
    return Path("/proc/self/stat").exists()


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used; DeclarationError where there is no /proc."""
    if not measurable():
        raise DeclarationError("a process's time is read from /proc, which is not here; fix: measure on Linux")
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError as error:
        raise StoreError(f"process {pid} has ended while it was measured") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; its greatest so far is `peak_mb`."""
    return round(_kilobytes(f"/proc/{pid}/status", "VmRSS") / 1024, 1)


def peak_mb(pid: int) -> float:
    """The most that a process has been resident with, in megabytes."""
    return round(_kilobytes(f"/proc/{pid}/status", "VmHWM") / 1024, 1)


def _kilobytes(path: str, name: str) -> int:
    value = _field(path, name)
    return int(value.split()[0]) if value else 0


def _field(path: str, name: str) -> str:
    file = Path(path)
    if not file.exists():
        return ""
    for line in file.read_text(errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""
