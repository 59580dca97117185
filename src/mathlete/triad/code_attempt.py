"""One attempt of the code pillar, as a state machine: reason, write a program, look at its output, answer.

Pure: it is told what the model wrote and what the program did, and says what is to be done next.
Knows nothing of generators, processes or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mathlete.core.attempt import BeamLevel, Failure, Turn
from mathlete.core.code import ToolResult
from mathlete.core.confidence import NUM_TOP_LOGPROBS, top5_entropies
from mathlete.core.generation import Completion, Finished, GenerateRequest, SamplingParams, Span
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, ConstraintFactory, StepChecked
from mathlete.core.seeds import derive_seed
from mathlete.triad.attempt_ending import NOT_LOOKED_FOR, answer_in, ending, features_of
from mathlete.triad.chat import opening_messages, tool_text
from mathlete.triad.code_blocks import program_at_end
from mathlete.triad.pillar import Continue, Done, RunProgram, Step, turn_of

PILLAR = "code"

# The closing fence of a block, and never the opening one of a Python block: that has the language behind it.
_STOPS = ("```\n",)


@dataclass(frozen=True, slots=True)
class AttemptConfig:
    """Limits of one attempt.

    Attributes:
        max_tokens: sampled tokens over all turns.
        max_programs: programs that are run.
        top_p: of sampling.
        top_k: of sampling.
        min_p: of sampling.
        thinking_budget: tokens of a `<think>` block before it is closed by force; None for no limit.
    """

    max_tokens: int = 1024
    max_programs: int = 4
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_tokens", "max_programs"):
            if getattr(self, name) < 1:
                raise ValueError(f"AttemptConfig.{name} must be >= 1, not {getattr(self, name)}")

    def sampling(self, temperature: float, max_tokens: int, seed: int, stop: tuple[str, ...]) -> SamplingParams:
        """How a request of the attempt is drawn."""
        return SamplingParams(
            temperature=temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            max_tokens=max_tokens,
            seed=seed,
            stop=stop,
            thinking_budget=self.thinking_budget,
            num_logprobs=NUM_TOP_LOGPROBS,
        )


@dataclass(slots=True)
class CodeAttempt:
    """The state of an attempt in flight.

    Attributes:
        problem: what it works on.
        index: its number within the problem.
        run_seed: of the run; the attempt's own noise is derived from it.
        temperature: of sampling.
        started_s: when it was launched, seconds of the run's clock.
        config: limits.
        constraints: what may be written, or None.
        turns: closed turns.
    """

    problem: Problem
    index: int
    run_seed: int
    temperature: float
    started_s: float
    config: AttemptConfig
    constraints: ConstraintFactory | None = None
    turns: list[Turn] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _cut: bool = False
    _num_recorded: int = 0

    @property
    def attempt_id(self) -> str:
        """Unique in the run."""
        return f"{self.problem.id}#{self.index}"

    @property
    def seed(self) -> int:
        """Of this attempt's first turn."""
        return derive_seed(self.run_seed, self.problem.id, self.index, 0)

    @property
    def num_tokens(self) -> int:
        """Tokens sampled in closed turns, those that were taken back included."""
        return sum(turn.num_tokens for turn in self.turns)

    @property
    def num_turns(self) -> int:
        """Closed turns."""
        return len(self.turns)

    def next_requests(self) -> Sequence[GenerateRequest]:
        """The request of the next turn, the only one."""
        return (self.next_request(),)

    def take(self, event: Finished, now_s: float) -> Step:
        """See `on_completion`."""
        return self.on_completion(event.completion, now_s)

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """See `on_result`."""
        return self.on_result(done.result, now_s)

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """Its steps are not checked here. Raises `ValueError`."""
        raise ValueError(f"{self.attempt_id} asked for no check, {checked.check_id!r} at {now_s:.1f} s least of all")

    def refuse(self, request_id: str, now_s: float) -> Step:
        """What the attempt has grown to can never fit: it is over."""
        assert turn_of(request_id) == len(self.turns), "a request of another turn"
        return self.end(now_s, "length")

    def take_turns(self) -> Sequence[Turn]:
        """The turns closed since the last call."""
        turns = self.turns[self._num_recorded :]
        self._num_recorded = len(self.turns)
        return turns

    def take_beam_levels(self) -> Sequence[BeamLevel]:
        """It has no beam."""
        return ()

    def next_request(self) -> GenerateRequest:
        """The request of the next turn."""
        sampling = self.config.sampling(
            self.temperature,
            self.config.max_tokens - self.num_tokens,
            derive_seed(self.run_seed, self.problem.id, self.index, len(self.turns)),
            _STOPS,
        )
        return GenerateRequest(
            request_id=f"{self.attempt_id}/{len(self.turns)}",
            messages=opening_messages(PILLAR, self.problem),
            sampling=sampling,
            continuation=tuple(self._spans),
            group=self.problem.id,
            constraint=None if self.constraints is None else self.constraints(self.problem, self._written()),
        )

    def on_completion(self, completion: Completion, now_s: float) -> Step:
        """What to do with what the model wrote."""
        program = program_at_end("".join(turn.text for turn in self._open_turns()) + completion.text)
        wants_run = program is not None and self._num_programs() < self.config.max_programs
        turn = Turn(
            text=completion.text,
            code=program if wants_run else None,
            num_tokens=len(completion.token_ids) + completion.usage.discarded,
            logprobs=completion.logprobs,
            entropies=completion.entropies,
            top_means=completion.top_means,
            num_discarded=completion.usage.discarded,
            top5_bits=top5_entropies(completion.top_logprobs),
        )
        self.turns.append(turn)
        self._spans.append(Span(completion.text, completion.token_ids))
        self._cut = completion.finish_reason != "stop"
        if completion.finish_reason in ("error", "abort"):
            return self.end(now_s, "generator_error" if completion.finish_reason == "error" else "interrupted")
        if turn.code is not None:
            return RunProgram(turn.code)
        if completion.stop is not None and self.num_tokens < self.config.max_tokens:
            return Continue()  # a fence that closed nothing to be run: let it go on writing
        return self.end(now_s, "length" if self._out_of_tokens(completion) else "no_answer")

    def on_result(self, result: ToolResult, now_s: float) -> Step:
        """What to do with what the program did."""
        shown = tool_text(result)
        last = self.turns[-1]
        if not last.text.endswith("\n"):
            shown = "\n" + shown
        self.turns[-1] = replace(last, result=result, tool_text=shown)
        self._spans.append(Span(shown))
        if self.num_tokens >= self.config.max_tokens:
            return self.end(now_s, "length")
        return Continue()

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt. `failure` says who cut it off, or stands when no answer can be extracted.

        An attempt "stopped" because the vote was settled without it gets no answer.
        """
        kind = self.problem.answer_kind
        found = NOT_LOOKED_FOR if failure == "stopped" else answer_in(self.turns, kind, complete=not self._cut)
        return ending(self, PILLAR, self.turns, found, failure, now_s, features_of(self.turns))

    def _written(self) -> str:
        """The assistant's turn so far, what programs printed included."""
        return "".join(span.text for span in self._spans)

    def _open_turns(self) -> Sequence[Turn]:
        """Turns since the last program was run: a block may be opened in one and closed in the next."""
        start = max((i + 1 for i, turn in enumerate(self.turns) if turn.result is not None), default=0)
        return self.turns[start:]

    def _num_programs(self) -> int:
        return sum(turn.result is not None for turn in self.turns)

    def _out_of_tokens(self, completion: Completion) -> bool:
        return completion.finish_reason == "length" or self.num_tokens >= self.config.max_tokens
