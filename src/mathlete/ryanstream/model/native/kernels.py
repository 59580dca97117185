"""Builds, loads and calls the native kernels (the C++ files beside it).

Knows compilers, shared libraries and pointers; knows nothing about layers or requests. Where the
kernels cannot be had (no compiler, another processor) `load_kernels` says why and the torch twins run.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from mathlete.ryanstream.machine import available_cores

PANEL = 32
BLOCK_SIZE = 16
MAX_GROUP = 8

_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-pthread")
_SOURCES = ("activations.cpp", "attention.cpp", "int8.cpp", "sampling.cpp", "common.h", "worker_pool.h")
_NEEDED_CPU_FLAGS = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"})


@dataclass(frozen=True, slots=True)
class KernelsUnavailable:
    """Why the native kernels do not run here."""

    reason: str


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Activations in int8, one scale a row.

    Attributes:
        codes: int8 [M, K].
        scales: float32 [M].
        sums: int32 [M], the sum of each row's codes.
    """

    codes: Tensor
    scales: Tensor
    sums: Tensor


def _pointer(tensor: Tensor, dtype: torch.dtype) -> ctypes.c_void_p:
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise TypeError(f"kernel wants a contiguous {dtype} CPU tensor, not {tensor.dtype} {tuple(tensor.shape)}")
    return ctypes.c_void_p(tensor.data_ptr())


class NativeKernels:
    """The C functions of the kernels with tensors in and out. Not to be built directly: `load_kernels`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Wrap a loaded library."""
        self._lib = library
        for name in ("quantize", "rmsnorm_quantize", "swiglu_quantize", "gemm_int8", "pack_int8"):
            getattr(library, f"mlt_{name}").restype = None
        for name in ("rope_store", "paged_attention", "sample", "set_threads"):
            getattr(library, f"mlt_{name}").restype = None
        self.set_num_threads(available_cores())

    def set_num_threads(self, num_threads: int) -> None:
        """Compute with `num_threads` threads from now on, the caller's included."""
        self._lib.mlt_set_threads(num_threads)

    def pack_int8(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise and pack `weight` float32 [N, K]; returns (packed uint8 [panels, K * 32], scales float32 [N])."""
        n, k = weight.shape
        packed = torch.empty((-(-n // PANEL), k * PANEL), dtype=torch.uint8)
        scales = torch.empty(n)
        self._lib.mlt_pack_int8(_pointer(weight, torch.float32), n, k, _pointer(packed, torch.uint8),
                                _pointer(scales, torch.float32))  # fmt: skip
        return packed, scales

    def quantize(self, x: Tensor) -> QuantizedRows:
        """Quantise x float32 [M, K]."""
        out = _empty_rows(*x.shape)
        self._lib.mlt_quantize(_pointer(x, torch.float32), *x.shape, *_row_pointers(out))
        return out

    def rmsnorm_quantize(self, x: Tensor, weight: Tensor, eps: float) -> QuantizedRows:
        """RMSNorm of x float32 [M, K] with weight float32 [K], quantised."""
        out = _empty_rows(*x.shape)
        self._lib.mlt_rmsnorm_quantize(_pointer(x, torch.float32), _pointer(weight, torch.float32),
                                       ctypes.c_float(eps), *x.shape, *_row_pointers(out))  # fmt: skip
        return out

    def swiglu_quantize(self, gate_up: Tensor) -> QuantizedRows:
        """silu(gate) * up of gate_up float32 [M, 2 I], quantised to [M, I]."""
        rows, width = gate_up.shape
        out = _empty_rows(rows, width // 2)
        self._lib.mlt_swiglu_quantize(_pointer(gate_up, torch.float32), rows, width // 2, *_row_pointers(out))
        return out

    def gemm_int8(self, x: QuantizedRows, packed: Tensor, scales: Tensor, bias: Tensor | None,
                  add_to: Tensor | None = None) -> Tensor:  # fmt: skip
        """Product of x [M, K] with packed weights [N, K], float32 [M, N]; added in place to `add_to` when given."""
        (rows, k), n = x.codes.shape, scales.shape[0]
        out = torch.empty((rows, n)) if add_to is None else add_to
        self._lib.mlt_gemm_int8(
            _pointer(x.codes, torch.int8), _pointer(x.scales, torch.float32), _pointer(x.sums, torch.int32),
            rows, k, _pointer(packed, torch.uint8), _pointer(scales, torch.float32),
            None if bias is None else _pointer(bias, torch.float32), n, _pointer(out, torch.float32),
            int(add_to is not None),
        )  # fmt: skip
        return out

    def rope_store(self, qkv: Tensor, num_heads: int, num_kv_heads: int, positions: Tensor, slots: Tensor,
                   cosines: Tensor, sines: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:  # fmt: skip
        """Rotate queries and keys of qkv float32 [M, (H + 2 KV) D] in place; store keys and values.

        positions int32 [M]; slots int64 [M]; cosines, sines float32 [positions, D / 2];
        k_cache bf16 [blocks, KV, D, 16]; v_cache bf16 [blocks, KV, 16, D].
        """
        head_dim = v_cache.shape[-1]
        self._lib.mlt_rope_store(
            _pointer(qkv, torch.float32), qkv.shape[0], num_heads, num_kv_heads, head_dim,
            _pointer(positions, torch.int32), _pointer(slots, torch.int64), _pointer(cosines, torch.float32),
            _pointer(sines, torch.float32), _pointer(k_cache, torch.bfloat16), _pointer(v_cache, torch.bfloat16),
        )  # fmt: skip

    def paged_attention(self, qkv: Tensor, num_heads: int, num_kv_heads: int, k_cache: Tensor, v_cache: Tensor,
                        tables: Tensor, row_seq: Tensor, lengths: Tensor) -> Tensor:  # fmt: skip
        """Attention of each row over its sequence's cached tokens, float32 [M, H D].

        tables int32 [S, max_blocks]; row_seq, lengths int32 [M]. Softmax scale is 1 / sqrt(D).
        """
        head_dim = v_cache.shape[-1]
        out = torch.empty((qkv.shape[0], num_heads * head_dim))
        self._lib.mlt_paged_attention(
            _pointer(qkv, torch.float32), qkv.shape[0], num_heads, num_kv_heads, head_dim,
            _pointer(k_cache, torch.bfloat16), _pointer(v_cache, torch.bfloat16), _pointer(tables, torch.int32),
            tables.shape[1], _pointer(row_seq, torch.int32), _pointer(lengths, torch.int32),
            ctypes.c_float(head_dim**-0.5), _pointer(out, torch.float32),
        )  # fmt: skip
        return out

    def sample(self, logits: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor, min_p: Tensor,
               uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Draw one token a row of logits float32 [M, V]; see `sampling.sample_torch` for the definition."""
        rows, vocab = logits.shape
        token = torch.empty(rows, dtype=torch.int32)
        logprob, entropy = torch.empty(rows), torch.empty(rows)
        self._lib.mlt_sample(
            _pointer(logits, torch.float32), rows, vocab, _pointer(temperature, torch.float32),
            _pointer(top_p, torch.float32), _pointer(top_k, torch.int32), _pointer(min_p, torch.float32),
            _pointer(uniform, torch.float64), _pointer(token, torch.int32), _pointer(logprob, torch.float32),
            _pointer(entropy, torch.float32),
        )  # fmt: skip
        return token, logprob, entropy


def _empty_rows(rows: int, width: int) -> QuantizedRows:
    return QuantizedRows(
        torch.empty((rows, width), dtype=torch.int8), torch.empty(rows), torch.empty(rows, dtype=torch.int32)
    )


def _row_pointers(rows: QuantizedRows) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]:
    return (
        _pointer(rows.codes, torch.int8),
        _pointer(rows.scales, torch.float32),
        _pointer(rows.sums, torch.int32),
    )


