"""Many contests over recorded attempts, and what a policy comes to in them.

With two runs the second meets the same problems on another day, with other attempts where the recording has enough,
and the score is that of the private board of AIMO-3. Knows policies by name and the score; how one contest is drawn
and held is in `lab.contest`. Does not know files, or how figures are shown.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from mathlete.lab.bootstrap import Estimate, bootstrap_estimates
from mathlete.lab.contest import ContestOutcome, draw_contest, draw_faults, hold_contest
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.replay_costs import Costed, longest, with_costs
from mathlete.lab.two_runs import two_run_score_of_right
from mathlete.triad.driver import DriverConfig
from mathlete.triad.pipeline import AVAILABLE
from mathlete.triad.policies import PolicyName, PolicySettings, make_policy, stretch_of, weigher_of
from mathlete.triad.recorded_source import Faults, Speed

RESERVE_PART = 1 / 30  # of the clock that teams leave: 17,400 s of 18,000 s are planned with


@dataclass(frozen=True, slots=True)
class ContestReplay:
    """What is replayed.

    Attributes:
        policy: "fixed", "vote", "triad" or "pipeline".
        selector: name of the rule that chooses the answer.
        stop: name of the rule that says when a vote is settled.
        attempts: attempts a problem at most.
        num_problems: of a contest; all there are when the recording has fewer.
        limit_s: seconds after which a contest is lost; `RESERVE_PART` of them is not planned with.
        num_runs: 1, or 2 for the score of two runs.
        num_contests: contests drawn.
        slots: attempts generating at once.
        speed: of generating, on an average day; None to let each attempt take its recorded seconds.
        has_faults: whether anything goes wrong.
        seed: of the first contest; those after it have the next ones.
        scorer: name of what "pipeline" scores attempts by.
    """

    policy: PolicyName = "triad"
    selector: str = "majority"
    stop: str = "settled"
    attempts: int = 8
    num_problems: int = 50
    limit_s: float = 18_000.0
    num_runs: int = 2
    num_contests: int = 100
    slots: int = 8
    speed: Speed | None = None
    has_faults: bool = True
    seed: int = 0
    scorer: str = AVAILABLE

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        self.settings()
        for name in ("attempts", "num_problems", "num_contests", "slots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.num_runs not in (1, 2):
            raise ValueError(f"num_runs must be 1 or 2, not {self.num_runs}")
        if not 0 < self.limit_s < math.inf:
            raise ValueError(f"limit_s must be > 0 and finite, not {self.limit_s}")

    @property
    def budget_s(self) -> float:
        """Seconds that are planned with."""
        return self.limit_s * (1 - RESERVE_PART)

    def settings(self) -> PolicySettings:
        """What the policy is made of."""
        return PolicySettings(self.policy, self.attempts, self.selector, self.stop, scorer=self.scorer)


@dataclass(frozen=True, slots=True)
class ContestFigures:
    """What came of all contests. Intervals are over contests drawn from this recording, not over new problems.

    Attributes:
        replay: what was replayed.
        num_problems: of each contest.
        right: problems with the right answer, mean over contests and runs.
        sd: standard deviation of that over contests, of first runs.
        worst: fewest right of any run.
        best: most right of any run.
        two_run_score: mean of 1 / 0.5 / 0 points summed over a contest; None with one run.
        time_share: of the planned time that was used, on average.
        tokens: sampled in a run, on average; None where the recording does not say.
        fallbacks: problems a run that no attempt had an answer for.
        num_unanswered: problems of all runs that got no answer at all.
        longest_s: that any problem took.
        latest_s: that any run ended past what was planned with.
        num_overruns: runs that ended past the limit.
    """

    replay: ContestReplay
    num_problems: int
    right: Estimate
    sd: float
    worst: int
    best: int
    two_run_score: Estimate | None
    time_share: float
    tokens: float | None
    fallbacks: float
    num_unanswered: int
    longest_s: float
    latest_s: float
    num_overruns: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def replay_contests(
    problems: Sequence[RecordedProblem],
    config: ContestReplay,
    *,
    num_processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> ContestFigures:
    """Hold contests as `config` says.

    Args:
        problems: recorded; checks, attempts of later rounds and attempts that somebody stopped are left out.
        config: what is replayed.
        num_processes: that hold contests side by side; the figures do not depend on it.
        on_progress: told of contests held so far, and of all.

    Raises:
        InputError: there are no problems, or an attempt does not say how long it took.
    """
    costed = with_costs(problems, budget_s=config.limit_s, token_budget=None, speed=config.speed)
    rows: list[tuple[ContestOutcome, ...]] = []
    with _holding(costed, config, num_processes) as outcomes:
        for row in outcomes:
            rows.append(row)
            if on_progress is not None:
                on_progress(len(rows), config.num_contests)
    return _figures(config, min(config.num_problems, len(costed.problems)), rows, costed.knows_tokens)


def _hold(costed: Costed, config: ContestReplay, seed: int) -> tuple[ContestOutcome, ...]:
    """All runs of the contest of a seed."""
    contest = draw_contest(costed.problems, seed, config.num_problems, config.budget_s)
    driving = DriverConfig(
        config.attempts,
        config.slots,
        max_open=1,
        stretch=stretch_of(config.policy),
        max_tokens=longest(costed.problems),
    )
    outcomes = []
    for run in range(config.num_runs):
        faults = contest.faults
        if run:  # another day
            faults = draw_faults(random.Random(f"{seed}/{run}"), config.budget_s)
        outcomes.append(
            hold_contest(
                replace(contest, faults=faults if config.has_faults else Faults()),
                make_policy(config.settings()),
                driving,
                budget_s=config.budget_s,
                limit_s=config.limit_s,
                speed=costed.speed,
                weigh=weigher_of(config.policy),
                num_skipped=run * config.attempts,
            )  # fmt: skip
        )
    return tuple(outcomes)


_WORK: list[tuple[Costed, ContestReplay]] = []  # of a worker process: sent once, not with each contest


def _start_worker(costed: Costed, config: ContestReplay) -> None:
    _WORK.append((costed, config))


def _hold_in_worker(seed: int) -> tuple[ContestOutcome, ...]:
    return _hold(*_WORK[0], seed)


@contextmanager
def _holding(
    costed: Costed, config: ContestReplay, num_processes: int
) -> Iterator[Iterator[tuple[ContestOutcome, ...]]]:
    """The outcomes of all contests, in their order."""
    seeds = range(config.seed, config.seed + config.num_contests)
    if num_processes <= 1:
        yield map(partial(_hold, costed, config), seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(num_processes, len(seeds)), _start_worker, (costed, config)) as workers:
        yield workers.imap(_hold_in_worker, seeds)


def _figures(
    config: ContestReplay, num_problems: int, rows: Sequence[tuple[ContestOutcome, ...]], knows_tokens: bool
) -> ContestFigures:
    runs = [outcome for row in rows for outcome in row]
    columns = {"right": [statistics.fmean(outcome.right for outcome in row) for row in rows]}
    if config.num_runs == 2:
        columns["score"] = [two_run_score_of_right(first.right_ids, second.right_ids) for first, second in rows]
    found = bootstrap_estimates(columns, [str(number) for number in range(len(rows))])
    return ContestFigures(
        replay=config,
        num_problems=num_problems,
        right=found["right"],
        sd=statistics.pstdev(row[0].right for row in rows),
        worst=min(outcome.right for outcome in runs),
        best=max(outcome.right for outcome in runs),
        two_run_score=found.get("score"),
        time_share=statistics.fmean(outcome.used_s for outcome in runs) / config.budget_s,
        tokens=statistics.fmean(outcome.tokens for outcome in runs) if knows_tokens else None,
        fallbacks=statistics.fmean(outcome.fallbacks for outcome in runs),
        num_unanswered=sum(num_problems - outcome.answered for outcome in runs),
        longest_s=max(outcome.longest_s for outcome in runs),
        latest_s=max(outcome.late_s for outcome in runs),
        num_overruns=sum(outcome.overrun_s > 0 for outcome in runs),
    )
