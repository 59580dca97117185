"""One check of answers that others found, as a state machine: one request to the model, at most one program.

A check has no answer and no vote; it ends with evidence on the answers that it is about. What checks differ in is a
`CheckMethod`: what the model is asked, and what its text, or the program in it, says. Pure, as every attempt is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mathlete.core.attempt import Failure
from mathlete.core.code import ToolResult
from mathlete.core.generation import Finished, GenerateRequest, Message, Span
from mathlete.core.protocols import CodeDone, StepChecked
from mathlete.core.selection import Evidence
from mathlete.triad.attempt_ending import check_ending
from mathlete.triad.pillar import Done, RunProgram, Step
from mathlete.triad.turn_by_turn import TurnByTurn, failure_of, turn_from


@dataclass(frozen=True, slots=True)
class CheckProgram:
    """What a model's text holds that is to be run.

    Attributes:
        source: what the model wrote.
        program: what is run: the source with the harness around it.
    """

    source: str
    program: str


class CheckMethod(Protocol):
    """A way of checking. Pure."""

    @property
    def pillar(self) -> str:
        """Its name, `..._check`."""
        ...

    @property
    def max_tokens(self) -> int:
        """Sampled tokens at most."""
        ...

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end the text."""
        ...

    @property
    def start(self) -> str:
        """How the assistant's turn begins before the model writes."""
        ...

    def messages(self) -> tuple[Message, ...]:
        """What the model is asked."""
        ...

    def read(self, text: str, *, complete: bool) -> CheckProgram | tuple[Evidence, ...]:
        """What the text, `start` included, asks to be run, or says by itself. `complete`: it came to its own end."""
        ...

    def judge(self, found: CheckProgram, result: ToolResult) -> tuple[Evidence, ...]:
        """What the program's run says."""
        ...

    def silent(self, failure: str, reason: str) -> tuple[Evidence, ...]:
        """UNKNOWN on each answer: the check came to nothing."""
        ...


@dataclass(slots=True)
class CheckAttempt(TurnByTurn):
    """The state of a check in flight.

    Attributes:
        method: what is asked, and what it means.
    """

    method: CheckMethod
    _found: CheckProgram | None = None

    def next_requests(self) -> Sequence[GenerateRequest]:
        """Its one request."""
        max_tokens = min(self.method.max_tokens, self.config.max_tokens)
        start = self.method.start
        return (
            GenerateRequest(
                request_id=f"{self.attempt_id}/0",
                messages=self.method.messages(),
                sampling=self.config.sampling(self.temperature, max_tokens, self.seed, self.method.stops),
                continuation=(Span(start),) if start else (),
                group=self.problem.id,
            ),
        )

    def take(self, event: Finished, now_s: float) -> Step:
        """The model has written."""
        completion = event.completion
        self.turns.append(turn_from(completion, self.method.start))
        if (failure := failure_of(completion)) is not None:
            return self.end(now_s, failure)
        found = self.method.read(self.turns[0].text, complete=completion.finish_reason == "stop")
        if isinstance(found, CheckProgram):
            self._found = found
            self.turns[0] = replace(self.turns[0], code=found.source)
            return RunProgram(found.program)
        return self._done(now_s, found, "length" if completion.finish_reason == "length" else "no_answer")

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """Its program has ended."""
        assert self._found is not None, "a program ran that nobody asked for"
        self.turns[0] = replace(self.turns[0], result=done.result)
        evidence = self.method.judge(self._found, done.result)
        return self._done(now_s, evidence, "no_answer" if done.result.status == "ok" else "tool_error")

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """Its steps are not checked. Raises `ValueError`."""
        raise ValueError(f"{self.attempt_id} asked for no check, {checked.check_id!r} at {now_s:.1f} s least of all")

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the check, which came to nothing: `failure` says why."""
        return self._done(now_s, self.method.silent(failure, "the check was not finished"), failure)

    def _done(self, now_s: float, evidence: tuple[Evidence, ...], failure: Failure) -> Done:
        """`failure` stands when there is no verdict."""
        return check_ending(self, self.method.pillar, self.turns, evidence, failure, now_s)
