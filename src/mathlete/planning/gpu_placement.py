"""Which engines lie on which GPUs, and how full those are. Pure arithmetic.

Engines in process take the first GPUs that they see, as many as their layout asks for; so the engines of a recipe
share the first GPUs, and what they claim there must fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.planning.engine_plan import EnginePlan
from mathlete.planning.hardware import Hardware


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """One accelerator.

    Attributes:
        host: from 0.
        index: on its host, from 0.
        engines: names of those that lie here.
        claimed: bytes that they claim.
        memory: bytes that there are.
    """

    host: int
    index: int
    engines: tuple[str, ...]
    claimed: float
    memory: float

    @property
    def fits(self) -> bool:
        """Whether they fit together."""
        return self.claimed <= self.memory * (1 + 1e-9)


def place(plans: Sequence[EnginePlan], hardware: Hardware) -> tuple[GpuLoad, ...]:
    """Every accelerator of the machines with what lies on it."""
    loads = []
    for number in range(hardware.num_gpus):
        here = [plan for plan in plans if number < plan.engine.layout.num_gpus]
        loads.append(
            GpuLoad(
                host=number // hardware.count,
                index=number % hardware.count,
                engines=tuple(plan.engine.name for plan in here),
                claimed=sum(plan.memory.claimed for plan in here),
                memory=hardware.accelerator.memory_bytes,
            )
        )
    return tuple(loads)


def placement_problems(plans: Sequence[EnginePlan], loads: Sequence[GpuLoad], hardware: Hardware) -> tuple[str, ...]:
    """Why the engines do not fit on these machines together; empty when they do."""
    found = []
    for plan in plans:
        layout = plan.engine.layout
        if layout.num_gpus > hardware.num_gpus:
            found.append(
                f"{plan.engine.name} takes {layout.num_gpus} GPUs, and there are {hardware.num_gpus} "
                f"({hardware.hosts} x {hardware.count})"
            )
        elif layout.tensor_parallel > hardware.count:
            found.append(
                f"{plan.engine.name} shares its layers over {layout.tensor_parallel} GPUs, and a host has "
                f"{hardware.count}: between hosts use pipeline parallelism"
            )
    for load in loads:
        if not load.fits:
            found.append(
                f"GPU {load.index} of host {load.host}: {' and '.join(load.engines)} claim {load.claimed / 1e9:.1f} GB "
                f"together, and there are {load.memory / 1e9:.1f} GB"
            )
            break
    return tuple(found)


def engines_beside(plan: EnginePlan, loads: Sequence[GpuLoad]) -> int:
    """Engines on the same GPUs, this one counted: each gets about that part of them while all work."""
    return max((len(load.engines) for load in loads if plan.engine.name in load.engines), default=1)
