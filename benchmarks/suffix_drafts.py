"""What drafts from earlier text would have saved on recorded attempts; no model runs.

usage: suffix_drafts.py MODEL ATTEMPTS.jsonl ... [--problems N] [--sizes 4x4,8x8,32x16]

MODEL is a folder or GGUF file, for its tokenizer; ATTEMPTS an exported run (the interchange form, with `text`). Each
attempt is replayed step by step: the proposer guesses, and as much of its guess is accepted as the attempt then said.
As drawn tokens do not depend on speculation, this is what would have happened, but for text that was tokenised anew.
Tool outputs are given, not guessed. `ngram` sees the attempt itself; `suffix` its siblings too, which are replayed
one after another or all together. Sizes are nodes x depth of a tree.

Two tables: tokens a step (1 without drafts), nodes a step, accepted nodes, and the proposer's microseconds of processor
time a step; and for the nodes whose parent was accepted, the proposer's confidence beside how often they were right.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.checkpoint.convert import open_source
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.request import EngineRequest, Status
from mathlete.ryanstream.speculative.depth_control import DraftLimits
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree
from mathlete.ryanstream.speculative.ngram import NgramProposer
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.sibling_suffix import SiblingSuffixProposer

_TOOL_OUTPUT = re.compile(r"(```output\n.*?```)", re.DOTALL)
_NUM_BINS = 10


class Passage(NamedTuple):
    """Tokens that the model wrote, or that were given to it."""

    token_ids: list[int]
    is_given: bool


class Problem(NamedTuple):
    """A prompt and what each attempt said after it."""

    prompt_ids: tuple[int, ...]
    attempts: list[list[Passage]]


@dataclass(slots=True)
class Tally:
    """Counts over a replay.

    Attributes:
        num_steps: steps of the model.
        num_tokens: that they gave.
        num_nodes: guessed.
        propose_s: seconds of processor time spent guessing.
        bins: of each tenth of confidence: nodes judged, the sum of their confidences, how many were right.
    """

    num_steps: int = 0
    num_tokens: int = 0
    num_nodes: int = 0
    propose_s: float = 0.0
    bins: list[list[float]] = field(default_factory=lambda: [[0, 0.0, 0] for _ in range(_NUM_BINS)])


def read_problems(paths: Sequence[Path], tokenizer: EngineTokenizer, limit: int | None) -> list[Problem]:
    """The first problems of each file; attempts without text are left out."""
    problems = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for row in [json.loads(line) for line in lines][:limit]:
                texts = [attempt["text"] for attempt in row["attempts"] if attempt.get("text")]
                attempts = [
                    [Passage(tokenizer.encode(part), bool(at % 2)) for at, part in enumerate(_TOOL_OUTPUT.split(text))]
                    for text in texts
                ]
                problems.append(Problem(tuple(tokenizer.encode(row["problem"])), attempts))
    return problems


def accepted(tree: DraftTree, coming: Sequence[int], tally: Tally) -> int:
    """How many nodes of a draft are right, from the root down; each that is judged is noted."""
    node, num = ROOT, 0
    while num < len(coming):
        right = tree.child(node, coming[num])
        for child, parent in enumerate(tree.parents):
            if parent == node:
                confidence = tree.confidences[child]
                counts = tally.bins[min(int(confidence * _NUM_BINS), _NUM_BINS - 1)]
                counts[0] += 1
                counts[1] += confidence
                counts[2] += child == right
        if right is None:
            return num
        node, num = right, num + 1
    return num


def replay_attempt(
    request: EngineRequest,
    passages: Sequence[Passage],
    proposer: SiblingSuffixProposer,
    limits: DraftLimits,
    tally: Tally,
) -> Iterator[None]:
    """One attempt, a step at a time."""
    for passage in passages:
        if passage.is_given:
            request.output_ids += passage.token_ids
            continue
        place = 0
        while place < len(passage.token_ids):
            start_s = time.thread_time()
            (tree,) = proposer.propose([DraftSlot(request, *limits)])
            tally.propose_s += time.thread_time() - start_s
            num = accepted(tree, passage.token_ids[place:], tally) + 1  # The model's own token comes on top.
            new = passage.token_ids[place : place + num]
            request.output_ids += new
            place += num
            tally.num_steps += 1
            tally.num_tokens += len(new)
            tally.num_nodes += tree.num_nodes
            yield
    proposer.forget(request)


def replay(
    problems: Sequence[Problem], kind: type[SiblingSuffixProposer], together: bool, limits: DraftLimits
) -> Tally:
    """All attempts at all problems, a problem at a time."""
    tally, proposer = Tally(), kind()
    for group, problem in enumerate(problems):
        replays = []
        for arrival, passages in enumerate(problem.attempts):
            request = EngineRequest(
                f"{group}-{arrival}", problem.prompt_ids, SamplingParams(), str(group), arrival, Status.RUNNING
            )
            replays.append(replay_attempt(request, passages, proposer, limits, tally))
        if together:
            while replays:
                replays = [steps for steps in replays if next(steps, tally) is not tally]
        for steps in replays:
            for _ in steps:
                pass
    return tally


def report(name: str, limits: DraftLimits, tally: Tally) -> None:
    """A row of the first table."""
    num_accepted = tally.num_tokens - tally.num_steps
    print(
        f"| {name} | {limits.max_nodes}x{limits.max_depth} | {tally.num_tokens / tally.num_steps:.2f} "
        f"| {tally.num_nodes / tally.num_steps:.1f} | {num_accepted / max(1, tally.num_nodes):.2f} "
        f"| {tally.propose_s / tally.num_steps * 1e6:.0f} |"
    )


def report_reliability(tallies: dict[str, Tally]) -> None:
    """The second table."""
    print("\n| proposer | confidence | right | nodes |\n|---|---|---|---|")
    for name, tally in tallies.items():
        for num, confidence, right in tally.bins:
            if num:
                print(f"| {name} | {confidence / num:.2f} | {right / num:.2f} | {num:,.0f} |")


def main() -> None:
    """Parse the command line, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("attempts", type=Path, nargs="+")
    parser.add_argument("--problems", type=int, default=None)
    parser.add_argument("--sizes", default="4x4,8x8,32x16")
    args = parser.parse_args()
    spec = open_source(args.model).tokenizer()
    tokenizer = EngineTokenizer(spec.tokenizer_json, spec.control_tokens, spec.eos_token_ids)
    problems = read_problems(args.attempts, tokenizer, args.problems)
    sizes = [DraftLimits(*map(int, size.split("x"))) for size in args.sizes.split(",")]
    print("| proposer | nodes x depth | tokens a step | nodes a step | accepted of them | us a step |")
    print("|---|---|---|---|---|---|")
    tallies = {}
    for name, kind, together in (
        ("ngram", NgramProposer, False),
        ("suffix, one after another", SiblingSuffixProposer, False),
        ("suffix, together", SiblingSuffixProposer, True),
    ):
        for limits in sizes:
            tallies[name] = replay(problems, kind, together, limits)
            report(name, limits, tallies[name])
    report_reliability(tallies)


if __name__ == "__main__":
    main()
