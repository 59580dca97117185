"""Contests over recorded attempts: one problem at a time against one clock, with faults, under several policies.

usage: contests.py RECORDED.jsonl... [--contests 200] [--first 0] [--processes 2] [--arms NAME...] [--out OUT.jsonl]
       contests.py --report OUT.jsonl

Each contest draws 50 problems, an order of problems and attempts, a speed, and what goes wrong (stalls, late steps, a
generator that dies), from its seed, and is held once under each policy, driven by the real driver over a
`RecordedSource`. So differences between policies are paired. Problems come strictly in turn, as in AIMO-3: one is
open at a time, and what weighs a problem has not seen the statements of those to come. Lengths are scaled so that an
attempt takes 45,000 tokens on average, as recorded ones of gpt-oss-120b do, and the clock is AIMO-3's: 17,400 s of
18,000 s.

A problem has only so many recorded attempts; what a policy asks for beyond them is refused, at no cost.

The arm `triad` is what `solve` does by default, as far as recordings go: votes choose, since what the rule `triad` was
fitted to are these recordings, and there are neither checks nor second rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from mathlete.cic.majority import Majority, tally
from mathlete.contest.allocation import worth_another, worth_waiting
from mathlete.contest.difficulty import statement_solve_rate, weight_of
from mathlete.contest.policy import ALL_FINISHED, OUT_OF_TIME, FixedPolicy, VotePolicy
from mathlete.contest.stop_rules import num_outstanding
from mathlete.core.attempt import Attempt
from mathlete.core.policy import Action, Launch, Policy, PoolState, Stop, Wait
from mathlete.core.protocols import Selector
from mathlete.lab.bootstrap import bootstrap_estimates
from mathlete.lab.contest import ContestOutcome, draw_contest, hold_contest
from mathlete.lab.recorded import RecordedProblem, read_recorded
from mathlete.triad.driver import DriverConfig
from mathlete.triad.policies import TRIAD_STRETCH, PolicySettings, make_policy
from mathlete.triad.recorded_source import Faults, Speed

LIMIT_S = 18_000.0
BUDGET_S = 17_400.0  # what teams plan with
NUM_PROBLEMS = 50
TOKENS_PER_ATTEMPT = 45_000.0
MAX_TOKENS = 65_536  # that an attempt may take, as far as the driver knows
PROGRESS_S = 10.0
SPEED = Speed(alone=200.0, half_at=8.0)  # 8 at once: 853 tokens a second together; 16: 1,113
MIN_ATTEMPTS = 4
PILLAR = "code"


@dataclass(frozen=True)
class Arm:
    """A policy and how the driver is set up for it."""

    policy: Policy
    config: DriverConfig
    weighs: bool = False


# --- policies ---


@dataclass(frozen=True)
class ClampPolicy:
    """The fixed rule of the AIMO-3 notebooks: eight attempts until four agree or the problem's time is over.

    time = max(base, min(high, left - base * problems after this one)), base 300 s and high 900 s of 17,400 s: a public
    notebook as kept in github.com/softkleenex/AMO_PP3, public_kernels/top1_code.py, `solve_problem`. It votes by
    1/entropy; recorded attempts have no entropy, so this is the plain vote.
    """

    attempts: int = 8
    enough: int = 4
    base_s: float = 300.0
    high_s: float = 900.0
    selector: Selector = field(default_factory=Majority)

    def decide(self, state: PoolState) -> Action:
        """Launch all at once, then wait for four equal answers or the end."""
        leader = tally(state.attempts)[:1]
        if state.remaining_s <= 0 or state.elapsed_s >= self.time_s(state):
            return Stop(self.selector.select(state.problem, state.attempts), OUT_OF_TIME)
        if leader and leader[0].votes >= self.enough:
            return Stop(self.selector.select(state.problem, state.attempts), f"{self.enough} attempts agree")
        return FixedPolicy(self.attempts, selector=self.selector).decide(state)

    def time_s(self, state: PoolState) -> float:
        """Seconds that the rule gives the problem: the same whenever it is asked."""
        if state.outlook is None:
            return math.inf
        left_s = state.outlook.remaining_s + state.elapsed_s
        return max(self.base_s, min(self.high_s, left_s - self.base_s * state.outlook.num_waiting))


@dataclass(frozen=True)
class ValuePolicy:
    """Four attempts, then one more as long as it is worth its price (`contest/allocation.py`); votes only.

    Attributes:
        first: attempts that whoever is opened gets.
        most: attempts at most.
        knows_statement: whether the prior is moved by the statement.
        selector: chooses the answer.
    """

    first: int = 4
    most: int = 16
    knows_statement: bool = True
    selector: Selector = field(default_factory=Majority)

    def decide(self, state: PoolState) -> Action:
        """Launch, wait or stop by value and price."""
        if state.remaining_s <= 0:
            return Stop(self.selector.select(state.problem, state.attempts), OUT_OF_TIME)
        to_come = num_outstanding(state, self.most) - state.num_trying
        if state.num_launched < self.first and to_come > 0:
            return Launch(self.first - state.num_launched, PILLAR, 0.8)
        rate = statement_solve_rate(state.problem.statement) if self.knows_statement else None
        another = worth_another(state, solve_rate=rate)
        if another.pays and to_come > 0:
            return Launch(1, PILLAR, 0.8)
        if state.num_in_flight == 0:
            reason = another.reason if to_come > 0 else ALL_FINISHED
            return Stop(self.selector.select(state.problem, state.attempts), reason)
        waiting = worth_waiting(state, solve_rate=rate)
        if waiting.pays:
            return Wait()
        return Stop(self.selector.select(state.problem, state.attempts), waiting.reason)


def arms() -> dict[str, Arm]:
    """What is compared, by name."""
    eight = DriverConfig(attempts=8, max_in_flight=8, max_open=1, max_tokens=MAX_TOKENS)
    free = replace(eight, stretch=100.0)
    value = replace(eight, stretch=3.0)
    return {
        "clamp": Arm(ClampPolicy(), free),
        "clamp_5": Arm(ClampPolicy(attempts=5, enough=3), free),
        "clamp_4": Arm(ClampPolicy(attempts=4, enough=3), free),
        "fixed": Arm(FixedPolicy(8), eight),
        "vote": Arm(VotePolicy(8), eight),
        "vote_stretched": Arm(VotePolicy(8), value),
        "triad": Arm(make_policy(PolicySettings("triad")), replace(eight, stretch=TRIAD_STRETCH), weighs=True),
        "value": Arm(ValuePolicy(), value),
        "value_first8": Arm(ValuePolicy(first=8), value),
        "value_weighed": Arm(ValuePolicy(), value, weighs=True),
        "value_blind": Arm(ValuePolicy(knows_statement=False), value),
    }


# --- one contest ---


def hold(seed: int, pool: Sequence[RecordedProblem], arm: Arm, faults: Faults | None = None) -> ContestOutcome:
    """One contest under one arm; `faults` in place of those drawn."""
    contest = draw_contest(pool, seed, NUM_PROBLEMS, BUDGET_S)
    if faults is not None:
        contest = replace(contest, faults=faults)
    weigh = weight_of if arm.weighs else lambda problem: 1.0
    return hold_contest(
        contest, arm.policy, arm.config, budget_s=BUDGET_S, limit_s=LIMIT_S, speed=SPEED, weigh=weigh
    )  # fmt: skip


def read_pool(paths: Sequence[Path]) -> list[RecordedProblem]:
    """The problems of some files with at least four attempts, their lengths scaled."""
    pool = []
    for path in paths:
        for row in read_recorded(path):
            kept = [pair for pair in zip(row.attempts, row.correct, strict=True) if pair[0].is_independent]
            if len(kept) < MIN_ATTEMPTS:
                continue
            attempts = tuple(replace(a, pillar=PILLAR, turns=(), num_tokens=a.num_tokens or _chars(a)) for a, _ in kept)
            pool.append(replace(row, attempts=attempts, correct=tuple(right for _, right in kept), checks=()))
    scale = TOKENS_PER_ATTEMPT / statistics.fmean(a.num_tokens for item in pool for a in item.attempts)
    return [
        replace(item, attempts=tuple(replace(a, num_tokens=round(a.num_tokens * scale)) for a in item.attempts))
        for item in pool
    ]


def _chars(attempt: Attempt) -> int:
    return max(1, int(attempt.features.get("n_chars", 1)))


# --- many contests ---


_POOL: list[RecordedProblem] = []  # of a worker process


def start_worker(pool: list[RecordedProblem]) -> None:
    """Give a worker its problems once, not with each contest."""
    _POOL.extend(pool)


def hold_all(seed: int, names: Sequence[str]) -> dict[str, ContestOutcome]:
    """One contest under each arm, in a worker."""
    known = arms()
    return {name: hold(seed, _POOL, known[name]) for name in names}


def report(rows: Sequence[Mapping[str, ContestOutcome]], names: Sequence[str]) -> None:
    """Print the table and the paired differences to the first arm."""
    heads = ("right", "sd", "time used", "Mtokens", "longest", "fallback", "unanswered", "latest", "overruns")
    print(f"{'policy':<16}" + "".join(f"{head:>12}" for head in heads))
    for name in names:
        outcomes = [row[name] for row in rows]
        cells = (
            f"{statistics.fmean(o.right for o in outcomes):.3f}",
            f"{statistics.pstdev(o.right for o in outcomes):.2f}",
            f"{statistics.fmean(o.used_s for o in outcomes) / BUDGET_S:.1%}",
            f"{statistics.fmean(o.tokens for o in outcomes) / 1e6:.1f}",
            f"{max(o.longest_s for o in outcomes):.0f} s",
            f"{statistics.fmean(o.fallbacks for o in outcomes):.2f}",
            f"{sum(NUM_PROBLEMS - o.answered for o in outcomes)}",
            f"{max(o.late_s for o in outcomes):.1f} s",
            f"{sum(o.overrun_s > 0 for o in outcomes)}",
        )
        print(f"{name:<16}" + "".join(f"{cell:>12}" for cell in cells))
    gains = {name: [row[name].right - row[names[0]].right for row in rows] for name in names[1:]}
    draws = [str(number) for number in range(len(rows))]  # intervals over contests of this pool, not over new problems
    for name, told in bootstrap_estimates(gains, draws).items():
        print(f"{name} - {names[0]}: right {told.value:+.3f} [{told.low:+.3f}, {told.high:+.3f}]")


def show_progress(num_done: int, num: int, seconds: float) -> None:
    """How far it is, and the time left at this speed."""
    left = (num - num_done) * seconds / num_done
    print(f"{num_done} of {num} draws in {seconds:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", nargs="*", type=Path)
    parser.add_argument("--contests", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(arms()))
    parser.add_argument("--out", type=Path, help="a line for each contest, as it ends")
    parser.add_argument("--report", type=Path, help="print the table of such a file")
    args = parser.parse_args()
    if args.report:
        lines = args.report.read_text("utf-8").splitlines()
        rows = [{name: ContestOutcome(**told) for name, told in json.loads(line).items()} for line in lines]
        print(f"{len(rows)} contests")
        report(rows, list(rows[0]))
        return
    pool, begun = read_pool(args.recorded), time.monotonic()
    print(f"{len(pool)} problems, {sum(len(item.attempts) for item in pool)} attempts")
    task: Callable[[int], dict[str, ContestOutcome]] = partial(hold_all, names=args.arms)
    seeds = range(args.first, args.first + args.contests)
    rows: list[dict[str, ContestOutcome]] = []
    told_s = begun
    with multiprocessing.Pool(args.processes, start_worker, (pool,)) as workers, ExitStack() as files:
        out = files.enter_context(args.out.open("w", encoding="utf-8")) if args.out else None
        for row in workers.imap(task, seeds):
            rows.append(row)
            if out is not None:
                print(json.dumps({name: asdict(outcome) for name, outcome in row.items()}), file=out, flush=True)
            if (now_s := time.monotonic()) - told_s >= PROGRESS_S:
                show_progress(len(rows), len(seeds), now_s - begun)
                told_s = now_s
    report(rows, args.arms)
    print(f"{args.contests} contests x {len(args.arms)} policies in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
