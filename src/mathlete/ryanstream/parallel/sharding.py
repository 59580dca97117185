"""Which part of every tensor a rank holds. Pure: knows shapes and names; knows nothing of processes.

Tensor parallelism in the manner of Megatron-LM (Shoeybi et al. 2019): query, key, value, gate and up products are
cut by output features, so each rank has whole heads; the output and down products by input features, so that the
ranks' results have to be summed; embedding table and head by vocabulary. Norms are kept whole by every rank.
Sharding happens where weights are read, so everything behind it (precisions, cache) is the same for a shard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mathlete.core.errors import ModelError
from mathlete.ryanstream.checkpoint.source import TokenizerSpec, WeightSource
from mathlete.ryanstream.model.config import ModelConfig

# Rows of a vocabulary shard come in multiples of it, as the kernels' panels like them.
_VOCABULARY_ROWS = 16

_QUERY = re.compile(r"\.q_proj\.(weight|bias)$")
_KEY_VALUE = re.compile(r"\.[kv]_proj\.(weight|bias)$")
_BY_OUTPUT = re.compile(r"\.(gate|up)_proj\.(weight|bias)$")
_BY_INPUT = re.compile(r"\.(o|down)_proj\.weight$")
_SUMMED_BIAS = re.compile(r"\.(o|down)_proj\.bias$")
_BY_VOCABULARY = re.compile(r"^(model\.embed_tokens|lm_head)\.weight$")
_WHOLE = re.compile(r"norm\.weight$")


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a model.

    Attributes:
        rank: 0 .. world - 1; rank 0 is the engine's own process.
        world: ranks that hold the model together.
    """

    rank: int
    world: int

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.world < 1:
            raise ValueError(f"Shard.world must be >= 1, not {self.world}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"Shard.rank must be in 0..{self.world - 1}, not {self.rank}")

    def __str__(self) -> str:
        """As it stands in file names: "0of2"."""
        return f"{self.rank}of{self.world}"

    def part(self, size: int) -> slice:
        """This rank's part of `size` things that the world size divides."""
        width = size // self.world
        return slice(self.rank * width, (self.rank + 1) * width)


def workable_sizes(config: ModelConfig) -> tuple[int, ...]:
    """All numbers of ranks that a model can be cut into, 1 included."""
    return tuple(world for world in range(1, config.num_heads + 1) if _divides(config, world))


def _divides(config: ModelConfig, world: int) -> bool:
    heads, kv_heads = config.num_heads, config.num_kv_heads
    whole_groups = kv_heads % world == 0 or world % kv_heads == 0
    return heads % world == 0 and whole_groups and config.intermediate_size % world == 0


def shard_config(config: ModelConfig, shard: Shard) -> ModelConfig:
    """The shape of one rank's part: fewer heads, a narrower feed-forward layer.

    With more ranks than key/value heads each rank has one of them, which several ranks then share.

    Raises:
        ModelError: when the model cannot be cut into so many parts; says which numbers work.
    """
    if not _divides(config, shard.world):
        raise ModelError(
            f"a model with {config.num_heads} heads, {config.num_kv_heads} key/value heads and feed-forward width "
            f"{config.intermediate_size} cannot be cut into {shard.world} parts; tensor_parallel can be "
            f"{', '.join(map(str, workable_sizes(config)))}"
        )
    return replace(
        config,
        vocab_size=vocabulary_rows(config.vocab_size, shard.world),
        num_heads=config.num_heads // shard.world,
        num_kv_heads=max(1, config.num_kv_heads // shard.world),
        intermediate_size=config.intermediate_size // shard.world,
    )


def vocabulary_rows(vocab_size: int, world: int) -> int:
    """Rows of the embedding table that a rank holds; the last rank's are filled up with zeros."""
    return -(-vocab_size // (world * _VOCABULARY_ROWS)) * _VOCABULARY_ROWS


class ShardedSource:
    """A `WeightSource` that gives one rank's part of another's tensors."""

    def __init__(self, source: WeightSource, shard: Shard) -> None:
        """Wrap `source`. Raises `ModelError` when it cannot be cut so."""
        self._source = source
        self._shard = shard
        self._whole = source.config
        self.config = shard_config(source.config, shard)

        self.path = source.path

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of this rank's part."""
        whole = self._source.shape(name)
        return None if whole is None else tuple(self._part(name, torch.empty(whole, device="meta")).shape)

    def read(self, name: str) -> Tensor:
        """This rank's part of a tensor, contiguous."""
        return self._part(name, self._source.read(name)).contiguous()

    def tokenizer(self) -> TokenizerSpec:
        """The whole model's."""
        return self._source.tokenizer()

    def _part(self, name: str, tensor: Tensor) -> Tensor:
        shard = self._shard
        if _QUERY.search(name) or _BY_OUTPUT.search(name):
            return tensor[shard.part(tensor.shape[0])]
        if _KEY_VALUE.search(name):
            return tensor[self._key_value_rows()]
        if _BY_INPUT.search(name):
            return tensor[:, shard.part(tensor.shape[1])]
        if _SUMMED_BIAS.search(name):  # the ranks' products are summed, so one of them brings the bias
            return tensor if shard.rank == 0 else torch.zeros_like(tensor)
        if _BY_VOCABULARY.search(name):
            rows = vocabulary_rows(tensor.shape[0], shard.world)
            part = tensor[shard.rank * rows : (shard.rank + 1) * rows]
            return F.pad(part, (0, 0, 0, rows - part.shape[0]))
        if _WHOLE.search(name):
            return tensor
        raise ModelError(f"tensor parallelism does not know how to cut {name}; run this model with tensor_parallel=1")

    def _key_value_rows(self) -> slice:
        """Rows of this rank's key/value heads: an equal part, or one head that several ranks have."""
        kv_heads, head_dim = self._whole.num_kv_heads, self._whole.head_dim
        first = self._shard.rank * kv_heads // self._shard.world
        return slice(first * head_dim, (first + self.config.num_kv_heads) * head_dim)
