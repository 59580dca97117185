"""A bundle: what a notebook without internet needs, in a folder that can be uploaded.

Layout:
    OUT/dataset/    manifest.json, wheels.txt, wheels/, recipe.toml, problems.csv, dataset-metadata.json: one data set
    OUT/notebook/   mathlete.ipynb, kernel-metadata.json
    OUT/README.md   the steps of uploading

Weights are not copied: the manifest says which files they are, and README.md where to upload them from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from mathlete import __version__
from mathlete.core.errors import InputError, StorageError
from mathlete.kaggle.bundle_manifest import MANIFEST_NAME, Manifest
from mathlete.kaggle.bundle_readme import COMPETITION, notebook_slug, readme, slug_of, weight_slugs
from mathlete.kaggle.bundle_weights import HARMONY, OnBytes, engines_of, needed_models, weights_of
from mathlete.kaggle.bundle_wheels import (
    WHEELS_NAME,
    PackageSources,
    RunPip,
    Target,
    build_own_wheel,
    download,
    is_locked,
    requirements_text,
    resolve,
    run_pip,
)
from mathlete.kaggle.notebook import NOTEBOOK_NAME, write_notebook
from mathlete.model_store.store import ModelStore
from mathlete.run_config import RunConfig

_ENVIRONMENT: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MATHLETE_CACHE": "/kaggle/temp/mathlete",
}
_OF_VLLM: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CACHE_ROOT": "/kaggle/temp/vllm",
    "TRITON_CACHE_DIR": "/kaggle/temp/triton",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What a bundle is to hold.

    Attributes:
        name: of the recipe.
        recipe_toml: its text.
        config: of the run.
        num_problems: of the contest.
        target: the notebook's machine.
        sources: where pip looks.
        own_wheel: Mathlete's own; None to build it.
        weights: where models are, by role, where a person says so.
        notebook_only: no packages.
        download: the wheels themselves, and not only their list.
        problems: that stand in where the competition's are not attached; None for none.
    """

    name: str
    recipe_toml: str
    config: RunConfig
    num_problems: int = 50
    target: Target = Target()  # noqa: RUF009
    sources: PackageSources = PackageSources()  # noqa: RUF009
    own_wheel: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    notebook_only: bool = False
    download: bool = True
    problems: Path | None = None


def write_bundle(
    request: BundleRequest, out: Path, store: ModelStore, on_bytes: OnBytes, pip: RunPip = run_pip
) -> Manifest:
    """Write a bundle. What was begun goes again when it cannot be finished.

    Args:
        request: what it is to hold.
        out: a folder that is not there yet, or is empty.
        store: the cache of known models.
        on_bytes: hears how far hashing of weights is.
        pip: runs pip.

    Raises:
        InputError: `out` is in the way, a model is not where it should be, or packages cannot be found.
        ModelError: a model's file is damaged.
        StorageError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: choose another folder with --out, or remove it")
    engines = engines_of(request.config)
    needed = needed_models(engines)
    if unknown := sorted(set(request.weights) - {model.role for model in needed}):
        roles = ", ".join(model.role for model in needed)
        raise InputError(f"--weights {unknown[0]}=...: the recipe has no such model; there are {roles}")
    weights = tuple(weights_of(model, request.weights.get(model.role), store, on_bytes) for model in needed)
    types: set[str] = {engine.type for engine in engines}
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mathlete=__version__,
        recipe=request.name,
        recipe_toml=request.recipe_toml,
        config=asdict(request.config),
        num_problems=request.num_problems,
        python=request.target.python,
        platform=request.target.platform,
        lock=is_locked(types),
        wheels=(),
        weights=weights,
        environment={**_ENVIRONMENT, **(_OF_VLLM if "vllm" in types else {})},
    )
    try:
        dataset = out / "dataset"
        dataset.mkdir(parents=True)
        if not request.notebook_only:
            manifest = _add_wheels(manifest, request, dataset, types, pip)
        _write_files(manifest, request, out)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise StorageError(f"the bundle cannot be written to {out}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return manifest


def _add_wheels(manifest: Manifest, request: BundleRequest, dataset: Path, types: set[str], pip: RunPip) -> Manifest:
    folder = dataset / "wheels"
    folder.mkdir()
    if request.own_wheel is None:
        own_wheel = build_own_wheel(folder, pip)
    else:
        own_wheel = Path(shutil.copy(request.own_wheel, folder))
    wheels = resolve(own_wheel, types, request.target, request.sources, pip)
    requirements = dataset / WHEELS_NAME
    requirements.write_text(requirements_text(wheels), encoding="utf-8")
    if request.download:
        download(folder, requirements, request.target, request.sources, pip)
    return replace(
        manifest,
        wheels=tuple(
            replace(wheel, num_bytes=path.stat().st_size if (path := folder / wheel.filename).is_file() else None)
            for wheel in wheels
        ),
    )


def _write_files(manifest: Manifest, request: BundleRequest, out: Path) -> None:
    dataset, notebook = out / "dataset", out / "notebook"
    notebook.mkdir()
    (dataset / MANIFEST_NAME).write_text(manifest.as_json(), encoding="utf-8")
    (dataset / "recipe.toml").write_text(manifest.recipe_toml, encoding="utf-8")
    if request.problems is not None:
        shutil.copy(request.problems, dataset / "problems.csv")
    for weights in manifest.weights:
        if weights.role == HARMONY and weights.path is not None:
            shutil.copy(weights.path, dataset)  # small; a notebook finds it there
    slug = slug_of(manifest)
    (dataset / "dataset-metadata.json").write_text(
        json.dumps({"title": slug, "id": f"YOUR_NAME/{slug}", "licenses": [{"name": "other"}]}, indent=1)
    )
    write_notebook(manifest, notebook / NOTEBOOK_NAME)
    (notebook / "kernel-metadata.json").write_text(json.dumps(_kernel_metadata(slug, manifest), indent=1))
    (out / "README.md").write_text(readme(manifest), encoding="utf-8")


def _kernel_metadata(slug: str, manifest: Manifest) -> dict[str, object]:
    """For `kaggle kernels push`: https://github.com/Kaggle/kaggle-cli, kernels_metadata.md."""
    return {
        "id": f"YOUR_NAME/{notebook_slug(manifest)}",
        "title": notebook_slug(manifest),
        "code_file": NOTEBOOK_NAME,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": any(engine["type"] == "vllm" for engine in manifest.config["engines"]),
        "enable_internet": False,
        "dataset_sources": [f"YOUR_NAME/{slug}", *(f"YOUR_NAME/{name}" for name in weight_slugs(manifest).values())],
        "competition_sources": [COMPETITION],
    }
