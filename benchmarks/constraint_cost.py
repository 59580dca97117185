r"""What constraints cost: a real engine's steps of 16 attempts with them and without, and where the difference goes.

usage: constraint_cost.py [ATTEMPTS.jsonl ...] [--model 1.5b] [--precision w8a8] [--attempts 16] [--seconds 90]
                          [--threads N] [--texts 50]
*Steps*: attempts at one problem, as `mathlete solve` asks the model first, another in the place of each that ends.
Steps alternate (with constraints, without, without, with), so both are of the same attempts at the same places; behind
a step without, the constraints are told what was drawn. Steps that compute a prompt or end an attempt are not counted.
`ratio` is of the medians, with a bootstrap interval over pairs of neighbours. *Parts*, in more steps of their own,
mean microseconds a token: `fill_mask` and `accept` of a constraint; `rows`, the engine's gathering of masks
(`ConstraintMasks.fill`) beside `fill_mask`; `draw`, drawing from the same logits under the masks less drawing without.
*Walks*, of ATTEMPTS (the interchange format of recorded attempts; what `mathlete solve` leaves in
runs/ID/attempts.jsonl): the longest texts token by token. *Cold* is the first walk, with masks still to be worked
out, but for those worked out with the vocabulary's; *warm* the second. Prints one JSON object. Takes about two minutes;
times mean something only where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from mathlete.core.generation import SamplingParams
from mathlete.core.problem import AnswerKind, Problem
from mathlete.generators.chat_format import chat_ids
from mathlete.model_store.store import ModelStore
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.token_constraint import TextConstraint
from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.ryanstream import runner
from mathlete.ryanstream.constraints import ConstraintMasks
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.model.math_tokenizer import MathTokenizer
from mathlete.ryanstream.request import EngineRequest
from mathlete.triad.chat import opening_messages

PROBLEM = Problem(
    "cost",
    "Let $p(n)$ be the number of pairs of integers $(a, b)$ with $1 \\le a < b \\le n$ for which $a^2 + b^2$ is "
    "divisible by $5$. Find the remainder when $p(100) + p(101) + \\dots + p(200)$ is divided by $1000$. Explain each "
    "step in full.",
)
_ALTERNATING = (True, False, False, True)
_NUM_RESAMPLES = 2_000


@dataclass
class Clock:
    """Seconds spent in what it wraps, and how often that was called."""

    spent_s: float = 0.0
    calls: int = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.spent_s += time.perf_counter() - start
            self.calls += 1
            return result

        return wrapped


@dataclass
class Attempts:
    """Attempts at one prompt that never stop: another begins where one ends.

    Attributes:
        loaded: the engine, idle.
        vocabulary: its model's.
        prompt: token ids.
        number: at once.
        max_tokens: of each.
        pattern: which steps are with constraints, again and again.
    """

    loaded: LoadedEngine
    vocabulary: Vocabulary
    prompt: Sequence[int]
    number: int
    max_tokens: int = 1024
    pattern: Sequence[bool] = _ALTERNATING
    _live: dict[str, TextConstraint] = field(default_factory=dict)
    _requests: dict[str, EngineRequest] = field(default_factory=dict)
    _num_begun: int = 0

    def steps(self) -> Iterator[float]:
        """Seconds of counted steps, without end; they begin where the pattern begins."""
        num_counted = 0
        while True:
            while len(self._live) < self.number:
                self._begin()
            with_constraints = self.pattern[num_counted % len(self.pattern)]
            for name, request in self._requests.items():
                request.constraint = self._live[name] if with_constraints else None
            all_run = len(self._requests) == self.number
            start = time.perf_counter()
            outputs = self.loaded.engine.step()
            took_s = time.perf_counter() - start
            for output in outputs:
                self._follow(output.request, output.new_token_id)
            for output in outputs:
                if output.end is not None:
                    del self._live[output.request.request_id], self._requests[output.request.request_id]
            if all_run and len(self._live) == len(outputs) == self.number:
                num_counted += 1
                yield took_s

    def _begin(self) -> None:
        name, constraint = f"cost/{self._num_begun}", self._constraint("")
        sampling = SamplingParams(temperature=0.8, top_p=0.95, seed=self._num_begun, max_tokens=self.max_tokens)
        self.loaded.engine.add(name, self.prompt, sampling, group="cost", constraint=constraint)
        self._live[name] = constraint
        self._num_begun += 1

    def _follow(self, request: EngineRequest, token_id: int | None) -> None:
        """Let the constraint know of a token that was drawn without it; one that it refuses, it forgives."""
        name = request.request_id
        self._requests[name] = request
        if request.constraint is None and token_id is not None and not self._live[name].accept((token_id,)):
            written = b"".join(self.loaded.token_bytes[token] for token in request.output_ids)
            self._live[name] = self._constraint(written.decode("utf-8", "replace"))

    def _constraint(self, text: str) -> TextConstraint:
        built = build_constraint(ConstraintSpec(), self.vocabulary, PROBLEM.answer_kind, text)
        assert built is not None
        return built


class StepPair(NamedTuple):
    """Seconds of two neighbouring steps."""

    with_s: float
    without_s: float


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="ATTEMPTS", type=Path, nargs="*")
    parser.add_argument("--model", default="1.5b")
    parser.add_argument("--precision", default="w8a8")
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=90, help="of counted steps")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--texts", type=int, default=50, help="texts walked through, the longest first")
    args = parser.parse_args()
    store = ModelStore()
    config = EngineConfig(
        precision=args.precision, max_running=args.attempts, max_model_len=2048, num_threads=args.threads
    )
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
    start = time.perf_counter()
    vocabulary = Vocabulary(loaded.token_bytes, loaded.tokenizer.eos_token_ids)
    built_s = time.perf_counter() - start
    texts = sorted({text for file in args.files for text in texts_of(file)}, key=len, reverse=True)[: args.texts]
    walks = [loaded.tokenizer.encode(text) for text in texts]
    prompt = chat_ids(MathTokenizer(loaded.tokenizer), opening_messages("code", PROBLEM))
    result: dict[str, object] = {
        "vocabulary": vocabulary.size,
        "spellings": len(vocabulary.groups),
        "built_s": round(built_s, 2),
        "texts": len(texts),
    }
    start = time.perf_counter()
    build_constraint(ConstraintSpec(), vocabulary, PROBLEM.answer_kind)
    result["first_masks_s"] = round(time.perf_counter() - start, 2)
    result |= {name: cost(vocabulary, walks) for name in ("cold", "warm") if walks}
    attempts = Attempts(loaded, vocabulary, prompt, args.attempts)
    result["steps"] = compared(step_pairs(attempts, args.seconds))
    result["parts_us_of_a_token"] = parts(attempts, num_steps=96)
    print(json.dumps(result, indent=1))


def step_pairs(attempts: Attempts, seconds: float) -> list[StepPair]:
    """Steps with constraints beside steps without, for so long; the first 8 are not counted."""
    steps = attempts.steps()
    for _ in range(8):
        next(steps)
    pairs: list[StepPair] = []
    spent_s = 0.0
    while spent_s < seconds:
        one, two, three, four = (next(steps) for _ in range(4))
        pairs += [StepPair(one, two), StepPair(four, three)]
        spent_s += one + two + three + four
    return pairs


def compared(pairs: Sequence[StepPair]) -> dict[str, object]:
    """Medians, their ratio, and its interval (95 %, bootstrap over pairs)."""
    noise = random.Random(0)
    ratios = sorted(_ratio(noise.choices(pairs, k=len(pairs))) for _ in range(_NUM_RESAMPLES))
    low, high = ratios[int(0.025 * _NUM_RESAMPLES)], ratios[int(0.975 * _NUM_RESAMPLES)]
    return {
        "pairs": len(pairs),
        "with_ms": round(1e3 * statistics.median(pair.with_s for pair in pairs), 3),
        "without_ms": round(1e3 * statistics.median(pair.without_s for pair in pairs), 3),
        "ratio": round(_ratio(pairs), 4),
        "ratio_95": [round(low, 4), round(high, 4)],
    }


def _ratio(pairs: Sequence[StepPair]) -> float:
    return statistics.median(pair.with_s for pair in pairs) / statistics.median(pair.without_s for pair in pairs)


def parts(attempts: Attempts, num_steps: int) -> dict[str, float]:
    """Microseconds a token of what constraints add, in steps that are timed inside and so are no steps to compare."""
    fill_mask, accept, fill, masked, plain = (Clock() for _ in range(5))
    draw, timed_masked, timed_plain = runner.sample, masked.timed(runner.sample), plain.timed(runner.sample)

    def both(logits: Any, batch: Any, sampler: Any, constrained: Any, drawn: Any) -> Any:
        if constrained is None:
            return draw(logits, batch, sampler, None, drawn)
        plain_first = masked.calls % 2
        if plain_first:
            timed_plain(logits, batch, sampler, None, drawn)
        found = timed_masked(logits, batch, sampler, constrained, drawn)
        if not plain_first:
            timed_plain(logits, batch, sampler, None, drawn)
        return found

    attempts.pattern = (True,)
    with (
        mock.patch.object(runner, "sample", both),
        mock.patch.object(ConstraintMasks, "fill", fill.timed(ConstraintMasks.fill)),
        mock.patch.object(TextConstraint, "fill_mask", fill_mask.timed(TextConstraint.fill_mask)),
        mock.patch.object(TextConstraint, "accept", accept.timed(TextConstraint.accept)),
    ):
        steps = attempts.steps()
        for _ in range(num_steps):
            next(steps)
    each = {
        "fill_mask": fill_mask.spent_s / fill_mask.calls,
        "accept": accept.spent_s / accept.calls,
        "rows": (fill.spent_s - fill_mask.spent_s) / fill_mask.calls,
        "draw": (masked.spent_s - plain.spent_s) / fill_mask.calls,
    }
    each["all"] = sum(each.values())
    return {name: round(1e6 * seconds, 2) for name, seconds in each.items()}


def texts_of(file: Path) -> Iterator[str]:
    """The texts of a file of recorded attempts."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield from (attempt["text"] for attempt in json.loads(line)["attempts"] if attempt.get("text"))


