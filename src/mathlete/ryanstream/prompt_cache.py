"""Keys and values of prompts on disk, kept between runs (SPEC A11). Knows files; knows no engine.

One safetensors file an entry. Its name is a hash of what it depends on (model, arithmetic, format) and of its token
ids; both are stored in it too and compared, so a collision of hashes is no hit. Several processes may share the
folder: a file appears whole or not at all, is never changed, and may vanish at any time. A file that is cut or
damaged (its checksum tells) is removed and computed anew: the cache never makes a run fail, it collects warnings.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mathlete.ryanstream.kv_cache import BLOCK_SIZE

MIN_PREFIX_TOKENS = 64

_FORMAT = 1  # goes up whenever what is written, or how it was computed, changes
_SUFFIX = ".safetensors"
_TOKEN_IDS = "token_ids"
_STALE_PARTIAL_S = 3600.0


@dataclass(frozen=True, slots=True)
class PromptCacheKey:
    """What keys and values depend on besides the tokens.

    Attributes:
        model: fingerprint of the model's files.
        precision: of its linear layers.
        kv_dtype: of the cache.
        kernels: which implementation computed them; another one rounds differently.
    """

    model: str
    precision: str
    kv_dtype: str
    kernels: str


@dataclass(frozen=True, slots=True)
class PromptCacheLimits:
    """How much is kept; the least recently used go first.

    Attributes:
        max_bytes: of all entries.
        max_entries: files.
    """

    max_bytes: int = 4 * 10**9
    max_entries: int = 1000

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("max_bytes", "max_entries"):
            if getattr(self, name) < 1:
                raise ValueError(f"PromptCacheLimits.{name} must be >= 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A prefix that was found: its number of tokens and, by name, tensors [num_tokens / 16, ...]."""

    num_tokens: int
    tensors: dict[str, Tensor]


class PromptCache:
    """A folder of prefixes of one model; other models may use the same folder."""

    def __init__(self, folder: Path, key: PromptCacheKey, limits: PromptCacheLimits | None = None) -> None:
        """Nothing is read or made before it is needed."""
        self._folder = folder
        self._limits = limits or PromptCacheLimits()
        self._key = json.dumps({"format": _FORMAT, **asdict(key)}, sort_keys=True)
        self._warnings: list[str] = []
        self._can_write = True

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know and has not been told; each once."""
        taken, self._warnings = tuple(self._warnings), []
        return taken

    def has(self, token_ids: Sequence[int]) -> bool:
        """Whether exactly this prefix seems to be stored (its file is there)."""
        return self._path(_digests(self._key, token_ids)[-1]).exists()

    def load(self, token_ids: Sequence[int], longer_than: int = 0) -> StoredPrompt | None:
        """The longest stored prefix of `token_ids`, in whole blocks, that has more than `longer_than` tokens."""
        digests = _digests(self._key, token_ids)
        for num_blocks in range(len(digests), 0, -1):
            num_tokens = num_blocks * BLOCK_SIZE
            if num_tokens < MIN_PREFIX_TOKENS or num_tokens <= longer_than:
                break
            path = self._path(digests[num_blocks - 1])
            if path.exists() and (tensors := self._read(path, token_ids[:num_tokens])) is not None:
                return StoredPrompt(num_tokens, tensors)
        return None

    def store(self, token_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Keep a prefix. Nothing happens when it is stored already, too large, or the folder is not writable.

        Args:
            token_ids: at least 64, whole blocks.
            tensors: contiguous, on the CPU, [len(token_ids) / 16, ...] each.

        Raises:
            ValueError: when the number of tokens is not allowed.
        """
        if len(token_ids) < MIN_PREFIX_TOKENS or len(token_ids) % BLOCK_SIZE:
            raise ValueError(f"a prefix has whole blocks and >= {MIN_PREFIX_TOKENS} tokens, not {len(token_ids)}")
        path = self._path(_digests(self._key, token_ids)[-1])
        too_large = sum(tensor.nbytes for tensor in tensors.values()) > self._limits.max_bytes
        if not self._can_write or too_large or path.exists():
            return
        content = {**tensors, _TOKEN_IDS: torch.tensor(token_ids, dtype=torch.int64)}
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # not synced: what a power cut leaves half written has a wrong checksum
            save_file(content, partial, {"key": self._key, "sha256": _checksum(content)})
            os.replace(partial, path)
            self._trim()
        except (OSError, SafetensorError) as error:
            self._can_write = False
            self._warnings.append(f"prompts are not kept for the next run: {self._folder} cannot be written ({error})")
        finally:
            _remove(partial)

    def reject(self, token_ids: Sequence[int]) -> None:
        """Remove a stored prefix whose tensors turned out not to fit."""
        self._drop(self._path(_digests(self._key, token_ids)[-1]), "its tensors do not fit the model")

    def _path(self, digest: str) -> Path:
        return self._folder / (digest + _SUFFIX)

    def _read(self, path: Path, token_ids: Sequence[int]) -> dict[str, Tensor] | None:
        """A file's tensors; None, and the file is gone, when it is not what its name says."""
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata: dict[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except FileNotFoundError:  # another process made room
            return None
        except (OSError, SafetensorError) as error:
            self._drop(path, str(error))
            return None
        if metadata.get("sha256") != _checksum(tensors):
            self._drop(path, "its checksum is wrong")
            return None
        stored_ids = tensors.pop(_TOKEN_IDS, torch.empty(0)).tolist()
        if metadata.get("key") != self._key or stored_ids != list(token_ids):
            self._drop(path, "it belongs to another prompt or model")
            return None
        with suppress(OSError):  # removed meanwhile, or a folder that may only be read: what was read is good
            os.utime(path)  # used now: the last to be removed
        return tensors

    def _drop(self, path: Path, why: str) -> None:
        self._warnings.append(f"a stored prompt is not used and was removed, it will be computed anew: {path}: {why}")
        _remove(path)

    def _trim(self) -> None:
        """Remove what is least recently used until the limits hold, and what killed processes left."""
        found: list[tuple[float, int, Path]] = []
        for entry in os.scandir(self._folder):
            path = Path(entry.path)
            try:
                stat = entry.stat()
            except FileNotFoundError:  # another process made room
                continue
            if path.suffix == _SUFFIX:
                found.append((stat.st_mtime, stat.st_size, path))
            elif path.suffix == ".partial" and time.time() - stat.st_mtime > _STALE_PARTIAL_S:
                _remove(path)
        num_bytes = sum(size for _, size, _ in found)
        for num_removed, (_, size, path) in enumerate(sorted(found)):
            if num_bytes <= self._limits.max_bytes and len(found) - num_removed <= self._limits.max_entries:
                return
            _remove(path)
            num_bytes -= size


def _digests(key: str, token_ids: Sequence[int]) -> list[str]:
    """The names of the prefixes of one block, two blocks, ... of `token_ids`."""
    digest = hashlib.sha256(key.encode())
    names = []
    for start in range(0, len(token_ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
        digest.update(array("q", token_ids[start : start + BLOCK_SIZE]).tobytes())
        names.append(digest.hexdigest()[:40])
    return names


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Remove a file if it is there; one that cannot be removed here is left for its owner."""
    with suppress(OSError):
        path.unlink()
