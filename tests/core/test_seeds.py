"""Seeds are the same everywhere and differ from place to place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.seeds import derive_seed

parts = st.integers(0, 10**6) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def test_the_same_on_every_machine() -> None:
    assert (
        derive_seed(0, "p", 3) == 1123228759429052015
    )  # `printf 0/p/3 | sha256sum`: first 8 bytes, shifted right by one
    assert derive_seed(1, "p", 3) != derive_seed(0, "p", 3)


@given(st.integers(), st.lists(parts, max_size=3))
def test_63_bits(run_seed: int, path: list[str | int]) -> None:
    seed = derive_seed(run_seed, *path)
    assert 0 <= seed < 2**63
    assert seed == derive_seed(run_seed, *path)


def test_attempts_and_turns_of_a_run_all_differ() -> None:
    places = [(problem, index, turn) for problem in ("p", "q", "p1") for index in range(40) for turn in range(5)]
    assert len({derive_seed(7, *place) for place in places}) == len(places)


def test_a_problem_id_may_look_like_a_place() -> None:
    places = [("p", 1, 2), ("p/1", 1, 2), ("p/1", 2, 1), ("p", 11, 2), ("p", 1, 12), ("p/1/2", 1, 2)]
    assert len({derive_seed(0, *place) for place in places}) == len(places)
