"""The example notebook runs from top to bottom, and each cell shows something a notebook can show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"

# What a kernel does with the cells, as far as it matters here: one namespace, an event loop that is running, and the
# last expression of each cell shown. Arguments: the notebook, the model's file.
KERNEL = """
import ast, asyncio, json, sys
from pathlib import Path
from mathlete.model_store.store import LocalModel, ModelStore

notebook, model = sys.argv[1:]
ModelStore.ensure = lambda store, name, report=None: LocalModel(name, Path(model), None)

async def run():
    names = {}
    shown = []
    for number, cell in enumerate(json.loads(Path(notebook).read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            html = value._repr_html_() if hasattr(value, "_repr_html_") else None
            shown.append({"type": type(value).__name__, "repr": repr(value), "html": html})
    return shown

print("SHOWN " + json.dumps(asyncio.run(run())))
"""


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_notebook_is_as_notebooks_are() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"]) > 8
    for cell in cells():
        assert cell["cell_type"] in {"markdown", "code"} and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None  # no run of ours is kept in it
            compile("".join(cell["source"]), str(NOTEBOOK), "exec")


@pytest.mark.model
def test_the_notebook_runs(small_model_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    command = [sys.executable, "-c", KERNEL, str(NOTEBOOK), str(small_model_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SHOWN ")]
    shown = json.loads(line.removeprefix("SHOWN "))
    assert [item["type"] for item in shown if item["type"] != "NoneType"] == [
        "int", "Solutions", "Solutions", "FramedReport", "DataFrame",
    ]  # fmt: skip
    assert "<math" in shown[1]["html"] and "144" in shown[2]["html"]
    assert "problem-" not in shown[2]["html"] and "product" in shown[2]["html"]
    assert len(list((tmp_path / "runs").iterdir())) == 3
