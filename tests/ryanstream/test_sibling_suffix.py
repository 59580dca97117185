"""The proposers without a model: who sees whose tokens, rewinds, ends, the ceiling, hostile input."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.speculative.draft_tree import EMPTY, MAX_DRAFT_NODES, DraftTree
from mathlete.ryanstream.speculative.ngram import NgramProposer
from mathlete.ryanstream.speculative.proposer import DraftSlot, Proposer
from mathlete.ryanstream.speculative.sibling_suffix import SiblingSuffixProposer

PROMPT = [*range(100, 140)]
ARRIVALS = itertools.count()
TOKENS = st.sampled_from([0, 1, 2, 151_935])
PROPOSERS = pytest.mark.parametrize("kind", [NgramProposer, SiblingSuffixProposer])


def asked(group: str | None = None, prompt: Sequence[int] = PROMPT, output: Sequence[int] = ()) -> EngineRequest:
    """A request that has got so far."""
    number = next(ARRIVALS)
    request = EngineRequest(f"r{number}", tuple(prompt), SamplingParams(), group, number, Status.RUNNING)
    request.output_ids += output
    return request


def draft(proposer: Proposer, request: EngineRequest, max_nodes: int = 8, max_depth: int = 8) -> DraftTree:
    """The tree for one request."""
    (tree,) = proposer.propose([DraftSlot(request, max_nodes, max_depth)])
    return tree


def go_back(request: EngineRequest, num_tokens: int) -> None:
    """As the engine's rewind leaves a request."""
    del request.output_ids[max(0, len(request.output_ids) - num_tokens) :]
    request.num_rewinds += 1


@PROPOSERS
def test_a_request_repeats_itself(kind: type[NgramProposer]) -> None:
    proposer = kind()
    request = asked(prompt=[1, 2, 3, 4, 5, 9], output=[2, 3])
    assert draft(proposer, request).token_ids[:3] == (4, 5, 9)
    request.output_ids += [4]
    assert draft(proposer, request).token_ids[:2] == (5, 9)
    assert (proposer.wants_hidden, proposer.step_cost_s) == (False, 0.0)


def test_siblings_are_seen_and_nobody_else() -> None:
    proposer = SiblingSuffixProposer()
    others = [asked("b", output=[1, 2, 3, 7]), asked(None, output=[1, 2, 3, 8]), asked("a", output=[1, 2, 3, 4])]
    trees = proposer.propose([DraftSlot(other, 8, 8) for other in others])
    assert len(trees) == 3
    assert draft(proposer, asked("a", output=[1, 2])).token_ids == (3, 4)
    assert draft(proposer, asked("c", output=[1, 2])) is EMPTY
    assert draft(proposer, asked(None, output=[1, 2])) is EMPTY
    proposer.check_integrity()


def test_an_ngram_proposer_does_not_look_at_siblings() -> None:
    proposer = NgramProposer()
    assert draft(proposer, asked("a", output=[1, 2, 3, 4])) is EMPTY
    assert draft(proposer, asked("a", output=[1, 2])) is EMPTY


def test_siblings_in_one_step_see_each_other() -> None:
    proposer = SiblingSuffixProposer()
    behind, ahead = asked("a", output=[1, 2]), asked("a", output=[1, 2, 3])
    assert proposer.propose([DraftSlot(behind, 8, 8), DraftSlot(ahead, 8, 8)])[0].token_ids == (3,)


def test_the_last_tokens_of_an_ended_request_are_read() -> None:
    """Whether it was ever guessed for, finished, or was aborted while waiting for its next step."""
    proposer = SiblingSuffixProposer()
    ended, aborted, unseen = (asked("a", output=[token]) for token in (10, 20, 30))
    draft(proposer, ended)
    draft(proposer, aborted)
    for request, more in ((ended, [11, 12]), (aborted, [21, 22]), (unseen, [31, 32])):
        request.output_ids += more
        proposer.forget(request)
    for token in (10, 20, 30):
        assert draft(proposer, asked("a", output=[token])).token_ids == (token + 1, token + 2)
    proposer.check_integrity()


def test_tool_outputs_of_a_later_turn_are_seen_once() -> None:
    proposer = SiblingSuffixProposer()
    turn = asked("a", output=[1, 2])
    draft(proposer, turn)
    proposer.forget(turn)
    before = proposer.num_tokens
    later = asked("a", prompt=[*PROMPT, 1, 2, 50, 51, 52])
    draft(proposer, later)
    assert proposer.num_tokens == before + 3
    assert draft(proposer, asked("a", output=[50])).token_ids == (51, 52)


def test_a_prompt_is_read_once() -> None:
    proposer = SiblingSuffixProposer()
    siblings = [asked("a", output=[token]) for token in range(32)]
    proposer.propose([DraftSlot(sibling, 4, 4) for sibling in siblings])
    assert proposer.num_tokens == len(PROMPT) + 32


