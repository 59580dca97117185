"""What a chat request asks for, and what is refused of it."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.run_config import RunConfig
from mathlete.serving.chat_request import OPTIONS, Asked, Ceilings, Refusal, read_request
from mathlete.serving.desk import config_of
from mathlete.triad.policies import TRIAD_CHECKS

CEILINGS = Ceilings(budget_s=300, attempts=16, statement_chars=100)
BASE = RunConfig("solve", None, "m", 120.0, policy="triad", checks=TRIAD_CHECKS, second_round=2)


def ask(**fields: Any) -> Asked:
    body = {"model": "mathlete", "messages": [{"role": "user", "content": "What is 1+1?"}], **fields}
    return read_request({key: value for key, value in body.items() if value != "absent"}, "mathlete", CEILINGS)


def test_the_users_last_message_is_the_problem() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": [{"type": "text", "text": " What is"}, {"type": "text", "text": "3+3? "}]},
    ]
    assert ask(messages=chat).statement == "What is\n3+3?"
    assert ask(messages=[*chat, {"role": "assistant", "content": "Let me see"}]).statement == "What is\n3+3?"
    assert ask(model="absent") == Asked("What is 1+1?")


def test_options_are_fields_of_a_run() -> None:
    asked = ask(
        temperature=1, top_p=0.9, min_p=0.02, top_k=-1, seed=-7, max_tokens=500, stream=True,
        stream_options={"include_usage": True}, budget="2m", attempts=4, policy="vote",
        user="somebody", frequency_penalty=0.1, made_up={"by": "others"}, logprobs=False, stop=["x"], tools=[], n=1,
    )  # fmt: skip
    told = {"temperature": 1.0, "top_p": 0.9, "min_p": 0.02, "top_k": 0, "seed": -7}
    assert asked.options == {**told, "budget_s": 120.0, "attempts": 4, "policy": "vote"}
    assert (asked.token_limit, asked.stream, asked.include_usage) == (500, True, True)
    assert set(asked.options) == OPTIONS <= set(RunConfig.__dataclass_fields__)


def test_metadata_says_it_as_text() -> None:
    asked = ask(metadata={"budget": "90", "attempts": "3", "who": "me"}, attempts=5)
    assert asked.options == {"budget_s": 90.0, "attempts": 5}  # the body goes before it


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "gpt-4"}, 404, "there is 'mathlete'"),
        ({"messages": "absent"}, 400, "messages must be a list"),
        ({"messages": []}, 400, "messages must be a list"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "one of the user's"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "is empty"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "must be text"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "must be text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "of type text"),
        ({"messages": [{"role": "user", "content": "x" * 101}]}, 413, "101 characters"),
        ({"messages": [{"role": "user", "content": "a\ud800b"}]}, 400, "surrogate"),
        ({"n": 2}, 400, "n must be 1"),
        ({"tools": [{"type": "function"}]}, 400, "tools must be left out"),
        ({"logprobs": True}, 400, "logprobs must be left out"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format must be text"),
        ({"stream": "yes"}, 400, "stream must be true or false"),
        ({"stream_options": 1}, 400, "stream_options must be an object"),
        ({"temperature": "hot"}, 400, "temperature must be a number"),
        ({"temperature": -1}, 400, "temperature must be >= 0"),
        ({"temperature": 3}, 400, "at most 2"),
        ({"temperature": True}, 400, "temperature must be a number"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"temperature": 10**400}, 400, "temperature|too large"),
        ({"top_p": 0}, 400, "top_p"),
        ({"top_k": -2}, 400, "top_k must be a whole number"),
        ({"seed": 1.5}, 400, "seed must be a whole number"),
        ({"seed": 2**70}, 400, "seed must be a whole number"),
        ({"max_tokens": 0}, 400, "max_tokens must be a whole number"),
        ({"max_completion_tokens": False}, 400, "max_completion_tokens must be"),
        ({"attempts": 17}, 400, "from 1 to 16"),
        ({"attempts": "many"}, 400, "attempts must be a whole number"),
        ({"budget": "10m"}, 400, "at most on this server"),
        ({"budget": "soon"}, 400, "not a duration"),
        ({"budget": -3}, 400, "budget"),
        ({"budget": float("inf")}, 400, "budget"),
        ({"budget": []}, 400, "budget must be a time"),
        ({"policy": "luck"}, 400, "policy must be one of"),
        ({"metadata": [1]}, 400, "metadata must be an object"),
        ({"metadata": {"attempts": "0"}}, 400, "attempts must be"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        ask(**fields)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [None, [], "text", 3])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(Refusal, match="JSON object"):
        read_request(body, "mathlete", CEILINGS)


def test_the_run_that_is_asked_for() -> None:
    assert config_of(BASE, ask()) == BASE
    changed = config_of(BASE, ask(attempts=3, budget="60s", seed=9, temperature=0.5))
    assert (changed.attempts, changed.budget_s, changed.seed, changed.temperature) == (3, 60.0, 9, 0.5)
    limited = config_of(BASE, ask(max_tokens=600))
    assert (limited.token_budget, limited.max_tokens) == (600, 600)
    vote = config_of(BASE, ask(policy="vote", attempts=4, max_tokens=1000))
    assert (vote.policy, vote.checks, vote.second_round, vote.token_budget) == ("vote", (), 0, None)
    assert vote.max_tokens == 250  # of each of the four
    back = config_of(vote, ask(policy="triad"))
    assert (back.checks, back.second_round) == (TRIAD_CHECKS, 2)
