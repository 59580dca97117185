"""How often the equations of right and wrong solutions are called wrong, how many are judged, and what it takes.

usage: equation_checks.py FILE... [--field solution] [--limit N] [--workers 1] [--show]
FILE: JSONL or JSON, maybe .gz, of any of these rows, with the statement as "problem" or "question" where there is one:
solutions known to be right ({FIELD: text or list of texts}), recorded attempts ({"attempts": [{"text" or "tail",
"correct"}]}), attempts in steps ({"samples": [{"steps", "correct"}]}) or attempts by name ({NAME: {"solution",
"is_correct"}}). Calculator notes as in GSM8K (<<1+1=2>>) are taken out first. Every text goes through
`SymbolicVerifier` twice: as a whole without its statement, and step by step as when solving, each step with the
statement and the text before it as its context. The figures of the second way begin with "steps"; what stands behind
the last end of a step is not judged there. A refuted equation in a right solution is a false alarm, unless the solution
holds a slip of its own: `--show` prints each, to be read, with the way in which it was found.
Prints one JSON object for each file and kind of text. Texts that never got a verdict at all are no part of "judged".
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mathlete.core.protocols import StepChecked
from mathlete.core.selection import Evidence
from mathlete.proof_sampler.dead_ends import Step, next_step
from mathlete.proof_sampler.equations import contradictions_in
from mathlete.verify.symbolic import SymbolicVerifier

_NOTES = re.compile(r"<<[^<>]*>>")
_POLL_S = 0.002
_CONTEXT_CHARS = 60


class Text(NamedTuple):
    """A solution known to be right ("gold"), or an attempt that turned out "correct" or "wrong"; and what was asked."""

    kind: str
    text: str
    problem: str = ""


def main() -> None:
    """Parse the command line, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--field", default="solution")
    parser.add_argument("--limit", type=int, default=None, help="texts of each file at most")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every refuted equation with its surroundings")
    args = parser.parse_args()
    verifier = SymbolicVerifier(num_workers=args.workers)
    try:
        for path in args.files:
            texts = [text for row in rows(path) for text in texts_of(row, args.field)][: args.limit]
            checked = check(verifier, [(text.text, "") for text in texts])
            by_step = check_by_step(verifier, texts)
            for kind in sorted({text.kind for text in texts}):
                chosen = [index for index, text in enumerate(texts) if text.kind == kind]
                whole, steps = [checked[i] for i in chosen], [by_step[i] for i in chosen]
                found = {**summary([texts[i].text for i in chosen], whole), **summary_by_step(whole, steps)}
                print(json.dumps({"file": path.name, "kind": kind, **found}), flush=True)
            if args.show:
                show(texts, checked, "whole")
                show(texts, by_step, "steps")
    finally:
        verifier.close()


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as lines:
        if path.suffix == ".json":
            yield from json.load(lines)
        else:
            yield from (json.loads(line) for line in lines if line.strip())


def texts_of(row: dict[str, Any], field: str) -> Iterator[Text]:
    """The solutions and attempts of a row."""
    given, problem = row.get(field), row.get("problem") or row.get("question") or ""
    for text in given if isinstance(given, list) else [given]:
        if isinstance(text, str):
            yield Text("gold", _NOTES.sub("", text), problem)
    for attempt in row.get("attempts", []):
        text = attempt.get("text") or attempt.get("tail")
        if text and "correct" in attempt:
            yield Text("correct" if attempt["correct"] else "wrong", text, problem)
    for sample in row.get("samples", []):
        yield Text("correct" if sample["correct"] else "wrong", "\n".join(sample["steps"]), problem)
    for value in row.values():
        if isinstance(value, dict) and "is_correct" in value:
            yield Text("correct" if value["is_correct"] else "wrong", _NOTES.sub("", value["solution"]), problem)


def check(verifier: SymbolicVerifier, texts: list[tuple[str, str]]) -> list[StepChecked]:
    """What is found in each text, given with its context."""
    for index, (text, context) in enumerate(texts):
        verifier.submit(str(index), text, context)
    found: dict[int, StepChecked] = {}
    while len(found) < len(texts):
        found.update({int(checked.check_id): checked for checked in verifier.poll()})
        time.sleep(_POLL_S)
    return [found[index] for index in range(len(texts))]


