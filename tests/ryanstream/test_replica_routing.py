"""The mesh of processes and the routing of requests to replicas. No model, no process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.errors import EngineError
from mathlete.ryanstream.parallel.layout import ParallelLayout, Place, ReplicaRouter, rank_devices
from mathlete.ryanstream.parallel.sharding import Shard


def test_the_mesh_has_neighbours_in_one_replica() -> None:
    layout = ParallelLayout(num_processes=8, tensor_parallel=2)
    assert layout.num_replicas == 4
    assert layout.place(5) == Place(replica=2, shard=Shard(1, 2))
    assert [list(layout.processes(replica)) for replica in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for process in range(8):
        place = layout.place(process)
        assert layout.processes(place.replica)[place.shard.rank] == process


@pytest.mark.parametrize(("processes", "ranks"), [(0, 1), (4, 0), (6, 4), (2, 4)])
def test_a_mesh_that_does_not_fit_is_refused(processes: int, ranks: int) -> None:
    with pytest.raises(ValueError, match="ParallelLayout"):
        ParallelLayout(processes, ranks)


def test_ranks_share_the_cpu_and_have_a_gpu_each() -> None:
    assert [str(d) for d in rank_devices(torch.device("cpu"), 2)] == ["cpu", "cpu"]
    assert [str(d) for d in rank_devices(torch.device("cuda"), 2)] == ["cuda:0", "cuda:1"]
    assert [str(d) for d in rank_devices(torch.device("cuda:2"), 2)] == ["cuda:2", "cuda:3"]


def test_places_outside_the_mesh_are_refused() -> None:
    layout = ParallelLayout(4, 2)
    with pytest.raises(ValueError, match="process must be"):
        layout.place(4)
    with pytest.raises(ValueError, match="replica must be"):
        layout.processes(-1)


def test_single_requests_go_to_the_least_loaded() -> None:
    router = ReplicaRouter(num_replicas=3, slots=4)
    assert [router.route(str(i)) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    router.finish("1")
    assert router.route("next") == 1
    router.check_integrity()


def test_siblings_stay_together_and_groups_apart() -> None:
    router = ReplicaRouter(num_replicas=2, slots=8)
    assert {router.route(f"a{i}", "a") for i in range(8)} == {0}
    assert {router.route(f"b{i}", "b") for i in range(3)} == {1}
    for i in range(8):
        router.finish(f"a{i}")
    assert router.loads == (0, 3)
    assert router.route("b3", "b") == 1, "an idle replica does not draw a sibling away"
    assert router.route("a8", "a") == 0, "the next turn finds the blocks of the one before"


def test_a_group_that_fills_its_replica_gets_another() -> None:
    router = ReplicaRouter(num_replicas=2, slots=4)
    assert [router.route(f"a{i}", "a") for i in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert sorted(router.route(f"more{i}", "a") for i in range(4)) == [0, 0, 1, 1], "all full: evenly"
    router.check_integrity()


def test_a_forgotten_group_starts_anew() -> None:
    router = ReplicaRouter(num_replicas=2, slots=4)
    router.route("a0", "a")
    router.forget("a")
    router.forget("unknown")
    assert router.route("a1", "a") == 1


def test_an_id_in_use_is_refused() -> None:
    router = ReplicaRouter(num_replicas=1, slots=1)
    router.route("x")
    with pytest.raises(EngineError, match="'x' is in use"):
        router.route("x", "group")


@given(st.lists(st.tuples(st.sampled_from(["route", "finish", "forget"]), st.integers(0, 5)), max_size=80))
def test_random_use_keeps_the_books(events: list[tuple[str, int]]) -> None:
    router, open_ids, count = ReplicaRouter(num_replicas=3, slots=2), [], 0
    for what, number in events:
        if what == "route":
            replica = router.route(str(count), f"g{number}" if number else None)
            assert router.loads[replica] <= max(2, min(router.loads) + 1), "nobody waits while a slot is free"
            open_ids.append(str(count))
            count += 1
        elif what == "finish" and open_ids:
            router.finish(open_ids.pop(number % len(open_ids)))
        elif what == "forget":
            router.forget(f"g{number}")
        router.check_integrity()
    assert sum(router.loads) == len(open_ids)
