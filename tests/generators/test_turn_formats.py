"""Which format a model's turns have, and the pieces that all formats share."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.core.code import ToolResult
from mathlete.core.errors import ModelError
from mathlete.core.generation import GenerateRequest, SamplingParams, Span
from mathlete.generators.chat_format import chat_format_of
from mathlete.generators.harmony_tokens import CONTROL_NAMES
from mathlete.generators.turn_formats import (
    TurnSettings,
    Unfenced,
    output_in,
    program_block,
    stop_at_end,
    waits_for_program,
)
from mathlete.triad.chat import tool_text
from mathlete.triad.code_blocks import program_at_end


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-oss-120b", "harmony"),
        ("/models/GPT_OSS-20b", "harmony"),
        ("Qwen/Qwen2.5-Math-72B-Instruct", "chat"),
        ("DeepSeek-R1-Distill-Qwen-32B", "chat"),
    ],
)
def test_auto_goes_by_the_name(model: str, name: str) -> None:
    assert TurnSettings().resolved(model) == name
    assert TurnSettings("tool_calls").resolved(model) == "tool_calls"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"turn_format": "chatml"}, "turn_format"),
        ({"turn_format": None}, "turn_format"),
        ({"reasoning_effort": "max"}, "reasoning_effort"),
        ({"tools": ("browser",)}, "tools"),
        ({"tools": "python"}, "tools"),
        ({"turn_format": "chat", "reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
def test_what_is_out_of_range_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TurnSettings(**settings)


@pytest.mark.parametrize("code", ["print(1)", "print(1)\n", 's = """\n```\nx\n````\n"""\nprint(s)', "    ```"])
def test_a_program_block_is_read_back(code: str) -> None:
    block = program_block(code)
    assert block.endswith("```\n")
    assert (program_at_end(block) or "").removesuffix("\n") == code.removesuffix("\n")


@pytest.mark.parametrize("stdout", ["42\n", "", "a\n\nb\n", "```\n", "```output\n1\n```\n"])
def test_an_output_is_taken_out_of_its_block(stdout: str) -> None:
    shown = tool_text(ToolResult("ok", stdout, "", 0.1))
    assert f"```output\n{output_in(shown)}\n```\n" == shown
    assert output_in("\n" + shown) == output_in(shown)
    assert output_in("Go on.") == "Go on."


def test_gpt_oss_is_no_chat_format() -> None:
    with pytest.raises(ModelError, match="gpt-oss.*vllm or openai_server"):
        chat_format_of({name: 200_000 + i for i, name in enumerate(CONTROL_NAMES)})


def test_who_waits_for_a_program() -> None:
    def asks(*stops: str, spans: tuple[Span, ...] = ()) -> bool:
        return waits_for_program(GenerateRequest("a", (), SamplingParams(stop=stops), spans))

    assert asks("```\n") and asks("\n```\n", "\n\n")
    assert not asks() and not asks("\n\n") and not asks("```python")
    assert not asks("```\n", spans=(Span("```python\n"),))
    assert asks("```\n", spans=(Span("So", by_model=True),)) and asks("```\n", spans=(Span("So", (1,)),))


def test_fences_in_thinking_are_broken_up_however_they_come() -> None:
    unfenced = Unfenced()
    text = "".join(unfenced.take(piece) for piece in ("a ``", "`\nb\n", "`", "", "````", " `x`"))
    assert text == "a `` `\nb\n`` `` ` `x`"


def test_the_longest_stop_at_an_end() -> None:
    assert stop_at_end("a\n```\n", ("\n", "```\n", "x")) == "```\n"
    assert stop_at_end("a", ("```\n",)) is None
