"""What each rule makes of recorded pools: accuracy, the part of the majority-to-oracle gap it closes, tokens saved.

usage: selection.py FILE... [--ranking-only FILE...] [--rules NAME...] [--orders 2] [--attempts N] [--json OUT.json]

FILE is recorded attempts in the interchange format. Every rule sees the attempts of each problem that has at least 4,
in the same random orders, so that ties and first comers favour nobody; a figure is the mean over orders. Differences
to `majority` are paired; intervals are bootstraps over groups of problems. The rules that are fitted are cross-fitted:
each problem is judged by weights that saw neither it nor its text in any file. They are `triad` (one set of weights
for all files, as it ships), `triad_own` (of this file alone), `member_vote` (of this file, a weight for each model)
and `best_member` (the answer of the model that was right most often in the other folds).

Stopping rules: of each problem up to 12 attempts arrive one by one, in each order, until the rule stops; majority
chooses. `confident` stops when `triad` gives its answer 0.9. `--ranking-only` as in train_selector.py.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from choice_training import TrainingPool, cross_fitted, drawn, fold_of, read_file, training_pools, unit_of, whole_pools
from train_selector import MIN_JUDGED, MIN_TRAINED, predictions

from mathlete.cic.choice_model import ChoiceModel
from mathlete.cic.majority import Majority
from mathlete.cic.pool_features import member_name
from mathlete.cic.registry import SELECTORS
from mathlete.cic.triad_selector import MemberVote, TriadSelector
from mathlete.contest.stop_rules import STOP_RULES
from mathlete.core.attempt import Attempt
from mathlete.core.policy import PoolState
from mathlete.core.protocols import Selector
from mathlete.lab.calibration import calibration
from mathlete.lab.metrics import Estimate, bootstrap_estimates, majority_score, ratio_estimate
from mathlete.lab.recorded import RecordedProblem

CONFIDENT = 0.9
SLOW_FROM_ATTEMPTS = 12  # rules that compress every pair of traces are left out of larger pools than this
SLOW = frozenset({"cic", "cic_cluster_mode", "cic_refined", "nu_vote", "ncd_vote"})
MAX_ARRIVING = 12

SelectorFor = Callable[[RecordedProblem], Selector]


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """What one rule reached on one file.

    Attributes:
        rule: its name.
        accuracy: share of problems it answered rightly.
        difference: to majority, paired.
        gap_closed: difference over (oracle - majority); None when there is no gap.
        us_per_problem: microseconds that one choice took, ours only; for orientation.
    """

    rule: str
    accuracy: Estimate
    difference: Estimate
    gap_closed: Estimate | None
    us_per_problem: float


@dataclass(frozen=True, slots=True)
class StopFigures:
    """What one stopping rule saved and cost on one file.

    Attributes:
        rule: its name.
        used: share of the tokens (of the attempts, where tokens are not recorded) that were used.
        accuracy: of majority over what had arrived.
        difference: to majority over everything, paired.
    """

    rule: str
    used: Estimate
    accuracy: Estimate
    difference: Estimate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON when asked."""
    options = _parser().parse_args(arguments)
    files = list(dict.fromkeys([*options.files, *options.ranking_only]))
    problems = {path: read_file(path, MIN_TRAINED) for path in files}
    if options.attempts:
        problems = {path: [drawn(item, options.attempts) for item in items] for path, items in problems.items()}
    pools = {path: training_pools(problems[path], ranking_only=path in options.ranking_only) for path in files}
    together = cross_fitted([pool for path in files for pool in pools[path]])
    result: dict[str, Any] = {}
    for path in files:
        judged = [item for item in problems[path] if num_voters(item) >= MIN_JUDGED]
        chosen = rules_for(pools[path], whole_pools(problems[path]), together, options.rules)
        shuffled = [[in_order(item, seed) for item in judged] for seed in range(options.orders)]
        figures = [rule_figures(name, make, shuffled) for name, make in chosen.items()]
        stops = stop_figures(shuffled, chosen["triad"])
        told = predictions(problems[path], together)
        curve = calibration([item.chance for item in told], [item.right for item in told])
        show(path, judged, figures, stops)
        print(f"triad's confidence: ECE {curve.ece:.3f}, Brier {curve.brier:.3f}\n", flush=True)
        result[path.name] = {
            "problems": len(judged),
            "rules": [asdict(item) for item in figures],
            "stops": [asdict(item) for item in stops],
            "calibration": asdict(curve),
        }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--ranking-only", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--rules", nargs="+", default=list(SELECTORS), metavar="NAME", choices=list(SELECTORS))
    parser.add_argument("--orders", type=int, default=2, help="random orders of each problem's attempts (2)")
    parser.add_argument("--attempts", type=int, help="draw so many of each problem (default: all)")
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    return parser


