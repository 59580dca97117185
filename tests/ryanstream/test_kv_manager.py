"""The policy of eviction: ages, references, protection, force. Time is the test's own."""

from __future__ import annotations

import pytest

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.kv_manager import SPEC_A4, Evicted, EvictionPolicy, KVCacheManager


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Scene:
    """A manager and the sequences put into it."""

    def __init__(self, num_blocks: int, **policy: float) -> None:
        self.clock = Clock()
        self.evicted: list[Evicted] = []
        self.taken: list[list[int]] = []
        self.kv = KVCacheManager(num_blocks, EvictionPolicy(**policy), self.clock, self.evicted.append)  # type: ignore[arg-type]

    def sequence(self, name: int, num_blocks: int = 1) -> list[int]:
        """Tokens of a sequence that no other name shares."""
        return [name * 1000 + i for i in range(num_blocks * BLOCK_SIZE)]

    def run(self, name: int, num_blocks: int = 1, times: int = 1) -> list[int]:
        """A request over the sequence comes, finds or computes it, and goes; `times` times. Its blocks."""
        tokens = self.sequence(name, num_blocks)
        for _ in range(times):
            found = self.kv.match_prefix(tokens).block_ids
            self.kv.share(found)
            blocks = list(found)
            assert self.kv.reserve(blocks, len(found) * BLOCK_SIZE, len(tokens)) == []
            for index in range(len(found), num_blocks):
                blocks[index] = self.kv.register(blocks, index, tokens[index * 16 : index * 16 + 16])
            self.kv.note_reference(found)
            self.kv.release(blocks, f"request {name}")
            self.kv.check_integrity(self.taken)
        return blocks

    def cached(self, *names: int) -> list[int]:
        """Those whose first block is found."""
        return [name for name in names if self.kv.match_prefix(self.sequence(name)).num_tokens]

    def take(self, num: int) -> list[int]:
        blocks = self.kv.allocate(num)
        assert blocks is not None
        self.taken.append(blocks)
        self.kv.check_integrity(self.taken)
        return blocks

    def give_back(self) -> None:
        """What was taken by `take`."""
        for blocks in self.taken:
            self.kv.release(blocks)
        self.taken = []


def test_idle_blocks_go_only_when_room_is_needed_and_no_more_than_that() -> None:
    scene = Scene(4)
    for name in range(4):
        scene.run(name)
    scene.clock.now_s += 1000
    assert scene.cached(0, 1, 2, 3) == [0, 1, 2, 3]
    scene.take(1)
    assert scene.cached(0, 1, 2, 3) == [1, 2, 3]
    assert scene.kv.statistics.evicted == 1 and scene.kv.statistics.forced == 0


def test_the_owner_is_told_what_it_lost() -> None:
    scene = Scene(2)
    (first,) = scene.run(0)
    scene.run(1)
    scene.clock.now_s += 5
    scene.take(1)
    assert scene.evicted == [Evicted(first, "request 0", 5.0, forced=False)]


def test_a_block_idle_for_less_than_three_seconds_outlives_an_older_one() -> None:
    scene = Scene(3, reference_credit_s=0)
    scene.run(0)
    scene.clock.now_s += 2.5
    scene.run(1)
    scene.run(2)
    scene.clock.now_s += 0.5
    scene.take(1)  # only the first is ripe
    assert scene.cached(0, 1, 2) == [1, 2]
    assert scene.kv.statistics.forced_rounds == 0


def test_using_a_block_again_makes_it_young_again() -> None:
    scene = Scene(2)
    scene.run(0)
    scene.run(1)
    scene.clock.now_s += 2
    scene.run(0)
    scene.clock.now_s += 2
    scene.take(1)
    assert scene.cached(0, 1) == [0]


def test_of_two_ripe_blocks_the_more_referenced_stays() -> None:
    scene = Scene(2, num_protected=0, reference_credit_s=10)
    scene.run(0, times=4)  # found three times: worth 20 s
    scene.clock.now_s += 15
    scene.run(1)
    scene.clock.now_s += 10
    scene.take(1)
    assert scene.cached(0, 1) == [0]


def test_references_grow_old_too() -> None:
    scene = Scene(2, num_protected=0, reference_credit_s=10)
    scene.run(0, times=4)
    scene.clock.now_s += 25
    scene.run(1)
    scene.clock.now_s += 10
    scene.take(1)
    assert scene.cached(0, 1) == [1]


