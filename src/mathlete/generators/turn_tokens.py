"""An assistant's turn in token ids: how it goes on from what was sampled, and how thinking in it begins and ends.

Knows a tokenizer and spans; knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.generation import Span
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.thinking import ThinkingTokens


def thinking_tokens(tokenizer: EngineTokenizer) -> ThinkingTokens:
    """`<think>` and `</think>` as the model writes them: control tokens where it has them, else plain text."""

    def ids(marker: str) -> tuple[int, ...]:
        control = tokenizer.control_tokens.get(marker)
        return tuple(tokenizer.encode(marker)) if control is None else (control,)

    end = ids("</think>")
    if "</think>" in tokenizer.control_tokens:
        close = [*tokenizer.encode("\n"), *end, *tokenizer.encode("\n\n")]
    else:
        close = tokenizer.encode("\n</think>\n\n")  # as a model would cut it
    others = frozenset(tokenizer.control_tokens.values()) - {*ids("<think>"), *end}
    return ThinkingTokens(ids("<think>"), end, tuple(close), others)


def continuation_ids(tokenizer: EngineTokenizer, spans: Sequence[Span]) -> list[int]:
    """The assistant's turn so far: sampled ids as they were sampled, the rest of the text encoded.

    Ids whose text goes beyond the span's (a stop string ended inside a token) and the end-of-text id are left out.
    """
    ids: list[int] = []
    for span in spans:
        kept, rest = tokenizer.covered_prefix(span.token_ids, span.text)
        ids += [*kept, *tokenizer.encode(rest)]
    return ids
