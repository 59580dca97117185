"""Fixtures of the engine's tests: the native kernels where they run, and a tiny model made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_qwen import TinyModel, make_tiny_model

from mathlete.model_store.store import default_cache_dir
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.native.library import KernelsUnavailable, load_kernels


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors are not worth a second thread, and waiting for one is slow where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kernels() -> NativeKernels:
    """The native kernels. Compiled into the cache that the program itself uses, so once a machine."""
    loaded = load_kernels(default_cache_dir() / "kernels")
    if isinstance(loaded, KernelsUnavailable):
        pytest.skip(f"needs the native kernels: {loaded.reason}")
    return loaded


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random model with a head of its own, as a safetensors folder."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=False)


@pytest.fixture(scope="session")
def tiny_wide(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random model whose widths are multiples of 64, as NF4 wants them."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-wide"), tie_word_embeddings=False, intermediate_size=128)


@pytest.fixture(scope="session")
def tiny_tied(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random model whose head is its embedding table, in several safetensors files."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-tied"), tie_word_embeddings=True, max_shard_size="60KB")


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for converted tiny models. Its kernels are those of the program's own cache, compiled once a machine."""
    cache, kernels = tmp_path_factory.mktemp("cache"), default_cache_dir() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (cache / "kernels").symlink_to(kernels)
    return cache


@pytest.fixture
def rng() -> torch.Generator:
    """One seeded source of noise."""
    return torch.Generator().manual_seed(20261125)
