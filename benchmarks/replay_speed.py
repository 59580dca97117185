"""How long it takes to replay a large file of recorded attempts under every selector, reading it included.

usage: replay_speed.py [--problems 10000] [--attempts 64] [--words 0] [--processes N] [--each] [--file FILE]

Makes a file in the interchange format (answers, tokens, seconds, the features of confidence and of step scores; with
--words a text of so many words for each attempt) and replays it as `mathlete replay --selector all` does. Told are
seconds of the clock and of the processors, the largest memory of any process, and the load of the machine, on which the
clock's seconds depend. `--each` then times every selector by itself on the first 100 problems; together they take less,
for what several rules need of a pool is reckoned once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mathlete.cic.registry import SELECTORS
from mathlete.lab.file_replay import replay_file
from mathlete.lab.recorded import read_recorded
from mathlete.lab.replay_figures import selector_figures
from mathlete.lab.selector_replay import ReplayPlan, make_selectors, replay_problem

NUM_TIMED_EACH = 100
FEATURES = (
    "mean_entropy", "tail_entropy", "mean_confidence", "tail_confidence", "bottom_10_percent_group",
    "min_window_confidence", "prm_last", "prm_min", "prm_prod", "prm_mean",
)  # fmt: skip
WORDS = (
    "let so then hence angle prime integer sum product divides equals therefore circle triangle root since each of the "
    "number ways modulo by we have that which gives at most least two three cases check answer is"
).split()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the file, replay it, print."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "synthetic.jsonl"
        if not path.exists():
            with path.open("w", encoding="utf-8") as file:
                file.writelines(
                    json.dumps(row) + "\n" for row in rows(options.problems, options.attempts, options.words)
                )
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, load of the machine {os.getloadavg()[0]:.1f}")
        replay(path, options.processes)
        if options.each:
            time_each(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--attempts", type=int, default=64)
    parser.add_argument("--words", type=int, default=0, help="of each attempt's text; 0 for no texts")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--each", action="store_true", help="also time each selector by itself")
    parser.add_argument(
        "--file", type=Path, help="make it here and keep it; one that is there already is used as it is"
    )
    return parser


def rows(num_problems: int, num_attempts: int, num_words: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Problems of all degrees of difficulty: some wrong answers are common, a tenth of the failures have none."""
    rng = random.Random(seed)
    for number in range(num_problems):
        gold, skill = str(rng.randint(0, 99_999)), rng.random()
        traps = [str(rng.randint(0, 99_999)) for _ in range(6)]
        attempts = [_attempt(rng, _answer(rng, gold, skill, traps), gold, num_words) for _ in range(num_attempts)]
        yield {"problem_id": f"p{number}", "problem": f"How many? ({number})", "gold": gold, "attempts": attempts}


def _answer(rng: random.Random, gold: str, skill: float, traps: Sequence[str]) -> str | None:
    if rng.random() < skill:
        return gold
    if rng.random() < 0.1:
        return None
    return rng.choice(traps) if rng.random() < 0.7 else str(rng.randint(0, 99_999))


def _attempt(rng: random.Random, answer: str | None, gold: str, num_words: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "answer": answer,
        "correct": answer == gold,
        "tokens": rng.randint(100, 20_000),
        "seconds": round(rng.uniform(1, 300), 2),
        "features": {name: round(rng.random() * 5, 4) for name in FEATURES},
    }
    if num_words:
        entry["text"] = " ".join(rng.choices(WORDS, k=num_words))
    return entry


def replay(path: Path, num_processes: int) -> None:
    """Replay the file under every selector and print what it took."""
    plan = ReplayPlan(tuple(SELECTORS))
    begun = time.perf_counter()
    replayed = replay_file(path, plan, num_processes=num_processes)
    figures = selector_figures(replayed.scored, plan)
    elapsed_s = time.perf_counter() - begun
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(item.ru_utime + item.ru_stime for item in spent)
    num = len(replayed.scored)
    print(
        f"{num} problems x {replayed.scored[0].num_attempts} attempts, {len(figures)} selectors, {num_processes} "
        f"processes: {elapsed_s:.1f} s, {cpu_s:.1f} s of processors ({cpu_s / num * 1e3:.2f} ms a problem), "
        f"largest process {max(item.ru_maxrss for item in spent) / 1024:.0f} MiB"
    )


def time_each(path: Path) -> None:
    """What each selector takes by itself on a pool that no rule has looked at yet."""
    problems = list(islice(read_recorded(path), NUM_TIMED_EACH))
    print(f"{'selector':<22}{'us a pool':>10}")
    for name in SELECTORS:
        plan = ReplayPlan((name,))
        selectors = make_selectors(plan)
        begun = time.process_time()
        for item in problems:
            replay_problem(item, plan, selectors)
        print(f"{name:<22}{(time.process_time() - begun) / len(problems) * 1e6:>10.0f}")


if __name__ == "__main__":
    sys.exit(main())
