"""Programs that try to harm: each ends with the right status, harms nothing, and the next one runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_probe import named, need, processes_named, run

from mathlete.core.code import CodeLimits, RunStatus, ToolResult
from mathlete.sandbox.pool import SandboxPool

SECRET = "the gold answer is 336"


@pytest.fixture(autouse=True)
def _next_program_runs(pool: SandboxPool) -> Iterator[None]:
    yield
    assert run(pool, "print('still here')").stdout == "still here\n"


# What lies outside is denied, or with a root of its own it is not even there.
REFUSALS = ("PermissionError", "OSError", "ProcessLookupError", "FileNotFoundError")


def refused(result: ToolResult) -> None:
    assert result.status == "error"
    assert result.stderr.rstrip().rpartition("\n")[2].startswith(REFUSALS)


@pytest.mark.parametrize("address", ["('127.0.0.1', {port})", "('8.8.8.8', 53)"])
def test_no_connection(pool: SandboxPool, address: str) -> None:
    need(pool, "seccomp")
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = address.format(port=server.getsockname()[1])
        refused(run(pool, f"import socket\nsocket.create_connection({target}, timeout=1)"))
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("kind", ["AF_UNIX", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
def test_no_socket_of_any_family(pool: SandboxPool, kind: str) -> None:
    need(pool, "seccomp")
    refused(run(pool, f"import socket\nsocket.socket(socket.{kind}, socket.SOCK_RAW)"))


@pytest.mark.parametrize("place", ["secret.txt", "home/.ssh/id_ed25519"])
def test_no_reading_outside(pool: SandboxPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    need(pool, "landlock")
    secret = tmp_path / place
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert os.path.samefile(place, secret)
    refused(run(pool, f"print(open({str(secret)!r}).read())"))
    refused(run(pool, f"import os\nos.symlink({str(secret)!r}, 'link')\nprint(open('link').read())"))
    refused(run(pool, f"import os\nos.link({str(secret)!r}, 'link')\nprint(open('link').read())"))
    refused(run(pool, f"import os\nprint(os.listdir({str(tmp_path)!r}))"))


@pytest.mark.parametrize("path", ["/etc/passwd", "/root", "/home", "/proc/self/environ", "/sys/kernel", "/dev/mem"])
def test_no_reading_of_the_system(pool: SandboxPool, path: str) -> None:
    need(pool, "landlock")
    code = f"import os\np = {path!r}\nprint(os.listdir(p) if os.path.isdir(p) else open(p, 'rb').read(9))"
    assert run(pool, code).status == "error"


@pytest.mark.parametrize("entry", ["environ", "mem", "maps", "cmdline", "root/etc/passwd", "cwd", "fd"])
def test_no_looking_at_the_parent(pool: SandboxPool, entry: str) -> None:
    need(pool, "landlock")
    code = f"import os\np = '/proc/{os.getpid()}/{entry}'\nprint(os.listdir(p) if os.path.isdir(p) else open(p, 'rb'))"
    assert run(pool, code).status == "error"


def test_environment_is_scrubbed(pool: SandboxPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHLETE_TEST_TOKEN", SECRET)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/modules/lib")
    get = "ctypes.CDLL(None).getenv(b'LD_LIBRARY_PATH')"
    with SandboxPool(num_workers=1) as fresh:
        result = run(fresh, f"import os, ctypes\nprint(sorted(os.environ) if not {get} else [])")
        assert fresh._zygote is not None
        inherited = Path("/proc", str(fresh._zygote.pid), "environ").read_bytes().split(b"\0")
    assert b"LD_LIBRARY_PATH=/modules/lib" in inherited  # the interpreter of a module system needs it
    names = set(eval(result.stdout))
    assert not {"MATHLETE_TEST_TOKEN", "LD_LIBRARY_PATH"} & names
    assert {"HOME", "PATH", "PYTHONHASHSEED", "TMPDIR"} <= names
    assert len(names) < 15


@pytest.mark.parametrize(
    "attack",
    [
        "open({path!r}, 'w').write('x')",
        "os.truncate({path!r}, 0)",
        "os.remove({path!r})",
        "os.rename({path!r}, 'mine')",
        "os.chmod({path!r}, 0)",
        "os.chown({path!r}, 1, 1)",
        "os.utime({path!r}, (0, 0))",
        "os.setxattr({path!r}, 'user.x', b'x')",
        "open({path!r} + '.new', 'w').write('x')",
        "os.mkdir({path!r} + '.dir')",
        "os.symlink('/', {path!r} + '.link')",
    ],
)
def test_no_writing_outside(pool: SandboxPool, tmp_path: Path, attack: str) -> None:
    need(pool, "landlock", "seccomp")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    before = victim.stat()
    refused(run(pool, "import os\n" + attack.format(path=str(victim))))
    after = victim.stat()
    assert victim.read_text() == "untouched"
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)
    assert os.listdir(tmp_path) == ["victim"]


def test_no_writing_to_the_interpreter(pool: SandboxPool) -> None:
    need(pool, "landlock", "seccomp")
    module = os.path.join(os.path.dirname(os.__file__), "this.py")
    mode = os.stat(module).st_mode
    refused(run(pool, f"open({module!r}, 'a')"))
    refused(run(pool, f"import os\nos.fchmod(os.open({module!r}, os.O_RDONLY), 0o777)"))
    assert os.stat(module).st_mode == mode


@pytest.mark.parametrize(
    "attack",
    [
        "os.kill(os.getppid() or {parent}, 9)",
        "os.kill({parent}, 9)",
        "os.kill(-1, 9)",
        "os.killpg({group}, 9)",
        "signal.pidfd_send_signal(os.pidfd_open({parent}), 9)",
    ],
)
def test_no_signal_to_others(pool: SandboxPool, attack: str) -> None:
    need(pool, "seccomp")
    refused(run(pool, "import os, signal\n" + attack.format(parent=os.getpid(), group=os.getpgid(0))))


@pytest.mark.parametrize(
    "call",
    ["ptrace(16, {parent}, 0, 0)", "unshare(0x10000000)", "mount(b'x', b'/', b'tmpfs', 0, 0)", "chroot(b'/')"]
    + ["syscall({bpf}, 0, 0, 0)", "setns(0, 0)", "prctl(1, 0, 0, 0, 0)", "shmget(0, 4096, 0o1600)", "acct(0)"],
)
def test_no_dangerous_system_call(pool: SandboxPool, call: str) -> None:
    need(pool, "seccomp")
    call = call.format(parent=os.getpid(), bpf=321 if os.uname().machine == "x86_64" else 280)
    result = run(pool, f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nprint(c.{call}, ctypes.get_errno())")
    assert result.stdout == "-1 1\n"  # EPERM


@pytest.mark.parametrize(
    "start", ["os.fork()", "os.posix_spawn('/bin/true', ['true'], {})", "os.execv(sys.executable, ['python'])"]
    + ["__import__('subprocess').run(['true'])", "__import__('multiprocessing').Pool(2)"],
)  # fmt: skip
def test_no_further_process(pool: SandboxPool, start: str) -> None:
    need(pool, "seccomp")
    refused(run(pool, f"import os, sys\nprint({start})"))


def test_no_new_privilege_and_no_capability(pool: SandboxPool) -> None:
    code = (
        "import ctypes\nc = ctypes.CDLL(None)\n"
        "h, d = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()\n"
        "print(c.capget(h, d), list(d), c.prctl(39, 0, 0, 0, 0))"
    )
    assert run(pool, code).stdout == "0 [0, 0, 0, 0, 0, 0] 1\n"


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("while True: pass", {"timeout"}),
        ("import time\ntime.sleep(60)", {"timeout"}),
        ("import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
         "  except (OSError, ValueError): pass\nwhile True: time.sleep(1)", {"timeout"}),
        ("import threading\nthreading.Thread(target=threading.Event().wait).start()", {"timeout"}),
        ("import atexit\natexit.register(lambda: [0 for _ in iter(int, 1)])", {"timeout"}),
        ("while True: print('x' * 1000)", {"output_limit"}),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {"output_limit"}),
        ("import os\nos.write(1, bytes(10**6))", {"output_limit"}),
        ("print('x' * 10**6)", {"output_limit"}),
        ("x = [0] * 10**10", {"memory"}),
        ("x = []\nwhile True: x.append('y' * 10**6 + str(len(x)))", {"memory"}),
        ("x = bytearray(10**6)\nwhile True: x = x + x", {"memory"}),
        ("import numpy\nnumpy.ones(10**10)", {"memory"}),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)", {"memory", "error", "timeout"}),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", {"ok", "killed"}),
    ],
)  # fmt: skip
def test_floods_and_loops(pool: SandboxPool, code: str, statuses: set[RunStatus]) -> None:
    if "numpy" in code:
        pytest.importorskip("numpy")
    # what is to hit another ceiling gets time for it: a machine may take seconds to hand out a GiB
    limits = CodeLimits(wall_s=2 if "timeout" in statuses else 20, memory_bytes=1 << 30)
    result = run(pool, code, limits)
    assert result.status in statuses
    assert result.elapsed_s < limits.wall_s + 2
    assert len((result.stdout + result.stderr).encode()) <= 3 * limits.output_bytes  # U+FFFD takes three bytes
    assert len(result.stdout + result.stderr) <= limits.output_bytes + 100


def test_output_ceiling_is_shared_and_exact(pool: SandboxPool) -> None:
    limits = CodeLimits(wall_s=5, output_bytes=1000)
    assert run(pool, "import os\nos.write(1, b'o' * 600)\nos.write(2, b'e' * 400)\nNone", limits).status == "ok"
    result = run(pool, "import os\nos.write(1, b'o' * 600)\nos.write(2, b'e' * 401)\nNone", limits)
    assert (result.status, len(result.stdout + result.stderr)) == ("output_limit", 1000)


def test_huge_file(pool: SandboxPool) -> None:
    result = run(pool, "open('huge', 'wb').write(bytes(2 << 20))", CodeLimits(wall_s=5, file_bytes=1 << 20))
    assert result.status == "error"
    assert "File too large" in result.stderr


@pytest.mark.parametrize(
    "code",
    ["for i in range(99): open(f'{i}', 'wb').write(bytes(1 << 20))", "for i in range(9999): open(f'{i}', 'w').close()"],
)
def test_many_files(pool: SandboxPool, code: str) -> None:
    need(pool, "tmpfs")
    result = run(pool, code, CodeLimits(wall_s=5, file_bytes=1 << 20))
    assert result.status == "error"
    assert "No space left on device" in result.stderr


def test_thread_bomb(pool: SandboxPool) -> None:
    name = "mlthreads"
    bomb = (
        "import threading\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=[99], daemon=True).start()"
    )
    result = run(pool, named(name) + bomb)
    assert result.status in ("killed", "timeout", "memory")
    assert processes_named(name) == []


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("os.close(1)", ""),
        ("sys.stdout.close()", ""),
        ("sys.stdout = sys.stderr = None", ""),
        ("os.closerange(0, 100)", ""),
        ("os.write(1, bytes([255, 0, 65, 192]))", "\ufffd\ufffdA\ufffd"),
        ("sys.stdout.buffer.write(b'raw\\xff')\nNone", "raw\ufffd"),
        ("os.dup2(2, 1)\nprint('moved')", ""),
        ("sys.stdout.flush = None\nprint('flushed')", "flushed\n"),
    ],
)
def test_games_with_the_streams(pool: SandboxPool, code: str, stdout: str) -> None:
    result = run(pool, f"import os, sys\n{code}")
    assert result.status in ("ok", "error")
    assert result.stdout.startswith(stdout)
    assert "mathlete" not in result.stderr


def test_forged_reports_reach_nobody(pool: SandboxPool) -> None:
    code = (
        "import os\nn = 0\nfor fd in range(3, 1000):\n    try: n += os.write(fd, b'{\"wait_status\": 0}\\n')\n"
        "    except OSError: pass\nprint(n)\nraise SystemExit(3)"
    )
    result = run(pool, code)
    assert (result.status, result.stdout) == ("error", "0\n")


def test_deep_directories_are_removed(pool: SandboxPool) -> None:
    code = "import os\nfor _ in range(200):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\nprint('deep')"
    assert run(pool, code).stdout == "deep\n"


def test_program_that_sleeps_past_its_time_leaves_nothing(pool: SandboxPool) -> None:
    name = "mlsleeper"
    started_s = time.monotonic()
    assert run(pool, named(name) + "time.sleep(99)", CodeLimits(wall_s=0.3)).status == "timeout"
    assert time.monotonic() - started_s < 3
    assert processes_named(name) == []


def test_the_interpreter_is_our_own(pool: SandboxPool) -> None:
    assert run(pool, "import sys\nprint(sys.version)").stdout.strip() == sys.version
