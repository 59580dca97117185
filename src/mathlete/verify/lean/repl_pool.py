"""`ReplPool`: several Lean REPLs that keep their imports loaded between checks.

Knows processes, environments of the REPL, and when one is to be replaced. Importing Mathlib takes seconds to minutes
and is done once a process; every check builds on that environment. The REPL can pickle environments to disk, but its
authors say that scoped notation does not survive it, and statements use such notation: each process imports by itself.
A process is also replaced after `ReplConfig.max_checks`, because the REPL keeps every environment it ever made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.verify.lean.backend import LeanRun
from mathlete.verify.lean.repl_process import ReplFailed, ReplProcess
from mathlete.verify.lean.script import CheckScript, LeanReply, read_reply


@dataclass(frozen=True, slots=True)
class ReplConfig:
    """How REPLs are run.

    Attributes:
        command: that starts one, such as ("lake", "env", ".../repl").
        directory: the Lean project in which it is started; None for the current directory.
        num_processes: at most; each takes several GiB with Mathlib loaded.
        check_s: seconds for the three commands of a check together.
        import_s: seconds for the imports of a new process.
        memory_bytes: resident memory of one process, at most.
        max_checks: after which a process is replaced.
    """

    command: tuple[str, ...]
    directory: Path | None = None
    num_processes: int = 1
    check_s: float = 60.0
    import_s: float = 300.0
    memory_bytes: int = 9 << 30
    max_checks: int = 64

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that cannot be used."""
        if not self.command:
            raise ValueError("ReplConfig.command must not be empty")
        for name in ("num_processes", "check_s", "import_s", "memory_bytes", "max_checks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ReplConfig.{name} must be > 0")


class _Worker:
    """A process, the environments behind its imports, and how many checks it has made."""

    def __init__(self, process: ReplProcess) -> None:
        self.process = process
        self.environments: dict[tuple[str, str], int] = {}
        self.num_checks = 0


class ReplPool:
    """A `LeanBackend` over local processes. A run that fails costs its process and nothing else."""

    def __init__(self, config: ReplConfig) -> None:
        """Set up without starting anything."""
        self._config = config
        self._slots = threading.BoundedSemaphore(config.num_processes)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._is_closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the REPLs that run."""
        with self._lock:
            return tuple(worker.process.pid for worker in self._all)

    def run(self, script: CheckScript) -> LeanRun:
        """Run a script on a process that is free, or wait for one."""
        with self._slots:
            try:
                worker = self._take(script)
            except ReplFailed as failed:
                return LeanRun((), failed.kind, str(failed))
            replies: list[LeanReply] = []
            try:
                self._run_on(worker, script, replies)
            except ReplFailed as failed:
                self._discard(worker)
                return LeanRun(tuple(replies), failed.kind, str(failed))
            except InputError as error:
                self._discard(worker)
                return LeanRun(tuple(replies), "crash", str(error))
            self._give_back(worker)
            return LeanRun(tuple(replies))

    def close(self) -> None:
        """Kill all processes. Safe to call twice; what runs in another thread fails as "crash"."""
        with self._lock:
            self._is_closed = True
            idle, busy = self._idle, self._all.difference(self._idle)
            self._idle, self._all = [], set()
        for worker in idle:
            worker.process.kill()
        for worker in busy:
            worker.process.end()  # whoever waits for it notices, and clears up

    def _run_on(self, worker: _Worker, script: CheckScript, replies: list[LeanReply]) -> None:
        """Append the reply to each command, up to the first with errors."""
        env = self._prepared(worker, script)
        worker.num_checks += 1
        deadline = time.monotonic() + self._config.check_s
        for command in script.commands:
            reply = read_reply(worker.process.ask(_command(command, env), max(0.0, deadline - time.monotonic())))
            replies.append(reply)
            if reply.errors:
                return
            env = reply.env

    def _prepared(self, worker: _Worker, script: CheckScript) -> int | None:
        """The environment behind imports and preamble, made once a process."""
        env: int | None = None
        for key in ((script.imports, ""), (script.imports, script.preamble)):
            command = key[1] or key[0]
            if not command:
                continue
            if key not in worker.environments:
                reply = read_reply(worker.process.ask(_command(command, env), self._config.import_s))
                if reply.errors or reply.env is None:
                    raise ReplFailed("crash", f"Lean does not run {command!r}: {'; '.join(reply.errors)}"[:500])
                worker.environments[key] = reply.env
            env = worker.environments[key]
        return env

    def _take(self, script: CheckScript) -> _Worker:
        """A process of one's own: one that has these imports, another, or a new one."""
        with self._lock:
            if self._is_closed:
                raise ReplFailed("crash", "the pool is closed")
            ready = [worker for worker in self._idle if (script.imports, "") in worker.environments]
            if ready or self._idle:
                worker = (ready or self._idle)[-1]
                self._idle.remove(worker)
                return worker
        worker = _Worker(ReplProcess(self._config.command, self._config.directory, self._config.memory_bytes))
        with self._lock:
            if not self._is_closed:
                self._all.add(worker)
                return worker
        worker.process.kill()
        raise ReplFailed("crash", "the pool is closed")

    def _give_back(self, worker: _Worker) -> None:
        if worker.num_checks >= self._config.max_checks:
            self._discard(worker)
            return
        with self._lock:
            is_ours = worker in self._all  # else the pool was closed meanwhile
            if is_ours:
                self._idle.append(worker)
        if not is_ours:
            worker.process.kill()

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.process.kill()


def _command(text: str, env: int | None) -> Mapping[str, object]:
    return {"cmd": text} if env is None else {"cmd": text, "env": env}
