"""What a bundle holds, as data: one file, `manifest.json`, ties recipe, packages and weights together.

Knows the file's form, and how to read it strictly; hashes nothing and fetches nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from mathlete.core.errors import InputError

MANIFEST_NAME = "manifest.json"
FORMAT = "mathlete-bundle/1"
HASH_UNKNOWN = "unknown until it is downloaded"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Wheel:
    """One package, pinned.

    Attributes:
        name: of the package.
        version: of it.
        filename: of the wheel.
        sha256: of the file.
        url: where it was found.
        num_bytes: its size, where the file is part of the bundle.
    """

    name: str
    version: str
    filename: str
    sha256: str
    url: str
    num_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a model.

    Attributes:
        name: relative to the model's folder.
        num_bytes: its size.
        sha256: of it.
    """

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that the notebook must find.

    Attributes:
        role: "NAME" of an engine, or "NAME/draft" for what guesses for it, or "harmony".
        model: as the recipe names it.
        path: where it was when the bundle was made: a file or a folder; None where it was not on that machine.
        repository: where it can be downloaded, "OWNER/NAME"; None where that is not known.
        revision: of the repository; None for the newest.
        files: empty where they are not known before a download.
    """

    role: str
    model: str
    path: str | None
    repository: str | None
    revision: str | None
    files: tuple[WeightFile, ...]

    @property
    def num_bytes(self) -> int | None:
        """Of all files; None where they are not known."""
        return sum(file.num_bytes for file in self.files) if self.files else None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle.

    Attributes:
        created: date and time, ISO 8601, UTC.
        mathlete: version.
        recipe: name.
        recipe_toml: its text.
        config: of the run, as `run_config.decode_config` reads it.
        num_problems: of the contest.
        python: version that the wheels are for, "3.12".
        platform: tag that they are for.
        lock: whether the versions are those of `requirements.lock`.
        wheels: empty for a bundle that is a notebook only.
        weights: of all engines.
        environment: variables that the notebook sets.
    """

    created: str
    mathlete: str
    recipe: str
    recipe_toml: str
    config: Mapping[str, Any]
    num_problems: int
    python: str
    platform: str
    lock: bool
    wheels: tuple[Wheel, ...]
    weights: tuple[Weights, ...]
    environment: Mapping[str, str]

    @property
    def num_known_bytes(self) -> int:
        """Of wheels and weights, as far as their sizes are known."""
        sizes = [*(wheel.num_bytes for wheel in self.wheels), *(weights.num_bytes for weights in self.weights)]
        return sum(size for size in sizes if size is not None)

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle's data set.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large to be a bundle's manifest")
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} holds no bundle: {MANIFEST_NAME} cannot be read ({error})") from error
    try:
        if told.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        wheels = tuple(Wheel(**wheel) for wheel in told.pop("wheels"))
        weights = tuple(
            Weights(**{**one, "files": tuple(WeightFile(**file) for file in one["files"])})
            for one in told.pop("weights")
        )
        manifest = Manifest(**told, wheels=wheels, weights=weights)
        _check(manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no manifest of a bundle: {error}") from error
    return manifest


def _check(manifest: Manifest) -> None:
    for item in fields(Manifest):
        value = getattr(manifest, item.name)
        if item.type == "str" and not isinstance(value, str):
            raise ValueError(f"{item.name} must be text")
    names = [wheel.filename for wheel in manifest.wheels]
    names += [file.name for weights in manifest.weights for file in weights.files]
    for name in names:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r:.80} is no name of a file in a folder")
    hashes = [wheel.sha256 for wheel in manifest.wheels]
    hashes += [file.sha256 for weights in manifest.weights for file in weights.files]
    for digest in hashes:
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r:.80} is no SHA-256")
    for weights in manifest.weights:
        if not isinstance(weights.role, str) or not isinstance(weights.model, str):
            raise ValueError("a model's role and name must be text")
        if weights.path is not None and not isinstance(weights.path, str):
            raise ValueError(f"{weights.path!r:.80} is no path of a model")
    sizes: list[object] = [wheel.num_bytes for wheel in manifest.wheels if wheel.num_bytes is not None]
    sizes += [file.num_bytes for weights in manifest.weights for file in weights.files]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"{size!r:.80} is no number of bytes")
