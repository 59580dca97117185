"""What is asked of `/v1/chat/completions`, as plain data: a problem, and how it may be worked on.

Knows OpenAI's fields and this server's ceilings. A request is hostile input; it names no file, and changes nothing but
how its own problem is worked on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from mathlete.core.durations import parse_duration
from mathlete.core.errors import InputError
from mathlete.core.generation import SamplingParams
from mathlete.triad.policies import PolicyName

MAX_SEED = 2**63 - 1  # of either sign, as OpenAI's


class Refusal(Exception):
    """A request that is not answered, as OpenAI's clients understand it.

    Attributes:
        status: of HTTP.
        message: what is wrong and what to do.
        param: the field that is meant, or None.
        code: a word for programs, or None.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        """Refuse with an HTTP status."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one request may ask for at most.

    Attributes:
        budget_s: seconds.
        attempts: at a problem.
        statement_chars: characters of a problem.
        body_bytes: of the whole request.
    """

    budget_s: float = 600.0
    attempts: int = 64
    statement_chars: int = 20_000
    body_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be worked on.

    Attributes:
        statement: the problem.
        options: fields of `RunConfig` that it sets, of `OPTIONS`.
        token_limit: tokens that all attempts together may write; None for no limit.
        stream: whether progress and answer are sent piece by piece.
        include_usage: whether a stream ends with a piece that counts tokens.
    """

    statement: str
    options: Mapping[str, Any] = field(default_factory=dict)
    token_limit: int | None = None
    stream: bool = False
    include_usage: bool = False


def read_request(body: Any, model: str, ceilings: Ceilings) -> Asked:
    """What a request's JSON asks for. Fields that this server does not know are left alone, as other servers do.

    Args:
        body: as it was decoded.
        model: name of the only model that there is here.
        ceilings: of this server.

    Raises:
        Refusal: it cannot be answered as it is asked.
    """
    if not isinstance(body, Mapping):
        raise Refusal(400, "the body must be a JSON object with model and messages")
    asked_model = body.get("model", model)
    if asked_model != model:
        raise Refusal(
            404, f"the model {asked_model!r:.80} does not exist; there is {model!r}", "model", "model_not_found"
        )
    _refuse_what_is_not_done(body)
    own = {name: given for name, given in _mapping(body, "metadata").items() if name in _OWN}
    given = {**own, **{name: body[name] for name in (*_FIELDS, *_OWN) if body.get(name) is not None}}
    readers = {**_FIELDS, **_OWN}
    options = {readers[name][0]: readers[name][1](name, value, ceilings) for name, value in given.items()}
    given_limits = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    return Asked(
        _statement(body.get("messages"), ceilings),
        options,
        _whole(given_limits[0], body[given_limits[0]], 1) if given_limits else None,
        stream=_flag(body, "stream"),
        include_usage=_flag(_mapping(body, "stream_options"), "include_usage"),
    )


def _refuse_what_is_not_done(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise Refusal(400, "n must be 1: the answer is already chosen from many attempts (ask for attempts)", "n")
    for name in ("tools", "functions"):
        if body.get(name):
            raise Refusal(400, f"{name} must be left out: Mathlete runs programs of its own and calls nobody's", name)
    if body.get("logprobs"):
        raise Refusal(400, "logprobs must be left out: an answer is chosen, not sampled", "logprobs")
    kind = _mapping(body, "response_format").get("type", "text")
    if kind != "text":
        raise Refusal(400, f"response_format must be text, not {kind!r:.40}", "response_format")


def _statement(messages: Any, ceilings: Ceilings) -> str:
    """The text of the user's last message."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise Refusal(400, "messages must be a list with at least one message", "messages")
    asked = [item for item in messages if isinstance(item, Mapping) and item.get("role") == "user"]
    if not asked:
        raise Refusal(400, "messages must have one of the user's: the last of them is the problem", "messages")
    text = _text(asked[-1].get("content")).strip()
    if not text:
        raise Refusal(400, "the user's last message is empty: it is the problem", "messages")
    if len(text) > ceilings.statement_chars:
        words = f"the problem has {len(text):,} characters; at most {ceilings.statement_chars:,} are read"
        raise Refusal(413, words, "messages", "context_length_exceeded")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refusal(400, "the problem holds half of a surrogate pair; write the character itself", "messages")
    return text


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise Refusal(400, "a message's content must be text, or a list of parts of type text", "messages")
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, "parts of a message must be of type text: no pictures, sound or files", "messages")
        texts.append(part["text"])
    return "\n".join(texts)


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    given = body.get(name)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Refusal(400, f"{name} must be an object", name)
    return given


