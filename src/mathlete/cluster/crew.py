"""The head of a run over several workers: gives out problems, keeps what comes back, replaces workers that die.

The head alone writes the store. What a worker has finished and told of survives it; what it had in hand goes to
another one, which makes the same attempts with the same seeds. A killed head is gone on with by `--resume`.

How the clock is shared: every worker's driver follows the run's clock, and reckons with the problems that it has and
with its even part of those that nobody has taken yet. So each problem's share is what remains, over the problems left
to each worker. Tokens: a worker may plan with its even part of the tokens that are left, told anew several times a
second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from rich.console import Console

from mathlete.cluster.assignments import Assignments
from mathlete.cluster.closing import finish_here
from mathlete.cluster.messages import Beginning, Report, WorkerFacts
from mathlete.cluster.placement import demand_of
from mathlete.cluster.ray_connection import connected, ray
from mathlete.cluster.slots import Answer, ClusterSpec, Slot, Slots
from mathlete.cluster.worker import WorkerSpec
from mathlete.core.errors import EngineError
from mathlete.core.problem import Problem
from mathlete.core.trace import TraceEvent
from mathlete.run_config import RunConfig
from mathlete.session.crew import Job, OpenCrew
from mathlete.triad.driver import BUDGET, COMPLETE, INTERRUPTED, RunOutcome, is_cut_short
from mathlete.triad.progress import ProblemProgress, RunProgress, progress_of_done

_LOOK_S = 0.1  # between looks at the clock, and pictures of the progress
_GRACE_S = 15.0  # for workers to hand in when the run is to end


def over_ray(spec: ClusterSpec) -> OpenCrew:
    """For a session: a crew of the workers that `spec` describes."""
    return lambda config, problems, console: RayCrew(spec, config, problems, console)


class RayCrew:
    """Workers of a Ray cluster. Used by one thread; `request_stop` may be called from a signal handler."""

    def __init__(self, spec: ClusterSpec, config: RunConfig, problems: Sequence[Problem], console: Console) -> None:
        """Start the workers and wait until they are ready, not too long for the last ones; see `OpenCrew`.

        Raises:
            InputError: there is no cluster, or it is too small.
            MathleteError: no worker can load its engine.
        """
        self._max_restarts = spec.max_restarts
        self._console = console
        self._stop_requested = False
        self._warnings: list[str] = []
        self._guesses: dict[str, Mapping[str, float]] = {}
        with ExitStack() as cleanup:
            cleanup.enter_context(connected(spec.address, spec.num_workers))
            total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            demand = demand_of(config, spec.num_workers, total.get("CPU", 1.0), total.get("GPU", 0.0))
            worker_config = replace(config, threads=demand.threads)
            self.slots = Slots(spec, demand, WorkerSpec(worker_config, tuple(problems), spec.loader))
            cleanup.callback(self.slots.close)
            console.print(f"{spec.num_workers} workers are loading", highlight=False, markup=False)
            ready = self._await_ready(spec.patience_s)
            self._cleanup = cleanup.pop_all()
        speed = ready.facts.get("tokens_per_s")
        whole = speed * spec.num_workers if isinstance(speed, float) else None
        self.facts: Mapping[str, object] = {**ready.facts, "tokens_per_s": whole, "num_workers": spec.num_workers}
        self.warnings = (*ready.warnings, *self._warnings)

    def work(self, job: Job) -> RunOutcome:
        """See `Crew.work`."""
        return _Session(self, job).run()

    def request_stop(self) -> None:
        """See `Crew.request_stop`."""
        self._stop_requested = True

    @property
    def stop_requested(self) -> bool:
        """Whether the work is to end soon."""
        return self._stop_requested

    def take_warnings(self) -> tuple[str, ...]:
        """Nothing: what happens to workers is recorded as it happens."""
        return ()

    def guesses(self) -> Mapping[str, float] | None:
        """The workers' counts added up; what is a mean is the mean of theirs."""
        told = list(self._guesses.values())
        if not told:
            return None
        sums = {name: sum(one.get(name, 0) for one in told) for name in told[0]}
        return {name: value if isinstance(told[0][name], int) else value / len(told) for name, value in sums.items()}

    def note_guesses(self, slot: Slot, guesses: Mapping[str, float] | None) -> None:
        """Keep a worker's newest counts."""
        if guesses is not None:
            self._guesses[slot.name] = guesses

    def close(self) -> None:
        """End the workers, and the cluster where it was started here."""
        self._cleanup.close()

    def on_loss(self, answer: Answer, num_problems: int = 0) -> str:
        """Replace a worker that is lost, or leave its place empty. What happened, for people.

        Raises:
            EngineError: there is no worker left, and none to come.
        """
        slot = answer.slot
        who = str(slot)
        self.slots.drop(slot)
        if answer.refusal is not None:
            told = f"{who} cannot load its engine: {answer.refusal}"
        elif slot.num_restarts >= self._max_restarts:
            told = f"{who} {answer.loss}, and it has been replaced {slot.num_restarts} times already"
        else:
            slot.num_restarts += 1
            self.slots.start(slot)
            told = f"{who} {answer.loss}; it is replaced ({slot.num_restarts} of at most {self._max_restarts} times)"
        if num_problems:
            told += f", and its {num_problems} problem{'' if num_problems == 1 else 's'} go to whoever is free"
        if not self.slots.living:
            error = EngineError(f"no worker is left. The last one: {told}")
            for note in getattr(answer.refusal, "__notes__", ()):
                error.add_note(note)
            raise error from answer.refusal
        return told

    def tell(self, message: str) -> None:
        """Tell a person now."""
        self._console.print(f"warning: {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _await_ready(self, patience_s: float) -> WorkerFacts:
        """Until all workers are ready, or one is and the others have been waited for; what is known of the first."""
        end_s = math.inf
        while True:
            for answer in self.slots.answers(_LOOK_S):
                if not isinstance(answer.value, WorkerFacts):
                    self._warnings.append(self.on_loss(answer))
            ready = [slot.facts for slot in self.slots.living if slot.facts is not None]
            if ready and end_s == math.inf:
                end_s = time.monotonic() + patience_s
            if ready and (len(ready) == len(self.slots.living) or time.monotonic() >= end_s):
                return ready[0]


class _Session:
    """One job, from its first problem to its last."""

    def __init__(self, crew: RayCrew, job: Job) -> None:
        self._crew = crew
        self._slots = crew.slots
        self._job = job
        self._books = Assignments(job.problems, job.earlier, job.config.token_budget)
        self._start_s = time.monotonic()
        self._end_s = self._start_s + job.budget_s

    def run(self) -> RunOutcome:
        for slot in self._slots.living:
            if slot.facts is not None:
                self._begin(slot)
        over_s: float | None = None  # when workers were asked to hand in
        while self._books.left or self._is_anybody_working():
            now_s = time.monotonic()
            if over_s is None and (self._crew.stop_requested or now_s >= self._end_s or not self._books.left):
                over_s = now_s
            if over_s is not None and (now_s - over_s > _GRACE_S or not self._is_anybody_working()):
                break
            for answer in self._slots.answers(_LOOK_S):
                self._take(answer)
            self._show()
        interrupted = self._crew.stop_requested
        self._finish_rest(interrupted)
        self._show()
        stats = {"num_tokens": float(self._books.num_tokens), "seconds": time.monotonic() - self._start_s}
        return RunOutcome(self._reason(), stats)

    def _take(self, answer: Answer) -> None:
        slot = answer.slot
        if answer.loss is not None or answer.refusal is not None:
            self._lose(answer)
        elif isinstance(answer.value, WorkerFacts):
            self._begin(slot)
        elif isinstance(answer.value, Report):
            self._take_report(slot, answer.value)
        else:
            self._order(slot)

    def _take_report(self, slot: Slot, report: Report) -> None:
        if events := self._books.take(slot.name, report):
            self._job.sink.append_many(events)
        for message in report.warnings:
            self._warn(f"{slot}: {message}")
        self._crew.note_guesses(slot, report.guesses)
        if report.failure is not None:
            self._lose(Answer(slot, loss=f"failed: {report.failure}"))
        elif report.outcome is not None:
            slot.is_working = False
            self._books.remove(slot.name)
        else:
            self._order(slot)

    def _begin(self, slot: Slot) -> None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0 or self._crew.stop_requested or not self._books.left:
            return
        self._books.add(slot.name)
        self._slots.begin(slot, Beginning(self._job.config, left_s, self._at_s()))

    def _order(self, slot: Slot) -> None:
        self._slots.exchange(slot, self._books.orders(slot.name, stop=self._crew.stop_requested))

    def _lose(self, answer: Answer) -> None:
        num = self._books.remove(answer.slot.name) if answer.slot.is_working else 0
        self._warn(self._crew.on_loss(answer, num))

    def _warn(self, message: str) -> None:
        self._crew.tell(message)
        self._job.sink.append(TraceEvent("warning", self._at_s(), {"message": message}, wall_time=time.time()))

    def _is_anybody_working(self) -> bool:
        return any(slot.is_working for slot in self._slots.living)

    def _at_s(self) -> float:
        return self._job.offset_s + time.monotonic() - self._start_s

    def _reason(self) -> str:
        if not any(map(is_cut_short, self._books.records.values())):
            return COMPLETE
        return INTERRUPTED if self._crew.stop_requested else BUDGET

    def _show(self) -> None:
        now_s = time.monotonic()
        rows = tuple(map(self._row, self._books.records))
        left_s, generating_s = max(0.0, self._end_s - now_s), now_s - self._start_s
        self._job.show(RunProgress(rows, self._at_s(), left_s, self._books.num_tokens, generating_s))

    def _row(self, problem_id: str) -> ProblemProgress:
        record = self._books.records[problem_id]
        if self._books.is_ended(problem_id) and record.selection is not None:
            return progress_of_done(problem_id, record.attempts, record.selection, record.stop_reason or "")
        return self._books.open.get(problem_id) or ProblemProgress(problem_id, "waiting")

    def _finish_rest(self, interrupted: bool) -> None:
        """End what no worker has ended."""
        if left := self._books.left:
            sink = _NotingSink(self._job, self._books)
            finish_here(self._job.config, left, self._books.records, sink, self._at_s(), interrupted=interrupted)


class _NotingSink:
    """The store, and the books beside it."""

    def __init__(self, job: Job, books: Assignments) -> None:
        self._job = job
        self._books = books

    def append(self, event: TraceEvent) -> None:
        self._job.sink.append(event)
        self._books.note([event])
