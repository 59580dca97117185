"""A run as it goes: a table on a terminal, a line a problem in a log."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mathlete.core.durations import clock_text
from mathlete.triad.progress import ProblemProgress, RunProgress

_REFRESH_S = 0.25
_LOG_EVERY_S = 30.0
_MAX_ROWS = 16


class ProgressConsole(Console):
    """Standard error, for progress. When its reader goes away, the run goes on in silence."""

    def __init__(self) -> None:
        """Write to `sys.stderr`."""
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on; rich would exit."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


class LiveDisplay:
    """Shows `RunProgress`. Use as a context manager; `update` is cheap and may be called at every step."""

    def __init__(self, console: Console, budget_s: float) -> None:
        """Show on `console`; `budget_s` is the whole run's."""
        self._console = console
        self._budget_s = budget_s
        can_redraw = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if can_redraw else None
        self._next_s = 0.0
        self._told: set[str] | None = None
        self._notes: set[str] = set()

    def __enter__(self) -> LiveDisplay:
        """Begin to show."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):  # a terminal that is gone ends the showing, not the run
            if self._live:
                self._live.stop()

    def update(self, progress: RunProgress) -> None:
        """Show the newest state, at most four times a second."""
        now = time.monotonic()
        with suppress(OSError):  # a terminal that is gone ends the showing, not the run
            if self._live is None:
                self._log(progress, now)
            elif now >= self._next_s:
                self._next_s = now + _REFRESH_S
                self._live.update(self._picture(progress), refresh=True)

    def tell_once(self, note: str) -> None:
        """Print a line, unless it has been printed before."""
        if note not in self._notes:
            self._notes.add(note)
            with suppress(OSError):  # a terminal that is gone ends the showing, not the run
                self._print(note)

    def _log(self, progress: RunProgress, now: float) -> None:
        done = [row for row in progress.problems if row.state == "done"]
        if self._told is None:  # what an earlier session has done is no news
            self._told = {row.problem_id for row in done}
            self._next_s = now + _LOG_EVERY_S
        for row in done:
            if row.problem_id not in self._told:
                self._told.add(row.problem_id)
                votes = ", ".join(f"{answer} x{count}" for answer, count in row.votes[:4]) or "no votes"
                standing = "" if row.accepted is None else f" {standing_word(row.accepted)}"
                self._print(f"{row.problem_id}: {row.answer}{standing} ({votes}; {row.reason})")
        if now >= self._next_s:
            self._next_s = now + _LOG_EVERY_S
            self._print(self._status(progress))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _picture(self, progress: RunProgress) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("problem", "state", "attempts", "tokens", "votes", "answer"):
            table.add_column(name, justify="right" if name in ("tokens", "answer") else "left", no_wrap=True)
        rows, hidden = _rows_to_show(progress.problems)
        for row in rows:
            table.add_row(*_cells(row))
        if hidden:
            table.add_row(Text(f"... {hidden} more", style="dim"))
        num_done = sum(row.state == "done" for row in progress.problems)
        bar = ProgressBar(total=max(1, len(progress.problems)), completed=num_done, width=40)
        below = Table.grid()  # a bar does not end its line by itself
        below.add_row(bar)
        below.add_row(Text(self._status(progress)))
        return Group(table, Text(), below)

    def _status(self, progress: RunProgress) -> str:
        num_done = sum(row.state == "done" for row in progress.problems)
        speed = progress.num_tokens / progress.generating_s if progress.generating_s > 0 else 0.0
        return (
            f"{num_done}/{len(progress.problems)} problems · {progress.num_tokens:,} tokens · {speed:.0f} tokens/s · "
            f"{clock_text(progress.at_s)} of {clock_text(self._budget_s)} · {clock_text(progress.remaining_s)} left"
        )


def standing_word(accepted: bool) -> str:
    """What an answer is called: "accepted" where independent attempts agree and a check supports it, else "offered"."""
    return "accepted" if accepted else "offered"


def _rows_to_show(problems: tuple[ProblemProgress, ...]) -> tuple[list[ProblemProgress], int]:
    """All when they fit; else the open ones, then the last done, then the next waiting, in the order of the input."""
    if len(problems) <= _MAX_ROWS:
        return list(problems), 0
    by_state = {state: [row for row in problems if row.state == state] for state in ("open", "done", "waiting")}
    picked = [*by_state["open"], *reversed(by_state["done"]), *by_state["waiting"]][:_MAX_ROWS]
    names = {row.problem_id for row in picked}
    return [row for row in problems if row.problem_id in names], len(problems) - len(picked)


def _cells(row: ProblemProgress) -> tuple[Text, ...]:
    style = {"waiting": "dim", "open": "yellow", "done": "green"}[row.state]
    attempts = f"{row.num_finished} done" + (f", {row.num_in_flight} running" if row.num_in_flight else "")
    if row.num_checks:
        attempts += f", {row.num_checks} check{'' if row.num_checks == 1 else 's'}"
    votes = "  ".join(f"{answer}:{count}" for answer, count in row.votes[:5])
    state = row.state if row.state != "open" else f"open {clock_text(row.elapsed_s)}"
    if row.state == "done" and row.accepted is not None:
        state = standing_word(row.accepted)
    return (
        Text(row.problem_id[:24]),
        Text(state, style=style),
        Text(attempts if row.state != "waiting" else ""),
        Text(f"{row.num_tokens:,}" if row.num_tokens else ""),
        Text(votes[:44]),
        Text(row.answer or "", style="bold"),
    )