@PROPOSERS
def test_what_a_request_took_back_is_not_guessed(kind: type[NgramProposer]) -> None:
    proposer = kind()
    request = asked("a", output=[1, 2, 3, 4, 5])
    draft(proposer, request)
    request.output_ids += [6]  # Not read yet.
    go_back(request, 4)  # Further than what was read.
    request.output_ids += [8, 9, 1, 2]
    assert draft(proposer, request).token_ids[:2] == (8, 9)
    proposer.check_integrity()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(TOKENS, max_size=12),
    st.lists(st.tuples(st.booleans(), st.lists(TOKENS, max_size=5), st.integers(0, 9), st.booleans()), max_size=12),
)
def test_a_request_that_went_back_is_as_if_it_had_never_gone(
    prompt: list[int], changes: list[tuple[bool, list[int], int, bool]]
) -> None:
    """Whatever is read in between, its drafts are those of a proposer that sees it for the first time."""
    for kind in (NgramProposer, SiblingSuffixProposer):
        proposer, request = kind(), asked(None, prompt)
        for goes_back, run, num, is_read in changes:
            if goes_back:
                go_back(request, num)
            request.output_ids += run
            if is_read:
                assert draft(proposer, request) == draft(kind(), request)
                proposer.check_integrity()
        proposer.forget(request)
        assert proposer.num_tokens == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from("ngf..."), st.lists(TOKENS, max_size=8), st.integers(0, 9)),
        max_size=40,
    ),
    st.sampled_from([1, 20, 10_000]),
    st.integers(1, MAX_DRAFT_NODES),
    st.integers(1, 9),
)
def test_any_history_gives_trees_within_their_limits(
    history: list[tuple[int, str, list[int], int]], max_tokens: int, max_nodes: int, max_depth: int
) -> None:
    """Requests of three groups and of none come, go back, end, in any order and under any ceiling."""
    proposer = SiblingSuffixProposer(max_tokens)
    requests: dict[int, EngineRequest] = {}
    for number, what, run, num in history:
        if number not in requests:
            prompt = next(iter(requests.values())).token_slice(0, num) if requests else []
            requests[number] = asked((None, "a", "b", "c")[number % 4], [*prompt, *run])
        request = requests[number]
        if what == "g":
            go_back(request, num)
        request.output_ids += run
        if what == "f":
            proposer.forget(requests.pop(number))
        elif what != "n":
            tree = draft(proposer, request, max_nodes, max_depth)
            assert tree.num_nodes <= max_nodes and max(tree.depths(), default=0) <= max_depth
        proposer.check_integrity()


def test_groups_that_were_idle_for_longest_are_forgotten_first() -> None:
    proposer = SiblingSuffixProposer(max_tokens=100)
    for group in ("a", "b"):
        request = asked(group, output=[1, 2, 3])
        draft(proposer, request)
        proposer.forget(request)
    assert draft(proposer, asked("a", output=[1])).token_ids == (2, 3)
    draft(proposer, asked("c", output=[4] * 20))  # 60 more tokens; `b` was idle for longest.
    assert proposer.num_tokens == 100
    assert draft(proposer, asked("a", output=[1])).token_ids == (2, 3)
    proposer.check_integrity()


def test_a_thousand_groups_leave_no_more_than_the_ceiling() -> None:
    proposer = SiblingSuffixProposer(max_tokens=500)
    for number in range(1_000):
        request = asked(f"g{number}", output=[number])
        draft(proposer, request)
        proposer.forget(request)
    assert proposer.num_tokens <= 500
    assert len(proposer._groups) <= 500 // len(PROMPT) + 1
    proposer.check_integrity()


@PROPOSERS
def test_an_empty_history_is_no_guess(kind: type[NgramProposer]) -> None:
    proposer = kind()
    request = asked("a", prompt=[])
    assert draft(proposer, request) is EMPTY
    request.output_ids.append(1_000_000)
    assert draft(proposer, request) is EMPTY
    proposer.forget(request)
    proposer.forget(asked("a", prompt=[]))
    proposer.forget(asked(None, prompt=[]))
    proposer.check_integrity()
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        kind(0)


@PROPOSERS
def test_one_token_over_and_over_takes_no_longer_than_any_other(kind: type[NgramProposer]) -> None:
    """Quadratic work would take minutes."""
    proposer, request = kind(), asked("a", prompt=[7], output=[7])
    start_s = time.process_time()
    for _ in range(4_000):
        request.output_ids.append(7)
        tree = draft(proposer, request, 16, 8)
    assert tree.token_ids == (7,) * 8 and min(tree.confidences) > 0.9
    assert time.process_time() - start_s < 10


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_the_count_of_tokens_is_right_whatever_happens(seed: int) -> None:
    """Forks, rewinds and ends under a ceiling that is always in the way."""
    rng = random.Random(seed)
    proposer = SiblingSuffixProposer(max_tokens=120)
    running: list[EngineRequest] = []
    for _ in range(60):
        choice = rng.random()
        if not running or choice < 0.2:
            running.append(asked(rng.choice("ab"), [rng.randrange(3) for _ in range(rng.randint(1, 40))]))
        elif choice < 0.3:
            parent = rng.choice(running)
            number = next(ARRIVALS)
            running.append(parent.forked(f"r{number}", parent.sampling, number))
        elif choice < 0.45:
            go_back(rng.choice(running), rng.randint(0, 30))
        elif choice < 0.6:
            proposer.forget(running.pop(rng.randrange(len(running))))
        else:
            request = rng.choice(running)
            request.output_ids += [rng.randrange(3) for _ in range(rng.randint(0, 12))]
            draft(proposer, request)
        proposer.check_integrity()
    for request in running:
        proposer.forget(request)
        proposer.check_integrity()
