"""Reading models and keeping them: round trips, cut and damaged files, a full disk, two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_qwen import TinyModel, control_tokens, write_tiny_gguf

from mathlete.core.errors import ModelError, StorageError
from mathlete.ryanstream.checkpoint.convert import CheckpointFolder, ensure_checkpoint, open_source
from mathlete.ryanstream.checkpoint.mapped import map_checkpoint, write_checkpoint
from mathlete.ryanstream.checkpoint.source import fingerprint
from mathlete.ryanstream.model.weights import assemble_weights

TENSORS = {
    "float": torch.randn(3, 5),
    "half": torch.randn(7).bfloat16(),
    "codes": torch.arange(-10, 10, dtype=torch.int8).view(4, 5),
    "bytes": torch.arange(200, dtype=torch.uint8),
    "turned": torch.arange(6.0).view(2, 3).T,
    "scalar": torch.tensor(2.5),
}


def convert(model: Path, cache: Path, precision: str = "fp32") -> CheckpointFolder:
    return ensure_checkpoint(model, cache, precision, None, lambda what, done, total: None)  # type: ignore[arg-type]


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock"]


@pytest.fixture(scope="module")
def tiny_gguf(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_gguf(tiny, path)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small tmpfs is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run([umount, "-l", folder], check=True)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    told: list[str] = []
    write_checkpoint(tmp_path / "w.mlt", TENSORS.items(), lambda name, size: told.append(name))
    mapped = map_checkpoint(tmp_path / "w.mlt")
    assert mapped.keys() == TENSORS.keys() and told == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert mapped[name].dtype == tensor.dtype and torch.equal(mapped[name], tensor), name
        assert mapped[name].data_ptr() % 64 == 0 and mapped[name].is_contiguous()
    assert [path.name for path in tmp_path.iterdir()] == ["w.mlt"]


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.mlt", TENSORS.items())
    whole = (tmp_path / "w.mlt").read_bytes()
    for length in (0, 7, 8, 16, 23, 24, 40, 64, len(whole) // 2, len(whole) - 100, *range(len(whole) - 20, len(whole))):
        (tmp_path / "cut.mlt").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="not a whole checkpoint; delete it"):
            map_checkpoint(tmp_path / "cut.mlt")


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.mlt", TENSORS.items())
    whole = (tmp_path / "w.mlt").read_bytes()
    start = whole.index(b'{"float"')
    for damaged in (
        whole[:start] + b"!" + whole[start + 1 :],
        whole.replace(b'"float32"', b'"float99"'),
        whole[:64] + whole[start:].replace(b'"offset"', b'"offsex"'),
    ):
        assert damaged != whole
        (tmp_path / "bad.mlt").write_bytes(damaged)
        with pytest.raises(ModelError, match="not a whole checkpoint"):
            map_checkpoint(tmp_path / "bad.mlt")


def test_a_failing_source_leaves_no_checkpoint(tmp_path: Path) -> None:
    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.zeros(1000)
        raise ModelError("cut")

    with pytest.raises(ModelError, match="cut"):
        write_checkpoint(tmp_path / "w.mlt", tensors())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16", "w8a8"])
def test_both_file_formats_convert_to_the_same(
    tiny: TinyModel, tiny_gguf: Path, tmp_path: Path, precision: str
) -> None:
    """F32 GGUF and safetensors of one model: the same tensors, shape, tokenizer and end ids."""
    ours, theirs = convert(tiny.folder, tmp_path, precision), convert(tiny_gguf, tmp_path, precision)
    assert ours.path != theirs.path
    eps = theirs.config().rms_norm_eps
    assert eps == pytest.approx(1e-6)  # a float32 in the file
    assert replace(ours.config(), rms_norm_eps=eps) == theirs.config()
    first, second = map_checkpoint(ours.weights), map_checkpoint(theirs.weights)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert assemble_weights(ours.config(), first, precision).embedding.shape == (288, 64)
    for name in ("tokenizer.json", "control_tokens.json"):
        assert json.loads((ours.path / name).read_text()) == json.loads((theirs.path / name).read_text())


def test_a_second_start_reads_the_cache(tiny: TinyModel, tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        folder = ensure_checkpoint(tiny.folder, tmp_path, "bf16", None, lambda what, done, total: told.append(what))
        assert folder.weights.exists()
        num_told = len(told)
    assert num_told > 0 and len(told) == num_told


def test_other_content_or_precision_has_another_place(tiny: TinyModel, tmp_path: Path) -> None:
    copy = tmp_path / tiny.folder.name
    shutil.copytree(tiny.folder, copy)
    places = {convert(copy, tmp_path / "c", "bf16").path, convert(copy, tmp_path / "c", "fp32").path}
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    places.add(convert(copy, tmp_path / "c", "fp32").path)
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "model.norm.weight": weights["model.norm.weight"] + 1}, copy / "model.safetensors")
    places.add(convert(copy, tmp_path / "c", "fp32").path)
    assert len(places) == 4


def test_the_fingerprint_sees_names_sizes_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "a"
    seen = set()
    for content in (b"", b"x", b"y", b"x" * (9 << 20), b"x" * (9 << 20) + b"y", b"x" * (4 << 20) + b"y" * (5 << 20)):
        path.write_bytes(content)
        seen.add(fingerprint([path]))
    assert len(seen) == 6


def test_a_cut_gguf_is_refused_at_any_length(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    cuts = [*range(0, 64), *range(64, 6000, 97), *range(6000, len(whole), 9973), len(whole) - 1]
    for length in cuts:
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf .*fetch it again"):
            convert(cut, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_other_files_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("This is not a model. " * 100)
    for path, message in (
        (text, "not a whole GGUF file"),
        (tmp_path / "missing.gguf", "neither a GGUF file nor a folder"),
        (tmp_path, "neither a GGUF file nor a folder"),
    ):
        with pytest.raises(ModelError, match=message):
            convert(path, tmp_path / "cache")
    with pytest.raises(ModelError, match="neither"):
        open_source(tmp_path / "missing")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"qwen2__rope__scaling__type": "longrope"}, "'longrope' is not known"),
        ({"tokenizer__ggml__pre": "gpt-4o"}, "'gpt-4o' is not known"),
        ({"tokenizer__ggml__model": "llama"}, "kind 'llama'; from a GGUF file only byte-level BPE"),
        ({"general__architecture": "phi3"}, "a 'phi3' model; from a GGUF file this engine runs qwen2, qwen3, llama"),
    ],
)
def test_what_the_engine_would_run_wrongly_is_refused(
    tiny: TinyModel, tmp_path: Path, entry: dict[str, str], message: str
) -> None:
    path = tmp_path / "other.gguf"
    write_tiny_gguf(tiny, path, **entry)
    with pytest.raises(ModelError, match=message):
        convert(path, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "phi3"}, "a 'phi3' model; this engine runs qwen2, qwen3, llama, mistral"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "sliding-window"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"mlp_bias": True}, "biases in its feed-forward"),
        ({"quantization_config": {"quant_method": "fp8"}}, r"already quantised \(fp8\).*fetch one of these"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"rope_scaling": {"type": "yarn"}, "rope_parameters": None, "rope_theta": 1e6}, "lacks 'factor'"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6}}, "'dynamic' is not known"),
        ({"num_key_value_heads": 3}, "must be a multiple"),
        ({"vocab_size": "many"}, "does not describe a model"),
        ({"num_hidden_layers": 4}, "no tensor 'model.layers.3"),
    ],
)
def test_configurations_it_cannot_run_are_refused(
    tiny: TinyModel, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny.folder, copy)
    raw = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**raw, **change}))
    with pytest.raises(ModelError, match=message):
        convert(copy, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def _copy(tiny: TinyModel, folder: Path) -> Path:
    shutil.copytree(tiny.folder, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "model.layers.1.mlp.down_proj.weight",
            lambda t: t[:, :-1],
            r"down_proj.weight' in shape \[64, 95\].*\[64, 96\]",
        ),
        ("model.layers.2.self_attn.k_proj.bias", lambda t: t[:32], r"k_proj.bias' in shape \[32\].*\[64\]"),
        ("model.embed_tokens.weight", lambda t: t[:-8], r"embed_tokens.weight' in shape \[280, 64\].*\[288, 64\]"),
        ("model.norm.weight", lambda t: t[None], r"norm.weight' in shape \[1, 64\].*\[64\]"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(
    tiny: TinyModel, tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    copy = _copy(tiny, tmp_path / "model")
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, name: change(weights[name]).contiguous()}, copy / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        convert(copy, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_tensor_of_a_type_it_cannot_read_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    """8-bit floats without their scales would be read as garbage."""
    copy, name = _copy(tiny, tmp_path / "model"), "model.layers.1.mlp.down_proj.weight"
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, name: weights[name].to(torch.float8_e4m3fn)}, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"down_proj.weight' in F8_E4M3; this engine reads bf16"):
        convert(copy, tmp_path / "cache")


def test_a_gguf_tensor_of_another_shape_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    config = tiny.model.config
    config.intermediate_size += 1
    try:
        write_tiny_gguf(tiny, tmp_path / "other.gguf")
    finally:
        config.intermediate_size -= 1
    with pytest.raises(ModelError, match=r"other.gguf has tensor 'model.layers.0.mlp.gate_proj.weight' in shape"):
        convert(tmp_path / "other.gguf", tmp_path / "cache")


def test_shards_are_read_by_their_index(tiny_tied: TinyModel, tmp_path: Path) -> None:
    """A file that the index does not name is none of ours; one that it names and is not there is named."""
    copy = _copy(tiny_tied, tmp_path / "model")
    (copy / "consolidated.safetensors").write_bytes(b"something else")
    assert map_checkpoint(convert(copy, tmp_path / "cache").weights).keys()
    first, *others = sorted(copy.glob("model-*.safetensors"))
    assert others
    first.unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of {len(others) + 1} weight files.*{first.name}\): fetch them"):
        convert(copy, tmp_path / "cache")
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weight_map: fetch it again"):
        convert(copy, tmp_path / "cache")


def test_ends_of_text_come_from_both_configurations(tiny: TinyModel, tmp_path: Path) -> None:
    copy = _copy(tiny, tmp_path / "model")
    (copy / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    ids = open_source(copy).tokenizer().eos_token_ids
    named = control_tokens()
    assert ids == (7, 8, named["<|endoftext|>"], named["<|im_end|>"])


def test_a_split_gguf_is_read_as_one(tiny: TinyModel, tiny_gguf: Path, tmp_path: Path) -> None:
    """Parts as llama.cpp names them; here all tensors are in both, which is enough to see that both are opened."""
    for part in (1, 2):
        shutil.copy(tiny_gguf, tmp_path / f"m-0000{part}-of-00002.gguf")
    name = "model.norm.weight"
    assert torch.equal(open_source(tmp_path / "m-00001-of-00002.gguf").read(name), tiny.model.state_dict()[name])
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"m-00002-of-00002.gguf is not a whole GGUF file"):
        open_source(tmp_path / "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelError, match=r"one part of 2, and m-00002-of-00002.gguf is not beside it"):
        convert(tmp_path / "m-00001-of-00002.gguf", tmp_path / "cache")


def test_damaged_folders_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny.folder, copy)
    weights = (copy / "model.safetensors").read_bytes()
    for length in (0, 5, 100, len(weights) // 2, len(weights) - 1):
        (copy / "model.safetensors").write_bytes(weights[:length])
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            convert(copy, tmp_path / "cache")
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "config.json").write_text('{"model_type": ')
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        convert(copy, tmp_path / "cache")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        convert(copy, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_what_a_killed_conversion_left_is_cleared(tiny: TinyModel, tmp_path: Path) -> None:
    folder = convert(tiny.folder, tmp_path)
    folder.weights.rename(folder.path / "weights.mlt.4711.partial")
    (folder.path / "config.json").write_text("{")
    again = convert(tiny.folder, tmp_path)
    assert again.config().num_layers == 3
    assert sorted(leftovers(tmp_path)) == ["config.json", "control_tokens.json", "tokenizer.json", "weights.mlt"]


def test_a_full_disk(tiny: TinyModel, small_disk: Path) -> None:
    """One MiB: first full at the weights, then, with 4 KiB left, at the small files before them."""
    filler = small_disk / "filler"
    for num_bytes in (900 << 10, 1016 << 10):
        filler.write_bytes(bytes(num_bytes))
        with pytest.raises(StorageError, match=r"could not be written|cannot be written") as caught:
            convert(tiny.folder, small_disk / "cache")
        assert "No space left on device" in str(caught.value) and "MATHLETE_CACHE" in str(caught.value)
        assert leftovers(small_disk / "cache") == []
    filler.unlink()
    assert map_checkpoint(convert(tiny.folder, small_disk / "cache").weights)


CONVERT = """
import sys
from pathlib import Path
from mathlete.ryanstream.checkpoint.convert import ensure_checkpoint
told = []
folder = ensure_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), "w8a8", None, lambda *news: told.append(news))
print(folder.weights, folder.weights.stat().st_size, bool(told))
"""


@pytest.mark.slow
def test_two_processes_convert_once(tiny: TinyModel, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERT, str(tiny.folder), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0][:2] == said[1][:2]
    assert sorted(line[2] for line in said) == ["False", "True"]
    assert map_checkpoint(Path(said[0][0]))
