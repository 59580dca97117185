"""Which runs are served, and the pages on several of them.

Knows folders of runs and stores with many. A folder is looked at again for each page, so that a run that begins later
is found; what is known of a run that has not changed is not read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord
from mathlete.lab.run_store import list_runs
from mathlete.report.comparison import render_comparison
from mathlete.report.markup import join, shorten, tag
from mathlete.report.overview import format_date
from mathlete.report.page import render_document
from mathlete.report.summary import summarise_run
from mathlete.report.timeline import format_s
from mathlete.viewer.pages import STATUS_WORDS, Address
from mathlete.viewer.watching import Snapshot, WatchedRun

STORE_NAME = "run.sqlite"
MAX_TOLD = 100  # runs of which the index tells more than the name
MAX_HELD = 8  # runs whose outlines stay in memory
MAX_COMPARED = 8


@dataclass(frozen=True, slots=True)
class ServedRun:
    """One run that can be looked at.

    Attributes:
        key: names it in addresses.
        path: of its store, which need not exist yet.
        run_id: of the run in the store; None for the only one.
    """

    key: str
    path: Path
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the index tells of a run.

    Attributes:
        stamp: of its files, when they were read.
        cells: what is told, in the order of the columns.
    """

    stamp: tuple[int, ...]
    cells: tuple[str, ...]


@dataclass(slots=True)
class Catalogue:
    """The runs that are served.

    Attributes:
        stores: of single runs, or of many runs in one; a store that is not there yet is taken for a run to come.
        folders: of runs, each in a folder of its own; looked through again and again.
    """

    stores: Sequence[Path] = ()
    folders: Sequence[Path] = ()
    _held: dict[str, WatchedRun] = field(default_factory=dict)
    _facts: dict[str, Facts] = field(default_factory=dict)

    @property
    def grows(self) -> bool:
        """Whether there may be runs later that are not there now."""
        return bool(self.folders)

    def runs(self) -> list[ServedRun]:
        """All runs, those last written to first within a folder."""
        found = [(path, path.parent.name) for path in self.stores]
        for folder in self.folders:
            stores = [path for path in folder.glob(f"*/{STORE_NAME}") if path.is_file()]
            found += [(path, path.parent.name) for path in sorted(stores, key=_stamp, reverse=True)]
        served: dict[str, ServedRun] = {}
        for path, name in found:
            ids = [run.id for run in list_runs(path)] if path.is_file() else []
            for run_id in ids if len(ids) > 1 else [None]:
                key = _unused(name if run_id is None else run_id, served)
                served[key] = ServedRun(key, path, run_id)
        return list(served.values())

    def keys(self) -> list[str]:
        """What the runs are called."""
        return [run.key for run in self.runs()]

    def address(self, key: str) -> Address:
        """Where a run's pages are."""
        return Address(key, has_siblings=self.grows or len(self.stores) > 1)

    def find(self, key: str) -> WatchedRun:
        """The run of that name.

        Raises:
            InputError: there is none.
        """
        watched = self._held.pop(key, None)
        if watched is None:
            watched = next((WatchedRun(run.path, run.run_id) for run in self.runs() if run.key == key), None)
        if watched is None:
            raise InputError(f"there is no run {key!r} here; see the list of runs")
        self._held[key] = watched  # the last asked for stands last
        for old in list(self._held)[:-MAX_HELD]:
            del self._held[old]
        return watched

    def facts(self, run: ServedRun) -> tuple[str, ...]:
        """What the index tells of a run, read again when its files have changed."""
        stamp = _stamp(run.path)
        known = self._facts.get(run.key)
        if known is None or known.stamp != stamp:
            watched = self._held.get(run.key) or WatchedRun(run.path, run.run_id)
            known = self._facts[run.key] = Facts(stamp, _cells(watched.look()))
        return known.cells


def index_page(catalogue: Catalogue) -> str:
    """All runs, each with how it stands."""
    runs = catalogue.runs()
    columns = ["Run", "Started", "State", "Problems", "Answered", "Right", "Time", "Model", ""]
    rows = []
    for place, run in enumerate(runs):
        told = catalogue.facts(run) if place < MAX_TOLD else ("",) * (len(columns) - 2)
        name = tag("th", tag("a", tag("bdi", shorten(run.key, 60)), href=Address(run.key).front), scope="row")
        before = runs[place + 1].key if place + 1 < len(runs) else None
        compare = tag("a", "compare with the next", href=_comparing([before, run.key])) if before is not None else ""
        rows.append(tag("tr", name, *(tag("td", cell) for cell in told), tag("td", compare)))
    head = tag("tr", *(tag("th", name, scope="col") if name else tag("td") for name in columns))
    table = tag("table", tag("caption", "Runs", class_="hidden"), tag("thead", head), tag("tbody", *rows))
    whole = tag("div", table, class_="scroll", role="region", aria_label="Runs", tabindex=0)
    if not runs:
        whole = tag("p", "There is no run here yet. Load this page again when one has begun.", class_="ending")
    everything = ""
    if 2 < len(runs) <= MAX_COMPARED:
        link = tag("a", f"Compare all {len(runs)}", href=_comparing([run.key for run in reversed(runs)]))
        everything = tag("p", link, class_="note")
    head_line = [tag("p", "Mathlete", class_="brand"), tag("h1", f"{len(runs)} run{'' if len(runs) == 1 else 's'}")]
    return render_document("Mathlete: runs", join([*head_line, tag("section", whole, everything, class_="compared")]))


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


def _cells(snapshot: Snapshot) -> tuple[str, ...]:
    state = STATUS_WORDS[snapshot.status].split(";")[0].split(":")[0].rstrip(".").lower()
    run = snapshot.run
    if run is None:
        return ("", state, "", "", "", "", "")
    summary = summarise_run(run)
    right = f"{summary.num_right} of {summary.num_graded}" if summary.num_graded else "—"
    return (
        format_date(run.started_wall_time),
        state,
        str(len(summary.problems)),
        str(summary.num_answered),
        right,
        format_s(run.elapsed_s),
        shorten(str(run.config.get("model", "unknown")), 40),
    )


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
