"""What the learned rules make of recorded pools that their weights did not see: cross-fitted, beside the plain vote.

usage: selection.py FILE... [--ranking-only FILE...] [--orders N] [--attempts N] [--json OUT.json]

FILE is recorded attempts in the interchange format. `mathlete replay` replays every rule on such a file; on a file that
a rule was trained on, its figure is too kind. Here each problem is judged by weights that saw neither it nor its text
in any file; the rest is the same: the attempts of each problem that has at least 4, in the same orders. The rules are
`triad` (one set of weights for all files, as it ships), `triad_own` (of this file alone), `member_vote` (of this file,
a weight for each model) and `best_member` (the answer of the model that was right most often in the other folds).
`--ranking-only` as in train_selector.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from choice_training import TrainingPool, cross_fitted, drawn, fold_of, read_file, training_pools, unit_of, whole_pools
from train_selector import MIN_JUDGED, MIN_TRAINED, predictions

from mathlete.cic.choice_model import ChoiceModel
from mathlete.cic.majority import Majority
from mathlete.cic.pool_features import member_name
from mathlete.cic.triad_selector import MemberVote, TriadSelector
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.protocols import Selector
from mathlete.core.selection import Selection
from mathlete.lab.calibration import calibration
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.replay_figures import SelectorFigures, selector_figures
from mathlete.lab.selector_replay import ReplayPlan, replay_problem

ByFold = Mapping[int, Selector]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, judge, print, and write JSON when asked."""
    options = _parser().parse_args(arguments)
    files = list(dict.fromkeys([*options.files, *options.ranking_only]))
    problems = {path: read_file(path, MIN_TRAINED) for path in files}
    if options.attempts:
        problems = {path: [drawn(item, options.attempts) for item in items] for path, items in problems.items()}
    result: dict[str, Any] = {}
    for path, figures in held_out_figures(problems, options.ranking_only, options.orders).items():
        show(path, figures.rules)
        print(f"triad's confidence: ECE {figures.calibration['ece']:.3f}, Brier {figures.calibration['brier']:.3f}\n")
        rules = [item.as_dict(path.name) for item in figures.rules]
        result[path.name] = {"rules": rules, "calibration": figures.calibration}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--ranking-only", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--orders", type=int, help="random orders of each problem's attempts (default: as recorded)")
    parser.add_argument("--attempts", type=int, help="draw so many of each problem (default: all)")
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    return parser


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the learned rules reached on the problems of one file, by weights that did not see them.

    Attributes:
        rules: figures of each, majority first.
        calibration: of triad's confidence.
    """

    rules: list[SelectorFigures]
    calibration: dict[str, Any]


def held_out_figures(
    problems: Mapping[Path, Sequence[RecordedProblem]], ranking_only: Sequence[Path], orders: int | None
) -> dict[Path, HeldOut]:
    """The figures of every file; weights of `triad` are fitted on all of them together."""
    pools = {path: training_pools(items, ranking_only=path in ranking_only) for path, items in problems.items()}
    together = cross_fitted([pool for path in problems for pool in pools[path]])
    found = {}
    for path, items in problems.items():
        rules = rules_for(pools[path], whole_pools(items), together)
        told = predictions(items, together)
        curve = calibration([item.chance for item in told], [item.right for item in told])
        found[path] = HeldOut(rule_figures(items, rules, orders), asdict(curve))
    return found


def rules_for(
    pools: Sequence[TrainingPool], whole: Sequence[TrainingPool], together: Mapping[int, ChoiceModel]
) -> dict[str, ByFold]:
    """The rules that are compared on one file: by name, for each fold the selector that did not see it."""
    rules: dict[str, ByFold] = {Majority.name: dict.fromkeys(together, Majority())}
    rules["triad"] = {fold: TriadSelector(model) for fold, model in together.items()}
    rules["triad_own"] = {fold: TriadSelector(model) for fold, model in cross_fitted(pools).items()}
    members = sorted({member_name(attempt) for pool in whole for attempt in pool.recorded.attempts})
    if len(members) > 1:
        fitted = cross_fitted(whole, members=members)
        rules["member_vote"] = {fold: MemberVote(model) for fold, model in fitted.items()}
        rules["best_member"] = best_members(whole, list(fitted))
    return rules


@dataclass(frozen=True, slots=True)
class _OneMember:
    """Takes one member's answer, and the vote where it has none."""

    member: str
    name: str = "best_member"

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See `core.protocols.Selector`."""
        mine = [attempt for attempt in attempts if member_name(attempt) == self.member and attempt.answer is not None]
        return Majority().select(problem, mine or attempts)


def best_members(pools: Sequence[TrainingPool], folds: Sequence[int]) -> dict[int, Selector]:
    """For each fold the member that was right most often outside of it."""
    chosen: dict[int, Selector] = {}
    for fold in folds:
        right: Counter[str] = Counter()
        for pool in pools:
            if fold_of(pool.unit) != fold:
                for attempt, is_right in zip(pool.recorded.attempts, pool.recorded.correct, strict=True):
                    right[member_name(attempt)] += is_right
        chosen[fold] = _OneMember(max(sorted(right), key=right.__getitem__))
    return chosen


def rule_figures(
    problems: Sequence[RecordedProblem], rules: Mapping[str, ByFold], orders: int | None
) -> list[SelectorFigures]:
    """Every rule on all problems with enough attempts, each problem judged by its fold's selector."""
    plan = ReplayPlan(tuple(rules), num_orders=orders, min_attempts=MIN_JUDGED)
    scored = []
    for item in problems:
        fold = fold_of(unit_of(item.problem.statement))
        scored.append(replay_problem(item, plan, {name: by_fold[fold] for name, by_fold in rules.items()}))
    return selector_figures(scored, plan)


def show(path: Path, rules: Sequence[SelectorFigures]) -> None:
    """The table for a person."""
    print(f"{path.name}: {rules[0].num_problems} problems, oracle {rules[0].oracle.value:.3f}")
    print(f"{'rule':<16}{'accuracy':>23}  {'to majority':>25}  {'gap closed':>25}")
    for item in rules:
        closed = "-" if item.gap_closed is None else _signed(item)
        print(f"{item.selector:<16}{item.accuracy!s:>23}  {_difference(item):>25}  {closed:>25}")


def _difference(item: SelectorFigures) -> str:
    told = item.difference
    return f"{told.value:+.3f} [{told.low:+.3f}, {told.high:+.3f}]"


def _signed(item: SelectorFigures) -> str:
    told = item.gap_closed
    assert told is not None
    return f"{told.value:+.3f} [{told.low:+.3f}, {told.high:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
