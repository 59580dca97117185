"""vLLM's engine, in this process: started, asked, stepped, ended. The only module that touches vLLM's classes.

Written for vLLM 0.32 (v1). Not measured on a GPU: what runs on its CPU build was seen, the rest follows its sources.

Its core runs in this process and not in one of its own, for three reasons: a step's news are judged before the next
step begins (a stop string costs no further tokens), nothing is left behind when it ends, and Ctrl-C, which a terminal
sends to all processes of a program, does not end it in the middle of a run. Workers, of a model that is shared out over
several GPUs or on CPUs, are processes all the same; they are told to leave Ctrl-C alone (`vllm_worker.py`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mathlete.core.errors import EngineError
from mathlete.core.generation import MAX_LOGPROBS, TokenLogprob
from mathlete.generators.constraint_arguments import args_of_constraint
from mathlete.generators.vllm_requests import DrawnToken, Segment, SegmentOutput

TESTED_VERSION = "0.32"
_WORKER = "mathlete.generators.vllm_worker.LeavesInterruptsAlone"
_PROCESSOR = "mathlete.generators.vllm_constraints:ConstraintLogitsProcessor"
_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for answers
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare_environment(constraints: bool, environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Set what vLLM reads before it is imported. What a person has set stays, but for what must be as it is here."""
    for name, value in _ENVIRONMENT.items():
        environment.setdefault(name, value)
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if constraints:  # its second model runner takes custom logits processors of another kind
        environment["VLLM_USE_V2_MODEL_RUNNER"] = "0"


