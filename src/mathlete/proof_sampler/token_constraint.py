"""A running text's constraint on token level: the `TokenConstraint` that engines ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mathlete.core.problem import AnswerKind
from mathlete.proof_sampler.bracket_states import States
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.token_masks import ENDED, TokenMasks


class _Place(NamedTuple):
    """Where a text has got to: its readings there, how many tokens were accepted, and the place one token before."""

    states: States
    num_accepted: int
    before: _Place | None


class ConstraintOrigin(NamedTuple):
    """What `build_constraint` was told: another process makes the same constraint of it."""

    spec: ConstraintSpec
    answer_kind: AnswerKind
    text_so_far: str


class TextConstraint:
    """Follows one text, token by token. Places are shared and never changed: a copy costs the same for any text."""

    def __init__(self, masks: TokenMasks, text_so_far: str = "", origin: ConstraintOrigin | None = None) -> None:
        """Begin behind a text.

        Args:
            masks: of the vocabulary and the rules; one object for all texts.
            text_so_far: what stands already. It cannot be taken back, and what is wrong in it is forgiven: where
                it is refused, all that was open is forgotten.
            origin: what `masks` and text were made of, if that may be asked for.
        """
        self.origin = origin
        self._masks = masks
        self._place = _Place(masks.after_text(text_so_far), 0, None)

    @property
    def states(self) -> States:
        """The readings of the text that are still possible; none once it has ended."""
        return self._place.states

    @property
    def num_accepted(self) -> int:
        """Tokens that were accepted and not taken back."""
        return self._place.num_accepted

    @property
    def terminated(self) -> bool:
        """Whether the text has ended."""
        return self._place.states == ENDED

    def accept(self, token_ids: Sequence[int]) -> bool:
        """Take tokens in; False, and no change, when one of them may not come."""
        place = self._place
        for token_id in token_ids:
            after = self._masks.allows(place.states, token_id)
            if after is None:
                return False
            place = _Place(after, place.num_accepted + 1, place)
        self._place = place
        return True

    def validate(self, token_ids: Sequence[int]) -> int:
        """How many of the tokens, from the first, may come one after another. Changes nothing."""
        states = self._place.states
        for num_accepted, token_id in enumerate(token_ids):
            after = self._masks.allows(states, token_id)
            if after is None:
                return num_accepted
            states = after
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        """Take back the last `num_tokens` accepted ones.

        Raises:
            ValueError: for a negative number, or more than were accepted.
        """
        place = self._place
        if not 0 <= num_tokens <= place.num_accepted:
            raise ValueError(f"cannot take back {num_tokens} tokens: {place.num_accepted} were accepted")
        for _ in range(num_tokens):
            assert place.before is not None
            place = place.before
        self._place = place

    def fill_mask(self, mask: memoryview) -> None:
        """Set bit `i % 32` of word `i // 32` (format "I") for every id i that may come next, and clear all others.

        Raises:
            ValueError: when the mask is too short for the vocabulary.
        """
        words = self._masks.mask(self._place.states)
        if len(mask) == len(words):
            mask[:] = words
            return
        if len(mask) < len(words):
            raise ValueError(f"a mask for {self._masks.vocabulary.size} tokens has {len(words)} words, not {len(mask)}")
        mask[: len(words)] = words
        mask[len(words) :] = memoryview(bytes(4 * (len(mask) - len(words)))).cast("I")

    def copy(self) -> TextConstraint:
        """One in the same state, which goes its own way."""
        twin = object.__new__(TextConstraint)
        twin.origin, twin._masks, twin._place = self.origin, self._masks, self._place
        return twin
