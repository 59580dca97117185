"""Numbers that are most likely wrong: a check that accepts them like candidates tells nothing. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

from mathlete.core.problem import AnswerKind

_NEAR = (1, -1, 2, -2, 3, 5, -5, 10, -10, 12)


def choose_decoys(
    candidates: Sequence[int], avoid: Collection[int], kind: AnswerKind, num: int, seed: int
) -> tuple[int, ...]:
    """Half of them close to a candidate, where slips land; half spread over the sizes that candidates have, and beyond.

    Args:
        candidates: that the check will be asked about.
        avoid: further numbers that are no decoys.
        kind: decoys are admissible answers.
        num: how many at most; fewer where the range is small.
        seed: of the choice.
    """
    rng = random.Random(seed)
    taken = {*candidates, *avoid}
    near = [value + step for value in candidates for step in _NEAR]
    near += [2 * value for value in candidates] + [value // 2 for value in candidates]
    rng.shuffle(near)
    chosen = _take(near, num - num // 2, taken, kind)
    largest = min(kind.high, max([kind.low + 20, *(4 * abs(value) for value in candidates)]))
    far = (rng.randint(kind.low, rng.choice((largest, largest, kind.high))) for _ in range(20 * num))
    return tuple(chosen + _take(far, num - len(chosen), taken, kind))


def _take(numbers: Iterable[int], num: int, taken: set[int], kind: AnswerKind) -> list[int]:
    """The first `num` that are admissible and not `taken` yet; they are taken then."""
    chosen: list[int] = []
    for number in numbers:
        if len(chosen) == num:
            break
        if kind.admits(number) and number not in taken:
            taken.add(number)
            chosen.append(number)
    return chosen
