import json
import re
from pathlib import Path

import pytest

from mathlete.core.errors import InputError
from mathlete.verify.lean.script import build_script
from mathlete.verify.lean.statement import (
    MAX_STATEMENT_CHARS,
    names_answer,
    parse_statement,
    statement_about,
    without_comments,
)

SHARED = Path(__file__).parents[2].parent / "shared"

TEXT = """import Mathlib
import Mathlib.Tactic

/- A comment with theorem fake : False := by sorry in it. -/
set_option maxHeartbeats 0

open Nat

theorem two_le (n : ℕ) -- the number
  (h : 2 ≤ n) : 1 ≤ n := by sorry
"""


def test_a_statement_is_taken_apart() -> None:
    statement = parse_statement(TEXT)
    assert statement.imports == "import Mathlib\nimport Mathlib.Tactic"
    assert statement.preamble.split() == "set_option maxHeartbeats 0 open Nat".split()
    assert statement.name == "two_le"
    assert " ".join(statement.signature.split()) == "(n : ℕ) (h : 2 ≤ n) : 1 ≤ n"
    assert statement.theorem("other", "by simp").startswith("theorem other (n : ℕ)")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "one theorem"),
        ("theorem a : 1 = 1 := by sorry\ntheorem b : 1 = 1 := by sorry", "one theorem"),
        ("theorem a : 1 = 1 := by simp", "sorry"),
        ("theorem a := by sorry", "proposition"),
        ("theorem «a b» : 1 = 1 := by sorry", "plain name"),
        ("/- theorem a : 1 = 1 := by sorry", "never closes"),
        ("theorem a : 1 = 1 := by sorry -/", "never opened"),
        ("x" * (MAX_STATEMENT_CHARS + 1), "at most"),
    ],
)
def test_anything_else_is_an_error_that_says_why(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_statement(text)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("a -- b\nc", "a  \nc"),
        ("a /- b /- c -/ d -/ e", "a   e"),
        ("a /- -- -/ b", "a   b"),
        ("a -- /- b\nc", "a  \nc"),
        ("a--", "a "),
    ],
)
def test_comments_are_taken_out(text: str, bare: str) -> None:
    assert without_comments(text) == bare


@pytest.mark.parametrize(
    ("text", "answer", "signature"),
    [
        ("theorem a : 1 + 1 = {answer} := by sorry", "2", ": 1 + 1 = 2"),
        ("theorem a : {answer} - 3 = 2 * {answer} := by sorry", "-3", ": (-3) - 3 = 2 * (-3)"),
        ("-- {answer}\ntheorem a {x : ℕ} : x = x := by sorry", None, "{x : ℕ} : x = x"),
    ],
)
def test_an_answer_is_put_into_a_statement(text: str, answer: str | None, signature: str) -> None:
    assert names_answer(text) == (answer is not None)
    statement = statement_about(text, answer)
    assert statement.signature == signature
    assert parse_statement(statement.text) == statement


@pytest.mark.parametrize(
    ("text", "answer", "error"),
    [
        ("theorem a : 1 = {answer} := by sorry", None, InputError),
        ("theorem a : 1 = 1 := by sorry", "1", InputError),
        ("-- {answer}\ntheorem a : 1 = 1 := by sorry", "1", InputError),  # else it would be proved of any answer
        ("theorem a : 1 = {answer} := by sorry", "1 ∨ True", ValueError),
        ("theorem a : 1 = {answer} := by sorry", "1\n", ValueError),
        ("theorem a : 1 = {answer} := by sorry", "٣", ValueError),
    ],
)
def test_only_an_integer_goes_where_an_answer_belongs(text: str, answer: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        statement_about(text, answer)


@pytest.mark.shared
def test_all_statements_of_minif2f() -> None:
    path = SHARED / "problems" / "minif2f_lean4.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        statement = parse_statement(row["formal_statement"])
        assert statement.name == row["name"]
        assert statement.imports == "import Mathlib"
        assert statement.preamble.startswith("set_option maxHeartbeats 0")
        assert "sorry" not in statement.signature and "--" not in statement.signature
        # Nothing is lost: the parts put together again are the file without its comments.
        parts = [statement.imports, statement.preamble, "theorem", statement.name, statement.signature, ":= by sorry"]
        assert "".join(" ".join(parts).split()) == "".join(without_comments(row["formal_statement"]).split())
        script = build_script(statement, "by simp")
        assert re.match(rf"theorem {script.audit_name} : type_of% @\S+ := @\S+\n#print axioms", script.audit)
    assert len(rows) == 488
