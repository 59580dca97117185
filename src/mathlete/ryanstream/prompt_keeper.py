"""Between the prompt cache on disk and the KV cache in memory: brings prefixes in, writes new ones down.

Knows when; the cache on disk knows how, and the pool knows where in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, PrefixMatch
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.prompt_cache import MIN_PREFIX_TOKENS, PromptCache, StoredPrompt
from mathlete.ryanstream.request import EngineRequest, Status


class BlockStore(Protocol):
    """Whoever owns the KV tensors; see `block_tensors`."""

    def export_blocks(self, block_ids: Sequence[int]) -> dict[str, Tensor]:
        """What these blocks hold."""
        ...

    def import_blocks(self, block_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Write it back."""
        ...


class PromptKeeper:
    """Keeps the prefixes that requests ask to be kept."""

    def __init__(self, cache: PromptCache, pool: KVCacheManager, store: BlockStore) -> None:
        """Join the three."""
        self._cache = cache
        self._pool = pool
        self._store = store
        self._due: dict[tuple[int, ...], EngineRequest] = {}  # to be written once it is computed, and by whom

    def expect(self, request: EngineRequest, num_tokens: int) -> None:
        """A request is about to be queued whose first `num_tokens` (cut to whole blocks) are worth keeping.

        What is stored of them and not in memory is brought into idle blocks, where the request will find it like
        any other prefix. When there is no room for it, or room is needed for others first, it is just computed.
        """
        prefix = request.prompt_ids[: min(num_tokens, len(request.prompt_ids)) // BLOCK_SIZE * BLOCK_SIZE]
        if len(prefix) < MIN_PREFIX_TOKENS:
            return
        found = self._pool.match_prefix(prefix)
        if found.num_tokens < len(prefix):
            stored = self._cache.load(prefix, longer_than=found.num_tokens)
            if stored is not None:
                self._bring_in(prefix, found, stored)
        if not self._cache.has(prefix):
            self._due[prefix] = request

    def take_warnings(self) -> tuple[str, ...]:
        """See `PromptCache.take_warnings`."""
        return self._cache.take_warnings()

    def write_due(self) -> None:
        """After a step: write down the prefixes that have been computed."""
        for prefix, request in list(self._due.items()):
            found = self._pool.match_prefix(prefix)
            if found.num_tokens == len(prefix):
                self._cache.store(prefix, self._store.export_blocks(found.block_ids))
                del self._due[prefix]
            elif request.status is Status.FINISHED:  # aborted early; whoever asks next tries again
                del self._due[prefix]

    def _bring_in(self, prefix: tuple[int, ...], found: PrefixMatch, stored: StoredPrompt) -> None:
        num_found = len(found.block_ids)
        self._pool.share(found.block_ids)  # so that making room does not evict them
        own = self._pool.allocate(stored.num_tokens // BLOCK_SIZE - num_found)
        blocks = [*found.block_ids, *(own or [])]
        if own is not None:
            try:
                self._store.import_blocks(own, {name: tensor[num_found:] for name, tensor in stored.tensors.items()})
            except ValueError:
                self._cache.reject(prefix[: stored.num_tokens])
            else:
                for index in range(num_found, len(blocks)):
                    tokens = prefix[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
                    blocks[index] = self._pool.register(blocks, index, tokens)
        self._pool.release(blocks)