def num_voters(item: RecordedProblem) -> int:
    """Attempts that are no checks."""
    return sum(not attempt.is_check for attempt in item.attempts)


def in_order(item: RecordedProblem, seed: int) -> RecordedProblem:
    """The problem with its attempts in a random order."""
    places = list(range(len(item.attempts)))
    random.Random(f"{seed} {item.problem.id}").shuffle(places)
    attempts = tuple(item.attempts[place] for place in places)
    return replace(item, attempts=attempts, correct=tuple(item.correct[place] for place in places))


def rules_for(
    pools: Sequence[TrainingPool],
    whole: Sequence[TrainingPool],
    together: Mapping[int, ChoiceModel],
    names: Sequence[str],
) -> dict[str, SelectorFor]:
    """The rules that are compared on one file, majority first and the fitted ones last."""
    largest = max(num_voters(pool.recorded) for pool in whole)
    rules: dict[str, SelectorFor] = {"majority": _always(Majority())}
    for name in names:
        if name not in ("majority", "triad") and not (name in SLOW and largest > SLOW_FROM_ATTEMPTS):
            rules[name] = _always(SELECTORS[name]())
    rules["triad"] = _by_fold({fold: TriadSelector(model) for fold, model in together.items()})
    own = cross_fitted(pools)
    rules["triad_own"] = _by_fold({fold: TriadSelector(model) for fold, model in own.items()})
    members = sorted({member_name(attempt) for pool in whole for attempt in pool.recorded.attempts})
    if len(members) > 1:
        fitted = cross_fitted(whole, members=members)
        rules["member_vote"] = _by_fold({fold: MemberVote(model) for fold, model in fitted.items()})
        rules["best_member"] = _by_fold(best_members(whole, list(fitted)))
    return rules


def _always(selector: Selector) -> SelectorFor:
    return lambda item: selector


def _by_fold(selectors: Mapping[int, Selector]) -> SelectorFor:
    return lambda item: selectors[fold_of(unit_of(item.problem.statement))]


@dataclass(frozen=True, slots=True)
class _OneMember:
    """Takes one member's answer, and the vote where it has none."""

    member: str
    name: str = "best_member"

    def select(self, problem: Any, attempts: Sequence[Attempt]) -> Any:
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


def is_right(item: RecordedProblem, answer: str) -> bool:
    """Whether an attempt of the problem that is right gave this answer."""
    return any(ok and attempt.answer == answer for attempt, ok in zip(item.attempts, item.correct, strict=True))


def rule_figures(name: str, make: SelectorFor, shuffled: Sequence[Sequence[RecordedProblem]]) -> RuleFigures:
    """One rule over all orders. Majority itself is exact: ties count fractionally."""
    problems = shuffled[0]
    majority = [majority_score([a.answer for a in item.attempts], item.correct) for item in problems]
    begun = time.perf_counter()
    if name == "majority":
        scores = majority
    else:
        scores = [0.0] * len(problems)
        for order in shuffled:
            for place, item in enumerate(order):
                selection = make(item).select(item.problem, item.attempts)
                scores[place] += is_right(item, selection.answer) / len(shuffled)
    elapsed = time.perf_counter() - begun
    groups = [item.group for item in problems]
    gained = [score - vote for score, vote in zip(scores, majority, strict=True)]
    gap = [float(any(item.correct)) - vote for item, vote in zip(problems, majority, strict=True)]
    estimates = bootstrap_estimates({"accuracy": scores, "difference": gained}, groups)
    closed = ratio_estimate(gained, gap, groups)
    each = elapsed / len(shuffled) / len(problems) * 1e6
    return RuleFigures(name, estimates["accuracy"], estimates["difference"], closed, each)


