"""Fills the prompt files and writes tool output the way the model is shown it."""

from __future__ import annotations

import re
from importlib import resources

from mathlete.core.code import ToolResult
from mathlete.core.generation import Message
from mathlete.core.problem import Problem

_MAX_SHOWN_CHARACTERS = 1_500

_STATUS_NOTES = {
    "timeout": "TimeoutError: the program was stopped because it took too long.",
    "memory": "MemoryError: the program was stopped because it used too much memory.",
    "output_limit": "Error: the program was stopped because it printed too much.",
    "killed": "Error: the program was killed.",
}
_RESTARTED = "Note: Python was restarted before this program; what earlier programs defined is gone."

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# As ChatML, DeepSeek, Llama, Gemma and thinking models write them: names in angle brackets, with or without bars.
_CONTROL_TOKEN = re.compile(
    r"<[|｜][^<>\n]{0,40}[|｜]>|</?(?:think|s|bos|eos|pad|unk|(?:start|end)_of_\w{1,20}|tool_\w{1,20})>|\[/?INST\]",
    re.IGNORECASE,
)


def opening_messages(pillar: str, problem: Problem) -> tuple[Message, ...]:
    """The chat that opens an attempt: the pillar's two prompt files, the statement filled in."""
    user = filled(f"{pillar}_user.txt", statement=problem.statement.strip())
    return Message("system", filled(f"{pillar}_system.txt")), Message("user", user)


def filled(name: str, **values: str) -> str:
    """A prompt file, its `{name}` marks filled in. What stands in a value is never taken for a mark."""
    template = resources.files(f"{__package__}.prompts").joinpath(name).read_text(encoding="utf-8").strip()
    return _PLACEHOLDER.sub(lambda mark: values.get(mark[1], mark[0]), template)


def plain_text(written: str) -> str:
    """What a model wrote, fit for being shown to another: control tokens of a chat broken up, nothing invisible."""
    visible = "".join(char for char in written if char.isprintable() or char in "\n\t")
    return _CONTROL_TOKEN.sub(lambda token: f"{token[0][0]} {token[0][1:]}", visible)


def shortened(text: str, max_chars: int) -> str:
    """The two ends of a text that is too long, with a note of how much is missing between them."""
    if len(text) <= max_chars:
        return text
    half = max_chars // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def tool_text(result: ToolResult) -> str:
    """A program's outcome as it goes back into the attempt.

    Long output keeps its two ends. A fence inside the output is broken up, so that it cannot end the block.
    """
    parts = [result.stdout.strip("\n")]
    if result.status == "error":
        parts.append(_last_lines(result.stderr))
    elif result.status in _STATUS_NOTES:
        parts.append(_STATUS_NOTES[result.status])
    shown = "\n".join(part for part in parts if part) or "(the program printed nothing)"
    shown = shortened(shown, _MAX_SHOWN_CHARACTERS)
    if result.session_restarted:
        shown = f"{_RESTARTED}\n{shown}"
    return f"```output\n{shown.replace('```', '` ` `')}\n```\n"


def _last_lines(stderr: str, num_lines: int = 6) -> str:
    return "\n".join(stderr.strip().splitlines()[-num_lines:])
