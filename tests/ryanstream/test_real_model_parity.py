"""Logits of the 0.5B model in bf16 and w8a8 against transformers in float32 on the same dequantised weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from mathlete.core.generation import Message
from mathlete.generators.chat_format import chat_ids
from mathlete.model_store.store import default_cache_dir
from mathlete.ryanstream.checkpoint.gguf_source import GGUFSource
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import LoadedEngine, load_engine
from mathlete.ryanstream.model.ops import ForwardBatch
from mathlete.ryanstream.model.tokenizer import EngineTokenizer

pytestmark = [pytest.mark.model, pytest.mark.slow]

CHAT = [
    Message("system", "You solve competition problems."),
    Message("user", r"Find the smallest $n$ such that $n^2 + 12n - 2007$ is a perfect square. Put it in \boxed{}."),
]
ANSWER = "We complete the square: $(n+6)^2 - 2043 = m^2$, so $(n + 6 - m)(n + 6 + m) = 2043 = 3^2"


@dataclass(frozen=True)
class Tolerance:
    """How far logits may be from float32.

    Attributes:
        largest: absolute difference of any logit, after each row's mean is taken out.
        cosine: least cosine of a row of logits with the reference's.
        mean_kl: mean over positions of KL(reference || ours), nats.
        worst_kl: largest of them.
        top1: share of positions with the same most likely token.
    """

    largest: float
    cosine: float
    mean_kl: float
    worst_kl: float
    top1: float


# Measured over 102 positions, native / torch:
#   bf16: 0.33 / 0.35, 0.9998 / 0.9998, 0.00037 / 0.00037, 0.0033 / 0.0036, 1.00 / 1.00
#   w8a8: 2.20 / 2.29, 0.9787 / 0.9800, 0.0116 / 0.0095, 0.210 / 0.120, 0.961 / 0.951
TOLERANCES = {"bf16": Tolerance(0.7, 0.9995, 0.001, 0.01, 0.97), "w8a8": Tolerance(4, 0.965, 0.025, 0.4, 0.92)}


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prompt(small_model_path: Path) -> list[int]:
    spec = GGUFSource(small_model_path).tokenizer()
    tokenizer = EngineTokenizer(spec.tokenizer_json, spec.control_tokens, spec.eos_token_ids)
    return [*chat_ids(tokenizer, CHAT), *tokenizer.encode(ANSWER)]


@pytest.fixture(scope="module")
def reference(small_model_path: Path, prompt: list[int]) -> Tensor:
    """Logits [M, V] of transformers; the model is let go at once."""
    source = GGUFSource(small_model_path)
    shape = source.config
    config = Qwen2Config(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads, rms_norm_eps=shape.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_word_embeddings, max_position_embeddings=shape.max_positions,
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            parameter.copy_(source.read(name))
        return model.eval()(input_ids=torch.tensor([prompt])).logits[0]


def _all_logits(loaded: LoadedEngine, prompt: list[int]) -> Tensor:
    """One forward pass over the prompt in blocks 0, 1, ...; logits [M, V] of every position."""
    places = torch.arange(len(prompt), dtype=torch.int32)
    batch = ForwardBatch(
        token_ids=torch.tensor(prompt), positions=places, slots=places.long(),
        row_seq=torch.zeros_like(places), lengths=places + 1,
        tables=torch.arange(-(-len(prompt) // 16), dtype=torch.int32)[None], logit_rows=places.long(),
    )  # fmt: skip
    runner = loaded.engine._runner
    return runner._model.forward(batch, runner._cache).logits


@pytest.mark.parametrize("precision", ["bf16", "w8a8"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_logits_agree_with_transformers(
    small_model_path: Path, prompt: list[int], reference: Tensor, precision: str, native: bool,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if native:
        request.getfixturevalue("kernels")  # skips where they do not run
    else:
        monkeypatch.setenv("MATHLETE_NATIVE", "0")
    config = EngineConfig(precision=precision, max_model_len=256, max_running=1, num_threads=2)  # type: ignore[arg-type]
    loaded = load_engine(small_model_path, default_cache_dir(), config, lambda what, done, total: None)
    assert loaded.kernels.startswith("native" if native else "torch")
    ours = _all_logits(loaded, prompt)
    difference = (ours - ours.mean(-1, keepdim=True)) - (reference - reference.mean(-1, keepdim=True))
    cosine = torch.nn.functional.cosine_similarity(ours, reference, dim=-1)
    expected, found = reference.log_softmax(-1), ours.log_softmax(-1)
    kl = (expected.exp() * (expected - found)).sum(-1)
    measured = Tolerance(
        largest=float(difference.abs().max()), cosine=float(cosine.min()), mean_kl=float(kl.mean()),
        worst_kl=float(kl.max()), top1=float((ours.argmax(-1) == reference.argmax(-1)).float().mean()),
    )  # fmt: skip
    print(f"{precision}: {len(prompt)} positions, {measured}")
    allowed = TOLERANCES[precision]
    assert measured.largest < allowed.largest
    assert measured.cosine > allowed.cosine
    assert measured.mean_kl < allowed.mean_kl and measured.worst_kl < allowed.worst_kl
    assert measured.top1 >= allowed.top1
