"""Which runs are served, and the pages on several of them.

Knows folders of runs and stores with many. A folder is looked at again for each page, so that a run that begins later
is found; what is known of a run whose files have not changed is not read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from mathlete.core.errors import InputError, MathleteError
from mathlete.core.record import RunRecord
from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_folder import runs_in
from mathlete.lab.run_lock import is_held
from mathlete.lab.run_reading import RunFigures, read_figures
from mathlete.lab.run_store import list_runs
from mathlete.report.comparison import render_comparison
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.overview import format_date
from mathlete.report.page import render_document
from mathlete.report.timeline import format_s
from mathlete.viewer.pages import LIVE_SCRIPT, Address
from mathlete.viewer.watching import WatchedRun

MAX_TOLD = 200  # runs of which the index tells more than the name
MAX_HELD = 8  # runs whose outlines stay in memory
MAX_COMPARED = 8
_COLUMNS = ("Run", "Started", "State", "Problems", "Attempts", "Right", "Time", "Model", "")


@dataclass(frozen=True, slots=True)
class _Told:
    """What the index tells of a run, and the stamp of its files when they were read."""

    stamp: tuple[int, ...]
    cells: tuple[str, ...]


@dataclass(slots=True)
class Catalogue:
    """The runs that are served.

    Attributes:
        named: single runs, whose stores need not exist yet.
        folders: of runs, each in a folder of its own; looked through again and again.
    """

    named: Sequence[FoundRun] = ()
    folders: Sequence[Path] = ()
    _held: dict[str, WatchedRun] = field(default_factory=dict)
    _told: dict[str, _Told] = field(default_factory=dict)

    @property
    def grows(self) -> bool:
        """Whether there may be runs later that are not there now."""
        return bool(self.folders)

    def runs(self) -> dict[str, FoundRun]:
        """All runs by what they are called in addresses; those of a folder from the one last written to."""
        found = list(self.named)
        for folder in self.folders:
            for run_folder in runs_in(folder):
                found += _runs_of(run_folder.store_path)
        keys: dict[str, FoundRun] = {}
        for run in found:
            keys[_unused(run.id, keys)] = run
        return keys

    def address(self, key: str) -> Address:
        """Where a run's pages are."""
        return Address(key, has_siblings=self.grows or len(self.named) > 1)

    def find(self, key: str) -> WatchedRun:
        """The run of that name.

        Raises:
            InputError: there is none.
        """
        watched = self._held.pop(key, None)
        if watched is None:
            run = self.runs().get(key)
            if run is None:
                raise InputError(f"there is no run {key!r} here; see the list of runs")
            watched = WatchedRun(run.path, run.run_id)
        self._held[key] = watched  # the last asked for stands last
        for old in list(self._held)[:-MAX_HELD]:
            del self._held[old]
        return watched

    def cells(self, key: str, run: FoundRun) -> tuple[str, ...]:
        """What the index tells of a run, read again when its files have changed."""
        stamp = _stamp(run.path)
        known = self._told.get(key)
        if known is None or known.stamp != stamp:
            known = self._told[key] = _Told(stamp, _read_cells(run))
        return known.cells


def index_page(catalogue: Catalogue) -> str:
    """All runs, each with how it stands."""
    live = tag("p", "This list follows.", id="live", class_="live running", role="status", data_events="/events")
    header = tag("header", tag("p", "Mathlete", class_="brand"), live, class_="page-header")
    return render_document("Mathlete: runs", join([header, tag("main", *index_parts(catalogue).values())]), LIVE_SCRIPT)


def index_parts(catalogue: Catalogue) -> dict[str, Html]:
    """The list of runs, as a part by its id."""
    runs = catalogue.runs()
    keys = list(runs)
    rows = []
    for place, key in enumerate(keys):
        told = catalogue.cells(key, runs[key]) if place < MAX_TOLD else ("",) * (len(_COLUMNS) - 2)
        name = tag("th", tag("a", tag("bdi", shorten(key, 60)), href=Address(key).front), scope="row")
        before = keys[place + 1 : place + 2]
        link = tag("a", "compare with the one below", href=_comparing([*before, key])) if before else ""
        rows.append(tag("tr", name, *(tag("td", cell) for cell in told), tag("td", link)))
    head = tag("tr", *(tag("th", name, scope="col") if name else tag("td") for name in _COLUMNS))
    table = tag("table", tag("caption", "Runs", class_="hidden"), tag("thead", head), tag("tbody", *rows))
    body = tag("div", table, class_="scroll", role="region", aria_label="Runs", tabindex=0)
    if not runs:
        body = tag("p", "There is no run here yet.", class_="ending")
    all_of_them = ""
    if 2 < len(keys) <= MAX_COMPARED:
        link = tag("a", f"Compare all {len(keys)}", href=_comparing(keys[::-1]))
        all_of_them = tag("p", link, class_="note")
    heading = tag("h1", f"{len(keys)} run{'' if len(keys) == 1 else 's'}")
    return {"part-runs": tag("section", heading, body, all_of_them, id="part-runs", class_="runs-served")}


def comparison_page(catalogue: Catalogue, keys: Sequence[str]) -> str:
    """Several runs side by side, linked to the pages of each.

    Raises:
        InputError: there is no such run, or it has not begun, or too few or too many are asked for.
    """
    if not 2 <= len(keys) <= MAX_COMPARED:
        raise InputError(f"from 2 to {MAX_COMPARED} runs can be compared; write ?run=A&run=B")
    runs: list[tuple[str, RunRecord]] = []
    for key in keys:
        run = catalogue.find(key).look().run
        if run is None:
            raise InputError(f"nothing is recorded yet of run {key!r}")
        runs.append((key, run))

    def link(index: int, number: int | None) -> str:
        address = Address(keys[index])
        return address.front if number is None else address.problem(number)

    return render_comparison(runs, link)


def _runs_of(path: Path) -> list[FoundRun]:
    try:
        stored = list_runs(path)
    except (
        MathleteError
    ):  # damaged, of a newer version, or just being made: it is listed, and its page says what is wrong
        return [FoundRun(path, path.parent.name)]
    return [FoundRun(path, run.id, run.id if len(stored) > 1 else None) for run in stored]


def _read_cells(run: FoundRun) -> tuple[str, ...]:
    try:
        with run.read() as store:
            figures = read_figures(store)
    except MathleteError as error:
        return ("", shorten(str(error), 120), *([""] * (len(_COLUMNS) - 4)))
    right = f"{figures.num_right} of {figures.num_selected}" if figures.num_selected else "—"
    return (
        format_date(figures.started_wall_time),
        _state(run, figures),
        str(figures.num_problems),
        f"{figures.num_attempts:,}",
        right,
        format_s(figures.elapsed_s),
        shorten(figures.model or "unknown", 40),
    )


def _state(run: FoundRun, figures: RunFigures) -> str:
    if figures.finished is not None:
        return figures.finished
    return "running" if is_held(run.path.with_suffix(".lock")) else "cut off"


def _comparing(keys: Sequence[str]) -> str:
    return "/compare?" + "&".join(urlencode({"run": key}) for key in keys)


def _stamp(path: Path) -> tuple[int, ...]:
    """Tells whether a store has changed, the last written first when sorted backwards."""
    files = [path, path.with_name(f"{path.name}-wal")]
    found = [file.stat() for file in files if file.is_file()]
    return (max([item.st_mtime_ns for item in found], default=0), *(item.st_size for item in found))


def _unused(name: str, taken: Mapping[str, object]) -> str:
    key, number = name, 2
    while key in taken:
        key, number = f"{name}-{number}", number + 1
    return key
