"""vLLM as a `Generator`: chats in, text out. Drives one engine, whatever it is loaded with.

Keeps the whole contract: what vLLM lacks (going back, aborting siblings together, stop strings that are judged by
bytes, a budget of thinking) is made of what it has (`vllm_requests.py`). What it cannot do is refused or told:

- Its CPU build ends on a request with a seed, so none is given there. Where one is given, numbers are rounded by what
  runs beside a request, so `Capabilities.seeds` is not promised.
- It tells log-probabilities of the 20 likeliest tokens, so entropies stay empty: they would not be exact.
- While it guesses tokens (`speculative_config`), constraints and `min_p` are refused, and its log-probabilities are
  checked once against a reading of the same text; where they differ they are left out, with a warning.

Knows an engine by `SegmentEngine` and turns by `Turns`; imports no vLLM.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Capabilities,
    Finished,
    GenerateRequest,
    GeneratorEvent,
    Message,
    SamplingParams,
    TokenChunk,
)
from mathlete.generators.constraint_arguments import args_of_constraint
from mathlete.generators.vllm_requests import End, RunningRequest, Segment, SegmentOutput
from mathlete.generators.vllm_turns import TurnReader, Turns

MAX_TEMPERATURE = 2.0
"""What vLLM takes."""

_SPEED_PROMPT = "How many primes are there below 100?"
_CHECK_PROMPT = "Repeat: one two three, one two three, one two"  # something to guess from
_CHECK_TOKENS = 12
_MAX_LOGPROB_ERROR = 0.3  # nats, in the mean; 16-bit arithmetic in another order gives less than a tenth of it


class SegmentEngine(Protocol):
    """What is asked of vLLM; see `VLLMEngine`."""

    max_model_len: int

    def add(self, segment: Segment, seed: int | None, wants_logprobs: bool) -> None:
        """Queue a segment. Raises `ValueError` when vLLM takes no such request."""
        ...

    def step(self) -> Sequence[SegmentOutput]:
        """Compute a step."""
        ...

    def abort(self, segment_ids: Sequence[str]) -> None:
        """End segments; no more is told of them."""
        ...

    def logprobs_of(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> list[float]:
        """Log-probability of each output token when the text is read."""
        ...

    def close(self) -> None:
        """End the engine."""
        ...


@dataclass(frozen=True, slots=True)
class VLLMFacts:
    """What a generator is told of its engine.

    Attributes:
        description: engine, version and platform, for the trace.
        speculates: whether it guesses tokens ahead.
        constraints: whether requests may have constraints.
        gives_seeds: whether requests carry seeds.
        token_bytes: what each id spells.
        eos_token_ids: of these, what ends a text.
        warnings: what a person should know about it.
    """

    description: str = "vllm"
    speculates: bool = False
    constraints: bool = False
    gives_seeds: bool = True
    token_bytes: Sequence[bytes] = ()
    eos_token_ids: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


class VLLMGenerator:
    """Drives one engine from one thread.

    Attributes:
        description: engine, version and platform.
        warnings: what a person should know about it.
        turn_start: what an assistant's turn begins with before the model writes.
        capabilities: what it does of what a request may ask for.
        token_bytes: what each id spells, for constraints; empty where there can be none.
        eos_token_ids: of these, what ends a text.
        failure: what the engine died of; None while it lives.
    """

    def __init__(self, engine: SegmentEngine, turns: Turns, facts: VLLMFacts) -> None:
        """Take over a loaded engine."""
        self._engine = engine
        self._turns = turns
        self._facts = facts
        self._tells_logprobs = True
        self._running: dict[str, RunningRequest] = {}
        self._segments: dict[str, RunningRequest] = {}  # by the id that vLLM knows
        self._segment_of: dict[str, str] = {}
        self._ended: list[Finished] = []
        self._closed = False
        self._num_segments = self._num_drafted = self._num_accepted = 0
        self._late_warnings: list[str] = []
        self.failure: str | None = None
        self.description = facts.description
        self.warnings = facts.warnings
        self.turn_start = turns.turn_start
        self.token_bytes = facts.token_bytes if facts.constraints else ()
        self.eos_token_ids = facts.eos_token_ids

    @property
    def capabilities(self) -> Capabilities:
        """What it does of what a request may ask for."""
        return Capabilities(
            constraints=self._facts.constraints,
            seeds=False,  # a seed is given, but what runs beside a request changes how its numbers are rounded
            logprobs=self._tells_logprobs,
            entropies=False,
            top_k=not self._facts.speculates,
        )

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request.

        Raises:
            EngineError: its prompt can never fit, its id is in use, it asks for what vLLM cannot do, or the engine is
                closed or dead.
        """
        self._require_alive()
        name = request.request_id
        if name in self._running or any(ended.request_id == name for ended in self._ended):
            raise EngineError(f"request id {name!r} is in use")
        self._require_possible(request)
        prompt = self._turns.prompt(request)
        if not prompt.token_ids or len(prompt.token_ids) >= self._engine.max_model_len:
            raise EngineError(
                f"request {name!r} has {len(prompt.token_ids)} prompt tokens; vLLM takes from 1 to "
                f"{self._engine.max_model_len - 1}. Shorten it, or raise max_model_len"
            )

        def reader(asked: GenerateRequest) -> TurnReader:
            return self._turns.reader(asked, prompt.token_ids)

        running = RunningRequest(request, prompt, reader, self._engine.max_model_len)
        try:
            self._ask_for_next(running)
        except ValueError as error:  # vLLM's own check of what it is asked for
            raise EngineError(f"vLLM refuses request {name!r}: {error}") from error
        self._running[name] = running

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """One step of the engine; nothing when there is nothing to do. A step may take longer than `timeout_s`.

        When the engine dies, all that runs ends with an error; what was written is kept.

        Raises:
            EngineError: it has died before, and all of that has been told.
        """
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        if not self._running:
            return []
        self._require_alive()
        try:
            outputs = self._engine.step()
        except Exception as error:  # whatever it is, no step follows it
            return self._die(error)
        return [event for output in outputs for event in self._translate(output)]

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group, together; each gives a `Finished` with reason "abort"."""
        chosen = [
            running
            for name, running in self._running.items()
            if name == request_id or (group is not None and running.request.group == group)
        ]
        self._abort_segments(chosen)
        self._ended += [self._finish(running, End("abort")) for running in chosen]

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back to its first `num_tokens` tokens; see `Generator.rewind`."""
        running = self._running.get(request_id)
        if running is None:
            raise EngineError(f"request {request_id!r} cannot go back: there is none that runs")
        running.require_rewindable(num_tokens, sampling)
        self._require_alive()
        running.rewind(num_tokens, sampling)
        self._abort_segments([running])
        if (end := self._go_on(running)) is not None:
            self._ended.append(self._finish(running, end))

    def close(self) -> None:
        """End whatever runs, and the engine. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._running.clear()
        self._segments.clear()
        self._segment_of.clear()
        self._ended.clear()
        self._engine.close()

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call."""
        warnings, self._late_warnings = tuple(self._late_warnings), []
        return warnings

    def guesses(self) -> Mapping[str, float] | None:
        """What became of the tokens guessed for requests that have ended; None where none are guessed."""
        if not self._facts.speculates:
            return None
        return {"drafted": float(self._num_drafted), "accepted": float(self._num_accepted)}

    def measure_speed(self, num_attempts: int, num_tokens: int = 8) -> float:
        """Tokens a second that `num_attempts` siblings get together, prompts not counted; takes a few steps.

        For an idle generator.
        """
        sampling = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        chat = (Message("user", _SPEED_PROMPT),)
        for i in range(num_attempts):
            self.submit(GenerateRequest(f"speed/{i}", chat, sampling))
        counted, num_told, start_s = 0, 0, 0.0
        while self._running:
            if num_told >= num_attempts and not start_s:  # all have their first token
                start_s = time.perf_counter()
            for event in self.events(1.0):
                if isinstance(event, Finished) and event.completion.error is not None:
                    raise EngineError(f"vLLM fails at its first tokens: {event.completion.error}")
                num_new = event.num_tokens if isinstance(event, TokenChunk) else 1
                num_told += num_new
                counted += num_new if start_s else 0
        return counted / (time.perf_counter() - start_s) if counted else 0.0

    def check_logprobs(self) -> None:
        """Compare the log-probabilities of a short answer with those of reading it, and leave them out if they differ.

        For an idle generator.
        """
        sampling = SamplingParams(temperature=0, max_tokens=_CHECK_TOKENS, ignore_eos=True)
        request = GenerateRequest(
            "check", (Message("user", "Repeat: one two three, one two three, one two"),), sampling
        )
        prompt = self._turns.prompt(request)
        self.submit(request)
        while self._running:
            for event in self.events(1.0):
                if isinstance(event, Finished):
                    done = event.completion
        read = self._engine.logprobs_of(prompt.token_ids, done.token_ids)
        gaps = [abs(one - other) for one, other in zip(done.logprobs, read, strict=False)]
        if len(gaps) < len(done.token_ids) or sum(gaps) / len(gaps) > _MAX_LOGPROB_ERROR:
            self._tells_logprobs = False
            self.warnings += (
                "the log-probabilities that vLLM tells while it guesses tokens are not the model's own: they are left "
                "out, and what weighs attempts by confidence weighs them all alike",
            )

    def _require_alive(self) -> None:
        if self._closed:
            raise EngineError("the vLLM engine is closed")
        if self.failure is not None:
            raise EngineError(f"the vLLM engine has died: {self.failure}")

    def _require_possible(self, request: GenerateRequest) -> None:
        """Raise `EngineError` for what would be wrong without anybody's noticing, or refused in vLLM's words."""
        name, sampling = request.request_id, request.sampling
        if request.constraint is not None:
            if self._facts.speculates:
                raise EngineError(
                    f"request {name!r} has a constraint, and vLLM takes none while it guesses tokens: leave "
                    "speculative_config or --constraints out"
                )
            if not self._facts.constraints:
                raise EngineError(f"request {name!r} has a constraint, and the engine was loaded without them")
            args_of_constraint(request.constraint)
        if sampling.min_p > 0 and self._facts.speculates:
            raise EngineError(f"request {name!r} has a min_p, which vLLM does not keep to while it guesses tokens")
        if sampling.temperature > MAX_TEMPERATURE:
            raise EngineError(
                f"request {name!r} has temperature {sampling.temperature}; vLLM takes {MAX_TEMPERATURE:g} at most"
            )

    def _ask_for_next(self, running: RunningRequest) -> None:
        self._num_segments += 1
        segment = running.next_segment(self._num_segments)
        seed = running.request.sampling.seed if self._facts.gives_seeds else None
        self._engine.add(segment, seed, self._tells_logprobs)
        self._segments[segment.segment_id] = running
        self._segment_of[running.request.request_id] = segment.segment_id

    def _abort_segments(self, requests: Sequence[RunningRequest]) -> None:
        segment_ids = []
        for running in requests:
            segment_id = self._segment_of.pop(running.request.request_id, None)
            if segment_id is not None:
                del self._segments[segment_id]
                segment_ids.append(segment_id)
        if segment_ids and self.failure is None:
            self._engine.abort(segment_ids)

    def _translate(self, output: SegmentOutput) -> Iterable[GeneratorEvent]:
        running = self._segments.get(output.segment_id)
        if running is None:  # it was aborted while this was under way
            return
        running.note(output)
        said, num_taken, end, draws_on = "", 0, None, output.finish_reason is None
        for token in output.tokens:
            was_forced = running.forced_id is not None
            step = running.take(token)
            num_taken += 1
            said, end = said + step.text, step.end
            if end is not None:
                break
            if was_forced or running.forced_id is not None:  # what vLLM drew behind it does not stand
                draws_on = False
                break
        else:
            if output.finish_reason is not None and running.forced_id is None:
                step = running.finish(output.finish_reason)
                said, end = said + step.text, step.end
        if end is not None or not draws_on:
            self._leave_segment(running, is_over=output.finish_reason is not None)
        if end is None and not draws_on:
            end = self._go_on(running)
        if end is not None:
            yield self._finish(running, end)
        elif num_taken:
            yield TokenChunk(running.request.request_id, said, num_taken)

    def _leave_segment(self, running: RunningRequest, is_over: bool) -> None:
        """No more is taken of the segment of a request; `is_over` when vLLM has ended it itself."""
        if is_over:
            del self._segments[self._segment_of.pop(running.request.request_id)]
        else:
            self._abort_segments([running])

    def _go_on(self, running: RunningRequest) -> End | None:
        """Ask for what comes next; an end where that cannot be had."""
        try:
            self._ask_for_next(running)
        except (EngineError, ValueError) as error:
            return End("error", error=f"vLLM refuses to go on with it: {error}")
        return None

    def _finish(self, running: RunningRequest, end: End) -> Finished:
        name = running.request.request_id
        self._running.pop(name, None)
        self._segments.pop(self._segment_of.pop(name, ""), None)  # of an engine that died
        completion = running.completion(end)
        self._num_drafted += completion.usage.drafted
        self._num_accepted += completion.usage.accepted
        return Finished(name, completion)

    def _die(self, error: Exception) -> list[GeneratorEvent]:
        self.failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        end = End("error", error=f"the vLLM engine has died: {self.failure}")
        return [self._finish(running, end) for running in list(self._running.values())]
