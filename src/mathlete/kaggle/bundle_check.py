"""Whether a bundle on disk is what its manifest says, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.kaggle.bundle_manifest import MANIFEST_NAME, Manifest, WeightFile, Wheel, read_manifest
from mathlete.kaggle.bundle_weights import HARMONY, OnBytes, what_is_wrong
from mathlete.kaggle.bundle_wheels import WHEELS_NAME, requirements_text
from mathlete.model_store.disk import sha256_of


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """What was found.

    Attributes:
        manifest: of the bundle.
        num_compared: files whose hashes were computed and are right.
        damaged: what is wrong, one line a file.
        absent: what is not here and so could not be compared: wheels to be fetched, weights elsewhere.
    """

    manifest: Manifest
    num_compared: int
    damaged: tuple[str, ...]
    absent: tuple[str, ...]


def check_bundle(folder: Path, on_bytes: OnBytes) -> BundleCheck:
    """Compare a bundle with its manifest.

    Args:
        folder: what `write_bundle` wrote, or its data set.
        on_bytes: hears how far hashing is.

    Raises:
        InputError: it is no bundle.
    """
    dataset = folder / "dataset" if (folder / "dataset" / MANIFEST_NAME).is_file() else folder
    manifest = read_manifest(dataset)
    damaged: list[str] = []
    absent: list[str] = []
    num_compared = 0
    texts = {"recipe.toml": manifest.recipe_toml}
    if manifest.wheels:
        texts[WHEELS_NAME] = requirements_text(manifest.wheels)
    for name, text in texts.items():
        if _text(dataset / name) == text:
            num_compared += 1
        else:
            damaged.append(f"{name}: it is not what the manifest says")
    for wheel in manifest.wheels:
        here = dataset / "wheels" / wheel.filename
        if not here.is_file():
            absent.append(f"wheels/{wheel.filename}: not downloaded")
        elif (why := _wrong_wheel(here, wheel, on_bytes)) is not None:
            damaged.append(f"wheels/{wheel.filename}: {why}")
        else:
            num_compared += 1
    for role, file, path in _weight_files(manifest, dataset):
        if path is None or not path.is_file():
            absent.append(f"{role}: {file.name} is not on this machine")
        elif (why := what_is_wrong(path, file, on_bytes)) is not None:
            damaged.append(f"{role}: {path}: {why}")
        else:
            num_compared += 1
    absent += [f"{one.role}: no hashes are known of {one.model}" for one in manifest.weights if not one.files]
    return BundleCheck(manifest, num_compared, tuple(damaged), tuple(absent))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _wrong_wheel(path: Path, wheel: Wheel, on_bytes: OnBytes) -> str | None:
    size = path.stat().st_size
    found = sha256_of(path, lambda done: on_bytes(wheel.filename, done, size))
    return None if found == wheel.sha256 else f"its SHA-256 is {found}, not {wheel.sha256}"


def _weight_files(manifest: Manifest, dataset: Path) -> list[tuple[str, WeightFile, Path | None]]:
    found: list[tuple[str, WeightFile, Path | None]] = []
    for weights in manifest.weights:
        root = None if weights.path is None else Path(weights.path)
        if weights.role == HARMONY and (dataset / weights.model).is_file():
            root = dataset
        for file in weights.files:
            place = None if root is None else (root / file.name if root.is_dir() else root.parent / file.name)
            found.append((weights.role, file, place))
    return found


def require_whole(found: BundleCheck) -> None:
    """Raise `InputError` when something is damaged."""
    if found.damaged:
        told = "\n  ".join(found.damaged)
        raise InputError(f"{len(found.damaged)} files of the bundle are damaged:\n  {told}\nMake the bundle again.")
