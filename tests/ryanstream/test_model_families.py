"""Every family of models against transformers: safetensors and GGUF, chunks and batches, twins and kernels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from driving import greedy, load, run_all
from tiny_qwen import TinyModel, control_tokens, make_tiny_model, write_tiny_gguf
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mathlete.ryanstream.checkpoint.convert import ensure_checkpoint
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.layer_cache import allocate_cache
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.ops_native import NativeOps
from mathlete.ryanstream.model.ops_torch import TorchOps
from mathlete.ryanstream.model.rope_scaling import rope_scaling_from
from mathlete.ryanstream.model.rotary import rotary_tables
from mathlete.ryanstream.model.weights import HeadNorms

NEW_TOKENS = 12
LOGPROB_TOLERANCE = 5e-5  # float32 sums in another order

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2 yarn": {"family": "qwen2", "rope_parameters": YARN},
    "qwen3": {"family": "qwen3"},
    "qwen3 bias tied": {"family": "qwen3", "attention_bias": True, "tie_word_embeddings": True},
    "llama": {"family": "llama", "num_key_value_heads": 4},
    "llama bias tied": {"family": "llama", "attention_bias": True, "tie_word_embeddings": True},
    "llama 3.1": {"family": "llama", "rope_parameters": LLAMA3},
    "llama linear": {"family": "llama", "rope_parameters": LINEAR},
    "llama yarn": {"family": "llama", "rope_parameters": YARN},
    "mistral": {"family": "mistral", "sliding_window": None},
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    settings = {"tie_word_embeddings": False, **FAMILIES[request.param]}
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    return make_tiny_model(folder, **settings)


@pytest.fixture(scope="module")
def gguf_file(model: TinyModel) -> Path:
    path = model.folder / "model.gguf"
    write_tiny_gguf(model, path)
    return path


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    noise = torch.Generator().manual_seed(5)
    return [torch.randint(0, 260, (length,), generator=noise).tolist() for length in (1, 17, 40, 100)]


@pytest.fixture(scope="module")
def expected(model: TinyModel, prompts: list[list[int]]) -> list[list[int]]:
    return [_greedy_of_transformers(model, prompt) for prompt in prompts]


def _greedy_of_transformers(tiny: TinyModel, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS:
        ids.append(int(tiny.next_logits(ids)[-1].argmax()))
        if ids[-1] in (control_tokens()["<|im_end|>"], control_tokens()["<|endoftext|>"]):
            break
    return ids[len(prompt) :]


def _logprobs_of_transformers(tiny: TinyModel, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    logits = tiny.next_logits([*prompt, *output])[len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(output)[:, None]).squeeze(1)


@pytest.mark.parametrize("source", ["safetensors", "gguf"])
@pytest.mark.parametrize("limits", [{}, {"max_step_tokens": 9}], ids=["at once", "chunks of 9"])
def test_greedy_and_logprobs_equal_transformers(
    model: TinyModel, gguf_file: Path, prompts: list[list[int]], expected: list[list[int]], source: str,
    limits: dict[str, int], engine_cache: Path,
) -> None:  # fmt: skip
    path = model.folder if source == "safetensors" else gguf_file
    loaded = load(path, engine_cache, precision="fp32", **limits)
    ended = run_all(loaded.engine, prompts, [greedy(NEW_TOKENS)] * len(prompts))
    assert [ended.ids(str(i)) for i in range(len(prompts))] == expected
    for i, prompt in enumerate(prompts):
        request = ended.outputs[str(i)].request
        told = torch.tensor(list(request.logprobs))
        torch.testing.assert_close(
            told, _logprobs_of_transformers(model, prompt, request.output_ids), atol=LOGPROB_TOLERANCE, rtol=0
        )


@pytest.mark.parametrize("precision", ["bf16", "w8a8"])
def test_kernels_and_twins_stay_near_transformers(
    kernels: NativeKernels, model: TinyModel, prompts: list[list[int]], precision: str, engine_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The first token's logprob: rounding to 8 bits moves it by some hundredths, a wrong rotation by whole units."""

    def first_logprobs() -> Tensor:
        loaded = load(model.folder, engine_cache, precision=precision)
        ended = run_all(loaded.engine, prompts, [greedy(1)] * len(prompts))
        return torch.tensor([ended.outputs[str(i)].request.logprobs[0] for i in range(len(prompts))])

    native = first_logprobs()
    monkeypatch.setenv("MATHLETE_NATIVE", "0")
    torch.testing.assert_close(native, first_logprobs(), atol=0.05, rtol=0)
    exact = torch.stack([model.next_logits(prompt)[-1].log_softmax(-1).amax() for prompt in prompts])
    torch.testing.assert_close(native, exact, atol=0.15, rtol=0)


