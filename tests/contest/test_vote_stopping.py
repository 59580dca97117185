"""Whether a vote is settled, against brute force and against numeric integration."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.contest.stopping import leader_posterior, leader_uncatchable, margin


def can_be_caught(votes: tuple[int, ...], num_outstanding: int) -> bool:
    """Whether some way of voting (for any answer, a new one, or none) leaves the leader not alone in front."""
    leader = votes.index(max(votes))
    choices = range(len(votes) + 2)  # the last two: a new answer, and no vote
    for ballots in itertools.combinations_with_replacement(choices, num_outstanding):
        final = [*votes, 0]
        for ballot in ballots:
            if ballot <= len(votes):
                final[ballot] += 1
        if any(count >= final[leader] for index, count in enumerate(final) if index != leader):
            return True
    return False


@pytest.mark.parametrize("num_outstanding", range(5))
def test_uncatchable_is_what_brute_force_says(num_outstanding: int) -> None:
    for num_answers in (1, 2, 3):
        for votes in itertools.product(range(1, 6), repeat=num_answers):
            expected = not can_be_caught(votes, num_outstanding)
            assert leader_uncatchable(votes, num_outstanding) == expected, (votes, num_outstanding)


def test_without_votes_nobody_leads() -> None:
    assert not leader_uncatchable([], 0)
    assert margin([]) == (0, 0)
    assert margin([3]) == (3, 0)
    assert margin([1, 5, 2]) == (5, 2)


def beta_tail(a: int, b: int, num_steps: int = 4000) -> float:
    """P(p > 1/2) for p ~ Beta(a, b), by Simpson's rule."""

    def density(p: float) -> float:
        return p ** (a - 1) * (1 - p) ** (b - 1)

    def integral(low: float, high: float) -> float:
        step = (high - low) / num_steps
        inner = math.fsum((4 if k % 2 else 2) * density(low + k * step) for k in range(1, num_steps))
        return step / 3 * (density(low) + inner + density(high))

    return integral(0.5, 1.0) / integral(0.0, 1.0)


@pytest.mark.parametrize(("leader", "second"), [(0, 0), (1, 0), (4, 0), (3, 1), (5, 2), (7, 7), (12, 4), (2, 9)])
def test_posterior_is_the_integral(leader: int, second: int) -> None:
    assert leader_posterior(leader, second) == pytest.approx(beta_tail(leader + 1, second + 1), rel=1e-9)


@given(st.integers(0, 200), st.integers(0, 200))
def test_posterior_is_a_probability_with_the_right_slope(leader: int, second: int) -> None:
    posterior = leader_posterior(leader, second)
    assert 0 <= posterior <= 1
    assert posterior + leader_posterior(second, leader) == pytest.approx(1)
    assert leader_posterior(leader + 1, second) >= posterior >= leader_posterior(leader, second + 1)


def test_posterior_of_votes_beyond_what_a_float_counts() -> None:
    assert leader_posterior(1000, 1000) == pytest.approx(0.5)
    assert leader_posterior(1500, 0) == 1.0
