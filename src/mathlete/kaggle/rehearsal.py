"""A contest played at home: runs of an entrant in a process of its own, asked by a gateway, with what may go wrong.

Knows the order of things and what is kept of them. Does not know how a contest is solved, nor how it is shown
(`rehearsal_report`).
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from mathlete.core.record import RunRecord
from mathlete.core.trace import TraceEvent
from mathlete.kaggle.contest_run import Contest, write_results
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.entrant_launch import EntrantProcess, free_port
from mathlete.kaggle.entrant_process import encode_contest
from mathlete.kaggle.faults import DoneFault, FaultInjector, FaultName, PlannedFault, plan_faults
from mathlete.kaggle.gateway import (
    Call,
    Gateway,
    GatewayConfig,
    GatewayRun,
    write_outcome,
)
from mathlete.kaggle.protocol import STARTUP_S
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import fold_stored
from mathlete.lab.run_store import RunStore
from mathlete.lab.two_runs import right_ids, two_run_score

RESERVE_PART = 1 / 30  # of the clock that is not planned with: 17,400 s of 18,000 s
_BACK_S = 300.0  # for which a gateway waits for an entrant that was killed

Command = Callable[[Contest, int], Sequence[str]]
"""The command line of an entrant's process, from its contest and port."""


def entrant_command(contest: Contest, port: int) -> Sequence[str]:
    """The usual one."""
    return [sys.executable, "-P", "-m", "mathlete.kaggle.entrant_process", encode_contest(contest, port)]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is rehearsed.

    Attributes:
        contest: of each run, but for `run_id` and the seed; its `budget_s` is set from the clock.
        table: the problems, with labels where there are any.
        name: of the rehearsal; its runs are called after it.
        num_runs: that are played, one after the other.
        clock_s: of each run, from the start of the entrant's process; `RESERVE_PART` of it is not planned with.
        faults: how often each is brought about in each run.
        seed: of the first run, of its order and its faults; later ones have the next.
        command: starts an entrant.
    """

    contest: Contest
    table: ContestTable
    name: str
    num_runs: int = 2
    clock_s: float = 1200.0
    faults: dict[FaultName, int] = field(default_factory=dict)
    seed: int = 0
    command: Command = entrant_command

    @property
    def folder(self) -> Path:
        """Of what is kept of the rehearsal as a whole."""
        return self.contest.runs_dir / f"{self.name}-rehearsal"

    def run_contest(self, number: int) -> Contest:
        """What the entrant of a run, from 1, is told."""
        config = replace(
            self.contest.config,
            seed=self.contest.config.seed + number - 1,
            budget_s=self.clock_s * (1 - RESERVE_PART),
        )
        return replace(self.contest, config=config, num_problems=len(self.table), run_id=f"{self.name}-{number}")


@dataclass(frozen=True, slots=True)
class RehearsedRun:
    """How a run went.

    Attributes:
        number: from 1.
        run_id: of its folder.
        seed: of it.
        started_wall_time: of the entrant's process, seconds since the epoch.
        elapsed_s: from the start of the entrant's process to the last answer.
        is_in_time: whether that is within the clock.
        calls: of the gateway, in order; seconds since the start of the entrant's process.
        faults: that happened.
        not_done: faults that were planned and had no occasion.
        error: what ended the run at the gateway; None when all was answered.
        right: ids of the problems with the right answer.
        num_restarts: times the entrant was started again.
        losses: what should not have been lost and was; empty.
        warnings: of the run.
    """

    number: int
    run_id: str
    seed: int
    started_wall_time: float
    elapsed_s: float
    is_in_time: bool
    calls: tuple[Call, ...]
    faults: tuple[DoneFault, ...] = ()
    not_done: tuple[PlannedFault, ...] = ()
    error: str | None = None
    right: tuple[str, ...] = ()
    num_restarts: int = 0
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def answers(self) -> dict[str, int]:
        """What was handed in, by id."""
        return {call.id: call.answer for call in self.calls}


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """How a rehearsal went.

    Attributes:
        name: of it.
        clock_s: of each run.
        num_problems: of the file.
        golds: labels by id; empty where the file has none.
        runs: in order.
    """

    name: str
    clock_s: float
    num_problems: int
    golds: dict[str, str]
    runs: tuple[RehearsedRun, ...]

    @property
    def two_run_score(self) -> float | None:
        """1 point where two runs are right, 0.5 where one is; None without labels or with other than two runs."""
        if len(self.runs) != 2 or not self.golds:
            return None
        first, second = ({key: str(answer) for key, answer in run.answers.items()} for run in self.runs)
        return two_run_score(first, second, self.golds)


def new_name() -> str:
    """A name for a rehearsal: the time in UTC, and something that no other has."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def play_run(
    rehearsal: Rehearsal, number: int, on_call: Callable[[GatewayRun], None] = lambda run: None
) -> RehearsedRun:
    """Play one run from the start of its entrant to its report.

    Args:
        rehearsal: of which it is one.
        number: of the run, from 1.
        on_call: told of each answer.

    Raises:
        EngineError: the entrant ended by itself before it served.
        MathleteError: the run's folder cannot be read.
    """
    contest, port, seed = rehearsal.run_contest(number), free_port(), rehearsal.seed + number - 1
    planned = plan_faults(rehearsal.faults, seed, len(rehearsal.table), rehearsal.clock_s)
    late_starts = [fault for fault in planned if fault.kind == "slow_start"]
    wall_time = time.time()
    entrant = EntrantProcess(
        rehearsal.command(contest, port),
        rehearsal.folder / f"server-{number}.log",
        sum(fault.length_s for fault in late_starts),
    )
    injector = FaultInjector([item for item in planned if item.kind != "slow_start"], entrant.pid, entrant.restart)
    kinds = set(rehearsal.faults)
    config = GatewayConfig(
        ports=(port,),
        host="127.0.0.1",
        startup_s=STARTUP_S,
        lost_server_s=_BACK_S if "entrant_killed" in kinds else 0.0,
        asks_again="late_answer" in kinds,
        seed=seed,
    )
    gateway = Gateway(rehearsal.table, config, on_call=on_call, before_call=injector.before_call, on_wait=entrant.check)
    try:
        run = gateway.play()
    finally:
        not_done = injector.close()
        ended_wall_time = time.time()
        entrant.end()
    for fault in late_starts:
        injector.done.insert(0, DoneFault(fault.kind, wall_time, 0, f"{fault.length_s:.1f} s"))
    folder = rehearsal.folder / f"run-{number}"
    folder.mkdir(exist_ok=True)
    write_outcome(run, rehearsal.table, folder)
    record, losses = _settled(RunFolder(contest.runs_dir / str(contest.run_id)), rehearsal.table, run)
    late_s = entrant.started_wall_time - wall_time
    elapsed_s = ended_wall_time - entrant.started_wall_time
    calls = tuple(
        replace(call, asked_s=call.asked_s - late_s, answered_s=call.answered_s - late_s) for call in run.calls
    )
    right = right_ids({key: str(answer) for key, answer in run.answers.items()}, rehearsal.table.golds)
    return RehearsedRun(
        number=number,
        run_id=str(contest.run_id),
        seed=seed,
        started_wall_time=entrant.started_wall_time,
        elapsed_s=elapsed_s,
        is_in_time=elapsed_s <= rehearsal.clock_s,
        calls=calls,
        faults=tuple(injector.done),
        not_done=not_done,
        error=None if run.error is None else str(run.error),
        right=tuple(sorted(right)),
        num_restarts=entrant.num_restarts,
        losses=tuple(losses),
        warnings=record.warnings,
    )


