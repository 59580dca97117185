"""A process between the pool and the programs of one session: it forks them, keeps their clock, and judges on site.

The supervisor never runs foreign code. It is the first process of a session's namespace, with which everything in the
namespace ends, and which adopts a process whose parent has ended. A stand-alone program is a session of one cell that
keeps no state; it is the first process of its namespace itself, which spares a fork.

Messages from the pool, then its hanging up, at which the supervisor ends all and leaves:
    {"fence": {...}, "keeps_state": bool}            first of all
    {"number", "wall_s", "memory_bytes"}             run a program; with its source, stdout, stderr
    {"end": true}                                    kill the program that runs
Messages to the pool:
    {"layers": [...]}                                these fences are laid
    {"failed": "traceback"}                          they could not be
    {"started": true}                                the program starts now
    {"exit_code", "reason", "elapsed_s", "max_rss_bytes", "memory_bytes", "keeps", "goes_on"}    it has ended
where exit_code is -signal for a program that was killed, reason says why the supervisor killed it ("timeout",
"memory", "threads", "files", or null), memory_bytes is what the session holds now, keeps says whether it has what the
program defined, and goes_on whether it can take another.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from mathlete.sandbox import confined, disk_usage, isolation, kernel, process_table, processes, seccomp
from mathlete.sandbox.gate import Gate
from mathlete.sandbox.processes import Process
from mathlete.sandbox.wire import Packet, Wire

Reason = Literal["timeout", "memory", "threads", "files"]

PATIENCE_S = 20.0  # for the session's process to start a program, on a machine that is short of everything
_WATCH_INTERVAL_S = 0.1
_BLIND_INTERVAL_S = 0.01  # where the kernel does not tell when a process ends


@dataclass(slots=True)
class _Cell:
    """A program that was asked for.

    Attributes:
        wall_s: its seconds.
        memory_bytes: what it and all it started may hold together.
        deadline_s: reading of the monotonic clock at which it must have started, then: ended.
        started_s: when it started, or None.
        elapsed_s: its seconds, once it has ended.
        exit_code: with which it ended, or None while it runs.
        unwanted: the pool wants it killed; before it starts that would cost the session.
        killed: it was.
        reason: why it was killed, where the pool does not know.
        has_copy: whether its process was allowed to make a copy and did.
        max_rss_bytes: of its process, if that ended.
    """

    wall_s: float
    memory_bytes: int
    deadline_s: float
    started_s: float | None = None
    elapsed_s: float = 0.0
    exit_code: int | None = None
    unwanted: bool = False
    killed: bool = False
    reason: Reason | None = None
    has_copy: bool = False
    max_rss_bytes: int = 0


def supervise(link_fd: int) -> NoReturn:
    """Serve the session whose pool is at the other end of `link_fd`; for a freshly forked process, one thread."""
    link = Wire.adopt(link_fd, max_descriptors=confined.NUM_DESCRIPTORS)
    try:
        for number, action in ((signal.SIGCHLD, signal.SIG_DFL), (signal.SIGINT, signal.SIG_IGN)):
            signal.signal(number, action)
        if (first := link.receive()) is None:
            os._exit(0)  # the pool has changed its mind
        terms = first.message["fence"]
        fence = isolation.Fence(**{**terms, "without": frozenset(terms["without"])})
        entered = isolation.enter_namespaces(fence)
        keeps_state = first.message["keeps_state"]
        if keeps_state and "pidns" in entered:
            if os.fork():
                os._exit(0)  # the zygote reaps the other
        else:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        Supervisor(link, fence, entered, keeps_state=keeps_state).serve()
    except BaseException:
        _tell(link, {"failed": traceback.format_exc()})
        os._exit(1)


def _tell(link: Wire, message: dict[str, Any]) -> None:
    try:
        link.send(message)
    except OSError:
        return  # the pool is gone, as its hanging up will say


class Supervisor:
    """The processes of one session, seen from above."""

    def __init__(self, link: Wire, fence: isolation.Fence, entered: list[str], *, keeps_state: bool) -> None:
        """Fork the session's process.

        Args:
            link: to the pool.
            fence: what programs may have.
            entered: the namespaces in force.
            keeps_state: there may be further programs, which see what earlier ones defined.
        """
        self._link = link
        self._fence = fence
        self._has_namespace = "pidns" in entered
        self._is_inside = keeps_state and self._has_namespace  # only there a copy outlives its parent
        ours, theirs = Wire.pair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            link.close()
            wire = Wire(theirs, max_descriptors=confined.NUM_DESCRIPTORS)
            confined.become_program(wire, fence, entered, keeps_state=keeps_state)
        theirs.close()
        self._wire = Wire(ours, asks_sender=True, max_descriptors=1)
        self._process: Process | None = Process.of(pid, translated=self._is_inside)
        self._copy: Process | None = None
        self._gate: Gate | None = None
        self._cell: _Cell | None = None
        self._base_bytes = 0
        self._hears = True  # a program that stands alone closes its end of the wire
        self._in_memory = "tmpfs" in entered
        self._next_watch_s = 0.0

    def serve(self) -> NoReturn:
        """Do what the pool asks until it hangs up or nothing can go on."""
        self._hear_layers()
        while True:
            ready = self._wait()
            if self._gate is not None and self._gate.fileno() in ready:
                self._gate.answer()
            if self._wire.fileno() in ready:
                self._hear_process()
            if self._process is not None and processes.has_ended(self._process.pid):
                self._bury()
            if self._link.fileno() in ready:
                self._hear_pool()
            self._watch()
            self._settle()

    def _hear_layers(self) -> None:
        packet = self._wire.receive()
        if packet is None:  # it was killed while laying its fences, which says nothing against them
            self._leave()
        if "layers" not in packet.message:
            self._leave(packet.message)
        if packet.descriptors:
            self._gate = Gate(packet.descriptors[0], seccomp.clone_call())
        assert self._process is not None
        self._serve_as(self._process)
        self._wire.max_descriptors = 0
        self._base_bytes = process_table.own_memory_bytes(self._process.number)
        _tell(self._link, packet.message)

    def _serve_as(self, process: Process) -> None:
        self._process = process
        self._hears = True  # an empty packet reads as the end of the wire, and the one before may have sent it
        if self._gate is not None:
            # Its number in its own namespace, which is where the kernel's question comes from.
            self._gate.may_signal = 1 if self._has_namespace and not self._is_inside else process.pid

    def _wait(self) -> set[int]:
        """Descriptors with news; empty when it is time to look at the clock."""
        poller = select.poll()
        sources: list[Wire | Gate] = [self._link, self._wire] if self._hears else [self._link]
        if self._gate is not None and self._process is not None:
            sources.append(self._gate)
        for source in sources:
            poller.register(source.fileno(), select.POLLIN)
        timeout_s = None
        if self._process is not None and self._process.fd is not None:
            poller.register(self._process.fd, select.POLLIN)
        elif self._process is not None:
            timeout_s = _BLIND_INTERVAL_S
        if self._cell is not None:
            left_s = max(0.0, self._cell.deadline_s - time.monotonic())
            timeout_s = min(left_s, _WATCH_INTERVAL_S if timeout_s is None else timeout_s)
        return {fd for fd, _ in poller.poll(None if timeout_s is None else 1000 * timeout_s + 1)}

    def _hear_pool(self) -> None:
        packet = self._link.receive()
        if packet is None:
            self._leave()
        elif "wall_s" in packet.message:
            self._begin(packet)
        elif "end" in packet.message and self._cell is not None:
            self._cell.unwanted = True

    def _begin(self, packet: Packet) -> None:
        assert self._process is not None and self._cell is None
        terms = packet.message
        self._cell = _Cell(terms["wall_s"], terms["memory_bytes"], time.monotonic() + PATIENCE_S)
        if self._gate is not None and self._is_inside:
            self._gate.may_fork = self._process.pid
        os.kill(self._process.pid, signal.SIGCONT)
        try:
            self._wire.send(terms, packet.descriptors)
        except OSError:  # it has died; `_bury` will tell
            pass
        for descriptor in packet.descriptors:
            os.close(descriptor)

    def _hear_process(self) -> None:
        """Take a message of the session's process or its copy; what was said out of turn says nothing."""
        packet = self._wire.receive()
        self._hears = packet is not None
        if packet is None or self._cell is None:
            return
        cell, message = self._cell, packet.message
        if self._process is None or packet.sender != self._process.pid:
            if self._copy is None and self._has_forked(cell) and "copy" in message:
                self._copy = Process.of(packet.sender, translated=True)
                os.kill(packet.sender, signal.SIGSTOP)
        elif "copy" in message and cell.started_s is None:
            self._leave()  # it takes itself for its copy: a program has it that its forks do nothing
        elif "started" in message and cell.started_s is None:
            cell.has_copy = self._has_forked(cell)
            cell.started_s = time.monotonic()
            cell.deadline_s = cell.started_s + cell.wall_s
            if self._gate is not None:
                self._gate.may_fork = 0
            _tell(self._link, {"started": True})
        elif isinstance(message.get("ended"), int) and cell.started_s is not None and cell.exit_code is None:
            os.kill(packet.sender, signal.SIGSTOP)  # threads that it left go on with the next cell only
            self._judge_size()
            if not cell.killed:
                self._note_end(message["ended"] & 0xFF)

    def _has_forked(self, cell: _Cell) -> bool:
        """Whether the session's process has used its permission to make a copy."""
        if cell.started_s is not None or self._gate is None or not self._is_inside:
            return cell.has_copy
        return self._gate.may_fork == 0

    def _note_end(self, exit_code: int) -> None:
        """The program is over; from now on the clock runs for the copy to show up."""
        assert self._cell is not None
        now_s = time.monotonic()
        self._cell.exit_code = exit_code
        self._cell.elapsed_s = now_s - (now_s if self._cell.started_s is None else self._cell.started_s)
        self._cell.deadline_s = now_s + processes.COPY_PATIENCE_S

    def _bury(self) -> None:
        """Reap the session's process, after hearing what it said last."""
        while self._hears and processes.is_ready(self._wire.fileno()):
            self._hear_process()
        process, self._process = self._process, None
        assert process is not None
        if not self._has_namespace:
            processes.end_group(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.close()
        if not self._has_namespace:
            processes.end_orphans()
        cell = self._cell
        if cell is None or cell.started_s is None:
            self._leave()  # nothing ran: the pool starts what it asked for in a fresh session
        cell.max_rss_bytes = usage.ru_maxrss * 1024
        exit_code = os.waitstatus_to_exitcode(status)
        if cell.exit_code is None:
            self._note_end(exit_code)
            if not cell.killed and self._files_exceed():  # it was over before it was next looked at
                cell.reason = "files"
        cell.exit_code = exit_code  # if a thread of it took the process down after its end, it lost what it defined

    def _kill(self, reason: Reason | None = None) -> None:
        """End the program that runs."""
        assert self._cell is not None and self._process is not None
        self._cell.reason = reason
        self._cell.killed = True
        os.kill(self._process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        """Keep the ceilings that no limit of the kernel keeps: clock, threads, memory of all processes together."""
        cell, now_s = self._cell, time.monotonic()
        if cell is None or cell.exit_code is not None or self._process is None or cell.killed:
            return
        if cell.started_s is None:
            if now_s >= cell.deadline_s:
                self._leave()
        elif cell.unwanted:
            self._kill()
        elif now_s >= cell.deadline_s:
            self._kill("timeout")
        elif now_s >= self._next_watch_s:
            self._next_watch_s = now_s + _WATCH_INTERVAL_S
            self._judge_size()

    def _judge_size(self) -> None:
        assert self._cell is not None and self._process is not None
        if process_table.num_threads(self._process.number) > isolation.MAX_THREADS:
            self._kill("threads")
        elif self._held_bytes(self._process) > self._cell.memory_bytes:
            self._kill("memory")
        elif self._files_exceed():
            self._kill("files")

    def _files_exceed(self) -> bool:
        """Whether its files take more room than they may, where no file system keeps that ceiling."""
        fence = self._fence
        return not self._in_memory and disk_usage.exceeds(fence.work_dir, fence.directory_bytes, isolation.MAX_FILES)

    def _held_bytes(self, process: Process) -> int:
        """What the session holds beyond what it started with: its process, what that started, its files in memory."""
        numbers = [process.number]
        if self._gate is None:  # else there is but the copy, which shares its memory
            numbers += process_table.descendants(process.number)
        held = sum(max(0, process_table.own_memory_bytes(number) - self._base_bytes) for number in numbers)
        if self._in_memory:
            files = os.statvfs(self._fence.work_dir)
            held += (files.f_blocks - files.f_bfree) * files.f_frsize
        return held

    def _settle(self) -> None:
        """Report a program that is over, once it is known who goes on."""
        cell = self._cell
        if cell is None or cell.exit_code is None:
            return
        if cell.has_copy and self._copy is None and not self._copy_has_died():
            if time.monotonic() < cell.deadline_s:
                return
            self._give_up_process()  # two may listen to the same wire
        keeps = self._process is not None
        if self._process is None and self._copy is not None and self._copy.is_alive():
            self._serve_as(self._copy)
            self._copy = None
        self._dismiss_copy()
        goes_on = self._process is not None
        report = {
            "exit_code": cell.exit_code,
            "reason": cell.reason,
            "elapsed_s": cell.elapsed_s,
            "max_rss_bytes": cell.max_rss_bytes,
            "memory_bytes": self._held_bytes(self._process) if self._process is not None else 0,
            "keeps": keeps,
            "goes_on": goes_on,
        }
        self._cell = None
        _tell(self._link, report)
        if not goes_on:
            self._leave()

    def _copy_has_died(self) -> bool:
        """Whether a copy that has not said a word is certainly gone; nobody else is a child of its parent."""
        parent = process_table.own_number() if self._process is None else self._process.number
        return process_table.has_living_children(parent) is False

    def _give_up_process(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            os.waitpid(self._process.pid, 0)
            self._process = None

    def _dismiss_copy(self) -> None:
        """End a copy that is not needed; the session's process reaps it."""
        copy, self._copy = self._copy, None
        if copy is None:
            return
        copy.kill()
        copy.close()

    def _leave(self, message: dict[str, Any] | None = None) -> NoReturn:
        """End everything and this process."""
        if message is not None:
            _tell(self._link, message)
        # With the supervisor's end the kernel would do it too, but after the pool has seen the link end.
        if self._is_inside:
            processes.end_namespace()
        elif self._process is not None:
            if not self._has_namespace:
                processes.end_group(self._process.pid)
            self._give_up_process()
        if not self._has_namespace:
            processes.end_orphans()
        os._exit(0)
