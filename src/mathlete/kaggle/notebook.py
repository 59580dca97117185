"""The notebook of a bundle: short cells, each explained, that run on Kaggle without internet and anywhere else.

Builds cells as data; runs none of them. What they call is `notebook_run`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from mathlete.kaggle.bundle_manifest import Manifest

NOTEBOOK_NAME = "mathlete.ipynb"
_validate: Callable[[Any], None] = nbformat.validate

_FIND = """
import glob, json, os, sys
from pathlib import Path

INPUT = Path(os.environ.get("MATHLETE_INPUT", "/kaggle/input"))
places = [os.environ.get("MATHLETE_BUNDLE", ""), *glob.glob(f"{INPUT}/*"), *glob.glob(f"{INPUT}/*/*"),
          *glob.glob(f"{INPUT}/*/*/*"), "../dataset"]
BUNDLE = next(Path(place) for place in places if place and (Path(place) / "manifest.json").is_file()
              and "mathlete-bundle" in (Path(place) / "manifest.json").read_text()[:200])
VERSION = json.loads((BUNDLE / "manifest.json").read_text())["mathlete"]
print(f"bundle: {BUNDLE}, Mathlete {VERSION}, Python {sys.version.split()[0]}")
"""

_INSTALL = """
import importlib.metadata, subprocess

try:
    installed = importlib.metadata.version("mathlete")
except importlib.metadata.PackageNotFoundError:
    installed = None
if installed == VERSION:
    print(f"Mathlete {installed} is installed already")
else:
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(BUNDLE / "wheels"),
                    "--require-hashes", "--requirement", str(BUNDLE / "wheels.txt")], check=True)
"""

_ENVIRONMENT = """
ENVIRONMENT = {ENVIRONMENT}
ON_KAGGLE = os.path.isdir("/kaggle")
for name, value in ENVIRONMENT.items():
    if ON_KAGGLE or not value.startswith("/kaggle"):
        os.environ.setdefault(name, value)
if os.path.exists("/usr/local/cuda/bin/ptxas"):
    os.environ.setdefault("TRITON_PTXAS_PATH", "/usr/local/cuda/bin/ptxas")
"""

_WEIGHTS = """
from mathlete.kaggle.bundle_manifest import read_manifest
from mathlete.kaggle.notebook_run import check_weights, find_weights
from mathlete.kaggle.server import is_rerun

manifest = read_manifest(BUNDLE)
WEIGHTS = find_weights(manifest, [INPUT, BUNDLE])
check_weights(manifest, WEIGHTS, full=not is_rerun())
if "harmony" in WEIGHTS:
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(WEIGHTS["harmony"].parent)
for role, place in WEIGHTS.items():
    print(f"{role}: {place}")
"""

_PROBLEMS = """
from mathlete.kaggle.notebook_run import find_organiser, local_problems

NUM_LOCAL = int(os.environ.get("MATHLETE_LOCAL_PROBLEMS", "10"))  # when the notebook is saved
LOCAL_MINUTES = float(os.environ.get("MATHLETE_LOCAL_MINUTES", "60"))
print("organiser's package:", find_organiser(INPUT) or "not attached; Mathlete's own gateway asks")
PROBLEMS = local_problems(INPUT, BUNDLE / "problems.csv", NUM_LOCAL)
print("the hidden problems" if is_rerun() else f"{NUM_LOCAL} problems at most, in {LOCAL_MINUTES:g} minutes")
"""

_PLAY = """
from mathlete.kaggle.notebook_run import contest_of, play

local = {} if is_rerun() else {"num_problems": NUM_LOCAL, "budget_s": 60 * LOCAL_MINUTES}
RUN = play(contest_of(manifest, WEIGHTS, **local), PROBLEMS)
"""

_SHOW = """
from mathlete.kaggle.notebook_run import show_course

show_course(RUN, PROBLEMS)
"""


# Heading, explanation, code.
_PARTS: Sequence[tuple[str, str, str]] = (
    (
        "Where the bundle is",
        """The data set that `mathlete contest bundle` wrote is attached as an input; it is known by its
        `manifest.json`. Elsewhere, `MATHLETE_BUNDLE` names its folder, `MATHLETE_INPUT` that of all inputs.""",
        _FIND,
    ),
    (
        "Packages, without internet",
        """Every wheel is in the bundle, and pip takes none whose SHA-256 is not the one in `wheels.txt`. Nothing is
        done where this version is installed already.""",
        _INSTALL,
    ),
    (
        "The environment",
        """Set before anything of CUDA is loaded. Caches go to a folder that is not kept as output, and nothing tries to
        reach a hub.""",
        _ENVIRONMENT,
    ),
    (
        "Weights",
        """Found among the inputs by name and size. When the notebook is saved, each file's SHA-256 is compared with the
        manifest, with progress; in the rerun sizes are enough: the same versions of the same inputs are mounted.""",
        _WEIGHTS,
    ),
    (
        "Problems",
        """In the rerun the organiser's gateway asks the hidden problems. When the notebook is saved, the first few of
        `reference.csv` or `test.csv` stand in for them, so that `submission.parquet` is written then too.""",
        _PROBLEMS,
    ),
    (
        "The contest",
        """The server listens at once and the engine loads meanwhile; the first answer has no deadline. Whatever fails,
        each problem gets an integer, and the run is recorded event by event.""",
        _PLAY,
    ),
    (
        "How it went",
        """The time line and, where there are labels, the score. `runs/` holds the report and every attempt. In the
        rerun the notebook ends with the contest, before this cell.""",
        _SHOW,
    ),
)


def build_notebook(manifest: Manifest) -> dict[str, Any]:
    """The notebook of a bundle as data, in the form of nbformat 4.5; the same bundle gives the same notebook."""
    cells = [_markdown(_title(manifest))]
    for heading, text, code in _PARTS:
        cells.append(_markdown(f"## {heading}\n\n{' '.join(text.split())}"))
        cells.append(_code(code.strip().replace("{ENVIRONMENT}", json.dumps(dict(manifest.environment), indent=4))))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    _validate(notebook)
    return notebook


def write_notebook(manifest: Manifest, path: Path) -> None:
    """Write the notebook of a bundle."""
    path.write_text(json.dumps(build_notebook(manifest), indent=1) + "\n", encoding="utf-8")


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None}


def _title(manifest: Manifest) -> str:
    config = manifest.config
    engines = ", ".join(engine["model"] for engine in config["engines"]) or str(config["model"])
    return (
        f"# Mathlete: {_plain(manifest.recipe)}\n\n"
        f"Made by `mathlete contest bundle` of Mathlete {manifest.mathlete} on {manifest.created[:10]}. "
        f"{manifest.num_problems} problems in {float(config['budget_s']) / 60:.0f} minutes, with {_plain(engines)}.\n\n"
        "Run it from top to bottom; no cell needs internet."
    )


def _plain(text: str) -> str:
    """A name that is only a name to Markdown."""
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"