def cost(vocabulary: Vocabulary, walks: Sequence[Sequence[int]]) -> dict[str, object]:
    """Walk through all texts once; a text is left at its first token that is masked."""
    mask = memoryview(bytearray(4 * vocabulary.num_words)).cast("I")
    fill_s: list[float] = []
    accept_s: list[float] = []
    num_left = 0
    for walk in walks:
        constraint = build_constraint(ConstraintSpec(), vocabulary, AnswerKind())
        assert constraint is not None
        for token_id in walk:
            start = time.perf_counter()
            constraint.fill_mask(mask)
            filled = time.perf_counter()
            accepted = constraint.accept((token_id,))
            accept_s.append(time.perf_counter() - filled)
            fill_s.append(filled - start)
            if not accepted:
                num_left += 1
                break
    return {
        "tokens": len(fill_s),
        "left_at_a_masked_token": num_left,
        "fill_mask_us": summary(fill_s),
        "accept_us": summary(accept_s),
        "both_us_of_16_attempts": {
            "mean": round(16e6 * (statistics.fmean(fill_s) + statistics.fmean(accept_s)), 1),
            "median": round(16e6 * (statistics.median(fill_s) + statistics.median(accept_s)), 1),
        },
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Microseconds: mean, median, 99th percentile, worst."""
    ordered = sorted(seconds)
    values = {
        "mean": statistics.fmean(ordered),
        "median": statistics.median(ordered),
        "p99": ordered[int(0.99 * (len(ordered) - 1))],
        "worst": ordered[-1],
    }
    return {name: round(1e6 * value, 2) for name, value in values.items()}


if __name__ == "__main__":
    main()
