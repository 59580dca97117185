"""What each cure of the 2/50 pipeline (SPEC part H) buys, by replay of recorded attempts; no model runs.

usage: prometheus.py POOL ... [--repeats N] [--seed N] [--json]

POOL is the folder of a run (its store has every turn) or a file of attempts in the interchange form (which has less).
Two questions for each fault: what the whole old pipeline gains when this one alone is cured, and what an otherwise
sound one loses when it alone is made. Attempts are taken in random orders, the same for all rows, and a problem's value
is its mean over them; intervals are of the paired difference, whole groups drawn with replacement.

A replay can change what is made of attempts, not the attempts: what a model would have written had it been told
something else is left to live runs, and the table says so. The clock has room for every attempt of the pool; with
`time_decay` each problem takes three times its even share of what is left. Tokens are those of the attempts that were
looked at.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.record import fold_run
from mathlete.lab.metrics import Estimate, bootstrap_estimates
from mathlete.lab.recorded import read_recorded
from mathlete.lab.run_store import RunStore
from mathlete.triad.prometheus import PrometheusSelector, why_enough
from mathlete.triad.prometheus_answers import FAULTS, NO_FAULTS, Faults, as_read
from mathlete.verify.integers import answers_equal

_TIMES_EVEN_SHARE = 3.0
_LIVE_ONLY = {
    "no_reasoning": "live only: attempts would have been written otherwise",
    "told_wrong": "live only: attempts would have been written otherwise",
}


class Pool(NamedTuple):
    """A problem with its gold and recorded attempts, those that somebody cut off left out."""

    problem: Problem
    gold: str
    group: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one set of faults comes to on all problems, in their order.

    Attributes:
        right: share of the orders in which the answer is right.
        tokens: mean tokens of the attempts looked at.
    """

    right: tuple[float, ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: the fault, or what the line is about.
        accuracy: share of problems that are right.
        change: against the line it is compared with; None for that line itself.
        tokens: a problem.
        note: why it could not be replayed, instead of figures.
    """

    name: str
    accuracy: Estimate | None = None
    change: Estimate | None = None
    tokens: float = 0.0
    note: str = ""


def read_pools(path: Path) -> list[Pool]:
    """The problems of a run's folder or of a file of attempts whose golds are integers.

    Raises:
        InputError: it is neither, it cannot be read, or it has no golds (a run tells them at its end).
    """
    if path.is_dir():
        with RunStore.read(path / "run.sqlite") as store:
            run = fold_run(store.events())
        found = [
            Pool(record.problem, record.gold, record.group or record.problem.id, record.attempts)
            for record in run.problems.values()
            if record.gold is not None
        ]
    else:
        found = [Pool(item.problem, item.gold, item.group, item.pooled().attempts) for item in read_recorded(path)]
    kept = [
        pool._replace(attempts=tuple(map(_integers_only, _whole(pool.attempts))))
        for pool in found
        if answers_equal(pool.gold, pool.gold)
    ]
    if not kept:
        raise InputError(f"{path}: has no problem with a gold that is an integer; a run tells golds when it has ended")
    return kept


def replay(pools: Sequence[Pool], faults: Faults, repeats: int, seed: int) -> Replayed:
    """Let the old pipeline, with these faults, work through the problems in `repeats` random orders."""
    read = [[as_read(attempt, pool.problem.answer_kind, faults) for attempt in pool.attempts] for pool in pools]
    all_tokens = sum(attempt.num_tokens for attempts in read for attempt in attempts)
    right, tokens = [0.0] * len(pools), [0.0] * len(pools)
    selector = PrometheusSelector(faults)
    for repeat in range(repeats):
        rng = random.Random(f"{seed}/{repeat}")
        left = float(all_tokens)
        for place in rng.sample(range(len(pools)), len(pools)):
            order = rng.sample(range(len(read[place])), len(read[place]))
            room = _TIMES_EVEN_SHARE / len(pools) * left if faults.time_decay else left
            seen = _looked_at([read[place][i] for i in order], faults, room)
            used = sum(attempt.num_tokens for attempt in seen)
            left -= used
            answer = selector.select(pools[place].problem, seen).answer
            right[place] += answers_equal(answer, pools[place].gold) / repeats
            tokens[place] += used / repeats
    return Replayed(tuple(right), tuple(tokens))


def tables(pools: Sequence[Pool], repeats: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Each fault cured alone in the old pipeline, and each alone in an otherwise sound one."""
    notes = {name: note for name in FAULTS if (note := why_not_replayed(name, pools))}
    all_of_them = Faults(**{name: name not in notes for name in FAULTS})
    cured = [("all faults", all_of_them), *((name, replace(all_of_them, **{name: False})) for name in FAULTS)]
    alone = [("no fault", NO_FAULTS), *((name, replace(NO_FAULTS, **{name: True})) for name in FAULTS)]
    return _table(cured, pools, notes, repeats, seed), _table(alone, pools, notes, repeats, seed)


def why_not_replayed(fault: str, pools: Sequence[Pool]) -> str | None:
    """Why recorded attempts cannot tell what a fault does; None when they can."""
    attempts = [attempt for pool in pools for attempt in pool.attempts]
    turns = [turn for attempt in attempts for turn in attempt.turns]
    if fault in _LIVE_ONLY:
        return _LIVE_ONLY[fault]
    if fault == "no_symbolic_check" and not any(attempt.evidence for attempt in attempts):
        return "the pool has no checks"
    if fault == "cut_at_think" and not any("</think>" in turn.text for turn in turns):
        return "no attempt closes a block of thinking"
    needs_results = fault in ("one_pass", "one_sample_shortcut", "ran_is_verified")
    if needs_results and not any(turn.result is not None for turn in turns):
        return "the pool does not tell what programs did"
    if fault == "last_printed" and not any(turn.text or turn.result for turn in turns):
        return "the pool has no texts"
    return None


def _whole(attempts: Iterable[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.failure not in CUT_OFF]


def _integers_only(attempt: Attempt) -> Attempt:
    """Without an answer that is no canonical integer, which other people's files may have."""
    is_integer = attempt.answer is None or answers_equal(attempt.answer, attempt.answer)
    return attempt if is_integer else replace(attempt, answer=None, failure="no_answer")


def _looked_at(attempts: Sequence[Attempt], faults: Faults, room: float) -> list[Attempt]:
    """The first of the attempts: until a fault says that it is enough, or the next has no room, in tokens."""
    seen: list[Attempt] = []
    for attempt in attempts:
        if attempt.num_tokens > room:
            break
        room -= attempt.num_tokens
        seen.append(attempt)
        if why_enough(seen, faults) is not None:
            break
    return seen


def _table(
    arms: Sequence[tuple[str, Faults]], pools: Sequence[Pool], notes: dict[str, str], repeats: int, seed: int
) -> list[Row]:
    """The first arm is what the others are compared with."""
    done = {name: replay(pools, faults, repeats, seed) for name, faults in arms if name not in notes}
    first = done[arms[0][0]].right
    columns: dict[str, Sequence[float]] = {name: item.right for name, item in done.items()}
    columns |= {
        f"{name} change": [a - b for a, b in zip(item.right, first, strict=True)] for name, item in done.items()
    }
    estimates = bootstrap_estimates(columns, [pool.group for pool in pools], seed=seed)
    return [
        Row(name, note=notes[name])
        if name in notes
        else Row(
            name,
            estimates[name],
            estimates[f"{name} change"] if name != arms[0][0] else None,
            sum(done[name].tokens) / len(pools),
        )
        for name, _ in arms
    ]


def _print(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n{'':<22}{'accuracy':<24}{'change':<26}tokens/problem")
    for row in rows:
        change = (
            "" if row.change is None else f"{row.change.value:+.3f} [{row.change.low:+.3f}, {row.change.high:+.3f}]"
        )
        figures = row.note or f"{row.accuracy!s:<24}{change:<26}{row.tokens:.0f}"
        print(f"{row.name:<22}{figures}")


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="+", type=Path, help="folders of runs, or files of attempts")
    parser.add_argument("--repeats", type=int, default=16, help="random orders of problems and attempts")
    parser.add_argument("--seed", type=int, default=0, help="of the orders and of the resampling")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    pools = [pool for path in options.pools for pool in read_pools(path)]
    cured, alone = tables(pools, options.repeats, options.seed)
    if options.json:
        print(json.dumps({"problems": len(pools), "cured_alone": _plain(cured), "fault_alone": _plain(alone)}))
        return
    print(f"{len(pools)} problems, {sum(len(pool.attempts) for pool in pools)} attempts, {options.repeats} orders")
    _print("the old pipeline, one fault cured", cured)
    _print("an otherwise sound pipeline, one fault made", alone)


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    def interval(item: Estimate | None) -> list[float] | None:
        return None if item is None else [item.value, item.low, item.high]

    return [
        {"name": row.name, "note": row.note}
        if row.note
        else {
            "name": row.name,
            "accuracy": interval(row.accuracy),
            "change": interval(row.change),
            "tokens_per_problem": row.tokens,
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
