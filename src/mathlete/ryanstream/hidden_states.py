"""Hidden states on request: which positions of a request they are kept for, and embeddings of whole prompts.

A position counts tokens from 0, prompt first, then output. Its hidden state is what the output head reads when that
token has been computed (the last layer's output after the final norm): the one that predicts the next token. The last
token that is drawn is never computed, so it has none.

The KV cache holds no hidden states. A request therefore takes no tokens from the cache from its first wanted position
on: they are computed again. One that wants the last token of its prompt only loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HiddenPositions:
    """Which hidden states a request keeps.

    Attributes:
        prompt: positions in the prompt.
        outputs: whether to keep those of all output tokens too.
    """

    prompt: frozenset[int] = frozenset()
    outputs: bool = False

    def within(self, start: int, end: int, num_prompt: int) -> list[int]:
        """Wanted positions in [start, end) of a request with `num_prompt` prompt tokens, in order."""
        in_prompt = sorted(position for position in self.prompt if start <= position < end)
        return [*in_prompt, *(range(max(start, num_prompt), end) if self.outputs else ())]

    def first_missing(self, num_prompt: int, num_tokens: int, found: Collection[int]) -> int:
        """The first wanted position that is not among `found`; `num_tokens` when there is none."""
        wanted = self.within(0, num_tokens, num_prompt)
        return next((position for position in wanted if position not in found), num_tokens)
