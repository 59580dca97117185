"""A step of a beam on its way: what was written for it so far, and what stands before it. Pure.

Knows texts, tokens and verdicts. Does not know which candidates survive, nor what is done next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mathlete.core.attempt import Turn
from mathlete.core.code import ToolResult
from mathlete.core.confidence import top5_entropies
from mathlete.core.generation import Completion, Span
from mathlete.core.problem import Problem
from mathlete.core.selection import Evidence, Verdict
from mathlete.proof_sampler.beam import BeamStep, Expansion
from mathlete.triad.chat import tool_text

_CONTEXT_CHARS = 1000
_DECIDING: tuple[Verdict, ...] = ("REFUTED", "PROVED", "SUPPORTED", "UNKNOWN")


class Judgement(NamedTuple):
    """What a checker's evidence on a step comes to, and the claim that decides it, for a person."""

    verdict: Verdict = "UNKNOWN"
    detail: str = ""


@dataclass(slots=True)
class Candidate:
    """A step that is being written.

    Attributes:
        expansion: what it is to the search.
        path: the candidates before it, from the first level on.
        spans: what was written, one for each request.
        logprobs: of its tokens that stand.
        entropies: at each of them, nats.
        top_means: at each of them.
        top5_bits: at each of them.
        num_tokens: that stand.
        num_discarded: that were taken back.
        ends: whether the text is over with it.
        code: the program that it ends with, when that is run.
        result: what the program did.
        tool_text: how that is put into the text.
    """

    expansion: Expansion
    path: tuple[Candidate, ...] = ()
    spans: list[Span] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    top_means: list[float] = field(default_factory=list)
    top5_bits: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_discarded: int = 0
    ends: bool = False
    code: str | None = None
    result: ToolResult | None = None
    tool_text: str | None = None

    @property
    def name(self) -> str:
        """Unique in the attempt."""
        return self.expansion.name

    @property
    def text(self) -> str:
        """What the model wrote for the step."""
        return "".join(span.text for span in self.spans)

    @property
    def whole_text(self) -> str:
        """The step, what its program printed included."""
        return self.text + (self.tool_text or "")

    @property
    def before(self) -> str:
        """All that stands before the step."""
        return "".join(candidate.whole_text for candidate in self.path)

    @property
    def written(self) -> str:
        """All that stands, the step's text included."""
        return self.before + self.text

    @property
    def since_program(self) -> str:
        """What stands behind the last program's output before the step, the step's text included."""
        texts: list[str] = []
        for candidate in self.path:
            if candidate.result is not None:
                texts.clear()
            else:
                texts.append(candidate.text)
        return "".join([*texts, self.text])

    @property
    def continuation(self) -> tuple[Span, ...]:
        """All that stands, as the model's own tokens where they are."""
        spans: list[Span] = []
        for candidate in self.path:
            spans += [*candidate.spans, *([Span(candidate.tool_text)] if candidate.tool_text else [])]
        return (*spans, *self.spans)

    @property
    def num_programs_before(self) -> int:
        """Programs that were run on the path."""
        return sum(candidate.result is not None for candidate in self.path)

    def context(self, problem: Problem) -> str:
        """What tells a checker how the step is meant: the statement, and the last steps before it.

        They are whole steps, so that no formula and no program is cut in two: as few as have 1,000 characters together.
        """
        tail = ""
        for candidate in reversed(self.path):
            if len(tail) >= _CONTEXT_CHARS:
                break
            tail = candidate.whole_text + tail
        return f"{problem.statement.strip()}\n\n{tail}"

    def note(self, completion: Completion) -> None:
        """More was written."""
        self.spans.append(Span(completion.text, completion.token_ids, by_model=True))
        self.logprobs += completion.logprobs
        self.entropies += completion.entropies
        self.top_means += completion.top_means
        self.top5_bits += top5_entropies(completion.top_logprobs)
        self.num_tokens += completion.num_tokens
        self.num_discarded += completion.usage.discarded

    def note_result(self, result: ToolResult) -> None:
        """Its program has ended: what it printed belongs to the step."""
        shown = tool_text(result)
        self.result, self.tool_text = result, shown if self.text.endswith("\n") else "\n" + shown

    def step(self, judgement: Judgement, reward: float) -> BeamStep:
        """The step, complete, for the search."""
        return BeamStep(
            name=self.name,
            text=self.whole_text,
            sum_logprob=sum(self.logprobs),
            num_tokens=self.num_tokens,
            ends=self.ends,
            verdict=judgement.verdict,
            detail=judgement.detail,
            reward=reward,
        )

    def turn(self) -> Turn:
        """The step, for the trace."""
        return Turn(
            text=self.text,
            code=self.code,
            result=self.result,
            tool_text=self.tool_text,
            num_tokens=self.num_tokens + self.num_discarded,
            logprobs=tuple(self.logprobs),
            entropies=tuple(self.entropies),
            top_means=tuple(self.top_means),
            num_discarded=self.num_discarded,
            top5_bits=tuple(self.top5_bits),
        )


def judgement_of(evidence: Sequence[Evidence]) -> Judgement:
    """One refuted claim refutes a step; it is supported when a claim is, and only then; else nothing is known of it."""
    for verdict in _DECIDING:
        for item in evidence:
            if item.verdict == verdict:
                said = item.detail or item.failure
                detail = f"{item.claim}: {said}" if said else item.claim
                return Judgement("SUPPORTED" if verdict == "PROVED" else verdict, detail)
    return Judgement()


def with_discarded(turn: Turn, num_tokens: int) -> Turn:
    """The turn, with so many tokens more that were sampled and do not stand."""
    return replace(turn, num_tokens=turn.num_tokens + num_tokens, num_discarded=turn.num_discarded + num_tokens)
