"""The models that a run needs, file by file with sizes and hashes, as far as they are on this machine.

What is not here is named with its repository and left open: a hash that nobody has computed is not made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.core.errors import InputError, ModelError
from mathlete.kaggle.bundle_manifest import WeightFile, Weights
from mathlete.model_store.disk import sha256_of
from mathlete.model_store.registry import find_model
from mathlete.model_store.store import ModelStore
from mathlete.run_config import EngineSpec, RunConfig

HARMONY = "harmony"
HARMONY_FILE = WeightFile(
    "o200k_base.tiktoken", 3_613_922, "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
)
_SKIPPED = frozenset({".git", ".cache", "original", "metal"})  # beside a checkpoint, and nothing to an engine
_SUFFIXES = (".safetensors", ".json", ".model", ".txt", ".jinja", ".gguf", ".py", ".tiktoken", ".bin", ".pt")

OnBytes = Callable[[str, int, int], None]
"""Told how far hashing is: the file's name, bytes read, bytes in all."""


@dataclass(frozen=True, slots=True)
class NeededModel:
    """A model that a run loads.

    Attributes:
        role: see `Weights.role`.
        model: name or path.
        revision: of a repository; None for the newest.
    """

    role: str
    model: str
    revision: str | None = None


def engines_of(config: RunConfig) -> tuple[EngineSpec, ...]:
    """The run's engines, the embedded one named "main" where the run names none."""
    if config.engines:
        return config.engines
    settings = {} if config.draft_model is None else {"draft_model": config.draft_model}
    if config.draft_model is not None:
        settings["speculative_method"] = config.speculative_method
    return (EngineSpec("main", "ryanstream", config.model, settings=settings),)


def needed_models(engines: Sequence[EngineSpec]) -> tuple[NeededModel, ...]:
    """What engines load from files.

    Raises:
        InputError: one is a server that a notebook without internet cannot reach.
    """
    found: list[NeededModel] = []
    for engine in engines:
        if engine.type == "openai_server":
            raise InputError(
                f"the engine {engine.name!r} is a server, which a notebook without internet cannot reach; name an "
                "engine of type vllm or ryanstream"
            )
        found.append(NeededModel(engine.name, engine.model, engine.settings.get("revision")))
        draft = engine.settings.get("draft_model")
        speculation = engine.settings.get("speculative_config")
        if draft is None and isinstance(speculation, Mapping):
            draft = speculation.get("model")
        if draft is not None:
            found.append(NeededModel(f"{engine.name}/draft", str(draft)))
    if any("gpt-oss" in engine.model.lower() for engine in engines):
        found.append(NeededModel(HARMONY, HARMONY_FILE.name))
    return tuple(found)


def weights_of(needed: NeededModel, given: Path | None, store: ModelStore, on_bytes: OnBytes) -> Weights:
    """A model's files.

    Args:
        needed: the model.
        given: where a person says it is; None for where the run would look.
        store: the cache of known models.
        on_bytes: hears how far hashing is.

    Raises:
        InputError: a path holds no model.
        ModelError: a known model's file is damaged.
    """
    if needed.role == HARMONY:
        kept = store.cache_dir / "encodings" / HARMONY_FILE.name  # as `generators.harmony_vocabulary` keeps it
        return _harmony(kept if given is None and kept.is_file() else given, on_bytes)
    spec = find_model(needed.model, store.models)
    if given is None and spec is not None:
        path = store.path_of(spec)
        file = WeightFile(path.name, spec.num_bytes, spec.sha256)
        is_here = path.is_file()
        if is_here:
            _require(path, file, on_bytes)
        return Weights(needed.role, needed.model, str(path) if is_here else None, spec.hub_repo, None, (file,))
    path = given or Path(needed.model).expanduser()
    if given is None and not path.exists():
        if path.is_absolute() or needed.model.endswith(".gguf"):
            raise InputError(
                f"the model of {needed.role!r} is not at {needed.model}; say where with --weights {needed.role}=PATH"
            )
        return Weights(needed.role, needed.model, None, needed.model, needed.revision, ())
    if path.is_file() and path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path} is no model's file (none of {', '.join(_SUFFIXES)})")
    files = tuple(_hashed(path, on_bytes))
    if not files:
        raise InputError(f"{path} holds no model: give a .gguf file, or a folder with config.json and .safetensors")
    repository = None if Path(needed.model).is_absolute() or spec is not None else needed.model
    return Weights(needed.role, needed.model, str(path.absolute()), repository, needed.revision, files)


