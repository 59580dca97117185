"""Going back: what a request was after its first output tokens, rebuilt from those tokens.

Knows a request's own record: its lists, stop strings, constraint and budget of thinking. Knows nothing of blocks or
queues (`Scheduler.rewind` does).
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.stopping import StopMatcher

# A request goes back in the middle of these: they belong to the text so far, not to what is drawn next.
_FIXED = ("stop", "include_stop", "thinking_budget", "num_logprobs")


def require_rewindable(request: EngineRequest, num_output_tokens: int, sampling: SamplingParams) -> None:
    """Raise `EngineError` unless the request can go back to so many tokens and go on with `sampling`."""
    name, num_output = request.request_id, len(request.output_ids)
    if not 0 <= num_output_tokens <= num_output:
        raise EngineError(f"request {name!r} has {num_output} output tokens: it cannot go back to {num_output_tokens}")
    for field in _FIXED:
        if getattr(sampling, field) != getattr(request.sampling, field):
            raise EngineError(f"request {name!r} must keep its {field} when it goes back")
    if sampling.max_tokens <= num_output_tokens:
        raise EngineError(
            f"request {name!r} would keep {num_output_tokens} tokens and may have {sampling.max_tokens}: nothing is "
            "left to draw. Raise its max_tokens, or go back further"
        )


def rewind_request(
    request: EngineRequest, num_output_tokens: int, sampling: SamplingParams, token_bytes: Sequence[bytes]
) -> None:
    """Make the request what it was after its first `num_output_tokens`, but for `sampling`; see `Engine.rewind`.

    Cost: what is dropped for the constraint, what is kept for stop strings and thinking.

    Raises:
        EngineError: when its constraint cannot go back; nothing has changed then.
    """
    num_dropped = len(request.output_ids) - num_output_tokens
    if request.constraint is not None and num_dropped:
        try:
            request.constraint.rollback(num_dropped)
        except Exception as error:  # constraints are other people's code
            raise EngineError(
                f"request {request.request_id!r} cannot go back by {num_dropped} tokens: its constraint raised "
                f"{type(error).__name__}: {error}"
            ) from error
    for told in (request.output_ids, request.logprobs, request.entropies, request.top_means, request.top_logprobs):
        del told[num_output_tokens:]
    request.hidden = {place: row for place, row in request.hidden.items() if place < request.num_tokens}
    request.sampling = sampling
    request.matcher = StopMatcher(sampling.stop)
    if sampling.stop:
        request.matcher.push(b"".join(token_bytes[token] for token in request.output_ids))
    if request.thinking is not None:
        request.thinking = request.thinking.restarted()
        request.num_forced = 0
        for token in request.output_ids:
            request.num_forced += request.thinking.forced_id is not None
            request.thinking.push(token)
    request.num_charged = min(request.num_charged, request.num_tokens)
    request.num_rewinds += 1
    request.num_discarded += num_dropped
