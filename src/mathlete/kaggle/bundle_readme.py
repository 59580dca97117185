"""The README of a bundle: what is in it, how large it is, and the commands that upload it. Pure text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mathlete.kaggle.bundle_manifest import HASH_UNKNOWN, Manifest, Weights
from mathlete.kaggle.bundle_weights import HARMONY
from mathlete.model_store.disk import describe_bytes

COMPETITION = "ai-mathematical-olympiad-progress-prize-3"
_MAX_SLUG_CHARS = 50  # of a data set's name on Kaggle
_NOTEBOOK = "-notebook"


def slug_of(manifest: Manifest) -> str:
    """What the bundle's data set is called, in Kaggle's spelling; there is room for "-notebook" behind it."""
    return _cut(_slug(f"mathlete-{manifest.recipe}"), len(_NOTEBOOK))


def notebook_slug(manifest: Manifest) -> str:
    """What the notebook is called."""
    return f"{slug_of(manifest)}{_NOTEBOOK}"


def weight_slugs(manifest: Manifest) -> Mapping[str, str]:
    """What the data set of each model is called, by role, no two alike.

    The Harmony vocabulary has none: it travels with the bundle. A long recipe's name is cut sooner than its engines',
    and an engine whose name leaves nothing is told by its number.
    """
    found: dict[str, str] = {}
    taken = {slug_of(manifest)}
    for number, weights in enumerate(manifest.weights, 1):
        if weights.role == HARMONY:
            continue
        of_engine = _slug(weights.role)[: _MAX_SLUG_CHARS // 2] or f"model-{number}"
        name = f"{_cut(slug_of(manifest), len(of_engine) + 1)}-{of_engine}"
        if name in taken:
            of_engine = f"{of_engine[: _MAX_SLUG_CHARS // 2 - 4]}-{number}"
            name = f"{_cut(slug_of(manifest), len(of_engine) + 1)}-{of_engine}"
        taken.add(name)
        found[weights.role] = name
    return found


def readme(manifest: Manifest) -> str:
    """The file's text."""
    slug = slug_of(manifest)
    return "\n".join(
        [
            f"# {slug}",
            "",
            f"Written by `mathlete contest bundle` of Mathlete {manifest.mathlete} on {manifest.created}, for Python "
            f"{manifest.python} on {manifest.platform}. `mathlete contest bundle --check .` compares it with its "
            "hashes.",
            "",
            *_packages(manifest),
            "",
            "## Weights",
            "",
            *(line for weights in manifest.weights for line in _about(weights)),
            "",
            *_sizes(manifest),
            "",
            *_steps(manifest, slug),
            "",
        ]
    )


def _packages(manifest: Manifest) -> list[str]:
    if not manifest.wheels:
        return ["## Packages", "", "None: this is a notebook only. Mathlete must be installed where it runs."]
    num_here = sum(wheel.num_bytes is not None for wheel in manifest.wheels)
    versions = "of `requirements.lock`" if manifest.lock else "as pip chose them on the date above"
    lines = [
        "## Packages",
        "",
        f"{len(manifest.wheels)} wheels, versions {versions}; `dataset/wheels.txt` pins each by its SHA-256. "
        f"{num_here} of them are in `dataset/wheels`.",
    ]
    if num_here < len(manifest.wheels):
        python = f"--python-version {manifest.python} --platform {manifest.platform}"
        lines += [
            "",
            "Fetch the others before the upload:",
            "",
            f"    pip download --no-deps --only-binary=:all: {python} --require-hashes \\",
            "        --find-links dataset/wheels --dest dataset/wheels --requirement dataset/wheels.txt",
        ]
    return lines


def _about(weights: Weights) -> list[str]:
    where = weights.path or "not on the machine that made this bundle"
    lines = [f"- `{weights.role}`: `{weights.model}`, {where}"]
    if weights.repository is not None:
        revision = "" if weights.revision is None else f" at revision {weights.revision}"
        lines.append(f"  from the repository {weights.repository}{revision}")
    if not weights.files:
        lines.append(f"  hashes: {HASH_UNKNOWN}; then make the bundle again with --weights {weights.role}=FOLDER")
    lines += [f"  - `{file.name}`, {describe_bytes(file.num_bytes)}, sha256 `{file.sha256}`" for file in weights.files]
    return lines


def _sizes(manifest: Manifest) -> list[str]:
    wheels = sum(wheel.num_bytes or 0 for wheel in manifest.wheels)
    weights = sum(one.num_bytes or 0 for one in manifest.weights)
    is_open = any(wheel.num_bytes is None for wheel in manifest.wheels) or any(
        not one.files for one in manifest.weights
    )
    known = ", as far as they are known" if is_open else ""
    return [
        "## Size",
        "",
        f"Wheels {wheels / 1e9:.2f} GB, weights {weights / 1e9:.2f} GB{known}. Kaggle limits data sets and "
        "`/kaggle/working`, and changes the limits: look them up before a large upload. Weights are read where they "
        "are mounted, and caches go to `/kaggle/temp`.",
    ]


def _steps(manifest: Manifest, slug: str) -> list[str]:
    version = f'kaggle datasets version --path dataset --dir-mode zip --message "Mathlete {manifest.mathlete}"'
    lines = [
        "## Upload",
        "",
        "With Kaggle's command line (`pip install kaggle`, and its token in place). Replace YOUR_NAME in "
        "`dataset/dataset-metadata.json` and `notebook/kernel-metadata.json`.",
        "",
        f"1. The bundle, {slug}: `kaggle datasets create --path dataset --dir-mode zip`",
        f"   (later: `{version}`).",
    ]
    for role, name in weight_slugs(manifest).items():
        lines += [
            f"2. The weights of `{role}`: put its files into a folder with a `dataset-metadata.json` like the other, "
            f"id `YOUR_NAME/{name}`, and `kaggle datasets create --path FOLDER`. A model that is on Kaggle "
            "already can be attached instead: then edit `notebook/kernel-metadata.json`.",
        ]
    return [
        *lines,
        "3. The notebook: `kaggle kernels push --path notebook`. In its settings choose the accelerator, and check "
        "that internet is off.",
        "4. Its saved version plays the local problems and writes `submission.parquet`. Submit it to "
        f"`{COMPETITION}`; the hidden problems are asked in the rerun.",
        "",
        "On a GPU and on Kaggle itself this has not been run.",
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cut(slug: str, room: int) -> str:
    """So much of it that `room` characters can follow."""
    return slug[: _MAX_SLUG_CHARS - room].strip("-")
