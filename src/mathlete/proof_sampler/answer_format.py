r"""What may stand inside `\boxed{...}` by the problem's answer kind, byte by byte.

For an integer: spaces, "-" where the kind admits negative numbers, digits that can still become an admissible
number, in groups of thousands if one likes ("12,345", "12{,}345", "12\,345"), spaces. That is less than what
`mathlete.verify.extraction` can read ("x = 42", "\frac{84}{2}", "42 \text{ cm}"): a model that may write only this much
writes the number. All that can be completed here is read there as that number, and from every state a few digits and
the closing brace lead out. Expressions and proofs are not narrowed.

States forget what no longer matters: where every number of digits still possible is admissible, the digits
written so far are only counted, so that there are few different states, and masks of tokens can be kept for them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from mathlete.core.problem import AnswerKind

MAX_SPACES = 2
"""Spaces before and after the number, at most: a model cannot get stuck in them."""

_SEPARATORS = frozenset([b",", b",\\!", b"{,}", b"\\,", b"\\!"])
_SPACE, _MINUS = b" -"
_DIGITS = b"0123456789"

Phase = Literal["before", "sign", "digits", "separator", "after"]


class AnswerState(NamedTuple):
    """How far an answer has been written.

    Attributes:
        phase: "before" the number, behind its "sign", in its "digits", in a "separator" of thousands, or "after".
        negative: whether there is a minus sign.
        value: of the digits so far; -1 when it no longer matters.
        num_digits: written so far.
        in_group: digits since the last separator, or since the start; -1 when no separator may follow.
        separated: whether there was a separator.
        pending: bytes of a separator.
        num_spaces: written "before" or "after".
    """

    phase: Phase
    negative: bool = False
    value: int = 0
    num_digits: int = 0
    in_group: int = 0
    separated: bool = False
    pending: bytes = b""
    num_spaces: int = 0


class AnswerFormat:
    """Follows the inside of a box for integers in [low, high]. Has no state of its own."""

    def __init__(self, low: int, high: int) -> None:
        """For one interval. Raises `ValueError` when it is empty."""
        if low > high:
            raise ValueError(f"low ({low}) must not exceed high ({high})")
        self.start = AnswerState("before")
        self._magnitudes = {False: (max(low, 0), high), True: (max(-high, 1), -low)}  # without and with a minus sign

    @classmethod
    def of(cls, kind: AnswerKind) -> AnswerFormat | None:
        """The format of an answer kind; None where nothing is narrowed."""
        return cls(kind.low, kind.high) if kind.type == "integer" else None

    def step(self, state: AnswerState, byte: int) -> AnswerState | None:
        """After one more byte; None when it is refused."""
        if byte == _SPACE:
            return self._space(state)
        if byte in _DIGITS:
            return self._digit(state, byte - _DIGITS[0])
        if byte == _MINUS:
            signed = AnswerState("sign", negative=True)
            return signed if state.phase == "before" and self._leads_on(signed) else None
        return self._separator(state, bytes([byte]))

    def may_close(self, state: AnswerState) -> bool:
        """Whether the number is complete and admissible."""
        if state.phase == "after":
            return True
        low, high = self._magnitudes[state.negative]
        is_whole = state.phase == "digits" and (not state.separated or state.in_group == 3)
        return is_whole and (state.value < 0 or low <= state.value <= high)

    def _space(self, state: AnswerState) -> AnswerState | None:
        if state.phase in ("before", "after"):
            return state._replace(num_spaces=state.num_spaces + 1) if state.num_spaces < MAX_SPACES else None
        return AnswerState("after", num_spaces=1) if self.may_close(state) else None

    def _digit(self, state: AnswerState, digit: int) -> AnswerState | None:
        if state.phase == "after" or (state.separated and state.in_group == 3):
            return None
        if state.phase == "separator":
            if state.pending not in _SEPARATORS:
                return None
            state = state._replace(in_group=0, separated=True)
        value = state.value if state.value < 0 else 10 * state.value + digit
        in_group = -1 if state.in_group < 0 or (state.num_digits == 0 and digit == 0) else state.in_group + 1
        if in_group > 3:
            in_group = -1
        after = AnswerState("digits", state.negative, value, state.num_digits + 1, in_group, state.separated)
        if not self._leads_on(after):
            return None
        return after._replace(value=-1) if self._is_free(after) else after

    def _separator(self, state: AnswerState, byte: bytes) -> AnswerState | None:
        pending = state.pending + byte
        if state.phase not in ("digits", "separator") or not any(s.startswith(pending) for s in _SEPARATORS):
            return None
        if state.in_group != 3 if state.separated else state.in_group < 1:
            return None
        after = state._replace(phase="separator", pending=pending)
        return after if self._leads_on(after) else None

    def _leads_on(self, state: AnswerState) -> bool:
        """Whether some more digits, maybe none, make an admissible number."""
        low, high = self._magnitudes[state.negative]
        if low > high:
            return False
        for num_more in _more_digits(state, len(str(high))):
            unit = 10**num_more
            if state.value < 0 or (state.value * unit <= high and (state.value + 1) * unit > low):
                return True
        return False

    def _is_free(self, state: AnswerState) -> bool:
        """Whether any number of digits still possible makes an admissible number."""
        low, high = self._magnitudes[state.negative]
        most = len(str(high)) - state.num_digits
        return low <= state.value and all((state.value + 1) * 10**more - 1 <= high for more in range(most + 1))


def _more_digits(state: AnswerState, most: int) -> range:
    """How many digits may still come, at most `most` in all."""
    left = most - state.num_digits
    if state.phase == "separator":
        return range(3, left + 1, 3)
    if state.separated:
        return range(3 - state.in_group, left + 1, 3)
    return range(1 if state.phase == "sign" else 0, left + 1)
