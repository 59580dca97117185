"""What may go wrong in a rehearsal: planned from a seed, and done to processes that run.

Knows names, moments and how each fault is brought about from outside. Does not know scores or gateways: a rehearsal
asks when it is about to call.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mathlete.core.errors import InputError
from mathlete.kaggle.processes import catches, descendants

FaultName = Literal[
    "generator_killed", "sandbox_killed", "slow_gateway", "slow_start", "late_answer", "exception", "entrant_killed"
]
MEANINGS: dict[FaultName, str] = {
    "generator_killed": "the process that holds the engine is killed",
    "sandbox_killed": "a process of the sandbox, one that runs a program if there is one, is killed",
    "slow_gateway": "the gateway waits before it asks",
    "slow_start": "the server is started late",
    "late_answer": "the gateway gives up waiting for an answer, and asks again",
    "exception": "the engine raises an exception",
    "entrant_killed": "the entrant's server is killed, and started again",
}
_USUAL_NUMBER: dict[FaultName, int] = {"slow_gateway": 3}
_MAX_NUMBER = 1000

_ENGINE, _SANDBOX = "mathlete.generators.child_worker", "mathlete.sandbox"
_LOOK_S = 0.02
_SPREAD_PART = 0.8  # of the calls, over which many faults of a kind are spread


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault and its moment.

    Attributes:
        kind: what.
        call: number of the gateway's call, from 0, in which it happens.
        after_s: seconds after that call has begun; before it for the gateway's own.
        length_s: how long it takes, for what takes time; for a late answer, how long the gateway waits.
    """

    kind: FaultName
    call: int
    after_s: float = 0.0
    length_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DoneFault:
    """A fault that happened.

    Attributes:
        kind: what.
        wall_time: when, seconds since the epoch.
        call: number of the gateway's call.
        detail: what exactly, for a person.
    """

    kind: FaultName
    wall_time: float
    call: int
    detail: str