def test_the_random_model_says_different_things(expected: list[list[int]]) -> None:
    """A model that repeats one token would make the comparison empty. (With a tied head they like to repeat.)"""
    assert len({tuple(ids) for ids in expected}) >= len(expected) - 1
    assert len({token for ids in expected for token in ids}) >= 6


def test_both_sources_state_the_same_shape(model: TinyModel, gguf_file: Path, engine_cache: Path) -> None:
    ours, theirs = (_config(path, engine_cache) for path in (model.folder, gguf_file))
    assert theirs.architecture == {"mistral": "llama"}.get(ours.architecture, ours.architecture)
    for name in ("attention_bias", "output_bias", "qk_norm", "head_dim", "num_kv_heads", "max_positions"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ModelConfig.from_json(_as_json(ours)) == ours
    if ours.rope_scaling is None or theirs.rope_scaling is None:
        assert ours.rope_scaling is theirs.rope_scaling
        return
    assert ours.rope_scaling.divisors == pytest.approx(theirs.rope_scaling.divisors, rel=1e-6)
    assert ours.rope_scaling.attention_factor == pytest.approx(theirs.rope_scaling.attention_factor)


def _config(path: Path, cache: Path) -> ModelConfig:
    return ensure_checkpoint(path, cache, "fp32", None, lambda what, done, total: None).config()


def _as_json(config: ModelConfig) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize(
    "parameters",
    [
        LINEAR,
        LLAMA3,
        {**LLAMA3, "original_max_position_embeddings": 8192},
        YARN,
        {**YARN, "rope_theta": 1e6, "original_max_position_embeddings": 32768, "beta_fast": 16, "beta_slow": 2},
        {**YARN, "attention_factor": 1.3},
        {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7, "factor": 40.0},
        {**YARN, "truncate": False},
        {**YARN, "factor": 1.0},
    ],
)
@pytest.mark.parametrize("head_dim", [32, 128])
def test_scaled_frequencies_equal_transformers(parameters: dict[str, Any], head_dim: int) -> None:
    config = LlamaConfig(head_dim=head_dim, max_position_embeddings=512, rope_parameters=dict(parameters))
    frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    scaling = rope_scaling_from(parameters, head_dim, parameters["rope_theta"], 512)
    assert scaling is not None
    assert scaling.attention_factor == pytest.approx(factor, rel=1e-9)
    tables = rotary_tables(50, head_dim, parameters["rope_theta"], scaling)
    angles = torch.arange(50)[:, None] * frequencies
    torch.testing.assert_close(tables.cosines, angles.cos() * factor, atol=2e-5, rtol=0)
    torch.testing.assert_close(tables.sines, angles.sin() * factor, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "longrope"}, "'longrope' is not known"),
        ({"type": "dynamic", "factor": 2.0}, "'dynamic' is not known"),
        ({"rope_type": "yarn"}, "lacks 'factor'"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks 'low_freq_factor'"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_type": "linear", "factor": 0.0}, "must be > 0"),
    ],
)
def test_unknown_scalings_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope_scaling_from(parameters, 32, 1e4, 512)


def test_head_norms_on_kernels_and_twins(kernels: NativeKernels) -> None:
    """Queries and keys of widely different sizes: without the norms nothing would agree."""
    noise = torch.Generator().manual_seed(9)
    config = ModelConfig(
        architecture="qwen3", vocab_size=32, hidden_size=32, intermediate_size=32, num_layers=1, num_heads=4,
        num_kv_heads=2, head_dim=64, rms_norm_eps=1e-6, rope_theta=1e4, attention_bias=False,
        tie_word_embeddings=True, max_positions=64, qk_norm=True,
    )  # fmt: skip
    num_rows = 20
    places = torch.arange(num_rows, dtype=torch.int32)
    batch = ForwardBatch(
        token_ids=torch.zeros(num_rows, dtype=torch.int64), positions=places, slots=places.long(),
        row_seq=torch.zeros_like(places), lengths=places + 1, tables=torch.tensor([[0, 1]], dtype=torch.int32),
        logit_rows=torch.tensor([0]),
    )  # fmt: skip
    qkv = torch.randn((num_rows, 8 * 64), generator=noise) * torch.logspace(-3, 3, num_rows)[:, None]
    norms = HeadNorms(torch.rand(64, generator=noise) + 0.5, torch.rand(64, generator=noise) + 0.5)
    rotary = rotary_tables(num_rows, 64, 1e4)
    caches = [allocate_cache(config, 2, torch.bfloat16)[0] for _ in range(2)]
    expected = TorchOps(config, rotary).attention(qkv.clone(), batch, caches[0], norms)
    found = NativeOps(config, rotary, kernels).attention(qkv.clone(), batch, caches[1], norms)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(caches[1].keys.float(), caches[0].keys.float(), rtol=2**-7, atol=1e-6)
    plain = TorchOps(config, rotary).attention(qkv.clone(), batch, caches[0])
    assert not torch.allclose(plain, expected, rtol=1e-2, atol=1e-2)
