"""Limits that a worker process sets on itself, for when nobody is left to kill it. Knows the system's limits only."""

from __future__ import annotations

import resource

MAX_MEMORY_BYTES = 2 << 30
MAX_CPU_S = 20
"""Processor time of one job."""


def limit_this_process() -> None:
    """No core files, no files at all, and no more memory than `MAX_MEMORY_BYTES`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _lower(resource.RLIMIT_FSIZE, 0)


def limit_processor_time() -> None:
    """Give the job that begins `MAX_CPU_S` from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + MAX_CPU_S)


def _lower(limit: int, value: int) -> None:
    """Set the soft limit of this process, within its hard one."""
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