def _settled(folder: RunFolder, table: ContestTable, run: GatewayRun) -> tuple[RunRecord, list[str]]:
    """The run's record with labels, its results written again with them, and what was lost of it."""
    with RunStore.open(folder.store_path) as store:
        record = fold_stored(store, store.events())
        at_s = record.elapsed_s
        store.append_many(
            TraceEvent("gold_revealed", at_s, {"gold": gold, "group": key}, key, wall_time=time.time())
            for key, gold in table.golds.items()
            if key in record.problems
        )
        record = fold_stored(store, store.events())
        num_finished = store.num_events("attempt_finished")
    write_results(record, folder)
    return record, what_was_lost(record, num_finished, table, run)


def what_was_lost(record: RunRecord, num_finished: int, table: ContestTable, run: GatewayRun) -> list[str]:
    """What a run must not lose whatever happens, and lost; a sentence each. Pure.

    Args:
        record: of the run.
        num_finished: ends of attempts that were recorded.
        table: the problems.
        run: what the gateway saw.
    """
    asked = [str(key) for key in table.columns["id"]]
    answered = [call.id for call in run.calls]
    lost = [f"{key} was answered {answered.count(key)} times" for key in asked if answered.count(key) != 1]
    for call in run.calls:
        item = record.problems.get(call.id)
        if item is None or item.selection is None:
            lost.append(f"{call.id}: its answer is not recorded")
        elif int(item.selection.answer) != call.answer:
            lost.append(f"{call.id}: {call.answer} was handed in, and {item.selection.answer} is recorded")
    kept = sum(len(item.attempts) for item in record.problems.values())
    if kept != num_finished:
        lost.append(f"{num_finished - kept} of {num_finished} finished attempts are not in the record")
    return lost
