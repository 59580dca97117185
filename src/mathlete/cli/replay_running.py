"""What `mathlete replay` does: recordings in, tables or JSON out. Knows flags, files, the terminal and their errors."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mathlete.cic.registry import SELECTORS
from mathlete.cli.options import parse_duration, parse_names
from mathlete.cli.replay_table import show_figures, show_policies
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE
from mathlete.cli.sandbox import printable
from mathlete.core.errors import InputError
from mathlete.lab.file_replay import Replayed, replay_file, unpacked_size
from mathlete.lab.import_report import ImportReport
from mathlete.lab.in_sample import Trained, trained_on
from mathlete.lab.policy_replay import PolicyReplay, replay_policy
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.recordings import read_recordings
from mathlete.lab.replay_figures import SelectorFigures, policy_outcome, selector_figures
from mathlete.lab.selector_replay import ORDERS_OF_DRAWS, ReplayPlan
from mathlete.session.interrupts import Interrupts
from mathlete.triad.recorded_source import Speed

_CURVE = tuple(2**power for power in range(11))
_MAX_PROCESSES = 8
_WORTH_PROCESSES_BYTES = 4 << 20  # below, they take longer to start than to work


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags of `mathlete replay`, as they were typed; see there."""

    traces: tuple[Path, ...]
    selectors: tuple[str, ...]
    ks: tuple[str, ...]
    num_orders: int | None
    seed: int
    min_attempts: int
    mapping: str | None
    policy: str | None
    scorer: str
    stop: str | None
    budget: str | None
    token_budget: int | None
    slots: int
    tokens_per_s: float | None
    half_speed_at: float | None
    num_processes: int | None
    as_json: bool

    @property
    def is_policy(self) -> bool:
        """Whether more is replayed than the choice of an answer."""
        return any(flag is not None for flag in (self.policy, self.stop, self.budget, self.token_budget))

    @property
    def speed(self) -> Speed | None:
        """How fast attempts are generated; None where they take their recorded seconds.

        Raises:
            InputError: a slowdown without a speed, or a number that is no speed.
        """
        if self.tokens_per_s is None:
            if self.half_speed_at is not None:
                raise InputError("--half-speed-at says how --tokens-per-s falls with more attempts: give that too")
            return None
        try:
            return Speed(self.tokens_per_s, math.inf if self.half_speed_at is None else self.half_speed_at)
        except ValueError as error:
            raise InputError(f"cannot replay that: {error}") from error


def replay_selectors(asked: Asked) -> None:
    """Replay recordings under selectors and print what came of it.

    Raises:
        InputError: a flag or a recording cannot be used.
    """
    plan = ReplayPlan(selector_names(asked.selectors), _ks(asked.ks), asked.num_orders, asked.seed, asked.min_attempts)
    console = Console(stderr=True)

    def replay(path: Path) -> list[dict[str, Any]]:
        replayed = _replay_file(path, plan, asked, console)
        figures = _judged(replayed)
        trained = trained_on(path, plan.selectors)
        if not asked.as_json:
            show_figures(wide_console(), path.name, figures, trained)
        return [_as_dict(item, replayed, trained) for item in figures]

    _replay_each(asked, replay, console)


def replay_policies(asked: Asked) -> None:
    """Replay recordings under policies, each with each selector and k, and print what came of it.

    Raises:
        InputError: a flag or a recording cannot be used.
    """
    console = Console(stderr=True)

    def replay(path: Path) -> list[dict[str, Any]]:
        problems = read_problems(path, asked, console)
        outcomes = []
        most = max(len(item.attempts) for item in problems)
        for config in _configs(asked, most):
            with progress_bar(path, console, len(problems) * max(1, config.orders)) as tell:
                outcomes.append(policy_outcome(problems, replay_policy(problems, config, lambda n, _: tell(n, n))))
        if not outcomes:
            raise InputError(f"{path}: no problem has so many attempts as --k says, the most is {most}")
        if not asked.as_json:
            show_policies(wide_console(), path.name, outcomes)
        return [item.as_dict(path.name) for item in outcomes]

    _replay_each(asked, replay, console)


def _replay_each(asked: Asked, replay: Callable[[Path], list[dict[str, Any]]], console: Console) -> None:
    """Replay one recording after the other; those that cannot be used are told at the end, behind the others' figures.

    Raises:
        InputError: a recording cannot be used.
    """
    found: list[dict[str, Any]] = []
    refused: list[InputError] = []
    with ending_in_order(console):
        for path in asked.traces:
            try:
                found += replay(path)
            except InputError as error:
                refused.append(error)
    if refused and not found:
        raise refused[0]
    print_json(found, asked)
    if refused:
        told = "\n".join(map(str, refused))
        raise InputError(f"{len(refused)} of {len(asked.traces)} recordings cannot be replayed:\n{told}")


def selector_names(told: Sequence[str]) -> tuple[str, ...]:
    """The selectors that are meant, each once. "all" are all."""
    names = [name for item in told for name in parse_names(item)]
    return tuple(dict.fromkeys(each for name in names for each in (SELECTORS if name == "all" else (name,))))


def _ks(told: Sequence[str]) -> tuple[int | None, ...]:
    ks: list[int | None] = []
    for text in (name for item in told for name in parse_names(item)):
        if text == "all":
            ks.append(None)
        elif text == "curve":
            ks += [*_CURVE, None]
        elif text.isascii() and text.isdigit() and len(text) < 9 and int(text):
            ks.append(int(text))
        else:
            raise InputError(f"--k takes a number of attempts from 1 up, 'all' or 'curve', not {text[:40]!r}")
    return tuple(dict.fromkeys(ks))


