"""Is guessing ahead worth it? Real prompts with it and without it, back to back, for each way of guessing.

usage: speculation.py RESULTS.jsonl [--problems FILE.jsonl] [--rows 40] [--attempts 1,4] [--new 256]
                      [--methods ngram,suffix,draft,early_exit] [--draft-model NAME] [--model NAME]
                      [--precision auto] [--device cpu] [--tokens 8] [--threads N] [--minutes M]
       speculation.py RESULTS.jsonl --summary
A method is ngram, suffix, draft, early_exit or eagle, with these after a plus, as in draft+fixed:
fixed      as many guesses as --tokens allows, always
published  the depth follows the published rule instead of measured cost
wN         trees of width N (methods that run a model)
drawn      guesses are drawn, and kept by the accept rule of speculative sampling (methods that run a model)
An attempt is what `mathlete solve` asks the model first: the prompt of the code pillar, temperature 0.8, top-p 0.95.
Each problem is run with every method and number of attempts, with guessing and without on the same engine with the same
seeds, and which of the two comes first alternates; on a GPU each engine is warmed up on another problem before its
first pair. All methods get a problem before the next one begins. A line is written for each pair as it ends; started
again, what is there is not done again. A table and a line of JSON end it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mathlete.core.generation import SamplingParams
from mathlete.core.problem import Problem
from mathlete.core.seeds import derive_seed
from mathlete.generators.chat_format import chat_ids
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.model.math_tokenizer import MathTokenizer
from mathlete.ryanstream.speculation_measuring import SpeculationPair, SpeculationRun, run_pair, summarise_pairs
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES
from mathlete.ryanstream.speculative.methods import NEED_A_DRAFT_MODEL
from mathlete.ryanstream.speculative.published_depth import PublishedDepth
from mathlete.triad.chat import opening_messages

PROBLEMS = Path(__file__).parents[2] / "shared" / "problems" / "math500.jsonl"
_PROMPT_ROOM = 1536
_WARM_UP = Problem("warm-up", "How many primes are there below 100?")
_WARM_UP_TOKENS = 32


class Job(NamedTuple):
    """One pair to measure."""

    problem: str
    method: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Method:
    """A way of guessing, and who decides how much.

    Attributes:
        name: as the engine knows it.
        control: "adaptive", "fixed" or "published".
        width: of a draft's tree.
        drawn: whether guesses are drawn and judged by the accept rule.
    """

    name: str
    control: str = "adaptive"
    width: int = 1
    drawn: bool = False

    @classmethod
    def parse(cls, text: str) -> Method:
        """Raises `SystemExit` naming what is not understood."""
        name, *options = text.split("+")
        given: dict[str, Any] = {}
        for option in options:
            if option in ("fixed", "published"):
                given["control"] = option
            elif re.fullmatch(r"w\d+", option):
                given["width"] = int(option[1:])
            elif option == "drawn":
                given["drawn"] = True
            else:
                raise SystemExit(f"{text}: {option!r} is none of fixed, published, drawn, wN")
        return cls(name, **given)


@dataclass
class Engines:
    """One engine a method, loaded when it is first needed and kept: their weights are the same mapped files."""

    args: argparse.Namespace
    loaded: dict[str, LoadedEngine | None] = field(default_factory=dict)

    def of(self, text: str) -> LoadedEngine | None:
        """None when the method would guess nothing. Raises what `load_engine` raises."""
        if text not in self.loaded:
            self.loaded[text] = self._load(text)
        return self.loaded[text]

    def _load(self, text: str) -> LoadedEngine | None:
        args, method, store = self.args, Method.parse(text), ModelStore()
        draft_path = None
        if method.name in NEED_A_DRAFT_MODEL:
            draft_path = store.ensure(args.draft_model).path if method.name == "draft" else Path(args.draft_model)
        most = max(args.attempts)
        config = EngineConfig(
            precision=args.precision, device=args.device, max_running=most, max_model_len=_PROMPT_ROOM + args.new,
            num_threads=args.threads, speculative=method.name, num_speculative_tokens=args.tokens,
            draft_width=method.width, draft_drawn=method.drawn, draft_model=draft_path,
            adaptive_depth=method.control == "adaptive", kv_cache_bytes=args.kv_mib << 20,
        )  # fmt: skip
        loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
        if loaded.engine.speculation is None:
            print(f"{text} is {loaded.speculation}: left out", flush=True)
            return None
        if method.control == "published":
            loaded.engine.speculation.depth = PublishedDepth()
        if args.device != "cpu":
            warm_up(loaded, method, args.attempts, args.tokens)
        print(f"{text}: {loaded.speculation}, {loaded.kernels} kernels", flush=True)
        return loaded


def warm_up(loaded: LoadedEngine, method: Method, attempts: Sequence[int], most: int) -> None:
    """Have kernels compiled and graphs captured for what pairs run, with guesses of several depths and without any.

    What decides the depth is left out: it learns nothing of steps that took so long.
    """
    speculation = loaded.engine.speculation
    assert speculation is not None
    control = speculation.depth
    try:
        for job in (Job(_WARM_UP.id, method.name, number) for number in attempts):
            for depth in (most >> shift for shift in range(most.bit_length())):
                speculation.depth = FixedDepth(depth, min(MAX_DRAFT_NODES, depth * method.width))
                _run(loaded, _WARM_UP, job, _WARM_UP_TOKENS, off_first=True)
    finally:
        speculation.depth = control


def main() -> None:
    """Parse the command line, measure what is missing, print."""
    args = _parse()
    if not args.summary:
        _measure(args)
    rows = list(summaries(read_pairs(args.results)))
    _print_table(rows)
    print(json.dumps(rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--problems", type=Path, default=PROBLEMS)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--attempts", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4])
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["ngram", "suffix", "draft"])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--draft-model", default="0.5b")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kv-mib", type=int, default=512, help="of keys and values, each engine")
    parser.add_argument("--minutes", type=float, help="stop after so long, between two pairs")
    return parser.parse_args()


def _measure(args: argparse.Namespace) -> None:
    problems = {problem.id: problem for problem in _read_problems(args.problems, args.rows)}
    jobs = [Job(name, method, attempts) for name in problems for attempts in args.attempts for method in args.methods]
    for method in args.methods:
        Method.parse(method)  # what is wrong is told before anything is loaded
    done = set(read_pairs(args.results))
    left = [job for job in jobs if job not in done]
    engines, start_s = Engines(args), time.monotonic()
    for number, job in enumerate(left):
        spent_s = time.monotonic() - start_s
        if args.minutes is not None and spent_s > 60 * args.minutes:
            print(f"stopped after {spent_s / 60:.0f} minutes with {len(left) - number} pairs to go", flush=True)
            return
        if (loaded := engines.of(job.method)) is None:
            continue
        place = list(problems).index(job.problem) + args.methods.index(job.method)
        off_first = place % 2 == 0  # of every kind of pair, half have speculation first
        pair = _run(loaded, problems[job.problem], job, args.new, off_first=off_first)
        _append(args.results, job, pair, off_first=off_first)
        to_go_s = (time.monotonic() - start_s) / (number + 1) * (len(left) - number - 1)
        print(
            f"{len(jobs) - len(left) + number + 1}/{len(jobs)} {job.problem} x {job.attempts} {job.method}: "
            f"{pair.speedup:.2f}x, {pair.on.num_tokens} tokens in {pair.on.steps} steps, "
            f"{pair.on.accepted}/{pair.on.drafted} accepted; about {to_go_s / 60:.0f} minutes left",
            flush=True,
        )


def _run(loaded: LoadedEngine, problem: Problem, job: Job, new: int, *, off_first: bool) -> SpeculationPair:
    prompt = chat_ids(MathTokenizer(loaded.tokenizer), opening_messages("code", problem))
    sampling = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=new, seed=derive_seed(0, problem.id))
    name = f"{job.problem}/{job.attempts}"
    return run_pair(loaded.engine, prompt, sampling, job.attempts, name, off_first=off_first)


def _read_problems(path: Path, number: int) -> Iterator[Problem]:
    with path.open(encoding="utf-8") as lines:
        for _, line in zip(range(number), lines, strict=False):
            row = json.loads(line)
            yield Problem(row["id"], row["problem"])


def _append(path: Path, job: Job, pair: SpeculationPair, *, off_first: bool) -> None:
    line = {**job._asdict(), "off_first": off_first, "identical": pair.is_identical,
            "on": asdict(pair.on), "off": asdict(pair.off)}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_pairs(path: Path) -> dict[Job, SpeculationPair]:
    """What was measured; a last line that was cut off is left out, and measured again."""
    found: dict[Job, SpeculationPair] = {}
    if not path.exists():
        return found
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise SystemExit(f"{path}, line {number}: not JSON; delete the line and start again") from None
            path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
            break
        job = Job(row["problem"], row["method"], row["attempts"])
        found[job] = SpeculationPair(_read_run(row["on"]), _read_run(row["off"]))
    return found


def _read_run(row: Mapping[str, Any]) -> SpeculationRun:
    return SpeculationRun(**{**row, "token_ids": tuple(map(tuple, row["token_ids"]))})


def summaries(pairs: Mapping[Job, SpeculationPair]) -> Iterator[dict[str, Any]]:
    """One row a method and number of attempts."""
    groups: dict[tuple[str, int], list[Job]] = defaultdict(list)
    for job in pairs:
        groups[job.method, job.attempts].append(job)
    for (method, attempts), jobs in sorted(groups.items(), key=lambda group: (group[0][1], group[0][0])):
        figures = asdict(summarise_pairs([pairs[job] for job in jobs]))
        figures["worst_problem"] = jobs[figures.pop("worst_pair")].problem
        yield {"method": method, "attempts": attempts, **figures}


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\n| method | attempts | pairs | tokens/s off | on | ratio of all (95 %) | median | worst | steps saved "
          "| tokens a draw | accepted | same tokens |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['method']} | {row['attempts']} | {row['pairs']} | {row['off_tokens_per_s']:.1f} "
            f"| {row['tokens_per_s']:.1f} | {row['speedup']:.3f} ({row['low']:.3f} to {row['high']:.3f}) "
            f"| {row['median_speedup']:.3f} | {row['worst_speedup']:.3f} ({row['worst_problem']}) "
            f"| {row['steps_saved']:.0%} | {row['tokens_per_draw']:.2f} | {row['acceptance']:.0%} "
            f"| {row['identical']}/{row['pairs']} |"
        )


if __name__ == "__main__":
    main()
