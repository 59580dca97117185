"""`mathlete sandbox run`: one JSON object whatever the file does, and a clear error for what is no program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from calling import Mathlete

from mathlete.cli import sandbox
from mathlete.sandbox.pool import SandboxPool

KEYS = ["stdout", "stderr", "status", "seconds", "isolation"]


@pytest.fixture(scope="module")
def warm_pool() -> Iterator[SandboxPool]:
    with SandboxPool(num_workers=1) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _same_pool(warm_pool: SandboxPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SandboxPool", lambda num_workers: nullcontext(warm_pool))


def run_json(mathlete: Mathlete, *arguments: str | Path) -> dict[str, Any]:
    called = mathlete("sandbox", "run", *arguments, "--json")
    assert (called.code, called.err) == (0, "")
    shown = json.loads(called.out)
    assert isinstance(shown, dict)
    return shown


@pytest.mark.parametrize(
    ("code", "status", "stdout"),
    [
        ("print(6 * 7)", "ok", "42\n"),
        ("6 * 7", "ok", "42\n"),
        ("print(1)\n1 / 0", "error", "1\n"),
        ("syntax error", "error", ""),
        ("raise SystemExit(7)", "error", ""),
        ("import os\nos._exit(0)", "ok", ""),
        ("import ctypes\nctypes.string_at(0)", "error", ""),
        ("import os\nos.closerange(0, 100)", "ok", ""),
        ("import os\nos.write(1, b'\\xff\\0\\xed\\xa0\\x80')\nNone", "ok", "\ufffd\ufffd\ufffd\ufffd\ufffd"),
        ("print('\\ud800\\u2028')", "ok", "\\ud800\u2028\n"),
        ('print(\'{"status": "forged"}\')', "ok", '{"status": "forged"}\n'),
        ("while True: print('x' * 999)", "output_limit", None),
        ("x = [0] * 10**12", "memory", ""),
        ("while True: pass", "timeout", ""),
        ("import os\nos.kill(-1, 9)", "error", ""),
        ("", "ok", ""),
    ],
)
def test_one_json_object_whatever_the_file_does(
    code: str, status: str, stdout: str | None, mathlete: Mathlete, tmp_path: Path
) -> None:
    file = tmp_path / "program.py"
    file.write_text(code, encoding="utf-8")
    shown = run_json(mathlete, file, "--timeout", "1s" if status == "timeout" else "20s")
    assert list(shown) == KEYS
    assert shown["status"] == status
    assert stdout is None or shown["stdout"] == stdout
    assert isinstance(shown["seconds"], float) and shown["seconds"] >= 0
    assert "rlimit" in shown["isolation"] and all(isinstance(layer, str) for layer in shown["isolation"])


def test_a_person_sees_the_output_and_how_it_ended(mathlete: Mathlete, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    called = mathlete("sandbox", "run", "program.py")
    assert (called.code, called.out) == (0, "out\n")
    error, end = called.err.splitlines()
    assert error == "err"
    assert end.startswith("ok after ") and end.partition(", behind ")[2].split(", ")[-1] in (
        "nocaps",
        "seccomp",
        "gate",
    )


def test_several_files_are_cells_of_one_session(mathlete: Mathlete, tmp_path: Path, warm_pool: SandboxPool) -> None:
    if "gate" not in warm_pool.describe_isolation():
        pytest.skip("this machine does not permit snapshots of sessions")
    cells = {"a.py": "x = 40", "b.py": "import os\nx = 0\nos._exit(3)", "c.py": "print(x + 2)"}
    for name, code in cells.items():
        (tmp_path / name).write_text(code)
    shown = run_json(mathlete, *cells)
    assert list(shown) == ["cells"]
    assert [list(cell) for cell in shown["cells"]] == [["file", *KEYS]] * 3
    assert [(cell["file"], cell["status"]) for cell in shown["cells"]] == [
        ("a.py", "ok"), ("b.py", "error"), ("c.py", "ok")
    ]  # fmt: skip
    assert shown["cells"][2]["stdout"] == "42\n"
    warm_pool.end_session("files")
    called = mathlete("sandbox", "run", "a.py", "c.py")
    assert (called.code, called.out) == (0, "42\n")
    assert [line.partition(" after ")[0] for line in called.err.splitlines()] == ["a.py: ok", "c.py: ok"]
    warm_pool.end_session("files")


def test_a_program_cannot_write_to_the_terminals_controls() -> None:
    assert sandbox.printable("a\x1b]0;owned\x07\r\x9b2J\té\n") == "a\\x1b]0;owned\\x07\\r\\x9b2J\té\n"


def test_stdin_is_read_for_a_dash(mathlete: Mathlete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_bytes(b"\xef\xbb\xbfprint('from stdin')")
    with open(tmp_path / "program.py", "rb") as file:
        kept = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            shown = run_json(mathlete, "-")
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert shown["stdout"] == "from stdin\n"


def test_memory_and_time_are_the_flags(mathlete: Mathlete, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("x = bytearray(400 << 20)\nprint(len(x))")
    assert run_json(mathlete, file, "--memory", "2g")["stdout"] == f"{400 << 20}\n"
    assert run_json(mathlete, file, "--memory", "300m")["status"] == "memory"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"print('\xe9')"), "is not UTF-8 (byte 7"),
        (lambda path: path.write_bytes(b"#" * ((1 << 20) + 1)), "is larger than 1024 KiB"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.symlink_to("/dev/zero"), "is larger than 1024 KiB"),
    ],
)
def test_what_is_no_program_is_an_error(make: Any, message: str, mathlete: Mathlete, tmp_path: Path) -> None:
    make(tmp_path / "program.py")
    called = mathlete("sandbox", "run", "program.py", "--json")
    assert (called.code, called.out) == (2, "")
    assert message in called.err and "program.py" in called.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(mathlete: Mathlete, tmp_path: Path) -> None:
    (tmp_path / "program.py").touch(mode=0)
    called = mathlete("sandbox", "run", "program.py", "--json")
    assert (called.code, called.out) == (2, "") and "cannot be read" in called.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--timeout", "0"), "--timeout: a duration must be longer than 0"),
        (("--memory", "lots"), "--memory: 'lots' is not a size"),
    ],
)
def test_wrong_flags_are_named(flags: tuple[str, str], message: str, mathlete: Mathlete, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print(1)")
    called = mathlete("sandbox", "run", "program.py", *flags)
    assert (called.code, called.out) == (2, "")
    assert message in called.err


def test_the_command_itself_prints_json_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("import os\nprint('seen')\nos.kill(-1, 15)")
    command = [sys.executable, "-m", "mathlete", "sandbox", "run", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = json.loads(done.stdout)
    assert (shown["stdout"], shown["status"]) == ("seen\n", "error")
