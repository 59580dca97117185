"""The tokenizer that vLLM has loaded, as Mathlete uses one: text never becomes a control token, ids have bytes.

Knows what a tokenizer of the `tokenizers` library looks like inside vLLM; imports no vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mathlete.core.errors import EngineError
from mathlete.ryanstream.model.tokenizer import EngineTokenizer, end_token_ids, split_control_tokens


def engine_tokenizer(tokenizer: Any, generation_config: Mapping[str, Any]) -> EngineTokenizer:
    """Mathlete's view of a tokenizer.

    Args:
        tokenizer: vLLM's own; one of Hugging Face's "fast" ones.
        generation_config: of the model; its `eos_token_id`, one or several, end a text as the tokenizer's own does, and
            those that are known by name.

    Raises:
        EngineError: the tokenizer is of another kind, and what its tokens spell cannot be known.
        ModelError: it is neither byte-level BPE nor SentencePiece BPE.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EngineError(
            "vLLM has loaded a tokenizer that does not tell what each token spells: it must be one of the "
            f"`tokenizers` library (tokenizer.json), not {type(tokenizer).__name__}"
        )
    parts = split_control_tokens(backend.to_str())
    ends = generation_config.get("eos_token_id") or []
    given = [*([ends] if isinstance(ends, int) else ends), tokenizer.eos_token_id]
    return EngineTokenizer(*parts[:2], end_token_ids(parts.control_tokens, given), parts.spoken_ids)
