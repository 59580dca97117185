"""Builds and loads the native kernels (the C++ files beside it).

Knows compilers and shared libraries; knows nothing of what the kernels compute. Where they cannot be had (no
compiler, another processor) `load_kernels` says why and the torch twins run.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.native.requirements import find_compiler, read_cpu_flags, why_unavailable

_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-pthread")
_SOURCES = (
    "activations.cpp", "attention.cpp", "bf16.cpp", "int4.cpp", "int8.cpp", "sampling.cpp", "common.h", "worker_pool.h",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelsUnavailable:
    """Why the native kernels do not run here."""

    reason: str


def load_kernels(cache_dir: Path) -> NativeKernels | KernelsUnavailable:
    """Load the kernels, compiling them into `cache_dir` the first time (a few seconds).

    `MATHLETE_NATIVE=0` turns them off. The file name carries a hash of source, flags, processor and
    platform, so another machine on the same home builds its own.
    """
    cpu_flags = read_cpu_flags()
    if (reason := why_unavailable(cpu_flags)) is not None:
        return KernelsUnavailable(reason)
    sources = {name: resources.files(__package__).joinpath(name).read_bytes() for name in _SOURCES}
    machine = " ".join((*_FLAGS, *sorted(cpu_flags), platform.platform())).encode()
    key = hashlib.sha256(b"".join(sources.values()) + machine)
    library = cache_dir / f"kernels-{key.hexdigest()[:16]}.so"
    if not library.exists():
        failure = _compile(sources, library)
        if failure:
            return KernelsUnavailable(failure)
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        return KernelsUnavailable(f"{library} cannot be loaded: {error}")
    return NativeKernels(loaded, library.stem)


def _compile(sources: Mapping[str, bytes], library: Path) -> str | None:
    """Build the library atomically; the reason when that fails."""
    compiler = find_compiler()
    if compiler is None:
        return "no C++ compiler (g++) was found"
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            path = Path(folder)
            for name, content in sources.items():
                (path / name).write_bytes(content)
            units = [str(path / name) for name in sources if name.endswith(".cpp")]
            command = [compiler, *_FLAGS, "-shared", *units, "-o", str(path / "kernels.so")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                return f"{compiler} failed: {done.stderr.strip()[-500:]}"
            os.replace(path / "kernels.so", library)
    except (OSError, subprocess.SubprocessError) as error:
        return f"building the kernels failed: {error}"
    return None
