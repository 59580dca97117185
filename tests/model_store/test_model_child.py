"""Child processes: they report growth, and do not outlive or hang us. And pip as such a child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_model import FakePip

from mathlete.model_store import wheels
from mathlete.model_store.child import ChildResult, largest_file_bytes, run_child
from mathlete.model_store.sources import SourceUnavailable


def test_result_and_growth(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "for n in range(3):\n"
        "    open('data', 'ab').write(b'x' * 10); time.sleep(0.25)\n"
        "print('out'); print('ERROR: bad', file=sys.stderr); sys.exit(7)"
    )
    seen: list[int] = []
    result = run_child(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{program}"],
        environment={},
        measure=lambda: largest_file_bytes(tmp_path),
        on_bytes=seen.append,
    )
    assert result == ChildResult(7, "out\n", "ERROR: bad\n")
    assert seen == sorted(set(seen)) and seen[-1] == 30


def test_a_silent_child_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.3 s"):
        run_child(["sleep", "60"], environment={}, stall_s=0.3)
    assert time.monotonic() - started < 10


def test_control_c_kills_the_child(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import os, time\nopen('pid.new', 'w').write(str(os.getpid()))\nos.rename('pid.new', 'pid')\ntime.sleep(60)\n"
    )
    program = (
        "import signal, sys\n"
        "from mathlete.model_store.child import run_child\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "run_child([sys.executable, 'child.py'], environment={})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 20
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("stderr", "full", "words"),
    [
        ("WARNING: a\nERROR: no\nERROR: way\n", False, "ERROR: no / ERROR: way"),
        ("ERROR: [Errno 28] Kein Speicherplatz", True, "ERROR: [Errno 28] Kein Speicherplatz"),
        ("one\ntwo\n", False, "one / two"),
        ("", False, "exit status 3, no message"),
    ],
)
def test_what_a_failed_child_says(stderr: str, full: bool, words: str) -> None:
    result = ChildResult(3, "", stderr)
    assert (result.ran_out_of_disk(), result.last_words()) == (full, words)


def test_real_pip_takes_a_wheel_from_a_folder(pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pip")
    pip.put_real(1, b"data")
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(pip.shelf),
        "CONSTRAINT": "",
        "CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    box = tmp_path / "box"
    box.mkdir()
    wheels.run_pip("tiny-part1==1.0", box, lambda num_bytes: None)
    assert [entry.name for entry in box.iterdir()] == [pip.wheel(1).name]
    with pytest.raises(SourceUnavailable, match="pip could not download nowhere==1.0: ERROR: .*nowhere"):
        wheels.run_pip("nowhere==1.0", box, lambda num_bytes: None)


def test_a_python_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SourceUnavailable, match="has no pip .try: .* -m ensurepip"):
        wheels.run_pip("tiny-part1==1.0", tmp_path, lambda num_bytes: None)


def test_pip_out_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: [Errno 28] No space left on device' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(OSError, match="pip ran out of disk"):
        wheels.run_pip("tiny-part1==1.0", tmp_path, lambda num_bytes: None)
