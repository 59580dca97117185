"""Against a real Lean, where there is one: `find_lean` says what a machine lacks."""

from collections.abc import Iterator

import pytest

from mathlete.verify.lean.finding import find_lean
from mathlete.verify.lean.lean_check import LeanChecker, open_backend

pytestmark = pytest.mark.lean

STATEMENT = "import Mathlib\n\nopen Nat\n\ntheorem small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n := by sorry"


@pytest.fixture(scope="module")
def checker() -> Iterator[LeanChecker]:
    found = find_lean()
    if not found.is_usable:
        pytest.skip(found.summary)
    with LeanChecker(open_backend(found)) as running:
        yield running


@pytest.mark.parametrize(
    "proof", ["by omega", "le_trans (by norm_num) h", "by\n  have g : 1 ≤ 2 := by decide\n  exact g.trans h"]
)
def test_a_proof(checker: LeanChecker, proof: str) -> None:
    assert checker.check(STATEMENT, proof).verdict == "PROVED"


@pytest.mark.parametrize("proof", ["by simp at h", "h", "by exact absurd rfl", "by nonsense"])
def test_no_proof(checker: LeanChecker, proof: str) -> None:
    found = checker.check(STATEMENT, proof)
    assert (found.verdict, found.failure) == ("UNKNOWN", None)


def test_a_statement_that_lean_rejects(checker: LeanChecker) -> None:
    assert checker.check("import Mathlib\n\ntheorem a : nonsense = 1 := by sorry", "by simp").failure == "statement"
