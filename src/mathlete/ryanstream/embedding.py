"""Embeddings: one vector a prompt, from the model's hidden states, computed by the engine like any other requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.hidden_states import HiddenPositions

Pooling = Literal["last", "mean"]

_ONE_TOKEN = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)


def embed(engine: Engine, prompts: Sequence[Sequence[int]], pooling: Pooling = "last") -> Tensor:
    """Hidden states of token ids, pooled, float32 [n, hidden].

    "last" takes the last token's, and whatever prefix the cache holds is not computed again; "mean" needs all
    tokens' states, so the whole prompt is computed.

    Raises:
        EngineError: when requests of others are unfinished (their news would be lost), or for no prompts or one that
            the engine does not take.
    """
    if engine.has_work:
        raise EngineError("embeddings need an idle engine: other requests are unfinished")
    if not prompts:
        raise EngineError("there are no prompts to embed")
    names = [f"embedding/{i}" for i in range(len(prompts))]
    try:
        for name, prompt in zip(names, prompts, strict=True):
            wanted = range(0 if pooling == "mean" else len(prompt) - 1, len(prompt))
            engine.add(name, prompt, _ONE_TOKEN, hidden=HiddenPositions(frozenset(wanted)))
        pooled = _drive(engine)
    except EngineError:
        for name in names:
            engine.abort(request_id=name)
        if engine.has_work:
            engine.step()  # takes the news of the aborts, so that the engine is idle again
        raise
    return torch.stack([pooled[name] for name in names])


def _drive(engine: Engine) -> dict[str, Tensor]:
    """Run all requests to their end; the mean of each one's states. Raises `EngineError` for one that failed."""
    pooled: dict[str, Tensor] = {}
    while engine.has_work:
        for output in engine.step():
            request = output.request
            if output.end is not None and output.end.reason == "error":
                raise EngineError(f"{request.request_id} failed: {output.end.message}")
            pooled[request.request_id] = torch.stack(list(request.hidden.values())).mean(0)
    return pooled
