"""Fills the prompt files and writes tool output the way the model is shown it."""

from __future__ import annotations

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


def opening_messages(pillar: str, problem: Problem) -> tuple[Message, ...]:
    """The chat that opens an attempt: the pillar's two prompt files, the statement filled in."""
    user = _prompt(f"{pillar}_user.txt").replace("{statement}", problem.statement.strip())
    return Message("system", _prompt(f"{pillar}_system.txt")), Message("user", user)


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
    return f"```output\n{_shorten(shown).replace('```', '` ` `')}\n```\n"


def _prompt(name: str) -> str:
    return resources.files(f"{__package__}.prompts").joinpath(name).read_text(encoding="utf-8").strip()


def _last_lines(stderr: str, num_lines: int = 6) -> str:
    return "\n".join(stderr.strip().splitlines()[-num_lines:])


def _shorten(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    half = _MAX_SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
