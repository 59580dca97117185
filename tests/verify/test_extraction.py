import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.problem import AnswerKind
from mathlete.verify.extraction import extract_answer, extract_boxed, last_printed_integer, stated_integer

KIND = AnswerKind()


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{42}", "42"),
        (r"first \boxed{1}, then \boxed{2}", "2"),  # competition regexes fire on the first
        (r"\boxed{\frac{84}{2}}", r"\frac{84}{2}"),
        (r"\boxed{a\}b\{}", r"a\}b\{"),
        (r"\boxed 5 it is", "5"),
        (r"\boxed 42.", "42"),
        (r"\boxed {7}", "7"),
        (r"$\boxed 5$", "5"),
        (r"\boxed 2^{10}", None),
        (r"\boxed 2 \cdot 5", None),
        (r"\boxed 42x", None),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{42 \boxed{43}", "43"),
        (r"a stray { before \boxed{5}", "5"),
        (r"a stray } before \boxed{5}", "5"),
        (r"\boxed{", None),
        (r"\boxed", None),
        (r"\boxedtext{5}", None),
        (r"\boxed then {5}", None),
        (r"\\boxed{5}", None),  # a line break and the word
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_complete_box(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


@pytest.mark.parametrize(
    ("stdout", "value"),
    [
        ("42", 42),
        ("1\n2\n42\n\n", 42),
        ("42.0", 42),
        ("42.", 42),
        ("[42]", 42),
        ("(42)", 42),
        ("1,234", 1234),
        ("Answer: 42", 42),
        ("Answer: 42 ways", 42),
        ("x = 42", 42),
        ("2+3 = 5", 5),
        ("sum(range(10)) = 45", 45),
        ("There are 42 ways", 42),
        ("The answer is 42.", 42),
        ("After 10 steps the total is: 42", 42),
        ("n=10: 42", 42),
        ("np.int64(42)", 42),
        ("numpy.float64(42.0)", 42),
        ("Integer(42)", 42),
        ("Answer: Decimal('42')", 42),
        ("**42**", 42),
        ("-> 42", 42),
    ],
)
def test_the_last_printed_integer(stdout: str, value: int) -> None:
    assert last_printed_integer(stdout, KIND).value == value


@pytest.mark.parametrize(
    ("stdout", "problem"),
    [
        ("", "missing"),
        (" \n\n", "missing"),
        ("True", "unparsable"),
        ("42\nNone", "unparsable"),
        ("3 5", "ambiguous"),
        ("[3, 5]", "ambiguous"),
        ("(3, 5)", "ambiguous"),
        ("3 and 5", "ambiguous"),
        ("Answer: 3 or 5", "ambiguous"),
        ("x = 3, y = 5", "ambiguous"),
        ("x: 3, y: 5", "ambiguous"),
        ("{x: 5}", "unparsable"),
        ("41.99999999", "ambiguous"),
        ("x = 1.5", "ambiguous"),
        ("x = 1/2", "ambiguous"),
        ("Fraction(1, 2)", "ambiguous"),
        ("1e+16", "ambiguous"),
        ("42+0j", "ambiguous"),
        ("Time: 12:30", "ambiguous"),
        ("2024-05-01", "ambiguous"),
        ("x != 5", "ambiguous"),
        ("x >= 5", "ambiguous"),
        ("x ≈ 42", "ambiguous"),
        ("approximately 42", "ambiguous"),
        ("No solution found after 100", "ambiguous"),
        ("Answer: 42 thousand", "unparsable"),
        ("(42]", "unparsable"),
        ("Traceback (most recent call last):\nValueError: 5", "unparsable"),
        ("-5", "out_of_range"),  # never made positive
        ("100000", "out_of_range"),  # never reduced
        ("1" * 5000, "too_large"),
    ],
)
def test_other_output_is_refused(stdout: str, problem: str) -> None:
    extraction = last_printed_integer(stdout, KIND)
    assert (extraction.value, extraction.problem) == (None, problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The final answer is 42.", 42),
        ("The answer is 1. No: the answer is **42**", 42),
        ("**Answer:** 42\nDone.", 42),
        ("The answer is $42$. We check it with 3.", 42),
        ("The answer to the problem is:\n$$42$$", 42),
        (r"The answer is \(2^{5}\).", 32),
        ("the answer is 42 ways", 42),
        ("The answer is forty-two.", 42),
        (r"The answer is $2^{100} \bmod 7$.", 2),
        (r"The answer is \(\gcd(12, 18)\).", 6),
    ],
)
def test_a_stated_answer(text: str, value: int) -> None:
    assert stated_integer(text, KIND).value == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("42", "missing"),
        ("The answer is not 42", "unparsable"),
        ("The answer is 42, because 3 + 4 = 7", "ambiguous"),
        ("The answer is 3 or 5.", "ambiguous"),
        ("The answer is 5!", "ambiguous"),
        ("The answer is 1/2.", "not_an_integer"),
    ],
)
def test_a_loose_statement_is_refused(text: str, problem: str) -> None:
    extraction = stated_integer(text, KIND)
    assert (extraction.value, extraction.problem) == (None, problem)


