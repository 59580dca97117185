"""A token constraint for tests: a walk over states, each with its tokens; also in ways that break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class TokenWalk:
    """From a state, a token leads on to the next; where a state has no tokens the walk is terminated."""

    def __init__(self, steps: Mapping[int, Mapping[int, int]]) -> None:
        self.steps = steps
        self.states = [0]
        self.accepted: list[int] = []

    @property
    def terminated(self) -> bool:
        return not self.steps.get(self.states[-1])

    def accept(self, token_ids: Sequence[int]) -> bool:
        if self.validate(token_ids) < len(token_ids):
            return False
        for token_id in token_ids:
            self.states.append(self.steps[self.states[-1]][token_id])
            self.accepted.append(token_id)
        return True

    def validate(self, token_ids: Sequence[int]) -> int:
        state = self.states[-1]
        for place, token_id in enumerate(token_ids):
            following = self.steps.get(state, {}).get(token_id)
            if following is None:
                return place
            state = following
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        if num_tokens > len(self.accepted):
            raise ValueError(f"only {len(self.accepted)} tokens were accepted")
        if num_tokens:
            del self.states[-num_tokens:], self.accepted[-num_tokens:]

    def fill_mask(self, mask: memoryview) -> None:
        for token_id in self.steps.get(self.states[-1], {}):
            mask[token_id // 32] |= 1 << token_id % 32

    def copy(self) -> TokenWalk:
        twin = TokenWalk(self.steps)
        twin.states, twin.accepted = [*self.states], [*self.accepted]
        return twin


def looping(token_ids: Sequence[int]) -> dict[int, dict[int, int]]:
    """Any of these tokens, for ever."""
    return {0: dict.fromkeys(token_ids, 0)}


def counted(choices: Sequence[Sequence[int]]) -> dict[int, dict[int, int]]:
    """One of the first tokens, then one of the second, ..., then the end."""
    return {place: dict.fromkeys(token_ids, place + 1) for place, token_ids in enumerate(choices)}
