"""Triton kernels, one a file, each with its twin in torch. Importing one of them imports Triton.

They run on CUDA, and under Triton's interpreter on the CPU, which is how the tests run them; `benchmarks/gpu_check.py`
checks and times them on a GPU. In all of them one program makes one row's result (the NF4 one
writes weights) in a fixed order of tiles whose sizes do not depend on the batch, and no two programs add into
one place: a row's result does not depend on what else is in the batch.
"""

from __future__ import annotations

from torch import Tensor


def on_the_cpu(x: Tensor) -> bool:
    """Whether the interpreter is at work. It cannot multiply bf16: kernels widen to float32 for it, same products."""
    return x.device.type == "cpu"
