"""The private score of AIMO-3: two runs over the same problems, 1 point where both are right, 0.5 where one is.

Pure; knows answers and golds, not where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from mathlete.verify.integers import answers_equal


def two_run_points(first_is_right: bool, second_is_right: bool) -> float:
    """Points of one problem: 1 when both runs are right, 0.5 when one is, 0 when none is."""
    return (first_is_right + second_is_right) / 2


def two_run_score(first: Mapping[str, str], second: Mapping[str, str], golds: Mapping[str, str]) -> float:
    """Points of two runs, summed over the problems that have a gold.

    Args:
        first: the answers that one run handed in, by problem id; a problem that it has no answer to is wrong.
        second: those of the other run.
        golds: the right answers, by problem id. Answers to other problems count for nothing.
    """
    return two_run_score_of_right(right_ids(first, golds), right_ids(second, golds))


def two_run_score_of_right(first: Collection[str], second: Collection[str]) -> float:
    """The same from the ids of the problems that each run got right."""
    one, other = set(first), set(second)
    return math.fsum(two_run_points(key in one, key in other) for key in one | other)


def right_ids(answers: Mapping[str, str], golds: Mapping[str, str]) -> frozenset[str]:
    """The problems with a gold whose answer is right, compared as integers where both are."""
    return frozenset(key for key, gold in golds.items() if key in answers and answers_equal(answers[key], gold))
