"""Programs of one session share what they define; whatever one of them does, or dies of, costs itself at most."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import pytest
from sandbox_probe import children_of, named, need, processes_named, wait_for

from mathlete.core.code import CodeLimits, RunStatus, ToolResult
from mathlete.sandbox.pool import SandboxPool

LIMITS = CodeLimits(wall_s=20, memory_bytes=1 << 30)
_ids = itertools.count()


class Cells:
    """A session to which cells are given one by one."""

    def __init__(self, pool: SandboxPool) -> None:
        self.pool = pool
        self.name = f"session{next(_ids)}"

    def run(self, code: str, limits: CodeLimits = LIMITS) -> ToolResult:
        run_id = self.start(code, limits)
        return wait_for(self.pool, [run_id], patience_s=60)[run_id]

    def start(self, code: str, limits: CodeLimits = LIMITS) -> str:
        run_id = f"cell{next(_ids)}"
        self.pool.submit(run_id, code, limits, session=self.name)
        return run_id


@pytest.fixture
def cells(pool: SandboxPool) -> Iterator[Cells]:
    need(pool, "gate", "pidns")
    session = Cells(pool)
    yield session
    pool.end_session(session.name)


def said(result: ToolResult) -> tuple[str, str, str, bool]:
    return result.status, result.stdout, result.stderr, result.session_restarted


def test_cells_see_what_earlier_ones_defined(cells: Cells) -> None:
    assert said(cells.run("import math\nx = [1]\ndef f(n): return math.factorial(n)")) == ("ok", "", "", False)
    assert said(cells.run("x.append(f(5))\nx")) == ("ok", "[1, 120]\n", "", False)
    pickled = cells.run("class A: pass\nimport pickle\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)")
    assert said(pickled) == ("ok", "A\n", "", False)
    assert said(cells.run("open('notes', 'w').write('kept')\nNone"))[0] == "ok"
    assert said(cells.run("open('notes').read()"))[1] == "'kept'\n"
    assert cells.run("f(3)").isolation == cells.pool.describe_isolation()


def test_tracebacks_show_the_lines_of_every_cell(cells: Cells) -> None:
    cells.run("def invert(n):\n    return 1 / n")
    result = cells.run("invert(0)")
    assert result.status == "error"
    assert 'File "<cell 2>", line 1, in <module>\n    invert(0)' in result.stderr
    assert 'File "<cell 1>", line 2, in invert\n    return 1 / n' in result.stderr
    assert result.stderr.count("File ") == 2


FATAL = [
    ("while True: pass", "timeout"),
    ("import time\ntime.sleep(60)", "timeout"),
    ("import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
     "  except (OSError, ValueError): pass\nwhile True: time.sleep(1)", "timeout"),
    ("import os\nos._exit(0)", "error"),
    ("import os\nos._exit(7)", "error"),
    ("import os\nos.abort()", "error"),
    ("import ctypes\nctypes.string_at(0)", "error"),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed"),
    ("import os\nos.closerange(0, 200)", "error"),
    ("import os\nos.closerange(3, 200)", "error"),
    ("ballast = bytearray(1)\nwhile True: ballast = ballast + bytes(50_000_000)", "memory"),
    ("while True: print('x' * 1000)", "output_limit"),
    ("import os\nos.write(2, bytes(10**6))", "output_limit"),
    ("import threading\nthreading.stack_size(32768)\n"
     "while True: threading.Thread(target=threading.Event().wait, daemon=True).start()", "killed"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status"), FATAL)
def test_cell_that_does_not_end_well_costs_itself(cells: Cells, code: str, status: RunStatus) -> None:
    assert cells.run("import random\nkept = list(range(1000))\nrandom.seed(5)").status == "ok"
    limits = CodeLimits(wall_s=0.5 if status == "timeout" else 20, memory_bytes=1 << 30)
    result = cells.run("kept.append('spoilt')\nlost = 1\n" + code, limits)
    assert result.status in {status, *(("memory", "timeout", "error") if status == "killed" else ())}
    assert not result.session_restarted
    after = cells.run("print(kept == list(range(1000)), 'lost' in globals(), 'ballast' in globals(), random.random())")
    assert said(after) == ("ok", "True False False 0.6229016948897019\n", "", False)


@pytest.mark.parametrize("code", ["import sys\nsys.exit(3)", "1 / 0", "raise KeyboardInterrupt", "def f(: pass"])
def test_cell_that_raises_keeps_what_it_had_defined(cells: Cells, code: str) -> None:
    cells.run("x = 1")
    assert cells.run(f"x = 2\nexec({code!r})").status == "error"
    assert said(cells.run("x")) == ("ok", "2\n", "", False)


def test_failures_in_a_row(cells: Cells) -> None:
    cells.run("x = 0")
    for i in range(5):
        assert cells.run("x = -1\nimport os\nos._exit(1)").status == "error"
        assert said(cells.run("x += 1\nprint(x)")) == ("ok", f"{i + 1}\n", "", False)


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("import sys\nsys.stdout.close()", ""),
        ("import sys\nsys.stdout = sys.stderr = None", ""),
        ("import os\nos.dup2(2, 1)\nprint('moved')", ""),
        ("print('half a line', end='')", "half a line"),
        ("import sys\nsys.stdout.flush = None\nprint('flushed')", "flushed\n"),
    ],
)
def test_games_with_the_streams_end_with_the_cell(cells: Cells, code: str, stdout: str) -> None:
    assert cells.run("x = 1\n" + code).stdout == stdout
    assert said(cells.run("print('back', x)")) == ("ok", "back 1\n", "", False)


def test_threads_rest_between_cells(cells: Cells) -> None:
    code = (
        "import threading, time\nn = 0\ndef count():\n    global n\n    while True: n += 1; time.sleep(0.001)\n"
        "threading.Thread(target=count, daemon=True).start()\ntime.sleep(0.1)\nprint(n)"
    )
    before = int(cells.run(code).stdout)
    time.sleep(1)
    after = int(cells.run("print(n)").stdout)
    assert 0 < before <= after < before + 500
    assert int(cells.run("time.sleep(0.2)\nprint(n)").stdout) > after


def test_cells_cannot_fork_signal_or_limit_anybody(cells: Cells) -> None:
    code = (
        "import os, resource\npid = os.getpid()\n"
        "def denied(call, *args):\n    try: call(*args)\n    except PermissionError: return True\n    return False\n"
        "others = [n for n in range(1, 40) if n != pid]\n"
        "print(denied(os.fork), all(denied(os.kill, n, 9) for n in [*others, 0, -1]), \n"
        "      all(denied(resource.prlimit, n, resource.RLIMIT_CPU, (0, 0)) for n in others))"
    )
    for _ in range(2):
        assert said(cells.run(code)) == ("ok", "True True True\n", "", False)


def test_forged_messages_harm_their_own_session_at_most(cells: Cells) -> None:
    forge = (
        "import os, time\nfor fd in range(3, 128):\n    for text in (b'{\"copy\": true}', b'junk', b'[1]', b'{}',\n"
        '        b\'{"exit_code": 0, "goes_on": true}\', b\'{"layers": ["none"]}\', b\'{"started": true}\', END):\n'
        "        try: os.write(fd, text)\n        except OSError: pass\n"
    )
    result = cells.run('x = 1\nEND = b\'{"ended": "x"}\'\n' + forge + "raise ValueError('mine')")
    assert (result.status, result.isolation) == ("error", cells.pool.describe_isolation())
    assert said(cells.run("x"))[:2] == ("ok", "1\n")
    assert cells.run("END = b'{\"ended\": 0}'\n" + forge + "while True: pass").status in ("ok", "timeout")
    other = Cells(cells.pool)
    assert said(other.run("print('well')")) == ("ok", "well\n", "", False)
    cells.pool.end_session(other.name)


def test_cells_of_a_session_run_in_order(cells: Cells) -> None:
    ids = [cells.start(f"log = globals().get('log', []) + [{i}]\nprint(log)") for i in range(6)]
    results = wait_for(cells.pool, ids)
    assert [results[run_id].stdout for run_id in ids] == [f"{list(range(i + 1))}\n" for i in range(6)]


def test_waiting_is_accounted() -> None:
    with SandboxPool(num_workers=1) as pool:
        pool.describe_isolation()
        pool.submit("first", "import time\ntime.sleep(0.5)", LIMITS)
        pool.submit("second", "1", LIMITS)
        results = wait_for(pool, ["first", "second"])
    assert results["second"].waited_s >= 0.5 > results["second"].elapsed_s
    assert results["first"].elapsed_s >= 0.5


def test_cancelled_cell_leaves_the_session_as_it_was(cells: Cells) -> None:
    cells.run("x = 1")
    for pause_s in (0.0, 0.3):
        run_id = cells.start("x = 2\nimport time\ntime.sleep(60)")
        time.sleep(pause_s)
        cells.pool.cancel(run_id)
        assert said(cells.run("x")) == ("ok", "1\n", "", False)


def test_ended_session_forgets_and_frees(pool: SandboxPool) -> None:
    name = "mlended"
    cells = Cells(pool)
    running = cells.start(named(name) + "x = 1\ntime.sleep(60)")
    waiting = cells.start("x")
    give_up_s = time.monotonic() + 20
    while not processes_named(name) and time.monotonic() < give_up_s:
        time.sleep(0.01)
    pool.end_session(cells.name)
    pool.end_session("never heard of")
    results = wait_for(pool, [running, waiting])
    assert {result.status for result in results.values()} == {"killed"}
    assert processes_named(name) == []
    assert said(cells.run("'x' in globals()")) == ("ok", "False\n", "", False)
    pool.end_session(cells.name)


def test_fifty_sessions_side_by_side_leave_nothing_behind() -> None:
    with SandboxPool(num_workers=2) as pool:
        need(pool, "gate", "pidns")
        num_fds = len(os.listdir("/proc/self/fd"))
        sessions = [Cells(pool) for _ in range(50)]
        code = "mine = {0}\nopen('mine', 'w').write('{0}')\nNone"
        first = {cells.start(code.format(i)): i for i, cells in enumerate(sessions)}
        assert {result.status for result in wait_for(pool, first, patience_s=90).values()} == {"ok"}
        assert len(pool._book.living) == 50
        second = {
            cells.start("import os\nprint(mine, open('mine').read(), os.listdir())"): i
            for i, cells in enumerate(sessions)
        }
        results = wait_for(pool, second, patience_s=90)
        assert {run_id: said(result) for run_id, result in results.items()} == {
            run_id: ("ok", f"{i} {i} ['mine']\n", "", False) for run_id, i in second.items()
        }
        for cells in sessions:
            pool.end_session(cells.name)
        give_up_s = time.monotonic() + 20
        while (pool._sessions or children_of(pool._zygote.pid)) and time.monotonic() < give_up_s:  # type: ignore[union-attr]
            time.sleep(0.01)
        assert pool._sessions == []
        assert children_of(pool._zygote.pid) == []  # type: ignore[union-attr]
        assert os.listdir(pool._room.name) == []
        assert len(os.listdir("/proc/self/fd")) == num_fds


def test_session_idle_longest_makes_room_and_is_told() -> None:
    with SandboxPool(num_workers=1, sessions_bytes=200 << 20) as pool:
        need(pool, "gate", "pidns")
        small, large, later = Cells(pool), Cells(pool), Cells(pool)
        small.run("x = 1")
        large.run("x = bytearray(120 << 20)\nNone")
        assert small.run("x").session_restarted is False
        later.run("x = bytearray(100 << 20)\nNone")
        assert said(large.run("'x' in globals()")) == ("ok", "False\n", "", True)
        assert said(large.run("'x' in globals()")) == ("ok", "False\n", "", False)
        assert said(small.run("x")) == ("ok", "1\n", "", False)


def test_memory_of_a_cell_and_its_files_is_watched(pool: SandboxPool) -> None:
    need(pool, "gate", "pidns", "tmpfs")
    cells = Cells(pool)
    limits = CodeLimits(wall_s=20, memory_bytes=800 << 20, file_bytes=300 << 20)
    fill = "chunk = bytes(10 << 20)\nfor i in range(90): open(str(i), 'ab').write(chunk)\nimport time\ntime.sleep(10)"
    result = cells.run(fill, limits)
    assert (result.status, "more memory than it may have" in result.stderr) == ("memory", True)
    pool.end_session(cells.name)


@pytest.mark.parametrize("without", [{"gate"}, {"pidns"}, {"seccomp"}])
def test_without_snapshots_a_lost_session_is_told(without: set[str]) -> None:
    with SandboxPool(num_workers=1, without=without) as pool:
        cells = Cells(pool)
        assert said(cells.run("x = 1")) == ("ok", "", "", False)
        kept = "seccomp" not in without and "seccomp" in pool.describe_isolation()
        assert said(cells.run("print('x' in globals())")) == ("ok", f"{kept}\n", "", not kept)
        assert cells.run("import os\nos._exit(1)").status == "error"
        assert said(cells.run("'x' in globals()")) == ("ok", "False\n", "", True)
        assert cells.run("1").session_restarted is not kept


def test_closing_the_pool_ends_idle_and_running_sessions() -> None:
    name = "mlclosing"
    with SandboxPool(num_workers=2) as pool:
        idle, busy = Cells(pool), Cells(pool)
        idle.run(named(name))
        busy.start(named(name) + "time.sleep(60)")
        give_up_s = time.monotonic() + 20
        while len(processes_named(name)) < 2 and time.monotonic() < give_up_s:
            time.sleep(0.01)
        zygote = pool._zygote.pid  # type: ignore[union-attr]
        room = pool._room.name
    assert processes_named(name) == []
    assert not os.path.exists(f"/proc/{zygote}") and not os.path.exists(room)
