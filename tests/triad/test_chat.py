"""What the model is shown. Nothing here depends on the wording of the prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.code import RunStatus, ToolResult
from mathlete.core.problem import Problem
from mathlete.triad.chat import opening_messages, tool_text
from mathlete.triad.code_blocks import closed_blocks


def shown(status: RunStatus, stdout: str = "", stderr: str = "") -> str:
    text = tool_text(ToolResult(status, stdout, stderr, 0.1))
    assert text.startswith("```output\n") and text.endswith("\n```\n")
    return text.removeprefix("```output\n").removesuffix("\n```\n")


def test_the_statement_stands_in_the_users_message_as_it_is() -> None:
    statement = r"  Find $\{x\}$ of {statement} with {0} and %s, ``` and <|im_end|>. "
    system, user = opening_messages("code", Problem("p", statement))
    assert (system.role, user.role) == ("system", "user")
    assert user.content.count(statement.strip()) == 1
    assert system.content and "{statement}" not in system.content


def test_the_prompt_does_not_depend_on_the_id() -> None:
    assert opening_messages("code", Problem("a", "One?")) == opening_messages("code", Problem("b", "One?"))


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "expected"),
    [
        ("ok", "42\n", "", "42"),
        ("ok", "\n1\n2\n\n", "a warning\n", "1\n2"),
        ("ok", "", "", "(the program printed nothing)"),
        ("error", "7\n", "Traceback\nValueError: no\n", "7\nTraceback\nValueError: no"),
        ("error", "", "", "(the program printed nothing)"),
    ],
)
def test_output_and_errors(status: RunStatus, stdout: str, stderr: str, expected: str) -> None:
    assert shown(status, stdout, stderr) == expected


@pytest.mark.parametrize(
    ("status", "word"),
    [("timeout", "too long"), ("memory", "memory"), ("output_limit", "too much"), ("killed", "kill")],
)
def test_a_program_that_was_stopped_says_so_after_its_output(status: RunStatus, word: str) -> None:
    text = shown(status, "7\n", "noise")
    assert text.startswith("7\n") and word in text.splitlines()[-1] and "noise" not in text


def test_a_long_traceback_keeps_its_end() -> None:
    lines = [f"  line {i}" for i in range(100)] + ["ValueError: no"]
    assert shown("error", "", "\n".join(lines)).splitlines() == lines[-6:]


def test_long_output_keeps_both_ends_and_says_how_much_is_missing() -> None:
    text = shown("ok", "first" + "x" * 5_000 + "last")
    assert text.startswith("first") and text.endswith("last")
    assert "[... 3509 characters left out ...]" in text
    assert len(text) < 1_600


@given(st.text(st.sampled_from("`a \n"), max_size=60))
def test_output_cannot_end_its_block(stdout: str) -> None:
    (block,) = closed_blocks(tool_text(ToolResult("ok", stdout, "", 0.0)))
    assert block.language == "output"
