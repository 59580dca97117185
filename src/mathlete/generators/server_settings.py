"""The options of an OpenAI-compatible server, as seen by its client. Plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from mathlete.core.environment import is_variable_name
from mathlete.core.generation import MAX_LOGPROBS
from mathlete.generators.turn_formats import TOOLS, ReasoningEffort, TurnFormatName, TurnSettings

DialectName = Literal["auto", "vllm", "sglang", "llama.cpp", "openai"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server is and how it is treated.

    Attributes:
        base_url: of the API, such as "http://127.0.0.1:8000/v1".
        api_key_env: name of the environment variable that holds the key; None for a server that wants none. A key
            itself never stands in a recipe or a trace.
        dialect: what the server takes and tells beside OpenAI's own fields; "auto" asks it.
        max_concurrency: requests under way at once; more wait here (back-pressure).
        max_retries: times a request is tried again after 408, 409, 425, 429, 5xx, or a connection that failed or broke
            off.
        max_retry_wait_s: seconds between two tries at most, whatever the server asks for (`Retry-After`).
        timeout_s: seconds without a byte before a request counts as broken off.
        use_seeds: whether requests carry seeds; vLLM's CPU build ends on one.
        logprobs: whether log-probabilities are asked for.
        top_logprobs: likeliest tokens told at each place where a request asks for fewer; 20 give DeepConf's confidence,
            and make a stream about ten times as long.
        priority_scheduling: whether priorities are sent too, for vLLM started with `--scheduling-policy priority`; it
            refuses them otherwise. Here they count in any case.
        turn_format: how the model takes its turns, as `turn_formats.TurnSettings` says.
        reasoning_effort: likewise.
        tools: likewise.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None
    dialect: DialectName = "auto"
    max_concurrency: int = 32
    max_retries: int = 5
    max_retry_wait_s: float = 60.0
    timeout_s: float = 120.0
    use_seeds: bool = True
    logprobs: bool = True
    top_logprobs: int = 0
    priority_scheduling: bool = False
    turn_format: TurnFormatName = "auto"
    reasoning_effort: ReasoningEffort | None = None
    tools: tuple[str, ...] = TOOLS

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        parts = urlsplit(self.base_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username is not None
            or re.search(r"[\x00-\x20\x7f]", self.base_url)
        ):
            raise ValueError(
                f"base_url must be like http://127.0.0.1:8000/v1, without a name or key in it: {parts.path}"
            )
        if self.api_key_env is not None and not is_variable_name(self.api_key_env):
            # somebody put the key itself there: it is not repeated
            raise ValueError("api_key_env must be the name of an environment variable, such as OPENAI_API_KEY")
        if self.dialect not in get_args(DialectName):
            raise ValueError(f"dialect must be one of {', '.join(get_args(DialectName))}, not {self.dialect!r}")
        if self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be >= 1, not {self.max_concurrency}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be >= 0, not {self.max_retries}")
        for name in ("timeout_s", "max_retry_wait_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, not {getattr(self, name)}")
        if not 0 <= self.top_logprobs <= MAX_LOGPROBS:
            raise ValueError(f"top_logprobs must be in [0, {MAX_LOGPROBS}], not {self.top_logprobs}")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs must be 0 where logprobs is false")
        self.turns()

    def turns(self) -> TurnSettings:
        """What they say of turns."""
        return TurnSettings(self.turn_format, self.reasoning_effort, tuple(self.tools))
