"""A small random model as a folder that vLLM loads in a second, and a generator over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_qwen import make_tiny_model

from mathlete.generators.vllm import VLLMGenerator, load_vllm
from mathlete.generators.vllm_settings import VLLMSettings

MAX_MODEL_LEN = 512


def make_folder(folder: Path) -> None:
    """vLLM wants heads of 32, and a tokenizer_config.json."""
    make_tiny_model(folder, tie_word_embeddings=False, hidden_size=128)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def load_tiny(folder: Path, constraints: bool = False, **settings: Any) -> VLLMGenerator:
    """float32, since the greedy answers of a random model hang on little."""
    wanted = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 256 * 1024**2, **settings}
    wanted.setdefault("distributed_executor_backend", "uni")  # loads faster, computes slower
    return load_vllm(
        str(folder), VLLMSettings(**wanted), max_model_len=MAX_MODEL_LEN, max_num_seqs=32, constraints=constraints
    )
