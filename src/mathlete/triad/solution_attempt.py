"""One attempt at a solution as one text, as a state machine: reason, run the programs it writes, answer.

What pillars of this kind differ in is a `PillarSpec`: "code" is program of thought (write a program, look at its
output, correct it, over several turns), "reasoning" is text alone, with a block of thinking where the model has one.
Pure: it is told what the model wrote and what the program did, and says what is to be done next. Knows nothing of
generators, processes or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mathlete.core.attempt import Failure, Turn
from mathlete.core.code import ToolResult
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, Span
from mathlete.core.protocols import CodeDone, ConstraintFactory, StepChecked
from mathlete.triad.attempt_ending import NOT_LOOKED_FOR, answer_in, ending, features_of
from mathlete.triad.chat import opening_messages, tool_text
from mathlete.triad.code_blocks import program_at_end
from mathlete.triad.pillar import Continue, Done, RunProgram, Step
from mathlete.triad.turn_by_turn import TurnByTurn, failure_of, turn_from


@dataclass(frozen=True, slots=True)
class PillarSpec:
    """A way of working on a solution.

    Attributes:
        name: of the pillar.
        runs_programs: whether programs in the text are run, and what they print is put back.
        stops: strings at which it is looked whether there is a program to run.
        closes_thinking: whether thinking is closed in time for an answer also where nobody gave it a budget.
        one_pass: whether it is over with its first program's output, right or wrong.
        prompts: what its prompt files begin with, its name when empty.
        round2_prompt: what the prompt file of its second round begins with, likewise.
    """

    name: str
    runs_programs: bool
    stops: tuple[str, ...] = ()
    closes_thinking: bool = False
    one_pass: bool = False
    prompts: str = ""
    round2_prompt: str = ""


# The closing fence of a block, and never the opening one of a Python block: that has the language behind it.
CODE = PillarSpec("code", runs_programs=True, stops=("```\n",))
REASONING = PillarSpec("reasoning", runs_programs=False, closes_thinking=True)


@dataclass(slots=True)
class SolutionAttempt(TurnByTurn):
    """The state of an attempt in flight.

    Attributes:
        constraints: what may be written, or None.
        spec: the pillar.
        opening: the chat that opens it; its pillar's first-round prompts when empty.
    """

    constraints: ConstraintFactory | None = None
    spec: PillarSpec = CODE
    opening: tuple[Message, ...] = ()
    _spans: list[Span] = field(default_factory=list)
    _cut: bool = False

    def __post_init__(self) -> None:
        """See to it that thinking ends."""
        if self.spec.closes_thinking:
            self.config = self.config.with_room_to_answer()

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

    def next_request(self) -> GenerateRequest:
        """The request of the next turn."""
        sampling = self.config.sampling(
            self.temperature,
            self.config.max_tokens - self.num_tokens,
            self.seed_of(len(self.turns)),
            self.spec.stops,
        )
        return GenerateRequest(
            request_id=f"{self.attempt_id}/{len(self.turns)}",
            messages=self.opening or opening_messages(self.spec.prompts or self.spec.name, self.problem),
            sampling=sampling,
            continuation=tuple(self._spans),
            group=self.problem.id,
            constraint=None if self.constraints is None else self.constraints(self.problem, self._written()),
        )

    def on_completion(self, completion: Completion, now_s: float) -> Step:
        """What to do with what the model wrote."""
        turn = replace(turn_from(completion), code=self._program_at_end(completion.text))
        self.turns.append(turn)
        self._spans.append(Span(completion.text, completion.token_ids, by_model=True))
        self._cut = completion.finish_reason != "stop"
        if (failure := failure_of(completion)) is not None:
            return self.end(now_s, failure)
        if turn.code is not None:
            return RunProgram(turn.code, in_session=True)
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
        if self.spec.one_pass:
            return self.end(now_s, "no_answer")
        return Continue()

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt. `failure` says who cut it off, or stands when no answer can be extracted.

        An attempt "stopped" because the vote was settled without it gets no answer.
        """
        kind = self.problem.answer_kind
        found = NOT_LOOKED_FOR if failure == "stopped" else answer_in(self.turns, kind, complete=not self._cut)
        return ending(self, self.spec.name, self.turns, found, failure, now_s, features_of(self.turns))

    def _written(self) -> str:
        """The assistant's turn so far, what programs printed included."""
        return "".join(span.text for span in self._spans)

    def _open_turns(self) -> Sequence[Turn]:
        """Turns since the last program was run: a block may be opened in one and closed in the next."""
        start = max((i + 1 for i, turn in enumerate(self.turns) if turn.result is not None), default=0)
        return self.turns[start:]

    def _program_at_end(self, written: str) -> str | None:
        """The program that is to be run, when what was just written completes one."""
        num_run = sum(turn.result is not None for turn in self.turns)
        if not self.spec.runs_programs or num_run >= self.config.max_programs:
            return None
        return program_at_end("".join(turn.text for turn in self._open_turns()) + written)

    def _out_of_tokens(self, completion: Completion) -> bool:
        return completion.finish_reason == "length" or self.num_tokens >= self.config.max_tokens
