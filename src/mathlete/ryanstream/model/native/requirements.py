"""What the native kernels need of a machine. Imports no torch, so that it can be asked before anything is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NEEDED_CPU_FLAGS = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"})


def why_unavailable(cpu_flags: frozenset[str]) -> str | None:
    """Why they cannot run on a processor with these flags, or None. A compiler is asked for apart (`find_compiler`)."""
    if os.environ.get("MATHLETE_NATIVE") == "0":
        return "turned off by MATHLETE_NATIVE=0"
    missing = NEEDED_CPU_FLAGS - cpu_flags
    return f"this processor lacks {', '.join(sorted(missing))}" if missing else None


def read_cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets of this processor, as Linux names them; empty where that cannot be told."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())


def find_compiler() -> str | None:
    """The C++ compiler: $CXX, g++ or clang++."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
