"""GenSelect: the model is shown one solution for each leading answer and picks the best.

After NeMo-Skills' GenSelect (arXiv 2504.16891), which falls back to a random solution when the choice cannot be read;
here that is no evidence. The order of the solutions is drawn, so that a liking for a place favours no answer. Pure.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.evidence import GENSELECT
from mathlete.core.attempt import Attempt
from mathlete.core.code import ToolResult
from mathlete.core.generation import Message
from mathlete.core.problem import Problem
from mathlete.core.selection import Evidence
from mathlete.triad.chat import filled, plain_text, shortened
from mathlete.triad.check_attempt import CheckProgram

PILLAR = GENSELECT

_MARKUP = re.compile(r"(?:\\boxed|[\\*()\[\]{}$\s])+")
_JUDGMENT = re.compile(r"judge?ment ?: ?(?:solution )?(\d{1,3})(?!\d)", re.IGNORECASE)
# Small models rather end with a sentence: "The correct solution is Solution 0."
_CONCLUSION = re.compile(
    r"(?:right|correct|best) (?:solution|one)(?: is)? ?:? ?(?:solution |number )?(\d{1,3})(?!\d)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class GenSelectConfig:
    """Limits of one choice.

    Attributes:
        max_tokens: sampled tokens.
        max_solution_chars: of each solution that is shown; longer ones lose their middle.
    """

    max_tokens: int = 512
    max_solution_chars: int = 1_600


@dataclass(frozen=True, slots=True)
class GenSelect:
    """A `CheckMethod`.

    Attributes:
        problem: whose solutions are compared.
        about: their answers, canonical text.
        shown: each answer with its solution, in the order in which they are shown.
        config: limits.
    """

    problem: Problem
    about: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]
    config: GenSelectConfig

    @property
    def pillar(self) -> str:
        """Its name."""
        return PILLAR

    @property
    def max_tokens(self) -> int:
        """Sampled tokens at most."""
        return self.config.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """It ends when it likes."""
        return ()

    @property
    def start(self) -> str:
        """It begins as it likes."""
        return ""

    def messages(self) -> tuple[Message, ...]:
        """The statement and the solutions."""
        solutions = "\n\n".join(f"Solution {place}:\n{text}" for place, (_, text) in enumerate(self.shown))
        user = filled(
            f"{PILLAR}_user.txt",
            statement=self.problem.statement.strip(),
            solutions=solutions,
            num_solutions=str(len(self.shown)),
            max_index=str(len(self.shown) - 1),
        )
        return Message("system", filled(f"{PILLAR}_system.txt")), Message("user", user)

    def read(self, text: str, *, complete: bool) -> CheckProgram | tuple[Evidence, ...]:
        """SUPPORTED for the answer picked; being passed over refutes nothing."""
        told = _MARKUP.sub(" ", text if complete else text.rstrip("0123456789"))
        picked = [int(digits) for digits in _JUDGMENT.findall(told) or _CONCLUSION.findall(told)]
        if not picked or picked[-1] >= len(self.shown):
            return self.silent("unparsable", "no judgment could be read")
        answer = self.shown[picked[-1]][0]
        return tuple(
            _evidence(item, "picked" if item == answer else f"passed over for {answer}", supported=item == answer)
            for item in self.about
        )

    def judge(self, found: CheckProgram, result: ToolResult) -> tuple[Evidence, ...]:
        """It runs no programs. Raises `ValueError`."""
        raise ValueError(f"{PILLAR} runs no programs: {found.source[:40]!r} ended {result.status}")

    def silent(self, failure: str, reason: str) -> tuple[Evidence, ...]:
        """UNKNOWN on each answer."""
        return tuple(_evidence(answer, reason, failure=failure) for answer in self.about)


def gen_select(
    problem: Problem, about: Sequence[str], pool: Sequence[Attempt], seed: int, config: GenSelectConfig
) -> GenSelect:
    """A choice between the solutions of some answers. An answer that nobody in the pool gave is shown alone."""
    shown = [(answer, _solution(answer, pool, config)) for answer in dict.fromkeys(about)]
    random.Random(seed).shuffle(shown)
    return GenSelect(problem, tuple(about), tuple(shown), config)


def _solution(answer: str, pool: Sequence[Attempt], config: GenSelectConfig) -> str:
    """The shortest solution with this answer that came to its own end: it leaves out least when it is cut."""
    texts = [
        "".join(turn.text + (turn.tool_text or "") for turn in attempt.turns)
        for attempt in pool
        if attempt.answer == answer
    ]
    text = min(texts, key=len, default="")
    return f"{shortened(plain_text(text.strip()), config.max_solution_chars)}\nFinal answer: {answer}".strip()


def _evidence(answer: str, reason: str, *, supported: bool = False, failure: str | None = None) -> Evidence:
    return Evidence(
        PILLAR,
        f"{answer} belongs to the best solution",
        "SUPPORTED" if supported else "UNKNOWN",
        failure,
        0.0,
        reason,
        answer,
    )
