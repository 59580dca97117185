"""The KV pool: references, what freed blocks remember, and who may find it."""

from __future__ import annotations

import pytest

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, BlockCopy, KVBlockPool

FIRST, SECOND, THIRD = (tuple(range(start, start + BLOCK_SIZE)) for start in (0, 100, 200))


def _fill(pool: KVBlockPool, *contents: tuple[int, ...]) -> list[int]:
    blocks = pool.allocate(len(contents))
    assert blocks is not None
    for index, tokens in enumerate(contents):
        blocks[index] = pool.register(blocks, index, tokens)
    return blocks


def test_no_room_is_none_and_changes_nothing() -> None:
    pool = KVBlockPool(3)
    taken = pool.allocate(2)
    assert taken is not None
    assert pool.allocate(2) is None
    assert pool.num_free == 1
    pool.check_integrity([taken])


def test_a_freed_prefix_is_found_until_its_space_is_needed() -> None:
    pool = KVBlockPool(3)
    blocks = _fill(pool, FIRST, SECOND)
    pool.release(blocks)
    assert pool.match_prefix([*FIRST, *SECOND, 5]).block_ids == tuple(blocks)
    assert pool.match_prefix([*FIRST, *THIRD]).num_tokens == BLOCK_SIZE
    assert pool.match_prefix(FIRST[:-1]).num_tokens == 0
    taken = pool.allocate(2)  # the empty one and the tail go first
    assert taken is not None
    assert pool.match_prefix([*FIRST, *SECOND]).block_ids == (blocks[0],)
    pool.check_integrity([taken])


def test_the_same_tokens_after_another_prefix_are_not_found() -> None:
    pool = KVBlockPool(4)
    blocks = _fill(pool, FIRST, SECOND)
    assert pool.match_prefix(SECOND).num_tokens == 0
    assert pool.match_prefix([*SECOND, *FIRST]).num_tokens == 0
    pool.check_integrity([blocks])


def test_children_of_a_forgotten_block_are_not_found_under_its_successor() -> None:
    pool = KVBlockPool(2)
    first = _fill(pool, FIRST, SECOND)
    pool.release(first)
    pool.share(first[1:])  # keep the child alive while the parent's block is used for something else
    other = _fill(pool, THIRD)
    assert other == first[:1]
    assert pool.match_prefix([*THIRD, *SECOND]).num_tokens == BLOCK_SIZE
    pool.check_integrity([other, first[1:]])


def test_equal_blocks_become_one() -> None:
    """Two siblings draw the same 16 tokens, then differ: what each goes on with can be found."""
    pool = KVBlockPool(6)
    ours = _fill(pool, FIRST, SECOND)
    theirs = _fill(pool, FIRST, THIRD)
    assert theirs[0] == ours[0]
    assert pool.num_free == 3
    assert pool.match_prefix([*FIRST, *SECOND]).block_ids == tuple(ours)
    assert pool.match_prefix([*FIRST, *THIRD]).block_ids == tuple(theirs)
    pool.check_integrity([ours, theirs])


def test_sharing_keeps_a_block_until_the_last_owner_leaves() -> None:
    pool = KVBlockPool(2)
    blocks = _fill(pool, FIRST)
    pool.share(blocks)
    pool.release(blocks)
    assert pool.num_free == 1
    pool.release(blocks)
    assert pool.num_free == 2
    with pytest.raises(ValueError, match="released more often"):
        pool.release(blocks)


def test_integrity_tells_of_a_leak() -> None:
    pool = KVBlockPool(2)
    pool.allocate(1)
    with pytest.raises(AssertionError, match="reference counts"):
        pool.check_integrity([])


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks"):
        KVBlockPool(0)


def test_a_fork_shares_all_blocks_and_the_first_to_write_gets_a_copy() -> None:
    pool = KVBlockPool(4)
    first = _fill(pool, FIRST)
    assert pool.reserve(first, 16, 20) == []
    second = pool.fork(first)
    assert second == first and second is not first and pool.num_free == 2
    pool.check_integrity([first, second])
    shared = first[1]
    assert pool.reserve(second, 20, 21) == [BlockCopy(shared, second[1])]
    assert second[0] == first[0] and second[1] != shared == first[1]
    assert pool.reserve(first, 20, 21) == []  # the other is alone with the original now
    pool.check_integrity([first, second])


def test_a_copy_that_finds_no_room_changes_nothing() -> None:
    pool = KVBlockPool(2)
    first = _fill(pool, FIRST)
    pool.reserve(first, 16, 17)
    second = pool.fork(first)
    before = list(second)
    assert pool.reserve(second, 17, 18) is None
    assert second == before
    with pytest.raises(ValueError, match="no room for a copy"):
        pool.writable(second, 1)
    pool.check_integrity([first, second])
    pool.release(first)  # whoever gives way leaves the block to the other
    assert pool.reserve(second, 17, 18) == []
    pool.check_integrity([second])


def test_three_owners_of_a_partial_block_end_with_three_blocks() -> None:
    pool = KVBlockPool(4)
    sequences = [_fill(pool)]
    pool.reserve(sequences[0], 0, 5)
    sequences += [pool.fork(sequences[0]), pool.fork(sequences[0])]
    copies = [pool.reserve(blocks, 5, 6) for blocks in sequences]
    assert [len(copy or []) for copy in copies] == [1, 1, 0]
    assert len({blocks[0] for blocks in sequences}) == 3
    pool.check_integrity(sequences)


def test_a_block_that_is_full_is_never_written() -> None:
    pool = KVBlockPool(2)
    blocks = _fill(pool, FIRST)
    with pytest.raises(AssertionError, match="registered block is full"):
        pool.writable(blocks, 0)
