"""What a plan is made for: engines, the attempts that they write, and the contest. Plain data.

Whoever reads recipes fills these; a plan knows neither recipes nor engines' own settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mathlete.planning.model_shape import ModelShape
from mathlete.planning.parallel_weights import Layout
from mathlete.planning.vllm_memory import VLLMLimits
from mathlete.planning.weight_formats import WeightFormat

EngineKind = Literal["vllm", "ryanstream"]

_MOST_ATTEMPTS, _MOST_TOKENS = 1_000_000, 1 << 30  # beyond what anybody means, and still exact as floats


@dataclass(frozen=True, slots=True)
class PlannedEngine:
    """One engine of a recipe.

    Attributes:
        name: in the recipe.
        kind: "vllm", or "ryanstream" for the embedded engine.
        shape: of its model.
        packed: format of its weights.
        layout: over GPUs.
        kv_cache_dtype: of keys and values.
        max_model_len: tokens of a request, prompt and output, at most.
        limits: of vLLM; of the embedded engine only `max_num_seqs` and `max_num_batched_tokens` count.
        on_cpu: whether it runs on the CPU.
        precisions: of the embedded engine; more than one where "auto" keeps several.
        pillars: that it writes for; empty for all others.
    """

    name: str
    kind: EngineKind
    shape: ModelShape
    packed: WeightFormat
    layout: Layout = field(default_factory=Layout)
    kv_cache_dtype: str = "auto"
    max_model_len: int = 4096
    limits: VLLMLimits = field(default_factory=VLLMLimits)
    on_cpu: bool = False
    precisions: tuple[str, ...] = ()
    pillars: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.max_model_len < 2:
            raise ValueError(f"max_model_len must be >= 2, not {self.max_model_len}")
        if self.kind == "ryanstream" and not self.precisions:
            raise ValueError("precisions must name at least one for the embedded engine")


@dataclass(frozen=True, slots=True)
class AttemptShape:
    """The attempts of a problem.

    Attributes:
        attempts: of a problem.
        prompt: tokens that they share.
        length: tokens of an attempt at its longest, prompt included.
        mean_new: tokens that an attempt writes on average.
    """

    attempts: int = 8
    prompt: int = 512
    length: int = 4096
    mean_new: int = 1792

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise ValueError(f"attempts must be from 1 to {_MOST_ATTEMPTS:,}, not {self.attempts}")
        if self.length > _MOST_TOKENS:
            raise ValueError(f"length must be at most {_MOST_TOKENS:,}, not {self.length}")
        if not 1 <= self.prompt < self.length:
            raise ValueError(f"length must be more than the prompt's {self.prompt} tokens, not {self.length}")
        if not 1 <= self.mean_new <= self.length - self.prompt:
            raise ValueError(
                f"mean_new must be from 1 to what the longest attempt writes ({self.length - self.prompt}), "
                f"not {self.mean_new}"
            )


@dataclass(frozen=True, slots=True)
class ContestShape:
    """The clock.

    Attributes:
        problems: that come.
        solving_s: seconds for all of them, without what is kept back.
    """

    problems: int
    solving_s: float

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.problems < 1:
            raise ValueError(f"problems must be >= 1, not {self.problems}")
        if not self.solving_s > 0:
            raise ValueError(f"solving_s must be > 0, not {self.solving_s}")
