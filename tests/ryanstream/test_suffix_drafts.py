"""A draft tree holds the nodes that are likeliest to be reached, by an estimate that grows with match and number."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.ryanstream.speculative.draft_tree import EMPTY, MAX_DRAFT_NODES, ROOT, DraftTree
from mathlete.ryanstream.speculative.suffix_drafts import LENGTH, MIN_REACH, OWN, POWER, draft_tree
from mathlete.ryanstream.speculative.suffix_entries import MAX_MATCH
from mathlete.ryanstream.speculative.suffix_index import Occurrence

OCCURRENCES = st.lists(
    st.builds(
        lambda past, future, num_matched, is_own: Occurrence(past + future, len(past), num_matched, is_own),
        st.lists(st.integers(0, 2), max_size=2),
        st.lists(st.integers(0, 2), max_size=6),
        st.integers(1, MAX_MATCH),
        st.booleans(),
    ),
    max_size=6,
)


def estimates(occurrences: list[Occurrence], followed: tuple[int, ...]) -> dict[int, float]:
    """What comes after these tokens, by the formula."""
    votes: dict[int, float] = {}
    for ids, place, num_matched, is_own in occurrences:
        future = ids[place:]
        if tuple(future[: len(followed)]) == followed and len(future) > len(followed):
            length = min(MAX_MATCH, num_matched + len(followed))
            weight = (OWN if is_own else 1) * (length / LENGTH) ** POWER
            votes[future[len(followed)]] = votes.get(future[len(followed)], 0) + weight
    total = sum(votes.values())
    return {token: vote / total * total**0.5 / (1 + total**0.5) for token, vote in votes.items()}


def all_reaches(occurrences: list[Occurrence], max_depth: int) -> dict[tuple[int, ...], float]:
    """How often each path that is worth a row is reached, by going through all of them."""
    reaches = {(): 1.0}
    for depth in range(max_depth):
        for path in [path for path in reaches if len(path) == depth]:
            for token, estimate in estimates(occurrences, path).items():
                if reaches[path] * estimate >= MIN_REACH:
                    reaches[(*path, token)] = reaches[path] * estimate
    del reaches[()]
    return reaches


def reaches_of(tree: DraftTree) -> dict[tuple[int, ...], float]:
    """How often each of a tree's paths is reached, by its confidences."""
    reaches: dict[tuple[int, ...], float] = {}
    for path in tree.paths():
        reach = 1.0
        for node in path:
            reach *= tree.confidences[node]
        reaches[tuple(tree.token_ids[node] for node in path)] = reach
    return reaches


@settings(deadline=None)
@given(OCCURRENCES, st.integers(1, MAX_DRAFT_NODES), st.integers(1, 8))
def test_the_tree_is_the_best_there_is(occurrences: list[Occurrence], max_nodes: int, max_depth: int) -> None:
    tree = draft_tree(occurrences, max_nodes, max_depth)
    everything = all_reaches(occurrences, max_depth)
    found = reaches_of(tree)
    assert tree.num_nodes == min(max_nodes, len(everything))
    assert max(tree.depths(), default=0) <= max_depth
    for path, reach in found.items():
        assert reach == pytest.approx(everything[path])
    best = sorted(everything.values(), reverse=True)[:max_nodes]
    assert sorted(found.values(), reverse=True) == pytest.approx(best)


@settings(deadline=None)
@given(OCCURRENCES)
def test_estimates_of_siblings_leave_room_for_something_new(occurrences: list[Occurrence]) -> None:
    tree = draft_tree(occurrences, MAX_DRAFT_NODES, 8)
    sums = dict.fromkeys(tree.parents, 0.0)
    for parent, confidence in zip(tree.parents, tree.confidences, strict=True):
        assert 0 < confidence < 1
        sums[parent] += confidence
    assert all(total < 1 for total in sums.values())


def first_confidence(*occurrences: Occurrence) -> float:
    """Of the first token of the tree."""
    return draft_tree(occurrences, 8, 4).confidences[0]


def test_a_longer_match_is_worth_more_and_so_is_another_one() -> None:
    by_length = [first_confidence(Occurrence([5], 0, num, False)) for num in range(1, MAX_MATCH + 1)]
    assert by_length == sorted(set(by_length)) and by_length[2] < 0.7 and by_length[19] > 0.9
    by_number = [first_confidence(*[Occurrence([5], 0, 2, False)] * num) for num in range(1, 9)]
    assert by_number == sorted(set(by_number))
    assert first_confidence(Occurrence([5], 0, 2, True)) > by_number[0]


def test_a_guess_deeper_down_has_matched_more() -> None:
    tree = draft_tree([Occurrence([9, 1, 2, 3, 4], 1, 3, False)], 8, 8)
    assert tree.token_ids == (1, 2, 3, 4) and tree.is_chain
    assert all(above < below for above, below in itertools.pairwise(tree.confidences))


def test_what_is_followed_by_nothing_is_no_guess() -> None:
    assert draft_tree([Occurrence([1, 2], 2, 8, True)], 8, 8) is EMPTY
    assert draft_tree([], 8, 8) is EMPTY


def test_the_likelier_branch_comes_first() -> None:
    often, once = Occurrence([1, 2], 0, 5, False), Occurrence([3, 4], 0, 5, False)
    tree = draft_tree([often, once, often], 3, 8)
    assert (tree.token_ids, tree.parents) == ((1, 2, 3), (ROOT, 0, ROOT))
