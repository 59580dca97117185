r"""Is TRIAD worth its tokens? Two sets of runs over the same problems, paired problem by problem.

usage: triad.py --base RUN... --against RUN... [--json]

A RUN is a folder that `mathlete evaluate` made, for example:

    mathlete evaluate problems.jsonl --attempts 8 --selector majority --seed 0 --out runs/base
    mathlete evaluate problems.jsonl --attempts 16 --policy triad --pillars code,reasoning \
        --checks sympy_check,enumeration_check --second-round 2 --token-budget N --seed 0 --out runs/triad

where N is what the first run of that seed has sampled. A problem's score in a set is the mean over its runs (seeds) of
whether the answer that was handed in is right; intervals come from resampling problems by group, so that seeds of one
problem are not taken for independent ones. Only problems that all runs have ended are counted; the others are told.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.cic.majority import Majority
from mathlete.core.record import ProblemRecord, RunRecord, fold_run
from mathlete.lab.metrics import Estimate, bootstrap_estimates, majority_score
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_store import RunStore
from mathlete.lab.tasks import Task, load_tasks
from mathlete.verify.integers import answers_equal


@dataclass(frozen=True)
class Arm:
    """A set of runs.

    Attributes:
        accuracy: of the answers handed in.
        majority: of a plain vote over the same attempts, ties counted in parts.
        oracle: share of problems with a right answer among the attempts.
        tokens: a problem and run, everything counted.
        accepted: share of problems whose answer was accepted.
        accepted_right: of these, how many are right; NaN when there are none.
    """

    accuracy: Estimate
    majority: Estimate
    oracle: Estimate
    tokens: Estimate
    accepted: float
    accepted_right: float


def read_run(path: Path) -> RunRecord:
    """A run as far as its store tells."""
    with RunStore.read(RunFolder(path).store_path) as store:
        return fold_run(store.events())


def golds_of(run: RunRecord) -> dict[str, Task]:
    """The labels of the run's problem file."""
    return {task.problem.id: task for task in load_tasks(run.config["source"], require_gold=True).tasks}


def right(record: ProblemRecord, gold: str) -> float:
    """1 when the answer handed in is right."""
    return float(record.selection is not None and answers_equal(record.selection.answer, gold))


def columns(runs: Sequence[RunRecord], ids: Sequence[str], golds: dict[str, Task], name: str) -> dict[str, list[float]]:
    """What is counted, one value a problem: the mean over the runs."""
    told: dict[str, list[float]] = {f"{name}.{what}": [] for what in ("accuracy", "majority", "oracle", "tokens")}
    for problem_id in ids:
        gold = golds[problem_id].gold or ""
        values = [_values(run.problems[problem_id], gold) for run in runs]
        for what, column in zip(told, zip(*values, strict=True), strict=True):
            told[what].append(math.fsum(column) / len(column))
    return told


def _values(record: ProblemRecord, gold: str) -> tuple[float, float, float, float]:
    voting = [attempt for attempt in record.attempts if not attempt.is_check]
    answers = [attempt.answer for attempt in voting]
    correct = [answer is not None and answers_equal(answer, gold) for answer in answers]
    tokens = sum(attempt.num_tokens for attempt in record.attempts)
    return right(record, gold), majority_score(answers, correct), float(any(correct)), float(tokens)


def accepted(runs: Sequence[RunRecord], ids: Sequence[str], golds: dict[str, Task]) -> tuple[float, float]:
    """Share of problems whose answer was accepted, and of these the share that is right."""
    records = [(run.problems[key], golds[key].gold or "") for run in runs for key in ids]
    taken = [(record, gold) for record, gold in records if record.selection is not None and record.selection.accepted]
    num_right = sum(right(record, gold) for record, gold in taken)
    return len(taken) / len(records), num_right / len(taken) if taken else math.nan


def compare(base: Sequence[RunRecord], against: Sequence[RunRecord]) -> tuple[dict[str, Arm], dict[str, Estimate], int]:
    """Both arms, their paired differences, and how many problems were counted."""
    golds = golds_of(base[0])
    ids = [key for key in golds if all(_ended(run, key) for run in (*base, *against))]
    told = columns(base, ids, golds, "base") | columns(against, ids, golds, "against")
    for what in ("accuracy", "majority", "oracle", "tokens"):
        pairs = zip(told[f"base.{what}"], told[f"against.{what}"], strict=True)
        told[f"difference.{what}"] = [second - first for first, second in pairs]
    pairs = zip(told["base.majority"], told["against.accuracy"], strict=True)
    told["difference.accuracy over majority"] = [second - first for first, second in pairs]
    estimates = bootstrap_estimates(told, [golds[key].group for key in ids])
    arms = {
        name: Arm(
            *(estimates[f"{name}.{what}"] for what in ("accuracy", "majority", "oracle", "tokens")),
            *accepted(runs, ids, golds),
        )
        for name, runs in (("base", base), ("against", against))
    }
    differences = {key.partition(".")[2]: value for key, value in estimates.items() if key.startswith("difference.")}
    return arms, differences, len(ids)


def _ended(run: RunRecord, problem_id: str) -> bool:
    record = run.problems.get(problem_id)
    return record is not None and record.selection is not None


def describe(arms: dict[str, Arm], differences: dict[str, Estimate], num_problems: int) -> str:
    """The table for a person."""
    lines = [f"{num_problems} problems; means over runs, intervals by group"]
    for name, arm in arms.items():
        lines.append(
            f"{name:<8} accuracy {arm.accuracy}  vote {arm.majority}  oracle {arm.oracle}  "
            f"tokens/problem {arm.tokens.value:.0f}  accepted {arm.accepted:.0%} (right {arm.accepted_right:.0%})"
        )
    lines += [f"against - base, {what}: {value}" for what, value in differences.items() if what != "tokens"]
    ratio = arms["against"].tokens.value / arms["base"].tokens.value
    lines.append(f"tokens, against / base: {ratio:.3f}")
    lines.append(f"base's answers are those of its selector; {Majority.name} is the plain vote over the same attempts")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, nargs="+", required=True)
    parser.add_argument("--against", type=Path, nargs="+", required=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    arms, differences, num_problems = compare(list(map(read_run, args.base)), list(map(read_run, args.against)))
    if args.json:
        told = {"problems": num_problems, "arms": {name: asdict(arm) for name, arm in arms.items()},
                "differences": {name: asdict(value) for name, value in differences.items()}}  # fmt: skip
        print(json.dumps(told, indent=2))
    else:
        print(describe(arms, differences, num_problems))


if __name__ == "__main__":
    main()
