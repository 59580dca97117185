"""A program behaves as a person at a notebook would expect."""

from __future__ import annotations

import pytest
from sandbox_probe import run

from mathlete.core.code import CodeLimits
from mathlete.sandbox.pool import SandboxPool


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("print(6 * 7)", "42\n"),
        ("6 * 7", "42\n"),
        ("x = 6\nx * 7", "42\n"),
        ("print('said')\n6 * 7", "said\n"),
        ("print('said')", "said\n"),
        ("'text'", "'text'\n"),
        ("None", ""),
        ("x = 1", ""),
        ("", ""),
        ("# nothing", ""),
        ("for i in range(3):\n    i", ""),
        ("if __name__ == '__main__':\n    print('main')", "main\n"),
        ("import sys\nsys.exit()", ""),
        ("import sys\nprint(1)\nsys.exit(0)", "1\n"),
        ("import atexit\natexit.register(print, 'last')\nprint('first')", "first\nlast\n"),
        ("import threading\nthreading.Timer(0.05, print, ['late']).start()", "late\n"),
        ("import os\nos.listdir('.')", "[]\n"),
        ("def f(n): return 1 if n == 0 else n * f(n - 1)\nprint(f(5))", "120\n"),
        ("from __future__ import annotations\ndef f(x: undefined): return x\nf(3)", "3\n"),
        ("import sys\nsys.stdout.write('no newline')\nNone", "no newline"),
        ("import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint('wrapped')", "wrapped\n"),
        ("print('\\ud800')", "\\ud800\n"),
        ("print('a\\0b')", "a\ufffdb\n"),
        ("print('π²')", "π²\n"),
        ("print(len(str(2**100000)))", "30103\n"),
        ("open('notes', 'w').write('kept')\nprint(open('notes').read())", "kept\n"),
        ("import asyncio\nasyncio.run(asyncio.sleep(0))\nprint('slept')", "slept\n"),
        ("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)", "A\n"),
    ],
)
def test_output(pool: SandboxPool, code: str, stdout: str) -> None:
    result = run(pool, code)
    assert (result.status, result.stdout, result.stderr) == ("ok", stdout, "")


def test_each_program_starts_afresh(pool: SandboxPool) -> None:
    run(pool, "import math\nmath.pi = 3\nx = 1\nopen('left', 'w').write('here')")
    result = run(pool, "import math, os\nprint(math.pi > 3, 'x' in globals(), os.listdir())")
    assert result.stdout == "True False []\n"


def test_traceback_shows_the_programs_own_frames_and_lines(pool: SandboxPool) -> None:
    pytest.importorskip("sympy")
    result = run(pool, "import sympy\n\ndef f(x):\n    return sympy.factorint(x)\n\nf('not a number')")
    assert result.status == "error"
    assert "File \"<program>\", line 6, in <module>\n    f('not a number')" in result.stderr
    assert 'File "<program>", line 4, in f\n    return sympy.factorint(x)' in result.stderr
    assert result.stderr.count("File ") == 2
    assert "/" not in result.stderr


def test_chained_errors_are_trimmed_too(pool: SandboxPool) -> None:
    result = run(
        pool, "import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n    raise KeyError('k') from e"
    )
    assert "JSONDecodeError" in result.stderr
    assert result.stderr.rstrip().endswith("KeyError: 'k'")
    assert result.stderr.count("File ") == 2


@pytest.mark.parametrize(
    ("code", "last_line"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def f(:\n    pass", "SyntaxError: invalid syntax"),
        ("return 1", "SyntaxError: 'return' outside function"),
        ("input()", "EOFError: EOF when reading a line"),
        ("import sys\nsys.exit('over')", "over"),
        ("import sys\nsys.exit(7)", "exit code 7"),
        ("import os\nos._exit(9)", "exit code 9"),
        ("import torch_is_not_here", "ModuleNotFoundError: No module named 'torch_is_not_here'"),
        ("import mathlete", "ModuleNotFoundError: No module named 'mathlete'"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("raise BaseException('base')", "BaseException: base"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import ctypes\nctypes.string_at(0)", "ended by SIGSEGV"),
        ("import os\nos.abort()", "ended by SIG"),
    ],
)
def test_errors(pool: SandboxPool, code: str, last_line: str) -> None:
    result = run(pool, code)
    assert result.status == "error"
    assert result.stderr.rstrip().rpartition("\n")[2].startswith(last_line)


@pytest.mark.parametrize("code", ["x = '\ud800'", "x = 1\0", "\ufeff\ufeffx", "(" * 5000, "\x7f", "-" * 100_000 + "1"])
def test_sources_that_are_no_text(pool: SandboxPool, code: str) -> None:
    result = run(pool, code)
    assert result.status in ("error", "memory")  # the parser calls too deep a nesting a MemoryError
    assert result.stderr
    assert run(pool, "1").status == "ok"


def test_set_order_repeats_and_random_does_not(pool: SandboxPool) -> None:
    order = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert run(pool, order).stdout == run(pool, order).stdout
    noise = "import random\nprint(random.random())"
    assert run(pool, noise).stdout != run(pool, noise).stdout


def test_numpy_noise_differs_between_programs(pool: SandboxPool) -> None:
    pytest.importorskip("numpy")
    noise = "import numpy\nprint(numpy.random.rand())"
    assert run(pool, noise).stdout != run(pool, noise).stdout


def test_deep_recursion_through_a_cache(pool: SandboxPool) -> None:
    code = (
        "import sys, functools\nsys.setrecursionlimit(10**6)\n"
        "@functools.lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(40000))"
    )
    assert run(pool, code).stdout == "40000\n"


def test_what_was_said_before_a_timeout_is_kept(pool: SandboxPool) -> None:
    result = run(pool, "print('so far')\nwhile True: pass", CodeLimits(wall_s=0.3))
    assert (result.status, result.stdout) == ("timeout", "so far\n")
    assert 0.3 <= result.elapsed_s < 2
