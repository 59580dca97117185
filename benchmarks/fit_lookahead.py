"""Where the weights of `mathlete.ryanstream.lookahead` come from, and how well they predict.

usage: fit_lookahead.py record MODEL PROBLEMS.jsonl OUT.jsonl [--problems 48] [--attempts 4]
       fit_lookahead.py fit RECORDED.jsonl

`record` solves problems with the engine and writes each attempt's tokens with their entropies and end-of-text
log-probabilities. `fit` fits the logistic model on two thirds of the problems, prints the weights, and judges them on
the rest: log loss and Brier score against the base rate and against the token's position alone, a reliability table,
and what the threshold for FINISHING catches, how early, and how often wrongly. A position counts when the sequence
goes on after it; positions within the horizon of the token limit are left out, since there the end is certain.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mathlete.core.generation import Message, SamplingParams
from mathlete.generators.chat_format import chat_ids
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import load_engine
from mathlete.ryanstream.lookahead import HORIZON, LookaheadPredictor, LookaheadWeights, Outlook
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import FINISHING_ABOVE

Array = NDArray[np.float64]

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
MAX_TOKENS = 1024
# These cannot lower the probability: more end of text, more hazard or a fresher signal makes an end likelier.
NON_NEGATIVE = ("hazard", "eos_level", "eos_slope", "signal", "recency")


class Rows(NamedTuple):
    """Positions of attempts: features [N, 1 + 6] with a leading 1, whether the end came within the horizon [N],
    the position [N], which attempt [N] and the tokens still to come [N]."""  # noqa: D205, D209

    features: Array
    ends: Array
    position: Array
    attempt: NDArray[np.int64]
    remaining: Array


class Recorder(LookaheadPredictor):
    """A predictor that keeps the end-of-text log-probabilities it is told."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        super().__init__()
        self.eos_logprobs: dict[str, list[float]] = {}

    def note_token(
        self, request: EngineRequest, token_id: int, eos_logprob: float, entropy: float, num_left: int
    ) -> Outlook:
        """Keep it, and predict."""
        self.eos_logprobs.setdefault(request.request_id, []).append(round(eos_logprob, 4))
        return super().note_token(request, token_id, eos_logprob, entropy, num_left)


def record(args: argparse.Namespace) -> None:
    """Solve problems and write what the predictor would have seen."""
    store = ModelStore()
    config = EngineConfig(max_running=24, max_model_len=2048)
    loaded = load_engine(store.ensure(args.model).path, store.cache_dir, config, lambda what, done, total: None)
    signal = loaded.tokenizer.encode("boxed{")
    recorder = loaded.engine._scheduler._lookahead = Recorder()
    problems = [json.loads(line) for line in Path(args.problems_file).read_text(encoding="utf-8").splitlines()]
    random.Random(5).shuffle(problems)
    for number, problem in enumerate(problems[: args.problems]):
        prompt = chat_ids(loaded.tokenizer, [Message("user", f"{problem['problem']}\n{INSTRUCTION}")])
        for attempt in range(args.attempts):
            sampling = SamplingParams(max_tokens=MAX_TOKENS, seed=1000 * number + attempt)
            loaded.engine.add(f"{problem['id']}#{attempt}", prompt, sampling, problem["id"])
    with Path(args.out).open("w", encoding="utf-8") as out:
        while loaded.engine.has_work:
            for output in loaded.engine.step():
                if output.end is not None:
                    heard = recorder.eos_logprobs.pop(output.request.request_id, [])
                    out.write(json.dumps(_row(output.request, output.end.reason, heard, signal)) + "\n")


def _row(request: EngineRequest, reason: str, eos_logprobs: list[float], signal: list[int]) -> dict[str, Any]:
    """What is said at the last token, when all is over, is not asked for: it stands as 0."""
    return {
        "id": request.request_id,
        "group": request.group,
        "token_ids": request.output_ids,
        "entropies": [round(value, 4) for value in request.entropies],
        "eos_logprobs": [*eos_logprobs, 0.0],
        "reason": reason,
        "signal": signal,
    }


def rows_of(attempts: Sequence[dict[str, Any]]) -> Rows:
    """Features along recorded attempts. Of each group the attempts are seen one after another, as siblings end."""
    predictor = LookaheadPredictor([attempts[0]["signal"]])
    features, ends, position, which, remaining = [], [], [], [], []
    for number, row in enumerate(attempts):
        sampling = SamplingParams(max_tokens=MAX_TOKENS)
        request = EngineRequest(row["id"], (0,), sampling, row["group"], arrival=number)
        length = len(row["token_ids"])
        tokens = zip(row["token_ids"], row["eos_logprobs"], row["entropies"], strict=True)
        for at, (token, eos, entropy) in enumerate(tokens, start=1):
            request.output_ids.append(token)
            if at == length or (row["reason"] == "length" and length - at <= HORIZON):
                continue
            features.append([1.0, *predictor.features(request, token, eos, entropy)])
            ends.append(float(length - at <= HORIZON))
            position.append(float(at))
            which.append(number)
            remaining.append(float(length - at))
        predictor.note_finished(request)
        predictor.forget(request)
    return Rows(np.array(features), np.array(ends), np.array(position), np.array(which), np.array(remaining))


