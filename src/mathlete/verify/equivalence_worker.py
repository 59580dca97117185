"""The program that compares expressions for `AlgebraProcess`, in a process that is killed when it takes too long.

Reads one JSON object a line, {"job": 3, "left": "...", "right": "..."}, and answers each with one,
{"job": 3, "verdict": ..., "reason": ..., "failure": ...}. Says {"ready": true} once SymPy is loaded; says
{"ready": false} and ends where there is none. Ends with its input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mathlete.verify.algebra import load_algebra
from mathlete.verify.equation_judgement import Algebra
from mathlete.verify.equivalence import Equivalence
from mathlete.verify.symbolic_equivalence import judge_texts
from mathlete.verify.worker_limits import limit_processor_time, limit_this_process

MAX_REASON_CHARS = 400


def main() -> None:
    """Limit this process, say that it is ready, and answer until the input ends."""
    algebra = load_algebra()
    limit_this_process()
    _tell({"ready": algebra is not None})
    if algebra is None:
        return
    for line in sys.stdin.buffer:
        job = json.loads(line)
        found = judged(job["left"], job["right"], algebra)
        _tell(
            {
                "job": job["job"],
                "verdict": found.verdict,
                "reason": found.reason[:MAX_REASON_CHARS],
                "failure": found.failure,
            }
        )


def judged(left: str, right: str, algebra: Algebra) -> Equivalence:
    """One comparison, with a limit of its own on processor time."""
    limit_processor_time()
    try:
        return judge_texts(left, right, algebra)
    except Exception as error:  # SymPy's own faults, on input that passed all ceilings: no verdict
        return Equivalence("UNKNOWN", f"{type(error).__name__}: {error}", "crash")


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
