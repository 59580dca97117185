"""How long a step takes at best on named hardware: bytes to read against operations to do. Pure arithmetic.

Williams, Waterman, Patterson: Roofline (CACM 2009). A decoding step of a batch of b sequences at context c reads every
weight it needs once and the keys and values of all sequences, and multiplies each active weight with b rows:

    step = max(bytes / bandwidth, operations / peak) + all-reduces.

An engine that writes packed weights out before it multiplies does two things one after the other, and is slower:

    work = (codes + written out) / bandwidth + max(bytes with the written out instead of the codes / bandwidth,
                                                   operations / peak).

Of a mixture of E experts of which a token takes k, b tokens touch E (1 - (1 - k/E)^b) on average when routing is even
and independent (MoESD, arXiv 2505.19645, section 3); real routing is less even and touches fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mathlete.planning.hardware import Accelerator
from mathlete.planning.kv_memory import KVLayers
from mathlete.planning.model_shape import ModelShape, count_parameters
from mathlete.planning.parallel_weights import Layout, WeightBytes
from mathlete.planning.weight_formats import WeightFormat

_HOST_LATENCY_S = 50e-6  # of handing rows to the next stage; judged
_ACTIVATION_BYTES = 2  # of a number of the residual stream when it is summed over GPUs


@dataclass(frozen=True, slots=True)
class StepTime:
    """One forward pass of one copy of a model.

    Attributes:
        weight_bytes: read on each GPU.
        kv_bytes: read on each GPU.
        operations: done on each GPU, two a multiplication.
        read_s: seconds of reading.
        compute_s: seconds of multiplying.
        link_s: seconds of sums over the GPUs of a layer, and of handing on to the next stage.
        work_s: seconds of reading and multiplying as the engine goes about it: the larger of the two, or more where
            it writes weights out first.
        stages: groups of GPUs that a token passes one after another.
    """

    weight_bytes: float
    kv_bytes: float
    operations: float
    read_s: float
    compute_s: float
    link_s: float
    work_s: float
    stages: int = 1

    @property
    def seconds(self) -> float:
        """From one token of a sequence to the next."""
        return self.stages * (max(self.read_s, self.compute_s) + self.link_s)

    @property
    def bound(self) -> str:
        """What it waits for: "memory", "compute" or "link"."""
        longest = max(self.read_s, self.compute_s, self.link_s)
        return "memory" if longest == self.read_s else "compute" if longest == self.compute_s else "link"


def expected_experts(num_experts: int, num_per_token: int, tokens: float) -> float:
    """Distinct experts of a layer that `tokens` tokens touch on average under even routing."""
    return num_experts * (1 - math.pow(1 - num_per_token / num_experts, tokens))


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model in a format on one kind of accelerator.

    Attributes:
        shape: of the model.
        packed: format of its weights.
        layout: over GPUs.
        weights: on the fullest GPU.
        kv: of a token on the fullest GPU.
        accelerator: what each GPU is.
        host_link_gb_per_s: 10^9 bytes a second from one stage to the next.
    """

    shape: ModelShape
    packed: WeightFormat
    layout: Layout
    weights: WeightBytes
    kv: KVLayers
    accelerator: Accelerator
    host_link_gb_per_s: float = 12.5

    def decode(self, batch: int, context: float) -> StepTime:
        """A step that draws one token for each of `batch` sequences of one copy, each `context` tokens long.

        With p stages the sequences go through them in p groups, so a step has batch / p rows on each stage.
        """
        rows = max(1.0, batch / self.layout.pipeline_parallel)
        return self._step(rows, rows, self.kv.read_bytes(context), rows * self._attention(context), rows)

    def prefill(self, tokens: int) -> StepTime:
        """A pass over a prompt of `tokens` tokens; its logits are wanted once."""
        return self._step(tokens, tokens, 0.0, tokens * self._attention(tokens / 2), 1)

    def _step(
        self, rows: float, expert_rows: float, kv_bytes_a_row: float, attention: float, logit_rows: float
    ) -> StepTime:
        counted, layout = count_parameters(self.shape), self.layout
        read, packed = self._weights_read(expert_rows)
        kv_bytes = rows * kv_bytes_a_row if kv_bytes_a_row else 0.0
        products = rows * (counted.linear + counted.active_experts) + logit_rows * counted.head
        operations = 2 * products / layout.gpus_per_copy + attention / layout.gpus_per_copy
        bandwidth = self.accelerator.bandwidth_gb_per_s * 1e9
        read_s, compute_s = (read + kv_bytes) / bandwidth, operations / self.accelerator.peak_ops(self.packed.compute)
        work_s = max(read_s, compute_s)
        if self.packed.written_out_bytes:
            written = packed * self.packed.written_out_bytes / self.packed.bytes_per_weight
            work_s = (packed + written) / bandwidth + max(read_s + (written - packed) / bandwidth, compute_s)
        return StepTime(
            weight_bytes=read,
            kv_bytes=kv_bytes,
            operations=operations,
            read_s=read_s,
            compute_s=compute_s,
            link_s=self._link_s(rows),
            work_s=work_s,
            stages=layout.pipeline_parallel,
        )

    def _weights_read(self, expert_rows: float) -> tuple[float, float]:
        """Bytes of weights that a step reads, and how many of them are of packed products."""
        weights = self.weights
        layers = weights.attention + weights.feed_forward
        if self.shape.experts is not None:
            experts = self.shape.experts
            touched = expected_experts(experts.num_experts, experts.num_per_token, expert_rows)
            layers += weights.experts * touched / experts.num_experts
        # Where the head is stored apart, rows of the table are looked up, which is next to nothing.
        table_or_head = weights.head or weights.embedding
        return layers + table_or_head + weights.unquantized, layers

    def _attention(self, context: float) -> float:
        """Operations of attention for one row over `context` tokens: scores and sums, two a multiplication."""
        shape = self.shape
        full = shape.num_full_layers * context
        sliding = shape.num_sliding_layers * min(context, shape.sliding_window or context)
        return 4 * shape.query_width * (full + sliding)

    def _link_s(self, rows: float) -> float:
        """Of one stage: two all-reduces a layer over a ring, and handing the rows on to the next stage.

        In an all-reduce each GPU sends and receives 2 (t - 1) / t of the residual stream.
        """
        t, p = self.layout.tensor_parallel, self.layout.pipeline_parallel
        stream = rows * self.shape.hidden_size * _ACTIVATION_BYTES
        handed_on_s = _HOST_LATENCY_S + stream / (self.host_link_gb_per_s * 1e9) if p > 1 else 0.0
        if t == 1 or not self.accelerator.link_gb_per_s:
            return handed_on_s
        layers = math.ceil(self.shape.num_layers / p)
        sent_s = 2 * (t - 1) / t * stream / (self.accelerator.link_gb_per_s * 1e9)
        return handed_on_s + 2 * layers * (self.accelerator.link_latency_us * 1e-6 + sent_s)
