"""What this process may use of the machine: cores and memory, a container's limits included. Linux."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may run on, and no more than the control group's share of processor time (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def available_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Physical memory, and no more than the control group's limit (cgroup v2)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(cgroup / "memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # no such limit here
        return ""
