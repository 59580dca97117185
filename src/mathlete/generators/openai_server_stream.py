"""What one event of an OpenAI-compatible stream says, checked: of `/chat/completions` or `/completions`.

Pure. Whatever does not have the shape that OpenAI, vLLM, SGLang or llama.cpp give it is a `BrokenStream`; nothing is
guessed. Knows no request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from mathlete.core.generation import TokenLogprob
from mathlete.generators.openai_server_events import BrokenStream

DONE = "[DONE]"
UNKNOWN_ID = -1

_ID_PREFIX = "token_id:"
_MAX_SHOWN = 300
_ROUNDING = 1e-3  # by which a log-probability may be above 0
_NO_CHANCE = -9999.0  # what servers put for a probability of 0


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token of the output, as far as it is told.

    Attributes:
        token_id: or `UNKNOWN_ID`.
        logprob: natural, of the model's own distribution.
        top: the likeliest tokens at this place, likeliest first.
        text: what it says, of servers that tell bytes.
    """

    token_id: int
    logprob: float
    top: tuple[TokenLogprob, ...]
    text: bytes | None = None


@dataclass(frozen=True, slots=True)
class ToldUsage:
    """Tokens so far, of servers that count.

    Attributes:
        prompt: given.
        cached: of these, not computed anew.
        output: written in this stream.
    """

    prompt: int
    cached: int
    output: int


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A piece of a call: `index` says of which, `name` comes once, `arguments` bit by bit."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event adds.

    Attributes:
        text: of the answer.
        reasoning: of the thinking before it, of servers that tell them apart.
        tool_calls: pieces of calls.
        tokens: with log-probabilities, where asked for.
        token_ids: of the tokens, where told.
        finish_reason: why it ended, in the server's word; None as long as it has not.
        stop: the stop string that ended it, where told.
        usage: where told.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()
    tokens: tuple[ToldToken, ...] = ()
    token_ids: tuple[int, ...] = ()
    finish_reason: str | None = None
    stop: str | None = None
    usage: ToldUsage | None = None

    def without_last(self, num_tokens: int) -> Delta:
        """The same without the last tokens; their text stays."""
        if not num_tokens:
            return self
        return replace(self, token_ids=self.token_ids[:-num_tokens], tokens=self.tokens[:-num_tokens])

    @property
    def says_something(self) -> bool:
        """Whether the model wrote something, of whatever kind."""
        return bool(self.text or self.reasoning or self.tool_calls or self.tokens or self.token_ids)


def read_delta(data: str) -> Delta:
    """What an event says. Raises `BrokenStream`."""
    event = parse_json(data)
    if not isinstance(event, dict):
        _broken(f"an event is no object: {data[:_MAX_SHOWN]!r}")
    if "error" in event or ("message" in event and "code" in event):
        raise BrokenStream(f"it broke off: {error_text(event)}")
    choices = event.get("choices")
    usage = _usage(event)
    if choices == [] and usage is not None:
        return Delta(usage=usage)
    if choices == [] and "choices" in event:  # Azure's first event tells of its filters
        return Delta()
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        _broken(f"an event has no choices: {data[:_MAX_SHOWN]!r}")
    choice = choices[0]
    told = choice.get("delta")
    told = {} if told is None else told
    if not isinstance(told, dict):
        _broken(f"delta is no object, but {told!r:.100}")
    reason, stop = choice.get("finish_reason"), choice.get("stop_reason", choice.get("matched_stop"))
    return Delta(
        text=_text(told.get("content")) + _text(choice.get("text")),
        reasoning=_text(told.get("reasoning")) or _text(told.get("reasoning_content")),
        tool_calls=_tool_calls(told.get("tool_calls")),
        tokens=_tokens(choice.get("logprobs")),
        token_ids=_ids(choice.get("token_ids")),
        finish_reason=reason if reason is None or isinstance(reason, str) else _broken(f"finish_reason is {reason!r}"),
        stop=stop if isinstance(stop, str) else None,
        usage=usage,
    )


def parse_json(data: str) -> Any:
    """The value; numbers that JSON does not have (NaN) are refused. Raises `BrokenStream`."""

    def refuse(name: str) -> NoReturn:
        _broken(f"a number is {name}")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenStream(f"it sent no JSON ({error}): {data[:_MAX_SHOWN]!r}") from error


def token_ids_in(data: str) -> tuple[int, ...]:
    """What `/tokenize` answers. Raises `BrokenStream`."""
    told = parse_json(data)
    if not isinstance(told, dict) or not isinstance(told.get("tokens"), list):
        _broken(f"/tokenize told no tokens: {data[:_MAX_SHOWN]!r}")
    return _ids(told["tokens"])


