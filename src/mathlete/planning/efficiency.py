"""How much of a roofline is reached: bands and costs a step that hold over measurements, each named with its source.

    expected step = stages * (work / efficiency + links) + overhead + rows * overhead of a row,

between the good and the bad end of a band; what work is says `roofline.py`. `docs/planning.md` has the measurements
that the bands are from; nothing is tuned for one model or machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.planning.roofline import StepTime
from mathlete.planning.weight_formats import WeightFormat


@dataclass(frozen=True, slots=True)
class Efficiency:
    """A band of what is reached.

    Attributes:
        low: part of the roofline at the bad end.
        high: part of the roofline at the good end.
        overhead_low_s: seconds that a step costs beside it at the bad end: the scheduler, launches, sampling.
        overhead_high_s: seconds at the good end.
        row_low_s: seconds for each sequence of a step at the bad end.
        row_high_s: seconds at the good end.
        source: of the band, in words.
    """

    low: float
    high: float
    overhead_low_s: float
    overhead_high_s: float
    row_low_s: float
    row_high_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds between the bad and the good end.

    Attributes:
        slow_s: at the bad end.
        fast_s: at the good end.
    """

    slow_s: float
    fast_s: float


VLLM_WIDE = Efficiency(
    0.6, 0.85, 3e-3, 0.5e-3, 20e-6, 0.0,
    "Qwen2.5 0.5B to 72B in bf16, vLLM 0.6.3 on A100: 0.73 of the bandwidth and 2.4 ms a step",
)  # fmt: skip
VLLM_PACKED = Efficiency(
    0.4, 0.75, 3e-3, 0.5e-3, 20e-6, 0.0,
    "Qwen2.5 in AWQ and GPTQ, vLLM 0.6.3 on A100, and gpt-oss-120b, vLLM 0.11.2 on one H100",
)  # fmt: skip
# Drawn from the shapes in bf16 alone; those in NF4 lie in it too, by what they read and write.
EMBEDDED_GPU = Efficiency(
    0.45, 0.85, 3.5e-3, 1.5e-3, 140e-6, 50e-6,
    "shapes of 1.5B to 14B in bf16 and of 7B to 72B in NF4 on one H200 (benchmarks/plan_on_gpu.py)",
)  # fmt: skip
EMBEDDED_CPU = Efficiency(
    0.4, 0.97, 2e-3, 0.5e-3, 200e-6, 0.0, "`mathlete bench engine`, 1.5B in int8 and bf16 on two idle cores (LOG.md)"
)

# A prompt is bound by arithmetic; vLLM and the embedded engine reach about half of the peak (judged).
PREFILL_LOW, PREFILL_HIGH = 0.3, 0.7


def efficiency_of(engine: str, packed: WeightFormat, is_cpu: bool) -> Efficiency:
    """The band of an engine ("vllm" or "ryanstream") with weights in a format."""
    is_packed = min(packed.dense_bytes, packed.expert_bytes) < 1
    if engine == "ryanstream":
        return EMBEDDED_CPU if is_cpu else EMBEDDED_GPU
    return VLLM_PACKED if is_packed else VLLM_WIDE


def expected_step(step: StepTime, band: Efficiency, rows: int) -> Expected:
    """Seconds from one token of a sequence to the next, with so many sequences of one copy at once."""
    work_s, link_s = step.stages * step.work_s, step.stages * step.link_s
    return Expected(
        slow_s=work_s / band.low + link_s + band.overhead_low_s + rows * band.row_low_s,
        fast_s=work_s / band.high + link_s + band.overhead_high_s + rows * band.row_high_s,
    )


def expected_prefill(step: StepTime) -> Expected:
    """Seconds until the first token of a prompt that nobody else computes beside."""
    work_s, link_s = step.stages * step.work_s, step.stages * step.link_s
    return Expected(slow_s=work_s / PREFILL_LOW + link_s, fast_s=work_s / PREFILL_HIGH + link_s)
