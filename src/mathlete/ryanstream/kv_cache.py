"""Which KV block belongs to whom. Plain bookkeeping: never touches a tensor.

Blocks hold 16 tokens and are reference-counted, so siblings share the blocks of their prompt. A full
block is registered under (parent's registration, its 16 token ids): the dictionary compares the ids
themselves, so a hash collision cannot hand out a wrong block. Blocks that nobody uses keep their
content and are found again until the space is needed (least recently freed first).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_SIZE = 16

_ROOT = 0
_PrefixKey = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """Blocks that already hold the start of a sequence."""

    block_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens they cover."""
        return len(self.block_ids) * BLOCK_SIZE


class KVBlockPool:
    """Hands out blocks, shares them, and remembers what freed ones hold."""

    def __init__(self, num_blocks: int) -> None:
        """All `num_blocks` start free and empty. Raises `ValueError` when there are none."""
        if num_blocks < 1:
            raise ValueError(f"num_blocks must be >= 1, not {num_blocks}")
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._registered: dict[_PrefixKey, int] = {}
        self._key_of: dict[int, _PrefixKey] = {}
        self._serial_of: dict[int, int] = {}
        self._next_serial = 1

    @property
    def num_free(self) -> int:
        """Blocks that can be handed out now."""
        return len(self._free)

    def match_prefix(self, token_ids: Sequence[int]) -> PrefixMatch:
        """The longest run of whole registered blocks that `token_ids` starts with. Takes no reference."""
        found: list[int] = []
        serial = _ROOT
        for start in range(0, len(token_ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
            block = self._registered.get((serial, tuple(token_ids[start : start + BLOCK_SIZE])))
            if block is None:
                break
            found.append(block)
            serial = self._serial_of[block]
        return PrefixMatch(tuple(found))

    def share(self, block_ids: Sequence[int]) -> None:
        """Take a reference on each block, freed ones included."""
        for block in block_ids:
            self._references[block] += 1
            self._free.pop(block, None)

    def allocate(self, num: int) -> list[int] | None:
        """`num` blocks with one reference each, or None when there is no room. What they held is forgotten."""
        if num > len(self._free):
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(num)]
        for block in taken:
            self._forget(block)
            self._references[block] = 1
        return taken

    def register(self, block_ids: Sequence[int], index: int, token_ids: Sequence[int]) -> int:
        """Say that block number `index` of a sequence now holds the 16 `token_ids`, after its earlier blocks.

        Returns:
            The block to use from now on: when an equal one is registered already (siblings that drew the same
            16 tokens), that one, with a reference taken, and the sequence's own is released. So the blocks
            after it are registered under a parent that can be found.
        """
        block = block_ids[index]
        if block in self._key_of:
            return block
        key = (_ROOT if index == 0 else self._serial_of[block_ids[index - 1]], tuple(token_ids))
        twin = self._registered.get(key)
        if twin is not None:
            self.share([twin])
            self.release([block])
            return twin
        self._registered[key] = block
        self._key_of[block] = key
        self._serial_of[block] = self._next_serial
        self._next_serial += 1
        return block

    def release(self, block_ids: Sequence[int]) -> None:
        """Give back one reference on each; the last owner's blocks become free, tail first to go."""
        for block in reversed(block_ids):
            if self._references[block] <= 0:
                raise ValueError(f"block {block} released more often than taken")
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if block not in self._key_of:  # holds nothing worth finding: reuse it first
                    self._free.move_to_end(block, last=False)

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._registered[key]
            # children keyed under this serial can no longer be reached: serials are never reused
            del self._serial_of[block]

    def check_integrity(self, owners: Sequence[Sequence[int]]) -> None:
        """Raise `AssertionError` unless references, free list and registry agree with `owners`' block lists."""
        counts = [0] * self.num_blocks
        for blocks in owners:
            for block in blocks:
                counts[block] += 1
        assert counts == self._references, "reference counts differ from the owners' block lists"
        assert set(self._free) == {b for b, n in enumerate(counts) if n == 0}, "free list differs from the unowned"
        assert {b: k for k, b in self._registered.items()} == self._key_of, "registry is not one to one"
        assert self._serial_of.keys() == self._key_of.keys(), "a registered block lacks its serial"
