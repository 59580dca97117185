"""A run in TensorBoard: figures over time, figures at the end beside its settings, and tables of text.

Knows TensorBoard's own event files; needs the package `tensorboard`, imported when a run is logged, and neither
TensorFlow nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathlete.adapters.tracked_run import COLUMNS, TrackedRun

LOG_FOLDER = "tensorboard"
_MAX_TABLE_ROWS = 1000
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<>#$"} | {"\n": " "})


def log_run(run: TrackedRun, place: str | None, report: Path | None) -> str:
    """Log a run into a folder of its own; whatever goes wrong is raised as TensorBoard raises it.

    Args:
        run: what is told.
        place: the folder that TensorBoard is started on; None for `tensorboard`, here.
        report: the report, if there is one; its path is told.

    Returns:
        Where it is, for a person.
    """
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = Path(LOG_FOLDER if place is None else place).expanduser() / run.name
    writer = EventFileWriter(str(folder))
    try:
        for event in _events(run, report):
            writer.add_event(event)
        writer.flush()
    finally:
        writer.close()
    return f"TensorBoard run {run.name} in {folder.parent}"


def _events(run: TrackedRun, report: Path | None) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    for name, points in run.series.items():
        for point in points:
            summary = Summary(value=[Summary.Value(tag=f"course/{name}", simple_value=point.value)])
            yield Event(wall_time=point.wall_time, step=point.step, summary=summary)
    for name, value in run.metrics.items():
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        yield Event(wall_time=run.ended_wall_time, step=0, summary=summary)
    settings = hparams_pb(dict(run.params), trial_id=run.name, start_time_secs=run.started_wall_time)
    yield Event(wall_time=run.ended_wall_time, summary=settings)
    texts = {"problems": _table(COLUMNS, run.rows[:_MAX_TABLE_ROWS])}
    texts["settings"] = _table(("setting", "value"), [{"setting": k, "value": v} for k, v in run.params.items()])
    if report is not None:
        texts["report"] = str(report.absolute()).translate(_MARKDOWN)
    for name, text in texts.items():
        yield Event(wall_time=run.ended_wall_time, summary=_text(name, text))


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    value = Summary.Value(
        tag=tag, metadata=create_summary_metadata(None, ""), tensor=make_tensor_proto([text.encode()])
    )
    return Summary(value=[value])


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown; whatever stands in a cell is text."""
    lines = [columns, ["---"] * len(columns)]
    lines += [["" if row[name] is None else str(row[name]).translate(_MARKDOWN) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
