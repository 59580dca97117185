"""A running text's constraint on token level: the `TokenConstraint` that engines ask."""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.proof_sampler.bracket_states import START, States
from mathlete.proof_sampler.token_masks import ENDED, TokenMasks


class TextConstraint:
    """Follows one text, token by token. States are shared and never changed, so going back costs a list's cut."""

    def __init__(self, masks: TokenMasks, text_so_far: str = "") -> None:
        """Begin behind a text.

        Args:
            masks: of the vocabulary and the rules; one object for all texts.
            text_so_far: what stands already. It cannot be taken back, and what is wrong in it is forgiven: where
                it is refused, all that was open is forgotten.
        """
        self._masks = masks
        text = text_so_far.encode("utf-8", errors="replace")
        self._history: list[States] = [masks.tracker.feed_leniently((START,), text)]

    @property
    def states(self) -> States:
        """The readings of the text that are still possible; none once it has ended."""
        return self._history[-1]

    @property
    def terminated(self) -> bool:
        """Whether the text has ended."""
        return self._history[-1] == ENDED

    def accept(self, token_ids: Sequence[int]) -> bool:
        """Take tokens in; False, and no change, when one of them may not come."""
        states, new = self._history[-1], []
        for token_id in token_ids:
            after = self._masks.allows(states, token_id)
            if after is None:
                return False
            states = after
            new.append(states)
        self._history += new
        return True

    def validate(self, token_ids: Sequence[int]) -> int:
        """How many of the tokens, from the first, may come one after another. Changes nothing."""
        states = self._history[-1]
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
        if not 0 <= num_tokens < len(self._history):
            raise ValueError(f"cannot take back {num_tokens} tokens: {len(self._history) - 1} were accepted")
        del self._history[len(self._history) - num_tokens :]

    def fill_mask(self, mask: memoryview) -> None:
        """Set bit `i % 32` of word `i // 32` (format "I") for every id i that may come next, and clear all others.

        Raises:
            ValueError: when the mask is too short for the vocabulary.
        """
        words = self._masks.mask(self._history[-1])
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
        twin._masks, twin._history = self._masks, self._history.copy()
        return twin
