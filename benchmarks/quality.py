"""What each precision costs in quality, beside bf16: perplexity, agreement, and answers to GSM8K.

usage: quality.py MODEL --out FOLDER [--precisions bf16,w8a8,int4,nf4,w8a8+kv8] [--text FILE ...] [--text-tokens 30000]
                  [--gsm8k FILE.jsonl] [--rows 100] [--prompts 32] [--new 128] [--threads 2] [--parts text,greedy,gsm8k]
"w8a8+kv8" keeps keys and values in int8. FILE is plain text, or problems as JSONL (statement and answer are taken);
several are joined and cut to --text-tokens; by default the text beside this program. Parts:
text    perplexity in windows of 1,024 tokens, and how often the likeliest token is the one bf16 finds likeliest
greedy  completions at temperature 0 of the first --prompts problems: tokens until they part from bf16's
gsm8k   exact integers on the first --rows rows, greedy, paired with bf16 (McNemar's exact test, bootstrap interval)
What is done lies in FOLDER and is not done again; a table in Markdown and a line of JSON end the program.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.core.problem import AnswerKind
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.lab.metrics import bootstrap_estimates, wilson_interval
from mathlete.model_store.store import ModelStore
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.text_logits import text_logits
from mathlete.verify.extraction import extract_answer

REFERENCE = "bf16"
_WINDOW = 1024
_DEFAULT_TEXT = Path(__file__).parent / "data" / "mathematics.txt"
_QUESTION = "{problem}\n\nReason step by step, and put the final answer, a number, in \\boxed{{}}."
_MAX_NEW = 400


def main() -> None:
    """Parse the command line, measure what is missing, print."""
    args = _parse()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.precisions.split(",")
    if names[0] != REFERENCE:
        raise SystemExit(f"--precisions must begin with {REFERENCE}, with which the others are compared")
    problems = _read_problems(args.gsm8k, args.rows) if args.gsm8k else []
    for name in names:
        _Precision(name, args).measure(problems)
    rows = list(_summary(names, args.out))
    _print_table(rows)
    print(json.dumps(rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precisions", default="bf16,w8a8,int4,nf4,w8a8+kv8")
    parser.add_argument("--parts", default="text,greedy,gsm8k")
    parser.add_argument("--text", type=Path, nargs="+", default=[_DEFAULT_TEXT])
    parser.add_argument("--text-tokens", type=int, default=30_000)
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class _Precision:
    """One precision and where its results lie."""

    name: str
    args: argparse.Namespace

    def measure(self, problems: Sequence[dict[str, Any]]) -> None:
        """Do the parts that are asked for and not done yet; the model is loaded only when there are some."""
        parts = {"text": self._text, "greedy": self._greedy, "gsm8k": self._gsm8k}
        asked = [part for part in self.args.parts.split(",") if part == "text" or problems]
        missing = [part for part in asked if not _path(self.args.out, self.name, part).exists()]
        if not missing:
            return
        loaded = self._load()
        for part in missing:
            print(f"{self.name}: {part}", flush=True)
            parts[part](loaded, problems)

    def _load(self) -> LoadedEngine:
        weights, _, kv = self.name.partition("+")
        store = ModelStore()
        config = EngineConfig(
            precision=weights, kv_cache_dtype="int8" if kv else "bf16", max_model_len=2048,
            num_threads=self.args.threads,
        )  # fmt: skip
        return load_engine(store.ensure(self.args.model).path, store.cache_dir, config, lambda what, done, total: None)

    def _text(self, loaded: LoadedEngine, problems: Sequence[dict[str, Any]]) -> None:
        """Log-probability of each token of the text, and the likeliest token in its place."""
        ids = loaded.tokenizer.encode(_read_text(self.args.text))[: self.args.text_tokens]
        runner = loaded.engine.runner
        logprobs, likeliest = [], []
        for start in range(0, len(ids) - 1, _WINDOW):
            window = ids[start : start + _WINDOW + 1]
            targets = torch.tensor(window[1:])
            for logits in text_logits(runner.model, runner.cache[0].keys.dtype, window[:-1]):
                here, targets = targets[: len(logits)], targets[len(logits) :]
                logprobs.append(torch.log_softmax(logits, -1).gather(1, here[:, None])[:, 0])
                likeliest.append(logits.argmax(-1))
            done = torch.cat(logprobs)
            print(f"{self.name}: {len(done)} of {len(ids) - 1} tokens, perplexity {_perplexity(done):.4f}", flush=True)
        content = {"logprobs": torch.cat(logprobs), "likeliest": torch.cat(likeliest)}
        _write(_path(self.args.out, self.name, "text"), lambda path: torch.save(content, path))

    def _greedy(self, loaded: LoadedEngine, problems: Sequence[dict[str, Any]]) -> None:
        """Token ids of greedy completions."""
        found = _complete(loaded, problems[: self.args.prompts], self.args.new, ignore_eos=True)
        ids = {name: finished.completion.token_ids for name, finished in found}
        ordered = [ids[problem["id"]] for problem in problems[: self.args.prompts]]
        _write(_path(self.args.out, self.name, "greedy"), lambda path: path.write_text(json.dumps(ordered)))

    def _gsm8k(self, loaded: LoadedEngine, problems: Sequence[dict[str, Any]]) -> None:
        """Which rows are right."""
        kind = AnswerKind()
        right: dict[str, bool] = {}
        gold = {problem["id"]: int(problem["answer"]) for problem in problems}
        for name, finished in _complete(loaded, problems, _MAX_NEW, ignore_eos=False):
            completion = finished.completion
            found = extract_answer(completion.text, None, kind, complete=completion.finish_reason == "stop")
            right[name] = found.value == gold[name]
            print(f"{self.name}: {name} {'right' if right[name] else 'wrong'}, {len(right)} done", flush=True)
        ordered = [right[problem["id"]] for problem in problems]
        _write(_path(self.args.out, self.name, "gsm8k"), lambda path: path.write_text(json.dumps(ordered)))


def _complete(
    loaded: LoadedEngine, problems: Sequence[dict[str, Any]], max_new: int, ignore_eos: bool
) -> Iterator[tuple[str, Finished]]:
    """Greedy answers to the problems, as they end."""
    generator = RyanStreamGenerator(loaded)
    sampling = SamplingParams(temperature=0, max_tokens=max_new, ignore_eos=ignore_eos)
    for problem in problems:
        messages = (Message("user", _QUESTION.format(problem=problem["problem"])),)
        generator.submit(GenerateRequest(problem["id"], messages, sampling))
    num_open = len(problems)
    while num_open:
        for event in generator.events(1.0):
            if isinstance(event, Finished):
                num_open -= 1
                yield event.request_id, event


def _read_problems(path: Path, number: int) -> list[dict[str, Any]]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row.get("integer", True)][:number]


def _read_text(paths: Iterable[Path]) -> str:
    """Plain files as they are, problems as statement and answer."""
    parts = []
    for path in paths:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            rows = map(json.loads, content.splitlines())
            content = "\n\n".join(f"Problem. {row['problem']}\nAnswer. {row['answer']}" for row in rows)
        parts.append(content)
    return "\n\n".join(parts)


def _summary(names: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """One row a precision, each figure where its part is done for it and for bf16."""
    for name in names:
        row: dict[str, Any] = {"precision": name}
        if _both(folder, name, "text"):
            row |= _text_figures(*(torch.load(_path(folder, one, "text")) for one in (name, REFERENCE)))
        if _both(folder, name, "greedy"):
            row |= _greedy_figures(*(_read_json(_path(folder, one, "greedy")) for one in (name, REFERENCE)))
        if _both(folder, name, "gsm8k"):
            row |= _gsm8k_figures(*(_read_json(_path(folder, one, "gsm8k")) for one in (name, REFERENCE)))
        yield row


def _text_figures(found: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, Any]:
    ours, theirs = found["logprobs"], reference["logprobs"]
    return {
        "text_tokens": len(ours),
        "perplexity": _perplexity(ours),
        "perplexity_ratio": _perplexity(ours) / _perplexity(theirs),
        "likeliest_agreement": (found["likeliest"] == reference["likeliest"]).double().mean().item(),
        "mean_abs_logprob_change": (ours - theirs).abs().double().mean().item(),
    }


def _greedy_figures(found: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Mean share of tokens before the first difference, and share of completions that never differ."""
    shares = [_equal_start(ours, theirs) / len(theirs) for ours, theirs in zip(found, reference, strict=True)]
    return {
        "greedy_prompts": len(shares),
        "greedy_share_until_divergence": math.fsum(shares) / len(shares),
        "greedy_equal": sum(share == 1 for share in shares) / len(shares),
    }


