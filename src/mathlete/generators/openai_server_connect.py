"""Getting to know a server: whether it is there, what kind it is, which models it has, what it takes and tells.

Asks `/models`, what only some kinds of servers answer, and then for one token, the way requests will ask. Synchronous,
before anything runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from mathlete.core.errors import EngineError
from mathlete.core.generation import GenerateRequest, Message, SamplingParams, Span
from mathlete.generators.openai_server_dialects import DIALECTS, Dialect, refused_field, sampling_fields
from mathlete.generators.openai_server_events import BrokenStream, EventLines
from mathlete.generators.openai_server_formats import LoadFormat, format_of, no_harmony, turns_of
from mathlete.generators.openai_server_retry import Failure, advice, wait_before
from mathlete.generators.openai_server_stream import DONE, Delta, parse_json, read_delta, token_ids_in
from mathlete.generators.openai_server_transport import client_options, connection_text, failure_of, httpx, without_key
from mathlete.generators.openai_server_turns import ChatTurns, Turns
from mathlete.generators.server_settings import ServerSettings
from mathlete.generators.turn_formats import TurnFormatName

_MAX_ANSWER_BYTES = 8 << 20
_MAX_NAMES = 8
_MAX_REFUSALS = 8
_TRIED = GenerateRequest(
    "try",
    (Message("user", "What is 1 + 1?"),),
    SamplingParams(temperature=0, top_p=1.0, max_tokens=1, num_logprobs=2),
)


@dataclass(frozen=True, slots=True)
class KnownServer:
    """What was found out.

    Attributes:
        dialect: what it takes and tells.
        model: the name by which it knows the model.
        turn_format: in which it is asked.
        turns: of that format.
        api_key: what it is shown.
        num_slots: requests it computes at once, of servers that tell; None else.
        context: tokens of prompt and answer at most, of servers that tell; None else.
        warnings: what a person should know.
    """

    dialect: Dialect
    model: str
    turn_format: TurnFormatName
    turns: Turns
    api_key: str | None = None
    num_slots: int | None = None
    context: int | None = None
    warnings: tuple[str, ...] = ()


def key_from(settings: ServerSettings) -> str | None:
    """The key, from the environment. Raises `EngineError` when it should be there and is not."""
    name = settings.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise EngineError(f"the environment variable {name} (api_key_env) is not set: put the server's key in it")
    if not key.isascii() or not key.isprintable():
        raise EngineError(f"the environment variable {name} (api_key_env) holds what can be no key")
    return key


def explore(
    model: str,
    settings: ServerSettings,
    load_harmony: LoadFormat = no_harmony,
    sleep: Callable[[float], None] = time.sleep,
) -> KnownServer:
    """Find out what a server does.

    Raises:
        EngineError: it cannot be reached, wants another key, or has no such model; the message says which it has.
    """
    key = key_from(settings)
    options = client_options(settings.base_url, key, min(settings.timeout_s, 60.0))
    with closing(httpx.Client(**options)) as client:
        return _Exploration(client, model, settings, key, sleep, load_harmony).explore()


class _Exploration:
    """The questions, one after the other."""

    def __init__(
        self,
        client: httpx.Client,
        model: str,
        settings: ServerSettings,
        key: str | None,
        sleep: Callable[[float], None],
        load_harmony: LoadFormat,
    ) -> None:
        self._client, self._model, self._settings, self._key, self._sleep = client, model, settings, key, sleep
        self._load_harmony = load_harmony
        self._base = settings.base_url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._random = Random()
        self._warnings: list[str] = []

    def explore(self) -> KnownServer:
        listed = self._models()
        dialect = self._dialect(listed)
        props = self._optional("/props") if dialect.name == "llama.cpp" else None
        model, entry = self._model_of(dialect, listed)
        dialect, name, turns = self._try_out(dialect, model)
        return KnownServer(
            dialect,
            model,
            name,
            turns,
            self._key,
            _int_in(props, "total_slots"),
            _int_in(entry, "max_model_len") or _int_in((entry or {}).get("meta"), "n_ctx"),
            tuple(self._warnings),
        )

    def _models(self) -> httpx.Response | None:
        """What `/models` says; None where there is no such thing."""
        answer = self._again("GET", "/models")
        if isinstance(answer, httpx.Response):
            return answer
        if answer.status in (404, 405, 501):
            self._warnings.append(f"{self._base} has no list of models, so {self._model!r} was not looked for")
            return None
        raise self._error("/models", answer)

    def _again(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response | Failure:
        """An answer with status 200, or why there is none, after as many tries as the settings allow.

        A server that still loads its model (503) is given as long as a stream may be silent.
        """
        end_s = time.monotonic() + self._settings.timeout_s
        num_tries = 0
        while True:
            failure = self._once(method, self._base + path, body)
            if isinstance(failure, httpx.Response) or not failure.is_transient:
                return failure
            is_loading = failure.status == 503 and time.monotonic() < end_s
            if num_tries >= self._settings.max_retries and not is_loading:
                return failure
            self._sleep(wait_before(min(num_tries, 3), failure, self._settings.max_retry_wait_s, self._random))
            num_tries += 1

    def _once(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> httpx.Response | Failure:
        try:
            with self._client.stream(method, url, json=body) as response:
                told = bytearray()
                for piece in response.iter_bytes():
                    told += piece
                    if len(told) > _MAX_ANSWER_BYTES:
                        return Failure(f"it answered with more than {_MAX_ANSWER_BYTES >> 20} MiB", 400)
                if response.status_code != 200:
                    failure = failure_of(response.status_code, response.headers, bytes(told))
                    return replace(failure, message=without_key(failure.message, self._key))
                return httpx.Response(200, headers={"server": response.headers.get("server", "")}, content=bytes(told))
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            return Failure(without_key(connection_text(error, self._settings.timeout_s), self._key))

    def _optional(self, path: str) -> dict[str, Any] | None:
        """What only some servers tell; None for the others."""
        answer = self._once("GET", self._root + path)
        if isinstance(answer, Failure):
            return None
        try:
            told = parse_json(answer.text)
        except BrokenStream:
            return None
        return told if isinstance(told, dict) else None

    def _dialect(self, listed: httpx.Response | None) -> Dialect:
        """As set, or what the server is by its own word, or by what only such servers answer."""
        if self._settings.dialect != "auto":
            return DIALECTS[self._settings.dialect]
        owners = {str(entry.get("owned_by")) for entry in _entries(listed)}
        server = "" if listed is None else listed.headers["server"].lower()
        for name, is_it in (
            ("llama.cpp", "llama.cpp" in server or "llamacpp" in owners),
            ("vllm", "vllm" in owners),
            ("sglang", "sglang" in owners),
        ):
            if is_it:
                return DIALECTS[name]
        if (self._optional("/get_model_info") or {}).get("model_path") is not None:
            return DIALECTS["sglang"]
        if (self._optional("/props") or {}).get("total_slots") is not None:
            return DIALECTS["llama.cpp"]
        return DIALECTS["openai"]

    def _model_of(self, dialect: Dialect, listed: httpx.Response | None) -> tuple[str, dict[str, Any] | None]:
        """The name that the server knows, and what it says of it."""
        entries = _entries(listed)
        if listed is None:
            return self._model, None
        for entry in entries:
            if self._model == entry["id"] or self._model in (entry.get("aliases") or ()):
                return self._model, entry
        if dialect.name == "llama.cpp" and len(entries) == 1:  # it has one, goes by its path, and answers to any name
            return self._model, entries[0]
        if not entries:
            raise EngineError(f"{self._base}/models lists no model: is it an OpenAI-compatible server?")
        names = ", ".join(repr(entry["id"][:80]) for entry in entries[:_MAX_NAMES])
        more = f" and {len(entries) - _MAX_NAMES} more" if len(entries) > _MAX_NAMES else ""
        raise EngineError(f"the server at {self._base} has no model {self._model!r}; it has {names}{more}")

    def _try_out(self, dialect: Dialect, model: str) -> tuple[Dialect, TurnFormatName, Turns]:
        """Ask for one token as requests will, in the turn format that they will have."""
        settings = self._settings.turns()
        name = format_of(settings, dialect, self._model)
        if name == "harmony":
            turns = turns_of(name, settings, dialect, self._model, self._load_harmony)
            dialect = self._tried(dialect, model, lambda _: turns, _TRIED)
            if format_of(settings, dialect, self._model) == name:
                return dialect, name, turns
            return self._try_out(dialect, model)
        begun = (Span("The answer is", by_model=True),) if dialect.continues else ()
        dialect = self._tried(dialect, model, ChatTurns, replace(_TRIED, continuation=begun))
        if dialect.tells_ids:
            dialect = replace(dialect, tokenizes=self._tokenizes(model))
        if name == "tool_calls":
            runs_programs = replace(_TRIED, sampling=replace(_TRIED.sampling, stop=("```\n",)))
            make = partial(turns_of, name, settings, model=self._model, load=self._load_harmony)
            dialect = self._tried(dialect, model, lambda found: make(dialect=found), runs_programs)
        return dialect, name, turns_of(name, settings, dialect, self._model, self._load_harmony)

    def _tokenizes(self, model: str) -> bool:
        """Whether it tells the ids of a chat."""
        body = {"model": model, "messages": [{"role": "user", "content": "What is 1 + 1?"}]}
        answer = self._once("POST", f"{self._root}/tokenize", body)
        try:
            return isinstance(answer, httpx.Response) and len(token_ids_in(answer.text)) > 0
        except BrokenStream:
            return False

    def _tried(
        self, dialect: Dialect, model: str, turns: Callable[[Dialect], Turns], request: GenerateRequest
    ) -> Dialect:
        """Leave out what the server refuses, and look at what it tells."""
        for _ in range(_MAX_REFUSALS):
            asked = turns(dialect).ask(request, None)
            is_chat = asked.path.startswith("/chat")
            fields = sampling_fields(dialect, request.sampling, self._settings, 1, is_chat=is_chat)
            kept = {name: value for name, value in asked.fields.items() if name not in dialect.left_out}
            body = {"model": model, **fields, **kept}
            answer = self._again("POST", asked.path, body)
            if isinstance(answer, httpx.Response):
                begun = "".join(span.text for span in request.continuation)
                return self._as_told(dialect, _deltas(answer.content), begun)
            name = refused_field(answer.message, body) if answer.status in (400, 422) else None
            if name is None:
                raise self._error(asked.path, answer)
            self._warnings.append(f"the server refuses {name!r}, which is left out: {answer.message}")
            dialect = dialect.without(name)
        raise EngineError(f"the server at {self._base} refuses one field after the other: {self._warnings[-1]}")

    def _as_told(self, dialect: Dialect, deltas: list[Delta], begun: str) -> Dialect:
        tokens = [token for delta in deltas for token in delta.tokens]
        if dialect.tells_ids and not any(delta.token_ids for delta in deltas):
            dialect = dialect.without("return_token_ids")
        if self._settings.logprobs and not tokens and "logprobs" not in dialect.left_out:
            self._warnings.append("the server tells no log-probabilities")
            dialect = dialect.without("logprobs")
        if not self._settings.logprobs:
            dialect = replace(dialect, left_out=dialect.left_out | {"logprobs", "top_logprobs"})
        if not begun:
            return dialect
        text = "".join(delta.text for delta in deltas)
        return replace(dialect, echoes=dialect.echoes and text.startswith(begun))

    def _error(self, path: str, failure: Failure) -> EngineError:
        what_to_do = advice(failure, self._model, self._settings.api_key_env)
        if failure.status is None:
            what_to_do = "start the server, or look at base_url"
        return EngineError(f"{self._base}{path}: {failure.told}" + (f"; {what_to_do}" if what_to_do else ""))


def _entries(listed: httpx.Response | None) -> list[dict[str, Any]]:
    """The models of a list of them; nothing where it is none."""
    if listed is None:
        return []
    try:
        told = parse_json(listed.text)
    except BrokenStream as error:
        raise EngineError(f"{error}: is base_url that of an OpenAI-compatible server?") from error
    data = told.get("data") if isinstance(told, dict) else None
    found = data if isinstance(data, list) else []
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _deltas(content: bytes) -> list[Delta]:
    """The events of a whole stream. Raises `EngineError`."""
    lines = EventLines()
    try:
        return [read_delta(data) for data in (*lines.feed(content), *lines.finish()) if data != DONE]
    except BrokenStream as error:
        raise EngineError(f"the server does not speak OpenAI's protocol: {error}") from error


def _int_in(told: object, name: str) -> int | None:
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
