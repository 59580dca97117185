"""Whether one more attempt at a problem is worth its price, while other problems wait. Pure: state in, decision out.

*Value* is what an attempt adds to the chance that the selected answer is right (`contest/answer_model.py`). One attempt
alone may never change the leader while three together do, so the value is the best rate over the next few attempts,
max over m of gain(m) / m (the KG(*) rule of Frazier and Powell 2010, "Paradoxes in learning and the marginal value of
information").

*Price* is what the same tokens would add elsewhere. Problems that wait are worth as much as problems of the prior: if
each of them is worked on while an attempt's value exceeds x, it takes D(x) attempts on average (`Demand`). The price
is the x at which that demand uses up what is left: bank time early and it falls, fall behind and it rises. An attempt
that is longer than others costs more; when nobody else could use the time, it is free.

Knows nothing of hard limits: `contest/clock.py` has the deadlines, which hold whatever is decided here.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mathlete.cic.majority import votes_of
from mathlete.contest.answer_model import Counts, PoolPrior, chance_right, support_of
from mathlete.contest.clock import PLANNED_PART
from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.policy import Outlook, PoolState

# An attempt that adds less to the chance of being right is not worth making, even when it is free.
MIN_VALUE = 0.0005

_LOOKAHEAD = 4  # attempts; a leader that is further ahead is settled for what it costs to catch it
_MAX_FLYING = 5  # attempts in flight that are looked through; more hardly change what another would add
_CONFIDENCE_STEPS = 50  # confidences are rounded, so that the same pools meet again in the cache
_OWN_WEIGHT = 2.0  # attempts of the run's average that a problem's own lengths are weighed against
_WAITING = "while nothing else runs: "
_LENGTH_SIGMA = 0.43  # of the logarithm of lengths of attempts at one problem (`benchmarks/fit_clock.py lengths`)


@dataclass(frozen=True, slots=True)
class Demand:
    """How many attempts a problem takes when it is worked on as long as an attempt is worth a price.

    Attributes:
        prices: chances of being right an attempt, falling.
        attempts: expected attempts a problem at each price, rising; in units of the average attempt's tokens.
    """

    prices: tuple[float, ...]
    attempts: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` when this is no demand curve."""
        if len(self.prices) != len(self.attempts) or len(self.prices) < 2:
            raise ValueError(
                f"need as many prices as attempts, at least 2, not {len(self.prices)}, {len(self.attempts)}"
            )
        if sorted(self.prices, reverse=True) != list(self.prices) or sorted(self.attempts) != list(self.attempts):
            raise ValueError("prices must fall and attempts rise")

    def price_at(self, attempts: float) -> float:
        """The price at which a problem takes `attempts` on average; linear in the logarithm between the points."""
        if attempts <= self.attempts[0]:
            return self.prices[0]
        if attempts >= self.attempts[-1]:
            return self.prices[-1]
        i = bisect.bisect_right(self.attempts, attempts)
        low, high = self.attempts[i - 1], self.attempts[i]
        part = (attempts - low) / (high - low)
        return math.exp(math.log(self.prices[i - 1]) * (1 - part) + math.log(self.prices[i]) * part)


@dataclass(frozen=True, slots=True)
class Worth:
    """What one more attempt brings and costs, both as a chance that the problem's answer is right.

    Attributes:
        value: expected gain on this problem.
        price: expected gain elsewhere for the same tokens; 0 when nobody else could use them.
        chance: that the answer selected now is right.
        reason: for the trace.
    """

    value: float
    price: float
    chance: float
    reason: str

    @property
    def pays(self) -> bool:
        """Whether it should be made."""
        return self.value >= max(self.price, MIN_VALUE)


# Fitted to 43 models' answers to 647 problems of MATH level 5 (`benchmarks/fit_clock.py prior`).
PRIOR = PoolPrior(right=1.4, null=0.25, wrong=2.0, concentration=1.4, discount=0.69)

# `benchmarks/fit_clock.py demand`.
DEMAND = Demand(
    prices=(0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001),
    attempts=(1.1, 1.1, 4.35, 4.48, 4.62, 7.59, 8.53, 9.35),
)


def worth_another(
    state: PoolState,
    *,
    confidence: float | None = None,
    selected: str | None = None,
    solve_rate: float | None = None,
    num_in_flight: int | None = None,
    least: float = 0.0,
    overhead: float = 0.0,
    prior: PoolPrior = PRIOR,
    demand: Demand = DEMAND,
) -> Worth:
    """Whether to make one more attempt at a problem, besides those in flight.

    Args:
        state: the problem's pool, with the run's outlook; without an outlook an attempt is free.
        confidence: the calibrated chance that the selected answer is right, where a selector knows more than votes.
        selected: its answer; that with most votes when None.
        solve_rate: the expected share of right attempts, by anything but their votes (`contest/difficulty.py`): votes
            are counted here.
        num_in_flight: attempts that are under way; those of the first round when None. 0 asks instead
            whether it is worth waiting for those that are (`worth_waiting`).
        least: attempts that every problem that waits is to get, whatever they are worth. Nothing more is worth its
            price while what is left is not enough for that.
        overhead: what each of them takes besides attempts, such as checks, in attempts of average length.
        prior: of problems.
        demand: of the problems that wait.
    """
    if solve_rate is not None:
        prior = prior.with_solve_rate(min(max(round(solve_rate, 1), 0.1), 0.9))
    counts, nulls = counts_of(state.attempts, selected)
    support = 1.0
    if confidence is not None and counts:
        rounded = round(confidence * _CONFIDENCE_STEPS) / _CONFIDENCE_STEPS
        support = support_of(rounded, counts, nulls, prior)
    flying = state.num_trying if num_in_flight is None else num_in_flight
    value, now = _value(counts, nulls, prior, support, min(flying, _MAX_FLYING))
    ended = [attempt for attempt in state.attempts if attempt.failure not in CUT_OFF and not attempt.is_check]
    value *= _chance_to_finish(ended, state.remaining_s)
    price = _price(ended, state.outlook, demand, least, overhead)
    return Worth(value, price, now, _reason(value, price, now))


