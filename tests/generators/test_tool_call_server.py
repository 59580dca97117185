"""The code pillar over a server that writes and reads the turns itself, from problem to answer."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from fake_harmony_server import MODEL, FakeHarmonyServer
from harmony_stand_in import StandInTokens
from rich.console import Console

from mathlete.core.problem import Problem
from mathlete.lab.tasks import Task
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session.run_session import start_run


class ToolServer(FakeHarmonyServer):
    """A hosted server: tells no ids, and counts tokens behind the end of the answer."""

    path = "/v1/chat/completions"
    owner = "somebody"

    def __init__(self) -> None:
        super().__init__(StandInTokens(), lambda prompt: "")

    def answer(self, body: dict[str, Any]) -> list[str]:
        printed = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": "Let me"}]
        deltas.append({"reasoning_content": " compute."})
        if "tools" not in body or len(printed) == 2:
            told, reason = [{"content": f"It is \\boxed{{{printed[-1] if printed else 0}}}."}], "stop"
        else:
            program = "a = 6 * 7\na" if not printed else f"print(a + {printed[0]})"
            arguments = json.dumps({"code": program})
            first = {"index": 0, "id": "x", "type": "function", "function": {"name": "python", "arguments": ""}}
            rest = [{"index": 0, "function": {"arguments": arguments[i : i + 5]}} for i in range(0, len(arguments), 5)]
            told, reason = [{"tool_calls": [part]} for part in (first, *rest)], "tool_calls"
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in (*deltas, *told)]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        usage = {"prompt_tokens": 50, "completion_tokens": 40}
        return [
            *(json.dumps({"choices": [item]}) for item in choices),
            json.dumps({"choices": [], "usage": usage}),
            "[DONE]",
        ]


def test_a_problem_is_solved_with_two_programs(tmp_path: Path) -> None:
    with ToolServer() as server:
        engine = EngineSpec("main", "openai_server", MODEL, settings={"base_url": server.url, "logprobs": False})
        config = RunConfig("evaluate", None, MODEL, 60.0, attempts=1, max_tokens=800, engines=(engine,))
        task = Task(Problem("p", "What is twice six times seven?"), "84", "p")
        result = start_run(config, [task], tmp_path, Console(file=StringIO()))
    (attempt,) = result.record.problems["p"].attempts
    assert (attempt.answer, attempt.failure) == ("84", None)
    assert [turn.result.stdout if turn.result else None for turn in attempt.turns] == ["42\n", "84\n", None]
    assert all(turn.text.startswith("<think>\nLet me compute.\n</think>\n\n") for turn in attempt.turns)
    assert attempt.num_tokens == 3 * 40
    roles = [message["role"] for message in server.bodies[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert "tools" in server.bodies[-1] and "prompt" not in server.bodies[-1]
