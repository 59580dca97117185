"""How many bytes a weight takes in each format, scales included, and which parts of a model a format packs.

Knows formats; knows no models or machines. A format of bits b with groups of g weights, each with s bytes of scales
and zeros, takes b / 8 + s / g bytes a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mathlete.core.errors import InputError

Compute = Literal["bf16", "fp8", "int8"]

BF16_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Of the linear layers; embedding table, output head, norms and biases stay in bf16 unless told otherwise.

    Attributes:
        name: as engines call it.
        bits: of a weight's code.
        group: weights that share scales; 0 when the scales are one a row or tensor, which is next to nothing.
        group_bytes: scales and zeros of a group.
        packs_experts: whether experts are packed.
        packs_dense: whether attention and dense feed-forward layers are packed.
        head_bytes: of a weight of the output head.
        embedding_bytes: of a weight of the embedding table.
        copies_tied_head: whether a tied head is stored beside the table, in another layout.
        unquantized_bytes: of a weight of norms and biases.
        compute: in which numbers products are done, whose peak counts.
        groups_along_rows: whether a group may not be cut where a row of inputs is shared out over GPUs.
        written_out_bytes: of a packed weight in the form that is written to memory before each product; 0 where the
            product takes the codes.
        what: in words, for people.
    """

    name: str
    bits: float
    group: int
    group_bytes: float
    packs_experts: bool = True
    packs_dense: bool = True
    head_bytes: float = BF16_BYTES
    embedding_bytes: float = BF16_BYTES
    copies_tied_head: bool = False
    unquantized_bytes: float = BF16_BYTES
    compute: Compute = "bf16"
    groups_along_rows: bool = False
    written_out_bytes: float = 0.0
    what: str = ""

    @property
    def bytes_per_weight(self) -> float:
        """Of a packed weight, its part of the scales included."""
        return self.bits / 8 + (self.group_bytes / self.group if self.group else 0.0)

    @property
    def dense_bytes(self) -> float:
        """Of a weight of attention and dense feed-forward layers."""
        return self.bytes_per_weight if self.packs_dense else BF16_BYTES

    @property
    def expert_bytes(self) -> float:
        """Of a weight of the experts."""
        return self.bytes_per_weight if self.packs_experts else BF16_BYTES


FORMATS: Mapping[str, WeightFormat] = {
    one.name: one
    for one in (
        WeightFormat("bf16", 16, 0, 0, what="as trained"),
        WeightFormat("fp8", 8, 0, 0, compute="fp8", what="8-bit floats, a scale a tensor or row"),
        WeightFormat("int8", 8, 0, 0, compute="int8", what="8-bit integers, a scale a row"),
        # AWQ: 4-bit codes, and for each 128 an fp16 scale and a 4-bit zero.
        WeightFormat(
            "awq", 4, 128, 2.5, groups_along_rows=True, what="4 bits, groups of 128 with an fp16 scale and a 4-bit zero"
        ),
        WeightFormat(
            "gptq",
            4,
            128,
            2.5,
            groups_along_rows=True,
            what="4 bits, groups of 128 with an fp16 scale and a 4-bit zero",
        ),
        # bitsandbytes NF4: 64 codes and an fp32 absmax; vLLM undoes the second quantisation of the absmax on loading
        # (`bitsandbytes_loader._dequantize_dq`), so double quantisation saves disk and no memory there.
        WeightFormat("nf4", 4, 64, 4, what="NF4, blocks of 64 with an fp32 absmax (as vLLM holds it)"),
        WeightFormat("nf4-fp16", 4, 64, 2, what="NF4, blocks of 64 with an fp16 absmax"),
        # QLoRA's double quantisation: absmax in 8 bits, and an fp32 scale for 256 of them.
        WeightFormat("nf4-dq", 4, 64, 1 + 4 / 256, what="NF4, blocks of 64 with a doubly quantised absmax (QLoRA)"),
        # OCP microscaling: 32 codes share one power of two in 8 bits; only experts are packed (gpt-oss).
        WeightFormat("mxfp4", 4, 32, 1, packs_dense=False, what="MXFP4 experts, blocks of 32; the rest bf16"),
    )
}

# What the embedded engine holds on a CPU: panels of 32 columns with their scales inside (`ryanstream.model`), the head
# always packed beside the table, norms and biases in fp32.
EMBEDDED_FORMATS: Mapping[str, WeightFormat] = {
    one.name: one
    for one in (
        WeightFormat("bf16", 16, 0, 0, head_bytes=2, copies_tied_head=True, unquantized_bytes=4),
        WeightFormat("w8a8", 8, 0, 0, head_bytes=1, copies_tied_head=True, unquantized_bytes=4, compute="int8"),
        WeightFormat("int4", 4, 32, 4, head_bytes=0.625, copies_tied_head=True, unquantized_bytes=4, compute="int8"),
        WeightFormat("nf4", 4, 64, 2, head_bytes=1, copies_tied_head=True, unquantized_bytes=4, compute="int8"),
        WeightFormat("fp32", 32, 0, 0, head_bytes=4, embedding_bytes=4, copies_tied_head=True, unquantized_bytes=4),
    )
}

# And on a GPU (`ryanstream.placement`): dense bf16, or NF4 with an fp32 absmax and a dense head. Before a product the
# NF4 weight is written out in bf16 (`ryanstream.model.triton.nf4_matmul`).
EMBEDDED_GPU_FORMATS: Mapping[str, WeightFormat] = {
    one.name: one
    for one in (
        WeightFormat("bf16", 16, 0, 0, copies_tied_head=True, unquantized_bytes=4),
        WeightFormat("nf4", 4, 64, 4, copies_tied_head=True, unquantized_bytes=4, written_out_bytes=BF16_BYTES),
        WeightFormat("fp32", 32, 0, 0, head_bytes=4, embedding_bytes=4, copies_tied_head=True, unquantized_bytes=4),
    )
}

# vLLM's and checkpoints' names for the same things.
_ALIASES = {
    "auto": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp16": "bf16", "half": "bf16",
    "bitsandbytes": "nf4", "bnb": "nf4", "awq_marlin": "awq", "gptq_marlin": "gptq", "fp8_e4m3": "fp8",
    "compressed-tensors": "int8", "w8a8": "int8", "gpt_oss_mxfp4": "mxfp4",
}  # fmt: skip


def weight_format(name: str) -> WeightFormat:
    """The format of this name, or of an engine's name for it.

    Raises:
        InputError: no such format is known.
    """
    found = FORMATS.get(_ALIASES.get(name.lower(), name.lower()))
    if found is None:
        known = ", ".join((*FORMATS, *_ALIASES))
        raise InputError(f"the plan knows no weights in {name[:40]!r}; it knows {known}")
    return found