def fit_logistic(x: Array, y: Array, lower: Array, ridge: float = 1.0) -> Array:
    """Weights [F] of a logistic model by Newton's method; those that end below their bound are set to it, the rest
    fitted again."""  # noqa: D205, D209
    free = np.ones(x.shape[1], dtype=bool)
    while True:
        weights = np.where(free, 0.0, np.maximum(lower, 0.0))
        for _ in range(50):
            p = 1 / (1 + np.exp(-x @ weights))
            slope = x[:, free].T @ (y - p) - ridge * weights[free]
            curve = (x[:, free] * (p * (1 - p))[:, None]).T @ x[:, free] + ridge * np.eye(int(free.sum()))
            weights[free] += np.linalg.solve(curve, slope)
        below = free & (weights < lower)
        if not below.any():
            return weights
        free &= ~below


def log_loss(p: Array, y: Array) -> float:
    """Mean negative log-likelihood, nats."""
    bounded = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-(y * np.log(bounded) + (1 - y) * np.log(1 - bounded)).mean())


def fit(args: argparse.Namespace) -> None:
    """Fit on some problems, judge on others."""
    attempts = [json.loads(line) for line in Path(args.recorded).read_text(encoding="utf-8").splitlines()]
    attempts.sort(key=lambda row: (row["group"], row["id"]))
    groups = sorted({row["group"] for row in attempts})
    random.Random(0).shuffle(groups)
    fitted_on = set(groups[: 2 * len(groups) // 3])
    train = rows_of([row for row in attempts if row["group"] in fitted_on])
    test = rows_of([row for row in attempts if row["group"] not in fitted_on])
    names = [field for field in LookaheadWeights.__dataclass_fields__]
    lower = np.array([0.0 if name in NON_NEGATIVE else -math.inf for name in names])
    weights = fit_logistic(train.features, train.ends, lower)
    print("LookaheadWeights(" + ", ".join(f"{n}={w:.3f}" for n, w in zip(names, weights, strict=True)) + ")")
    print(f"attempts {len(attempts)}, positions {len(train.ends)} fitted, {len(test.ends)} judged")
    places = [np.stack([np.ones_like(rows.position), np.log(rows.position)], 1) for rows in (train, test)]
    free = np.full(2, -math.inf)
    by_place = fit_logistic(places[0], train.ends, free)
    no_signal = np.array([name not in ("signal", "recency") for name in names])
    blind = fit_logistic(train.features[:, no_signal], train.ends, lower[no_signal])
    judged = {
        "base rate": np.full_like(test.ends, train.ends.mean()),
        "position alone": _sigmoid(places[1] @ by_place),
        "no signals": _sigmoid(test.features[:, no_signal] @ blind),
        "lookahead": _sigmoid(test.features @ weights),
    }
    for name, p in judged.items():
        print(f"{name:15s} log loss {log_loss(p, test.ends):.4f}  Brier {((p - test.ends) ** 2).mean():.5f}")
    report_reliability(judged["lookahead"], test)
    report_threshold(judged["lookahead"], test)


def _sigmoid(scores: Array) -> Array:
    return 1 / (1 + np.exp(-scores))


def report_reliability(p: Array, rows: Rows) -> None:
    """Predicted against observed, by bin."""
    edges = [0, 0.02, 0.05, 0.1, 0.3, 0.7, 0.9, 1.01]
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (p >= low) & (p < high)
        if inside.any():
            print(f"  {low:.2f}-{min(high, 1):.2f}: n {inside.sum():6d} predicted {p[inside].mean():.3f} "
                  f"observed {rows.ends[inside].mean():.3f}")  # fmt: skip


def report_threshold(p: Array, rows: Rows) -> None:
    """What raising at the threshold catches: attempts, tokens before their end, false alarms."""
    raised = p > FINISHING_ABOVE
    own_end = {int(a) for a in rows.attempt[rows.ends > 0]}
    leads = [float(rows.remaining[raised & (rows.attempt == a)].max(initial=0)) for a in sorted(own_end)]
    timely = [lead for lead in leads if 0 < lead <= HORIZON]
    print(f"above {FINISHING_ABOVE}: {len(timely)} of {len(own_end)} ends foreseen within {HORIZON} tokens, "
          f"{sum(lead > HORIZON for lead in leads)} first raised earlier than that; "
          f"median lead {statistics.median(timely) if timely else 0:.0f} tokens; "
          f"precision {rows.ends[raised].mean() if raised.any() else math.nan:.3f}, "
          f"false positions {(raised & (rows.ends == 0)).sum()} of {(rows.ends == 0).sum()}")  # fmt: skip


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record")
    recording.add_argument("model")
    recording.add_argument("problems_file")
    recording.add_argument("out")
    recording.add_argument("--problems", type=int, default=48)
    recording.add_argument("--attempts", type=int, default=4)
    recording.set_defaults(run=record)
    fitting = commands.add_parser("fit")
    fitting.add_argument("recorded")
    fitting.set_defaults(run=fit)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
