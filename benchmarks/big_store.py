"""How long a large run store takes to read, and how much memory.

Makes a store of about `--size` from synthetic attempts (sentences that look like solutions, logprobs like those of a
model) and times, each in a process of its own whose peak memory is read: the figures that a list of runs shows, the
outline, one problem in full, exports as Parquet and as JSONL, opening it for writing with its check of the whole file,
copying it into a store of many runs, and the viewer's pages: the first one, the whole one, and one problem's. The first
read of a fresh process may find the file in the system's memory; `--cold` asks the system to forget it before each
(needs no rights).

    python benchmarks/big_store.py --size 2g --out /tmp/big --cold --json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mathlete.cli.options import parse_bytes
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection
from mathlete.core.trace import EventKind, TraceEvent, encode, encode_ending, encode_problem
from mathlete.lab.export import write_interchange
from mathlete.lab.gathering import gather_runs
from mathlete.lab.parquet_export import feature_names, write_parquet
from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_reading import read_figures, read_outline, read_problem, read_problems
from mathlete.lab.run_store import EventRow, RunStore, encode_row
from mathlete.viewer.pages import Address, front_page, problem_page
from mathlete.viewer.watching import WatchedRun

ATTEMPTS = 64  # of a problem
WORDS = (
    "let denote the number of integers such that so we have by symmetry hence suppose for some prime modulo which "
    "gives therefore sum over all pairs counting twice $n$ $k$ $x^2+1$ $\\frac{a}{b}$ $\\sqrt{2}$ $\\binom{n}{k}$"
).split()
FEATURES = (
    "mean_logprob", "mean_entropy", "median_entropy", "tail_entropy", "mean_confidence", "tail_confidence",
    "bottom_10_percent_group", "min_window_confidence", "top5_entropy_bits", "tail_top5_entropy_bits",
)  # fmt: skip


def synthetic_turn(noise: random.Random, num_tokens: int) -> Turn:
    """A turn of so many tokens, each with its numbers."""
    text = " ".join(noise.choices(WORDS, k=num_tokens))
    logprobs = tuple(-noise.expovariate(3.0) for _ in range(num_tokens))
    entropies = tuple(noise.expovariate(2.0) for _ in range(num_tokens))
    return Turn(text, num_tokens=num_tokens, logprobs=logprobs, entropies=entropies)


def synthetic_rows(num_problems: int, num_tokens: int, seed: int) -> Iterator[EventRow]:
    """A whole run of `ATTEMPTS` attempts a problem, each of two turns of a pool, about `num_tokens` tokens together."""
    noise = random.Random(seed)
    pool = [synthetic_turn(noise, max(1, round(num_tokens * noise.uniform(0.2, 0.8)))) for _ in range(256)]
    packed = [encode_row(TraceEvent("turn_finished", 0.0, {"turn": encode(turn)})) for turn in pool]
    problems = [Problem(f"p{number}", " ".join(noise.choices(WORDS, k=40))) for number in range(num_problems)]
    config = {"command": "evaluate", "model": "synthetic", "attempts": ATTEMPTS}
    yield _row("run_started", 0.0, {"config": config, "problems": [encode_problem(item) for item in problems]})
    for number, problem in enumerate(problems):
        at_s = 10.0 * number
        yield _row("problem_opened", at_s, {"budget_s": 100.0}, problem.id)
        for index in range(ATTEMPTS):
            places = noise.choices(range(len(pool)), k=2)
            attempt = _attempt(noise, problem.id, index, sum(pool[place].num_tokens for place in places))
            started = {"index": index, "pillar": "code", "seed": attempt.seed, "temperature": 0.8, "round": 1}
            yield _row("attempt_started", at_s, started, problem.id, attempt.id)
            for place in places:
                yield packed[place]._replace(at_s=at_s + 5, problem_id=problem.id, attempt_id=attempt.id)
            yield _row("attempt_finished", at_s + 9, {"attempt": encode_ending(attempt)}, problem.id, attempt.id)
        selection = encode(Selection(str(noise.randrange(5)), "majority", 0.5))
        yield _row("problem_finished", at_s + 10, {"selection": selection, "reason": "all finished"}, problem.id)
        yield _row("gold_revealed", at_s + 10, {"gold": str(noise.randrange(5)), "group": "synthetic"}, problem.id)
    end_s = 10.0 * num_problems
    yield _row("run_finished", end_s, {"reason": "complete", "seconds": end_s, "stats": {}})


def _attempt(noise: random.Random, problem_id: str, index: int, num_tokens: int) -> Attempt:
    features = {name: noise.random() for name in FEATURES}
    seed, answer = noise.getrandbits(62), str(noise.randrange(5))
    return Attempt(
        f"{problem_id}#{index}", problem_id, index, "code", seed, 0.8, answer, "boxed", (), num_tokens, 9.0, features
    )


def _row(
    kind: EventKind, at_s: float, data: dict[str, Any], problem_id: str | None = None, attempt_id: str | None = None
) -> EventRow:
    return encode_row(TraceEvent(kind, at_s, data, problem_id, attempt_id, 1_750_000_000.0 + at_s))


def make_store(path: Path, num_bytes: int, num_tokens: int, seed: int) -> None:
    """A store of about `num_bytes`; how large a problem gets is found out on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    of_one = sum(len(row.data) for row in synthetic_rows(1, num_tokens, seed))
    num_problems = max(1, round(num_bytes / (of_one * 1.1)))  # a tenth for pages and indexes
    with RunStore.create(path) as store:
        block: list[EventRow] = []
        for row in synthetic_rows(num_problems, num_tokens, seed):
            block.append(row)
            if row.kind == "gold_revealed":
                store.append_rows(block)
                block = []
        store.append_rows(block)