def _harmony(given: Path | None, on_bytes: OnBytes) -> Weights:
    path = None
    if given is not None:
        path = given / HARMONY_FILE.name if given.is_dir() else given
        if not path.is_file():
            raise InputError(f"there is no {HARMONY_FILE.name} at {given}")
        _require(path, HARMONY_FILE, on_bytes)
    return Weights(
        HARMONY, HARMONY_FILE.name, None if path is None else str(path.absolute()), None, None, (HARMONY_FILE,)
    )


def _require(path: Path, file: WeightFile, on_bytes: OnBytes) -> None:
    why = what_is_wrong(path, file, on_bytes)
    if why is not None:
        raise ModelError(f"{path} is damaged: {why}. Fetch it again (of a known model: mathlete models pull --force)")


def what_is_wrong(path: Path, file: WeightFile, on_bytes: OnBytes | None) -> str | None:
    """Why a file on disk is not the one meant, or None; without `on_bytes` only its size is looked at."""
    if not path.is_file():
        return "it is not there"
    size = path.stat().st_size
    if size != file.num_bytes:
        return f"it has {size:,} bytes, not {file.num_bytes:,}"
    if on_bytes is None:
        return None
    found = sha256_of(path, lambda done: on_bytes(file.name, done, size))
    return None if found == file.sha256 else f"its SHA-256 is {found}, not {file.sha256}"


def _hashed(path: Path, on_bytes: OnBytes) -> Iterator[WeightFile]:
    """The files of a model, hashed; `path` is one file or a folder."""
    if path.is_file():
        paths = [path]
    elif path.is_dir():
        paths = sorted(
            item
            for item in path.rglob("*")
            if item.is_file()
            and item.suffix.lower() in _SUFFIXES
            and not _SKIPPED.intersection(item.relative_to(path).parts)
        )
    else:
        raise InputError(f"there is no file or folder {path}")
    root = path.parent if path.is_file() else path
    for item in paths:
        size, name = item.stat().st_size, item.relative_to(root).as_posix()
        yield WeightFile(name, size, sha256_of(item, lambda done, n=name, s=size: on_bytes(n, done, s)))  # type: ignore[misc]


def located(weights: Weights, roots: Sequence[Path]) -> Path | None:
    """Where a model is among folders: a place where all its files are, by name and size; None where it is nowhere.

    A model whose files are not known is looked for as a folder with config.json, named like the model.
    """
    own = [] if weights.path is None else [Path(weights.path)]
    if not weights.files:
        name = weights.model.rpartition("/")[2].lower()
        folders = (item.parent for root in roots for item in _at_depth(root, "config.json"))
        return next((one for one in folders if name in str(one).lower()), None)
    first = max(weights.files, key=lambda file: file.num_bytes)
    homes = [path if path.is_dir() else path.parent for path in own]
    for root in roots:
        found = _at_depth(root, Path(first.name).name)
        homes += [item.parents[len(Path(first.name).parts) - 1] for item in found]
    for home in homes:
        if all(what_is_wrong(home / file.name, file, None) is None for file in weights.files):
            is_file = len(weights.files) == 1 and weights.files[0].name.endswith((".gguf", ".tiktoken"))
            return home / weights.files[0].name if is_file else home
    return None


def _at_depth(root: Path, name: str, max_depth: int = 6) -> Iterator[Path]:
    """Files of a name below a folder, not too deep: data sets may hold a million files."""
    for depth in range(max_depth + 1):
        yield from sorted(root.glob("/".join(["*"] * depth + [name])))


def settings_with(engine: EngineSpec, places: Mapping[str, Path]) -> Mapping[str, Any]:
    """An engine's settings with its draft model where it was found."""
    draft = places.get(f"{engine.name}/draft")
    if draft is None:
        return engine.settings
    if "draft_model" in engine.settings:
        return {**engine.settings, "draft_model": str(draft)}
    return {**engine.settings, "speculative_config": {**engine.settings["speculative_config"], "model": str(draft)}}
