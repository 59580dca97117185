"""Tensor-parallel groups beside each other: who belongs to which, and which of them gets a request. Pure bookkeeping.

A *replica* is one tensor-parallel group with a whole model; replicas share nothing. The mesh is [replicas, ranks],
ranks next to each other, so that the ranks of a replica are neighbours on the machine's bus.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from mathlete.core.errors import EngineError
from mathlete.ryanstream.parallel.sharding import Shard


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands in the mesh: its replica, and its part of the replica's model."""

    replica: int
    shard: Shard


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """All processes (or GPUs) of a run.

    Attributes:
        num_processes: how many there are.
        tensor_parallel: how many of them hold one model together.
    """

    num_processes: int
    tensor_parallel: int

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the field that is out of range or does not divide."""
        for name in ("num_processes", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"ParallelLayout.{name} must be >= 1, not {getattr(self, name)}")
        if self.num_processes % self.tensor_parallel:
            raise ValueError(
                f"ParallelLayout.num_processes ({self.num_processes}) must be a multiple of "
                f"tensor_parallel ({self.tensor_parallel})"
            )

    @property
    def num_replicas(self) -> int:
        """Whole models that run beside each other."""
        return self.num_processes // self.tensor_parallel

    def place(self, process: int) -> Place:
        """Where process 0 .. num_processes - 1 stands."""
        if not 0 <= process < self.num_processes:
            raise ValueError(f"process must be in 0..{self.num_processes - 1}, not {process}")
        replica, rank = divmod(process, self.tensor_parallel)
        return Place(replica, Shard(rank, self.tensor_parallel))

    def processes(self, replica: int) -> range:
        """The processes of a replica, by rank."""
        if not 0 <= replica < self.num_replicas:
            raise ValueError(f"replica must be in 0..{self.num_replicas - 1}, not {replica}")
        return range(replica * self.tensor_parallel, (replica + 1) * self.tensor_parallel)


def rank_devices(first: torch.device, world: int) -> list[torch.device]:
    """Where each rank of one model has its tensors: all on the CPU, or each on a GPU of its own, `first` and up."""
    if first.type == "cpu":
        return [first] * world
    return [torch.device(first.type, (first.index or 0) + rank) for rank in range(world)]


class ReplicaRouter:
    """Sends requests to replicas: siblings to where their prompt's KV blocks are, everything else to the least loaded.

    A group outgrows its replica when all `slots` of it are taken: waiting for a slot would cost more than computing
    the prompt once more, so the group gets the least loaded replica besides, and its requests go to either.
    """

    def __init__(self, num_replicas: int, slots: int) -> None:
        """`slots` is the number of requests that a replica computes at once (`EngineConfig.max_running`)."""
        for name, value in (("num_replicas", num_replicas), ("slots", slots)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, not {value}")
        self._slots = slots
        self._loads = [0] * num_replicas
        self._replica_of: dict[str, int] = {}
        self._homes: dict[str, list[int]] = {}

    @property
    def loads(self) -> tuple[int, ...]:
        """Unfinished requests of each replica."""
        return tuple(self._loads)

    def route(self, request_id: str, group: str | None = None) -> int:
        """The replica for a new request. Raises `EngineError` when the id is in use."""
        if request_id in self._replica_of:
            raise EngineError(f"request id {request_id!r} is in use")
        replica = self._least_loaded(range(len(self._loads)))
        if group is not None:
            homes = self._homes.setdefault(group, [replica])
            home = self._least_loaded(homes)
            if self._loads[home] < self._slots or self._loads[home] <= self._loads[replica]:
                replica = home
            else:
                homes.append(replica)
        self._replica_of[request_id] = replica
        self._loads[replica] += 1
        return replica

    def finish(self, request_id: str) -> None:
        """A request has ended. Its group keeps its home: the next turn of an attempt finds its blocks there."""
        self._loads[self._replica_of.pop(request_id)] -= 1

    def forget(self, group: str) -> None:
        """No more requests of this group will come (its problem is solved). Unknown names are ignored."""
        self._homes.pop(group, None)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless the loads are those of the unfinished requests."""
        counted = Counter(self._replica_of.values())
        assert self._loads == [counted[i] for i in range(len(self._loads))], "loads differ from the requests"
        assert all(len(set(homes)) == len(homes) > 0 for homes in self._homes.values()), "a group's home is twice"

    def _least_loaded(self, replicas: range | list[int]) -> int:
        return min(replicas, key=lambda replica: self._loads[replica])