def parquet(store: RunStore, folder: Path) -> Any:
    """Export as Parquet."""
    out = folder / "attempts.parquet"
    num = write_parquet(read_problems(store), store.run.id, "synthetic", feature_names(store), out)
    return {"rows": num, "bytes": out.stat().st_size}


def jsonl(store: RunStore, folder: Path) -> Any:
    """Export as JSONL."""
    write_interchange(read_problems(store), "synthetic", folder / "attempts.jsonl")
    return {"bytes": (folder / "attempts.jsonl").stat().st_size}


def outline(store: RunStore, folder: Path) -> Any:
    """All attempts without turns."""
    return {"attempts": sum(len(record.attempts) for record in read_outline(store).problems.values())}


def problem(store: RunStore, folder: Path) -> Any:
    """The last problem in full."""
    record = read_problem(store, f"p{read_figures(store).num_problems - 1}")
    return {"attempts": len(record.attempts)}


def figures(store: RunStore, folder: Path) -> Any:
    """What a list of runs shows."""
    found = read_figures(store)
    return {"problems": found.num_problems, "attempts": found.num_attempts}


def opened(store: RunStore, folder: Path) -> Any:
    """Open for writing, which checks the whole file."""
    with RunStore.open(store.path) as writable:
        return {"events": writable.num_events()}


def gathered(store: RunStore, folder: Path) -> Any:
    """Copy into a store of many runs."""
    into = folder / "all.sqlite"
    into.unlink(missing_ok=True)
    (run,) = gather_runs([FoundRun(store.path, store.run.id)], into)
    into.unlink()
    return {"events": run.num_copied}


def first_page(store: RunStore, folder: Path) -> Any:
    """What the viewer shows first of a large store: its answers."""
    return {"bytes": len(front_page(Address(store.run.id), WatchedRun(store.path).glance()).encode())}


def whole_page(store: RunStore, folder: Path) -> Any:
    """What it shows as soon as the outline is read, the reading included."""
    return {"bytes": len(front_page(Address(store.run.id), WatchedRun(store.path).look()).encode())}


def problem_in_viewer(store: RunStore, folder: Path) -> Any:
    """The viewer's page of one problem with all its attempts."""
    watched = WatchedRun(store.path)
    page = problem_page(Address(store.run.id), watched.glance(), 1, watched.read_problem("p0"))
    return {"bytes": len(page.encode())}


MEASURED: dict[str, Callable[[RunStore, Path], Any]] = {
    "figures": figures, "outline": outline, "problem": problem, "parquet": parquet, "jsonl": jsonl, "open": opened,
    "gather": gathered, "first_page": first_page, "whole_page": whole_page, "page": problem_in_viewer,
}  # fmt: skip


def measure(name: str, path: Path) -> dict[str, Any]:
    """Do one of `MEASURED` here and now."""
    before_cpu_s = time.process_time()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s = time.perf_counter()
    with RunStore.read(path) as store:
        result = MEASURED[name](store, path.parent)
    took_s = time.perf_counter() - began_s
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "what": name, "seconds": round(took_s, 3), "cpu_s": round(time.process_time() - before_cpu_s, 3),
        "peak_mib": round(peak_kib / 1024), "start_mib": round(before_kib / 1024), **result,
    }  # fmt: skip


def forget(path: Path) -> None:
    """Ask the system to drop a file from memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def main() -> None:
    """Make the store if need be and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="300m", help="of the store, such as 300m or 2g")
    parser.add_argument("--tokens", type=int, default=800, help="of an attempt, on average")
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--out", type=Path, default=Path("big"), help="folder for the store and the exports")
    parser.add_argument("--only", default=",".join(MEASURED), help="which of them, with commas between")
    parser.add_argument("--cold", action="store_true", help="have the system forget the file before each")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    path = given.out / "run.sqlite"
    if given.measure:
        print(json.dumps(measure(given.measure, path)))
        return
    if not path.exists():
        began_s = time.perf_counter()
        make_store(path, parse_bytes(given.size), given.tokens, given.seed)
        print(f"made {path} in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)
    print(f"{path}: {path.stat().st_size / 2**30:.2f} GiB; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    for name in given.only.split(","):
        if given.cold:
            forget(path)
        arguments = [sys.executable, __file__, "--out", str(given.out), "--measure", name]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        shown = (f"{key} {value:,}" for key, value in row.items() if key not in ("what", "seconds", "peak_mib"))
        line = f"{name:8} {row['seconds']:8.2f} s {row['peak_mib']:6} MiB  {', '.join(shown)}"
        print(done.stdout.strip() if given.json else line)


if __name__ == "__main__":
    main()
