"""Which device a name means, what is refused, and weights moved to where Triton's product wants them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import greedy, load, run_all
from tiny_qwen import TinyModel

from mathlete.core.errors import EngineError
from mathlete.ryanstream import placement
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.nf4 import quantize_nf4
from mathlete.ryanstream.model.ops_compiled import CompiledOps, CompileUnavailable
from mathlete.ryanstream.model.ops_torch import TorchOps, linear
from mathlete.ryanstream.model.quantization import pack_bf16, pack_nf4_panels
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.weights import DenseWeight, LayerWeights, ModelWeights, Nf4Weight, PackedWeight
from mathlete.ryanstream.placement import place_weights, resolve_device, torch_ops

CPU = torch.device("cpu")
CONFIG = ModelConfig(
    architecture="qwen2", vocab_size=48, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4,
    num_kv_heads=2, head_dim=16, rms_norm_eps=1e-6, rope_theta=1e4, attention_bias=True, tie_word_embeddings=False,
    max_positions=64,
)  # fmt: skip


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CUDA", "cpu:0", "", "cuda:0 "])
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="device must be"):
        EngineConfig(device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="sees no CUDA here"):
        load(tmp_path / "no model", tmp_path, device="cuda:1", precision="bf16")


@pytest.fixture
def cuda_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch saw two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("cuda_of_two")
def test_what_a_gpu_runs() -> None:
    assert resolve_device(EngineConfig(device="cuda:1", precision="nf4")) == torch.device("cuda:1")
    assert resolve_device(EngineConfig(device="cpu", precision="w8a8")) == CPU
    with pytest.raises(EngineError, match="only 2 GPUs"):
        resolve_device(EngineConfig(device="cuda:2", precision="bf16"))
    with pytest.raises(EngineError, match="w8a8 runs on the CPU only; on cuda use bf16, nf4"):
        resolve_device(EngineConfig(device="cuda", precision="w8a8"))
    with pytest.raises(EngineError, match="int8 KV cache"):
        resolve_device(EngineConfig(device="cuda", precision="bf16", kv_cache_dtype="int8"))


@pytest.mark.parametrize("keep_nf4", [True, False])
def test_placed_weights_compute_the_same(rng: torch.Generator, keep_nf4: bool) -> None:
    plain = torch.randn((48, 128), generator=rng)
    nf4 = PackedWeight("nf4", pack_nf4_panels(quantize_nf4(plain)), None, torch.randn(48, generator=rng), 48)
    bf16 = PackedWeight("bf16", pack_bf16(plain), None, None, 48)
    norm = torch.ones(128)
    before = ModelWeights(plain, (LayerWeights(norm, nf4, bf16, norm, nf4, bf16),), norm, bf16)
    after = place_weights(before, CPU, keep_nf4)
    assert isinstance(after.layers[0].qkv, Nf4Weight if keep_nf4 else DenseWeight)
    assert isinstance(after.head, DenseWeight) and torch.equal(after.head.weight, plain.bfloat16())
    x = torch.randn((3, 128), generator=rng)
    assert torch.equal(linear(x, after.layers[0].qkv), linear(x, nf4))
    assert torch.equal(linear(x, after.layers[0].down), linear(x, bf16))


def test_torch_is_compiled_when_asked_for_and_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = rotary_tables(8, 16, 1e4)
    assert torch_ops(CONFIG, tables, False, "no kernels").name == "torch (no kernels)"
    monkeypatch.setattr(placement, "compiled_ops", lambda config, rotary: CompileUnavailable("no compiler"))
    found = torch_ops(CONFIG, tables, True, "no kernels")
    assert found.name == "torch (no kernels; no compiler)" and type(found.ops) is TorchOps
    monkeypatch.setattr(placement, "compiled_ops", lambda config, rotary: CompiledOps(config, rotary, "eager"))
    found = torch_ops(CONFIG, tables, True, "no kernels")
    assert found.name == "torch compiled (no kernels)" and type(found.ops) is CompiledOps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_whole_engine_on_cuda(tiny: TinyModel, engine_cache: Path) -> None:
    on_cpu = load(tiny.folder, engine_cache, precision="fp32", device="cpu")
    on_gpu = load(tiny.folder, engine_cache, precision="fp32", device="cuda")
    prompts = [[5, 6, 7], [5, 6, 8, 9]]
    ended = [run_all(loaded.engine, prompts, [greedy(8)] * 2) for loaded in (on_cpu, on_gpu)]
    assert ended[0].ids("0") == ended[1].ids("0") and ended[0].ids("1") == ended[1].ids("1")
    assert on_gpu.kernels == "triton"
