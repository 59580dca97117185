"""RyanStream's engine: many requests, one model, one step at a time.

Token ids in, token ids out. `step()` plans (scheduler), executes (runner), then ends what is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.errors import EngineError
from mathlete.core.generation import SamplingParams, TokenConstraint
from mathlete.ryanstream.constraints import forked_constraint
from mathlete.ryanstream.hidden_states import HiddenPositions
from mathlete.ryanstream.kv_cache import BLOCK_SIZE, blocks_for
from mathlete.ryanstream.kv_manager import KVCacheManager, KVStatistics
from mathlete.ryanstream.lookahead import LookaheadPredictor
from mathlete.ryanstream.policy import FairShare, SchedulingPolicy
from mathlete.ryanstream.prompt_cache import PromptCache
from mathlete.ryanstream.prompt_keeper import PromptKeeper
from mathlete.ryanstream.request import EngineRequest, RequestEnd, RequestOutput, Status
from mathlete.ryanstream.rewinding import require_rewindable, rewind_request
from mathlete.ryanstream.runner import ModelRunner, SampledToken
from mathlete.ryanstream.scheduler import PlannedRequest, Scheduler, SchedulerConfig, StepPlan
from mathlete.ryanstream.sequence_ending import SequenceEnding
from mathlete.ryanstream.speculative.draft_tree import ROOT
from mathlete.ryanstream.speculative.speculation import Speculation
from mathlete.ryanstream.stopping import StopMatcher
from mathlete.ryanstream.thinking import ThinkingBudget, ThinkingTokens


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread drives it."""

    def __init__(
        self,
        runner: ModelRunner,
        num_blocks: int,
        eos_token_ids: Sequence[int],
        token_bytes: Sequence[bytes] = (),
        config: SchedulerConfig | None = None,
        block_bytes: int | None = None,
        prompt_cache: PromptCache | None = None,
        policy: SchedulingPolicy | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """Join runner and scheduler.

        Args:
            runner: executes plans; its cache has `num_blocks` blocks.
            num_blocks: KV blocks. They may be too few for `max_model_len`; see `add`.
            eos_token_ids: ids that end any request.
            token_bytes: the bytes of each token id, for stop strings; may be empty when none are used.
            config: limits of a step.
            block_bytes: memory of one block, for messages.
            prompt_cache: where prefixes are kept between runs; see `add`.
            policy: the order of service; fair over groups when None.
            speculation: guesses tokens ahead; the attribute may be changed while no request is unfinished.
        """
        config = config or SchedulerConfig()
        self._runner = runner
        self._pool = KVCacheManager(num_blocks)
        self._block_bytes = block_bytes
        self._prompts = PromptKeeper(prompt_cache, self._pool, runner) if prompt_cache else None
        self._lookahead = LookaheadPredictor()
        self._scheduler = Scheduler(config, self._pool, policy or FairShare(), self._lookahead)
        self._ending = SequenceEnding(eos_token_ids, token_bytes, config.max_model_len)
        self._token_bytes = token_bytes
        self._requests: dict[str, EngineRequest] = {}
        self._num_arrived = 0
        self._ended: list[RequestOutput] = []
        self.speculation = speculation
        self.last_plan: StepPlan | None = None  # of the last step that computed anything, for whoever measures

    @property
    def runner(self) -> ModelRunner:
        """What executes its plans."""
        return self._runner

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
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling: SamplingParams,
        group: str | None = None,
        persist_prefix: int = 0,
        priority: int = 0,
        constraint: TokenConstraint | None = None,
        thinking: ThinkingTokens | None = None,
        hidden: HiddenPositions | None = None,
    ) -> None:
        """Queue a request.

        The id of an aborted request is in use until `step()` has told of its end.

        Args:
            request_id: unique among the unfinished.
            prompt_ids: at least one token.
            sampling: how to draw.
            group: siblings share it, or None.
            persist_prefix: so many leading tokens (a system prompt, say) are kept on disk between runs and taken
                from there, where the engine has a prompt cache; whole blocks, at least 64 tokens.
            priority: lower goes first.
            constraint: which tokens may be drawn. The request ends with "stop" when it is terminated, and with
                "error" when it raises, allows nothing or refuses a token.
            thinking: how the model writes a block of thinking; needed where `sampling` has a `thinking_budget`.
            hidden: positions whose hidden states are kept, in `EngineRequest.hidden`.

        Raises:
            EngineError: for an empty or too long prompt, an id in use, or a request that could outgrow the whole
                KV cache. Whatever is taken will be served, if need be alone.
        """
        self._require_new(request_id)
        if not prompt_ids:
            raise EngineError(f"request {request_id!r} has an empty prompt")
        if len(prompt_ids) >= self.max_model_len:
            raise EngineError(
                f"request {request_id!r} has {len(prompt_ids)} prompt tokens; "
                f"the engine takes fewer than {self.max_model_len}. Shorten it, or raise the engine's max_model_len"
            )
        if (sampling.stop or sampling.thinking_budget is not None) and not self._token_bytes:
            raise EngineError(f"request {request_id!r} looks for text, but the engine was given no token_bytes")
        if sampling.thinking_budget is not None and thinking is None:
            raise EngineError(f"request {request_id!r} has a thinking budget, but not how thinking is written")
        outside = [] if hidden is None else sorted(hidden.prompt - set(range(len(prompt_ids))))
        if outside:
            raise EngineError(f"request {request_id!r} has no prompt token at position {outside[0]} to keep a state of")
        self._require_room(request_id, len(prompt_ids), sampling)
        request = EngineRequest(request_id, tuple(prompt_ids), sampling, group, arrival=self._num_arrived)
        self._num_arrived += 1
        request.priority, request.constraint = priority, constraint
        request.hidden_wanted = hidden
        request.matcher = StopMatcher(sampling.stop)
        if thinking is not None and sampling.thinking_budget is not None:
            request.thinking = ThinkingBudget(thinking, self._token_bytes, sampling.thinking_budget, prompt_ids)
        self._requests[request_id] = request
        if self._prompts is not None:
            self._prompts.expect(request, persist_prefix)
        self._scheduler.add(request)

    def fork(self, request_id: str, new_request_id: str, sampling: SamplingParams) -> None:
        """Let an unfinished request go on as two: the new one has the same tokens so far and shares its blocks.

        Args:
            request_id: which.
            new_request_id: the second one's.
            sampling: the second one's; its stop strings must be the first one's. `max_tokens` counts the tokens
                drawn before the fork too. With the seed of the first it draws the same tokens.

        Raises:
            EngineError: for an unknown id, an id in use, other stop strings, nothing left to draw, or a request
                that could outgrow the whole KV cache.
        """
        self._require_new(new_request_id)
        parent = self._requests.get(request_id)
        if parent is None:
            raise EngineError(f"request {request_id!r} cannot be forked: there is none that is unfinished")
        for name in ("stop", "include_stop", "thinking_budget"):
            if getattr(sampling, name) != getattr(parent.sampling, name):
                raise EngineError(f"request {new_request_id!r} must have the {name} of {request_id!r}")
        if sampling.max_tokens <= len(parent.output_ids):
            raise EngineError(f"request {new_request_id!r} has no tokens left to draw: raise its max_tokens")
        self._require_room(new_request_id, len(parent.prompt_ids), sampling)
        constraint = forked_constraint(parent)
        child = parent.forked(new_request_id, sampling, self._num_arrived)
        child.constraint = constraint
        self._num_arrived += 1
        self._requests[new_request_id] = child
        self._scheduler.fork(parent, child)

    def rewind(self, request_id: str, num_output_tokens: int, sampling: SamplingParams) -> tuple[int, ...]:
        """Take an unfinished request back to its first `num_output_tokens`; it goes on from there with `sampling`.

        All that is told of its tokens, its constraint, stop strings and budget of thinking are as they were then. With
        the seed it had it draws the same tokens again, with another one others.

        Args:
            request_id: which.
            num_output_tokens: that stand; at most those there are.
            sampling: from now on. Stop strings, `include_stop`, `thinking_budget` and `num_logprobs` must be the same;
                `max_tokens` counts the tokens that stand.

        Returns:
            The tokens that stand.

        Raises:
            EngineError: for an unknown id, more tokens than there are, other stop strings, nothing left to draw, a
                request that could outgrow the whole KV cache, or a constraint that cannot go back. Nothing has
                changed then.
        """
        request = self._requests.get(request_id)
        if request is None:
            raise EngineError(f"request {request_id!r} cannot go back: there is none that is unfinished")
        require_rewindable(request, num_output_tokens, sampling)
        self._require_room(request_id, len(request.prompt_ids), sampling)
        self._scheduler.rewind(request, lambda: rewind_request(request, num_output_tokens, sampling, self._token_bytes))
        return tuple(request.output_ids)

    def expect_ends_after(self, signals: Sequence[Sequence[int]]) -> None:
        """Name token sequences that come shortly before an end (the start of a final answer, say), for planning."""
        self._lookahead.signals = tuple(tuple(signal) for signal in signals if signal)

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
        if self.speculation is not None:
            plan = self.speculation.extend(plan, self._scheduler)
        self.last_plan = plan
        right: list[tuple[int, ...]] = []
        for entry, tokens in zip(plan.entries, self._runner.execute(plan), strict=True):
            self._scheduler.note_computed(entry)
            right.append(self._take(entry, tokens, outputs) if tokens else ())
        if self.speculation is not None:
            self.speculation.note(plan, right, len(outputs), self._runner.hidden if plan.keeps_hidden else ())
        if self._prompts is not None:
            self._prompts.write_due()
        return outputs

    @property
    def num_blocks(self) -> int:
        """KV blocks, all in all."""
        return self._pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        """KV blocks that no unfinished request holds."""
        return self._pool.num_free

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call: of stored prompts, so far."""
        return () if self._prompts is None else self._prompts.take_warnings()

    @property
    def kv_statistics(self) -> KVStatistics:
        """What the KV cache has found, copied and evicted so far."""
        return self._pool.statistics

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless blocks, queues and requests agree. Cheap enough for every test's end."""
        unfinished = set(self._requests.values())
        queued = [*self._scheduler.running, *self._scheduler.waiting]
        assert len(queued) == len(set(queued)) and set(queued) == unfinished, "queues differ from the requests"
        self._pool.check_integrity([request.block_ids for request in queued])

    def _require_new(self, request_id: str) -> None:
        if request_id in self._requests or any(told.request.request_id == request_id for told in self._ended):
            raise EngineError(f"request id {request_id!r} is in use")

    def _require_room(self, request_id: str, num_prompt: int, sampling: SamplingParams) -> None:
        """Refuse a request that could outgrow the cache. Its last token is drawn, not stored."""
        num_tokens = min(num_prompt + sampling.max_tokens, self.max_model_len) - 1
        needed, there = blocks_for(num_tokens), self._pool.num_blocks
        if needed > there:
            raise EngineError(
                f"request {request_id!r} can grow to {num_prompt} prompt and {num_tokens + 1 - num_prompt} new tokens "
                f"and then needs {self._describe(needed)}; the whole KV cache has {self._describe(there)}. "
                "Lower the request's max_tokens, shorten its prompt, or give the engine more kv_cache_bytes."
            )

    def _describe(self, num_blocks: int) -> str:
        size = "" if self._block_bytes is None else f", {num_blocks * self._block_bytes / 2**20:,.1f} MiB"
        return f"{num_blocks:,} blocks ({num_blocks * BLOCK_SIZE:,} tokens{size})"

    def _take(
        self, entry: PlannedRequest, tokens: Sequence[SampledToken], outputs: list[RequestOutput]
    ) -> tuple[int, ...]:
        """Accept what was drawn: the token after the newest one, and on down the draft as long as it was guessed right.

        This is the accept rule of speculative sampling (Leviathan et al. 2023): a guess that is a point mass is right
        with the probability that the model gives it, and where it is wrong the token that was drawn instead comes from
        the rest. Tokens drawn after a wrong guess are void.

        Args:
            entry: what was computed.
            tokens: see `ModelRunner.execute`.
            outputs: the news are added to it.

        Returns:
            The nodes that were right, from the root down.
        """
        request, draft = entry.request, entry.draft
        right: list[int] = []
        while True:
            node = right[-1] if right else ROOT
            token = tokens[node + 1]
            if right and token.token_id < 0:  # computed again as the request's own text: only there does that end it
                right.pop()
                break
            outputs.append(self._accept(request, token))
            child = None if draft is None else draft.tree.child(node, token.token_id)
            if child is not None:
                right.append(child)
            if outputs[-1].end is not None:
                return tuple(right)
            if child is None:
                break
        if right:
            self._runner.move_slots(self._scheduler.note_accepted(entry, right))
        return tuple(right)

    def _accept(self, request: EngineRequest, token: SampledToken) -> RequestOutput:
        end = self._ending.take(request, token)
        if end is None:
            self._scheduler.note_token(request, token.token_id, token.eos_logprob, token.entropy)
            return RequestOutput(request, token.token_id, None)
        if (
            end.reason != "error" and not request.sampling.ignore_eos
        ):  # a length that was not the text's own tells nothing
            self._scheduler.note_finished(request)
        return self._end(request, None if end.reason == "error" else token.token_id, end)

    def _end(self, request: EngineRequest, token_id: int | None, end: RequestEnd) -> RequestOutput:
        assert request.status is not Status.FINISHED, "a request ends once"
        self._scheduler.finish(request)
        if self.speculation is not None:
            self.speculation.forget(request)
        del self._requests[request.request_id]
        return RequestOutput(request, token_id, end)
