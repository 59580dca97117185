"""Whatever is killed, and whenever: every program gets one result, and a session that lost its state says so."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from sandbox_probe import need

from mathlete.core.code import CodeLimits, ToolResult
from mathlete.sandbox import launch
from mathlete.sandbox.pool import SandboxPool

Target = Literal["zygote", "supervisor", "process", "copy"]
ROLES: tuple[Target, ...] = ("zygote", "supervisor", "process", "copy")
SESSIONS = "abcdef"
LIMITS = CodeLimits(wall_s=20)
COUNT = "n = globals().get('n', 0) + 1\nprint(n)\nimport time\ntime.sleep({})"


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """A word in the command line of every process of the pool that these tests shake."""
    word = f"ledger{os.getpid()}x{random.randrange(1 << 40)}"
    with pytest.MonkeyPatch.context() as patch:
        # Without the large libraries a process is forked, and a zygote replaced, ten times faster.
        boot = launch._BOOT.replace("zygote.main", "zygote._PRELOADED_IF_INSTALLED = (); zygote.main")
        patch.setattr(launch, "_BOOT", f"{boot}  # {word}")
        yield word


@pytest.fixture(scope="module")
def pool(mark: str) -> Iterator[SandboxPool]:
    num_fds = len(os.listdir("/proc/self/fd"))
    with SandboxPool(num_workers=2) as shaken:
        need(shaken, "gate", "pidns")
        yield shaken
        room = shaken._room.name
    assert not os.path.exists(room)
    assert len(os.listdir("/proc/self/fd")) == num_fds
    give_up_s = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert left == []


def marked(mark: str) -> list[int]:
    """Processes whose command line has the mark."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and mark.encode() in Path("/proc", entry, "cmdline").read_bytes():
                found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def in_role(pool: SandboxPool, mark: str, target: Target) -> list[int]:
    """Processes that are a pool's zygote, supervisors, processes of sessions, or copies of these."""
    zygote = [] if pool._zygote is None else [pool._zygote.pid]
    if target == "zygote":
        return zygote
    generation = [child for parent in zygote for child in _children(parent)]
    if not generation:  # the sessions of a dead zygote live on
        family = set(marked(mark))
        generation = [
            pid for pid in family - set(zygote) if family & set(_children(pid)) and _parent(pid) not in family
        ]
    for _ in range(ROLES.index(target) - 1):
        generation = [child for parent in generation for child in _children(parent)]
    return generation


