"""The python tool, as models are told of it, and the program in a call of it, as they write such calls.

Pure text; runs nothing.
"""

from __future__ import annotations

import ast
import json
import re

PYTHON_TOOL = (
    "Use this tool to execute Python code in your chain of thought. The environment is a stateful one, like a Jupyter "
    "notebook: what earlier programs defined is still there. It responds with what the program printed, so use print() "
    "to show results. sympy, numpy and z3 are installed; there is no network and no display. Where you are asked for a "
    "program in a block, send the program to this tool instead."
)
NOT_RUN = "Error: this program was not run. Go on without running programs, and give your final answer."
NO_SUCH_TOOL = "Error: there is no tool of this name here."
ONLY_PYTHON = f"{NO_SUCH_TOOL} The only tool is python."

PYTHON_NAME = re.compile(r"(functions\.)?(python|ipython|jupyter|code_interpreter)([.:]\w+)?", re.IGNORECASE)
"""Names under which models call the tool that they are told is "python"."""

_CODE_KEYS = ("code", "script", "source", "input", "program")
_FENCED = re.compile(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_MAX_ECHO_CHARACTERS = 65_536


def program_in_call(arguments: str) -> str:
    """The program that a call asks to be run: its raw text, or what its JSON arguments or its fenced block hold.

    A last line that is an expression is made to show its value, since models expect that of a notebook.
    """
    return _echoing(_unfenced(_argument(arguments)))


def _argument(arguments: str) -> str:
    if not arguments.lstrip().startswith("{"):
        return arguments
    try:
        told = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):  # a program may begin with a brace too
        return arguments
    for key in (*_CODE_KEYS, *(told if len(told) == 1 else ())):
        if isinstance(told.get(key), str):
            return str(told[key])
    return arguments


def _unfenced(code: str) -> str:
    fenced = _FENCED.fullmatch(code)
    return fenced[1] if fenced is not None else code


def _echoing(code: str) -> str:
    """The program, with what prints the value of its last expression; as it is when it does not end in one."""
    if len(code) > _MAX_ECHO_CHARACTERS:
        return code
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # running it will tell
        return code
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr) or _prints(last.value):
        return code
    lines = code.splitlines(keepends=True)
    line = lines[last.lineno - 1].encode()
    before = "".join(lines[: last.lineno - 1]) + line[: last.col_offset].decode()
    written = ast.get_source_segment(code, last.value)
    return f"{before}_ = (\n{written}\n)\nif _ is not None:\n    print(_)\n"


def _prints(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print"
