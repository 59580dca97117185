"""The thinking budget: where a `<think>` block is open in a stream of tokens, and when its end is put in by force.

Knows markers as token ids and bytes; knows nothing of models, batches or why anyone thinks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThinkingTokens:
    """How a model writes a block of thinking.

    Attributes:
        open_ids: what opens it, `<think>`: one control token, or text of any number of tokens.
        end_ids: what ends it, `</think>`, likewise.
        close_ids: what is put in to end it: `end_ids` and what the model would write around them.
        turn_ids: control tokens that begin or end a turn: in a prompt they end a block, so that what a user wrote
            opens none.
    """

    open_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    turn_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is empty."""
        for name in ("open_ids", "end_ids", "close_ids"):
            if not getattr(self, name):
                raise ValueError(f"ThinkingTokens.{name} must not be empty")


class ThinkingBudget:
    """Follows one request and says which token must come next, if the budget of its open block is spent.

    Markers are looked for in the text that tokens spell, whatever way they cut it; a marker that spells nothing
    is a control token and is known by its id. Each block has the whole budget. Tokens of the block that stand in
    the prompt count (a later turn of the same block). The close comes at once where the budget is spent, also in
    the middle of a word. Its tokens are output like any others: they count towards the limits, and may complete a
    stop string, which then ends the request before the block is closed. A shallow copy goes its own way.
    """

    def __init__(
        self, tokens: ThinkingTokens, token_bytes: Sequence[bytes], budget: int, prompt_ids: Sequence[int]
    ) -> None:
        """Read the prompt, which may end inside a block."""
        self._token_bytes = token_bytes
        self._budget = budget
        self._close_ids = tokens.close_ids
        self._markers = tuple(b"".join(token_bytes[i] for i in ids) for ids in (tokens.open_ids, tokens.end_ids))
        self._control_ids = tuple(
            ids[0] if not raw else None
            for ids, raw in zip((tokens.open_ids, tokens.end_ids), self._markers, strict=True)
        )
        self._is_open = False
        self._num_inside = 0
        self._tail = b""
        self._forced: tuple[int, ...] = ()
        for token_id in prompt_ids:
            if token_id in tokens.turn_ids:
                self._is_open, self._tail = False, b""
            self._read(token_id)
        self._force_if_spent()
        self._start = (self._is_open, self._num_inside, self._tail, self._forced)

    def restarted(self) -> ThinkingBudget:
        """One that has read the prompt and no output yet."""
        fresh = copy.copy(self)
        fresh._is_open, fresh._num_inside, fresh._tail, fresh._forced = self._start
        return fresh

    @property
    def forced_id(self) -> int | None:
        """The token that must come next, or None when the model is free."""
        return self._forced[0] if self._forced else None

    def push(self, token_id: int) -> None:
        """Take the next output token, which is `forced_id` where there is one."""
        if not self._forced:
            self._read(token_id)
            self._force_if_spent()
            return
        assert token_id == self._forced[0], "a forced token was not taken"
        self._forced = self._forced[1:]
        self._read(token_id)
        if not self._forced:
            self._is_open = False  # also when `close_ids` spell the end in a way that is not recognised

    def _force_if_spent(self) -> None:
        if self._is_open and self._num_inside >= self._budget:
            self._forced = self._close_ids

    def _read(self, token_id: int) -> None:
        """Follow the text over one token; a token that opens a block is not yet inside it."""
        was_open = self._is_open
        changed = self._read_control(token_id) if not self._token_bytes[token_id] else self._read_text(token_id)
        if changed:
            self._num_inside = 0
        elif was_open:
            self._num_inside += 1

    def _read_control(self, token_id: int) -> bool:
        self._tail = b""
        if token_id != self._control_ids[self._is_open]:
            return False
        self._is_open = not self._is_open
        return True

    def _read_text(self, token_id: int) -> bool:
        text, changed = self._tail + self._token_bytes[token_id], False
        while (marker := self._markers[self._is_open]) and marker in text:
            text = text[text.index(marker) + len(marker) :]
            self._is_open = not self._is_open
            changed = True
        longest = max(map(len, self._markers))
        self._tail = text[-(longest - 1) :] if longest > 1 else b""
        return changed
