"""`mathlete sandbox`: run a file as an attempt's code would run. Shows; the work is the sandbox's."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer

from mathlete.cli.options import parse_bytes, parse_duration
from mathlete.cli.run_options import INTERRUPTED_EXIT_CODE, CodeTimeout
from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.errors import InputError, MathleteError
from mathlete.sandbox.pool import SandboxPool

app = typer.Typer(help="Run programs as an attempt's code would run.", no_args_is_help=True)

MAX_SOURCE_BYTES = 1 << 20  # what a model writes in one piece is a thousand times smaller
_STDIN = "-"
_SESSION = "files"
_POLL_INTERVAL_S = 0.005

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="A Python file, or - for stdin. Several are the cells of one session."),
]
Memory = Annotated[str, typer.Option(help="Address space it may have, libraries included: 512m, 2g.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is to be run: what it was called on the command line, and what it says."""

    name: str
    code: str


@app.command("run")
def run(files: Files, timeout: CodeTimeout = "10s", memory: Memory = "2g", as_json: AsJson = False) -> None:
    """Run a file as an attempt's code would run: behind the same fences, under the same limits.

    The exit code is 0 when the sandbox did its work, whatever the program did: its status is ok, error, timeout,
    memory, output_limit or killed.
    """
    wall_s, memory_bytes = _named("--timeout", parse_duration, timeout), _named("--memory", parse_bytes, memory)
    limits = CodeLimits(wall_s=wall_s, memory_bytes=int(memory_bytes))
    sources = [read_source(name) for name in files]
    try:
        with SandboxPool(num_workers=1) as pool:
            pool.describe_isolation()  # raises where no program can be run at all
            results = _run_all(pool, sources, limits)
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from error
    for source, result in zip(sources, results, strict=True):
        if not result.isolation:
            _tell_not_started(source, result)
    if as_json:
        shown = [facts(result) for result in results]
        cells = [{"file": source.name, **fact} for source, fact in zip(sources, shown, strict=True)]
        typer.echo(json.dumps(shown[0] if len(shown) == 1 else {"cells": cells}))
        return
    for source, result in zip(sources, results, strict=True):
        show(source.name if len(sources) > 1 else "", result)


def _run_all(pool: SandboxPool, sources: Sequence[Source], limits: CodeLimits) -> list[ToolResult]:
    """Results of the sources, one after the other; several are cells of one session."""
    session = _SESSION if len(sources) > 1 else None
    results: list[ToolResult] = []
    for number, source in enumerate(sources):
        pool.submit(str(number), source.code, limits, session=session)
        while not (done := pool.poll()):
            time.sleep(_POLL_INTERVAL_S)
        results += [one.result for one in done]
    return results


def read_source(name: str) -> Source:
    """The program of a file, or of stdin for `-`; reads no more than may be.

    Raises:
        InputError: it cannot be read, is not UTF-8, or holds more than `MAX_SOURCE_BYTES`.
    """
    shown = "stdin" if name == _STDIN else name
    try:
        with open(0, "rb", closefd=False) if name == _STDIN else open(name, "rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {shown!r}; give the path of a Python file, or - for stdin") from error
    except IsADirectoryError as error:
        raise InputError(f"{shown!r} is a folder; give a Python file in it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{shown!r} cannot be read: {error}") from error
    if len(data) > MAX_SOURCE_BYTES:
        raise InputError(f"{shown!r} is larger than {MAX_SOURCE_BYTES >> 10} KiB, too large for a program")
    try:
        return Source(name, data.decode("utf-8-sig"))  # as Python reads it: a byte order mark is no part of it
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown!r} is not UTF-8 (byte {error.start}: {error.reason}); programs are passed as UTF-8: convert it"
        ) from error


def facts(result: ToolResult) -> dict[str, Any]:
    """What `--json` prints of a result."""
    return {
        "stdout": result.stdout,
        "stderr": result.stderr,
        "status": result.status,
        "seconds": round(result.elapsed_s, 6),
        "isolation": list(result.isolation),
    }


def show(title: str, result: ToolResult) -> None:
    """What a person sees: the program's output on the streams it went to, and a line about its end on stderr."""
    for text, stream in ((result.stdout, sys.stdout), (result.stderr, sys.stderr)):
        stream.write(printable(text) if stream.isatty() else text)
        if text and not text.endswith("\n"):
            stream.write("\n")
        stream.flush()
    name = f"{title}: " if title else ""
    restarted = "; its session had died: it ran in a fresh one" if result.session_restarted else ""
    layers = ", ".join(result.isolation)
    typer.echo(f"{name}{result.status} after {result.elapsed_s:.2f} s, behind {layers}{restarted}", err=True)


def printable(text: str) -> str:
    """The text with control characters as escapes, so that a program cannot write to the terminal's controls."""
    return "".join(ch if ch in "\n\t" or ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


def _tell_not_started(source: Source, result: ToolResult) -> NoReturn:
    reason = result.stderr.strip() or f"it was {result.status}"
    raise MathleteError(f"{source.name}: the sandbox could not run it: {reason}")


def _named(flag: str, parse: Callable[[str], float], text: str) -> float:
    """The value of a flag; an error names the flag."""
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error
