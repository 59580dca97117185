"""The paths fused by torch.compile: the same numbers as the eager twin, few compilations, and a way out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_compiled import CompiledOps, CompileUnavailable, compiled_ops
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.weights import DenseWeight

CONFIG = ModelConfig(
    architecture="qwen2", vocab_size=48, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4,
    num_kv_heads=2, head_dim=16, rms_norm_eps=1e-6, rope_theta=1e4, attention_bias=True, tie_word_embeddings=False,
    max_positions=64,
)  # fmt: skip
TABLES = rotary_tables(64, 16, 1e4)


def layer(ops: TorchOps, num_rows: int, dtype: torch.dtype) -> Tensor:
    """One layer of a prompt of `num_rows` tokens, float32 [num_rows, 32]."""
    noise = torch.Generator().manual_seed(5)

    def linear(num_out: int, width: int, bias: bool = False) -> DenseWeight:
        weight = (torch.randn((num_out, width), generator=noise) * 0.2).to(dtype)
        return DenseWeight(weight, torch.randn(num_out, generator=noise) if bias else None)

    qkv, out, gate_up, down = linear(128, 32, bias=True), linear(32, 64), linear(128, 32), linear(32, 64)
    norm, x = torch.rand(32, generator=noise), torch.randn((num_rows, 32), generator=noise)
    places = torch.arange(num_rows)
    batch = ForwardBatch(
        places, places.int(), places, torch.zeros(num_rows, dtype=torch.int32), places.int() + 1,
        torch.arange(3, dtype=torch.int32)[None], places,
    )  # fmt: skip
    with torch.inference_mode():
        cache = allocate_cache(CONFIG, 3, dtype)[0]
        x = ops.linear_add(ops.attention(ops.norm_linear(x, norm, qkv), batch, cache), out, x)
        return ops.swiglu_linear_add(ops.norm_linear(x, norm, gate_up), down, x)


def test_another_number_of_rows_is_not_compiled_again() -> None:
    """Except that a single row is. Graphs run as captured: what Inductor makes of them is not the question."""
    graphs = 0

    def counting(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    ops, twin = CompiledOps(CONFIG, TABLES, backend=counting), TorchOps(CONFIG, TABLES)
    torch.testing.assert_close(layer(ops, 7, torch.float32), layer(twin, 7, torch.float32))
    after_many = graphs
    assert after_many >= 4
    for num_rows in (2, 3, 16, 33):
        torch.testing.assert_close(layer(ops, num_rows, torch.float32), layer(twin, num_rows, torch.float32))
    assert graphs == after_many
    torch.testing.assert_close(layer(ops, 1, torch.float32), layer(twin, 1, torch.float32))
    assert graphs <= 2 * after_many


def test_a_compiler_that_fails_is_a_reason_and_not_an_error() -> None:
    def failing(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        raise RuntimeError("no C++ compiler\nand more")

    torch._dynamo.reset()
    found = compiled_ops(CONFIG, TABLES, backend=failing)
    assert isinstance(found, CompileUnavailable)
    assert found.reason.startswith("torch.compile failed: ") and "no C++ compiler" in found.reason
    assert "\n" not in found.reason
