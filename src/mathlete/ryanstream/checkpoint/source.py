"""What a source of weights offers, whatever its file format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mathlete.ryanstream.model.config import ModelConfig

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """A tokenizer, ready to be written down.

    Attributes:
        tokenizer_json: in the format of the `tokenizers` library.
        control_tokens: tokens that only the harness may write, by name.
        eos_token_ids: ids that end a text.
        spoken_ids: control tokens that are part of the text when the model writes them, such as `</think>`.
    """

    tokenizer_json: str
    control_tokens: dict[str, int]
    eos_token_ids: tuple[int, ...]
    spoken_ids: tuple[int, ...] = ()


class WeightSource(Protocol):
    """A model on disk. Tensor names are those of Hugging Face's `LlamaForCausalLM`."""

    path: Path
    config: ModelConfig

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape without reading it; None when it is not there."""
        ...

    def read(self, name: str) -> Tensor:
        """A tensor in float32 (or the file's own float type). Raises `ModelError` when it is not there."""
        ...

    def tokenizer(self) -> TokenizerSpec:
        """The model's tokenizer. Raises `ModelError` when the files hold none that is known."""
        ...


def fingerprint(paths: Sequence[Path]) -> str:
    """A key for the content of `paths`: names, sizes and 64 samples of each file, not every byte.

    Good enough to tell two models apart in a cache; integrity is the model store's business.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for sample in range(_NUM_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_NUM_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
