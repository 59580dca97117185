"""What a model expects at every place of a given text (teacher forcing). For perplexity and comparisons of precisions.

Runs the engine's own model and kernels over a cache of its own, so the engine's is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.transformer import Transformer


def text_logits(
    model: Transformer, kv_dtype: torch.dtype, token_ids: Sequence[int], num_at_once: int = 128
) -> Iterator[Tensor]:
    """Logits float32 [n, V] of the next token after each token, in order, `num_at_once` tokens at a time.

    Raises:
        ValueError: when there are no tokens.
    """
    if not token_ids:
        raise ValueError("text_logits needs at least one token")
    num_blocks = -(-len(token_ids) // BLOCK_SIZE)
    cache = allocate_cache(model.config, num_blocks, kv_dtype)
    table = torch.arange(num_blocks, dtype=torch.int32)[None]
    for start in range(0, len(token_ids), num_at_once):
        ids = torch.tensor(token_ids[start : start + num_at_once])
        places = torch.arange(start, start + len(ids))
        batch = ForwardBatch(
            token_ids=ids,
            positions=places.int(),
            slots=places,  # block i holds the tokens from 16 i on
            row_seq=torch.zeros(len(ids), dtype=torch.int32),
            lengths=places.int() + 1,
            tables=table,
            logit_rows=torch.arange(len(ids)),
        )
        yield model.forward(batch, cache).logits