def _configs(asked: Asked, most: int) -> Iterator[PolicyReplay]:
    """What is replayed of a file whose problems have at most so many attempts."""
    budgets = [None] if asked.budget is None else [parse_duration(text) for text in parse_names(asked.budget)]
    for k, selector, budget_s in itertools.product(_ks(asked.ks), selector_names(asked.selectors), budgets):
        if k is not None and k > most:
            continue
        try:
            yield PolicyReplay(
                policy=asked.policy or ("triad" if asked.stop is None else "vote"),  # type: ignore[arg-type]
                selector=selector,
                scorer=asked.scorer,
                stop=asked.stop or "settled",
                attempts=k or most,
                budget_s=budget_s,
                token_budget=asked.token_budget,
                slots=asked.slots,
                speed=asked.speed,
                orders=asked.num_orders or (0 if k is None else ORDERS_OF_DRAWS),
                seed=asked.seed,
            )
        except ValueError as error:
            raise InputError(f"cannot replay that: {error}") from error


@contextmanager
def ending_in_order(console: Console) -> Iterator[None]:
    """Ctrl-C ends it with one line and its own exit code."""
    try:
        with Interrupts():
            yield
    except KeyboardInterrupt as error:
        console.print("interrupted; a replay writes nothing, so nothing is left behind")
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error


@contextmanager
def progress_bar(
    path: Path, console: Console, total: int | None, unit: str = "problems"
) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; told what is done, in the unit of `total`, and how many `unit` that is."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(f"{{task.fields[num]}} {unit}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(escape(path.name), total=total, num=0)
        yield lambda done, num: progress.update(task, completed=done, num=num)


def _replay_file(path: Path, plan: ReplayPlan, asked: Asked, console: Console) -> Replayed:
    num_bytes = unpacked_size(path) if path.is_file() else 0
    processes = asked.num_processes
    if processes is None:
        cores = len(os.sched_getaffinity(0))
        processes = min(_MAX_PROCESSES, cores) if num_bytes >= _WORTH_PROCESSES_BYTES else 1
    with Interrupts() as interrupts, progress_bar(path, console, num_bytes or None) as tell:
        if processes > 1:
            interrupts.stop = _leave_it  # a signal only sets `requested`; a second one still raises
        replayed = replay_file(
            path,
            plan,
            mapping=asked.mapping,
            num_processes=processes,
            tell=lambda now: tell(now.num_bytes, now.num_problems),
            is_stopped=lambda: interrupts.requested,
        )
    if replayed.num_unknown and not replayed.notes:
        _warn(console, f"{replayed.num_unknown} answers could be shown neither right nor wrong, and count as wrong")
    for note in (
        *replayed.notes,
        *([f"not used: {replayed.bad.message}"] if replayed.bad.num and replayed.scored else []),
    ):
        _warn(console, f"{path.name}: {note}")
    return replayed


def read_problems(path: Path, asked: Asked, console: Console) -> list[RecordedProblem]:
    """The problems of a recording, with what could not be used told. Raises `InputError`."""
    report = ImportReport()
    reading = read_recordings(path, asked.mapping, min_attempts=asked.min_attempts, skip_bad=True, report=report)
    with progress_bar(path, console, None) as tell:
        problems = []
        for item in reading:
            problems.append(item)
            tell(0, len(problems))
    for note in (*report.notes, *([f"not used: {report.bad.message}"] if report.bad.num else [])):
        _warn(console, f"{path.name}: {note}")
    if not problems:
        raise InputError(f"{path}: there is no problem with {asked.min_attempts} attempts to replay")
    return problems


def _leave_it() -> None:
    """What a first signal does beside setting `requested`."""


def _warn(console: Console, message: str) -> None:
    console.print(printable(message), style="yellow", markup=False, highlight=False, soft_wrap=True)


def _judged(replayed: Replayed) -> list[SelectorFigures]:
    """The figures, or an error that says why there are none."""
    if not replayed.scored:
        why = replayed.bad.message if replayed.bad.num else "; ".join(replayed.notes) or "it holds none with attempts"
        raise InputError(f"{replayed.file}: there is no problem that can be used; {why}")
    figures = selector_figures(replayed.scored, replayed.plan, seed=replayed.plan.seed)
    if not figures:
        most, plan = max(item.num_attempts for item in replayed.scored), replayed.plan
        needed = max(plan.min_attempts, min(k or 1 for k in plan.ks))
        raise InputError(
            f"{replayed.file}: no problem has {needed} attempts, the most is {most}; see --min-attempts and --k"
        )
    return figures


def _as_dict(item: SelectorFigures, replayed: Replayed, trained: Mapping[str, Trained]) -> dict[str, Any]:
    told = item.as_dict(replayed.file.name) | {"num_bad_rows": replayed.bad.num, "in_sample": item.selector in trained}
    if item.selector in trained and item.k in trained[item.selector].held_out:
        told["held_out_accuracy"] = trained[item.selector].held_out[item.k]
    return told


def print_json(found: Sequence[dict[str, Any]], asked: Asked) -> None:
    """One object, or a list when there are several; nothing where JSON is not asked for."""
    if asked.as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else list(found), indent=2))


def wide_console() -> Console:
    """Standard output; a file or a pipe has no width of its own, and gets one in which nothing is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
