"""Recorded problems as a file in the interchange format: what `recorded.read_recorded` reads back as it was.

Knows the format. Writes a problem at a time, so that a recording need not fit into memory.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError, StorageError
from mathlete.lab.export import program_counts
from mathlete.lab.recorded import SUFFIXES, RecordedProblem


def write_recorded(problems: Iterable[RecordedProblem], path: Path) -> int:
    """Write problems to a .jsonl or .jsonl.gz file, whole or not at all; returns how many.

    Raises:
        InputError: the name is of another kind of file.
        StorageError: it could not be written; what was at `path` is untouched.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: recorded attempts are written to {' or '.join(SUFFIXES)}")
    partial = path.with_name(f".{path.name}.partial")
    num_problems = 0
    try:
        try:
            with partial.open("wb") as raw:
                is_packed = path.name.lower().endswith(".gz")
                file = cast(BinaryIO, gzip.GzipFile("", "wb", 6, raw, mtime=0)) if is_packed else raw
                for problem in problems:
                    file.write(orjson.dumps(encode_recorded(problem)) + b"\n")
                    num_problems += 1
                if is_packed:
                    file.close()
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    return num_problems


def encode_recorded(problem: RecordedProblem) -> dict[str, Any]:
    """The object of one line; `recorded.problem_from` is its inverse."""
    entries = [
        {**_entry(attempt), "correct": is_right}
        for attempt, is_right in zip(problem.attempts, problem.correct, strict=True)
    ]
    checks = [_entry(check) for check in problem.checks]
    return {
        "problem_id": problem.problem.id,
        "problem": problem.problem.statement,
        "gold": problem.gold,
        "group": problem.group,
        "attempts": entries,
        **({"checks": checks} if checks else {}),
    }


def _entry(attempt: Attempt) -> dict[str, Any]:
    """One attempt, without what has its neutral value."""
    known = {
        "tokens": attempt.num_tokens,
        "discarded": attempt.num_discarded,
        "seconds": attempt.elapsed_s,
        "model": attempt.model,
        "features": {**program_counts(attempt), **attempt.features},
        "failure": attempt.failure,
        "seed": attempt.seed,
        "temperature": attempt.temperature,
        "answer_source": attempt.answer_source,
        "about": attempt.about,
        "evidence": [asdict(item) for item in attempt.evidence],
        **_texts(attempt),
    }
    told = {name: value for name, value in known.items() if value}
    if attempt.round != 1:
        told["round"] = attempt.round
    return {"answer": attempt.answer, "pillar": attempt.pillar, **told}


def _texts(attempt: Attempt) -> dict[str, str]:
    """The whole text; or the last output and the last part of the text, where that is all that was recorded."""
    if (
        attempt.turns
        and not attempt.turns[0].text
        and attempt.turns[0].tool_text is not None
        and len(attempt.turns) < 3
    ):
        tail = attempt.turns[1].text if len(attempt.turns) == 2 else ""
        return {"last_tool_output": attempt.turns[0].tool_text, "tail": tail}
    return {"text": attempt.text}
