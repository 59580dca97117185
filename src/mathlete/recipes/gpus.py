"""Whether the engines of a recipe fit the GPUs of its machines: by number, and by parts of their memory.

An engine in process takes the first GPUs that it sees, as many as its layout asks for; so engines of one recipe share
GPUs, and what they take of each must add up to the whole of it at most. Whether a model fits is `planning`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mathlete.generators.vllm_settings import VLLMSettings
from mathlete.planning.hardware import Hardware
from mathlete.run_config import EngineSpec


def num_gpus(engine: EngineSpec) -> int:
    """GPUs that an engine takes on this machine and those beside it: a server's are its own."""
    settings: Mapping[str, object] = engine.settings
    if engine.type == "vllm":
        vllm = VLLMSettings(**engine.settings)
        return vllm.tensor_parallel_size * vllm.pipeline_parallel_size
    if engine.type == "ryanstream" and str(settings.get("device", "cpu")).startswith("cuda"):
        return int(str(settings.get("tensor_parallel", 1)))
    return 0


def what_does_not_fit(engines: Sequence[EngineSpec], machines: Hardware) -> tuple[str, str] | None:
    """The first engine that does not fit, and why in numbers; None when all do."""
    total = machines.num_gpus
    there = f"{total} (count {machines.count}, hosts {machines.hosts})"
    taken: list[tuple[int, float, str]] = []
    for engine in engines:
        num = num_gpus(engine)
        if num > total:
            return engine.name, f"its layout takes {num} GPUs, and [hardware] has {there}"
        if engine.type != "vllm":
            continue
        settings = VLLMSettings(**engine.settings)
        if num > machines.count and settings.distributed_executor_backend != "ray":
            return engine.name, (
                f"its layout takes {num} GPUs, and a host has {machines.count}: for several hosts say "
                'distributed_executor_backend = "ray"'
            )
        taken.append((num, settings.gpu_memory_utilization, engine.name))
        part = sum(part for _, part, _ in taken)
        if part > 1 + 1e-9:  # all of them take the first GPU
            several = " + ".join(f"{part:g} ({name})" for _, part, name in taken)
            return engine.name, (
                f"engines share the first GPUs, and their gpu_memory_utilization adds up to {several} = {part:g}, "
                "which is more than 1: give each a part, such as 0.45"
            )
    return None