def test_the_ten_most_referenced_sequences_are_protected() -> None:
    scene = Scene(12, protect_for_s=SPEC_A4.protect_for_s)
    for name in range(12):
        scene.run(name, times=2 if name == 11 else 3)  # the last was referenced least, the first two earliest
    assert len(scene.kv.protected_blocks()) == 10
    scene.clock.now_s += 1000
    scene.take(2)
    assert scene.cached(*range(12)) == list(range(1, 11))
    assert scene.kv.statistics.forced == 0


def test_a_protected_sequence_is_protected_from_its_first_block_on() -> None:
    scene = Scene(6, num_protected=1, protect_for_s=SPEC_A4.protect_for_s)
    blocks = scene.run(0, num_blocks=4, times=2)
    scene.clock.now_s += 1
    scene.run(1)
    scene.run(2)
    assert scene.kv.protected_blocks() == set(blocks)
    scene.clock.now_s += 1000
    scene.take(2)
    assert scene.kv.match_prefix(scene.sequence(0, 4)).block_ids == tuple(blocks)


def test_protection_ends_with_time() -> None:
    scene = Scene(2, num_protected=1, protect_for_s=60, reference_credit_s=0)
    scene.run(0, times=5)
    scene.clock.now_s += 1
    scene.run(1)
    scene.clock.now_s += 58
    scene.take(1)
    assert scene.cached(0, 1) == [0]
    scene.give_back()
    scene.run(2)
    scene.clock.now_s += 10
    scene.take(1)
    assert scene.cached(0, 2) == [2] and not scene.kv.protected_blocks()


def test_force_takes_no_more_than_needed_by_default() -> None:
    scene = Scene(20)
    for name in range(20):
        scene.run(name)
    scene.take(2)
    assert scene.kv.statistics.forced == 2


def test_what_lost_its_protection_goes_by_its_score() -> None:
    scene = Scene(4, num_protected=1, protect_for_s=60)
    scene.run(0, times=2)
    scene.run(1)
    scene.clock.now_s += 10
    scene.take(3)  # passes over the protected one, which is set aside
    assert scene.cached(0, 1) == [0]
    scene = Scene(4, num_protected=1, protect_for_s=60)
    scene.run(0, times=2)
    scene.run(1)
    scene.clock.now_s += 10
    scene.take(3)
    scene.give_back()
    scene.run(2, times=3)  # takes the place
    scene.clock.now_s += 10
    scene.take(3)
    assert scene.cached(0, 2) == [2]


def test_force_frees_young_blocks_down_to_seventy_percent() -> None:
    scene = Scene(20, forced_occupancy=SPEC_A4.forced_occupancy)
    for name in range(20):
        scene.run(name)
    scene.take(1)
    statistics = scene.kv.statistics
    assert statistics.forced_rounds == 1 and statistics.forced == statistics.evicted == 6  # 14 of 20 stay occupied
    assert scene.cached(*range(20)) == list(range(6, 20))
    scene.take(5)  # finds the room made before
    assert statistics.evicted == 6


def test_force_takes_protected_blocks_last_and_only_as_many_as_needed() -> None:
    scene = Scene(10, num_protected=5, forced_occupancy=0.7)
    for name in range(10):
        scene.run(name, times=2 if name < 5 else 1)
    scene.take(6)
    assert scene.cached(*range(10)) == [1, 2, 3, 4]
    assert scene.kv.statistics.forced_protected == 1
    scene.take(4)
    assert scene.cached(*range(10)) == []


def test_used_blocks_are_never_taken() -> None:
    scene = Scene(4)
    scene.take(3)
    scene.run(0)
    scene.clock.now_s += 1000
    assert scene.kv.allocate(2) is None
    assert scene.cached(0) == [0]
    scene.kv.check_integrity(scene.taken)


def test_a_chain_goes_from_its_end() -> None:
    scene = Scene(6, num_protected=0)
    scene.run(0, num_blocks=4)
    scene.clock.now_s += 10
    scene.take(4)
    assert scene.kv.match_prefix(scene.sequence(0, 4)).num_tokens == 2 * BLOCK_SIZE


def test_the_heap_does_not_grow_with_use() -> None:
    scene = Scene(4, num_protected=0)
    scene.run(0)
    scene.run(1)
    for _ in range(200):
        scene.clock.now_s += 10
        scene.take(3)  # ripens and evicts
        scene.give_back()
        scene.run(0)
        scene.run(1)
    assert len(scene.kv._ripe) <= 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protect_for_s", -1),
        ("min_idle_s", -1),
        ("num_protected", -1),
        ("forced_occupancy", 1.5),
        ("reference_credit_s", float("inf")),
    ],
)
def test_a_policy_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        EvictionPolicy(**{field: value})  # type: ignore[arg-type]