def _parent(pid: int) -> int:
    try:
        return int(Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _children(pid: int) -> list[int]:
    try:
        tasks = [Path(f"/proc/{pid}/task", task, "children") for task in os.listdir(f"/proc/{pid}/task")]
        return [int(word) for task in tasks for word in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass
class Ledger:
    """What each session was asked, and what came of it.

    Attributes:
        pool: that is shaken.
        open: programs without a result, and their sessions.
        last: the last count that each session has told, 0 for one that had to start afresh.
        num_told: results.
        num_restarts: results that said that state was lost.
        num_ok: results of programs that came to their end.
        prefix: of the names of its programs.
        num_asked: programs.
    """

    pool: SandboxPool
    open: dict[str, str] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    num_told: int = 0
    num_restarts: int = 0
    num_ok: int = 0
    prefix: str = ""
    num_asked: int = 0

    def ask(self, session: str, pause_s: float) -> None:
        self.num_asked += 1
        run_id = f"{self.prefix}{self.num_asked}"
        self.open[run_id] = session
        self.pool.submit(run_id, COUNT.format(pause_s), LIMITS, session=session)

    def listen(self) -> list[ToolResult]:
        """Take in results; each must be one that was asked for, and tell the count that follows the last."""
        results = []
        for done in self.pool.poll():
            session, result = self.open.pop(done.run_id), done.result
            self.num_told += 1
            if result.session_restarted:
                self.num_restarts += 1
                self.last[session] = 0
            if result.status == "ok":
                self.num_ok += 1
                assert result.stdout == f"{self.last.get(session, 0) + 1}\n", (session, result)
                self.last[session] = self.last.get(session, 0) + 1
                assert result.stderr == ""
                assert result.isolation == self.pool.describe_isolation()
            else:
                assert result.status == "killed" and result.stderr, result
            results.append(result)
        return results

    def wait(self, patience_s: float = 60) -> list[ToolResult]:
        results = []
        give_up_s = time.monotonic() + patience_s
        while self.open:
            assert time.monotonic() < give_up_s, f"lost: {self.open}"
            results += self.listen()
            time.sleep(0.002)
        return results


def wait_for_copy(pool: SandboxPool, mark: str) -> None:
    """Return soon after a cell has started."""
    give_up_s = time.monotonic() + 20
    while not in_role(pool, mark, "copy"):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    time.sleep(0.3)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_all(pool: SandboxPool, mark: str, *sessions: str) -> None:
    """End sessions and wait until nothing of them can be taken for another's."""
    for session in sessions:
        pool.end_session(session)
    give_up_s = time.monotonic() + 20
    while in_role(pool, mark, "supervisor"):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def kill_one(pool: SandboxPool, mark: str, target: Target, noise: random.Random) -> bool:
    found = [pid for pid in in_role(pool, mark, target) if not is_zombie(pid)]  # to kill the dead would be no fault
    if not found:
        return False
    try:
        os.kill(noise.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("target", "while_running", "statuses", "restarted"),
    [
        ("zygote", False, ["ok"], False),
        ("zygote", True, ["ok"], False),
        ("supervisor", False, [], True),
        ("supervisor", True, ["killed"], True),
        ("process", False, [], True),
        ("process", True, ["killed"], False),
        ("copy", True, ["ok"], False),
    ],
)
def test_one_kill(
    pool: SandboxPool, mark: str, target: Target, while_running: bool, statuses: list[str], restarted: bool
) -> None:
    ledger, noise = Ledger(pool, prefix=f"{target}{while_running}"), random.Random(1)
    for _ in range(2):
        ledger.ask("a", 0)
        ledger.wait()
    before = ledger.last["a"]
    if while_running:
        ledger.ask("a", 2)
        wait_for_copy(pool, mark)
    assert kill_one(pool, mark, target, noise)
    assert [result.status for result in ledger.wait()] == (statuses if while_running else [])
    ledger.ask("a", 0)
    (result,) = ledger.wait()
    assert (result.status, result.session_restarted) == ("ok", restarted)
    end_all(pool, mark, "a")
    assert result.stdout == ("1\n" if restarted else f"{before + 1 + (statuses == ['ok'] and while_running)}\n")


def test_copy_and_process_killed_together(pool: SandboxPool, mark: str) -> None:
    ledger, noise = Ledger(pool, prefix="both"), random.Random(1)
    ledger.ask("a", 2)
    wait_for_copy(pool, mark)
    assert kill_one(pool, mark, "copy", noise) and kill_one(pool, mark, "process", noise)
    assert [result.status for result in ledger.wait()] == ["killed"]
    ledger.ask("a", 0)
    assert [result.session_restarted for result in ledger.wait()] == [True]
    end_all(pool, mark, "a")


@pytest.mark.parametrize("num_faults", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_program_is_lost_under_random_faults(pool: SandboxPool, mark: str, num_faults: int) -> None:
    noise = random.Random(num_faults)
    targets: list[Target] = noise.choices(ROLES, [1, 15, 42, 42], k=num_faults)
    targets[num_faults // 2] = "zygote"
    ledger = Ledger(pool, prefix="random")
    give_up_s = time.monotonic() + 2 * num_faults
    for number, target in enumerate(targets):
        while True:
            for session in SESSIONS:
                if sum(asked == session for asked in ledger.open.values()) < 2:
                    ledger.ask(session, noise.choice([0, 0, 0.01, 0.05]))
            time.sleep(noise.random() * 0.02)
            ledger.listen()
            if kill_one(pool, mark, target, noise):
                break
            assert time.monotonic() < give_up_s, f"no {target} to be found"
        if number % 50 == 49:
            pool.end_session(SESSIONS[0])
            ledger.wait()  # its programs come back as killed
            ledger.last[SESSIONS[0]] = 0
    ledger.wait()
    assert ledger.num_told == ledger.num_asked
    assert ledger.num_restarts > 0 and ledger.num_ok > 0
    end_all(pool, mark, *SESSIONS)
