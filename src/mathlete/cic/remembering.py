"""What was reckoned of the last pool, for the next rule that looks at the same one. Pure, as far as anybody can tell.

Many rules choose from one pool, each of them from the same votes. A pool is a tuple of frozen attempts: the same object
is the same pool. A list may have changed in between, so nothing is remembered of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def remember_last(reckon: Callable[[Sequence[Item]], Result]) -> Callable[[Sequence[Item]], Result]:
    """`reckon`, which answers at once when it is asked again for the tuple it was asked for last.

    The tuple is kept until the next one comes. Threads may share it: at worst something is reckoned twice. What is not
    remembered stands behind `__wrapped__`.
    """
    last: tuple[Sequence[Item], Result] | None = None

    @wraps(reckon)
    def remembered(items: Sequence[Item]) -> Result:
        nonlocal last
        known = last
        if known is not None and known[0] is items:
            return known[1]
        result = reckon(items)
        if type(items) is tuple:
            last = (items, result)
        return result

    return remembered
