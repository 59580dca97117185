"""RyanStream as a `Generator`: chats in, text out. Knows chat templates; knows nothing of problems."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from mathlete.core.generation import (
    Completion,
    Finished,
    GenerateRequest,
    GeneratorEvent,
    Message,
    SamplingParams,
    TokenChunk,
    Usage,
)
from mathlete.generators.chat_format import chat_format_of, chat_ids
from mathlete.generators.turn_tokens import continuation_ids, thinking_tokens
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.model.math_tokenizer import MathTokenizer, normalize_math_text
from mathlete.ryanstream.request import EngineRequest, RequestEnd, RequestOutput

_new_decoder = codecs.getincrementaldecoder("utf-8")  # gives text as far as its bytes are whole characters


class RyanStreamGenerator:
    """Drives one engine from one thread."""

    def __init__(self, loaded: LoadedEngine, normalize_math: bool = False) -> None:
        """Take over a loaded engine.

        Args:
            loaded: the engine and its tokenizer.
            normalize_math: whether what users say is made uniform first (`normalize_math_text`). What that does to
                accuracy has not been measured.

        Raises:
            ModelError: when the model knows no chat format that is known here.
        """
        self.chat_format = chat_format_of(loaded.tokenizer.control_tokens)
        self._normalizes = normalize_math
        self._math = MathTokenizer(loaded.tokenizer)
        self._loaded = loaded
        self._engine = loaded.engine
        self._engine.expect_ends_after([loaded.tokenizer.encode("boxed{")])  # how a final answer begins
        self._tokenizer = loaded.tokenizer
        self._token_bytes = self.token_bytes = loaded.token_bytes
        self.eos_token_ids = tuple(loaded.tokenizer.eos_token_ids)
        self._thinking = thinking_tokens(loaded.tokenizer)
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._num_told: dict[str, int] = {}  # tokens of running requests that were told of in chunks
        self._num_system_tokens: dict[str, int] = {}
        self.description = f"ryanstream, {loaded.kernels} kernels"
        if loaded.engine.speculation is not None:
            self.description += f", guesses: {loaded.speculation}"

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request. Raises `EngineError` when its prompt can never fit."""
        messages = [self._as_shown(message) for message in request.messages]
        ids = [*chat_ids(self._math, messages), *continuation_ids(self._tokenizer, request.continuation)]
        self._engine.add(
            request.request_id,
            ids,
            request.sampling,
            request.group,
            priority=request.priority,
            constraint=request.constraint,
            thinking=self._thinking,
            persist_prefix=self._system_tokens(request.messages),
        )
        self._decoders[request.request_id] = _new_decoder("replace")
        self._num_told[request.request_id] = 0

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """One engine step; nothing when there is nothing to do. A step may take longer than `timeout_s`."""
        if not self._engine.has_work:
            return []
        return [event for output in self._engine.step() for event in self._translate(output)]

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        self._engine.abort(request_id=request_id, group=group)

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back to its first `num_tokens` tokens; see `Generator.rewind`."""
        kept = self._engine.rewind(request_id, num_tokens, sampling)
        decoder = self._decoders[request_id] = _new_decoder("replace")
        decoder.decode(b"".join(self._token_bytes[token] for token in kept))
        self._num_told[request_id] = num_tokens

    def close(self) -> None:
        """End whatever runs, other ranks' processes too. The weights are unmapped with the last reference."""
        for request_id in list(self._decoders):
            self._engine.abort(request_id=request_id)
        self._decoders.clear()
        self._num_told.clear()
        self._loaded.close()

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call."""
        return self._engine.take_warnings()

    def guesses(self) -> Mapping[str, float] | None:
        """What became of the tokens guessed so far (`SpeculationStatistics.as_dict`); None where none are guessed."""
        speculation = self._engine.speculation
        return None if speculation is None else speculation.statistics.as_dict()

    def measure_speed(self, num_attempts: int, num_tokens: int = 6) -> float:
        """Tokens a second that `num_attempts` siblings get together; takes a few steps.

        For an idle generator. Where fewer run at once than `num_attempts`, it is their speed. `num_tokens` >= 3.
        Nothing is guessed: these siblings all write the same.
        """
        speculation, self._engine.speculation = self._engine.speculation, None
        try:
            return self._measure_speed(num_attempts, num_tokens)
        finally:
            self._engine.speculation = speculation

    def _measure_speed(self, num_attempts: int, num_tokens: int) -> float:
        sampling = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        prompt = chat_ids(self._math, (Message("user", "How many primes are there below 100?"),))
        for i in range(num_attempts):
            self._engine.add(f"speed/{i}", prompt, sampling)
        counted, num_steps, start_s = 0, 0, 0.0
        while self._engine.has_work:
            num_new = len(self._engine.step())
            if num_steps == 2:
                counted += num_new
            elif num_new:
                num_steps += 1  # one computes the prompt, then all get a token; from then on each step gives one to all
                start_s = time.perf_counter()
        return counted / (time.perf_counter() - start_s)

    def _system_tokens(self, messages: Sequence[Message]) -> int:
        """How many leading tokens of a chat belong to its system message, which other chats begin with too."""
        if not messages or messages[0].role != "system":
            return 0
        known = self._num_system_tokens.get(messages[0].content)
        if known is None:
            alone, followed = (chat_ids(self._math, (messages[0], *more)) for more in ((), (Message("user", ""),)))
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, followed, strict=False)))
            self._num_system_tokens[messages[0].content] = known
        return known

    def _as_shown(self, message: Message) -> Message:
        if not self._normalizes or message.role != "user":
            return message
        return Message(message.role, normalize_math_text(message.content))

    def _translate(self, output: RequestOutput) -> Iterable[GeneratorEvent]:
        request = output.request
        decoder = self._decoders.get(request.request_id)
        if decoder is None:
            return
        if output.end is not None:
            del self._decoders[request.request_id], self._num_told[request.request_id]
            yield Finished(request.request_id, self._completion(request, output.end))
        elif output.new_token_id is not None:
            text = decoder.decode(self._token_bytes[output.new_token_id])
            place = self._num_told[request.request_id]
            self._num_told[request.request_id] = place + 1
            yield TokenChunk(request.request_id, text, 1, (request.entropies[place],))

    def _completion(self, request: EngineRequest, end: RequestEnd) -> Completion:
        raw = b"".join(self._token_bytes[token] for token in request.output_ids)
        if end.num_output_bytes is not None:
            raw = raw[: end.num_output_bytes]
        return Completion(
            text=raw.decode("utf-8", errors="replace"),
            token_ids=tuple(request.output_ids),
            logprobs=tuple(request.logprobs),
            entropies=tuple(request.entropies),
            finish_reason=end.reason,
            usage=Usage(
                prompt=len(request.prompt_ids),
                cached=request.num_cached or 0,
                output=len(request.output_ids),
                forced=request.num_forced,
                drafted=request.num_drafted,
                accepted=request.num_accepted,
                discarded=request.num_discarded,
            ),
            stop=end.stop,
            error=end.message,
            top_means=tuple(request.top_means),
            top_logprobs=tuple(request.top_logprobs),
        )
