"""Running one source text as `__main__`, as a person at a notebook would expect. Knows no limits or isolation.

Differences from `python program.py`: the value of a last bare expression is printed when nothing else was (models
forget `print`), and a traceback shows the program's own frames only.
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
from typing import Any

FILE_NAME = "<program>"
MAX_INT_DIGITS = 100_000  # enough for the digits of 2**300000, and printed in a fraction of a second
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


def run(source: str, streams: StandardStreams) -> int:
    """Run `source` to its end, threads and exit hooks included, and return its exit code. Never raises."""
    sys.set_int_max_str_digits(MAX_INT_DIGITS)
    sys.argv = [FILE_NAME]
    linecache.cache[FILE_NAME] = (len(source), None, source.splitlines(keepends=True), FILE_NAME)
    exit_code = _ending(lambda: _execute(source, streams), streams)
    rites: tuple[Callable[[], None], ...] = (
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
        lambda: _flush(sys.stdout),  # what the program put there last
        lambda: _flush(streams.out),
        lambda: _flush(streams.err),
    )
    for rite in rites:
        exit_code = _ending(rite, streams) or exit_code
    return exit_code


def _execute(source: str, streams: StandardStreams) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    tree = ast.parse(source, FILE_NAME)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        keep = ast.Assign(targets=[ast.Name(_RESULT, ast.Store())], value=last.value)
        tree.body[-1] = ast.fix_missing_locations(ast.copy_location(keep, last))
    exec(compile(tree, FILE_NAME, "exec", dont_inherit=True), module.__dict__)
    result = module.__dict__.pop(_RESULT, None)
    if result is not None and not streams.out.closed:
        streams.out.flush()
        if streams.raw_out.num_bytes == 0:
            print(repr(result))


def _flush(stream: Any) -> None:
    if stream is not None and not getattr(stream, "closed", False):  # a program may close its own output
        stream.flush()


def _ending(action: Callable[[], None], streams: StandardStreams) -> int:
    """Exit code that Python would give for how `action` ends."""
    try:
        action()
    except SystemExit as exit_request:
        code = exit_request.code
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        _say(f"{code}\n", streams)
        return 1
    except BaseException as error:
        _say(_describe(error), streams)
        return 1
    return 0


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
    summary.stack[:] = [frame for frame in summary.stack if frame.filename == FILE_NAME]
    related = [summary.__cause__, summary.__context__, *(getattr(summary, "exceptions", None) or ())]
    for other in related:
        if other is not None:
            _keep_own_frames(other, seen)


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
