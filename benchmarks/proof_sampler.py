"""Is ProofSampler worth its tokens? The same problems with it off, with constraints, going back too, and in a beam.

usage: proof_sampler.py RESULTS.jsonl [--problems FILE ...] [--num-problems 60] [--attempts 4] [--seeds 0]
                        [--arms off,constraints,backtracking,beam,beam+soft]
                        [--model NAME] [--max-tokens 640] [--minutes M] [--device cpu] [--precision w8a8]
       proof_sampler.py RESULTS.jsonl --analyse

Every arm runs through the driver that `mathlete evaluate` runs, on one loaded engine, w8a8. The beam has one attempt
for each `beam width` attempts of the others. Problems are taken in blocks, and each block goes through all arms before
the next (the order of arms turns from block to block), so that whenever it is stopped the arms have had the same
problems. A line is written for each problem, arm and seed as its block ends; started again, what is there is not done
again.
Before it begins it says which difference it can find (`proof_sampler_analysis.py`); at the end it prints the table.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proof_sampler_analysis import analyse, describe, detectable_difference, expected_paired_sd, read_cell
from rich.console import Console

from mathlete.compose import LoadedGenerator, add_step_checks, build_driver, build_sandbox
from mathlete.core.attempt import Attempt
from mathlete.core.protocols import CodeRunner
from mathlete.core.record import ProblemRecord, fold_run
from mathlete.core.trace import TraceEvent, encode_problem
from mathlete.lab.tasks import Task, load_tasks
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.run_config import RunConfig
from mathlete.session.run_session import load_generator
from mathlete.verify.integers import answers_equal

PROBLEMS = Path(__file__).parents[2] / "shared" / "problems"
ARMS: dict[str, dict[str, Any]] = {
    "off": {},
    "constraints": {"constraints": True},
    "backtracking": {"constraints": True, "backtracking": "on"},
    "beam": {"constraints": True, "beam_width": 4},
    "beam+soft": {"constraints": True, "beam_width": 4, "beam_soft_terms": True},
}
PASS_RATE = 0.3  # of an attempt, expected beforehand, for the power calculation


@dataclass
class ListSink:
    """A trace in memory."""

    events: list[TraceEvent] = field(default_factory=list)

    def append(self, event: TraceEvent) -> None:
        """Keep one event."""
        self.events.append(event)


def choose_tasks(files: Sequence[Path], num: int, seed: int = 0) -> list[Task]:
    """An even share from each file, of the smallest (the hardest here) at most a third of all; in seeded order."""
    pools = sorted((list(load_tasks(path, require_gold=True).tasks) for path in files), key=len)
    chosen: list[Task] = []
    for place, pool in enumerate(pools):
        share = (num - len(chosen)) // (len(pools) - place)
        share = min(share, num // 3) if place == 0 and len(pools) > 1 else share
        chosen += random.Random(seed).sample(pool, min(share, len(pool)))
    random.Random(seed + 1).shuffle(chosen)
    return chosen


def blocks(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """The tasks in order, `size` at a time."""
    for start in range(0, len(tasks), size):
        yield list(tasks[start : start + size])


def as_told(attempt: Attempt, record: ProblemRecord, gold: str) -> dict[str, Any]:
    """One attempt as it is written down."""
    programs = [turn.code for turn in attempt.turns if turn.code is not None]
    back = record.rewindings.get(attempt.id, ())
    return {
        "answer": attempt.answer,
        "correct": attempt.answer is not None and answers_equal(attempt.answer, gold),
        "tokens": attempt.num_tokens,
        "discarded": attempt.num_discarded,
        "seconds": round(attempt.elapsed_s, 2),
        "failure": attempt.failure,
        "programs": len(programs),
        "unparsable": any(not is_python(code) for code in programs),
        "rewound": dict(Counter(item.reason for item in back if item.num_dropped)),
        "let_through": dict(Counter(item.reason for item in back if not item.num_dropped)),
        "details": [f"{item.reason} -{item.num_dropped}: {item.detail}"[:300] for item in back],
        "text": "".join(turn.text + (turn.tool_text or "") for turn in attempt.turns),
    }


def is_python(code: str) -> bool:
    """Whether it parses."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):  # null bytes are a ValueError
        return False
    return True


def run_arm(
    config: RunConfig, loaded: LoadedGenerator, sandbox: CodeRunner, tasks: Sequence[Task]
) -> list[tuple[Task, ProblemRecord]]:
    """All attempts of some problems, as `mathlete evaluate` makes them, with the trace in memory."""
    problems = [task.problem for task in tasks]
    sink = ListSink([TraceEvent("run_started", 0.0, {"config": {}, "problems": list(map(encode_problem, problems))})])
    driver = build_driver(config, loaded, sandbox, sink, lambda progress: None)
    driver.run(problems, config.budget_s, {}, 0.0)
    records: Mapping[str, ProblemRecord] = fold_run(sink.events).problems
    return [(task, records[task.problem.id]) for task in tasks]