def parse_faults(text: str) -> dict[FaultName, int]:
    """How often each fault is wanted, from a list such as "generator_killed,sandbox_killed:10".

    Raises:
        InputError: a name that there is not, or a number that is none.
    """
    wanted: dict[FaultName, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = item.partition(":")
        kind = next((known for known in get_args(FaultName) if known == name), None)
        if kind is None:
            raise InputError(f"{name[:40]!r} is no fault; there are {', '.join(get_args(FaultName))}")
        if number and not (number.isdecimal() and 0 < int(number[:6]) <= _MAX_NUMBER):
            raise InputError(f"{item[:40]!r}: write a number from 1 to {_MAX_NUMBER} behind the colon")
        wanted[kind] = int(number) if number else _USUAL_NUMBER.get(kind, 1)
    return wanted


def plan_faults(wanted: dict[FaultName, int], seed: int, num_calls: int, clock_s: float) -> tuple[PlannedFault, ...]:
    """When each of them happens, in the order of calls. Pure.

    Args:
        wanted: how often each is wanted.
        seed: of the moments.
        num_calls: of the gateway: problems of the contest.
        clock_s: of the contest; lengths are in proportion to it.
    """
    rng = random.Random(f"faults/{seed}")
    even_s = clock_s / num_calls
    planned = []
    for kind, number in wanted.items():
        for place in range(number):
            # One of many is spread over the contest, so that no problem meets all of them.
            # The last calls may be over before anything is due.
            spread = int(place * _SPREAD_PART * num_calls / number)
            call = rng.randrange(1, num_calls - 1) if num_calls > 2 and number == 1 else spread
            planned.append(PlannedFault(kind, call, after_s=rng.uniform(0.02, 0.4) * even_s))
            if kind == "slow_gateway":
                planned[-1] = replace(planned[-1], after_s=0.0, length_s=rng.uniform(0.05, 0.3) * even_s)
            elif kind == "slow_start":
                planned[-1] = PlannedFault(kind, 0, length_s=min(60.0, 0.05 * clock_s))
            elif kind == "late_answer":
                planned[-1] = replace(planned[-1], after_s=0.0, length_s=rng.uniform(0.05, 0.3) * even_s)
    return tuple(sorted(planned, key=lambda fault: (fault.call, fault.after_s)))


class FaultInjector:
    """Brings planned faults about while a gateway plays. Told of each call before it is made; works in a thread.

    Attributes:
        done: what happened, in order.
    """

    def __init__(
        self, planned: Sequence[PlannedFault], entrant_pid: Callable[[], int | None], restart: Callable[[], None]
    ) -> None:
        """Do what is planned.

        Args:
            planned: which faults, and when.
            entrant_pid: process id of the entrant; None while there is none.
            restart: kills the entrant and starts it again.
        """
        self._left = list(planned)
        self._entrant_pid = entrant_pid
        self._restart = restart
        self._call, self._begun_s = -1, 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._killed: set[int] = set()  # which take a moment to be gone
        self.done: list[DoneFault] = []
        self._thread = threading.Thread(target=self._work, name="mathlete-faults", daemon=True)
        self._thread.start()

    def before_call(self, number: int) -> float | None:
        """Wait where the gateway is to be slow; the deadline of the call in seconds where it is to be impatient."""
        for fault in self._take(lambda item: item.kind == "slow_gateway" and item.call == number):
            self.note(fault, f"{fault.length_s:.1f} s")
            self._over.wait(fault.length_s)
        deadlines = []
        for fault in self._take(lambda item: item.kind == "late_answer" and item.call == number):
            self.note(fault, f"after {fault.length_s:.1f} s")
            deadlines.append(fault.length_s)
        with self._lock:
            self._call, self._begun_s = number, time.monotonic()
        return min(deadlines, default=None)

    def note(self, fault: PlannedFault, detail: str) -> None:
        """Remember that it happened."""
        self.done.append(DoneFault(fault.kind, time.time(), fault.call, detail))

    def close(self) -> tuple[PlannedFault, ...]:
        """End the thread; gives what was planned and did not happen, since the contest was over before."""
        self._over.set()
        self._thread.join()
        return tuple(self._left)

    def _take(self, wanted: Callable[[PlannedFault], bool]) -> list[PlannedFault]:
        with self._lock:
            taken = [fault for fault in self._left if wanted(fault)]
            self._left = [fault for fault in self._left if not wanted(fault)]
        return taken

    def _work(self) -> None:
        while not self._over.wait(_LOOK_S):
            for fault in self._take(self._is_due):
                if not self._bring_about(fault):  # nothing is there to be hit just now
                    with self._lock:
                        self._left.append(fault)

    def _is_due(self, fault: PlannedFault) -> bool:
        if fault.kind in ("slow_gateway", "late_answer", "slow_start"):
            return False
        return fault.call < self._call or (
            fault.call == self._call and time.monotonic() - self._begun_s >= fault.after_s
        )

    def _bring_about(self, fault: PlannedFault) -> bool:
        pid = self._victim(fault)
        if pid is None:
            return False
        if fault.kind == "entrant_killed":
            self._restart()
        else:
            try:
                os.kill(pid, signal.SIGUSR1 if fault.kind == "exception" else signal.SIGKILL)
                self._killed.add(pid)
            except ProcessLookupError:  # it ended in this moment; the next one is taken
                return False
        self.note(fault, f"process {pid}")
        return True

    def _victim(self, fault: PlannedFault) -> int | None:
        entrant, kind = self._entrant_pid(), fault.kind
        if entrant is None:
            return None
        if kind == "entrant_killed":
            return entrant
        if kind == "exception":  # one that has just been started would die of the signal
            return entrant if catches(entrant, signal.SIGUSR1) else None
        below = descendants(entrant)
        if kind == "generator_killed":
            return next((entry.pid for entry in below if _ENGINE in entry.command), None)
        # The first is the process that all others are forked from, taken where none that runs a program came in time;
        # the last ones run programs.
        running = [entry.pid for entry in below if _SANDBOX in entry.command]
        wanted = running if fault.call < self._call else running[1:]
        return next((pid for pid in reversed(wanted) if pid not in self._killed), None)


def tell_faults(done: Iterable[DoneFault]) -> str:
    """As "generator_killed, sandbox_killed x10"; empty for none."""
    counts: dict[str, int] = {}
    for fault in done:
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return ", ".join(f"{kind} x{number}" if number > 1 else kind for kind, number in counts.items())
