r"""What does spending tokens where they count buy? Policies under a token budget, replayed over recorded pools.

usage: triad_replay.py RUN... [--parts 0.5,0.75,1] [--orders 20] [--seed 0] [--json]

A RUN is a folder that `mathlete evaluate` made; the attempts of all runs at a problem are one pool (checks left out).
In each order the pool is shuffled; the plain vote over the first 8 of it is the baseline, and what these 8 cost over
all problems is the budget. Each policy then works through all problems with a part of that budget, with the real driver
on a simulated clock (`triad/recorded_source.py`); attempts run 64 at once, as fast as each other. A problem's score is
the mean over the orders; intervals are by resampling problems by group, paired with the baseline.

The selector `triad` is used with the shipped weights: no figure for problems that they were fitted on means anything.
Give `--weights FILE` for others.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from mathlete.cic.choice_model import load_model
from mathlete.cic.majority import Majority
from mathlete.cic.triad_selector import TriadSelector
from mathlete.contest.policy import VotePolicy
from mathlete.contest.stop_rules import make_stop_rule
from mathlete.core.attempt import Attempt
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.protocols import Selector
from mathlete.lab.metrics import Estimate, bootstrap_estimates
from mathlete.lab.policy_replay import CappedPolicy
from mathlete.lab.simulated_session import SimulatedSession, simulate
from mathlete.lab.tasks import Task
from mathlete.triad.driver import DriverConfig
from mathlete.triad.integration import TriadConfig, TriadPolicy
from mathlete.triad.recorded_source import RecordedConfig, Speed
from mathlete.verify.integers import answers_equal
from triad import golds_of, read_run

NUM_BASELINE = 8
BUDGET_S = 1e7
SPEED = Speed(alone=10.0)


def policies(selector: Selector, num: int) -> dict[str, Policy]:
    """What is compared: made anew for each contest, since a policy remembers its selections."""
    triad = TriadConfig(attempts=num, checks=(), second_round=0)
    rule = make_stop_rule("settled")
    return {
        "vote, settled, 8": CappedPolicy(VotePolicy(NUM_BASELINE, rule=rule), Majority()),
        "triad's allocation, majority": TriadPolicy(Majority(), rule, triad),
        "triad's allocation, triad": TriadPolicy(selector, rule, triad),
        "triad's allocation, triad, waves of 2": TriadPolicy(selector, rule, replace(triad, wave=2, min_attempts=2)),
    }


def pools_of(runs: Sequence[Path]) -> tuple[dict[str, Task], dict[str, list[Attempt]]]:
    """The problems with labels, and all attempts at each that the runs made."""
    records = [read_run(path) for path in runs]
    golds = golds_of(records[0])
    pools: dict[str, list[Attempt]] = {key: [] for key in golds}
    for record in records:
        for key, item in record.problems.items():
            voting = [a for a in item.attempts if not a.is_check and a.round == 1 and a.failure != "generator_error"]
            pools[key] += voting
    return golds, {key: pool for key, pool in pools.items() if len(pool) >= NUM_BASELINE}


def renamed(pool: Sequence[Attempt], rng: random.Random) -> tuple[Attempt, ...]:
    """The pool in random order, numbered anew: runs may have used the same numbers."""
    drawn = rng.sample(list(pool), len(pool))
    return tuple(replace(a, id=f"{a.problem_id}#{i}", index=i) for i, a in enumerate(drawn))


def replay(
    policy: Policy, problems: Sequence[Problem], pools: Mapping[str, tuple[Attempt, ...]], num: int, budget: int
) -> SimulatedSession:
    """One pass over all problems."""
    return simulate(
        problems, pools, policy, BUDGET_S,
        driving=DriverConfig(num, max_in_flight=64, token_budget=budget),
        recorded=RecordedConfig(speed=SPEED, max_step_s=5.0),
    )  # fmt: skip


def compare(args: argparse.Namespace, console: Console) -> dict[str, tuple[Estimate, Estimate, float]]:
    """By arm: accuracy, difference to the baseline, and tokens as a part of the baseline's."""
    golds, pools = pools_of(args.runs)
    problems = [golds[key].problem for key in pools]
    selector = TriadSelector(load_model(args.weights.read_text(), str(args.weights)) if args.weights else None)
    scores: dict[str, dict[str, float]] = {}
    tokens: dict[str, float] = {}

    def note(arm: str, answers: Mapping[str, str], spent: float) -> None:
        told = scores.setdefault(arm, dict.fromkeys(pools, 0.0))
        for key, answer in answers.items():
            told[key] += answers_equal(answer, golds[key].gold or "") / args.orders
        tokens[arm] = tokens.get(arm, 0.0) + spent

    for number in track(range(args.orders), "orders", console=console):
        rng = random.Random(args.seed * 1_000 + number)
        drawn = {key: renamed(pool, rng) for key, pool in pools.items()}
        first = {key: pool[:NUM_BASELINE] for key, pool in drawn.items()}
        budget = sum(a.num_tokens for pool in first.values() for a in pool)
        votes = {p.id: Majority().select(p, first[p.id]).answer for p in problems}
        note("majority of 8", votes, budget)
        num = min(map(len, pools.values()))
        order = rng.sample(problems, len(problems))
        for part in args.parts:
            for name, policy in policies(selector, num).items():
                session = replay(policy, order, drawn, num, int(part * budget))
                note(f"{name}, at most {part:g}", session.answers, session.num_tokens)
    groups = [golds[key].group for key in pools]
    columns = {arm: [told[key] for key in pools] for arm, told in scores.items()}
    base = columns["majority of 8"]
    columns |= {f"-{arm}": [x - y for x, y in zip(column, base, strict=True)] for arm, column in columns.items()}
    found = bootstrap_estimates(columns, groups)
    return {arm: (found[arm], found[f"-{arm}"], tokens[arm] / tokens["majority of 8"]) for arm in scores}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--parts", type=lambda text: [float(part) for part in text.split(",")], default=[0.5, 0.75, 1])
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = compare(args, Console(stderr=True))
    if args.json:
        print(json.dumps({arm: [asdict(a), asdict(d), part] for arm, (a, d, part) in found.items()}, indent=2))
        return
    for arm, (accuracy, difference, part) in found.items():
        print(f"{arm:<52} tokens {part:.2f}  accuracy {accuracy}  against majority of 8 {difference}")


if __name__ == "__main__":
    main()
