r"""What a constraint costs a token: microseconds of `fill_mask` and `accept` along real solution texts.

usage: constraint_cost.py ATTEMPTS.jsonl [ATTEMPTS.jsonl ...] [--model 0.5b] [--texts 100]
ATTEMPTS is the interchange format of recorded attempts (what `mathlete solve` leaves in runs/ID/attempts.jsonl); its
texts are walked through token by token, as the model's own tokenizer cuts them. *Cold* is the first walk, with every
mask still to be worked out; *warm* the second one, over the same texts. Prints one JSON object; times are of one
thread, and mean something only where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mathlete.core.problem import AnswerKind
from mathlete.model_store.store import ModelStore
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import load_engine


def main() -> None:
    """Parse the command line, walk, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attempts", type=Path, nargs="+")
    parser.add_argument("--model", default="0.5b")
    parser.add_argument("--texts", type=int, default=100, help="texts walked through, the longest first")
    args = parser.parse_args()
    store = ModelStore()
    path = store.ensure(args.model).path
    loaded = load_engine(path, store.cache_dir, EngineConfig(max_model_len=512), lambda what, done, total: None)
    start = time.perf_counter()
    vocabulary = Vocabulary(loaded.token_bytes, loaded.tokenizer.eos_token_ids)
    built_s = time.perf_counter() - start
    texts = sorted({text for file in args.attempts for text in texts_of(file)}, key=len, reverse=True)[: args.texts]
    walks = [loaded.tokenizer.encode(text) for text in texts]
    result = {
        "vocabulary": vocabulary.size,
        "spellings": len(vocabulary.groups),
        "built_s": round(built_s, 2),
        "texts": len(texts),
    }
    print(json.dumps(result | {name: cost(vocabulary, walks) for name in ("cold", "warm")}, indent=1))


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
