"""The program that judges equations for `SymbolicVerifier`, in a process that is killed when it takes too long.

Reads one JSON object a line, {"job": 3, "context": "", "text": "...", "first": 0}, and answers with lines as well:
first {"job": 3, "claims": [[start, end, "2 + 3 = 5"], ...]}, then, from claim `first` on, one
{"job": 3, "index": 0, "verdict": ..., "failure": ..., "detail": ..., "elapsed_s": ...} each. So whoever reads knows at
any moment which claim is under way. Says {"ready": true} once SymPy is loaded, or was not found. Ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from mathlete.verify.algebra import load_algebra
from mathlete.verify.equation_judgement import Algebra, Judgement, judge
from mathlete.verify.equations_in_text import Claim, claims_in
from mathlete.verify.worker_limits import limit_processor_time, limit_this_process

MAX_CLAIM_CHARS = 400
"""Of a claim as it is told."""


def main() -> None:
    """Limit this process, say that it is ready, and answer until the input ends."""
    algebra = load_algebra()
    limit_this_process()
    _tell({"ready": True})
    for line in sys.stdin.buffer:
        job = json.loads(line)
        for answer in answers(job["context"], job["text"], job["first"], algebra):
            _tell({"job": job["job"], **answer})


def answers(context: str, text: str, first: int, algebra: Algebra | None) -> Iterator[dict[str, Any]]:
    """What is told of one text: its claims, then one judgement after another."""
    claims = claims_in(text, context)
    yield {"claims": [(claim.start, claim.end, claim.text[:MAX_CLAIM_CHARS]) for claim in claims]}
    for index in range(first, len(claims)):
        started = time.monotonic()
        judgement = _judged(claims[index], algebra)
        yield {
            "index": index,
            "verdict": judgement.verdict,
            "failure": judgement.failure,
            "detail": judgement.detail,
            "elapsed_s": time.monotonic() - started,
        }


def _judged(claim: Claim, algebra: Algebra | None) -> Judgement:
    limit_processor_time()
    try:
        return judge(claim, algebra)
    except Exception as error:  # SymPy's own faults, on input that passed all ceilings: no verdict
        return Judgement("UNKNOWN", "crash", f"{type(error).__name__}: {error}"[:MAX_CLAIM_CHARS])


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