def _flag(body: Mapping[str, Any], name: str) -> bool:
    given = body.get(name)
    if given is not None and not isinstance(given, bool):
        raise Refusal(400, f"{name} must be true or false, not {given!r:.40}", name)
    return bool(given)


def _whole(name: str, given: Any, low: int, high: float = math.inf) -> int:
    """A whole number; metadata holds it as text."""
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 20 else given
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        limits = f"from {low} to {high:,}" if high < math.inf else f"at least {low}"
        raise Refusal(400, f"{name} must be a whole number, {limits}, not {given!r:.40}", name)
    return number


def _sampling(name: str, given: Any, ceilings: Ceilings) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise Refusal(400, f"{name} must be a number, not {given!r:.40}", name)
    try:
        bounds: dict[str, Any] = {name: float(given)}
        SamplingParams(**bounds)
    except (ValueError, OverflowError) as error:
        raise Refusal(400, str(error), name) from error
    if not math.isfinite(given) or given > 2:
        raise Refusal(400, f"{name} must be at most 2, not {given!r:.40}", name)
    return float(given)


def _top_k(name: str, given: Any, ceilings: Ceilings) -> int:
    return 0 if given == -1 else _whole(name, given, 0, 1 << 20)  # -1 is vLLM's word for no limit


def _seed(name: str, given: Any, ceilings: Ceilings) -> int:
    return _whole(name, given, -MAX_SEED, MAX_SEED)


def _budget(name: str, given: Any, ceilings: Ceilings) -> float:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise Refusal(400, f'{name} must be a time such as "90s" or "2m", or seconds, not {given!r:.40}', name)
    try:
        seconds = parse_duration(given if isinstance(given, str) else format(given, "f"))
    except (InputError, OverflowError) as error:
        raise Refusal(400, f"{name}: {error}", name) from error
    if seconds > ceilings.budget_s:
        raise Refusal(400, f"{name} may be {ceilings.budget_s:g} s at most on this server, not {seconds:g} s", name)
    return seconds


def _attempts(name: str, given: Any, ceilings: Ceilings) -> int:
    return _whole(name, given, 1, ceilings.attempts)


def _policy(name: str, given: Any, ceilings: Ceilings) -> str:
    if given not in get_args(PolicyName):
        raise Refusal(400, f"{name} must be one of {', '.join(get_args(PolicyName))}, not {given!r:.40}", name)
    return str(given)


_Read = Callable[[str, Any, Ceilings], Any]
# Fields of OpenAI's protocol and of vLLM's extension of it: option of a run, and how it is read.
_FIELDS: Mapping[str, tuple[str, _Read]] = {
    "temperature": ("temperature", _sampling),
    "top_p": ("top_p", _sampling),
    "min_p": ("min_p", _sampling),
    "top_k": ("top_k", _top_k),
    "seed": ("seed", _seed),
}
# This server's own, in the body (`extra_body` of OpenAI's client) or in `metadata`.
_OWN: Mapping[str, tuple[str, _Read]] = {
    "budget": ("budget_s", _budget),
    "attempts": ("attempts", _attempts),
    "policy": ("policy", _policy),
}
OPTIONS = frozenset(option for option, _ in (*_FIELDS.values(), *_OWN.values()))
