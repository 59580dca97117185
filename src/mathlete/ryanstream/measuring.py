"""How fast an engine is: attempts of made-up problems, timed step by step, beside what a step has to do.

Knows engines, clocks and counts; knows nothing of other engines, tables or the command line. Each repeat has prompts
of its own, so none is found in the cache: the prompt is computed once for all attempts of a problem, and timed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.core.seeds import derive_seed
from mathlete.ryanstream.checkpoint.convert import Progress
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.request import RequestOutput
from mathlete.ryanstream.roofline import StepWork

_STATEMENTS = (
    "Problem {n}. Let a, b and c be positive integers with a + b + c = {n} and let p be the number of ways to write "
    "{n} as a sum of three squares, where the order of the squares matters. ",
    "A regular polygon with {n} vertices is inscribed in a circle; two different vertices are chosen at random and "
    "joined by a chord. Let q be the expected number of sides that lie on the shorter of the two arcs. ",
    "A sequence begins with x_1 = {n} and goes on with x_(k+1) = x_k^2 - 2 for every k >= 1; let r be the remainder "
    "when x_10 is divided by 1000. ",
    "A grid with {n} rows and 12 columns is covered by dominoes, none of which overlaps another; let s be the number "
    "of ways to do so, and let t be the number of those that are equal to their mirror image. ",
)
_END = " Find the remainder when p + q + r + s + t is divided by 99991.\n\nSolution. We go step by step.\n\nStep 1:"

Advance = Callable[[int, int], None]  # tokens done, of how many


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of an engine at once.

    Attributes:
        attempts: of each problem.
        problems: that arrive together.
        prompt_tokens: of each problem, shared by its attempts.
        new_tokens: sampled by each attempt, the end of text ignored.
        temperature: of sampling.
        top_p: of sampling.
        num_logprobs: likeliest tokens told with each token.
    """

    attempts: int
    problems: int = 1
    prompt_tokens: int = 200
    new_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    num_logprobs: int = 5

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name, least in (("attempts", 1), ("problems", 1), ("prompt_tokens", 64), ("new_tokens", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, not {getattr(self, name)}")
        self.sampling(0)

    @property
    def num_requests(self) -> int:
        """Attempts of all problems."""
        return self.attempts * self.problems

    @property
    def num_tokens(self) -> int:
        """New tokens of all attempts."""
        return self.num_requests * self.new_tokens

    def sampling(self, seed: int) -> SamplingParams:
        """How an attempt's tokens are drawn."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.new_tokens,
            seed=seed,
            ignore_eos=True,
            num_logprobs=self.num_logprobs,
        )


@dataclass(frozen=True, slots=True)
class Timing:
    """One run of a workload, from the moment its requests arrive.

    Attributes:
        seconds: until the last token.
        first_token_s: until the first token of any attempt.
        all_begun_s: until every attempt has its first token; from there on every step decodes only.
        num_decoded: tokens after that moment.
        decode_step_s: seconds of each step after it.
        kv_blocks: distinct KV blocks that the attempts held together, at most.
    """

    seconds: float
    first_token_s: float
    all_begun_s: float
    num_decoded: int
    decode_step_s: tuple[float, ...]
    kv_blocks: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the repeats of one workload.

    Attributes:
        attempts, problems, prompt_tokens, new_tokens: see `Workload`.
        repeats: runs behind the medians.
        tokens_per_s: new tokens a second of the whole, the prompts' computation included.
        decode_tokens_per_s: from the moment every attempt has begun.
        first_token_s: until the first token of any attempt.
        step_s: median seconds of a decoding step.
        step_p95_s: 95th percentile of a decoding step, over all repeats.
        kv_bytes_per_attempt: keys and values an attempt holds at its end, shared blocks counted once over all.
        weight_gb_per_s: 10^9 bytes of weights that the decoding steps read a second.
        gop_per_s: 10^9 operations (two a weight and row) that their matrix products did a second.
    """

    attempts: int
    problems: int
    prompt_tokens: int
    new_tokens: int
    repeats: int
    tokens_per_s: float
    decode_tokens_per_s: float
    first_token_s: float
    step_s: float
    step_p95_s: float
    kv_bytes_per_attempt: float
    weight_gb_per_s: float
    gop_per_s: float


def prompt_ids(tokenizer: EngineTokenizer, num_tokens: int, problem: int, repeat: int) -> list[int]:
    """Exactly `num_tokens` tokens of a problem that no other (problem, repeat) begins with."""
    number = 1009 + 64 * repeat + problem
    text = "".join(statement.format(n=number) for statement in _STATEMENTS)
    end = tokenizer.encode(_END)
    body = tokenizer.encode(text)
    room = num_tokens - len(end)
    if room < BLOCK_SIZE:
        raise ValueError(
            f"prompt_tokens must be at least {len(end) + BLOCK_SIZE} with this tokenizer, not {num_tokens}"
        )
    return [*(body * (1 + room // len(body)))[:room], *end]


def workload_prompts(tokenizer: EngineTokenizer, workload: Workload, repeat: int) -> list[list[int]]:
    """The prompts of one repeat, one a problem."""
    return [prompt_ids(tokenizer, workload.prompt_tokens, problem, repeat) for problem in range(workload.problems)]


def run_prompts(
    loaded: LoadedEngine,
    prompts: Sequence[Sequence[int]],
    workload: Workload,
    seed: int,
    advance: Advance = lambda done, total: None,
) -> Timing:
    """Run a workload with these prompts, one a problem, on an idle engine.

    Raises:
        EngineError: when an attempt ends before its last token (its prompt does not fit, its logits are no numbers).
    """
    engine = loaded.engine
    start_s = time.perf_counter()
    try:
        for problem, prompt in enumerate(prompts):
            for attempt in range(workload.attempts):
                sampling = workload.sampling(derive_seed(seed, problem, attempt))
                engine.add(f"measure/{problem}/{attempt}", prompt, sampling, f"measure/{problem}")
        return _follow(engine, workload, start_s, advance)
    finally:
        for problem in range(workload.problems):  # what an interrupt or an early end has left
            engine.abort(group=f"measure/{problem}")
        while engine.has_work:
            engine.step()


def _follow(engine: Engine, workload: Workload, start_s: float, advance: Advance) -> Timing:
    num_done = num_before = kv_blocks = 0
    begun: set[str] = set()
    first_s = all_begun_s = 0.0
    steps: list[float] = []
    now_s = start_s
    while engine.has_work:
        outputs = engine.step()
        step_start_s, now_s = now_s, time.perf_counter()
        num_done += len(outputs)
        if all_begun_s:
            steps.append(now_s - step_start_s)
        elif outputs:
            first_s = first_s or now_s
            begun.update(output.request.request_id for output in outputs)
            if len(begun) == workload.num_requests:
                all_begun_s, num_before = now_s, num_done
        _refuse_early_end(outputs, workload.new_tokens)
        kv_blocks = max(kv_blocks, len({block for output in outputs for block in output.request.block_ids}))
        advance(num_done, workload.num_tokens)
    return Timing(
        now_s - start_s, first_s - start_s, all_begun_s - start_s, num_done - num_before, tuple(steps), kv_blocks
    )


def _refuse_early_end(outputs: Sequence[RequestOutput], new_tokens: int) -> None:
    for output in outputs:
        request, end = output.request, output.end
        if end is not None and len(request.output_ids) < new_tokens:
            raise EngineError(
                f"attempt {request.request_id} ended ({end.message or end.reason}) after {len(request.output_ids)} of "
                f"{new_tokens} tokens; the measurement is void. Ask for fewer tokens (--new, --prompt) or a longer "
                "maximal length."
            )


def summarise(workload: Workload, timings: Sequence[Timing], work: StepWork) -> Figures:
    """Medians of `timings`, which must not be empty."""
    steps = sorted(step for timing in timings for step in timing.decode_step_s)
    step_s = statistics.median(steps)
    return Figures(
        attempts=workload.attempts,
        problems=workload.problems,
        prompt_tokens=workload.prompt_tokens,
        new_tokens=workload.new_tokens,
        repeats=len(timings),
        tokens_per_s=statistics.median(workload.num_tokens / timing.seconds for timing in timings),
        decode_tokens_per_s=statistics.median(
            timing.num_decoded / (timing.seconds - timing.all_begun_s) for timing in timings
        ),
        first_token_s=statistics.median(timing.first_token_s for timing in timings),
        step_s=step_s,
        step_p95_s=steps[math.ceil(0.95 * len(steps)) - 1],
        kv_bytes_per_attempt=max(timing.kv_blocks for timing in timings) * work.kv_block_bytes / workload.num_requests,
        weight_gb_per_s=work.weight_bytes / step_s / 1e9,
        gop_per_s=2 * work.num_weights * workload.num_requests / step_s / 1e9,
    )


@dataclass(frozen=True, slots=True)
class StartTiming:
    """How long a start took.

    Attributes:
        load_s: from the model's path to an engine that takes requests.
        first_token_s: from the model's path to the first token of a request that then arrives.
    """

    load_s: float
    first_token_s: float


def time_start(model_path: Path, cache_dir: Path, config: EngineConfig, progress: Progress) -> StartTiming:
    """Load a model and draw one token. Raises what `load_engine` raises."""
    start_s = time.perf_counter()
    loaded = load_engine(model_path, cache_dir, config, progress)
    load_s = time.perf_counter() - start_s
    prompt = loaded.tokenizer.encode(_END)
    loaded.engine.add("start", prompt, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    while loaded.engine.has_work:
        loaded.engine.step()
    return StartTiming(load_s, time.perf_counter() - start_s)