def error_text(body: object) -> str:
    """What a server says went wrong, in whatever shape, on one line, shortened."""
    told = body
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    text = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _broken(f"a text is {value!r:.100}")
    return value


def _count(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        _broken(f"a count of tokens is {value!r:.100}")
    return value


def _ids(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        _broken(f"token_ids is {value!r:.100}")
    return tuple(_count(item) for item in value)


def _usage(event: Mapping[str, Any]) -> ToldUsage | None:
    """OpenAI's `usage`, or llama.cpp's `timings`, which stand in every event where asked for."""
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        prompt = _count(usage.get("prompt_tokens"))
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        return ToldUsage(prompt, min(cached, prompt), _count(usage.get("completion_tokens")))
    if isinstance(timings, dict):
        cached = _count(timings.get("cache_n"))
        return ToldUsage(_count(timings.get("prompt_n")) + cached, cached, _count(timings.get("predicted_n")))
    return None


def _tool_calls(value: object) -> tuple[ToolCallPart, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _broken(f"tool_calls is {value!r:.100}")
    parts = []
    for item in value:
        function = item.get("function") or {}
        if not isinstance(function, dict):
            _broken(f"a function is {function!r:.100}")
        parts.append(
            ToolCallPart(_count(item.get("index")), _text(function.get("name")), _text(function.get("arguments")))
        )
    return tuple(parts)


def _tokens(logprobs: object) -> tuple[ToldToken, ...]:
    """Of `/chat/completions` (a list of entries), or of `/completions` (lists side by side)."""
    if logprobs is None:
        return ()
    if not isinstance(logprobs, dict):
        _broken(f"logprobs is {logprobs!r:.100}")
    content = logprobs.get("content")
    if content is None and "token_logprobs" in logprobs:
        return _legacy_tokens(logprobs)
    if content is None:
        return ()
    if not isinstance(content, list):
        _broken(f"logprobs.content is {content!r:.100}")
    return tuple(_token(entry) for entry in content)


def _token(entry: object) -> ToldToken:
    if not isinstance(entry, dict):
        _broken(f"a token is {entry!r:.100}")
    top = entry.get("top_logprobs") or []
    if not isinstance(top, list) or not all(isinstance(item, dict) for item in top):
        _broken(f"top_logprobs is {top!r:.100}")
    likeliest = [TokenLogprob(_id_of(item), _logprob(item.get("logprob"))) for item in top]
    spelled = entry.get("bytes")
    return ToldToken(
        _id_of(entry),
        _logprob(entry.get("logprob")),
        _ranked(likeliest),
        bytes(spelled) if isinstance(spelled, list) and all(_is_byte(item) for item in spelled) else None,
    )


def _legacy_tokens(logprobs: Mapping[str, Any]) -> tuple[ToldToken, ...]:
    names, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None for _ in names] if isinstance(names, list) else []
    if not (isinstance(names, list) and isinstance(values, list) and isinstance(tops, list)):
        _broken("logprobs are no lists")
    if not len(names) == len(values) == len(tops):
        _broken(
            f"there are {len(names)} tokens, {len(values)} log-probabilities and {len(tops)} lists of the likeliest"
        )
    found = []
    for name, value, top in zip(names, values, tops, strict=True):
        if top is not None and not isinstance(top, dict):
            _broken(f"top_logprobs is {top!r:.100}")
        likeliest = [TokenLogprob(_id_of({"token": key}), _logprob(item)) for key, item in (top or {}).items()]
        found.append(ToldToken(_id_of({"token": name}), _logprob(value), _ranked(likeliest)))
    return tuple(found)


def _ranked(tokens: Sequence[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(sorted(tokens, key=lambda token: -token.logprob))


def _id_of(entry: Mapping[str, Any]) -> int:
    """llama.cpp tells `id`; vLLM puts it where the token's text would stand, where asked to."""
    if "id" in entry:
        return _count(entry["id"])
    token = entry.get("token")
    if isinstance(token, str) and token.startswith(_ID_PREFIX) and token[len(_ID_PREFIX) :].isdecimal():
        return _count(int(token[len(_ID_PREFIX) : len(_ID_PREFIX) + 12]))
    return UNKNOWN_ID


def _logprob(value: object) -> float:
    if value is None:
        return _NO_CHANCE
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value <= _ROUNDING:
        _broken(f"a log-probability is {value!r:.100}")
    return min(float(value), 0.0)


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 256


def _broken(message: str) -> NoReturn:
    raise BrokenStream(message)
