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


def memory_in_use(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> float:
    """Share of the memory that cannot be had without taking it from somebody, of the tighter of machine and group.

    Files in the page cache (mapped weights among them) count as free: the system drops them when it needs room.
    """
    entries = dict(line.split(":", 1) for line in _read(meminfo).splitlines() if ":" in line)
    shares = [0.0]
    if {"MemTotal", "MemAvailable"} <= entries.keys():
        total, available = (int(entries[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        shares.append(1 - available / total)
    limit, current = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit.isdigit() and current.isdigit() and int(limit) > 0:
        lines = (line.split() for line in _read(cgroup / "memory.stat").splitlines())
        files = sum(int(size) for name, size in lines if name in ("inactive_file", "active_file"))
        shares.append((int(current) - files) / int(limit))
    return max(shares)


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself, or nothing."""
    lines = (line.partition(":") for line in _read(cpuinfo).splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == "model name"), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # no such limit here
        return ""