def stop_figures(shuffled: Sequence[Sequence[RecordedProblem]], triad: SelectorFor) -> list[StopFigures]:
    """Every stopping rule, the vote being majority; `never` has all attempts."""
    groups = [item.group for item in shuffled[0]]
    arriving = [[_first(item, MAX_ARRIVING) for item in order] for order in shuffled]
    runs = {name: _stopped(arriving, _rule_reason(name)) for name in STOP_RULES}
    runs["confident"] = _stopped(arriving, _confident(triad))
    full = runs["never"].scores
    figures = []
    for name, run in runs.items():
        lost = [score - whole for score, whole in zip(run.scores, full, strict=True)]
        estimates = bootstrap_estimates({"accuracy": run.scores, "difference": lost}, groups)
        used = ratio_estimate(run.used, runs["never"].used, groups)
        if used is not None:
            figures.append(StopFigures(name, used, estimates["accuracy"], estimates["difference"]))
    return figures


def _first(item: RecordedProblem, count: int) -> RecordedProblem:
    return replace(item, attempts=item.attempts[:count], correct=item.correct[:count])


@dataclass(frozen=True, slots=True)
class _Stopped:
    """Of each problem the mean over orders: cost used, and whether majority was right."""

    used: list[float]
    scores: list[float]


WhyStop = Callable[[RecordedProblem, int], bool]


def _stopped(shuffled: Sequence[Sequence[RecordedProblem]], stops: WhyStop) -> _Stopped:
    used, scores = [0.0] * len(shuffled[0]), [0.0] * len(shuffled[0])
    for order in shuffled:
        for place, item in enumerate(order):
            count = next((n for n in range(1, len(item.attempts)) if stops(item, n)), len(item.attempts))
            used[place] += sum(attempt.num_tokens or 1 for attempt in item.attempts[:count]) / len(shuffled)
            answers = [attempt.answer for attempt in item.attempts[:count]]
            scores[place] += majority_score(answers, item.correct[:count]) / len(shuffled)
    return _Stopped(used, scores)


def _rule_reason(name: str) -> WhyStop:
    rule = STOP_RULES[name]()

    def stops(item: RecordedProblem, count: int) -> bool:
        state = PoolState(item.problem, item.attempts[:count], 0, count, 0.0, math.inf)
        return rule.why_stop(state, len(item.attempts)) is not None

    return stops


def _confident(triad: SelectorFor) -> WhyStop:
    return lambda item, count: triad(item).select(item.problem, item.attempts[:count]).confidence >= CONFIDENT


def show(
    path: Path, judged: Sequence[RecordedProblem], rules: Sequence[RuleFigures], stops: Sequence[StopFigures]
) -> None:
    """The tables for a person."""
    oracle = sum(any(item.correct) for item in judged) / len(judged)
    print(f"{path.name}: {len(judged)} problems, oracle {oracle:.3f}")
    print(f"{'rule':<22}{'accuracy':>23}  {'to majority':>23}  {'gap closed':>22}{'us':>9}")
    for item in rules:
        print(
            f"{item.rule:<22}{item.accuracy!s:>23}  {_signed(item.difference):>23}  "
            f"{_signed(item.gap_closed) if item.gap_closed else '-':>23}{item.us_per_problem:>8.0f}"
        )
    print(f"{'stopping rule':<22}{'cost used':>23}  {'accuracy':>23}  {'to all attempts':>23}")
    for stop in stops:
        print(f"{stop.rule:<22}{stop.used!s:>23}  {stop.accuracy!s:>23}  {_signed(stop.difference):>23}")


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
