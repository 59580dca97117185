"""One try at one problem: its turns, its answer, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mathlete.core.code import ToolResult
from mathlete.core.selection import Evidence, Verdict

AnswerSource = Literal["boxed", "stdout", "text"]
Failure = Literal[
    "no_answer", "length", "tool_error", "out_of_range", "generator_error", "out_of_time", "interrupted", "stopped"
]
Fate = Literal["kept", "refuted", "repeated", "outscored", "lost"]

# Ended from outside: by the clock, by a person, because the vote was settled. When the run is resumed, one that had
# no answer yet is made again.
CUT_OFF: frozenset[Failure] = frozenset({"out_of_time", "interrupted", "stopped"})
_NOT_ITS_DOING: frozenset[Failure] = CUT_OFF | {"generator_error"}


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of an attempt: text the model wrote, and what the code at its end printed.

    Attributes:
        text: what the model wrote in this turn.
        code: the program at its end, when there was one to run.
        result: what the program did.
        tool_text: the exact text that was put back into the attempt.
        num_tokens: tokens the model sampled in this turn.
        logprobs: of each sampled token that stands (see `Completion.logprobs`).
        entropies: at each of them, nats.
        top_means: at each of them (see `Completion.top_means`).
        num_discarded: of `num_tokens`, those that do not stand: taken back, or of branches that were given up.
        top5_bits: entropy of the five likeliest tokens at each of them, bits (see `core.confidence.top5_entropies`).
    """

    text: str
    code: str | None = None
    result: ToolResult | None = None
    tool_text: str | None = None
    num_tokens: int = 0
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    top_means: tuple[float, ...] = ()
    num_discarded: int = 0
    top5_bits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewinding:
    """Once that an attempt went back, or let a dead end through.

    Attributes:
        turn: number of its turn, from 0.
        num_kept: tokens of the turn that stood.
        num_dropped: tokens that were taken back; 0 for a dead end that was let through.
        reason: see `core.generation.Rewound`.
        detail: what was found, for a person.
        text: what was taken back.
    """

    turn: int
    num_kept: int
    num_dropped: int
    reason: str
    detail: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """One candidate of a level of a beam search, and what became of it.

    Attributes:
        name: `<level>.<parent's place>.<child>`, unique in the attempt.
        parent: name of the candidate that it continues; None on the first level.
        num_tokens: sampled for its step.
        score: of its whole text, higher is better; None when its step could not be written.
        verdict: of a checker on its step.
        detail: the claim that the verdict is about, for a person.
        fate: "kept" when it stays in the beam, its text finished or not; else why it does not: its step is "refuted",
            it says what a better one says ("repeated"), others are better ("outscored"), or its step could not be
            written ("lost").
    """

    name: str
    parent: str | None
    num_tokens: int
    score: float | None
    verdict: Verdict
    detail: str
    fate: Fate


@dataclass(frozen=True, slots=True)
class BeamLevel:
    """A level of a beam search that is decided: all its candidates, parent by parent."""

    level: int
    candidates: tuple[BeamCandidate, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished try. One that has no answer, or that was cut off, says why in `failure`; it is never a guess.

    The clock or a person may cut an attempt off after its program has printed an answer: then it has both.

    Attributes:
        id: unique in the run, `<problem_id>#<index>`.
        problem_id: the problem it belongs to.
        index: 0, 1, 2, ... within the problem.
        pillar: the way of working: "reasoning", "code", "beam", or a check of others' answers ("sympy_check", ...).
        seed: of its sampling.
        temperature: of its sampling.
        answer: the extracted integer as canonical text, or None.
        answer_source: where the answer was found.
        turns: in order.
        num_tokens: tokens sampled over all turns, whether they stand or not: what it cost.
        elapsed_s: seconds from launch to end, tool time and waiting included.
        features: what `core.confidence.confidence_features` makes of its tokens.
        failure: why there is no answer, or who cut it off, or None.
        parent_id: the attempt this one continues, when it does.
        num_discarded: of `num_tokens`, those that do not stand.
        round: 1 for an attempt that knew nothing of others; later ones were shown answers, and are not independent.
        about: the answers it was shown, or asked to check.
        evidence: what it found on them, when it is a check. A check has no answer and no vote.
        model: name of the model that made it, where a pool has attempts of several; None when the run has one.
    """

    id: str
    problem_id: str
    index: int
    pillar: str
    seed: int
    temperature: float
    answer: str | None
    answer_source: AnswerSource | None
    turns: tuple[Turn, ...]
    num_tokens: int
    elapsed_s: float
    features: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    parent_id: str | None = None
    num_discarded: int = 0
    round: int = 1
    about: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    model: str | None = None

    @property
    def text(self) -> str:
        """All that it wrote, and between it what its programs printed: what a file of attempts keeps of it.

        Output of a turn without text is left out: a recording may keep the last one apart from the text.
        """
        return "".join(turn.text + (turn.tool_text or "") for turn in self.turns if turn.text)

    @property
    def is_check(self) -> bool:
        """Whether it judges answers instead of giving one."""
        return is_check_pillar(self.pillar)

    @property
    def is_independent(self) -> bool:
        """Whether it is a try at the problem that knew nothing of others: no check, and of the first round."""
        return self.round == 1 and not self.is_check

    @property
    def tells_nothing(self) -> bool:
        """Whether it has no answer because it was cut off or the generator failed: it says nothing of the problem."""
        return self.answer is None and self.failure in _NOT_ITS_DOING


def is_check_pillar(pillar: str) -> bool:
    """Whether attempts of a pillar judge answers instead of giving one: the pillars named `..._check`."""
    return pillar.endswith("_check")
