"""Fenced blocks in what a model writes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.triad.code_blocks import Block, closed_blocks, program_at_end


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nprint(1)\n```\n", "print(1)\n"),
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("First.\n\n```py\nprint(1)\n```\n\n  ", "print(1)\n"),
        ("```Python3\nprint(1)\n```\n", "print(1)\n"),
        ("   ``` python title=a\n    x = 1\n   ```\n", "    x = 1\n"),
        ("````python\ns = '''\n```\n'''\n````\n", "s = '''\n```\n'''\n"),
        ("```python\na\n```\nNo:\n```python\nb\n```\n", "b\n"),
        ("```\na table\n```\nthen\n```python\nb\n```\n", "b\n"),
        ("```python\r\nprint(1)\r\n```\r\n", "print(1)\r\n"),
        ("```python\nprint('```')\n```\n", "print('```')\n"),
        ("```python\nfor x in y:\n    pass\n\n```\n", "for x in y:\n    pass\n\n"),
    ],
)
def test_the_program_that_a_text_ends_with(text: str, code: str) -> None:
    assert program_at_end(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(1)",
        "```python\nprint(1)\n",  # still open
        "```python\nprint(1)\n```\nand that gives 1.",  # not at the end
        "```\nprint(1)\n```\n",  # not said to be Python
        "```output\n42\n```\n",
        "```cpp\nint x;\n```\n",
        "```python\n   \n```\n",  # nothing in it
        "```python\n```\n",
        "Use ```print(1)``` here",
        "```python print(1) ```\n",
        "```python\nprint(1)\n```\n```python\nprint(2)\n",  # the last one is still open
        "~~~python\nprint(1)\n~~~\n",
    ],
)
def test_texts_that_end_with_no_program(text: str) -> None:
    assert program_at_end(text) is None


def test_a_block_knows_its_place() -> None:
    text = "a\n```text\nb\n```\nc\n```\nd\n```"
    first, second = closed_blocks(text)
    assert first == Block("text", "b\n", text.index("\nc"))
    assert second == Block("", "d\n", len(text))


def test_an_opening_fence_inside_a_block_does_not_close_it() -> None:
    (block,) = closed_blocks("```python\na\n```python\nb\n```\n")
    assert block.code == "a\n```python\nb\n"


@given(
    st.lists(st.sampled_from(["```", "````", "``", "python", "\n", "\r\n", " ", "x = 1", "output", "`"]), max_size=40)
)
def test_blocks_lie_in_the_text_in_order(pieces: list[str]) -> None:
    text = "".join(pieces)
    blocks = closed_blocks(text)
    assert [block.end for block in blocks] == sorted({block.end for block in blocks})
    assert all(block.code in text and block.end <= len(text) for block in blocks)
    program = program_at_end(text)
    assert program is None or (program == blocks[-1].code and program.strip())


@pytest.mark.parametrize("text", ["`" * 100_000, "```\n" * 30_000, "\t" * 100_000 + "```", "``` " + "a" * 100_000])
def test_a_hostile_text_takes_no_time(text: str) -> None:
    start_s = time.perf_counter()
    program_at_end(text)
    assert time.perf_counter() - start_s < 2
