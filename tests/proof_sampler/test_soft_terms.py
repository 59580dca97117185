from __future__ import annotations

import time

import pytest

from mathlete.core.problem import AnswerKind, Problem
from mathlete.proof_sampler.soft_terms import PUBLISHED, SoftTerms, SoftWeights, soft_terms

PROBLEM = Problem("p", "How many of the $2{,}024$ numbers are divisible by 7?")
NOTHING = SoftTerms(0, 0, 0, 0, 0, 0)


def terms(piece: str, before: str = "", problem: Problem = PROBLEM, weights: SoftWeights = PUBLISHED) -> SoftTerms:
    return soft_terms(piece, before, problem, weights)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("There are 289 of them.", NOTHING),
        ("We get 2,024,001 and then 3000000 again 3000000.", NOTHING._replace(far_number=-4.0)),
        ("2024000 is just within.", NOTHING),
        ("That gives 3.5 and 289.0 and 3.5.", NOTHING._replace(non_integer=-1.0)),
        ("Therefore, thus and THEREFORE.", NOTHING._replace(conclusion=1.0)),
        ("Since n is even, let m = n / 2.", NOTHING._replace(reason=0.6)),
        ("This completes it. $\\blacksquare$ QED", NOTHING._replace(qed=1.0)),
        ("Letters, sincerely, thusly, 3x and x4 and v1.5", NOTHING),
        ("```python\nx = 10**12 + 123456789012 # therefore 3.5\n```\n```output\n99999999999\n```\n", NOTHING),
        ("```python\nx = 99999999999.5", NOTHING),
        ("", NOTHING),
    ],
)
def test_the_published_points(piece: str, expected: SoftTerms) -> None:
    found = terms(piece)
    assert found == pytest.approx(expected)
    assert found.total == pytest.approx(sum(expected))


def test_sentences_written_before() -> None:
    sentence = "The number of multiples is the quotient."
    assert terms(f"{sentence} So it is.", before=f"First.\n{sentence}\nThen").repetition == -2.0
    assert terms(f"{sentence}\n{sentence}\nThe number of  multiples is the quotient.").repetition == -4.0
    assert terms("So $x = 2$.\nSo $x = 2$.", before="So $x = 2$.").repetition == 0.0


def test_decimals_are_fine_where_the_answer_may_have_them() -> None:
    free = Problem("q", "What is the mean?", AnswerKind("expression"))
    assert terms("It is 3.5.", problem=free) == NOTHING


def test_weights_can_be_changed_and_turned_off() -> None:
    weights = SoftWeights(far_factor=1, non_integer=0.0)
    assert terms("2025 or 3.5", weights=weights) == NOTHING._replace(far_number=-2.0)
    with pytest.raises(ValueError, match="SoftWeights.far_factor"):
        SoftWeights(far_factor=0)


def test_a_long_text_takes_no_long_time() -> None:
    start_s = time.perf_counter()
    for hostile in ("1," * 50_000, "9" * 100_000, "a. " * 50_000, "```\n" * 30_001, "1.1" * 30_000):
        assert terms(hostile, before=hostile).total <= 0
    assert time.perf_counter() - start_s < 5
