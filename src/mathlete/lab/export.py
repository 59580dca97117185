"""What a run hands out: the submission, and its attempts in the interchange format.

Knows the two formats. Does not know how a run came about; it takes a `RunRecord`, finished or cut off.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mathlete.cic.registry import make_selector
from mathlete.core.attempt import Attempt
from mathlete.core.errors import StorageError
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.rightness import attempt_is_right
from mathlete.lab.run_folder import RunFolder, replace_file, replacing_file


def write_submission(run: RunRecord, folder: RunFolder) -> None:
    """Write submission.csv, then submission.parquet: `id` (string) and `answer` (int64), in the input's order.

    Every problem has a row. One without a selection (the run was cut off) gets what the run's selector
    makes of the attempts that had finished, or else the fallback answer.

    Raises:
        StorageError: one of them could not be written. The message says whether submission.csv is there.
    """
    ids = list(run.problems)
    selector = make_selector(run.config.get("selector", "majority"))
    answers = [
        int((record.selection or selector.select(record.problem, record.attempts)).answer)
        for record in run.problems.values()
    ]
    folder.release_reserve()
    advice = f"Free some space and resume the run {folder.id}: its store keeps every finished attempt."
    try:
        replace_file(folder.submission_csv, _csv(ids, answers))
    except StorageError as error:
        raise StorageError(f"{error}. No answers were written. {advice}") from error
    try:
        replace_file(folder.submission_parquet, _parquet(ids, answers))
    except StorageError as error:
        raise StorageError(f"{error}. {folder.submission_csv} is complete. {advice}") from error
    except OverflowError as error:
        raise StorageError(
            f"cannot write {folder.submission_parquet}: an answer does not fit a 64-bit integer. "
            f"{folder.submission_csv} is complete."
        ) from error


def write_attempts(run: RunRecord, folder: RunFolder) -> None:
    """Write attempts.jsonl: the finished attempts, one problem a line (the interchange format of DESIGN.md).

    `text` is the whole attempt, tool output included. `correct` is there when the gold answer is known,
    `failure` when the attempt has one: one that was "stopped" or "interrupted" is no sample of what the model can do.
    Beyond the format there are `pillar`, and where they say anything `round` (from 2 on: it was shown the answers in
    `about`) and `answer_source`. Whoever reads `attempts` sees only those that could vote: a problem whose answers were
    checked has a second list, `checks`, of the same form, where `about` are the answers asked about and `evidence` what
    was found: objects with `checker`, `claim`, `verdict`, `failure`, `elapsed_s`, `detail` and `answer`. `lab.recorded`
    reads all of it back.

    Raises:
        StorageError: it could not be written.
    """
    write_interchange(run.problems.values(), run.config.get("model"), folder.attempts_jsonl)


def write_interchange(records: Iterable[ProblemRecord], model: str | None, path: Path) -> None:
    """Write problems and their attempts to `path` in the same format, one problem held at a time.

    Args:
        records: in order.
        model: of the attempts that do not name one.
        path: the file.

    Raises:
        StorageError: it could not be written; what was at `path` is untouched.
    """
    with replacing_file(path) as file:
        for record in records:
            file.write(json.dumps(_interchange(record, model), allow_nan=False).encode("ascii") + b"\n")


def exported_features(attempt: Attempt) -> dict[str, float | None]:
    """Its features, None where one is not finite, and how many programs it ran and how many of them failed, if any."""
    finite = {name: value if math.isfinite(value) else None for name, value in attempt.features.items()}
    return {**program_counts(attempt), **finite}


def _csv(ids: list[str], answers: list[int]) -> bytes:
    text = io.StringIO()
    # With "\n" as the terminator, the csv module of Python 3.11 leaves a lone "\r" unquoted.
    has_return = any("\r" in problem_id for problem_id in ids)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL)
    writer.writerow(("id", "answer"))
    writer.writerows(zip(ids, answers, strict=True))
    return text.getvalue().encode("utf-8")


def _parquet(ids: list[str], answers: list[int]) -> bytes:
    """The file's content, made in memory so that a full disk is met in one place only."""
    schema = pyarrow.schema([("id", pyarrow.string()), ("answer", pyarrow.int64())])
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": ids, "answer": answers}, schema=schema), sink)
    return sink.getvalue()


def _interchange(record: ProblemRecord, model: str | None) -> dict[str, Any]:
    checks = [_attempt(item, None, model) for item in record.attempts if item.is_check]
    return {
        "problem_id": record.problem.id,
        "problem": record.problem.statement,
        "gold": record.gold,
        "group": record.group if record.group is not None else record.problem.id,
        "attempts": [
            _attempt(item, attempt_is_right(record, item), model) for item in record.attempts if not item.is_check
        ],
        **({"checks": checks} if checks else {}),
    }


def _attempt(attempt: Attempt, correct: bool | None, model: str | None) -> dict[str, Any]:
    known = {} if correct is None else {"correct": correct}
    failed = {} if attempt.failure is None else {"failure": attempt.failure}
    return {
        "answer": attempt.answer,
        **known,
        "tokens": attempt.num_tokens,
        **({"discarded": attempt.num_discarded} if attempt.num_discarded else {}),
        "seconds": round(attempt.elapsed_s, 3),
        "model": attempt.model or model,
        "features": exported_features(attempt),
        **failed,
        "pillar": attempt.pillar,
        **({"round": attempt.round} if attempt.round > 1 else {}),
        **({"answer_source": attempt.answer_source} if attempt.answer_source else {}),
        **({"about": list(attempt.about)} if attempt.about else {}),
        **({"evidence": [asdict(item) for item in attempt.evidence]} if attempt.evidence else {}),
        "text": attempt.text,
    }


def program_counts(attempt: Attempt) -> dict[str, int]:
    """How many programs it ran and how many of them failed; the results themselves are not in the file."""
    results = [turn.result for turn in attempt.turns if turn.result is not None]
    if not results:
        return {}
    return {"tool_calls": len(results), "tool_errors": sum(result.status != "ok" for result in results)}
