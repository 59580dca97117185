"""Equivalence on real data: 27,000 answers of 43 models with their source's verdict, and the golds of MATH-500."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from mathlete.verify.algebra_process import AlgebraProcess
from mathlete.verify.equivalence import equivalent

pytestmark = pytest.mark.shared
SHARED = Path(__file__).parents[2].parent / "shared"

# Unevaluated, and right: the source counts only digits.
RIGHT_ALL_THE_SAME = {
    ("-1", r"\frac{a-1}{1-a}"),
    ("-1", "i + i^2 + i^3"),
    ("5120", "10 * 2^9"),
    ("117649", "7^{6}"),
    ("9604", "7^4 * 4"),
}


def rows(name: str) -> list[dict]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def algebra() -> Iterator[AlgebraProcess]:
    with AlgebraProcess() as process:
        yield process


def test_agreement_with_the_source_on_answers_of_43_models(algebra: AlgebraProcess) -> None:
    problems = rows("traces/zeroeval_math_l5.jsonl")
    told = Counter(
        (problem["gold"], attempt["answer"], attempt["correct"])
        for problem in problems[::6]
        for attempt in problem["attempts"]
        if attempt["answer"] is not None
    )
    agreed, unknown = 0, 0
    for (gold, answer, correct), count in told.items():
        found = equivalent(gold, answer, algebra)
        unknown += count * (found.verdict == "UNKNOWN")
        if (found.verdict == "SAME") == correct:
            agreed += count
        else:
            assert (gold, answer) in RIGHT_ALL_THE_SAME
    total = sum(told.values())
    assert total > 4_000
    assert agreed / total >= 0.999
    assert unknown / total <= 0.05


def variants(gold: str) -> Iterator[str]:
    yield from (gold, f"${gold}$", rf"\boxed{{{gold}}}", f"**{gold}**", rf"\( {gold} \)", f"  {gold} .")
    yield from (f"The answer is {gold}", rf"\text{{Answer: }}{gold}", gold.replace(r"\frac", r"\dfrac"))
    yield gold.replace(r"\left", "").replace(r"\right", "")
    if re.fullmatch("-?[0-9]+", gold):
        yield from (gold + ".0", f"x = {gold}", rf"\frac{{{2 * int(gold)}}}{{2}}", f"{int(gold):,}")
    if fraction := re.fullmatch(r"\\frac\{([0-9]+)\}\{([0-9]+)\}", gold):
        yield from (f"{fraction[1]}/{fraction[2]}", rf"\frac{{3 * {fraction[1]}}}{{3 * {fraction[2]}}}")


def test_golds_are_the_same_as_themselves_in_every_dress(algebra: AlgebraProcess) -> None:
    golds = sorted({row["answer"] for row in rows("problems/math500.jsonl")})
    assert len(golds) > 290
    other = [
        (gold, text)
        for gold in golds[::2]
        for text in variants(gold)
        if equivalent(gold, text, algebra).verdict != "SAME"
    ]
    assert other == []


def test_golds_of_different_problems_are_not_taken_for_the_same(algebra: AlgebraProcess) -> None:
    golds = sorted({row["answer"] for row in rows("problems/math500.jsonl")})
    chosen = random.Random(0).sample(golds, 40)
    same = {
        frozenset(pair) for pair in combinations([*chosen, "90", r"90^\circ"], 2)
        if equivalent(*pair, algebra).verdict == "SAME"
    }  # fmt: skip
    assert frozenset(["90", r"90^\circ"]) in same
    for left, right in same:
        numbers = [re.sub(r"\\mbox\{.*|\\circ|[^0-9.]", "", text) for text in (left, right)]
        assert numbers[0] == numbers[1], (left, right)
