"""How to run a model: the settings of an engine. Data only; `loading.py` acts on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mathlete.ryanstream.model.weights import PRECISIONS, Precision
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES
from mathlete.ryanstream.speculative.methods import NEED_A_DRAFT_MODEL, RUN_A_MODEL, Method

KVCacheDtype = Literal["bf16", "int8"]
_AT_LEAST_ONE = (
    *("tensor_parallel", "max_running", "max_step_tokens", "max_model_len", "kv_cache_bytes", "num_threads"),
    *("num_speculative_tokens", "draft_width", "exit_layer"),
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to run a model.

    Attributes:
        precision: see `model.weights`; "auto" lets `precision.AutoPrecisionManager` choose for each step; "fp32" is
            for parity tests.
        kv_cache_dtype: of keys and values, "bf16" or "int8" (half the memory). With precision "fp32" it is fp32.
        batch_invariant: guarantee that a request's tokens do not depend on what else is computed. See
            `docs/engine.md`: free with the native kernels, slow without.
        device: "cpu", "cuda" or "cuda:N".
        compile_torch: fuse the elementwise paths through `torch.compile` where plain torch runs on the CPU. Off: it
            costs half a minute and saves next to nothing (`benchmarks/compiled_paths.py`).
        cuda_graphs: on a GPU, replay passes of up to 256 rows as CUDA graphs (`model/graphed_transformer.py`).
        tensor_parallel: processes that hold the model together.
        prompt_cache: keep keys and values of system prompts on disk between runs.
        max_running: requests computed at once.
        max_step_tokens: tokens computed in a step.
        max_model_len: tokens of a request, prompt and output, at most.
        kv_cache_bytes: memory for keys and values; None sizes it for `max_running` requests. What a draft model or
            an EAGLE head keeps comes on top.
        num_threads: CPU threads; None for all cores this process may use.
        speculative: how tokens are guessed, one of `speculative.methods.Method`; "off" guesses nothing.
        num_speculative_tokens: how deep a guess may reach.
        draft_width: guesses side by side in a level; 1 guesses chains, more guess trees.
        draft_drawn: draw guesses from the distribution of what guesses, and keep each with probability min(1, p / q)
            (`speculative/accept_rule.py`): the output's distribution stays as it is, its tokens for a seed do not.
            Without it guesses are made with the request's own noise. Chains only.
        draft_model: with "draft", the file of a smaller model with the same tokenizer; with "eagle", the folder of a
            head (`speculative/eagle_head.py`); with "early_exit", a trained exit (`speculative/exit_adapter.py`), or
            None for the model's own head.
        exit_layer: with "early_exit", how many layers guess; None measures which number pays.
        adaptive_depth: guess only as much as pays by measured acceptance and cost; without it always as much as
            `num_speculative_tokens` allows.
    """

    precision: Precision | Literal["auto"] = "w8a8"
    kv_cache_dtype: KVCacheDtype = "bf16"
    batch_invariant: bool = False
    device: str = "cpu"
    compile_torch: bool = False
    cuda_graphs: bool = True
    tensor_parallel: int = 1
    prompt_cache: bool = True
    max_running: int = 32
    max_step_tokens: int = 256
    max_model_len: int = 4096
    kv_cache_bytes: int | None = None
    num_threads: int | None = None
    speculative: Method = "off"
    num_speculative_tokens: int = 8
    draft_width: int = 1
    draft_drawn: bool = False
    draft_model: Path | None = None
    exit_layer: int | None = None
    adaptive_depth: bool = True

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.precision not in (*PRECISIONS, "auto"):
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)} or auto, not {self.precision!r}")
        if self.kv_cache_dtype not in get_args(KVCacheDtype):
            raise ValueError(f"kv_cache_dtype must be bf16 or int8, not {self.kv_cache_dtype!r}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, not {self.device!r}")
        if self.batch_invariant and self.precision == "auto":
            raise ValueError('batch_invariant needs one precision: "auto" chooses it by the size of the batch')
        if self.tensor_parallel > 1 and self.precision == "auto":
            raise ValueError('tensor_parallel needs one precision: with "auto" the ranks might choose differently')
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, not {value}")
        self._check_speculation()

    def _check_speculation(self) -> None:
        method = self.speculative
        if method not in get_args(Method):
            raise ValueError(f"speculative must be one of {', '.join(get_args(Method))}, not {method!r}")
        for name in ("num_speculative_tokens", "draft_width"):
            if getattr(self, name) > MAX_DRAFT_NODES:
                raise ValueError(f"{name} must be <= {MAX_DRAFT_NODES}, not {getattr(self, name)}")
        if method in NEED_A_DRAFT_MODEL and self.draft_model is None:
            raise ValueError(f'speculative "{method}" needs draft_model: {NEED_A_DRAFT_MODEL[method]}')
        given = {"draft_model": self.draft_model, "draft_width": self.draft_width > 1, "draft_drawn": self.draft_drawn}
        for name in [name for name, is_given in given.items() if is_given and method not in RUN_A_MODEL]:
            raise ValueError(f'{name} is for speculative {", ".join(RUN_A_MODEL)}, and speculative is "{method}"')
        if self.draft_drawn and self.draft_width > 1:
            raise ValueError(
                f"draft_drawn needs draft_width 1, not {self.draft_width}: guesses that are drawn form chains"
            )
        if method != "early_exit" and self.exit_layer is not None:
            raise ValueError(f'exit_layer is for speculative "early_exit", and speculative is "{method}"')
        if method in RUN_A_MODEL and self.tensor_parallel > 1:
            raise ValueError(
                f'speculative "{method}" runs in one process, and tensor_parallel is {self.tensor_parallel}; '
                'use speculative "ngram" or "suffix"'
            )
