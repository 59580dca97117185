"""What servers take and tell beside OpenAI's own fields, and the fields that a request's sampling becomes. Pure.

After vLLM 0.32 (entrypoints/openai/chat_completion/protocol.py), SGLang 0.5 (entrypoints/openai/protocol.py), llama.cpp
(tools/server/README.md) and OpenAI's reference of 2025. SGLang's part and OpenAI's were written after these, and have
not met a real one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mathlete.core.errors import EngineError
from mathlete.core.generation import Capabilities, GenerateRequest, SamplingParams
from mathlete.generators.server_settings import ServerSettings

# Fields without which a request is none, or not the one that was asked for.
_NEEDED = frozenset({"model", "messages", "prompt", "stream", "continue_final_message", "add_generation_prompt"})
_MAX_TOKENS, _MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a kind of server does.

    Attributes:
        name: as in `ServerSettings.dialect`.
        continues: goes on with an assistant's message that is the last of a chat.
        ends_at_stops: keeps the stop string in its text, so that it can be told to look for it; else its text is looked
            at here, and the connection closed at the first stop string.
        takes_filters: takes `top_k` and `min_p`.
        takes_stop_ids: takes `stop_token_ids`.
        ignores_eos: takes `ignore_eos`.
        tells_ids: can be made to tell the id of each token.
        tokenizes: tells the ids of chats and texts (`/tokenize`) and takes ids for a prompt.
        echoes: begins its answer with the message that it goes on with.
        left_out: fields that it has refused.
        max_tokens_name: of the field that says how long an answer may be.
    """

    name: str
    continues: bool = False
    ends_at_stops: bool = False
    takes_filters: bool = False
    takes_stop_ids: bool = False
    ignores_eos: bool = False
    tells_ids: bool = False
    tokenizes: bool = False
    echoes: bool = False
    left_out: frozenset[str] = field(default_factory=frozenset)
    max_tokens_name: str = _MAX_TOKENS

    @property
    def capabilities(self) -> Capabilities:
        """What a generator over such a server does. Sums depend on the batch, so no seed gives the same always."""
        return Capabilities(
            constraints=False,
            rewinding=self.continues,
            seeds=False,
            token_ids=self.tells_ids,
            logprobs="logprobs" not in self.left_out,
            entropies=False,
            thinking_budget=False,
            continuation=self.continues,
            top_k=self.takes_filters and not {"top_k", "min_p"} & self.left_out,
        )

    def without(self, name: str) -> Dialect:
        """The same for a server that has refused a field: it is left out, or goes by its newer name."""
        if name == _MAX_TOKENS and self.max_tokens_name == _MAX_TOKENS:
            return replace(self, max_tokens_name=_MAX_COMPLETION_TOKENS)
        with_it = {"logprobs": {"top_logprobs", "return_tokens_as_token_ids"}}.get(name, set())
        tells_ids = self.tells_ids and name not in ("return_token_ids", "logprobs")
        return replace(self, left_out=self.left_out | {name} | with_it, tells_ids=tells_ids)


DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect("vllm", True, True, True, True, True, True),
    "sglang": Dialect("sglang", True, True, True, True, True),
    "llama.cpp": Dialect("llama.cpp", continues=True, takes_filters=True, ignores_eos=True, echoes=True),
    "openai": Dialect("openai"),
}


def refuse_what_it_cannot(request: GenerateRequest, dialect: Dialect, able: Capabilities) -> None:
    """Raise `EngineError` naming the first thing a request wants that such a server does not do."""
    sampling = request.sampling
    for name, is_refused, what_to_do in (
        ("constraint", request.constraint is not None, "use the embedded engine or vLLM in process for constraints"),
        (
            "thinking_budget",
            sampling.thinking_budget is not None and not able.thinking_budget,
            "leave it out, or use the embedded engine",
        ),
        ("top_k", sampling.top_k > 0 and not dialect.capabilities.top_k, "leave it 0"),
        ("min_p", sampling.min_p > 0 and not dialect.capabilities.top_k, "leave it 0"),
        ("stop_token_ids", bool(sampling.stop_token_ids) and not dialect.takes_stop_ids, "use stop strings"),
        ("ignore_eos", sampling.ignore_eos and not dialect.ignores_eos, "leave it out"),
    ):
        if is_refused:
            raise EngineError(
                f"request {request.request_id!r} has a {name}, which a server ({dialect.name}) cannot keep to: "
                f"{what_to_do}"
            )


def sampling_fields(
    dialect: Dialect, sampling: SamplingParams, settings: ServerSettings, max_tokens: int, *, is_chat: bool
) -> dict[str, Any]:
    """The fields of a body that say how to draw at most `max_tokens`; what is not said, a server makes up itself."""
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        dialect.max_tokens_name: max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if settings.use_seeds:
        fields["seed"] = sampling.seed % (1 << 31)
    if settings.logprobs:
        least = int(dialect.name == "llama.cpp")  # which tells nothing at all when asked for none
        num_top = max(sampling.num_logprobs, settings.top_logprobs, least)
        fields |= {"logprobs": True, "top_logprobs": num_top} if is_chat else {"logprobs": num_top}
    fields |= _own_fields(dialect, sampling)
    return {name: value for name, value in fields.items() if name not in dialect.left_out}


def _own_fields(dialect: Dialect, sampling: SamplingParams) -> dict[str, Any]:
    """Those of this kind of server. Filters that are off are said to be: models come with others as their default."""
    if dialect.name == "llama.cpp":
        return {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": 1.0,
            "samplers": ["temperature", "top_k", "top_p", "min_p"],  # the order of everybody else
            "ignore_eos": sampling.ignore_eos,
            "timings_per_token": True,  # the only count of tokens before the end
            "cache_prompt": True,
        }
    if dialect.name not in ("vllm", "sglang"):
        return {}
    fields: dict[str, Any] = {
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "stop": list(sampling.stop),
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if dialect.name == "sglang":
        return fields | {"no_stop_trim": True}
    return fields | {
        "include_stop_str_in_output": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def refused_field(message: str, body: Mapping[str, Any]) -> str | None:
    """The field of a body that a server's refusal (HTTP 400 or 422) names, where the request can do without it."""
    named = [
        name for name in body if name not in _NEEDED and re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", message)
    ]
    return max(named, key=len, default=None)
