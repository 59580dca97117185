"""How fast a session generates and how long its attempts are, so that no more are begun than the clock affords."""

from __future__ import annotations

from mathlete.contest.clock import attempts_affordable
from mathlete.core.attempt import CUT_OFF, Attempt

# Of the tokens that an attempt may take, until some have ended: the embedded model took 340 to 650 of 1,024 on
# competition problems (LOG.md).
_EXPECTED_PART = 0.44
_NUM_EXPECTED = 4  # the expectation weighs as much as this many attempts
_MIN_TOKENS, _MIN_S = 1000, 5.0  # before that the session's own speed says little


class Pace:
    """Speed and lengths, from what has happened so far."""

    def __init__(self, wanted: int, tokens_per_s: float | None, max_tokens: int) -> None:
        """Know what is known beforehand.

        Args:
            wanted: attempts a problem at most.
            tokens_per_s: of all attempts together, or None.
            max_tokens: that an attempt may take.
        """
        self._wanted = wanted
        self._tokens_per_s = tokens_per_s
        self._num_tokens, self._num_attempts = _EXPECTED_PART * max_tokens * _NUM_EXPECTED, float(_NUM_EXPECTED)

    @property
    def tokens_per_s(self) -> float | None:
        """Of all attempts together; None while no speed is known."""
        return self._tokens_per_s

    @property
    def tokens_per_attempt(self) -> float:
        """That an attempt takes on average."""
        return self._num_tokens / self._num_attempts

    def note(self, attempt: Attempt) -> None:
        """Learn from an attempt that has ended."""
        if attempt.failure not in CUT_OFF and attempt.num_tokens and not attempt.is_check:
            self._num_tokens += attempt.num_tokens
            self._num_attempts += 1

    def note_speed(self, num_tokens: int, seconds: float) -> None:
        """Learn from the session as a whole, once it has gone on for a while."""
        if num_tokens >= _MIN_TOKENS and seconds >= _MIN_S:
            self._tokens_per_s = num_tokens / seconds

    def affordable(self, remaining_s: float, num_problems: int, tokens_left: int | None = None) -> int | None:
        """Attempts that each of `num_problems` can get, perhaps 0; None where neither speed nor tokens are known."""
        in_tokens = self._wanted
        if tokens_left is not None:
            in_tokens = int(tokens_left / (max(1, num_problems) * self.tokens_per_attempt))
        if self._tokens_per_s is None:
            return None if tokens_left is None else min(self._wanted, in_tokens)
        in_time = attempts_affordable(
            remaining_s,
            tokens_per_s=self._tokens_per_s,
            num_problems=max(1, num_problems),
            tokens_per_attempt=self.tokens_per_attempt,
            wanted=self._wanted,
        )
        return min(in_time, in_tokens)
