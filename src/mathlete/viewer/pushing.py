"""What is new for one reader of one page since it was last told.

Knows which parts of a page the reader has, by place in the store and by digest. Does not know how they are sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from mathlete.core.record import RunRecord
from mathlete.report.markup import Html
from mathlete.report.summary import summarise_run
from mathlete.viewer.index import Catalogue, index_parts
from mathlete.viewer.pages import (
    Address,
    front_parts,
    problem_parts,
    row_parts,
    shell_of,
    status_part,
    table_part,
)
from mathlete.viewer.watching import Snapshot, WatchedRun


@dataclass(frozen=True, slots=True)
class Push:
    """What a reader is told.

    Attributes:
        place: what the reader has seen once it has this: "<epoch>-<place>".
        parts: elements of the page by their ids; None asks the reader to load the page again.
    """

    place: str
    parts: dict[str, Html] | None


class Digests:
    """Which parts somebody has, by digest: what is told to a reader must be new to it."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._known: dict[str, bytes] = {}

    def news_among(self, parts: Mapping[str, Html]) -> dict[str, Html]:
        """Those that are not known as they are; from now on they are."""
        digests = {name: hashlib.blake2b(html.encode(), digest_size=16).digest() for name, html in parts.items()}
        fresh = {name: html for name, html in parts.items() if self._known.get(name) != digests[name]}
        self._known |= digests
        return fresh


@dataclass(slots=True)
class IndexReader:
    """Somebody who has the list of runs open.

    Attributes:
        catalogue: of the runs.
    """

    catalogue: Catalogue
    _digests: Digests = field(default_factory=Digests)

    def news(self) -> Push | None:
        """What is new; None when nothing is."""
        fresh = self._digests.news_among(index_parts(self.catalogue))
        return Push("0-0", fresh) if fresh else None


@dataclass(slots=True)
class Reader:
    """Somebody who has a page of a run open.

    Attributes:
        address: of the run.
        watched: the run.
        epoch: of the snapshot that the page shows.
        place: of it.
        shell: how the table looks apart from its rows, on a front page.
        number: of the problem, on a problem's page.
    """

    address: Address
    watched: WatchedRun
    epoch: int
    place: int
    shell: str = ""
    number: int | None = None
    _digests: Digests = field(default_factory=Digests)

    def news(self) -> Push | None:
        """What is new; None when nothing is.

        Raises:
            MathleteError: the run's store cannot be read.
        """
        snapshot = self.watched.look()
        where = f"{snapshot.epoch}-{snapshot.place}"
        if snapshot.epoch != self.epoch or not snapshot.watched_from <= self.place <= snapshot.place:
            return Push(where, None)
        parts = {"live": status_part(snapshot)}
        if snapshot.run is not None and snapshot.place > self.place:
            parts |= self._changed_parts(snapshot, snapshot.run)
        self.place = snapshot.place
        fresh = self._digests.news_among(parts)
        return Push(where, fresh) if fresh else None

    def _changed_parts(self, snapshot: Snapshot, run: RunRecord) -> dict[str, Html]:
        changed = {name for name, place in snapshot.changed.items() if place > self.place}
        if self.number is not None:
            return self._problem(run, self.number, changed)
        summary = summarise_run(run)
        parts = front_parts(self.address, run, summary)
        shell = shell_of(summary)
        if shell != self.shell:
            self.shell = shell
            return {**parts, "part-table": table_part(self.address, summary)}
        # Time and tokens of an open problem go on although nothing is told of it.
        rows = [item for item in summary.problems if item.record.problem.id in changed or item.state == "running"]
        return parts | row_parts(self.address, summary, rows)

    def _problem(self, run: RunRecord, number: int, changed: set[str]) -> dict[str, Html]:
        problem_id = next(islice(run.problems, number - 1, None), None)
        if problem_id is None or problem_id not in changed:
            return {}
        return problem_parts(self.address, run, number, self.watched.read_problem(problem_id))
