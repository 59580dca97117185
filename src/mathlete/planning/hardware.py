"""Named machines: what an accelerator's memory holds, how fast it is read, and what it multiplies. Facts from a file.

`hardware.toml` has one table an accelerator, with the data sheet it is from. Peaks are dense, without sparsity.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from mathlete.core.errors import InputError
from mathlete.planning.weight_formats import Compute

GB = 1e9
GIB = float(1 << 30)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU, or a machine's CPU as the embedded engine uses it.

    Attributes:
        name: as recipes call it.
        title: as its maker calls it.
        memory_gib: GiB that a program sees, which is less than what is sold.
        bandwidth_gb_per_s: 10^9 bytes of memory read a second.
        peak_tflops: 10^12 operations a second of dense products by kind of number; a missing kind runs as bf16.
        link_gb_per_s: 10^9 bytes a second to a neighbour, one way; 0 where there is none.
        link_latency_us: microseconds of an all-reduce of nothing. Judged, not measured here.
        is_cpu: whether it is a CPU.
        source: of these figures.
    """

    name: str
    title: str
    memory_gib: float
    bandwidth_gb_per_s: float
    peak_tflops: Mapping[str, float]
    link_gb_per_s: float = 0.0
    link_latency_us: float = 0.0
    is_cpu: bool = False
    source: str = ""

    @property
    def memory_bytes(self) -> float:
        """Memory that a program sees."""
        return self.memory_gib * GIB

    def peak_ops(self, compute: Compute) -> float:
        """Operations a second at best in these numbers; where it has none of them, in bf16."""
        return self.peak_tflops.get(compute, self.peak_tflops["bf16"]) * 1e12


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a recipe runs on.

    Attributes:
        accelerator: what kind.
        count: of them in each host.
        hosts: of that kind.
        host_link_gb_per_s: 10^9 bytes a second between hosts, one way.
    """

    accelerator: Accelerator
    count: int = 1
    hosts: int = 1
    host_link_gb_per_s: float = 12.5

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not self.host_link_gb_per_s > 0:
            raise ValueError(f"host_link_gb_per_s must be > 0, not {self.host_link_gb_per_s}")
        for name in ("count", "hosts"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ValueError(f"{name} must be from 1 to 4096, not {getattr(self, name)}")
        if self.accelerator.is_cpu and self.count > 1:
            raise ValueError("count must be 1 for a CPU: its cores are one accelerator")

    @property
    def num_gpus(self) -> int:
        """Accelerators of all hosts."""
        return self.count * self.hosts

    def with_count(self, count: int) -> Hardware:
        """The same hosts with so many accelerators each."""
        return replace(self, count=count)


@cache
def known_accelerators() -> Mapping[str, Accelerator]:
    """Every accelerator of `hardware.toml` by name."""
    text = files("mathlete.planning").joinpath("hardware.toml").read_text(encoding="utf-8")
    return {name: Accelerator(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def find_accelerator(name: str) -> Accelerator:
    """The accelerator of this name. Raises `InputError`, which lists those that are known."""
    found = known_accelerators().get(name.lower())
    if found is None:
        raise InputError(f"accelerator {name[:40]!r} is not known; known are {', '.join(known_accelerators())}")
    return found