def load_kernels(cache_dir: Path) -> NativeKernels | KernelsUnavailable:
    """Load the kernels, compiling them into `cache_dir` the first time (a few seconds).

    `MATHLETE_NATIVE=0` turns them off. The file name carries a hash of source, flags, processor and
    platform, so another machine on the same home builds its own.
    """
    if os.environ.get("MATHLETE_NATIVE") == "0":
        return KernelsUnavailable("turned off by MATHLETE_NATIVE=0")
    cpu_flags = _cpu_flags()
    missing = _NEEDED_CPU_FLAGS - cpu_flags
    if missing:
        return KernelsUnavailable(f"this processor lacks {', '.join(sorted(missing))}")
    sources = {name: resources.files(__package__).joinpath(name).read_bytes() for name in _SOURCES}
    machine = " ".join((*_FLAGS, *sorted(cpu_flags), platform.platform())).encode()
    key = hashlib.sha256(b"".join(sources.values()) + machine)
    library = cache_dir / f"kernels-{key.hexdigest()[:16]}.so"
    if not library.exists():
        failure = _compile(sources, library)
        if failure:
            return KernelsUnavailable(failure)
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        return KernelsUnavailable(f"{library} cannot be loaded: {error}")
    return NativeKernels(loaded)


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())


def _compile(sources: Mapping[str, bytes], library: Path) -> str | None:
    """Build the library atomically; the reason when that fails."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler (g++) was found"
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            path = Path(folder)
            for name, content in sources.items():
                (path / name).write_bytes(content)
            units = [str(path / name) for name in sources if name.endswith(".cpp")]
            command = [compiler, *_FLAGS, "-shared", *units, "-o", str(path / "kernels.so")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                return f"{compiler} failed: {done.stderr.strip()[-500:]}"
            os.replace(path / "kernels.so", library)
    except (OSError, subprocess.SubprocessError) as error:
        return f"building the kernels failed: {error}"
    return None
