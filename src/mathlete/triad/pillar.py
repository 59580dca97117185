"""What an attempt of any pillar is to those who drive it, and what it may ask them to do.

An attempt is told what came back (an end of one of its requests, the result of one of its programs) and says what is
to be done next: one `Step` for each thing it was told. It may have several requests and programs under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mathlete.core.attempt import Attempt, BeamLevel, Failure, Turn
from mathlete.core.generation import Finished, GenerateRequest
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, StepChecked


@dataclass(frozen=True, slots=True)
class RunProgram:
    """Run `code`, then call `take_result`.

    Attributes:
        code: the program.
        name: tells the attempt's programs apart; by the turn when empty.
        in_session: whether it sees what earlier programs of the attempt defined.
    """

    code: str
    name: str = ""
    in_session: bool = False


@dataclass(frozen=True, slots=True)
class CheckStep:
    """Have the claims of `text` judged, then call `take_checked`.

    Attributes:
        text: the step.
        name: tells the attempt's checks apart.
        context: what stands before the step and tells how it is meant; its own claims are not judged.
    """

    text: str
    name: str
    context: str


@dataclass(frozen=True, slots=True)
class CheckProof:
    """Have a formal proof checked, then call `take_checked`.

    Attributes:
        statement: what is to be proved.
        proof: what the model wrote.
        name: tells the attempt's checks apart.
    """

    statement: str
    proof: str
    name: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Send `next_requests()`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, until more of what is under way has come back."""


@dataclass(frozen=True, slots=True)
class Done:
    """The attempt is over."""

    attempt: Attempt


Step = RunProgram | CheckStep | CheckProof | Continue | Wait | Done


class PillarAttempt(Protocol):
    """The state of an attempt in flight. Request ids are `<attempt_id>/<turn>` and may go on with a dot."""

    problem: Problem
    index: int
    temperature: float
    started_s: float

    @property
    def attempt_id(self) -> str:
        """Unique in the run."""
        ...

    @property
    def seed(self) -> int:
        """From which its noise is derived."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens sampled by requests that have ended, whether they stand or not."""
        ...

    @property
    def num_turns(self) -> int:
        """Turns begun before the requests that run now."""
        ...

    def next_requests(self) -> Sequence[GenerateRequest]:
        """The requests to be sent, first and after each `Continue`."""
        ...

    def take(self, event: Finished, now_s: float) -> Step:
        """One of its requests has ended."""
        ...

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """One of its programs has ended."""
        ...

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """The claims of one of its steps, or one of its proofs, were judged."""
        ...

    def refuse(self, request_id: str, now_s: float) -> Step:
        """The generator would not take one of its requests: it can never fit."""
        ...

    def take_turns(self) -> Sequence[Turn]:
        """The turns closed since the last call, for the trace; asked after each `Continue`, `Wait` and `Done`."""
        ...

    def take_beam_levels(self) -> Sequence[BeamLevel]:
        """What its beam decided since the last call, for the trace; asked when `take_turns` is."""
        ...

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt, which somebody cut off."""
        ...


def turn_of(request_id: str) -> int:
    """The number of the turn that a request belongs to."""
    return int(request_id.rpartition("/")[2].partition(".")[0])
