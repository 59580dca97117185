"""What a decision event keeps: the action, and what its policy saw beyond the attempts, which the trace has anyway.

With it a state can be rebuilt from a trace, and the same policy asked again. Knows actions and states; does not know
why a policy decides as it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mathlete.core.attempt import Attempt
from mathlete.core.policy import Action, Launch, Launched, Outlook, PoolState, Stop
from mathlete.core.problem import Problem


@dataclass(frozen=True, slots=True)
class Seen:
    """What a policy saw of a `PoolState` beyond problem, attempts and what is in flight; fields are those of it.

    Attributes:
        num_finished: attempts that it saw.
        num_in_flight: attempts in flight.
        num_launched: attempts launched so far.
        elapsed_s: seconds since the problem was opened.
        remaining_s: seconds left of the problem's share of the clock.
        affordable: attempts that the clock had room for.
        num_tokens: sampled for the problem.
        outlook: of the whole run.
    """

    num_finished: int
    num_in_flight: int
    num_launched: int
    elapsed_s: float
    remaining_s: float
    affordable: int | None
    num_tokens: int
    outlook: Outlook | None

    def state(self, problem: Problem, attempts: Sequence[Attempt], in_flight: Sequence[Launched]) -> PoolState:
        """The state that was seen, with the attempts that the trace tells of."""
        return PoolState(
            problem, tuple(attempts), self.num_in_flight, self.num_launched, self.elapsed_s, self.remaining_s,
            self.affordable, tuple(in_flight), self.num_tokens, self.outlook,
        )  # fmt: skip


def encode_decision(action: Action, state: PoolState, num_begun: int) -> dict[str, Any]:
    """The data of a "decision" event.

    Args:
        action: what was decided.
        state: what was seen.
        num_begun: attempts that a launch began: for as many there were slots. 0 of other actions.
    """
    seen = asdict(
        Seen(
            len(state.attempts), state.num_in_flight, state.num_launched, state.elapsed_s, state.remaining_s,
            state.affordable, state.num_tokens, state.outlook,
        )
    )  # fmt: skip
    if isinstance(action, Launch):
        return {"action": "launch", **asdict(action), "n": num_begun, "asked": action.n, "seen": seen}
    if isinstance(action, Stop):
        return {"action": "stop", "reason": action.reason, "seen": seen}
    return {"action": "wait", "seen": seen}


def decode_seen(data: Mapping[str, Any]) -> Seen | None:
    """What a decision saw; None where it was recorded before decisions told."""
    seen = data.get("seen")
    if seen is None:
        return None
    outlook = seen["outlook"]
    return Seen(**{**seen, "outlook": None if outlook is None else Outlook(**outlook)})
