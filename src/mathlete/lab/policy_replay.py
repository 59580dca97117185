"""What a policy makes of recorded attempts: the real driver and the policy objects of live solving, without a model.

A pool is shuffled, and the first k of it are the plain vote that a policy is compared with, on the same attempts. The
policy works through all problems against one budget, many attempts at once, as the driver does live: attempts end in
the order of their recorded seconds, or of their tokens at some speed. It asks for solutions only: a recording seldom
has the check, or the second round, that another policy would ask for. What it asks for beyond a pool is refused at no
cost.

Knows recorded problems and figures; does not know files, or how either is shown.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mathlete.core.policy import Action, Policy, PoolState, Stop
from mathlete.core.protocols import Selector
from mathlete.lab.metrics import Estimate, bootstrap_estimates, majority_score
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.replay_costs import Costed, longest, with_costs
from mathlete.lab.rightness import recorded_as_right
from mathlete.lab.simulated_session import Ended, simulate
from mathlete.triad.driver import DriverConfig
from mathlete.triad.integration import OUT_OF_TOKENS
from mathlete.triad.pipeline import AVAILABLE
from mathlete.triad.policies import PolicyName, PolicySettings, make_policy, selector_of, stretch_of, weigher_of
from mathlete.triad.recorded_source import RecordedConfig, Speed

NO_BUDGET_S = 1e9  # seconds: as good as none
_NUM_STEPS = 5_000  # of a budget: how often a policy is asked at least while nothing ends
_STEPS_OF_ATTEMPT = 50  # with a budget of tokens: no more often than so many times an attempt
_SHORTEST_STEP_S = 1e-6
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_AT_ONCE = 200  # problems of a session without a budget: nothing is shared between them but slots


@dataclass(frozen=True, slots=True)
class PolicyReplay:
    """What is replayed.

    Attributes:
        policy: "fixed" (all attempts), "vote" (until the vote is settled), "triad" or "pipeline" (the best scored one).
        selector: name of the rule that chooses the answer.
        stop: name of the rule that says when a vote is settled; "fixed" never asks it.
        attempts: attempts a problem at most, k.
        budget_s: seconds for all problems together, on the simulated clock; None for no limit.
        token_budget: tokens for all problems together; None for no limit. Attempts in flight when they are spent are
            cut off and counted as far as they had come.
        slots: attempts generating at once, over all problems.
        speed: of generating; None to let each attempt take its recorded seconds.
        orders: random orders of problems and attempts that the figures are means over; 0 for the recorded order.
        seed: of the orders.
        scorer: name of what "pipeline" scores attempts by.
    """

    policy: PolicyName = "triad"
    selector: str = "majority"
    stop: str = "settled"
    attempts: int = 8
    budget_s: float | None = None
    token_budget: int | None = None
    slots: int = 32
    speed: Speed | None = None
    orders: int = 10
    seed: int = 0
    scorer: str = AVAILABLE

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        self.settings()
        for name, least in (("attempts", 1), ("slots", 1), ("orders", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, not {getattr(self, name)}")
        for name in ("budget_s", "token_budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, not {value}")

    def settings(self) -> PolicySettings:
        """What the policy is made of."""
        return PolicySettings(self.policy, self.attempts, self.selector, self.stop, scorer=self.scorer)


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """What came of it. Means over problems and orders; intervals by resampling groups of problems.

    Attributes:
        replay: what was replayed.
        num_problems: problems.
        num_short: problems with fewer recorded attempts than `replay.attempts`.
        accuracy: of the answers handed in; a fallback is wrong even where it happens to be right.
        majority: of the plain vote over the first k attempts of each pool, ties counted in parts.
        vs_majority: the difference, paired problem by problem.
        tokens: a problem, cut-off attempts included; None where the recordings do not say.
        token_share: of what the first k attempts cost; None where the recordings do not say.
        seconds: of a whole order, on the simulated clock; None where the recordings do not say.
        attempts: a problem, those that were cut off included.
        answers: a problem: attempts that ended with an answer.
        no_answer: share of problems that no attempt had an answer for.
        stop_reasons: how often problems ended why, over all orders; numbers in a reason are left out.
    """

    replay: PolicyReplay
    num_problems: int
    num_short: int
    accuracy: Estimate
    majority: Estimate
    vs_majority: Estimate
    tokens: float | None
    token_share: float | None
    seconds: float | None
    attempts: float
    answers: float
    no_answer: float
    stop_reasons: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def replay_policy(
    problems: Sequence[RecordedProblem],
    config: PolicyReplay,
    on_progress: Callable[[int, int], None] | None = None,
) -> PolicyFigures:
    """Work through `problems` as `config` says.

    Args:
        problems: recorded; checks and attempts of later rounds are left out, and so are attempts that somebody stopped
            or that the generator lost, which are no samples of what the model can do.
        config: what is replayed.
        on_progress: told of problems replayed so far, and of all.

    Raises:
        InputError: there are no problems, or an attempt does not say what a budget or speed needs; the message says
            which. Without a budget or speed, attempts end by their tokens where not all tell their seconds, and one
            after the other where not all tell these.
    """
    costed = with_costs(problems, budget_s=config.budget_s, token_budget=config.token_budget, speed=config.speed)
    num_orders = max(1, config.orders)
    tallies = {item.problem.id: _Tally() for item in costed.problems}
    seconds, reasons, num_done = 0.0, Counter[str](), 0
    for number in range(num_orders):
        for part in _sessions(costed.problems, config, number):
            seconds += _one_session(part, config, costed, number, tallies, reasons)
            num_done += len(part)
            if on_progress is not None:
                on_progress(num_done, num_orders * len(costed.problems))
    return _figures(config, costed, tallies, seconds / num_orders, reasons)


def replay_curve(
    problems: Sequence[RecordedProblem],
    config: PolicyReplay,
    *,
    attempts: Sequence[int] = (),
    budgets_s: Sequence[float] = (),
    token_budgets: Sequence[int] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[PolicyFigures, ...]:
    """Figures at each of several numbers of attempts, or budgets, all else as `config` says: points of a curve.

    Raises:
        InputError: see `replay_policy`.
        ValueError: unless exactly one of the three sequences has something in it.
    """
    if sum(map(bool, (attempts, budgets_s, token_budgets))) != 1:
        raise ValueError("a curve is over attempts, budgets_s or token_budgets: give one of them")
    points = (
        *(replace(config, attempts=k) for k in attempts),
        *(replace(config, budget_s=budget) for budget in budgets_s),
        *(replace(config, token_budget=budget) for budget in token_budgets),
    )
    found = []
    for number, point in enumerate(points):

        def tell(done: int, num: int, before: int = number) -> None:
            if on_progress is not None:
                on_progress(before * num + done, len(points) * num)

        found.append(replay_policy(problems, point, tell))
    return tuple(found)


# --- one session ---


@dataclass(slots=True)
class _Tally:
    """Sums over the orders, of one problem."""

    right: float = 0.0
    majority: float = 0.0
    tokens: int = 0
    tokens_of_all: int = 0
    attempts: int = 0
    answers: int = 0
    fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class CappedPolicy:
    """A policy under a budget of tokens that it does not know of itself: ends problems when they are spent.

    Attributes:
        policy: decides until then.
        selector: chooses the answer then.
    """

    policy: Policy
    selector: Selector

    def decide(self, state: PoolState) -> Action:
        """As the policy, while there are tokens."""
        if state.outlook is not None and state.outlook.tokens_left == 0:
            return Stop(self.selector.select(state.problem, state.attempts), OUT_OF_TOKENS)
        return self.policy.decide(state)


def _sessions(
    problems: Sequence[RecordedProblem], config: PolicyReplay, number: int
) -> Iterator[tuple[RecordedProblem, ...]]:
    """Problems and attempts in the order of that number, as many together as share a budget."""
    ordered = tuple(problems)
    if config.orders:
        rng = random.Random(f"{config.seed}/{number}")
        ordered = tuple(_shuffled(item, rng) for item in rng.sample(ordered, len(ordered)))
    has_budget = config.budget_s is not None or config.token_budget is not None
    size = len(ordered) if has_budget else _AT_ONCE
    return (ordered[begin : begin + size] for begin in range(0, len(ordered), size))


def _shuffled(item: RecordedProblem, rng: random.Random) -> RecordedProblem:
    drawn = rng.sample(range(len(item.attempts)), len(item.attempts))
    return replace(item, attempts=tuple(item.attempts[i] for i in drawn), correct=tuple(item.correct[i] for i in drawn))


def _one_session(
    part: Sequence[RecordedProblem],
    config: PolicyReplay,
    costed: Costed,
    number: int,
    tallies: Mapping[str, _Tally],
    reasons: Counter[str],
) -> float:
    """Hold a session and add what came of it; the seconds it took."""
    pools = {
        item.problem.id: tuple(replace(attempt, index=i) for i, attempt in enumerate(item.attempts)) for item in part
    }
    policy = make_policy(config.settings())
    if config.token_budget is not None and config.policy != "triad":
        policy = CappedPolicy(policy, selector_of(config.settings()))
    budget_s = config.budget_s or NO_BUDGET_S
    max_step_s = _longest_step_s(part, config, costed.speed)
    session = simulate(
        [item.problem for item in part], pools, policy, budget_s,
        driving=DriverConfig(
            config.attempts, config.slots, token_budget=config.token_budget, stretch=stretch_of(config.policy),
            max_tokens=longest(part),
        ),
        recorded=RecordedConfig(costed.speed, max_step_s=max_step_s, any_pillar=True),
        weigh=weigher_of(config.policy),
    )  # fmt: skip
    for item in part:
        ended, tally = session.problems[item.problem.id], tallies[item.problem.id]
        _add(tally, item, ended, config.attempts)
        reasons[_NUMBER.sub("#", ended.reason)] += 1
    return session.elapsed_s


def _longest_step_s(part: Sequence[RecordedProblem], config: PolicyReplay, speed: Speed | None) -> float:
    """How long a policy may go without being asked: not at all long where time or tokens may run out meanwhile."""
    steps = [NO_BUDGET_S]
    if config.budget_s is not None:
        steps.append(config.budget_s / _NUM_STEPS)
    attempts = [attempt for item in part for attempt in item.attempts]
    if config.token_budget is not None and attempts:
        tokens = math.fsum(attempt.num_tokens for attempt in attempts)
        work_s = math.fsum(attempt.elapsed_s for attempt in attempts) if speed is None else tokens / speed.alone
        spent_in_s = config.token_budget * work_s / max(1.0, tokens) / config.slots  # all slots at work
        steps.append(max(spent_in_s / _NUM_STEPS, work_s / len(attempts) / _STEPS_OF_ATTEMPT))
    return max(_SHORTEST_STEP_S, min(steps))


def _add(tally: _Tally, item: RecordedProblem, ended: Ended, k: int) -> None:
    first = item.attempts[:k]
    tally.right += not ended.is_fallback and recorded_as_right(item, ended.answer)
    tally.majority += majority_score([attempt.answer for attempt in first], item.correct[:k])
    tally.tokens += ended.num_tokens
    tally.tokens_of_all += sum(attempt.num_tokens for attempt in first)
    tally.attempts += ended.num_attempts
    tally.answers += ended.num_answers
    tally.fallbacks += ended.is_fallback


# --- figures ---


def _figures(
    config: PolicyReplay, costed: Costed, tallies: Mapping[str, _Tally], seconds: float, reasons: Counter[str]
) -> PolicyFigures:
    told, num_orders = list(tallies.values()), max(1, config.orders)
    columns = {
        "accuracy": [tally.right / num_orders for tally in told],
        "majority": [tally.majority / num_orders for tally in told],
        "vs_majority": [(tally.right - tally.majority) / num_orders for tally in told],
    }
    found = bootstrap_estimates(columns, [item.group for item in costed.problems])
    num = len(told) * num_orders
    tokens, of_all = sum(tally.tokens for tally in told), sum(tally.tokens_of_all for tally in told)
    return PolicyFigures(
        replay=config,
        num_problems=len(told),
        num_short=sum(len(item.attempts) < config.attempts for item in costed.problems),
        accuracy=found["accuracy"],
        majority=found["majority"],
        vs_majority=found["vs_majority"],
        tokens=tokens / num if costed.knows_tokens else None,
        token_share=tokens / of_all if costed.knows_tokens and of_all else None,
        seconds=seconds if costed.knows_seconds else None,
        attempts=sum(tally.attempts for tally in told) / num,
        answers=sum(tally.answers for tally in told) / num,
        no_answer=sum(tally.fallbacks for tally in told) / num,
        stop_reasons=dict(reasons.most_common()),
    )
