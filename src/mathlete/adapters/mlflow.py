"""A run in MLflow: parameters, metrics, metrics over time, and the report and a table as artifacts.

Knows MLflow's client; reads and writes no global state of it. Needs `mlflow-skinny` or `mlflow`, imported when a run is
logged: it takes seconds. The skinny package alone talks to a tracking server and to a folder; a database takes all of
`mlflow`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.adapters.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "mathlete"
_MAX_METRICS, _MAX_PARAMS = 1000, 100  # of one request to a server
_MAX_PARAM_CHARS = 6000
_STATUS = {"complete": "FINISHED", "budget": "FINISHED", "interrupted": "KILLED", None: "FAILED"}


def log_run(run: TrackedRun, place: str | None, report: Path | None) -> str:
    """Log a run; whatever goes wrong is raised as MLflow raises it.

    Args:
        run: what is told.
        place: a tracking server's address, a database's, or a folder; None for what MLflow itself is set up for
            (MLFLOW_TRACKING_URI).
        report: the report, if there is one.

    Returns:
        Where it is, for a person.
    """
    if place is not None and "://" not in place:
        place = Path(place.removeprefix("file:")).expanduser().absolute().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # whoever names a folder means it
    from mlflow import MlflowClient, get_tracking_uri

    client = MlflowClient(place)
    experiment_id = _experiment_id(client)
    started_ms, ended_ms = round(run.started_wall_time * 1000), round(run.ended_wall_time * 1000)
    created = client.create_run(
        experiment_id, start_time=started_ms, tags={"mathlete.run": run.name}, run_name=run.name
    )
    run_id = created.info.run_id
    status = "FAILED"  # of a run that could be logged in part only
    try:
        _log_params(client, run_id, run)
        metrics = _metrics(run, ended_ms)
        while batch := list(itertools.islice(metrics, _MAX_METRICS)):
            client.log_batch(run_id, metrics=batch)
        client.log_text(run_id, run.table(), "problems.csv")
        if report is not None:
            client.log_artifact(run_id, str(report))
        status = _STATUS.get(run.finished, "FINISHED")
    finally:
        client.set_terminated(run_id, status, end_time=ended_ms)
    return f"MLflow run {run_id} of experiment {EXPERIMENT!r} at {place or get_tracking_uri()}"


def _experiment_id(client: MlflowClient) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(client.create_experiment(EXPERIMENT) if found is None else found.experiment_id)


def _log_params(client: MlflowClient, run_id: str, run: TrackedRun) -> None:
    from mlflow.entities import Param

    params = [Param(name, value[:_MAX_PARAM_CHARS]) for name, value in run.params.items()]
    for start in range(0, len(params), _MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + _MAX_PARAMS])


def _metrics(run: TrackedRun, ended_ms: int) -> Iterator[Any]:
    from mlflow.entities import Metric

    last_step = max((points[-1].step for points in run.series.values()), default=0)
    for name, points in run.series.items():
        for point in points:
            yield Metric(f"course/{name}", point.value, round(point.wall_time * 1000), point.step)
    for name, value in run.metrics.items():
        yield Metric(name, value, ended_ms, last_step)
