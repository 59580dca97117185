"""Running one source text as `__main__`, as a person at a notebook would expect. Knows no limits or isolation.

Differences from `python program.py`: the value of a last bare expression is printed when nothing else was (models
forget `print`), and a traceback shows the program's own frames only. The cells of a session share one `__main__`;
threads and exit hooks of a cell are not waited for.
"""

from __future__ import annotations

import ast
import atexit
import io
import linecache
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

FILE_NAME = "<program>"
MAX_INT_DIGITS = 100_000  # enough for the digits of 2**300000, and printed in a fraction of a second
_CELL_NAME = "<cell {}>"
_RESULT = "__result__"


class _CountingFile(io.FileIO):
    """A raw file that knows how much was written to it."""

    num_bytes = 0

    def write(self, data: Any, /) -> int:
        self.num_bytes += len(data)
        return super().write(data)


@dataclass(frozen=True, slots=True)
class StandardStreams:
    """The streams that the program starts with; it may replace them in `sys`.

    Attributes:
        raw_out: beneath `out`.
        out: first `sys.stdout`.
        err: first `sys.stderr`.
    """

    raw_out: _CountingFile
    out: io.TextIOWrapper
    err: io.TextIOWrapper


def open_standard_streams() -> StandardStreams:
    """Replace `sys.stdin`, `sys.stdout` and `sys.stderr` by fresh UTF-8 ones on descriptors 0, 1, 2.

    Lines go out as they are printed, so that a program that is killed leaves what it had said; a lone
    surrogate is printed as its escape and does not end the program.
    """
    raw_out = _CountingFile(1, "w", closefd=False)
    raw_err = io.FileIO(2, "w", closefd=False)
    out, err = (
        io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        for raw in (raw_out, raw_err)
    )
    stdin = open(0, encoding="utf-8", closefd=False)
    for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return StandardStreams(raw_out, out, err)


class CellEnding(NamedTuple):
    """How a cell ended by itself: its exit code, and whether it was for want of memory."""

    exit_code: int
    out_of_memory: bool


def new_main() -> types.ModuleType:
    """A fresh `__main__`, registered, with what every program finds in `sys`."""
    sys.set_int_max_str_digits(MAX_INT_DIGITS)
    sys.argv = [FILE_NAME]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    return module


def run(source: str, streams: StandardStreams, module: types.ModuleType) -> int:
    """Run `source` to its end, threads and exit hooks included, and return its exit code. Never raises."""
    exit_code = _ending(lambda: _execute(source, FILE_NAME, streams, module), streams).exit_code
    rites: tuple[Callable[[], None], ...] = (
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
        *_last_words(streams),
    )
    for rite in rites:
        exit_code = _ending(rite, streams).exit_code or exit_code
    return exit_code


def run_cell(source: str, number: int, streams: StandardStreams, module: types.ModuleType) -> CellEnding:
    """Run `source` as a cell of the session that `module` is the `__main__` of. Never raises.

    `number` tells its lines from those of other cells in tracebacks.
    """
    ending = _ending(lambda: _execute(source, _CELL_NAME.format(number), streams, module), streams)
    for rite in _last_words(streams):
        late = _ending(rite, streams)
        ending = CellEnding(late.exit_code or ending.exit_code, late.out_of_memory or ending.out_of_memory)
    return ending


def _last_words(streams: StandardStreams) -> tuple[Callable[[], None], ...]:
    """What brings out all that was printed."""
    return (
        lambda: _flush(sys.stdout),  # what the program put there last
        lambda: _flush(streams.out),
        lambda: _flush(streams.err),
    )


def _execute(source: str, file_name: str, streams: StandardStreams, module: types.ModuleType) -> None:
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    tree = ast.parse(source, file_name)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        keep = ast.Assign(targets=[ast.Name(_RESULT, ast.Store())], value=last.value)
        tree.body[-1] = ast.fix_missing_locations(ast.copy_location(keep, last))
    exec(compile(tree, file_name, "exec", dont_inherit=True), module.__dict__)
    result = module.__dict__.pop(_RESULT, None)
    if result is not None and not streams.out.closed:
        streams.out.flush()
        if streams.raw_out.num_bytes == 0:
            print(repr(result))


def _flush(stream: Any) -> None:
    if stream is not None and not getattr(stream, "closed", False):  # a program may close its own output
        stream.flush()


def _ending(action: Callable[[], None], streams: StandardStreams) -> CellEnding:
    """Exit code that Python would give for how `action` ends."""
    try:
        action()
    except SystemExit as exit_request:
        code = exit_request.code
        if code is None or isinstance(code, int):
            return CellEnding((code or 0) & 0xFF, False)
        _say(f"{code}\n", streams)
        return CellEnding(1, False)
    except BaseException as error:
        _say(_describe(error), streams)
        return CellEnding(1, isinstance(error, MemoryError))
    return CellEnding(0, False)


def _describe(error: BaseException) -> str:
    try:
        summary = traceback.TracebackException.from_exception(error)
        _keep_own_frames(summary, set())
        return "".join(summary.format())
    except (MemoryError, RecursionError):  # no room left to tell the whole story
        return f"{type(error).__name__}\n"


def _keep_own_frames(summary: traceback.TracebackException, seen: set[int]) -> None:
    if id(summary) in seen:
        return
    seen.add(id(summary))
    summary.stack[:] = [frame for frame in summary.stack if _is_own(frame.filename)]
    related = [summary.__cause__, summary.__context__, *(getattr(summary, "exceptions", None) or ())]
    for other in related:
        if other is not None:
            _keep_own_frames(other, seen)


def _is_own(file_name: str) -> bool:
    return file_name == FILE_NAME or file_name.startswith(_CELL_NAME[:6])


def _say(text: str, streams: StandardStreams) -> None:
    """Write to the program's stderr, by descriptor when it closed the stream; a closed descriptor hears nothing."""
    try:
        if not streams.err.closed:
            streams.err.flush()
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return
