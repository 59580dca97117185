"""Ten thousand random operations on the pool, and as many on an engine, with a ledger of what lies where."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_runner import EOS, LedgerRunner, next_token

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.kv_cache import BLOCK_SIZE, KVBlockPool
from mathlete.ryanstream.kv_manager import SPEC_A4, KVCacheManager
from mathlete.ryanstream.scheduler import SchedulerConfig

OPERATIONS = 400  # an example, three bytes each
EXAMPLES = 30
NUM_BLOCKS = 14
MAX_TOKENS = 80

many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
programs = st.binary(min_size=3 * OPERATIONS, max_size=3 * OPERATIONS)


@dataclass(eq=False)
class Sequence:
    """A sequence that holds blocks: its tokens, and how many of its blocks are registered."""

    tokens: list[int]
    block_ids: list[int]
    num_registered: int = 0


class PoolWalk:
    """Sequences that are begun, forked, grown and dropped by what bytes say. Each slot's content is known.

    What a slot holds is named by the prefix that ends in it: a number for each (prefix before, token).
    """

    def __init__(self, pool: KVBlockPool) -> None:
        self.pool = pool
        self.names: dict[tuple[int, int], int] = {}
        self.slots: dict[int, int] = {}
        self.live: list[Sequence] = []
        self.done: list[list[int]] = []
        self.counts = dict.fromkeys(("begin", "fork", "append", "abort", "refused", "copies", "found"), 0)

    def operate(self, what: int, which: int, how: int) -> None:
        kind = ("begin", "fork", "append", "append", "append", "append", "abort")[what % 7]
        if kind == "begin" or not self.live:
            self.begin(which, how)
        else:
            getattr(self, kind)(self.live[which % len(self.live)], how)
        self.check()

    def begin(self, which: int, how: int) -> None:
        """A new one: one of two prompts, or the continuation of one that is done."""
        tokens = self.done[which % len(self.done)] if self.done and how % 3 else [which % 2] * (1 + how % 40)
        found = self.pool.match_prefix(tokens[:-1]).block_ids
        self.pool.share(found)
        self.live.append(Sequence(tokens[: len(found) * BLOCK_SIZE], list(found), len(found)))
        self.counts["begin"] += 1
        self.counts["found"] += len(found)
        if isinstance(self.pool, KVCacheManager):
            self.pool.note_reference(found)
        self.grow(self.live[-1], tokens[len(found) * BLOCK_SIZE :])

    def fork(self, sequence: Sequence, how: int) -> None:
        self.counts["fork"] += 1
        self.live.append(Sequence(list(sequence.tokens), self.pool.fork(sequence.block_ids), sequence.num_registered))

    def append(self, sequence: Sequence, how: int) -> None:
        self.counts["append"] += 1
        self.grow(sequence, [how % 3] * (1 + how % 20))

    def abort(self, sequence: Sequence, how: int) -> None:
        self.counts["abort"] += 1
        self.live.remove(sequence)
        self.done = [*self.done[-3:], sequence.tokens]
        self.pool.release(sequence.block_ids)

    def grow(self, sequence: Sequence, tokens: list[int]) -> None:
        start = len(sequence.tokens)
        end = min(start + len(tokens), MAX_TOKENS)
        copies = self.pool.reserve(sequence.block_ids, start, end)
        if copies is None:
            self.counts["refused"] += 1
            assert self.pool.num_free < 6, "refused although there is room"
            self.abort(sequence, 0)
            return
        for copy in copies:
            self.counts["copies"] += 1
            for offset in range(BLOCK_SIZE):
                self.slots[copy.dst * BLOCK_SIZE + offset] = self.slots.get(copy.src * BLOCK_SIZE + offset, -1)
        sequence.tokens += tokens[: end - start]
        for position, name in list(enumerate(self.prefixes(sequence.tokens)))[start:]:
            self.slots[self.slot(sequence, position)] = name
        for index in range(sequence.num_registered, end // BLOCK_SIZE):
            block_tokens = sequence.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
            sequence.block_ids[index] = self.pool.register(sequence.block_ids, index, block_tokens)
            sequence.num_registered = index + 1

    def prefixes(self, tokens: list[int]) -> list[int]:
        names, name = [], 0
        for token in tokens:
            name = self.names.setdefault((name, token), len(self.names) + 1)
            names.append(name)
        return names

    @staticmethod
    def slot(sequence: Sequence, position: int) -> int:
        return sequence.block_ids[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE

    def check(self) -> None:
        self.pool.check_integrity([sequence.block_ids for sequence in self.live])
        for sequence in self.live:
            for position, name in enumerate(self.prefixes(sequence.tokens)):
                assert self.slots[self.slot(sequence, position)] == name, "a block holds another's tokens"


@pytest.mark.parametrize("managed", [True, False])
def test_ten_thousand_operations_leave_the_pool_whole(managed: bool) -> None:
    counts: dict[str, int] = {}
    evicted = forced = 0

    @many
    @given(programs)
    def walk(program: bytes) -> None:
        nonlocal evicted, forced
        clock_s = 0.0
        policy = replace(SPEC_A4, num_protected=2)
        pool = KVCacheManager(NUM_BLOCKS, policy, lambda: clock_s) if managed else KVBlockPool(NUM_BLOCKS)
        state = PoolWalk(pool)
        for at in range(0, len(program), 3):
            clock_s += program[at] % 5 / 4
            state.operate(*program[at : at + 3])
        for sequence in list(state.live):
            state.abort(sequence, 0)
            state.check()
        assert pool.num_free == NUM_BLOCKS
        for name, count in state.counts.items():
            counts[name] = counts.get(name, 0) + count
        if isinstance(pool, KVCacheManager):
            evicted += pool.statistics.evicted
            forced += pool.statistics.forced

    walk()
    assert sum(counts[name] for name in ("begin", "fork", "append", "abort")) >= 10_000
    assert min(counts.values()) > 100, f"some operations hardly happened: {counts}"
    if managed:
        assert evicted > forced > 100


class EngineWalk:
    """Requests that come, fork, go back, are aborted and stepped by what bytes say, on a pool too small for them."""

    def __init__(self) -> None:
        self.clock_s = 0.0
        self.runner = LedgerRunner()
        self.engine = Engine(self.runner, NUM_BLOCKS, [EOS], config=SchedulerConfig(4, 40, 96))  # type: ignore[arg-type]
        self.engine._pool._clock = lambda: self.clock_s
        self.seeds: dict[str, list[tuple[int, int]]] = {}  # of each request: (from which output on, seed)
        self.done: list[tuple[int, ...]] = []
        self.num_names = 0
        self.num_rewinds = 0

    def operate(self, what: int, which: int, how: int) -> None:
        names = sorted(self.engine._requests)
        kind = what % 8
        if kind == 0 or not names:
            prompt = self.done[which % len(self.done)] if self.done and how % 3 == 0 else (which % 2,) * (1 + how % 50)
            name = self.name()
            self.seeds[name] = [(0, how % 3)]
            self.engine.add(name, prompt[:80], SamplingParams(max_tokens=1 + how % 30, seed=how % 3), "ab"[how % 2])
        elif kind == 1:
            self.fork(names[which % len(names)], how % 3)
        elif kind == 2:
            self.engine.abort(request_id=names[which % len(names)])
        elif kind == 3 and which % 3 == 0:
            self.rewind(names[how % len(names)], which, how % 3)
        else:
            self.step()
        self.engine.check_integrity()

    def fork(self, name: str, seed: int) -> None:
        request = self.engine._requests[name]
        child = self.name()
        num_drawn = len(request.output_ids)
        self.engine.fork(name, child, SamplingParams(max_tokens=num_drawn + 5 + seed, seed=seed))
        self.seeds[child] = [*self.seeds[name], (num_drawn, seed)]

    def rewind(self, name: str, which: int, seed: int) -> None:
        request = self.engine._requests[name]
        kept = which % (len(request.output_ids) + 1)
        self.engine.rewind(name, kept, SamplingParams(max_tokens=kept + 5 + seed, seed=seed))
        self.seeds[name] = [*((start, old) for start, old in self.seeds[name] if start < kept), (kept, seed)]
        self.num_rewinds += 1

    def name(self) -> str:
        self.num_names += 1
        return f"{self.num_names:06}"

    def step(self) -> None:
        for output in self.engine.step():
            if output.end is not None:
                request = output.request
                tokens = request.prompt_ids
                for number, drawn in enumerate(request.output_ids):
                    seed = [seed for start, seed in self.seeds[request.request_id] if start <= number][-1]
                    assert drawn == next_token(tokens, seed)
                    tokens += (drawn,)
                self.done = [*self.done[-3:], tokens]


def test_ten_thousand_operations_leave_the_engine_whole() -> None:
    num_operations = num_copies = num_rewinds = 0

    @many
    @given(programs)
    def walk(program: bytes) -> None:
        nonlocal num_operations, num_copies, num_rewinds
        state = EngineWalk()
        for at in range(0, len(program), 3):
            state.clock_s += program[at] % 5 / 4
            state.operate(*program[at : at + 3])
            num_operations += 1
        for _ in range(3000):
            if not state.engine.has_work:
                break
            state.step()
        assert not state.engine.has_work, "a request starved"
        state.engine.check_integrity()
        assert state.engine._pool.num_free == NUM_BLOCKS
        num_copies += state.engine.kv_statistics.copied
        num_rewinds += state.num_rewinds

    walk()
    assert num_operations >= 10_000 and num_copies > 100 and num_rewinds > 100
