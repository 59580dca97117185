"""The program that is run in the sandbox for a check: our driver, the model's source, and the numbers to ask about.

Pure text. What the run's output means is read in `trials.py` and judged in `verdicts.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from mathlete.core.problem import AnswerKind

CheckKind = Literal["sympy", "smt", "enumeration"]
CallKind = Literal["sympy", "smt", "enumeration", "other_solution"]

ENTRIES: dict[CheckKind, str] = {"sympy": "check", "smt": "constraints", "enumeration": "brute_force"}
"""The function that a check of each kind must define."""

_NUM_ARGUMENTS: dict[CheckKind, int] = {"sympy": 1, "smt": 1, "enumeration": 0}


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """Limits of one check.

    Attributes:
        max_tokens: sampled tokens of the program.
        num_decoys: numbers that are no candidates, about which the check is asked too.
        call_s: processor seconds that it may take for one number.
        total_s: seconds for all of them; must end before the sandbox's own clock does, or what is left is lost.
    """

    max_tokens: int = 512
    num_decoys: int = 8
    call_s: float = 1.0
    total_s: float = 7.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_tokens", "num_decoys"):
            if getattr(self, name) < 1:
                raise ValueError(f"CheckConfig.{name} must be >= 1, not {getattr(self, name)}")
        for name in ("call_s", "total_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"CheckConfig.{name} must be > 0, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Asked:
    """The numbers a check is asked about, in this order of importance.

    Attributes:
        candidates: leading answers, and other answers of the pool.
        decoys: numbers that nobody has found.
    """

    candidates: tuple[int, ...]
    decoys: tuple[int, ...]


def parse_check(source: str, kind: CheckKind) -> ast.FunctionDef | None:
    """The function of a check, when the source is Python and defines it with the right number of arguments."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # null bytes are a ValueError; the last two: nesting
        return None
    found = None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == ENTRIES[kind]:
            required = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
            allowed = len(node.args.posonlyargs) + len(node.args.args)
            found = node if required <= _NUM_ARGUMENTS[kind] <= allowed else None
    return found


def build_program(
    kind: CheckKind, source: str, asked: Asked, answer_kind: AnswerKind, word: str, config: CheckConfig
) -> str:
    """The text of the program.

    Args:
        kind: of check.
        source: what the model wrote; `parse_check` finds its function.
        asked: the numbers.
        answer_kind: range of an answer.
        word: stands before each line of the output that tells something; hard to guess.
        config: limits.
    """
    job = {
        "word": word,
        "kind": kind,
        "source": source,
        "entry": ENTRIES[kind],
        "asked": _calls(kind, asked),
        "call_s": config.total_s if kind == "enumeration" else config.call_s,
        "total_s": config.total_s,
        "low": answer_kind.low,
        "high": answer_kind.high,
    }
    driver = resources.files(__package__).joinpath("sandbox_driver.py").read_text(encoding="utf-8")
    return f"{driver}\n\nrun_job({ascii(job)})\n"


def _calls(kind: CheckKind, asked: Asked) -> Sequence[tuple[CallKind, int]]:
    """Candidates first, in case time runs out; once more at the end, since an honest check says the same twice."""
    if kind == "enumeration":
        return [("enumeration", 0)]
    calls: list[tuple[CallKind, int]] = [(kind, number) for number in (*asked.candidates, *asked.decoys)]
    if kind == "smt":
        calls += [("other_solution", number) for number in asked.candidates]
    return calls + [(kind, number) for number in asked.candidates]
