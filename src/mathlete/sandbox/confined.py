"""The process in which programs run: lays its fences, then runs one program, or the cells of a session one by one.

Shares its memory with foreign code, so that nothing it says is believed but of itself; who outlives whom, and what the
clock says, is the supervisor's (`sandbox.supervisor`) to know.

A session's process makes a copy of itself before each cell. The copy waits, stopped, until the cell has ended; when
the cell took its process down, the copy goes on in its place. Files are not copied: what a cell wrote to the working
directory (or to memory mapped as shared) stays.

Messages to the supervisor:
    {"layers": [...]}      the fences are laid; with the listener of the gate, where there is one
    {"started": true}      a program starts now
    {"copy": true}         from the copy: it waits
    {"ended": exit code}   a cell has ended and its output is flushed; the session can go on
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
import warnings
from typing import NoReturn

from mathlete.sandbox import isolation, program
from mathlete.sandbox.wire import Packet, Wire

NUM_DESCRIPTORS = 3  # with a program: its source, its stdout, its stderr
_CUT_OFF = "the session lost its connection by this program, and with it what the program defined\n"


def become_program(wire: Wire, fence: isolation.Fence, entered: list[str], *, keeps_state: bool) -> NoReturn:
    """Lay the fences and run what is asked for; for a freshly forked process with a single thread.

    Args:
        wire: to the supervisor.
        fence: what programs may have.
        entered: what `isolation.enter_namespaces` returned.
        keeps_state: programs are the cells of a session; otherwise there is one, which ends with the process.
    """
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _connect_streams(os.open(os.devnull, os.O_RDWR), 1, 2)
        _forget_the_house(fence.work_dir)
        layers, listener = isolation.confine(fence, entered)
        wire.send({"layers": layers}, [] if listener is None else [listener])
        _close_all_but(wire.fileno())
        snapshots = keeps_state and listener is not None and "pidns" in entered
        process = _Process(wire, snapshots)
    except BaseException:
        wire.send({"failed": traceback.format_exc()})
        os._exit(1)
    try:
        if keeps_state:
            process.serve()
        process.run_only()
    finally:
        os._exit(1)


class _Process:
    """What the process knows between programs."""

    def __init__(self, wire: Wire, snapshots: bool) -> None:
        self._wire = wire
        self._wire_id = _identity(wire.fileno())
        self._snapshots = snapshots
        self._copy = 0
        self._module = program.new_main()

    def run_only(self) -> NoReturn:
        """Run one program to its end, exit hooks included, out of reach of the supervisor's wire."""
        packet = self._receive()
        source, _ = self._take(packet)
        isolation.limit_processor_time(packet.message["wall_s"])
        self._wire.send({"started": True})
        self._wire.close()
        os._exit(program.run(source, program.open_standard_streams(), self._module))

    def serve(self) -> None:
        """Run cells until the end of the wire, or of this process."""
        while True:
            packet = self._receive()
            if self._snapshots and self._is_copy():
                for descriptor in packet.descriptors:
                    os.close(descriptor)
                self._wire.send({"copy": True})
                continue
            source, number = self._take(packet)
            self._wire.send({"started": True})
            ending = program.run_cell(source, number, program.open_standard_streams(), self._module)
            if ending.out_of_memory:  # what filled it up would stay
                os._exit(ending.exit_code)
            if _identity(self._wire.fileno()) != self._wire_id:
                os.write(2, _CUT_OFF.encode())
                os._exit(1)
            _connect_streams(os.open(os.devnull, os.O_RDWR), 1, 2)
            self._wire.send({"ended": ending.exit_code})

    def _receive(self) -> Packet:
        packet = self._wire.receive()
        if packet is None:
            os._exit(0)
        return packet

    def _take(self, packet: Packet) -> tuple[str, int]:
        """Connect the streams of a program and read its source and number."""
        source, out, err = packet.descriptors
        with open(source, "rb") as file:
            text = file.read().decode("utf-8", "surrogatepass")
        _connect_streams(out, 1)
        _connect_streams(err, 2)
        return text, int(packet.message["number"])

    def _is_copy(self) -> bool:
        """Fork. The copy draws the same random numbers as the original would have."""
        if self._copy:
            _reap(self._copy)
        noise = random.getstate()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which do not go on in a copy
            try:
                self._copy = os.fork()
            except OSError:  # no room for another process: then this cell puts the session at risk
                self._copy = 0
                return False
        if self._copy == 0:
            random.setstate(noise)
            return True
        return False


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # a program of this session has done so


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Which socket a descriptor is; None for one that is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect_streams(source: int, *targets: int) -> None:
    """Have descriptors mean what `source` means, and close that one."""
    for target in targets:
        os.dup2(source, target)
    if source not in targets:
        os.close(source)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(max(3, kept + 1), 1 << 16)


def _forget_the_house(work_dir: str) -> None:
    """Leave the program an environment and an import path in which nothing tells of us."""
    os.environ.update(HOME=work_dir, TMPDIR=work_dir)
    os.environ.pop("LD_LIBRARY_PATH", None)  # the zygote needed it
    for name in [name for name in sys.modules if name.partition(".")[0] == "mathlete"]:
        del sys.modules[name]
    importable = isolation.importable_directories()
    sys.path[:] = [path for path in sys.path if any(path.startswith(directory) for directory in importable)]
    if "numpy.random" in sys.modules:  # `random` reseeds itself after a fork, numpy does not
        sys.modules["numpy.random"].seed()
