"""Which trackers there are, and telling them of a run that lies on disk. A tracker that fails harms nothing."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathlete.adapters import mlflow, tensorboard
from mathlete.adapters.tracked_run import TrackedRun, track_run
from mathlete.core.errors import InputError, MathleteError
from mathlete.lab.run_finding import SEPARATOR, FoundRun
from mathlete.lab.run_folder import STORE_NAME, RunFolder
from mathlete.lab.run_reading import OUTLINE_KINDS, fold_stored, without_turns

Log = Callable[[TrackedRun, str | None, Path | None], str]
"""Logs a run at a place (None for the tracker's own) with its report (None when there is none); says where it is."""
TRACKERS: dict[str, Log] = {"mlflow": mlflow.log_run, "tensorboard": tensorboard.log_run}


class TrackingError(MathleteError):
    """A tracker could not be told of a run; the run itself is unharmed."""


@dataclass(frozen=True, slots=True)
class Tracker:
    """Where a run is logged.

    Attributes:
        name: of `TRACKERS`.
        place: an address or a folder; None for the tracker's own default.
    """

    name: str
    place: str | None = None

    def log(self, found: FoundRun) -> str:
        """Log a run, which may be going on; returns where it is, for a person.

        Raises:
            InputError: a newer version wrote it.
            StorageError: its store is damaged.
            TrackingError: the tracker failed, for whatever reason.
        """
        with found.read() as store:
            events = [without_turns(event) for event in store.events(kinds=OUTLINE_KINDS)]
            run = track_run(found.id, fold_stored(store, events), events)
        report = RunFolder(found.path.parent).report_html
        has_report = _has_folder(found) and report.is_file()
        try:
            return TRACKERS[self.name](run, self.place, report if has_report else None)
        except Exception as error:  # whatever a tracker raises: networks, disks, versions, its own mistakes
            told = " ".join(str(error).split())[:500] or type(error).__name__
            raise TrackingError(
                f"{self.name} could not be told of the run: {told}. The run is unharmed; to try again: "
                f"{command_for(found, self.name)}"
            ) from error


def command_for(found: FoundRun, name: str) -> str:
    """What a person types to log a run."""
    run = str(found.path.parent) if _has_folder(found) else f"{found.path}{SEPARATOR}{found.id}"
    return f"mathlete runs log {shlex.quote(run)} --to {name}"


def _has_folder(found: FoundRun) -> bool:
    """Whether it is a run's own folder, with a report; a store of many runs has none."""
    return found.path.name == STORE_NAME


def parse_trackers(names: str) -> tuple[Tracker, ...]:
    """The trackers of a flag: names with commas, each with a place if wanted, as in "mlflow=http://host:5000".

    Raises:
        InputError: an unknown name, or a tracker whose package is not installed.
    """
    trackers = []
    for item in filter(None, (item.strip() for item in names.split(","))):
        name, _, place = item.partition("=")
        if name not in TRACKERS:
            raise InputError(f"there is no tracker {name!r}; there are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise InputError(f"logging to {name} needs a package: pip install 'mathlete[tracking]'")
        trackers.append(Tracker(name, place or None))
    if not trackers:
        raise InputError(f"name a tracker: {', '.join(TRACKERS)}")
    return tuple(trackers)