@pytest.mark.parametrize(
    ("text", "stdout", "expected"),
    [
        (r"so \boxed{7}", "9", ("7", "boxed", None)),
        (r"so \boxed{7}", None, ("7", "boxed", None)),
        (r"so \boxed{x}", "9", (None, "boxed", "unparsable")),  # the model said x, not 9
        (r"so \boxed{123456}", "9", (None, "boxed", "out_of_range")),
        (r"so \boxed{}", "9", ("9", "stdout", None)),
        ("mod 100 the answer is 7.", "107", ("7", "text", None)),
        ("the answer is -7.", "9", (None, "text", "out_of_range")),
        ("The answer is: print(x)", "9", ("9", "stdout", None)),
        ("", "total: 9", ("9", "stdout", None)),
        ("", "3 5", (None, "stdout", "ambiguous")),
        ("I found 7 and 8", None, (None, None, "missing")),
    ],
)
def test_where_the_answer_is_looked_for(text: str, stdout: str | None, expected: tuple[object, ...]) -> None:
    extraction = extract_answer(text, stdout, KIND)
    assert (extraction.answer, extraction.source, extraction.problem) == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}", "42"),
        (r"so \boxed{42", None),
        (r"so \boxed 4", None),
        ("The answer is 4", None),
        ("The answer is 42.", None),  # 42.5?
        ("The answer is 42 thous", None),
        ("The answer is 42. We che", "42"),
        ("The answer is 42\n", "42"),
    ],
)
def test_half_a_number_at_the_end_of_a_cut_text_does_not_count(text: str, answer: str | None) -> None:
    assert extract_answer(text, None, KIND, complete=False).answer == answer
    assert extract_answer(text, "7", KIND, complete=False).answer == (answer or "7")


PIECES = st.sampled_from(
    ["\\boxed{", "\\boxed", "{", "}", "\\", "$", "**", "42", "1,234", " ", "\n", "answer is ", "answer: ", "=", ":"]
    + [".", ",", "(", ")", "[", "np.int64(", "^", "!", "\\frac", "\\text{", "mod ", "x", "-", "/", "٣", "\x00", "is"]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join)))
def test_hostile_text_never_raises(text: str) -> None:
    for extraction in (extract_answer(text, None, KIND), extract_answer("", text, KIND)):
        assert (extraction.value is None) == (extraction.problem is not None)
        assert extraction.value is None or KIND.admits(extraction.value)


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "{",
        "}",
        "\\",
        "\\boxed ",
        "answer is ",
        "answer    ",
        "answer: *",
        "1",
        "1,",
        "1 ",
        "a 1",
        "[",
        "= 5 ",
    ],
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    extract_answer(text, text, KIND)
    assert time.process_time() - start < 2.0  # about 0.02 s; a quadratic search takes minutes


@given(st.integers(0, 99_999), st.sampled_from(["{}", "{}.0", "{:,}", "Answer: {}", "n = {}", "[{}]", "np.int64({})"]))
def test_a_printed_integer_comes_back(value: int, form: str) -> None:
    assert last_printed_integer(form.format(value) + "\n", KIND).value == value


@given(st.integers(0, 99_999), st.sampled_from([r"\boxed{%d}", r"$\boxed{%d}$", r"\[\boxed{x = %d}\]", r"\boxed %d"]))
def test_a_boxed_integer_comes_back(value: int, form: str) -> None:
    assert extract_answer("Thus " + form % value + ".", None, KIND).value == value
