"""Mathlete for Python and notebooks: `mathlete.solve(...)`, and what it gives back.

Knows how problems and options are handed over in Python; a run is the same session that `mathlete solve` is.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Real
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console

from mathlete.cli.options import parse_duration
from mathlete.compose import LoadedGenerator
from mathlete.core.errors import InputError
from mathlete.generators.borrowed import BorrowedGenerator
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import read_outline
from mathlete.lab.run_store import RunStore
from mathlete.lab.task_files import Row
from mathlete.lab.task_sources import find_source
from mathlete.lab.tasks import TaskSet, load_tasks, tasks_of_rows
from mathlete.model_store.registry import DEFAULT_MODEL
from mathlete.recipes.loading import load_recipe
from mathlete.run_config import RunConfig
from mathlete.session import run_session
from mathlete.session.configuring import complete_config
from mathlete.session.interrupts import Interrupts
from mathlete.session.run_session import Load, StoppedAtOnce, start_run
from mathlete.session.solutions import Solutions

if TYPE_CHECKING:
    from pandas import DataFrame

    # A statement, a problem file, a list of statements, or rows as a problem file has them.
    Problems: TypeAlias = str | os.PathLike[str] | Sequence[str | Mapping[str, Any]] | DataFrame

__all__ = ["Solutions", "Solver", "open_run", "solve"]

# Options are the fields of `RunConfig`, except those that are made of something else, and the program's timeout,
# which may be written as "10s".
_OPTIONS = frozenset(field.name for field in fields(RunConfig)) - {
    "command",
    "source",
    "budget_s",
    "code_timeout_s",
    "engines",
} | {"code_timeout"}
_BY_WORD: Mapping[str, tuple[type, ...]] = {
    "int": (int,), "float": (float, int), "str": (str,), "bool": (bool,), "None": (NoneType,)
}  # fmt: skip
# Of the options that are a number, a text or a switch; what holds several is looked at by whoever uses it.
_TYPES: Mapping[str, tuple[type, ...]] = {
    field.name: tuple(kind for word in str(field.type).split(" | ") for kind in _BY_WORD[word])
    for field in fields(RunConfig)
    if _BY_WORD.keys() >= set(str(field.type).split(" | "))
}
_DEFAULTS: Mapping[str, Any] = {"policy": "triad", "precision": "auto", "model": DEFAULT_MODEL, "budget_s": 120.0}
# What a model is loaded with: a `Solver` has it for all its runs.
_OF_ENGINE = frozenset(
    {
        *("recipe", "model", "device", "precision", "kv_cache_dtype", "batch_invariant", "tensor_parallel", "threads"),
        *("max_in_flight", "max_tokens", "normalize_math"),
        *("speculative_method", "num_speculative_tokens", "draft_width", "draft_model"),
    }
)


def solve(
    problems: Problems,
    budget: str | float | None = None,
    attempts: int | None = None,
    policy: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    *,
    recipe: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    out: str | os.PathLike[str] = "runs",
    progress: bool = True,
    **options: Any,
) -> Solutions:
    """Solve problems within a budget of time, as `mathlete solve` does.

    Ctrl-C, or a notebook's stop button, ends the run in order and gives back the answers that are there.

    Args:
        problems: one statement; a file or data set, as `mathlete solve` takes it; a list of statements, which get the
            ids "problem-1", "problem-2", ...; or rows with `problem` and, if wanted, `id`, `answer`, `group`: mappings,
            or a pandas data frame. An answer is a label, looked at only after its problem has ended.
        budget: wall-clock time for all problems, from when the model is ready: "90s", "10m", or seconds; "2m" where
            neither this nor the recipe tells.
        attempts: attempts a problem at most; 8 likewise.
        policy: "triad" (likewise), "vote" (until the vote is settled), "fixed" (all attempts), "pipeline" or
            "prometheus".
        model: a name of `mathlete models list`, a .gguf file, or a safetensors folder; the 1.5B model likewise. For a
            recipe with one engine, what that engine loads.
        seed: all sampling noise is derived from it; 0 likewise.
        recipe: engines and options from a file: a name of `mathlete recipes list`, or a .toml file. What is given
            here goes before it.
        limit: only the first so many problems.
        out: folder for runs; this one goes into a folder of its own.
        progress: tell on stderr how the run is going: a table on a terminal, else a line a problem.
        options: any other option of `mathlete solve`, spelled with underscores; `pillars` and `checks` are lists of
            names.

    Raises:
        InputError: a problem or an option cannot be used.
        MathleteError: of whichever part failed; the message says what was kept.
        KeyboardInterrupt: it was interrupted before the run had begun.
    """
    told = {"attempts": attempts, "policy": policy, "model": model, "seed": seed, "recipe": recipe}
    given = {**{name: value for name, value in told.items() if value is not None}, **options}
    try:
        return _run(problems, budget, given, limit, Path(out), _console(progress))
    except StoppedAtOnce as stopped:
        return _what_there_is(stopped)


def open_run(run: str | os.PathLike[str], out: str | os.PathLike[str] = "runs") -> Solutions:
    """What a run left on disk, or has so far while it goes on.

    The attempts in its `record` come without their texts, so that a large run opens quickly; `read` has them.

    Args:
        run: a run's folder, its id, the start of it, or "latest".
        out: where runs are kept, to look for an id in.

    Raises:
        InputError: there is no such run.
        StorageError: its store is damaged.
    """
    folder = RunFolder.open(os.fspath(run), Path(out))
    with RunStore.read(folder.store_path) as store:
        record = read_outline(store)
    return Solutions(record, folder.path, record.finished == "interrupted")


class Solver:
    """Keeps a model loaded between runs. Use it as a context manager, or `close` it.

    One run at a time, from one thread at a time.
    """

    def __init__(
        self, model: str | None = None, *, out: str | os.PathLike[str] = "runs", progress: bool = True, **options: Any
    ) -> None:
        """Load nothing yet: the first run does.

        Args:
            model: as for `solve`.
            out: folder for runs.
            progress: tell on stderr how runs are going.
            options: of `solve`, for all runs. What the model is loaded with (`precision`, `max_in_flight`,
                `max_tokens`, `device`, ...) can be given only here.

        Raises:
            InputError: there is no such option, or it guesses tokens, which is counted for one run only.
        """
        _check_names(options)
        if options.get("speculative_method", "off") != "off":
            raise InputError("a Solver does not guess tokens ahead: leave speculative_method out, or use solve()")
        self._options = options if model is None else {"model": model, **options}
        self._out = Path(out)
        self._progress = progress
        self._loaded: LoadedGenerator | None = None
        self._interrupts = Interrupts()

    def solve(
        self, problems: Problems, budget: str | float | None = None, *, limit: int | None = None, **options: Any
    ) -> Solutions:
        """As `mathlete.solve`, with this solver's model; `options` go before the solver's. Raises what it raises.

        Raises:
            InputError: an option that the model was loaded with.
        """
        if fixed := sorted(set(options) & _OF_ENGINE):
            raise InputError(f"{', '.join(fixed)}: the model is loaded with it; give it to Solver()")
        self._interrupts = Interrupts()
        given = {**self._options, **options}
        keeping = (self._load, self._interrupts)
        try:
            return _run(problems, budget, given, limit, self._out, _console(self._progress), *keeping)
        except BaseException as error:
            self.close()  # the run did not end in order: there may still be something of it in the engine
            if isinstance(error, StoppedAtOnce):
                return _what_there_is(error)
            raise

    def stop(self) -> None:
        """End the run that is going on, in order; for another thread than the one in `solve`."""
        self._interrupts.request()

    def close(self) -> None:
        """Give the model's memory back; the next run would load it again. Safe to call twice."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def __enter__(self) -> Solver:
        """The solver itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _load(self, config: RunConfig, console: Console) -> LoadedGenerator:
        if self._loaded is None:
            if config.speculative_method != "off":
                raise InputError("a Solver does not guess tokens ahead, and its recipe asks for it: use solve()")
            self._loaded = run_session.load_generator(config, console)
        return replace(self._loaded, generator=BorrowedGenerator(self._loaded.generator))


def _run(
    problems: Any,
    budget: str | float | None,
    options: dict[str, Any],
    limit: int | None,
    out: Path,
    console: Console,
    load: Load | None = None,
    interrupts: Interrupts | None = None,
) -> Solutions:
    tasks, source = _tasks(problems, limit, options.get("mapping"))
    tasks.check_none_is_lost()
    config = _config(options, budget, source)
    for note in tasks.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    result = start_run(config, tasks.tasks, out, console, load, interrupts)
    return Solutions(result.record, result.folder.path, result.interrupted, tasks.notes)


def _what_there_is(stopped: StoppedAtOnce) -> Solutions:
    return replace(open_run(stopped.folder.path), interrupted=True)


def _console(progress: bool) -> Console:
    """Standard error. In a notebook it is plain text, which takes a line a problem and no widgets."""
    return Console(file=sys.stderr, quiet=not progress, force_jupyter=False)


def _config(options: Mapping[str, Any], budget: str | float | None, source: str | None) -> RunConfig:
    _check_names(options)
    given = dict(options)
    recipe = given.pop("recipe", None)
    if "code_timeout" in given:
        given["code_timeout_s"] = _seconds("code_timeout", given.pop("code_timeout"))
    if budget is not None:
        given["budget_s"] = _seconds("budget", budget)
    for name in ("pillars", "checks", "cured"):
        names = given.get(name)
        if names is not None:
            if isinstance(names, str) or not isinstance(names, Iterable):
                raise InputError(f"{name} must be a list of names, such as [{str(names)!r}]")
            given[name] = tuple(names)
    _check_types(given)
    try:
        if recipe is not None:
            return load_recipe(os.fspath(recipe)).run_config("solve", source=source, overrides=given)
        return complete_config(
            {**_DEFAULTS, **given}, command="solve", source=source, precision_is_given="precision" in options
        )
    except (TypeError, ValueError) as error:  # a value of another type cannot be compared with its limits
        raise InputError(str(error)) from error


def _check_names(options: Iterable[str]) -> None:
    for name in options:
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            raise InputError(
                f"there is no option {name!r}; "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(_OPTIONS))}")
            )


def _check_types(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in _TYPES and (not isinstance(value, _TYPES[name]) or isinstance(value, bool) > (bool in _TYPES[name])):
            words = " or ".join("None" if kind is NoneType else kind.__name__ for kind in _TYPES[name])
            raise InputError(f"{name} must be {words}, not {value!r:.60}")


def _seconds(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, str | Real):
        raise InputError(f'{name} must be a time such as "90s" or "10m", or seconds, not {given!r:.60}')
    try:
        return parse_duration(given if isinstance(given, str) else format(given, "f"))
    except (InputError, OverflowError) as error:
        raise InputError(f"{name}: {error}") from error


def _tasks(problems: Any, limit: int | None, mapping: str | None) -> tuple[TaskSet, str | None]:
    """The tasks, and the file or data set they are from, if they are from one."""
    if isinstance(problems, str | os.PathLike):
        source = find_source(problems)
        return load_tasks(problems, limit=limit, mapping=mapping), os.path.abspath(source) if isinstance(
            source, Path
        ) else source
    if hasattr(problems, "columns") and hasattr(problems, "to_dict"):  # a data frame, without asking for pandas
        problems = problems.astype(object).where(problems.notna(), None).to_dict("records")
    if mapping is not None:
        raise InputError("mapping is for files and data sets: rename the keys or columns of rows that are in memory")
    if not isinstance(problems, Sequence):
        raise InputError(f"problems must be text, a path, a list or a data frame, not {type(problems).__name__}")
    return tasks_of_rows(_rows(problems), limit=limit), None


def _rows(problems: Sequence[Any]) -> Iterable[Row]:
    for number, item in enumerate(problems, 1):
        fields = {"problem": item} if isinstance(item, str) else item
        if not isinstance(fields, Mapping):
            raise InputError(f"item {number} of the problems must be text or a mapping, not {type(item).__name__}")
        yield Row(fields, Path("problem"), f"item {number}")
