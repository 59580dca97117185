"""A run's attempts as a Parquet file, one row an attempt, for whoever works with data frames.

Knows the columns. Does not know where the problems come from; they are taken one by one, so that memory is bounded by
the longest problem and by `GROUP_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mathlete.core.attempt import Attempt
from mathlete.core.errors import StorageError
from mathlete.core.record import ProblemRecord
from mathlete.core.trace import EventKind
from mathlete.lab.export import exported_features
from mathlete.lab.rightness import attempt_is_right
from mathlete.lab.run_folder import replacing_file
from mathlete.lab.run_store import RunStore

GROUP_ROWS = 4096
GROUP_BYTES = 16 << 20  # of text in a row group

_ATTEMPTS: tuple[EventKind, ...] = ("attempt_finished",)
_COUNTS = ("tool_calls", "tool_errors")  # see `lab.export.exported_features`
_EVIDENCE = pyarrow.struct(
    [
        ("checker", pyarrow.string()),
        ("claim", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("failure", pyarrow.string()),
        ("elapsed_s", pyarrow.float64()),
        ("detail", pyarrow.string()),
        ("answer", pyarrow.string()),
    ]
)


def feature_names(store: RunStore) -> tuple[str, ...]:
    """Names of all features that a run's attempts have; what is said within attempts is not read for it.

    Raises:
        InputError: a newer version wrote the run.
        StorageError: it cannot be read.
    """
    names = set(_COUNTS)
    for event in store.events(kinds=_ATTEMPTS):
        names |= event.data["attempt"].get("features", {}).keys()
    return tuple(sorted(names))


def write_parquet(
    records: Iterable[ProblemRecord], run_id: str, model: str | None, features: Sequence[str], path: Path
) -> int:
    """Write the finished attempts to `path`; the number of rows.

    The columns: `run`, `problem_id`, `problem`, `group`, `gold`, `index` (of the attempt), `pillar` (those that end in
    "_check" judge answers: their `correct` is null), `model`, `seed`, `temperature`, `round`, `about`, `answer`,
    `answer_source`, `correct` (null without a label), `tokens`, `discarded`, `seconds`, `failure`, `evidence`,
    `features` (a struct, null where an attempt lacks one or it is not finite) and `text`.

    Args:
        records: problems in full, in order.
        run_id: the run's name.
        model: of the attempts that do not name one.
        features: names of the features to write, see `feature_names`.
        path: the file.

    Raises:
        StorageError: it could not be written; what was at `path` is untouched.
    """
    schema = _schema(features)
    num_rows = 0
    with replacing_file(path) as file:
        try:
            with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                for group in _groups(_rows(records, run_id, model)):
                    writer.write_table(_table(group, schema))
                    num_rows += len(group)
        except (pyarrow.ArrowException, OverflowError) as error:
            raise StorageError(
                f"cannot write {path}: {error}; --format jsonl writes what Parquet has no room for"
            ) from error
    return num_rows


def _schema(features: Sequence[str]) -> Any:
    text = pyarrow.string()
    columns = [
        ("run", text), ("problem_id", text), ("problem", text), ("group", text), ("gold", text),
        ("index", pyarrow.int32()), ("pillar", text), ("model", text), ("seed", pyarrow.int64()),
        ("temperature", pyarrow.float64()), ("round", pyarrow.int32()), ("about", pyarrow.list_(text)),
        ("answer", text), ("answer_source", text), ("correct", pyarrow.bool_()), ("tokens", pyarrow.int64()),
        ("discarded", pyarrow.int64()), ("seconds", pyarrow.float64()), ("failure", text),
        ("evidence", pyarrow.list_(_EVIDENCE)),
        ("features", pyarrow.struct([(name, pyarrow.float64()) for name in features])), ("text", text),
    ]  # fmt: skip
    return pyarrow.schema(columns)


def _rows(records: Iterable[ProblemRecord], run_id: str, model: str | None) -> Iterator[dict[str, Any]]:
    for record in records:
        known = {
            "run": run_id,
            "problem_id": record.problem.id,
            "problem": record.problem.statement,
            "group": record.group if record.group is not None else record.problem.id,
            "gold": record.gold,
        }
        for attempt in record.attempts:
            correct = None if attempt.is_check else attempt_is_right(record, attempt)
            yield {**known, "correct": correct, "model": attempt.model or model, **_columns(attempt)}


def _columns(attempt: Attempt) -> dict[str, Any]:
    return {
        "index": attempt.index,
        "pillar": attempt.pillar,
        "seed": attempt.seed,
        "temperature": attempt.temperature,
        "round": attempt.round,
        "about": list(attempt.about),
        "answer": attempt.answer,
        "answer_source": attempt.answer_source,
        "tokens": attempt.num_tokens,
        "discarded": attempt.num_discarded,
        "seconds": attempt.elapsed_s,
        "failure": attempt.failure,
        "evidence": [asdict(item) for item in attempt.evidence],
        "features": exported_features(attempt),
        "text": attempt.text,
    }


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    num_bytes = 0
    for row in rows:
        group.append(row)
        num_bytes += len(row["text"]) + len(row["problem"])
        if num_bytes >= GROUP_BYTES or len(group) >= GROUP_ROWS:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    try:
        return pyarrow.Table.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        return pyarrow.Table.from_pylist([_encodable(row) for row in rows], schema=schema)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    return value
