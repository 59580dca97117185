"""A trained exit: what stands between a middle layer and the model's own output head. Format, loading and saving.

One safetensors file. Metadata: `format` is "mathlete-exit", `version` is "1", `exit_layer` the number of layers below
it. Tensors, H the model's width: `norm` [H], which takes the place of the final norm's weight; and, or not, a linear
residual of low rank r before it, `down` [r, H] and `up` [H, r]: x + up (down x).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mathlete.core.errors import ModelError, StorageError
from mathlete.ryanstream.model.config import ModelConfig

_FORMAT, _VERSION = "mathlete-exit", "1"


@dataclass(frozen=True, slots=True)
class ExitAdapter:
    """A trained exit.

    Attributes:
        exit_layer: how many layers lie below it.
        norm: RMSNorm weight float32 [hidden].
        down: float32 [r, hidden], or None.
        up: float32 [hidden, r], None when `down` is.
    """

    exit_layer: int
    norm: Tensor
    down: Tensor | None = None
    up: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` saying what does not fit together."""
        if self.exit_layer < 1:
            raise ValueError(f"exit_layer must be >= 1, not {self.exit_layer}")
        if self.norm.dim() != 1:
            raise ValueError(f"norm must be [hidden], not {list(self.norm.shape)}")
        if self.down is None and self.up is None:
            return
        if self.down is None or self.up is None:
            raise ValueError("down and up come together")
        rank, width = self.down.shape[0], self.norm.shape[0]
        if self.down.shape != (rank, width) or self.up.shape != (width, rank):
            raise ValueError(
                f"down must be [r, {width}] and up [{width}, r], not {list(self.down.shape)} and {list(self.up.shape)}"
            )

    def apply(self, x: Tensor) -> Tensor:
        """The residuals x float32 [R, hidden] as the norm reads them."""
        if self.down is None or self.up is None:
            return x
        return x + (x @ self.down.T) @ self.up.T

    def to(self, device: torch.device) -> ExitAdapter:
        """The same on `device`."""
        down = None if self.down is None else self.down.to(device)
        return ExitAdapter(self.exit_layer, self.norm.to(device), down, None if self.up is None else self.up.to(device))


def load_exit_adapter(path: Path, config: ModelConfig) -> ExitAdapter:
    """Read a trained exit of the model `config`.

    Raises:
        ModelError: when the file is missing, damaged, of another kind, or made for another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as a trained exit: {error}") from error
    if told.get("format") != _FORMAT or told.get("version") != _VERSION:
        raise ModelError(f"{path} is no trained exit of version {_VERSION}: its metadata says {told or 'nothing'}")
    try:
        adapter = ExitAdapter(int(told["exit_layer"]), tensors["norm"], tensors.get("down"), tensors.get("up"))
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} is a damaged trained exit: {error}") from error
    if adapter.norm.shape[0] != config.hidden_size or adapter.exit_layer >= config.num_layers:
        raise ModelError(
            f"{path} is an exit at layer {adapter.exit_layer} of a model {adapter.norm.shape[0]} wide; this model has "
            f"{config.num_layers} layers and is {config.hidden_size} wide"
        )
    return adapter


def save_exit_adapter(adapter: ExitAdapter, path: Path) -> None:
    """Write a trained exit; the file is there whole or not at all.

    Raises:
        StorageError: when it cannot be written.
    """
    named = {"norm": adapter.norm, "down": adapter.down, "up": adapter.up}
    tensors = {name: tensor.float().cpu().contiguous() for name, tensor in named.items() if tensor is not None}
    told = {"format": _FORMAT, "version": _VERSION, "exit_layer": str(adapter.exit_layer)}
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file(tensors, partial, metadata=told)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"the trained exit {path} cannot be written: {error}. Make room and try again.") from error
