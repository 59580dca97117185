"""The notebook of a bundle: short cells, each explained, that run on Kaggle without internet and anywhere else.

Builds cells as data; runs none of them. What they call is `notebook_run`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mathlete.kaggle.bundle_manifest import Manifest

NOTEBOOK_NAME = "mathlete.ipynb"

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

_PROBLEMS = '''
from mathlete.kaggle.notebook_run import find_organiser, local_problems

NUM_LOCAL = int(os.environ.get("MATHLETE_LOCAL_PROBLEMS", "10"))  # when the notebook is saved
LOCAL_MINUTES = float(os.environ.get("MATHLETE_LOCAL_MINUTES", "60"))
print("organiser's package:", find_organiser(INPUT) or "not attached; Mathlete's own gateway asks")
PROBLEMS = local_problems(INPUT, BUNDLE / "problems.csv", NUM_LOCAL)
print("the hidden problems" if is_rerun() else f"{NUM_LOCAL} problems at most, in {LOCAL_MINUTES:g} minutes")
'''

_PLAY = """
from mathlete.kaggle.notebook_run import contest_of, play

local = {} if is_rerun() else {"num_problems": NUM_LOCAL, "budget_s": 60 * LOCAL_MINUTES}
RUN = play(contest_of(manifest, WEIGHTS, **local), PROBLEMS)
"""

_SHOW = """
from mathlete.kaggle.notebook_run import show_course

show_course(RUN, PROBLEMS)
"""


def build_notebook(manifest: Manifest) -> Any:
    """The notebook of a bundle, as `nbformat` has it."""
    cells = [
        new_markdown_cell(_title(manifest)),
        new_markdown_cell(
            "## Where the bundle is\n\nThe data set that `mathlete contest bundle` wrote is attached as an input; it is "
            "known by its `manifest.json`. Elsewhere, `MATHLETE_BUNDLE` names its folder and `MATHLETE_INPUT` the folder "
            "of all inputs."
        ),
        new_code_cell(_FIND.strip()),
        new_markdown_cell(
            "## Packages, without internet\n\nEvery wheel is in the bundle, and pip takes none whose SHA-256 is not the one "
            "in `wheels.txt`. Nothing is done where this version is installed already."
        ),
        new_code_cell(_INSTALL.strip()),
        new_markdown_cell(
            "## The environment\n\nSet before anything of CUDA is loaded. Caches go to a folder that is not kept as output, "
            "and nothing tries to reach a hub."
        ),
        new_code_cell(_environment(manifest)),
        new_markdown_cell(
            "## Weights\n\nFound among the inputs by name and size. When the notebook is saved, each file's SHA-256 is "
            "compared with the manifest, with progress; in the rerun sizes are enough, since the same versions of the same "
            "inputs are mounted."
        ),
        new_code_cell(_WEIGHTS.strip()),
        new_markdown_cell(
            "## Problems\n\nIn the rerun the organiser's gateway asks the hidden problems. When the notebook is saved, the "
            "first few of `reference.csv` or `test.csv` stand in for them, so that `submission.parquet` is written then too."
        ),
        new_code_cell(_PROBLEMS.strip()),
        new_markdown_cell(
            "## The contest\n\nThe server listens at once and the engine loads meanwhile; the first answer has no deadline. "
            "Whatever fails, each problem gets an integer, and the run is recorded event by event."
        ),
        new_code_cell(_PLAY.strip()),
        new_markdown_cell(
            "## How it went\n\nThe time line and, where there are labels, the score. `runs/` holds the report and every "
            "attempt. In the rerun the notebook ends with the contest, before this cell."
        ),
        new_code_cell(_SHOW.strip()),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the same bundle gives the same notebook
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return notebook


def write_notebook(manifest: Manifest, path: Path) -> None:
    """Write the notebook of a bundle."""
    nbformat.write(build_notebook(manifest), path)


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


def _environment(manifest: Manifest) -> str:
    told = json.dumps(dict(manifest.environment), indent=4)
    return (
        f"ENVIRONMENT = {told}\n"
        'ON_KAGGLE = os.path.isdir("/kaggle")\n'
        "for name, value in ENVIRONMENT.items():\n"
        '    if ON_KAGGLE or not value.startswith("/kaggle"):\n'
        "        os.environ.setdefault(name, value)\n"
        'if os.path.exists("/usr/local/cuda/bin/ptxas"):\n'
        '    os.environ.setdefault("TRITON_PTXAS_PATH", "/usr/local/cuda/bin/ptxas")'
    )