def arm_config(base: RunConfig, arm: str, seed: int) -> RunConfig:
    """What an arm runs with."""
    config = replace(base, seed=seed, **ARMS[arm])
    return replace(config, attempts=max(1, base.attempts // config.beam_width)) if config.beam_width else config


def describe_plan(num_problems: int, args: argparse.Namespace) -> str:
    """What this many problems can find."""
    sd = expected_paired_sd([PASS_RATE], args.attempts * len(args.seeds))
    return (
        f"{num_problems} problems x {args.attempts} attempts x {len(args.seeds)} seeds: if an attempt is right with "
        f"{PASS_RATE:.0%}, the paired difference of pass@1 varies by {sd:.3f} from problem to problem by sampling "
        f"alone, and a true difference of {detectable_difference(num_problems, sd):.3f} is found with 80 % power"
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What is there already; a last line that was cut off is not, and goes."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def run(args: argparse.Namespace, console: Console) -> None:
    """All arms over all blocks, until done or out of time."""
    tasks = choose_tasks(args.problems, args.num_problems)
    console.print(describe_plan(len(tasks), args), highlight=False, soft_wrap=True)
    done = {(row["arm"], row["seed"], row["problem_id"]) for row in read_lines(args.results)}
    base = RunConfig(
        command="evaluate", source=None, model=args.model, budget_s=12 * 3600.0, attempts=args.attempts,
        max_tokens=args.max_tokens, max_in_flight=args.max_in_flight, threads=args.threads,
        device=args.device, precision=args.precision,
    )  # fmt: skip
    start_s, num_before = time.monotonic(), len(done)
    num_all = len(tasks) * len(args.arms) * len(args.seeds)
    with ExitStack() as cleanup:
        sandbox = cleanup.enter_context(build_sandbox())
        loaded = load_generator(base, console)
        cleanup.callback(loaded.close)
        by_arm = {arm: add_step_checks(arm_config(base, arm, 0), loaded) for arm in args.arms}
        for arm_loaded in by_arm.values():
            cleanup.callback(arm_loaded.close)
        begun_s = time.monotonic()
        for seed in args.seeds:
            for number, block in enumerate(blocks(tasks, args.block)):
                turn = number % len(args.arms)
                for arm in [*args.arms[turn:], *args.arms[:turn]]:
                    left = [task for task in block if (arm, seed, task.problem.id) not in done]
                    if not left:
                        continue
                    if args.minutes is not None and time.monotonic() - start_s > 60 * args.minutes:
                        return
                    at_s = time.monotonic()
                    cells = run_arm(arm_config(base, arm, seed), by_arm[arm], sandbox, left)
                    rows = [_row(arm, seed, task, record) for task, record in cells]
                    with args.results.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(row) + "\n" for row in rows)
                    done |= {(arm, seed, task.problem.id) for task in left}
                    _tell(console, arm, seed, number, rows, at_s)
                    rate = (len(done) - num_before) / (time.monotonic() - begun_s)
                    console.print(
                        f"  {len(done)}/{num_all} cells, about {(num_all - len(done)) / rate / 60:.0f} min left"
                    )


def _row(arm: str, seed: int, task: Task, record: ProblemRecord) -> dict[str, Any]:
    assert task.gold is not None
    attempts = [
        as_told(attempt, record, task.gold) for attempt in record.attempts if attempt.failure != "generator_error"
    ]  # made again
    return {"arm": arm, "seed": seed, "problem_id": task.problem.id, "group": task.group, "gold": task.gold,
            "attempts": attempts}  # fmt: skip


def _tell(console: Console, arm: str, seed: int, number: int, rows: Sequence[Mapping[str, Any]], at_s: float) -> None:
    attempts = [item for row in rows for item in row["attempts"]]
    seconds, tokens = time.monotonic() - at_s, sum(item["tokens"] for item in attempts)
    right = sum(item["correct"] for item in attempts)
    console.print(
        f"seed {seed} block {number} {arm}: {right}/{len(attempts)} right, {tokens:,} tokens in {seconds:.0f} s "
        f"({tokens / seconds:.0f}/s)",
        highlight=False,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--problems", type=Path, nargs="+", default=[PROBLEMS / "amc23.jsonl", PROBLEMS / "math500.jsonl"]
    )
    parser.add_argument("--num-problems", type=int, default=60)
    parser.add_argument("--attempts", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--max-tokens", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--max-in-flight", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--block", type=int, default=15, help="problems a block")
    parser.add_argument("--minutes", type=float, help="begin nothing after so many minutes")
    parser.add_argument("--analyse", action="store_true", help="only print the table of what is there")
    args = parser.parse_args()
    unknown = sorted(set(args.arms) - set(ARMS))
    if unknown:
        parser.error(f"unknown arms: {', '.join(unknown)}; there are {', '.join(ARMS)}")
    console = Console()
    if not args.analyse:
        run(args, console)
    cells = [read_cell(row) for row in read_lines(args.results)]
    if cells:
        print(describe(analyse(cells, args.arms)))


if __name__ == "__main__":
    main()
