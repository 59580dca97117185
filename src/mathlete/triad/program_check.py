"""Checks by program: the model writes a test of answers from the statement alone, the harness runs it on all of them.

The model is shown neither the candidates nor how they were found, so one program judges them all and is made for none.
Knows prompts; how a program is run and what that means stands in `verify/checks`. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mathlete.core.attempt import Attempt
from mathlete.core.code import ToolResult
from mathlete.core.generation import Message
from mathlete.core.problem import Problem
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import Evidence
from mathlete.triad.chat import opening_messages
from mathlete.triad.check_attempt import CheckProgram
from mathlete.triad.code_blocks import closed_blocks
from mathlete.verify.checks.check_program import ENTRIES, Asked, CheckConfig, CheckKind, build_program, parse_check
from mathlete.verify.checks.decoys import choose_decoys
from mathlete.verify.checks.manner import manner_of
from mathlete.verify.checks.trials import read_trials
from mathlete.verify.checks.verdicts import judge, no_evidence, to_evidence

PROGRAM_CHECKS: dict[str, CheckKind] = {f"{kind}_check": kind for kind in ENTRIES}
"""Pillars that check by program."""

_MAX_RIVALS = 4
# The model goes on from here: the function is there to be called, and so is what it tends to use without importing it.
_IMPORTS: dict[CheckKind, str] = {
    "sympy": "import math\nimport itertools\nfrom sympy import *\nfrom sympy.abc import x, y, z\n",
    "smt": "from z3 import *\n",
    "enumeration": "import math\nimport itertools\n",
}
_HEADS: dict[CheckKind, str] = {
    "sympy": "def check(answer):\n",
    "smt": "def constraints(answer):\n",
    "enumeration": "def brute_force():\n",
}
_STOPS = ("```\n",)


@dataclass(frozen=True, slots=True)
class ProgramCheck:
    """A `CheckMethod`.

    Attributes:
        kind: of program.
        problem: whose answers are checked.
        about: the answers, canonical text.
        asked: the numbers that the program is asked about.
        word: stands before what our driver tells; see `build_program`.
        config: limits.
    """

    kind: CheckKind
    problem: Problem
    about: tuple[str, ...]
    asked: Asked
    word: str
    config: CheckConfig = field(default_factory=CheckConfig)

    @property
    def pillar(self) -> str:
        """Its name."""
        return f"{self.kind}_check"

    @property
    def max_tokens(self) -> int:
        """Sampled tokens at most."""
        return self.config.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The end of the program's block."""
        return _STOPS

    @property
    def start(self) -> str:
        """The program's first lines."""
        return f"```python\n{_IMPORTS[self.kind]}\n{_HEADS[self.kind]}"

    def messages(self) -> tuple[Message, ...]:
        """The statement, and how a check looks."""
        return opening_messages(self.pillar, self.problem)

    def read(self, text: str, *, complete: bool) -> CheckProgram | tuple[Evidence, ...]:
        """The program, or UNKNOWN when there is none that can be called."""
        source = check_source(text, self.kind, complete=complete)
        if source is None:
            return self.silent("unparsable", f"the model wrote no function {ENTRIES[self.kind]!r} that could be called")
        return CheckProgram(
            source, build_program(self.kind, source, self.asked, self.problem.answer_kind, self.word, self.config)
        )

    def judge(self, found: CheckProgram, result: ToolResult) -> tuple[Evidence, ...]:
        """What the run says on each answer, and on rivals that it supports."""
        function = parse_check(found.source, self.kind)
        assert function is not None, "it was read before it ran"
        findings = judge(read_trials(result, self.word, self.asked), self.kind)
        return to_evidence(
            findings, self.about, self.kind, manner_of(function, self.kind), found.source, result.elapsed_s
        )

    def silent(self, failure: str, reason: str) -> tuple[Evidence, ...]:
        """UNKNOWN on each answer."""
        return no_evidence(self.about, self.kind, failure, reason)


def program_check(
    kind: CheckKind,
    problem: Problem,
    about: Sequence[str],
    pool: Sequence[Attempt],
    seed: int,
    config: CheckConfig,
) -> ProgramCheck:
    """A check of some answers. Other answers of the pool are asked about too, the most frequent first.

    Args:
        kind: of program.
        problem: whose answers are checked.
        about: the answers, canonical integers.
        pool: the problem's finished attempts.
        seed: of decoys and word.
        config: limits.

    Raises:
        ValueError: an answer is no integer.
    """
    votes = Counter(attempt.answer for attempt in pool if attempt.answer is not None)
    rivals = [int(answer) for answer, _ in votes.most_common() if answer not in about][:_MAX_RIVALS]
    candidates = (*dict.fromkeys(map(int, about)), *rivals)
    avoid = {int(answer) for answer in votes}
    decoys = choose_decoys(candidates, avoid, problem.answer_kind, config.num_decoys, derive_seed(seed, "decoys"))
    word = f"told-{derive_seed(seed, 'word'):016x}"
    return ProgramCheck(kind, problem, tuple(about), Asked(candidates, decoys), word, config)


def check_source(text: str, kind: CheckKind, *, complete: bool) -> str | None:
    """The last program in the text that defines the check's function; a text that is complete may end within it."""
    blocks = closed_blocks(text)
    rest = text[blocks[-1].end if blocks else 0 :]
    _, fence, unclosed = rest.rpartition("```python\n")
    sources = [block.code for block in blocks] + ([unclosed] if fence and complete else [])
    return next((source for source in reversed(sources) if parse_check(source, kind) is not None), None)
