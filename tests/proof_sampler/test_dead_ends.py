"""Steps of running text, loops, and when a model is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.proof_sampler.dead_ends import (
    DeadEndRules,
    Step,
    ends_in_code,
    find_loop,
    find_repeated_step,
    is_lost,
    next_step,
)

RULES = DeadEndRules()


def steps_of(text: str, in_code: bool = False) -> list[tuple[str, bool]]:
    """All finished steps, each as (text, is_code)."""
    found, start = [], 0
    while (step := next_step(text, start, in_code and not found)) is not None:
        assert step.start == start < step.end <= len(text)
        found.append((text[step.start : step.end], step.is_code))
        start = step.end
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two\n", []),
        ("One.\n\nTwo", [("One.\n\n", False)]),
        ("One.\n \t\n\nTwo.\n\n", [("One.\n \t\n", False), ("\nTwo.\n\n", False)]),
        ("x = 2. Therefore y = 3. Then z", [("x = 2.", False), (" Therefore y = 3.", False)]),
        ("0.5 Sofa. Sofas are So. So it is", [("0.5 Sofa. Sofas are So.", False)]),
        ("Run:\n```python\nx = 1\n\ny = x. Then\n```\nSo\n\n",
         [("Run:\n", False), ("```python\nx = 1\n\ny = x. Then\n```\n", True), ("So\n\n", False)]),
        ("We have:\n1. x = 2\n2.  y = 3\n- **z** = 4\n- 5 = w\n12",
         [("We have:\n", False), ("1. x = 2\n", False), ("2.  y = 3\n", False)]),
        ("Run:\n```python", []),
        ("Run:\n```python\nx", [("Run:\n", False)]),
        ("```\nabc\n```", []),
    ],
)  # fmt: skip
def test_where_steps_end(text: str, expected: list[tuple[str, bool]]) -> None:
    assert steps_of(text) == expected


def test_a_block_that_was_open_before_ends_first() -> None:
    assert steps_of("y = 2\n\nz = 3\n```\nDone.\n\n", in_code=True) == [
        ("y = 2\n\nz = 3\n```\n", True),
        ("Done.\n\n", False),
    ]
    assert ends_in_code("a\n```python\nx = 1\n") and not ends_in_code("a\n```python\nx = 1\n```\n")


@given(st.lists(st.sampled_from(["a", "=", " ", "\n", "\n\n", ".", " So ", "```\n", "```py\n", "`"])), st.booleans())
def test_steps_are_found_as_the_text_grows(pieces: list[str], in_code: bool) -> None:
    """What is found token by token is found in the whole text too, and steps leave no gap."""
    text, growing, start = "".join(pieces), "", 0
    found: list[Step] = []
    for piece in pieces:
        growing += piece
        while (step := next_step(growing, start, in_code and not found)) is not None:
            found.append(step)
            start = step.end
    assert [(text[step.start : step.end], step.is_code) for step in found] == steps_of(text, in_code)


@pytest.mark.parametrize("piece", ["0, ", "and so on and so forth; ", "We compute x = 2 and then y = 3 again.\n"])
def test_a_loop_begins_with_its_second_round(piece: str) -> None:
    text = "First we say something else. " + piece * (120 // len(piece) + 4)
    found = find_loop(text, RULES)
    assert found is not None and found.reason == "repetition"
    assert found.start >= len("First we say something else.") + len(piece) and text[found.start :].count(piece) >= 3


def test_what_is_no_loop() -> None:
    listed = "".join(f"The number {i} squared is {i * i}.\n" for i in range(60))
    for text in ("", "x", "1" * 100, "|---" * 8, listed, "ab " * 30, ("A sentence of some length. " * 3)):
        assert find_loop(text, RULES) is None, text


@given(st.text("ab", max_size=40), st.text("abc", min_size=1, max_size=30), st.integers(1, 8))
def test_loops_agree_with_looking_at_every_period(head: str, piece: str, times: int) -> None:
    rules = DeadEndRules(min_repeats=3, min_repeated_chars=20)
    text = head + piece * times
    lengths = [
        next((n for n in range(len(text), 0, -1) if all(text[-i] == text[-i - p] for i in range(1, n - p + 1))), 0)
        for p in range(1, len(text) + 1)
    ]
    slow = any(n >= 20 and n >= 3 * p for p, n in enumerate(lengths, 1) if n > p)
    assert (find_loop(text, rules) is not None) == slow


def test_the_same_step_again() -> None:
    step = "We now substitute x = 2 into the equation and simplify it.\n\n"
    assert find_repeated_step([step, "other", step], 7, RULES) is None
    found = find_repeated_step([step, "other", step, step], 7, RULES)
    assert found is not None and (found.reason, found.start) == ("repetition", 7) and "3 times" in found.detail
    assert find_repeated_step(["x = 2\n\n"] * 5, 7, RULES) is None, "short ones do not count"
    assert find_repeated_step([], 0, RULES) is None


def test_a_model_is_lost_when_entropy_stays_high() -> None:
    assert is_lost([5.0] * 15, RULES) is None
    assert is_lost([0.0] * 40 + [5.0] * 9, RULES) is None
    assert is_lost([0.0] * 40 + [5.0] * 16, RULES) == 5.0


@pytest.mark.parametrize(
    "given_", [{"min_repeats": 1}, {"entropy_tokens": 0}, {"entropy_nats": 0.0}, {"min_repeated_chars": 0}]
)
def test_rules_are_checked(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(given_))):
        DeadEndRules(**given_)  # type: ignore[arg-type]
