"""Which prefixes requests have in common. Pure comparison of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.request import EngineRequest


def sibling_is_ahead(tokens: Sequence[int], num_found: int, running: Iterable[EngineRequest]) -> bool:
    """Whether a running request is about to compute more of this prefix than the `num_found` tokens in the cache."""
    return any(
        num_found < (common := common_blocks(tokens, other.prompt_ids)) and other.num_computed < common
        for other in running
        if other.num_computed < len(other.prompt_ids)
    )


def common_blocks(tokens: Sequence[int], others: Sequence[int]) -> int:
    """Tokens in whole blocks that both start with."""
    common = 0
    for ours, theirs in zip(tokens, others, strict=False):
        if ours != theirs:
            break
        common += 1
    return common // BLOCK_SIZE * BLOCK_SIZE