def _equal_start(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def _gsm8k_figures(found: Sequence[bool], reference: Sequence[bool]) -> dict[str, Any]:
    gained = sum(ours and not theirs for ours, theirs in zip(found, reference, strict=True))
    lost = sum(theirs and not ours for ours, theirs in zip(found, reference, strict=True))
    accuracy = wilson_interval(sum(found), len(found))
    difference = [float(ours) - float(theirs) for ours, theirs in zip(found, reference, strict=True)]
    change = bootstrap_estimates({"change": difference}, [str(row) for row in range(len(difference))])["change"]
    return {
        "gsm8k_rows": len(found), "gsm8k_accuracy": accuracy.value, "gsm8k_low": accuracy.low,
        "gsm8k_high": accuracy.high, "gsm8k_gained": gained, "gsm8k_lost": lost, "gsm8k_change": change.value,
        "gsm8k_change_low": change.low, "gsm8k_change_high": change.high, "gsm8k_mcnemar_p": mcnemar_p(gained, lost),
    }  # fmt: skip


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: rows that changed, as fair coins (McNemar 1947)."""
    number = gained + lost
    tail = sum(math.comb(number, k) for k in range(min(gained, lost) + 1)) / 2**number
    return min(1.0, 2 * tail)


def _perplexity(logprobs: torch.Tensor) -> float:
    return math.exp(-logprobs.double().mean().item())


def _path(folder: Path, name: str, part: str) -> Path:
    return folder / f"{name}-{part}.{'pt' if part == 'text' else 'json'}"


def _both(folder: Path, name: str, part: str) -> bool:
    return all(_path(folder, one, part).exists() for one in (name, REFERENCE))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _write(path: Path, write: Any) -> None:
    """A result is there whole or not at all."""
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("\n| precision | perplexity (of bf16's) | same likeliest token | greedy until divergence | GSM8K "
          "| change (95 %), McNemar p |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = ["", "", "", "", ""]
        if "perplexity" in row:
            cells[0] = f"{row['perplexity']:.3f} ({100 * (row['perplexity_ratio'] - 1):+.2f} %)"
            cells[1] = f"{row['likeliest_agreement']:.1%}"
        if "greedy_prompts" in row:
            cells[2] = f"{row['greedy_share_until_divergence']:.0%} ({row['greedy_equal']:.0%} equal)"
        if "gsm8k_rows" in row:
            cells[3] = f"{row['gsm8k_accuracy']:.0%} of {row['gsm8k_rows']}"
            change = f"{row['gsm8k_change']:+.2f} ({row['gsm8k_change_low']:+.2f} to {row['gsm8k_change_high']:+.2f})"
            cells[4] = f"{change}, {row['gsm8k_mcnemar_p']:.2f}"
        print(f"| {row['precision']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
