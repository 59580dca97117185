"""Which KV block belongs to whom. Plain bookkeeping: never touches a tensor, knows no policy of eviction.

Blocks hold 16 tokens and are reference-counted, so siblings share the blocks of their prompt. Glossary: a block
is *used* (somebody holds a reference), *idle* (nobody does, but what it holds can be found again) or *empty*.
A full block is *registered* under (its parent's registration, its 16 token ids): the dictionary compares the ids
themselves, so a hash collision cannot hand out a wrong block. A block that is not registered is only partly
filled and still written to: siblings that come of a fork share it too, and whoever writes first gets a copy.

`KVBlockPool` alone evicts the least recently freed block; `kv_manager.KVCacheManager` is a pool with a policy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Keys and values of block `src` are to be copied into block `dst` before anything else is computed.

    Copies are done in the order of the plan: a block may be the source of one and the target of a later one.
    """

    src: int
    dst: int


class SlotMove(NamedTuple):
    """Key and value at slot `src` (block * 16 + offset) are to be copied to slot `dst`.

    Moves are done in the order of their list: a slot may be the target of one and the source of an earlier one.
    """

    src: int
    dst: int


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens`."""
    return -(-num_tokens // BLOCK_SIZE)


def slot_of(block_ids: Sequence[int], place: int) -> int:
    """Where the token at `place` of a sequence lies: block * 16 + offset."""
    return block_ids[place // BLOCK_SIZE] * BLOCK_SIZE + place % BLOCK_SIZE


class KVBlockPool:
    """Hands out blocks, shares them, and remembers what idle ones hold."""

    def __init__(self, num_blocks: int) -> None:
        """All `num_blocks` start empty. Raises `ValueError` when there are none."""
        if num_blocks < 1:
            raise ValueError(f"num_blocks must be >= 1, not {num_blocks}")
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._empty: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently freed first
        self._registered: dict[_PrefixKey, int] = {}
        self._key_of: dict[int, _PrefixKey] = {}
        self._serial_of: dict[int, int] = {}
        self._next_serial = 1

    @property
    def num_free(self) -> int:
        """Blocks that can be handed out now: the empty and the idle."""
        return len(self._empty) + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Blocks that nobody holds and whose content can be found."""
        return len(self._idle)

    def num_used_of(self, block_ids: Sequence[int]) -> int:
        """How many of these blocks somebody holds; the others are idle and would become used."""
        return sum(self._references[block] > 0 for block in block_ids)

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
        """Take a reference on each block, idle ones included."""
        for block in block_ids:
            self._references[block] += 1
            if self._references[block] == 1:
                self._leave_idle(block)

    def fork(self, block_ids: Sequence[int]) -> list[int]:
        """All blocks of a sequence for a second owner, the partly filled last one included."""
        assert all(self._references[block] for block in block_ids), "only a sequence that holds its blocks is forked"
        self.share(block_ids)
        return list(block_ids)

    def allocate(self, num: int) -> list[int] | None:
        """`num` blocks with one reference each, or None when there is no room. What they held is forgotten."""
        if num > self.num_free:
            return None
        if num > len(self._empty):
            self._make_room(num)
        taken = [self._empty.popitem(last=False)[0] for _ in range(num)]
        for block in taken:
            self._references[block] = 1
        return taken

    def reserve(self, block_ids: list[int], start: int, end: int) -> list[BlockCopy] | None:
        """Make room for tokens [start, end) of a sequence: its own blocks to write to, `block_ids` changed in place.

        Returns:
            The copies to be made (of blocks that it shared so far), or None when there is no room; nothing has
            changed then.
        """
        touched = range(start // BLOCK_SIZE, min(blocks_for(end), len(block_ids)))
        shared = [index for index in touched if self._references[block_ids[index]] > 1]
        missing = max(0, blocks_for(end) - len(block_ids))
        if missing + len(shared) > self.num_free:
            return None
        copies = [copy for index in shared if (copy := self.writable(block_ids, index)) is not None]
        block_ids.extend(self.allocate(missing) or [])
        return copies

    def writable(self, block_ids: list[int], index: int) -> BlockCopy | None:
        """Give the owner of `block_ids` a block of its own at `index`, because it is about to write there.

        Returns:
            The copy to be made, after `block_ids[index]` was replaced by its target; None when nobody shares
            the block. The last to write keeps the original.

        Raises:
            ValueError: when a copy is needed and no block is free (`reserve` looks first).
        """
        src = block_ids[index]
        assert src not in self._key_of, "a registered block is full: nobody writes to it"
        if self._references[src] == 1:
            return None
        own = self.allocate(1)
        if own is None:
            raise ValueError(f"block {src} is shared and there is no room for a copy")
        self._references[src] -= 1
        block_ids[index] = own[0]
        return BlockCopy(src, own[0])

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
        """Give back one reference on each, the tail first; what its last owner leaves becomes idle or empty."""
        for block in reversed(block_ids):
            if self._references[block] <= 0:
                raise ValueError(f"block {block} released more often than taken")
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._key_of:
                    self._become_idle(block)
                else:
                    self._empty[block] = None

    def _become_idle(self, block: int) -> None:
        self._idle[block] = None

    def _leave_idle(self, block: int) -> None:
        del self._idle[block]

    def _make_room(self, num: int) -> None:
        """Evict until `num` blocks are empty; there are enough idle ones."""
        while len(self._empty) < num:
            self._evict(next(iter(self._idle)))

    def _evict(self, block: int) -> None:
        """Forget what an idle block holds."""
        assert self._references[block] == 0, "a used block is never evicted"
        self._leave_idle(block)
        del self._registered[self._key_of.pop(block)]
        del self._serial_of[block]  # children keyed under it can no longer be reached: serials are never reused
        self._empty[block] = None

    def check_integrity(self, owners: Sequence[Sequence[int]]) -> None:
        """Raise `AssertionError` unless references, free lists and registry agree with `owners`' block lists."""
        counts = [0] * self.num_blocks
        for blocks in owners:
            assert len(set(blocks)) == len(blocks), "a sequence holds a block twice"
            for block in blocks:
                counts[block] += 1
        assert counts == self._references, "reference counts differ from the owners' block lists"
        unowned = {block for block, count in enumerate(counts) if count == 0}
        assert self._empty.keys() | self._idle.keys() == unowned, "free lists differ from the unowned"
        assert self._idle.keys() == unowned & self._key_of.keys(), "idle blocks differ from the unowned registered"
        assert not self._empty.keys() & self._idle.keys(), "a block is both empty and idle"
        assert {b: k for k, b in self._registered.items()} == self._key_of, "registry is not one to one"
        assert self._serial_of.keys() == self._key_of.keys(), "a registered block lacks its serial"
        assert len(set(self._serial_of.values())) == len(self._serial_of), "two blocks have one serial"
        for blocks in owners:
            registered = [block in self._key_of for block in blocks]
            assert registered == sorted(registered, reverse=True), "a registered block follows one that is not"
            for parent, block in zip(blocks, blocks[1:], strict=False):
                if block in self._key_of:
                    assert self._key_of[block][0] == self._serial_of[parent], "a block follows another's parent"
