"""What answers over a whole contest: always with an integer, always in time, whatever happens inside.

Knows calls as they come from a gateway: ids and statements of any kind, the same problem twice, a caller who cannot
wait. The work is `contest_run`'s, in a thread of its own, so that an engine that hangs does not hang the gateway.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mathlete.core.errors import MathleteError
from mathlete.core.problem import Problem
from mathlete.kaggle.contest_clock import num_upcoming, patience_s
from mathlete.kaggle.contest_run import Contest, ContestRun
from mathlete.kaggle.contest_sink import Standing, clamped

MAX_STATEMENT_CHARS = 100_000  # of which no model that runs here could read more; the rest is left out
_MAX_ID_CHARS = 200
_POLL_S = 0.1
_CLOSE_S = 60.0
NO_STATEMENT = "(no statement was given)"


@dataclass(frozen=True, slots=True)
class Question:
    """A call as it is understood.

    Attributes:
        problem: what is to be solved; its statement is `NO_STATEMENT` where there was none.
        is_blank: whether there was none.
    """

    problem: Problem
    is_blank: bool


@dataclass(slots=True)
class _Job:
    question: Question
    answer: Future[int] = field(default_factory=Future)


def question_of(id_value: object, statement: object, number: int) -> Question:
    """What a call asks, whatever the types of its values: text that can be stored, and an id that names a problem.

    Args:
        id_value: of the problem; a name is made up where there is none.
        statement: its text; None, NaN or white space for none.
        number: of the call, for a name that is made up.
    """
    name, text = _text(id_value)[:_MAX_ID_CHARS], _text(statement)[:MAX_STATEMENT_CHARS]
    is_blank = not text.strip()
    return Question(
        Problem(name if name.strip() else f"problem-{number}", text if not is_blank else NO_STATEMENT), is_blank
    )


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).encode("utf-8", "replace").decode()


class ContestEntrant:
    """Answers calls one after the other. `predict` may be called from any thread, and never raises.

    Attributes:
        folder: of the run.
    """

    def __init__(self, contest: Contest, console: Console, *, grace_s: float = 10.0) -> None:
        """Begin the run, or take up the one of that name; its engine is loaded meanwhile.

        Args:
            contest: what to do.
            console: for a person: a line a problem, and what goes wrong.
            grace_s: seconds past a problem's share that its end may take.

        Raises:
            MathleteError: the run cannot be begun: its folder or store.
        """
        self._console = console
        self._grace_s = grace_s
        self._standing = Standing()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._calls = threading.Lock()  # one call at a time
        self._given: dict[str, tuple[str, int]] = {}  # statement and answer of each problem, by id
        self._num_calls = 0
        self._is_closed = False
        opened: Future[ContestRun] = Future()
        self._thread = threading.Thread(target=self._work, args=(contest, opened), name="mathlete-contest", daemon=True)
        self._thread.start()
        self._run = opened.result()
        self.folder: Path = self._run.folder.path
        self._num_problems = self._run.num_problems
        for key, record in self._run.record.problems.items():
            if record.selection is not None:
                self._given[key] = (record.problem.statement, clamped(record.selection.answer))

    @property
    def num_answered(self) -> int:
        """Problems that have an answer."""
        return len(self._given)

    def predict(self, id_value: object, statement: object) -> int:
        """The answer to a problem: an integer from 0 to 99999.

        At most its share of the clock later, and a moment for ending it. The same problem asked again gets the same
        answer at once.

        Args:
            id_value: of the problem; text, a number, or nothing.
            statement: its text.
        """
        with self._calls:
            self._num_calls += 1
            try:
                return self._answer(question_of(id_value, statement, self._num_calls))
            except Exception as error:  # a defect of ours must not end the contest
                self._say(f"a call failed: {error!r:.300}")
                return self._standing.leader()

    def close(self) -> None:
        """End the problem in hand, and write what there is. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._run.request_stop()
            self._jobs.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._say(f"the engine does not come back; what was recorded is in {self.folder}")

    def __enter__(self) -> ContestEntrant:
        """The entrant itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _answer(self, question: Question) -> int:
        asked = question.problem
        for number in itertools.count(2):
            known = self._given.get(asked.id)
            if known is None:
                break
            if known[0] == asked.statement:
                return known[1]
            asked = Problem(f"{question.problem.id} ({number})", asked.statement)  # another problem of the same name
        job = _Job(Question(asked, question.is_blank))
        begun_s = time.monotonic()
        self._jobs.put(job)
        answer = self._wait(job, begun_s)
        self._given[asked.id] = (asked.statement, answer)
        self._say_answer(asked.id, answer, time.monotonic() - begun_s)
        return answer

    def _wait(self, job: _Job, begun_s: float) -> int:
        """The job's answer, or the best there is when it does not come in time."""
        problem_id = job.question.problem.id
        still_to_come = num_upcoming(self._num_problems, len({*self._given, problem_id}))
        patient_until_s = begun_s + patience_s(self._run.clock.remaining_s(), still_to_come)
        while True:
            try:
                return job.answer.result(_POLL_S)
            except NotYet:
                standing = self._standing
                is_mine = standing.problem_id == problem_id
                deadline_s = standing.deadline_s if is_mine else None
                until_s = patient_until_s if deadline_s is None else deadline_s
                if time.monotonic() > until_s + self._grace_s or not self._thread.is_alive():
                    self._run.hurry()
                    answer = standing.leader() if is_mine else clamped(None)
                    self._say(f"{problem_id}: nothing came back in time; {answer} is handed in")
                    return answer

    # --- the thread of the run ---

    def _work(self, contest: Contest, opened: Future[ContestRun]) -> None:
        try:
            run = ContestRun(contest, self._standing, self._console)
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(run)
        try:
            run.load()
            self._say("the engine is ready")
        except Exception as error:  # it is tried again when the first problem comes
            run.warn(f"engine or sandbox could not be got ready, and will be tried again: {error!s:.500}")
        while (job := self._jobs.get()) is not None:
            self._solve(run, job)
        try:
            run.close()
        except MathleteError as error:
            self._say(f"the results could not be written: {error}")

    def _solve(self, run: ContestRun, job: _Job) -> None:
        problem = job.question.problem
        self._standing.begin(problem.id)
        try:
            if job.question.is_blank:
                answer = run.answer_without_solving(problem, "it came without a statement")
            else:
                answer = run.solve(problem)
        except Exception as error:  # a defect of ours; attempts that have ended still count
            self._say(f"{problem.id}: {error!r:.300}")
            answer = self._standing.leader()
        job.answer.set_result(answer)

    # --- telling a person ---

    def _say_answer(self, problem_id: str, answer: int, seconds: float) -> None:
        left_s = self._run.clock.remaining_s()
        self._say(
            f"{self.num_answered}/{self._num_problems} {problem_id}: {answer} in {seconds:.0f} s, "
            f"{int(left_s // 3600)}:{int(left_s // 60 % 60):02}:{int(left_s % 60):02} left"
        )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
