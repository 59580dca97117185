"""Shapes from files that others wrote: a folder's config.json, a GGUF file's header, and what is wrong with them."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.core.errors import InputError, ModelError
from mathlete.planning.models import find_model

CONFIG: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip


def folder(path: Path, config: Any) -> Path:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def test_a_folder(tmp_path: Path) -> None:
    shape = find_model(str(folder(tmp_path, CONFIG)))
    assert (shape.vocab_size, shape.head_dim, shape.attention_bias, shape.published_format) == (512, 32, True, "bf16")


def test_quantised_folders(tmp_path: Path) -> None:
    for method, expected in (("awq", "awq"), ("gptq", "gptq"), ("bitsandbytes", "nf4"), ("mxfp4", "mxfp4")):
        config = {**CONFIG, "quantization_config": {"quant_method": method}}
        assert find_model(str(folder(tmp_path, config))).published_format == expected


def test_sliding_windows(tmp_path: Path) -> None:
    qwen = {**CONFIG, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    assert find_model(str(folder(tmp_path, qwen))).num_sliding_layers == 1
    off = {**qwen, "use_sliding_window": False}
    assert find_model(str(folder(tmp_path, off))).sliding_window is None


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "is no JSON object"),
        ({**CONFIG, "model_type": "mamba"}, "'mamba' model; the plan counts"),
        ({**CONFIG, "vocab_size": "many"}, "vocab_size is 'many', not a whole number"),
        ({**CONFIG, "hidden_size": 1 << 60}, "hidden_size must be from 1"),
        ({**CONFIG, "num_attention_heads": 0}, "num_attention_heads must be >= 1"),
        ({**CONFIG, "num_key_value_heads": 3}, "must be a multiple of num_kv_heads"),
        ({**CONFIG, "sliding_window": "wide", "layer_types": []}, "sliding_window is"),
        ({**CONFIG, "quantization_config": {"quant_method": "exl2"}}, "quant_method 'exl2' is not known"),
    ],
)
def test_what_is_wrong_with_a_config_is_told(tmp_path: Path, config: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        find_model(str(folder(tmp_path, config)))


def test_a_folder_without_a_config_and_a_name_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(InputError, match="did you mean"):
        find_model("openai/gpt-oss-120")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def entry(key: str, value: int | str | list[str]) -> bytes:
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))


def gguf(entries: dict[str, int | str | list[str]], tensors: dict[str, tuple[int, ...]]) -> bytes:
    body = b"".join(entry(key, value) for key, value in entries.items())
    for name, dimensions in tensors.items():
        body += text(name) + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
        body += struct.pack("<IQ", 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + body


ENTRIES: dict[str, int | str | list[str]] = {
    "general.architecture": "qwen2", "general.name": "toy", "tokenizer.ggml.tokens": ["a", "b"],
    "qwen2.block_count": 2, "qwen2.embedding_length": 128, "qwen2.feed_forward_length": 256,
    "qwen2.attention.head_count": 4, "qwen2.attention.head_count_kv": 2, "qwen2.context_length": 4096,
}  # fmt: skip
TENSORS = {"token_embd.weight": (128, 512), "blk.0.attn_q.bias": (128,)}


def test_a_gguf_header(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(gguf(ENTRIES, TENSORS))
    shape = find_model(str(path))
    same = find_model(str(folder(tmp_path, CONFIG)))
    assert shape == replace(same, name="toy", source=str(path))


def test_every_cut_of_a_gguf_header_is_told(tmp_path: Path) -> None:
    whole = gguf(ENTRIES, TENSORS)
    path = tmp_path / "cut.gguf"
    for size in range(0, len(whole) - 12, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="has no GGUF header that a plan can be made of"):
            find_model(str(path))


@pytest.mark.parametrize("at", [8, 16, 24])
def test_absurd_counts_are_refused_at_once(tmp_path: Path, at: int) -> None:
    damaged = bytearray(gguf(ENTRIES, TENSORS))
    damaged[at : at + 8] = struct.pack("<Q", 1 << 62)
    path = tmp_path / "absurd.gguf"
    path.write_bytes(bytes(damaged))
    with pytest.raises(ModelError):
        find_model(str(path))


@pytest.mark.model
def test_the_small_models_file_agrees_with_the_table(small_model_path: Path) -> None:
    found, known = find_model(str(small_model_path)), find_model("0.5b")
    # llama.cpp's file may hold the head beside the table, packed otherwise
    assert found == replace(known, name=found.name, source=found.source, tie_word_embeddings=found.tie_word_embeddings)
