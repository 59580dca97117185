"""What each worker takes of a cluster: CPUs and GPUs, from the engines of the run. Pure arithmetic.

GPUs: as many as the embedded engine's ranks, or as vLLM's tensor and pipeline parallelism asks for, all engines of
the run together. Where vLLM places its own processes through Ray (`distributed_executor_backend = "ray"`, for a model
larger than a host), the worker takes none: they are vLLM's to reserve. CPUs: even shares, since all of them are there
to be used.
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.core.errors import InputError
from mathlete.run_config import EngineSpec, RunConfig


@dataclass(frozen=True, slots=True)
class Demand:
    """What one worker reserves.

    Attributes:
        num_cpus: of the cluster's; may be a fraction.
        num_gpus: whole ones.
        threads: that its embedded engine computes with.
    """

    num_cpus: float
    num_gpus: int
    threads: int


def demand_of(config: RunConfig, num_workers: int, cluster_cpus: float, cluster_gpus: float) -> Demand:
    """What each of `num_workers` takes of a cluster.

    Raises:
        InputError: the cluster has not as many GPUs as they need.
    """
    num_gpus = gpus_of(config) if cluster_gpus or not _may_be_cpu(config) else 0
    if num_gpus * num_workers > cluster_gpus:
        most = int(cluster_gpus // num_gpus)
        raise InputError(
            f"--num-workers {num_workers} needs {num_gpus * num_workers} GPUs ({num_gpus} a worker), and the cluster "
            f"has {cluster_gpus:g}: " + (f"use --num-workers {most}" if most else "use another recipe, or add hosts")
        )
    share = cluster_cpus / num_workers
    threads = config.threads or max(1, int(share))
    return Demand(min(share, float(threads)), num_gpus, threads)


def gpus_of(config: RunConfig) -> int:
    """GPUs of all engines of a run together."""
    if not config.engines:
        return config.tensor_parallel if config.device.startswith("cuda") else 0
    return sum(_gpus_of_engine(spec, config) for spec in config.engines)


def _gpus_of_engine(spec: EngineSpec, config: RunConfig) -> int:
    settings = spec.settings
    if spec.type == "ryanstream":
        device = settings.get("device", config.device)
        return int(settings.get("tensor_parallel", config.tensor_parallel)) if device.startswith("cuda") else 0
    if spec.type == "openai_server" or settings.get("distributed_executor_backend") == "ray":
        return 0
    return int(settings.get("tensor_parallel_size", 1)) * int(settings.get("pipeline_parallel_size", 1))


def _may_be_cpu(config: RunConfig) -> bool:
    """Whether all GPUs that are asked for are vLLM's: where there are none, its CPU build is meant."""
    others = [spec for spec in config.engines if spec.type != "vllm"]
    return bool(config.engines) and all(_gpus_of_engine(spec, config) == 0 for spec in others)
