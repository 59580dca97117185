"""Which idle KV blocks are given up, and when. Knows ages and references; never touches a tensor or a request.

A block that nobody uses keeps its content, since a continuation (the next turn after a tool call) or a sibling may
ask for it. When room is needed, idle blocks go in three rounds:

1. *ripe*: idle for `min_idle_s` and not protected, least score first, just as many as are needed;
2. *young*, by force: the same order, down to `forced_occupancy` of the pool, or as many as are needed if more;
3. *protected*, by force: just as many as are needed.

Used blocks are never touched. Force comes before preemption: whoever lost idle blocks computes them anew if he ever
comes back, while a preempted request certainly does and stands still meanwhile. So whatever is idle counts as free.

Score of a block: the second in which it was last used, plus `reference_credit_s` for every doubling of its
references. The order of two blocks does not depend on when it is asked for, so a heap keeps it. A parent is used
whenever its child is, and so never goes before it.

The sequences most often referenced are protected (SPEC A4). A sequence is a chain of blocks from the first token on;
it is referenced when a request finds it in the cache and goes on from its end.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mathlete.ryanstream.kv_cache import BlockCopy, KVBlockPool


@dataclass(frozen=True, slots=True)
class EvictionPolicy:
    """When idle blocks may go. `SPEC_A4` holds the specification's values; the defaults are what was measured better.

    `benchmarks/kv_eviction.py` compares them: clearing 30 % of the pool at once throws away what attempts come back
    for, prompts of problems that are done kept the first places among the most referenced for ever, and references
    told nothing about what would be asked for again.

    Attributes:
        min_idle_s: a block is idle that long before it goes without force.
        num_protected: so many of the most referenced sequences are protected.
        protect_for_s: protection ends when a sequence has not been referenced for so long.
        forced_occupancy: part of the pool that may stay occupied when young blocks are evicted by force; 1 for
            evicting no more than is needed.
        reference_credit_s: a doubling of a block's references counts as if it had been used that much later.
    """

    min_idle_s: float = 3.0
    num_protected: int = 10
    protect_for_s: float = 10.0
    forced_occupancy: float = 1.0
    reference_credit_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("min_idle_s", "num_protected", "reference_credit_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"EvictionPolicy.{name} must be >= 0 and finite, not {getattr(self, name)}")
        if not 0 <= self.forced_occupancy <= 1:
            raise ValueError(f"EvictionPolicy.forced_occupancy must be in [0, 1], not {self.forced_occupancy}")
        if not self.protect_for_s >= 0:
            raise ValueError(f"EvictionPolicy.protect_for_s must be >= 0, not {self.protect_for_s}")


SPEC_A4 = EvictionPolicy(
    min_idle_s=3.0, num_protected=10, protect_for_s=math.inf, forced_occupancy=0.7, reference_credit_s=10.0
)


@dataclass(frozen=True, slots=True)
class Evicted:
    """An idle block that was given up. Its last owner will have to compute it anew should it come back.

    Attributes:
        block_id: the block.
        owner: who released it last, or None when it did not say.
        idle_s: for how long it had been idle.
        forced: whether it was still young or protected.
    """

    block_id: int
    owner: str | None
    idle_s: float
    forced: bool


@dataclass(slots=True)
class KVStatistics:
    """What has happened so far, in blocks.

    Attributes:
        found: blocks that requests found in the cache instead of computing them.
        copied: shared blocks copied because one owner wrote to them.
        evicted: idle blocks given up, all in all.
        forced: those of them that were young or protected.
        forced_protected: those of them that were protected.
        forced_rounds: how often force was needed.
    """

    found: int = 0
    copied: int = 0
    evicted: int = 0
    forced: int = 0
    forced_protected: int = 0
    forced_rounds: int = 0


@dataclass(slots=True, eq=False)
class _Chain:
    """A sequence that was referenced: its blocks, how often, the number of the last reference, and its time."""

    block_ids: tuple[int, ...]
    num_references: int = 0
    last: int = 0
    last_s: float = 0.0
    protected: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return self.num_references, self.last


class KVCacheManager(KVBlockPool):
    """A pool of blocks with the eviction policy of SPEC A4. Allocation is O(log blocks), amortised."""

    def __init__(
        self,
        num_blocks: int,
        policy: EvictionPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_evict: Callable[[Evicted], None] | None = None,
    ) -> None:
        """All blocks start empty.

        Args:
            num_blocks: how many there are.
            policy: when idle ones may go.
            clock: seconds; never goes back.
            on_evict: told of each idle block that was given up.
        """
        super().__init__(num_blocks)
        self.policy = policy or EvictionPolicy()
        self.statistics = KVStatistics()
        self._clock = clock
        self._on_evict = on_evict
        self._owners: list[str | None] = [None] * num_blocks
        self._num_references = [0] * num_blocks  # by requests that found the block, since it was registered
        self._idle_since_s = [0.0] * num_blocks
        self._idle_number = [0] * num_blocks  # counts up: tells apart the times at which a block became idle
        self._next_number = 1
        self._young: OrderedDict[int, None] = OrderedDict()  # by the time at which they became idle
        self._ripe: list[tuple[float, int, int]] = []  # heap of (score, idle number, block); may hold stale entries
        self._held: set[int] = set()  # ripe, but protected
        self._chains: dict[int, _Chain] = {}  # by their last block
        self._protected: list[_Chain] = []
        self._num_protections = [0] * num_blocks  # protected chains that a block belongs to
        self._next_reference = 1

    def release(self, block_ids: Sequence[int], owner: str | None = None) -> None:
        """As in `KVBlockPool`; `owner` is named to `on_evict` should a block that becomes idle be evicted."""
        if owner is not None:
            for block in block_ids:
                self._owners[block] = owner
        super().release(block_ids)

    def note_reference(self, block_ids: Sequence[int]) -> None:
        """Count that a request went on from the end of this chain of found blocks; it holds them already."""
        if not block_ids:
            return
        self.statistics.found += len(block_ids)
        for block in block_ids:
            self._num_references[block] += 1
        chain = self._chains.setdefault(block_ids[-1], _Chain(tuple(block_ids)))
        chain.num_references += 1
        chain.last, chain.last_s = self._next_reference, self._clock()
        self._next_reference += 1
        self._rank(chain)

    def writable(self, block_ids: list[int], index: int) -> BlockCopy | None:
        """As in `KVBlockPool`, and counted."""
        copy = super().writable(block_ids, index)
        self.statistics.copied += copy is not None
        return copy

    def protected_blocks(self) -> set[int]:
        """The blocks of the most referenced sequences."""
        return {block for block, count in enumerate(self._num_protections) if count}

    def _become_idle(self, block: int) -> None:
        super()._become_idle(block)
        self._idle_since_s[block] = self._clock()
        self._idle_number[block] = self._next_number
        self._next_number += 1
        self._young[block] = None

    def _leave_idle(self, block: int) -> None:
        super()._leave_idle(block)
        self._idle_number[block] = 0
        self._young.pop(block, None)
        self._held.discard(block)

    def _make_room(self, num: int) -> None:
        now_s = self._clock()
        for chain in [c for c in self._protected if now_s - c.last_s > self.policy.protect_for_s]:
            self._unprotect(chain)
        self._ripen(now_s)
        while len(self._empty) < num and self._ripe:
            _, number, block = heapq.heappop(self._ripe)
            if self._idle_number[block] != number:
                continue  # used again since
            if self._num_protections[block]:
                self._held.add(block)
            else:
                self._give_up(block, now_s, forced=False)
        if len(self._empty) < num:
            self._force_room(num, now_s)

    def _force_room(self, num: int, now_s: float) -> None:
        self.statistics.forced_rounds += 1
        wanted = max(num, self.num_blocks - int(self.policy.forced_occupancy * self.num_blocks))
        for block in self._least_score_first([block for block in self._young if not self._num_protections[block]]):
            if len(self._empty) >= wanted:
                return
            self._give_up(block, now_s, forced=True)
        for block in self._least_score_first(self._idle):
            if len(self._empty) >= num:
                return
            self.statistics.forced_protected += 1
            self._give_up(block, now_s, forced=True)

    def _give_up(self, block: int, now_s: float, *, forced: bool) -> None:
        self.statistics.evicted += 1
        self.statistics.forced += forced
        if self._on_evict is not None:
            self._on_evict(Evicted(block, self._owners[block], now_s - self._idle_since_s[block], forced))
        self._evict(block)

    def _evict(self, block: int) -> None:
        super()._evict(block)
        self._num_references[block] = 0
        self._owners[block] = None
        chain = self._chains.pop(block, None)  # children go first: the other chains do not hold this block any more
        if chain is not None and chain.protected:
            self._unprotect(chain)  # its place is taken by the next sequence that is referenced

    def _ripen(self, now_s: float) -> None:
        while self._young:
            block = next(iter(self._young))
            if now_s - self._idle_since_s[block] < self.policy.min_idle_s:
                return
            del self._young[block]
            heapq.heappush(self._ripe, self._entry(block))
            if len(self._ripe) > 2 * self.num_blocks:  # mostly stale: blocks that were used again since
                self._ripe = [entry for entry in self._ripe if self._idle_number[entry[2]] == entry[1]]
                heapq.heapify(self._ripe)

    def _score(self, block: int) -> float:
        return self._idle_since_s[block] + self.policy.reference_credit_s * math.log2(1 + self._num_references[block])

    def _entry(self, block: int) -> tuple[float, int, int]:
        return self._score(block), self._idle_number[block], block

    def _least_score_first(self, blocks: Sequence[int] | OrderedDict[int, None]) -> list[int]:
        return [block for _, _, block in sorted(map(self._entry, blocks))]

    def _rank(self, chain: _Chain) -> None:
        """Protect a chain that was just referenced if it belongs to the most referenced now; ties to the latest."""
        if chain.protected or self.policy.num_protected == 0:
            return
        if len(self._protected) == self.policy.num_protected:
            weakest = min(self._protected, key=lambda protected: protected.rank)
            if weakest.rank > chain.rank:
                return
            self._unprotect(weakest)
        chain.protected = True
        self._protected.append(chain)
        for block in chain.block_ids:
            self._num_protections[block] += 1

    def _unprotect(self, chain: _Chain) -> None:
        chain.protected = False
        self._protected.remove(chain)
        for block in chain.block_ids:
            self._num_protections[block] -= 1
            if block in self._held and not self._num_protections[block]:
                self._held.remove(block)
                heapq.heappush(self._ripe, self._entry(block))

    def check_integrity(self, owners: Sequence[Sequence[int]]) -> None:
        """Raise `AssertionError` unless the pool is whole and ages, scores and protections agree with it."""
        super().check_integrity(owners)
        valid = [block for _, number, block in self._ripe if self._idle_number[block] == number]
        places = [*self._young, *valid, *self._held]
        assert len(places) == len(set(places)), "an idle block has two places in the order of eviction"
        assert set(places) == set(self._idle), "the order of eviction differs from the idle blocks"
        for score, number, block in self._ripe:
            assert self._idle_number[block] != number or score == self._score(block), "a score is out of date"
        assert len(self._protected) <= self.policy.num_protected, "too many sequences are protected"
        counts = [0] * self.num_blocks
        for chain in self._protected:
            assert chain.protected and self._chains.get(chain.block_ids[-1]) is chain, "a protected chain is unknown"
            for block in chain.block_ids:
                counts[block] += 1
        assert counts == self._num_protections, "protections differ from the protected chains"
        for chain in self._chains.values():
            assert all(block in self._key_of for block in chain.block_ids), "a chain holds a forgotten block"
        serials = set(self._serial_of.values())
        assert all(parent == 0 or parent in serials for parent, _ in self._registered), "a child outlived its parent"
        assert all(n == 0 or b in self._key_of for b, n in enumerate(self._num_references)), "references to nothing"
