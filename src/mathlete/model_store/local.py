"""A model the user names by its path: no checksum is known, but a file that was cut short can be told.

Reads only headers: GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and safetensors.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path

from mathlete.core.errors import InputError, ModelError
from mathlete.model_store.disk import describe_bytes

# ggml tensor type -> (values in a block, bytes of a block)
GGML_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    30: (1, 2),  # BF16
}
# GGUF metadata value type -> bytes; 8 is a string, 9 an array.
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32


def check_local_model(path: Path) -> None:
    """Accept a .gguf file or a folder with .safetensors files that are as long as their headers say.

    Raises:
        InputError: it is neither.
        ModelError: it is cut short or damaged.
    """
    try:
        if path.is_dir():
            _check_folder(path)
        else:
            _check_gguf(path)
    except OSError as error:
        raise InputError(f"The model {path} cannot be read: {error.strerror}.") from error


def _check_folder(path: Path) -> None:
    files = sorted(path.glob("*.safetensors"))
    if not files or not (path / "config.json").exists():
        raise InputError(f"The folder {path} holds no model: it needs config.json and .safetensors files.")
    for file in files:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = stream.read(min(length, file.stat().st_size))
        try:
            tensors = json.loads(header)
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _damaged(file, "its header is cut short or damaged") from error
        _require_size(file, 8 + len(header) + end)


def _check_gguf(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(
                f"{path} is not a GGUF file. Give a .gguf file, or the folder that holds the .safetensors files."
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                end = _GgufHeader(data).end_of_tensors()
            except (struct.error, KeyError, OverflowError) as error:
                raise _damaged(path, "its header is cut short or damaged") from error
    _require_size(path, end)


def _require_size(path: Path, at_least: int) -> None:
    size = path.stat().st_size
    if size < at_least:
        raise _damaged(path, f"it has {describe_bytes(size)}, its header describes {describe_bytes(at_least)}")


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"The model file {path} is truncated or damaged: {why}. Copy or download it again.")


class _GgufHeader:
    """Walks over a GGUF header. Raises `struct.error` at its end when the file is too short."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def end_of_tensors(self) -> int:
        """Bytes the file must have to hold every tensor its header names."""
        self._number("I")  # version
        num_tensors, num_pairs = self._number("Q"), self._number("Q")
        alignment = DEFAULT_ALIGNMENT
        for _ in range(num_pairs):
            key, kind = self._string(), self._number("I")
            if key == b"general.alignment" and kind == 4:
                alignment = self._number("I")
            else:
                self._skip_value(kind)
        ends = [self._tensor_end() for _ in range(num_tensors)]
        start = -(-self._at // alignment) * alignment
        return start + max(ends, default=0)

    def _tensor_end(self) -> int:
        """Where one tensor ends, counted from the start of the tensor data."""
        self._string()
        num_values = 1
        for _ in range(self._number("I")):
            num_values *= self._number("Q")
        values, num_bytes = GGML_BLOCKS.get(self._number("I"), (1, 0))  # of an unknown type: at least its start
        return self._number("Q") + num_values // values * num_bytes

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize(code)
        return int(value)

    def _string(self) -> bytes:
        length = self._number("Q")
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    def _skip_value(self, kind: int) -> None:
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            item, count = self._number("I"), self._number("Q")
            if item == STRING:
                for _ in range(count):
                    self._string()
            else:
                self._at += count * SCALAR_BYTES[item]
        else:
            self._at += SCALAR_BYTES[kind]
