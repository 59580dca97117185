"""What the cells of a bundle's notebook call: weights found and checked, the contest played, its course shown.

Knows the manifest, where Kaggle mounts things, and which of the two runs this is: the one that is saved, over a local
file, or the rerun with the hidden problems.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mathlete.core.errors import InputError, ModelError
from mathlete.kaggle.bundle_manifest import Manifest
from mathlete.kaggle.bundle_weights import HARMONY, located, settings_with, what_is_wrong
from mathlete.kaggle.contest_run import COMMAND, Contest
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.engine_guards import in_own_processes
from mathlete.kaggle.entrant_process import Serving, serve_contest
from mathlete.kaggle.server import is_rerun
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import read_outline
from mathlete.lab.run_store import RunStore
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.run_session import Load, load_generator
from mathlete.verify.integers import answers_equal

INPUT = Path("/kaggle/input")
SUBMISSION = "submission.parquet"
_LOCAL_FILES = ("reference.csv", "test.csv")  # the first has labels
_MAX_DEPTH = 4
_TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class ProblemLine:
    """One problem in the course of a contest.

    Attributes:
        id: of the problem.
        answer: what was handed in; None where the run has none yet.
        seconds: that it took.
        at_s: when it was answered, since the contest began.
        num_attempts: of it, checks left out.
        is_right: None without a label.
    """

    id: str
    answer: str | None
    seconds: float | None
    at_s: float | None
    num_attempts: int
    is_right: bool | None


def find_weights(manifest: Manifest, roots: Sequence[Path] = (INPUT,)) -> dict[str, Path]:
    """Where each model of the bundle is, by role.

    Raises:
        ModelError: one is nowhere; the message says which files were looked for.
    """
    found, missing = {}, []
    for weights in manifest.weights:
        place = located(weights, roots)
        if place is not None:
            found[weights.role] = place
        elif weights.role != HARMONY:  # a checkpoint of gpt-oss brings its own vocabulary in tokenizer.json
            names = ", ".join(file.name for file in weights.files[:3]) or "config.json"
            missing.append(f"{weights.role}: {weights.model} ({names} in none of {', '.join(map(str, roots))})")
    if missing:
        told = "\n  ".join(missing)
        raise ModelError(
            f"these weights are not attached to the notebook:\n  {told}\nAdd them as input, see README.md."
        )
    return found


def check_weights(
    manifest: Manifest, places: Mapping[str, Path], *, full: bool, tell: Callable[[str], None] = print
) -> None:
    """Compare every file with the manifest: its size, and with `full` its hash; `tell` hears how far that is.

    In the rerun sizes are enough: the same versions of the same data sets were hashed when the notebook was saved.

    Raises:
        ModelError: a file is damaged.
    """
    total = sum(weights.num_bytes or 0 for weights in manifest.weights if weights.role in places)
    pace = _Pace(total, tell)
    for weights in manifest.weights:
        if weights.role not in places:
            continue
        if not weights.files:
            tell(f"{weights.role}: no hashes are known of {weights.model}; nothing is compared")
        home = places[weights.role] if places[weights.role].is_dir() else places[weights.role].parent
        for file in weights.files:
            why = what_is_wrong(home / file.name, file, pace.on_bytes if full else None)
            if why is not None:
                raise ModelError(f"{home / file.name} is not the file of the bundle: {why}. Upload it again.")
            pace.end_file(file.num_bytes)
    tell(f"{total / 1e9:.2f} GB are as the manifest says" + ("" if full else ", by their sizes"))


class _Pace:
    """How far hashing is, in lines that a notebook's log can hold: one in ten seconds."""

    def __init__(self, num_bytes: int, tell: Callable[[str], None]) -> None:
        self._num_bytes = num_bytes
        self._tell = tell
        self._before = 0  # of files that are done
        self._begun_s = self._told_s = time.monotonic()

    def on_bytes(self, name: str, done: int, size: int) -> None:
        """So much of a file has been read."""
        now, read = time.monotonic(), self._before + done
        if now - self._told_s >= _TELL_EVERY_S:
            self._told_s = now
            left_s = (now - self._begun_s) * (self._num_bytes - read) / max(1, read)
            self._tell(f"{read / 1e9:.1f} of {self._num_bytes / 1e9:.1f} GB hashed, about {left_s:.0f} s left ({name})")

    def end_file(self, size: int) -> None:
        """A file is done."""
        self._before += size


def contest_of(
    manifest: Manifest,
    places: Mapping[str, Path],
    *,
    num_problems: int | None = None,
    budget_s: float | None = None,
    runs_dir: Path = Path("runs"),
    load: Load = load_generator,
) -> Contest:
    """The contest that the bundle's recipe describes, with its models where they were found.

    Args:
        manifest: of the bundle.
        places: from `find_weights`.
        num_problems: that come; None for the recipe's.
        budget_s: seconds for all of them; None for the recipe's.
        runs_dir: where the run is kept.
        load: gives the generator.
    """
    config = decode_config(dict(manifest.config))
    config = replace(_with_places(config, places), budget_s=budget_s or config.budget_s, command=COMMAND)
    run_id = f"contest-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    return Contest(in_own_processes(config), num_problems or manifest.num_problems, runs_dir, run_id, load)


