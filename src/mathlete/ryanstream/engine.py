"""RyanStream's engine: many requests, one model, one step at a time.

Token ids in, token ids out. `step()` plans (scheduler), executes (runner), then ends what is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.kv_cache import BLOCK_SIZE, KVBlockPool
from mathlete.ryanstream.request import EngineRequest, RequestEnd, RequestOutput, Status
from mathlete.ryanstream.runner import ModelRunner, SampledToken
from mathlete.ryanstream.scheduler import Scheduler, SchedulerConfig
from mathlete.ryanstream.stopping import StopMatcher


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread drives it."""

    def __init__(
        self,
        runner: ModelRunner,
        num_blocks: int,
        eos_token_ids: Sequence[int],
        token_bytes: Sequence[bytes] = (),
        config: SchedulerConfig | None = None,
    ) -> None:
        """Join runner and scheduler.

        Args:
            runner: executes plans; its cache has `num_blocks` blocks.
            num_blocks: KV blocks; one request of full length must fit.
            eos_token_ids: ids that end any request.
            token_bytes: the bytes of each token id, for stop strings; may be empty when none are used.
            config: limits of a step.
        """
        config = config or SchedulerConfig()
        if num_blocks * BLOCK_SIZE < config.max_model_len:
            raise EngineError(
                f"the KV cache ({num_blocks} blocks of {BLOCK_SIZE}) cannot hold one request of "
                f"{config.max_model_len} tokens; give it more memory or lower the maximal length"
            )
        self._runner = runner
        self._pool = KVBlockPool(num_blocks)
        self._scheduler = Scheduler(config, self._pool)
        self._eos = frozenset(eos_token_ids)
        self._token_bytes = token_bytes
        self._requests: dict[str, EngineRequest] = {}
        self._matchers: dict[str, StopMatcher] = {}
        self._num_arrived = 0
        self._ended: list[RequestOutput] = []

    @property
    def num_unfinished(self) -> int:
        """Requests queued or running."""
        return len(self._requests)

    @property
    def has_work(self) -> bool:
        """Whether `step()` would have something to do or to tell."""
        return bool(self._requests or self._ended)

    @property
    def max_model_len(self) -> int:
        """Tokens of a request, prompt and output, at most."""
        return self._scheduler.config.max_model_len

    def add(
        self, request_id: str, prompt_ids: Sequence[int], sampling: SamplingParams, group: str | None = None
    ) -> None:
        """Queue a request. Raises `EngineError` for an empty or too long prompt or an id in use.

        The id of an aborted request is in use until `step()` has told of its end.
        """
        if request_id in self._requests or any(told.request.request_id == request_id for told in self._ended):
            raise EngineError(f"request id {request_id!r} is in use")
        if not prompt_ids:
            raise EngineError(f"request {request_id!r} has an empty prompt")
        if len(prompt_ids) >= self.max_model_len:
            raise EngineError(
                f"request {request_id!r} has {len(prompt_ids)} prompt tokens; "
                f"the engine takes fewer than {self.max_model_len}"
            )
        if sampling.stop and not self._token_bytes:
            raise EngineError(f"request {request_id!r} has stop strings, but the engine was given no token_bytes")
        request = EngineRequest(request_id, tuple(prompt_ids), sampling, group, arrival=self._num_arrived)
        self._num_arrived += 1
        self._requests[request_id] = request
        self._matchers[request_id] = StopMatcher(sampling.stop)
        self._scheduler.add(request)

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request, or all of a group, before the next step. Unknown names are ignored."""
        for request in list(self._requests.values()):
            if request.request_id == request_id or (group is not None and request.group == group):
                self._ended.append(self._end(request, None, RequestEnd("abort")))

    def step(self) -> list[RequestOutput]:
        """Run one step; returns the news of each request that has any. After an abort: just its outputs, at once."""
        outputs, self._ended = self._ended, []
        if outputs:
            return outputs
        plan = self._scheduler.schedule()
        for entry, token in zip(plan.entries, self._runner.execute(plan), strict=True):
            self._scheduler.note_computed(entry)
            if token is not None:
                outputs.append(self._accept(entry.request, token))
        return outputs

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless blocks, queues and requests agree. Cheap enough for every test's end."""
        unfinished = set(self._requests.values())
        queued = [*self._scheduler.running, *self._scheduler.waiting]
        assert len(queued) == len(set(queued)) and set(queued) == unfinished, "queues differ from the requests"
        self._pool.check_integrity([request.block_ids for request in queued])

    def _accept(self, request: EngineRequest, token: SampledToken) -> RequestOutput:
        if token.token_id < 0:
            return self._end(request, None, RequestEnd("error", message="the model's logits were not numbers"))
        request.output_ids.append(token.token_id)
        request.logprobs.append(token.logprob)
        request.entropies.append(token.entropy)
        end = self._why_ended(request, token.token_id)
        return RequestOutput(request, token.token_id, None) if end is None else self._end(request, token.token_id, end)

    def _why_ended(self, request: EngineRequest, token_id: int) -> RequestEnd | None:
        ends_text = token_id in self._eos and not request.sampling.ignore_eos
        if ends_text or token_id in request.sampling.stop_token_ids:
            return RequestEnd("stop")
        if request.sampling.stop:
            match = self._matchers[request.request_id].push(self._token_bytes[token_id])
            if match is not None:
                return RequestEnd("stop", match.stop, match.end if request.sampling.include_stop else match.start)
        if len(request.output_ids) >= request.sampling.max_tokens or request.num_tokens >= self.max_model_len:
            return RequestEnd("length")
        return None

    def _end(self, request: EngineRequest, token_id: int | None, end: RequestEnd) -> RequestOutput:
        assert request.status is not Status.FINISHED, "a request ends once"
        self._scheduler.finish(request)
        del self._requests[request.request_id], self._matchers[request.request_id]
        return RequestOutput(request, token_id, end)
