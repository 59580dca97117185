"""What the ranks of a tensor-parallel group do together, on PyTorch's own collectives: gloo on the CPU, NCCL on CUDA.

Each group is an object of its own and not torch's process-wide default group, so several engines, or an engine and a
training run, can live in one process. Knows tensors and ranks; knows nothing of models or of how processes begin.

The NCCL path follows the same calls but has not been run or measured on a GPU yet.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store, TCPStore

from mathlete.ryanstream.parallel.sharding import Shard

_HOST = "127.0.0.1"


class CollectiveFailed(Exception):
    """A peer is gone or does not answer. Never leaves this room: who knows the processes says what happened."""


class RankGroup:
    """The ranks that hold one model, seen from one of them.

    Attributes:
        shard: which of them this is.
    """

    def __init__(self, shard: Shard, backend: Any, in_order: bool = False) -> None:
        """Wrap a connected `torch.distributed` backend; see `connect`.

        With more than two ranks, the backend's own sum adds in an order that depends on the size of the tensor, so a
        row's last bits can depend on how many others are computed with it. `in_order` adds in the order of the ranks,
        at the price of more traffic.
        """
        self.shard = shard
        self._backend = backend
        self._in_order = in_order and shard.world > 2  # two numbers have one sum

    def sum_(self, x: Tensor) -> Tensor:
        """Add up all ranks' `x`, in place, on every rank."""
        if not x.numel():
            return x
        if not self._in_order:
            self._wait("allreduce", [x])
            return x
        parts = [torch.empty_like(x) for _ in range(self.shard.world)]
        self._wait("allgather", [parts], [x])
        x.copy_(parts[0])
        for part in parts[1:]:
            x += part
        return x

    def gather_columns(self, x: Tensor) -> Tensor:
        """All ranks' x [R, n] side by side, [R, world * n], on rank 0; on the others `x` itself."""
        leads = self.shard.rank == 0
        parts = [torch.empty_like(x) for _ in range(self.shard.world)] if leads else []
        if x.numel():
            self._wait("gather", [parts] if leads else [], [x])
        return torch.cat(parts, dim=1) if leads else x

    def abort(self) -> None:
        """Let this rank out of a call that the others will never join (NCCL waits on the device, without end)."""
        self._backend.abort()

    def _wait(self, call: str, *tensors: object) -> None:
        try:
            getattr(self._backend, call)(*tensors).wait()
        except RuntimeError as error:  # what torch raises for a lost connection and for a time-out alike
            raise CollectiveFailed(str(error).splitlines()[0]) from error


class Rendezvous:
    """Where the ranks find each other: a store in rank 0's process, on a free port of this machine only."""

    def __init__(self, timeout_s: float) -> None:
        """Open it. Ranks have `timeout_s` to join once they try."""
        self._timeout = timedelta(seconds=timeout_s)
        self.store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False, timeout=self._timeout)

    @property
    def port(self) -> int:
        """For `join`."""
        return self.store.port


def join(port: int, timeout_s: float) -> Store:
    """Another process's `Rendezvous`."""
    return TCPStore(_HOST, port, is_master=False, timeout=timedelta(seconds=timeout_s))


def connect(store: Store, shard: Shard, device: torch.device, timeout_s: float, in_order: bool = False) -> RankGroup:
    """Meet the other ranks; returns when all are there.

    Args:
        store: of rank 0's `Rendezvous`.
        shard: who this is.
        device: where the tensors are that will be summed.
        timeout_s: seconds a call may wait for the other ranks.
        in_order: see `RankGroup`.

    Raises:
        CollectiveFailed: when not all came in time.
    """
    timeout = timedelta(seconds=timeout_s)
    try:
        backend = _nccl(store, shard, timeout, device) if device.type == "cuda" else _gloo(store, shard, timeout)
        group = RankGroup(shard, backend, in_order)
        group.sum_(torch.zeros(1, device=device))
    except RuntimeError as error:
        raise CollectiveFailed(str(error).splitlines()[0]) from error
    return group


def _gloo(store: Store, shard: Shard, timeout: timedelta) -> Any:
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=_HOST)]  # not reachable, nor dependent on names, from outside
    return gloo(store, shard.rank, shard.world, options)


def _nccl(store: Store, shard: Shard, timeout: timedelta, device: torch.device) -> Any:
    torch.cuda.set_device(device)
    # torch would end the whole process when a peer is lost; here only the communicator is given up
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = timeout
    return nccl(store, shard.rank, shard.world, options)
