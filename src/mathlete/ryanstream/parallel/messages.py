"""What rank 0 and the other ranks' processes say to each other over their connection. Plain data.

Rank 0 says Assignment, then CacheSize, then Step, CopyBlocks, MoveSlots, ExportBlocks and ImportBlocks in the order in
which it does them itself; the end of the connection ends the rank. A rank says Started, then Loaded, an Exported for
each ExportBlocks, and Failed at any time.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from mathlete.ryanstream.kv_cache import BlockCopy, SlotMove
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.parallel.sharding import Shard


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a process is to do.

    Attributes:
        shard: its rank.
        device: where its tensors are.
        port: of rank 0's `Rendezvous`.
        join_timeout_s: seconds for all ranks to find each other.
        in_order: see `RankGroup`.
        task: what to load; the loader's business.
    """

    shard: Shard
    device: torch.device
    port: int
    join_timeout_s: float
    in_order: bool
    task: object


@dataclass(frozen=True, slots=True)
class Started:
    """The process runs and is about to join the others."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Its part of the model is ready."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The process cannot go on and ends; `text` is for a person."""

    text: str


@dataclass(frozen=True, slots=True)
class CacheSize:
    """KV blocks that every rank has, so that block ids mean the same everywhere."""

    num_blocks: int


@dataclass(frozen=True, slots=True)
class Step:
    """Compute a batch: the fields of a `ForwardBatch`, tensors as numpy arrays, which pickle several times faster."""

    fields: Mapping[str, Any]

    @staticmethod
    def pack(batch: ForwardBatch) -> Step:
        """The message for a batch on any device."""
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return Step({name: v.cpu().numpy() if isinstance(v, Tensor) else v for name, v in values.items()})

    def unpack(self, device: torch.device) -> ForwardBatch:
        """The batch again, on `device`."""
        arrays = {name: value for name, value in self.fields.items() if hasattr(value, "__array__")}
        return ForwardBatch(**{**self.fields, **{name: torch.from_numpy(a).to(device) for name, a in arrays.items()}})


@dataclass(frozen=True, slots=True)
class CopyBlocks:
    """Copy KV blocks, one after another."""

    copies: tuple[BlockCopy, ...]


@dataclass(frozen=True, slots=True)
class MoveSlots:
    """Move keys and values of single tokens, one after another."""

    moves: tuple[SlotMove, ...]


@dataclass(frozen=True, slots=True)
class ExportBlocks:
    """Answer with what these KV blocks hold."""

    block_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """This rank's tensors of the blocks, see `block_tensors.export_blocks`."""

    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ImportBlocks:
    """Write these tensors into KV blocks."""

    block_ids: tuple[int, ...]
    tensors: Mapping[str, Tensor]


def send_message(connection: Connection, message: object) -> None:
    """Plain pickle: the connection's own would put tensors into shared memory, one file descriptor each."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive_message(connection: Connection) -> object:
    """The next message, whenever it comes. Raises `EOFError` when the other side is gone."""
    message: object = pickle.loads(connection.recv_bytes())
    return message
