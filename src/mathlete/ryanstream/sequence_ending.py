"""What a step's token does to its request: it becomes output, and may end the request.

Knows end of text, stop strings, constraints, think blocks and limits; knows nothing of blocks, queues or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.ryanstream.constraints import constraint_error, told_constraint
from mathlete.ryanstream.request import EngineRequest, RequestEnd
from mathlete.ryanstream.runner import SampledToken
from mathlete.ryanstream.sampling import NOTHING_ALLOWED


class SequenceEnding:
    """Judges the tokens of all requests of one engine."""

    def __init__(self, eos_token_ids: Sequence[int], token_bytes: Sequence[bytes], max_model_len: int) -> None:
        """See `Engine`."""
        self._eos = frozenset(eos_token_ids)
        self._token_bytes = token_bytes
        self._max_model_len = max_model_len

    def take(self, request: EngineRequest, token: SampledToken) -> RequestEnd | None:
        """Append the token to the request's output, unless something failed; the request's end, if this is it."""
        if token.token_id < 0:
            return _nothing_drawn(request, token.token_id)
        constrained = told_constraint(request, token.token_id)
        if constrained is not None and constrained.reason == "error":
            return constrained
        request.output_ids.append(token.token_id)
        request.logprobs.append(token.logprob)
        request.entropies.append(token.entropy)
        request.top_means.append(token.top_mean)
        if request.sampling.num_logprobs:
            request.top_logprobs.append(token.top)
        if request.thinking is not None:
            request.num_forced += request.forced_id is not None
            request.thinking.push(token.token_id)
        return self._stopped(request, token.token_id) or constrained or self._too_long(request)

    def _stopped(self, request: EngineRequest, token_id: int) -> RequestEnd | None:
        ends_text = token_id in self._eos and not request.sampling.ignore_eos
        if ends_text or token_id in request.sampling.stop_token_ids:
            return RequestEnd("stop")
        if request.sampling.stop:
            match = request.matcher.push(self._token_bytes[token_id])
            if match is not None:
                return RequestEnd("stop", match.stop, match.end if request.sampling.include_stop else match.start)
        return None

    def _too_long(self, request: EngineRequest) -> RequestEnd | None:
        full = len(request.output_ids) >= request.sampling.max_tokens or request.num_tokens >= self._max_model_len
        return RequestEnd("length") if full else None


def _nothing_drawn(request: EngineRequest, token_id: int) -> RequestEnd:
    if token_id != NOTHING_ALLOWED:
        return RequestEnd("error", message="the model's logits were not numbers")
    return constraint_error(request, request.constraint_failure or "it allows no token that the model could draw")
