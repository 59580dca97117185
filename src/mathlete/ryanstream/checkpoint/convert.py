"""From a model's files to the engine's own checkpoint in the cache, once for each model and precision."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.core.errors import ModelError, StorageError
from mathlete.ryanstream.checkpoint.gguf_source import GGUFSource, gguf_files
from mathlete.ryanstream.checkpoint.mapped import write_checkpoint
from mathlete.ryanstream.checkpoint.safetensors_source import SafetensorsSource, weight_files
from mathlete.ryanstream.checkpoint.shapes import check_tensors
from mathlete.ryanstream.checkpoint.source import WeightSource, fingerprint
from mathlete.ryanstream.model.config import ModelConfig
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.model.weights import Precision, convert_weights
from mathlete.ryanstream.parallel.sharding import Shard, ShardedSource

# Goes up whenever what is written changes, so that an old cache is not read as new.
_FORMAT = 3

Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A converted model: weights.mlt, config.json, tokenizer.json, control_tokens.json."""

    path: Path

    @property
    def weights(self) -> Path:
        """The mapped tensors."""
        return self.path / "weights.mlt"

    def config(self) -> ModelConfig:
        """The whole model's shape, of a shard as well."""
        return ModelConfig.from_json(json.loads((self.path / "config.json").read_text(encoding="utf-8")))


def open_source(path: Path) -> WeightSource:
    """A GGUF file or a folder with safetensors. Raises `ModelError` for anything else or incomplete."""
    if not path.is_dir() and not path.is_file():
        raise ModelError(f"{path} is neither a GGUF file nor a folder with safetensors")
    source: WeightSource = SafetensorsSource(path) if path.is_dir() else GGUFSource(path)
    check_tensors(source)
    return source


def ensure_checkpoint(
    model_path: Path, cache_dir: Path, precision: Precision, kernels: NativeKernels | None, progress: Progress,
    shard: Shard | None = None,
) -> CheckpointFolder:  # fmt: skip
    """The converted model of `model_path`, or one rank's shard of it, from the cache when it is there.

    Raises:
        ModelError: when the source is damaged or of an unknown kind, or cannot be cut so.
        StorageError: when the cache cannot be written.
    """
    if model_path.is_dir():
        files = [*weight_files(model_path), model_path / "config.json", model_path / "tokenizer.json"]
        files += [path for path in [model_path / "generation_config.json"] if path.is_file()]
    else:
        files = gguf_files(model_path)
    if not all(file.is_file() for file in files):
        raise ModelError(
            f"{model_path} is neither a GGUF file nor a folder with config.json, tokenizer.json and *.safetensors"
        )
    kind = precision if shard is None else f"{precision}-{shard}"
    key = hashlib.sha256(f"{_FORMAT}:{kind}:{fingerprint(files)}".encode()).hexdigest()[:16]
    folder = CheckpointFolder(cache_dir / "checkpoints" / f"{model_path.stem}-{kind}-{key}")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with _locked(folder.path / "lock"):
            if not folder.weights.exists():  # written last, so its presence means that all is there
                _clear(folder)  # what a killed process left
                source = open_source(model_path)
                try:
                    _convert(source, folder, precision, kernels, progress, shard)
                except BaseException:
                    _clear(folder)
                    raise
    except OSError as error:
        raise StorageError(
            f"the cache folder {folder.path} cannot be written: {error.strerror or error}. "
            "Make room or set MATHLETE_CACHE to another disk and start again."
        ) from error
    return folder


def _convert(
    source: WeightSource, folder: CheckpointFolder, precision: Precision, kernels: NativeKernels | None,
    progress: Progress, shard: Shard | None,
) -> None:  # fmt: skip
    part = source if shard is None else ShardedSource(source, shard)
    spec = source.tokenizer()
    (folder.path / "config.json").write_text(json.dumps(asdict(source.config), indent=1), encoding="utf-8")
    (folder.path / "tokenizer.json").write_text(spec.tokenizer_json, encoding="utf-8")
    control = {"tokens": spec.control_tokens, "eos_token_ids": spec.eos_token_ids, "spoken_ids": spec.spoken_ids}
    (folder.path / "control_tokens.json").write_text(json.dumps(control, indent=1), encoding="utf-8")
    num_parts = source.config.num_layers + 2  # the embedding and the head with the layers

    def advance(name: str, size: int) -> None:
        part = int(name.split(".")[1]) + 1 if name.startswith("layers.") else num_parts
        if name != "embedding":
            progress(f"converting the model to {precision}", part, num_parts)

    write_checkpoint(folder.weights, convert_weights(part.config, part.read, precision, kernels), advance)


def _clear(folder: CheckpointFolder) -> None:
    """Remove everything but the lock, which others may be waiting for."""
    for path in folder.path.iterdir():
        if path.name != "lock":
            path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two processes that start at once convert once; the second waits."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
