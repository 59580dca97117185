"""How often the equations of right and wrong solutions are called wrong, how many are judged, and what it takes.

usage: equation_checks.py FILE... [--field solution] [--limit N] [--workers 1] [--show]
FILE: JSONL or JSON, maybe .gz, of any of these rows: solutions known to be right ({FIELD: text or list of texts}),
recorded attempts ({"attempts": [{"text" or "tail", "correct"}]}), attempts in steps ({"samples": [{"steps",
"correct"}]}) or attempts by name ({NAME: {"solution", "is_correct"}}). Calculator notes as in GSM8K (<<1+1=2>>) are
taken out first. Every text goes through `SymbolicVerifier`, as when solving. A refuted equation in a right solution is
a false alarm, unless the solution holds a slip of its own: `--show` prints each, to be read.
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
from mathlete.proof_sampler.equations import contradictions_in
from mathlete.verify.symbolic import SymbolicVerifier

_NOTES = re.compile(r"<<[^<>]*>>")
_POLL_S = 0.002
_CONTEXT_CHARS = 60


class Text(NamedTuple):
    """A solution and whether it is known to be right ("gold"), or an attempt that turned out "correct" or "wrong"."""

    kind: str
    text: str


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
            checked = check(verifier, [text.text for text in texts])
            for kind in sorted({text.kind for text in texts}):
                chosen = [index for index, text in enumerate(texts) if text.kind == kind]
                found = summary([texts[i].text for i in chosen], [checked[i] for i in chosen])
                print(json.dumps({"file": path.name, "kind": kind, **found}), flush=True)
            if args.show:
                show(texts, checked)
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
    given = row.get(field)
    for text in given if isinstance(given, list) else [given]:
        if isinstance(text, str):
            yield Text("gold", _NOTES.sub("", text))
    for attempt in row.get("attempts", []):
        text = attempt.get("text") or attempt.get("tail")
        if text and "correct" in attempt:
            yield Text("correct" if attempt["correct"] else "wrong", text)
    for sample in row.get("samples", []):
        yield Text("correct" if sample["correct"] else "wrong", "\n".join(sample["steps"]))
    for value in row.values():
        if isinstance(value, dict) and "is_correct" in value:
            yield Text("correct" if value["is_correct"] else "wrong", _NOTES.sub("", value["solution"]))


def check(verifier: SymbolicVerifier, texts: list[str]) -> list[StepChecked]:
    """What is found in each text."""
    for index, text in enumerate(texts):
        verifier.submit(str(index), text)
    found: dict[int, StepChecked] = {}
    while len(found) < len(texts):
        found.update({int(checked.check_id): checked for checked in verifier.poll()})
        time.sleep(_POLL_S)
    return [found[index] for index in range(len(texts))]


def summary(texts: list[str], checked: list[StepChecked]) -> dict[str, Any]:
    """Counts and times of texts of one kind."""
    evidence = [found for text in checked for found in text.evidence]
    verdicts = Counter(found.verdict for found in evidence)
    num_judged = len(evidence) - verdicts["UNKNOWN"]
    num_refuted = sum(any(found.verdict == "REFUTED" for found in text.evidence) for text in checked)
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


def show(texts: list[Text], checked: list[StepChecked]) -> None:
    """Print every refuted equation with what stands around it."""
    for text, found in zip(texts, checked, strict=True):
        for evidence, (start, end) in zip(found.evidence, found.spans, strict=True):
            if evidence.verdict == "REFUTED":
                before = text.text[max(0, start - _CONTEXT_CHARS) : start]
                behind = text.text[end : end + _CONTEXT_CHARS]
                print(f"  {text.kind}: {before!r} [{evidence.claim}] {behind!r}: {evidence.detail}")


if __name__ == "__main__":
    main()
