"""Sums and gatherings over real gloo connections, with the ranks in threads of one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from mathlete.ryanstream.parallel.collectives import CollectiveFailed, RankGroup, Rendezvous, connect, join
from mathlete.ryanstream.parallel.sharding import Shard

T = TypeVar("T")


def in_threads(world: int, do: Callable[[RankGroup], T], in_order: bool = False, timeout_s: float = 30) -> list[T]:
    """What each rank makes of it."""
    rendezvous = Rendezvous(timeout_s)

    def one(rank: int) -> T:
        store = rendezvous.store if rank == 0 else join(rendezvous.port, timeout_s)
        return do(connect(store, Shard(rank, world), torch.device("cpu"), timeout_s, in_order))

    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(one, range(world)))


def given(rank: int, rows: int = 5) -> Tensor:
    return torch.randn((rows, 3), generator=torch.Generator().manual_seed(rank))


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("world", [2, 3])
def test_a_sum_is_everyones(world: int, in_order: bool) -> None:
    found = in_threads(world, lambda group: group.sum_(given(group.shard.rank)), in_order)
    expected = sum((given(rank) for rank in range(1, world)), given(0))
    for x in found:
        torch.testing.assert_close(x, expected)
        assert torch.equal(x, found[0]), "all ranks go on with the same bits"
    if in_order:
        assert torch.equal(found[0], expected)


def test_a_sum_in_order_does_not_depend_on_the_other_rows() -> None:
    """Numbers whose sum depends on the order: (1e8 + 1) - 1e8 is not (1e8 - 1e8) + 1 in float32."""
    values = torch.tensor([1e8, 1.0, -1e8])

    def do(group: RankGroup) -> tuple[Tensor, Tensor]:
        many = torch.full((301, 7), float(values[group.shard.rank]))
        return group.sum_(many[:1].clone()), group.sum_(many)

    for alone, together in in_threads(3, do, in_order=True):
        assert (together == alone[0, 0]).all() and alone[0, 0] == 0


def test_rank_0_gathers_columns() -> None:
    found = in_threads(3, lambda group: group.gather_columns(given(group.shard.rank)))
    assert torch.equal(found[0], torch.cat([given(rank) for rank in range(3)], dim=1))
    assert torch.equal(found[2], given(2))


def test_nothing_is_summed_and_gathered_without_a_word() -> None:
    empty = torch.empty((0, 3))
    found = in_threads(2, lambda group: (group.sum_(empty), group.gather_columns(empty)))
    assert found[0][0].shape == (0, 3) and found[0][1].shape == (0, 6)


def test_a_peer_that_has_left_is_noticed_at_once() -> None:
    def do(group: RankGroup) -> float:
        start = time.monotonic()
        if group.shard.rank == 0:
            with pytest.raises(CollectiveFailed, match="closed|reset"):
                group.sum_(torch.ones(3))
        return time.monotonic() - start  # rank 1 leaves, and its connection with it

    assert max(in_threads(2, do)) < 5


def test_a_peer_that_does_not_come_is_not_waited_for_without_end() -> None:
    rendezvous = Rendezvous(1)
    start = time.monotonic()
    with pytest.raises(CollectiveFailed):
        connect(rendezvous.store, Shard(0, 2), torch.device("cpu"), 1)
    assert time.monotonic() - start < 10
