"""The limits of one attempt, of any pillar, and how its requests are drawn. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mathlete.core.confidence import NUM_TOP_LOGPROBS
from mathlete.core.generation import SamplingParams

_ANSWER_PART, _MAX_ANSWER_TOKENS = 4, 1024


@dataclass(frozen=True, slots=True)
class AttemptConfig:
    """Limits of one attempt.

    Attributes:
        max_tokens: sampled tokens over all turns.
        max_programs: programs that are run.
        top_p: of sampling.
        top_k: of sampling.
        min_p: of sampling.
        thinking_budget: tokens of a `<think>` block before it is closed by force; None for no limit.
        closes_thinking: whether whoever writes can do that; else no budget is made up where none is given.
    """

    max_tokens: int = 1024
    max_programs: int = 4
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    thinking_budget: int | None = None
    closes_thinking: bool = True

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_tokens", "max_programs"):
            if getattr(self, name) < 1:
                raise ValueError(f"AttemptConfig.{name} must be >= 1, not {getattr(self, name)}")

    def with_room_to_answer(self) -> AttemptConfig:
        """Thinking without a budget gets one that leaves a quarter of the tokens, 1,024 at most, for the answer."""
        if self.thinking_budget is not None or not self.closes_thinking:
            return self
        room = min(self.max_tokens // _ANSWER_PART, _MAX_ANSWER_TOKENS)
        return replace(self, thinking_budget=self.max_tokens - room)

    def sampling(self, temperature: float, max_tokens: int, seed: int, stop: tuple[str, ...]) -> SamplingParams:
        """How a request of the attempt is drawn."""
        return SamplingParams(
            temperature=temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            max_tokens=max_tokens,
            seed=seed,
            stop=stop,
            thinking_budget=self.thinking_budget,
            num_logprobs=NUM_TOP_LOGPROBS,
        )
