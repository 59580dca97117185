"""The seams: what the rooms offer each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mathlete.core.attempt import Attempt
from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.generation import GenerateRequest, GeneratorEvent, SamplingParams, TokenConstraint
from mathlete.core.problem import Problem
from mathlete.core.selection import Evidence, Selection
from mathlete.core.trace import TraceEvent

Clock = Callable[[], float]
"""A monotonic clock, seconds. Tests and replays pass their own."""


class Generator(Protocol):
    """A pull-style source of completions; one thread drives it."""

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` when its prompt can never fit."""
        ...

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """Work for a moment (at most about `timeout_s`) and return what happened, maybe nothing."""
        ...

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        ...

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back to its first `num_tokens` output tokens; it goes on with `sampling`.

        Its constraint goes back too. What was told of the tokens taken back (`TokenChunk`) stands no longer.

        Raises:
            EngineError: for an unknown id, more tokens than there are, or other stop strings than before.
        """
        ...

    def close(self) -> None:
        """Release the model. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class CodeDone:
    """A submitted program has ended."""

    run_id: str
    result: ToolResult


class CodeRunner(Protocol):
    """Runs programs in separate, limited processes; never blocks the driving thread."""

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        """Start a program, or queue it when all workers are busy.

        Args:
            run_id: the caller's name for it.
            code: the program.
            limits: its ceilings.
            session: programs of one session see what earlier ones of it defined; a session begins with its first
                program. None for a program that stands alone.
        """
        ...

    def end_session(self, session: str) -> None:
        """Forget what a session's programs defined; one of them that runs is killed. Unknown sessions are ignored."""
        ...

    def poll(self) -> Sequence[CodeDone]:
        """Programs that have ended since the last call."""
        ...

    def cancel(self, run_id: str) -> None:
        """Kill a program; no `CodeDone` follows. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Kill whatever runs. Safe to call twice."""
        ...


class ConstraintFactory(Protocol):
    """Makes the constraint of each request: which tokens may come next."""

    def __call__(self, problem: Problem, written: str) -> TokenConstraint | None:
        """A new constraint that has read `written`, the assistant's turn so far; None for no constraint."""
        ...


@dataclass(frozen=True, slots=True)
class StepChecked:
    """What was found in a piece of text: one `Evidence` for each claim that could be judged or was tried.

    Attributes:
        check_id: which piece of text, or which proof.
        evidence: on its claims, in order.
        spans: where each of these claims stands in that text: index of its first character, index behind its last.
    """

    check_id: str
    evidence: tuple[Evidence, ...]
    spans: tuple[tuple[int, int], ...] = ()


class StepChecker(Protocol):
    """Looks for wrong steps in running text, in processes that can be killed; never blocks the driving thread."""

    def submit(self, check_id: str, text: str, context: str = "") -> None:
        """Start judging the claims of `text`, or queue it.

        Args:
            check_id: the caller's name for it.
            text: what is judged.
            context: what stands directly before it and tells how it is meant; nothing is told of its own claims.
        """
        ...

    def poll(self) -> Sequence[StepChecked]:
        """What was judged since the last call."""
        ...

    def cancel(self, check_id: str) -> None:
        """Forget a check; no `StepChecked` follows. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """End all workers. Safe to call twice."""
        ...


class ProofChecker(Protocol):
    """Has formal proofs checked elsewhere; never blocks the driving thread."""

    def submit(self, check_id: str, statement: str, proof: str) -> None:
        """Start checking a proof, or queue it.

        Args:
            check_id: the caller's name for it.
            statement: what is to be proved, ours.
            proof: what a model wrote.
        """
        ...

    def poll(self) -> Sequence[StepChecked]:
        """What was checked since the last call: one `Evidence` for each proof."""
        ...

    def cancel(self, check_id: str) -> None:
        """Forget a check; no `StepChecked` follows. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """End whatever runs. Safe to call twice."""
        ...


class Selector(Protocol):
    """Chooses one answer from a pool. Pure."""

    @property
    def name(self) -> str:
        """Of the rule, as it stands in a `Selection`."""
        ...

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """The chosen answer. With no answer in the pool, a `Selection` with rule "fallback"."""
        ...


class TraceSink(Protocol):
    """Where events go as they happen."""

    def append(self, event: TraceEvent) -> None:
        """Keep one event. Returns when it is safe against a crash of this process."""
        ...