def check_by_step(verifier: SymbolicVerifier, texts: list[Text]) -> list[StepChecked]:
    """What is found in the steps of each text when each is judged as it comes; places are those in the text."""
    steps = [(index, step) for index, text in enumerate(texts) for step in steps_of(text.text)]
    given = [texts[index] for index, _ in steps]
    asked = [
        (text.text[step.start : step.end], f"{text.problem}\n\n{text.text[: step.start]}")
        for text, (_, step) in zip(given, steps, strict=True)
    ]
    found: list[list[tuple[Evidence, tuple[int, int]]]] = [[] for _ in texts]
    for (index, step), checked in zip(steps, check(verifier, asked), strict=True):
        for evidence, (start, end) in zip(checked.evidence, checked.spans, strict=True):
            found[index].append((evidence, (step.start + start, step.start + end)))
    return [
        StepChecked(str(index), tuple(evidence for evidence, _ in claims), tuple(span for _, span in claims))
        for index, claims in enumerate(found)
    ]


def steps_of(text: str) -> Iterator[Step]:
    """The steps that are judged when solving: finished, prose, with an equation."""
    start = 0
    while (step := next_step(text, start)) is not None:
        start = step.end
        if not step.is_code and "=" in text[step.start : step.end]:
            yield step


def summary(texts: list[str], checked: list[StepChecked]) -> dict[str, Any]:
    """Counts and times of texts of one kind."""
    evidence = [found for text in checked for found in text.evidence]
    verdicts = Counter(found.verdict for found in evidence)
    num_judged = len(evidence) - verdicts["UNKNOWN"]
    num_refuted = sum(map(is_refuted, checked))
    seconds = [found.elapsed_s for found in evidence] or [0.0]
    return {
        "texts": len(texts),
        "texts_with_claims": sum(bool(text.evidence) for text in checked),
        "texts_refuted": num_refuted,
        "texts_refuted_share": round(num_refuted / max(1, len(texts)), 5),
        "texts_contradicting": sum(bool(contradictions_in(text)) for text in texts),
        "claims": len(evidence),
        "claims_judged_share": round(num_judged / max(1, len(evidence)), 4),
        "verdicts": dict(sorted(verdicts.items())),
        "failures": dict(sorted(Counter(found.failure for found in evidence if found.failure).items())),
        "seconds_per_text": round(sum(seconds) / max(1, len(texts)), 5),
        "seconds_per_claim_median": round(statistics.median(seconds), 6),
        "seconds_per_claim_max": round(max(seconds), 3),
    }


def summary_by_step(whole: list[StepChecked], steps: list[StepChecked]) -> dict[str, Any]:
    """Counts of texts of one kind when judged by steps, beside those when judged as a whole."""
    refuted = [(is_refuted(one), is_refuted(other)) for one, other in zip(whole, steps, strict=True)]
    return {
        "steps_claims": sum(len(found.evidence) for found in steps),
        "steps_texts_refuted": sum(by_step for _, by_step in refuted),
        "steps_texts_refuted_share": round(sum(by_step for _, by_step in refuted) / max(1, len(refuted)), 5),
        "steps_only": refuted.count((False, True)),
        "whole_only": refuted.count((True, False)),
    }


def is_refuted(checked: StepChecked) -> bool:
    """Whether any claim was called wrong."""
    return any(found.verdict == "REFUTED" for found in checked.evidence)


def show(texts: list[Text], checked: list[StepChecked], way: str) -> None:
    """Print every refuted equation with what stands around it."""
    for text, found in zip(texts, checked, strict=True):
        for evidence, (start, end) in zip(found.evidence, found.spans, strict=True):
            if evidence.verdict == "REFUTED":
                before = text.text[max(0, start - _CONTEXT_CHARS) : start]
                behind = text.text[end : end + _CONTEXT_CHARS]
                print(f"  {text.kind}, {way}: {before!r} [{evidence.claim}] {behind!r}: {evidence.detail}")


if __name__ == "__main__":
    main()
