"""The engine's own checkpoint file: tensors as they are used, mapped into memory and not copied.

Layout: 8 bytes magic; tensors, each at a multiple of 64 bytes; an index in JSON; its length (8 bytes,
little-endian); 8 bytes magic. A file that was cut lacks its end and is refused.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mathlete.core.errors import ModelError, StorageError

_MAGIC = b"MLTCKPT1"
_ALIGNMENT = 64
_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.bfloat16, torch.int8, torch.uint8)}


def write_checkpoint(
    path: Path, tensors: Iterable[tuple[str, Tensor]], advance: Callable[[str, int], None] = lambda name, size: None
) -> None:
    """Write `tensors` one at a time; `path` appears only when it is whole.

    Args:
        path: the file to make; its folder must exist.
        tensors: name and contiguous CPU tensor; may be a generator.
        advance: told of each tensor's name and bytes once it is written.

    Raises:
        StorageError: when the disk is full or not writable; nothing is left behind.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    index: dict[str, Any] = {}
    try:
        with partial.open("wb") as file:
            file.write(_MAGIC)
            for name, tensor in tensors:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
                index[name] = {
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "shape": list(tensor.shape),
                    "offset": file.tell(),
                }
                file.write(data.data)
                advance(name, data.nbytes)
            encoded = json.dumps(index).encode()
            file.write(encoded + len(encoded).to_bytes(8, "little") + _MAGIC)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"the engine's checkpoint {path} could not be written: {error.strerror or error}. "
            "Nothing was left behind; make room or set MATHLETE_CACHE to another disk and start again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def map_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Map a checkpoint. The tensors are private views of the file: read only what you must, write never.

    Raises:
        ModelError: when the file is cut or not a checkpoint.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < 24:
            raise _damaged(path, size)
        file.seek(size - 16)
        tail = file.read(16)
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != _MAGIC or length > size - 24:
            raise _damaged(path, size)
        file.seek(size - 16 - length)
        encoded = file.read(length)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        return {name: _view(mapped, **entry) for name, entry in json.loads(encoded).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, size) from error


def _view(mapped: mmap.mmap, dtype: str, shape: list[int], offset: int) -> Tensor:
    return torch.frombuffer(mapped, dtype=_DTYPES[dtype], count=math.prod(shape), offset=offset).view(shape)


def _damaged(path: Path, size: int) -> ModelError:
    return ModelError(f"{path} ({size:,} bytes) is not a whole checkpoint; delete it, it will be made again")