def worth_waiting(
    state: PoolState,
    *,
    confidence: float | None = None,
    selected: str | None = None,
    solve_rate: float | None = None,
    least: float = 0.0,
    overhead: float = 0.0,
    prior: PoolPrior = PRIOR,
    demand: Demand = DEMAND,
) -> Worth:
    """Whether to wait for the attempts in flight, or to end the problem; arguments as in `worth_another`.

    The price is higher where the next problem cannot begin before this one ends (see `_idling`).
    """
    worth = worth_another(
        state, confidence=confidence, selected=selected, solve_rate=solve_rate, num_in_flight=0, least=least,
        overhead=overhead, prior=prior, demand=demand,
    )  # fmt: skip
    idling = _idling(state)
    return worth if idling == 1 else replace(worth, price=worth.price * idling, reason=_WAITING + worth.reason)


def counts_of(attempts: Sequence[Attempt], selected: str | None = None) -> tuple[Counts, int]:
    """Votes of each answer, the selected one's (else the most frequent one's) first, and attempts without an answer.

    Checks do not vote, nor do attempts that tell nothing (`Attempt.tells_nothing`).
    """
    votes = Counter(vote.answer for vote in votes_of(attempts))
    nulls = sum(attempt.answer is None and not attempt.is_check and not attempt.tells_nothing for attempt in attempts)
    first = votes.pop(selected, 0) if selected is not None else 0
    others = tuple(sorted(votes.values(), reverse=True))
    return ((first, *others) if first else others), nulls


def attempts_left(outlook: Outlook) -> float | None:
    """Attempts of average length that time and tokens have room for; None when neither is known."""
    in_time = None if outlook.tokens_per_s is None else PLANNED_PART * outlook.remaining_s * outlook.tokens_per_s
    known = [tokens for tokens in (in_time, outlook.tokens_left) if tokens is not None]
    return min(known) / outlook.tokens_per_attempt if known else None


@lru_cache(1 << 16)
def _value(counts: Counts, nulls: int, prior: PoolPrior, support: float, flying: int) -> tuple[float, float]:
    """What an attempt adds once those in flight have ended, and the chance that the best answer is right now."""
    now, *ahead = (
        chance_right(counts, nulls, prior, num_more=more, support=support)
        for more in (0, *range(flying, flying + _LOOKAHEAD + 1))
    )
    return max((ahead[m] - ahead[0]) / m for m in range(1, _LOOKAHEAD + 1)), now


def _price(ended: Sequence[Attempt], outlook: Outlook | None, demand: Demand, least: float, overhead: float) -> float:
    others = 0.0 if outlook is None else outlook.num_waiting + 0.5 * max(0, outlook.num_open - 1)
    if outlook is None or others == 0:
        return 0.0
    left = attempts_left(outlook)
    if left is None:
        return 0.0
    length = _own_tokens(ended, outlook.tokens_per_attempt) / outlook.tokens_per_attempt
    for_each = max(0.0, left - length) / others - overhead
    return 1.0 if for_each < least else length * demand.price_at(max(0.0, for_each))


def _idling(state: PoolState) -> float:
    """How much dearer waiting is than the tokens of those waited for, as the rest of the machine stands idle.

    Where problems come strictly in turn, attempts that are left over run alone: tokens are sampled more slowly than
    the run does on average, by this factor. 1 where other problems may use the machine.
    """
    outlook, flying = state.outlook, state.num_trying
    if outlook is None or outlook.tokens_per_s is None or outlook.num_open > 1 or not outlook.num_waiting or not flying:
        return 1.0
    ended = [attempt for attempt in state.attempts if attempt.failure not in CUT_OFF and not attempt.is_check]
    tokens, seconds = sum(a.num_tokens for a in ended), sum(a.elapsed_s for a in ended)
    return max(1.0, seconds / tokens * outlook.tokens_per_s / flying) if tokens else 1.0


def _own_tokens(ended: Sequence[Attempt], average: float) -> float:
    """Expected tokens of the problem's next attempt: its own lengths, drawn towards the run's average."""
    return (sum(attempt.num_tokens for attempt in ended) + _OWN_WEIGHT * average) / (len(ended) + _OWN_WEIGHT)


def _chance_to_finish(ended: Sequence[Attempt], remaining_s: float) -> float:
    """The chance that an attempt launched now ends before the problem's deadline.

    Lengths are taken as lognormal, around the mean of the problem's own, which is as uncertain as these are few.
    """
    if remaining_s <= 0:
        return 0.0
    logs = [math.log(attempt.elapsed_s) for attempt in ended if attempt.elapsed_s > 0]
    if not logs:
        return 1.0
    sigma = _LENGTH_SIGMA * math.sqrt(1 + 1 / len(logs))
    return 0.5 * (1 + math.erf((math.log(remaining_s) - math.fsum(logs) / len(logs)) / (sigma * math.sqrt(2))))


def _reason(value: float, price: float, now: float) -> str:
    return (
        f"another attempt adds {value:.4f} to the chance of being right, now {now:.2f}; "
        f"elsewhere its tokens add {price:.4f}"
    )
