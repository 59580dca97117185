"""When an answer is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cic_pools import attempt, check, pool_of

from mathlete.cic.acceptance import is_accepted, num_independent
from mathlete.core.attempt import Attempt

TWO = pool_of("5", "5", "6")


@pytest.mark.parametrize(
    "attempts, accepted",
    [
        ([*TWO, check(3, "5", "SUPPORTED")], True),
        ([*TWO, check(3, "5", "PROVED", "lean_check")], True),
        ([*TWO, check(3, "5", "SUPPORTED"), check(4, "5", "UNKNOWN")], True),
        (TWO, False),
        ([*TWO, check(3, "5", "UNKNOWN")], False),
        ([*TWO, check(3, "6", "SUPPORTED")], False),
        ([*TWO, check(3, "5", "SUPPORTED"), check(4, "5", "REFUTED", "smt_check")], False),
        ([*TWO, check(3, "5", "SUPPORTED"), check(4, "6", "REFUTED")], True),
        ([*pool_of("5", "6"), check(3, "5", "SUPPORTED")], False),
    ],
)
def test_agreement_and_support_and_no_refutation(attempts: list[Attempt], accepted: bool) -> None:
    assert is_accepted("5", attempts) is accepted


def test_who_is_independent() -> None:
    first, second = pool_of("5", "5")
    assert num_independent("5", [first, second, attempt(2, "6"), check(3, "5", "SUPPORTED")]) == 2
    assert num_independent("5", [first, replace(second, round=2)]) == 1, "it was shown what others found"
    assert num_independent("5", [first, replace(second, parent_id=first.id)]) == 1, "it continues the first"
    siblings = [replace(item, parent_id="p#9") for item in (first, second)]
    assert num_independent("5", siblings) == 1, "both continue a third"
    assert num_independent("5", [first, replace(second, pillar="reasoning")]) == 2
