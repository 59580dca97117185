"""The Triton kernels: interpreted on the CPU, on CUDA where there is one, and compiled for it where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).with_name("triton_cases.py")
COMPILE = Path(__file__).with_name("triton_compile.py")

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install 'mathlete[gpu]'")


def run(tmp_path: Path, *command: str | Path, interpret: bool) -> str:
    """The output of a Python process with Triton's switch set one way or the other, and a cache of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)} | ({"TRITON_INTERPRET": "1"} if interpret else {})
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=CASES.parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_parity_under_the_interpreter(tmp_path: Path) -> None:
    summary = run(tmp_path, "-m", "pytest", "-q", CASES, interpret=True).splitlines()[-1]
    assert "passed" in summary and "skipped" not in summary


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_parity_on_cuda(tmp_path: Path) -> None:
    summary = run(tmp_path, "-m", "pytest", "-q", CASES, interpret=False).splitlines()[-1]
    assert "passed" in summary and "skipped" not in summary


def test_every_kernel_compiles_for_an_h100(tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does; machine code needs no GPU to be made."""
    names = run(tmp_path, COMPILE, interpret=False).split()
    assert sorted(set(names)) == [
        "_attention_kernel",
        "_dequantize_kernel",
        "_draw_kernel",
        "_mask_kernel",
        "_rms_norm_kernel",
        "_rotate_store_kernel",
        "_sort_tiles_kernel",
        "_swiglu_kernel",
    ]


def test_the_cpu_path_does_not_import_triton() -> None:
    code = "import sys, mathlete.ryanstream.loading; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str(torch.cuda.is_available())
