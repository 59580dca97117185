"""What a problem of a contest gets: seconds, tokens, attempts. Pure arithmetic over a plan's speeds.

Seconds of all problems are shared evenly; `contest.clock` decides at run time who gets more. Of the tokens that fit
into them `contest.clock.PLANNED_PART` count, since programs, checks and second rounds take time too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.contest.clock import PLANNED_PART
from mathlete.planning.engine_plan import EnginePlan
from mathlete.planning.gpu_placement import GpuLoad, engines_beside
from mathlete.planning.planned import AttemptShape, ContestShape


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Of one problem, between the bad and the good end of the speeds.

    Attributes:
        seconds: an even share of the clock.
        slow_tokens: at the bad end.
        fast_tokens: at the good end.
        mean_new: tokens that an attempt writes on average.
        slow_attempts: whole attempts of that length, at the bad end.
        fast_attempts: at the good end.
        prefill_part: part of the share that goes into the prompt, at the bad end.
        problems_at_once: problems worked on at the same time, so that all places are taken.
        longest_s: seconds that an attempt of full length takes beside so many others, at the bad end.
    """

    seconds: float
    slow_tokens: float
    fast_tokens: float
    mean_new: int
    slow_attempts: int
    fast_attempts: int
    prefill_part: float
    problems_at_once: int
    longest_s: float


def token_budget(
    plans: Sequence[EnginePlan], loads: Sequence[GpuLoad], contest: ContestShape, attempts: AttemptShape
) -> TokenBudget | None:
    """What a problem gets from all engines together; None where an engine cannot run at all."""
    if not plans or not all(plan.running for plan in plans):
        return None
    slow = fast = 0.0
    longest_s = prefill_s = 0.0
    for plan in plans:
        part, speed = engines_beside(plan, loads), plan.speeds[-1]
        slow += speed.slow_tokens_per_s / part
        fast += speed.fast_tokens_per_s / part
        new = plan.attempts.length - plan.attempts.prompt
        longest_s = max(longest_s, new * speed.batch * part / speed.slow_tokens_per_s)
        prefill_s += plan.prefill.slow_s * part
    seconds = contest.solving_s / contest.problems
    slow_tokens, fast_tokens = (PLANNED_PART * seconds * speed for speed in (slow, fast))
    return TokenBudget(
        seconds=seconds,
        slow_tokens=slow_tokens,
        fast_tokens=fast_tokens,
        mean_new=attempts.mean_new,
        slow_attempts=int(slow_tokens / attempts.mean_new),
        fast_attempts=int(fast_tokens / attempts.mean_new),
        prefill_part=prefill_s / seconds,
        problems_at_once=max(1, sum(plan.running for plan in plans) // attempts.attempts),
        longest_s=longest_s,
    )