class VLLMEngine:
    """One engine of vLLM's.

    Attributes:
        version: vLLM's.
        is_cpu_build: whether it computes on CPUs.
        max_model_len: tokens of prompt and completion at most.
        vocab_size: ids that the model can draw.
        tokenizer: as vLLM has loaded it.
        generation_config: the model's.
        block_size: tokens of a block of its cache; whole blocks are found again.
    """

    def __init__(self, arguments: Mapping[str, Any], shortens: bool, constraints: bool) -> None:
        """Load a model; takes minutes.

        Args:
            arguments: of vLLM's `EngineArgs`.
            shortens: whether `max_model_len` is what one would like, and what the model can read is good enough.
            constraints: whether requests may have constraints.

        Raises:
            EngineError: there is one in this process already.
            Exception: whatever vLLM raises; see `vllm_checks.load_error`.
        """
        vllm = importlib.import_module("vllm")
        if importlib.import_module("vllm.distributed.parallel_state").model_parallel_is_initialized():
            raise EngineError(
                "there is a vLLM engine in this process already, and vLLM keeps one in a process: set own_process = "
                "true for all engines but one"
            )
        sampling = importlib.import_module("vllm.sampling_params")
        self._sampling_params, self._delta = sampling.SamplingParams, sampling.RequestOutputKind.DELTA
        self._prompt = importlib.import_module("vllm.inputs").TokensPrompt
        self.version: str = vllm.__version__
        self.is_cpu_build: bool = importlib.import_module("vllm.platforms").current_platform.is_cpu()
        given = dict(arguments)
        if constraints:
            given["logits_processors"] = [_PROCESSOR]
        if given["tensor_parallel_size"] * given["pipeline_parallel_size"] == 1:
            # On CPUs a worker of its own has its threads bound, and twice the speed and more.
            given.setdefault("distributed_executor_backend", "mp" if self.is_cpu_build else "uni")
        config = _engine_config(given, shortens)
        has_workers = config.parallel_config.distributed_executor_backend == "mp"
        if has_workers:
            config.parallel_config.worker_extension_cls = _WORKER
        executor = importlib.import_module("vllm.v1.executor").Executor.get_class(config)
        engine_class = importlib.import_module("vllm.v1.engine.llm_engine").LLMEngine
        try:
            self._engine: Any = engine_class(config, executor, log_stats=False, multiprocess_mode=False)
        except BaseException:
            _release()  # what it has begun to set up stands in the way of the next
            raise
        if has_workers:
            self._engine.collective_rpc("leave_interrupts_alone")
        model = config.model_config
        self.max_model_len: int = model.max_model_len
        self.vocab_size: int = model.get_vocab_size()
        self.block_size: int = config.cache_config.block_size
        self.generation_config: Mapping[str, Any] = model.try_get_generation_config() or {}
        self.tokenizer: Any = self._engine.tokenizer
        self._speculates = config.speculative_config is not None

    def add(self, segment: Segment, seed: int | None, wants_logprobs: bool) -> None:
        """Queue a segment.

        Raises:
            EngineError: its constraint cannot be told to vLLM.
            ValueError: vLLM takes no such request.
        """
        sampling, forced = segment.sampling, segment.forced_id
        arguments = None
        if segment.constraint is not None:
            arguments = args_of_constraint(segment.constraint, segment.accepted_ids)
        params = self._sampling_params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=seed,
            max_tokens=segment.max_tokens,
            stop_token_ids=list(segment.stop_token_ids),
            ignore_eos=sampling.ignore_eos,
            logprobs=MAX_LOGPROBS if wants_logprobs else None,
            flat_logprobs=wants_logprobs,
            allowed_token_ids=None if forced is None else [forced],
            extra_args=arguments,
            detokenize=False,
            output_kind=self._delta,
            skip_clone=True,
        )
        prompt = self._prompt(prompt_token_ids=list(segment.prompt_ids))
        self._engine.add_request(segment.segment_id, prompt, params, priority=segment.priority)

    def step(self) -> list[SegmentOutput]:
        """One step; raises whatever vLLM raises when it is dead."""
        return [segment_output(output) for output in self._engine.step()]

    def abort(self, segment_ids: Sequence[str]) -> None:
        """End segments at once, all of them together; no more is told of them."""
        self._engine.abort_request(list(segment_ids))

    def logprobs_of(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> list[float]:
        """Log-probability of each output token when the text is read, not written; for an idle engine."""
        params = self._sampling_params(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=self._delta
        )
        ids = [*prompt_ids, *output_ids]
        self._engine.add_request("read", self._prompt(prompt_token_ids=ids), params)
        found: list[float] = []
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.prompt_logprobs:
                    places = range(len(prompt_ids), len(ids))
                    found = [float(output.prompt_logprobs[place][ids[place]].logprob) for place in places]
        return found

    def close(self) -> None:
        """End it, its workers too, and give its memory back."""
        with quiet_stdout():
            with contextlib.suppress(Exception):  # it may be dead already
                self._engine.engine_core.shutdown()
            self._engine = None
            _release()


def segment_output(output: Any) -> SegmentOutput:
    """A `RequestOutput` of vLLM's with one completion, as far as it is looked at."""
    (told,) = output.outputs
    ids, flat, metrics = list(told.token_ids), told.logprobs, told.spec_decode_metrics
    tokens = []
    for place, token_id in enumerate(ids):
        if not flat:
            tokens.append(DrawnToken(token_id))
            continue
        first, last = flat.start_indices[place], flat.end_indices[place]  # the drawn one, then the likeliest
        pairs = zip(flat.token_ids[first + 1 : last], flat.logprobs[first + 1 : last], strict=True)
        top = tuple(TokenLogprob(top_id, logprob) for top_id, logprob in pairs)
        tokens.append(DrawnToken(token_id, flat.logprobs[first], top))
    return SegmentOutput(
        segment_id=output.request_id,
        tokens=tuple(tokens),
        finish_reason=told.finish_reason if output.finished else None,
        num_cached=output.num_cached_tokens or 0,
        num_drafted=0 if metrics is None else metrics.num_draft_tokens,
        num_accepted=0 if metrics is None else sum(count * num for count, num in enumerate(metrics.histogram)),
    )


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """What is printed in here, by libraries and by processes that are started, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of vLLM's own making
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _release() -> None:
    gc.collect()
    importlib.import_module("vllm.distributed.parallel_state").cleanup_dist_env_and_memory()


def _engine_config(arguments: Mapping[str, Any], shortens: bool) -> Any:
    args_class = importlib.import_module("vllm.engine.arg_utils").EngineArgs
    try:
        return args_class(**arguments).create_engine_config()
    except ValueError as error:
        if not shortens or "max_model_len" not in str(error):
            raise
    return args_class(**{**arguments, "max_model_len": None}).create_engine_config()
