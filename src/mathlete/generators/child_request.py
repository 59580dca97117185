"""One request whose engine runs in another process, and may be lost at any time: what was told of it, and its end.

Knows texts and tokens. Does not know what is to be said to a process; `child_ledger` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mathlete.core.generation import Completion, FinishReason, GenerateRequest, SamplingParams, TokenChunk, Usage

NOT_UP = -1
"""The key of a request that no engine has."""

_SUSPECT_DEATHS = 2


@dataclass(slots=True)
class FollowedRequest:
    """A request in flight.

    Attributes:
        first: as it was asked for.
        sampling: that it is drawn with now.
        rewinds: where it went back since its start, tokens growing, and the sampling from there on.
        told: what was told of it, in order.
        num_base: told tokens that stand in its continuation at the engine; it cannot be made from its start then.
        again: of what was told, the characters that the engine has written again; None when nothing is repeated.
        num_again: and the tokens.
        key: of the writing that counts; `NOT_UP` while the engine does not have it.
        num_lost: tokens that the engine drew in vain.
        num_restarts: times it was begun anew, for other noise.
        num_cut: tokens that were taken back last.
        is_aborted: whether its end has been asked for.
        is_replayed: whether it goes back again as it did before.
        is_second: whether what was told has been told by an engine that is lost.
        num_deaths: engines that were lost while they had it.
        num_at_death: tokens that had been told of it when the last of them was.
        is_heard: whether the engine has said anything of it, be it again.
    """

    first: GenerateRequest
    sampling: SamplingParams
    rewinds: list[tuple[int, SamplingParams]] = field(default_factory=list)
    told: list[TokenChunk] = field(default_factory=list)
    num_base: int = 0
    again: str | None = None
    num_again: int = 0
    key: int = NOT_UP
    num_lost: int = 0
    num_restarts: int = 0
    num_cut: int = 0
    is_aborted: bool = False
    is_replayed: bool = False
    is_second: bool = False
    num_deaths: int = 0
    num_at_death: int = 0
    is_heard: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether engines have died with it so often that it may be what kills them."""
        return self.num_deaths >= _SUSPECT_DEATHS

    @property
    def is_cleared(self) -> bool:
        """Whether the engine has survived it so far: its beginning, after one more death all of what it had come to."""
        if self.num_deaths <= _SUSPECT_DEATHS:
            return self.is_heard
        return self.is_new_text and self.num_told > self.num_at_death

    @property
    def is_new_text(self) -> bool:
        """Whether what the engine writes is behind all that was told."""
        return self.key != NOT_UP and self.again is None and not self.is_replayed

    @property
    def text(self) -> str:
        """All that was told."""
        return "".join(chunk.text for chunk in self.told)

    @property
    def num_told(self) -> int:
        """Tokens that were told."""
        return sum(chunk.num_tokens for chunk in self.told)

    def place_of(self, num_tokens: int) -> int | None:
        """How many chunks say exactly the first `num_tokens` tokens, or None."""
        count = 0
        for place, chunk in enumerate(self.told):
            if count >= num_tokens:
                return place if count == num_tokens else None
            count += chunk.num_tokens
        return len(self.told) if count == num_tokens else None

    def text_of(self, num_tokens: int) -> str:
        """What the first `num_tokens` tokens say; they end where a chunk ends."""
        return "".join(chunk.text for chunk in self.told[: self.place_of(num_tokens)])

    def so_far(self, reason: FinishReason, error: str | None = None) -> Completion:
        """What was told of it, as its end."""
        entropies = tuple(value for chunk in self.told for value in chunk.entropies)
        num = self.num_told
        return Completion(
            text=self.text,
            token_ids=(),
            logprobs=(),
            entropies=entropies if len(entropies) == num else (),
            finish_reason=reason,
            usage=Usage(output=num, discarded=self.num_lost),
            error=error,
        )


def joined(followed: FollowedRequest, done: Completion) -> Completion:
    """What was told before an engine was lost, and what the next one wrote behind it."""
    base = followed.told[: followed.place_of(followed.num_base)]
    entropies = (*(value for chunk in base for value in chunk.entropies), *done.entropies)
    num = followed.num_base + done.num_tokens
    usage = replace(
        done.usage,
        prompt=max(done.usage.cached, done.usage.prompt - followed.num_base),
        output=num,
        discarded=done.usage.discarded + followed.num_lost,
    )
    return replace(
        done,
        text="".join(chunk.text for chunk in base) + done.text,
        token_ids=(),
        logprobs=(),
        entropies=entropies if len(entropies) == num else (),
        usage=usage,
        top_means=(),
        top_logprobs=(),
    )


def without(sampling: SamplingParams, num_tokens: int) -> SamplingParams:
    """The sampling of what is left when so many tokens stand already."""
    return replace(sampling, max_tokens=sampling.max_tokens - num_tokens)