def _with_places(config: RunConfig, places: Mapping[str, Path]) -> RunConfig:
    if not config.engines:
        draft = places.get("main/draft")
        return replace(
            config, model=str(places["main"]), draft_model=config.draft_model if draft is None else str(draft)
        )
    engines = tuple(
        replace(engine, model=str(places[engine.name]), settings=settings_with(engine, places))
        for engine in config.engines
    )
    return replace(config, engines=engines, model=next(one.model for one in engines if not one.pillars))


def find_organiser(root: Path = INPUT) -> Path | None:
    """Make the organiser's package `kaggle_evaluation` importable; its folder, or None where it is not attached."""
    for depth in range(_MAX_DEPTH):
        for found in sorted(root.glob("/".join(["*"] * depth + ["kaggle_evaluation"]))):
            if found.is_dir():
                sys.path.insert(0, str(found.parent))
                return found
    return None


def local_problems(root: Path, fallback: Path, num: int, into: Path = Path(".")) -> Path | None:
    """What stands in for the hidden problems when the notebook is saved; None in the rerun.

    Args:
        root: the folder of all inputs; the organiser's `reference.csv` goes before his `test.csv`.
        fallback: a file, where neither is there.
        num: how many of its problems, the first.
        into: the folder for a file with these.

    Raises:
        InputError: there is no file.
    """
    if is_rerun():
        return None
    patterns = ["/".join(["*"] * depth + [name]) for name in _LOCAL_FILES for depth in range(_MAX_DEPTH)]
    path = next((found for pattern in patterns for found in sorted(root.glob(pattern))), fallback)
    if not path.is_file():
        raise InputError(f"there is neither reference.csv nor test.csv below {root}: attach the competition as input")
    with path.open(newline="", encoding="utf-8-sig") as file:
        head, *rows = [row for row in csv.reader(file) if row]
    shorter = into / "local_problems.csv"
    with shorter.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows[:num]])
    return shorter


def play(contest: Contest, problems: Path | None, console: Console | None = None) -> RunFolder:
    """Answer the hidden problems in the rerun, else those of a file.

    When the notebook is saved, `submission.parquet` is then in the working directory; in the rerun the organiser's
    gateway writes it, and the notebook ends with the contest.

    Raises:
        GatewayError: our own gateway ended the run early.
        MathleteError: the run cannot be begun.
    """
    console = console or Console(file=sys.stdout, force_jupyter=False, soft_wrap=True, highlight=False)
    assert contest.run_id is not None
    outcome = serve_contest(contest, Serving(local_csv=problems), console)
    folder = RunFolder(contest.runs_dir / contest.run_id)
    if outcome is not None:  # our own gateway wrote into the run's folder
        if outcome.error is not None:
            raise outcome.error
        shutil.copyfile(folder.submission_parquet, SUBMISSION)
    return folder


def course(folder: RunFolder, problems: Path | None) -> list[ProblemLine]:
    """What became of each problem, in the order in which they came; labels are those of the file, where it has any."""
    golds = {} if problems is None else ContestTable.read(problems).golds
    with RunStore.read(folder.store_path) as store:
        record = read_outline(store)
    lines = []
    for key, item in record.problems.items():
        answer, gold = None if item.selection is None else item.selection.answer, golds.get(key)
        is_known = item.opened_at_s is not None and item.finished_at_s is not None
        lines.append(
            ProblemLine(
                key,
                answer,
                item.finished_at_s - item.opened_at_s if is_known else None,  # type: ignore[operator]
                item.finished_at_s,
                sum(not attempt.is_check for attempt in item.attempts),
                None if gold is None or answer is None else answers_equal(answer, gold),
            )
        )
    return lines


def show_course(folder: RunFolder, problems: Path | None) -> None:
    """The time line and the score, as text."""
    lines = course(folder, problems)
    print(f"{'at':>7} {'took':>7} {'attempts':>8}  {'answer':>6}  problem")
    for line in lines:
        took = "-" if line.seconds is None else f"{line.seconds:.0f} s"
        at = "-" if line.at_s is None else f"{line.at_s:.0f} s"
        mark = {True: " right", False: " wrong", None: ""}[line.is_right]
        print(f"{at:>7} {took:>7} {line.num_attempts:>8}  {line.answer or '-':>6}  {line.id}{mark}")
    judged = [line.is_right for line in lines if line.is_right is not None]
    if judged:
        print(f"\n{sum(judged)} of {len(judged)} right")
    answers = f"; answers: {os.path.abspath(SUBMISSION)}" if os.path.isfile(SUBMISSION) else ""
    print(f"report: {folder.report_html}{answers}")
