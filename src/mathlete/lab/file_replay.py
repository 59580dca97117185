"""Replays whole files of recorded attempts, in several processes, in bounded memory.

Knows how a file is cut into pieces that processes decode, replay and forget, and how what they found is put together
again. Does not know what a selector chooses (`lab.selector_replay` does) nor what the scores are worth
(`lab.replay_figures` does). The result does not depend on the number of processes: pieces are put together in the order
of the file, and no piece knows another.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from typing import NamedTuple

from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind
from mathlete.core.protocols import Selector
from mathlete.lab.answer_judging import AnswerJudge
from mathlete.lab.bad_rows import BadRow, BadRows
from mathlete.lab.import_report import ImportReport
from mathlete.lab.json_lines import Line, decode_object, read_lines
from mathlete.lab.mapping import RecordingMapping
from mathlete.lab.recorded import SUFFIXES, MalformedError, RecordedProblem, problem_from
from mathlete.lab.recordings import is_interchange, read_recordings
from mathlete.lab.selector_replay import ReplayPlan, ScoredProblem, make_selectors, replay_problem
from mathlete.lab.task_files import stem_of

_MAX_PIECE_BYTES = 1 << 20
_MAX_PIECE_PROBLEMS = 16  # rules that compress texts take up to a second a problem, and a piece is not interrupted
_ASK_EVERY_S = 0.2
_PIECES_AHEAD = 3  # a process, so that none waits while the file is read
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 32 << 20  # the most that glibc takes for either


class Progress(NamedTuple):
    """How far a replay is.

    Attributes:
        num_problems: replayed so far.
        num_bytes: of the file, unpacked; 0 where pieces are no lines.
    """

    num_problems: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a recording: lines of a file, still to be decoded, or problems that another reader has read.

    Attributes:
        file: the file, for messages and as the problems' source.
        lines: of it.
        problems: read already.
    """

    file: Path
    lines: tuple[Line, ...] = ()
    problems: tuple[RecordedProblem, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of its lines."""
        return sum(len(line.content) for line in self.lines)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a process makes of a piece: scores with the place of each problem, and rows that cannot be used."""

    scored: list[tuple[str, ScoredProblem]]
    bad: list[BadRow]
    num_unknown: int


@dataclass(slots=True)
class Replayed:
    """A replayed recording.

    Attributes:
        file: it was read from.
        plan: what was replayed.
        scored: of each problem, in the order of the file.
        bad: rows that could not be used.
        num_unknown: answers that could be shown neither right nor wrong, and count as wrong.
        notes: what else was left out, for a person.
    """

    file: Path
    plan: ReplayPlan
    scored: list[ScoredProblem] = field(default_factory=list)
    bad: BadRows = field(default_factory=BadRows)
    num_unknown: int = 0
    notes: tuple[str, ...] = ()


def replay_file(
    path: Path,
    plan: ReplayPlan,
    *,
    mapping: RecordingMapping | str | None = None,
    num_processes: int = 1,
    tell: Callable[[Progress], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Replayed:
    """Replay a recording: a file in the interchange format, or whatever else `lab.recordings` reads.

    Args:
        path: the recording.
        plan: what to replay.
        mapping: what columns or keys mean, where the recording is of another format; see `read_recordings`.
        num_processes: that replay, and decode the lines of interchange files; with 1 all is done in this one.
        tell: is told how far it is.
        is_stopped: is asked now and then whether to give up. A signal that only sets what this looks at is safer than
            one that raises wherever it falls, which may be in the middle of starting a process.

    Raises:
        InputError: the recording as a whole cannot be read.
        KeyboardInterrupt: it was stopped; the processes have ended.
    """
    if mapping is None and path.name.lower().endswith(SUFFIXES) and path.is_file() and is_interchange(path):
        return _replay_pieces(path, line_pieces(path), plan, num_processes, tell, is_stopped)
    report = ImportReport()
    problems = read_recordings(path, mapping, skip_bad=True, report=report)
    result = _replay_pieces(path, _problem_pieces(path, problems), plan, num_processes, tell, is_stopped)
    result.bad, result.num_unknown, result.notes = report.bad, report.num_judged_unknown, tuple(report.notes)
    return result


def _replay_pieces(
    source: Path,
    pieces: Iterable[Piece],
    plan: ReplayPlan,
    num_processes: int,
    tell: Callable[[Progress], None] | None,
    is_stopped: Callable[[], bool],
) -> Replayed:
    """Replay a recording piece by piece; see `replay_file`."""
    make_selectors(plan)  # an unknown name is told here, and not by a process
    result = Replayed(source, plan)
    places: dict[str, str] = {}
    num_bytes = 0
    with closing(_in_processes(pieces, plan, num_processes, is_stopped)) as found_pieces:
        for piece, found in found_pieces:
            for row in found.bad:
                result.bad.add(row)
            for where, scored in found.scored:
                if scored.id in places:
                    reason = f"problem {scored.id!r} was in {places[scored.id]} already; ids must differ"
                    result.bad.add(BadRow(where, reason))
                    continue
                places[scored.id] = where.rpartition(", ")[2]
                result.scored.append(scored)
            result.num_unknown += found.num_unknown
            num_bytes += piece.num_bytes
            if tell is not None:
                tell(Progress(len(result.scored), num_bytes))
    return result


def line_pieces(path: Path) -> Iterator[Piece]:
    """A file cut into pieces of whole lines."""
    lines: list[Line] = []
    size = 0
    for line in read_lines(path):
        lines.append(line)
        size += len(line.content)
        if size >= _MAX_PIECE_BYTES or len(lines) >= _MAX_PIECE_PROBLEMS:
            yield Piece(path, tuple(lines))
            lines, size = [], 0
    if lines:
        yield Piece(path, tuple(lines))


def unpacked_size(path: Path) -> int:
    """Bytes of a file's content. Of a .gz what its end says, which is right for one stream of less than 4 GiB.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if not path.name.lower().endswith(".gz"):
            return path.stat().st_size
        with path.open("rb") as file:
            file.seek(-min(4, path.stat().st_size), os.SEEK_END)
            return int.from_bytes(file.read(4), "little")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _problem_pieces(source: Path, problems: Iterable[RecordedProblem]) -> Iterator[Piece]:
    waiting: list[RecordedProblem] = []
    for item in problems:
        waiting.append(item)
        if len(waiting) >= _MAX_PIECE_PROBLEMS:
            yield Piece(source, problems=tuple(waiting))
            waiting = []
    if waiting:
        yield Piece(source, problems=tuple(waiting))


class _Worker:
    """Replays pieces; one a process."""

    def __init__(self, plan: ReplayPlan) -> None:
        self._plan = plan
        self._selectors: dict[str, Selector] = make_selectors(plan)
        self._open = ExitStack()
        self._judge = self._open.enter_context(AnswerJudge())

    def replay(self, piece: Piece) -> _Found:
        scored: list[tuple[str, ScoredProblem]] = []
        bad: list[BadRow] = []
        unknown_before = self._judge.num_unknown
        for item in piece.problems:
            scored.append((str(piece.file), replay_problem(item, self._plan, self._selectors)))
        source = stem_of(piece.file)
        for number, content in piece.lines:
            where = f"{piece.file}, line {number}"
            try:
                item = problem_from(decode_object(content), source, AnswerKind(), self._judge.is_right)
            except ValueError as error:
                inside = error.inside if isinstance(error, MalformedError) else ""
                bad.append(BadRow(where + inside, str(error)))
                continue
            scored.append((where, replay_problem(item, self._plan, self._selectors)))
        return _Found(scored, bad, self._judge.num_unknown - unknown_before)

    def close(self) -> None:
        self._open.close()


_worker: _Worker | None = None  # of a process that was started for it; never of the main one


def _start_worker(plan: ReplayPlan) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the others
    _keep_memory()
    _worker = _Worker(plan)
    Finalize(None, _worker.close, exitpriority=1)  # a process of a pool does not run `atexit`


def _replay_piece(piece: Piece) -> _Found:
    assert _worker is not None
    return _worker.replay(piece)


def _keep_memory() -> None:
    """Have malloc keep what is freed, instead of giving it back to the system at once.

    A compressor takes and frees a MiB for each pair of texts; where glibc maps and unmaps it every time, the system's
    zeroing of pages takes 40 times as long as the compression of a short text. Where there is no such setting, no harm.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _in_processes(
    pieces: Iterable[Piece], plan: ReplayPlan, num_processes: int, is_stopped: Callable[[], bool]
) -> Generator[tuple[Piece, _Found], None, None]:
    """What is found in each piece, in order."""
    if num_processes <= 1:
        worker = _Worker(plan)
        try:
            for piece in pieces:
                _check(is_stopped)
                yield piece, worker.replay(piece)
        finally:
            worker.close()
        return
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may lock up
    executor = ProcessPoolExecutor(num_processes, context, _start_worker, (plan,))
    try:
        yield from _windowed(executor, pieces, num_processes * _PIECES_AHEAD, is_stopped)
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the replay was killed, most likely for want of memory; replay with fewer processes (-j 1)"
        ) from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()  # what they are at is not wanted any more
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _windowed(
    executor: ProcessPoolExecutor, pieces: Iterable[Piece], num_ahead: int, is_stopped: Callable[[], bool]
) -> Iterator[tuple[Piece, _Found]]:
    """Results in order, so many pieces submitted ahead of the one that is waited for."""
    waiting: deque[tuple[Piece, Future[_Found]]] = deque()
    for piece in pieces:
        _check(is_stopped)
        waiting.append((piece, executor.submit(_replay_piece, piece)))
        if len(waiting) >= num_ahead:
            yield _first_of(waiting, is_stopped)
    while waiting:
        yield _first_of(waiting, is_stopped)


def _first_of(waiting: deque[tuple[Piece, Future[_Found]]], is_stopped: Callable[[], bool]) -> tuple[Piece, _Found]:
    """The piece that was submitted first, once it is done."""
    piece, future = waiting.popleft()
    while not wait([future], _ASK_EVERY_S).done:
        _check(is_stopped)
    return piece, future.result()


def _check(is_stopped: Callable[[], bool]) -> None:
    if is_stopped():
        raise KeyboardInterrupt
