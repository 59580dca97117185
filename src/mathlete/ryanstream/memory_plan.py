"""How full the KV cache will get. Pure arithmetic over expected lengths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mathlete.ryanstream.kv_cache import BLOCK_SIZE
from mathlete.ryanstream.request import EngineRequest


class Expected(NamedTuple):
    """A request's future.

    Attributes:
        remaining: tokens it is expected to draw yet.
        num_own: blocks that it will give back, beside those it grows by: not the prompt's, which siblings share.
    """

    remaining: float
    num_own: int


def expected(request: EngineRequest) -> Expected:
    """What is expected of a request now."""
    return Expected(request.expected_remaining, len(request.output_ids) // BLOCK_SIZE)


def peak_blocks(num_used: int, requests: Iterable[Expected]) -> float:
    """Blocks in use at the fullest moment to come, if all draw a token a step and nobody joins them.

    It is fullest just before one of them ends, so only those moments are looked at. (The estimate of future memory
    of the Past-Future scheduler, Gong et al., ASPLOS 2025, at expected lengths instead of sampled ones.)
    """
    ordered = sorted(requests)
    peak, num_freed = float(num_used), 0
    for num_ended, request in enumerate(ordered):
        growing = len(ordered) - num_ended
        peak = max(peak, num_used - num_freed + growing * request.remaining / BLOCK_SIZE)
        num_freed += request.num_own
    return peak
