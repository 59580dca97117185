"""Who may import whom: the table of DESIGN.md, read from the syntax trees of src/mathlete."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "mathlete"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

# room: the rooms it may import besides itself and `core`. Whoever adds a room adds a line.
MAY_IMPORT: dict[str, set[str]] = {
    "adapters": {"lab", "report", "verify"},
    "cluster": {"compose", "lab", "run_config", "session", "triad"},
    "core": set(),
    "cic": set(),
    "contest": {"cic"},
    "generators": {"proof_sampler", "ryanstream"},
    "kaggle": {"cic", "compose", "contest", "lab", "model_store", "report", "run_config", "session", "triad", "verify"},
    "lab": {"cic", "contest", "triad", "verify"},
    "local_server": set(),
    "model_store": set(),
    "planning": {"contest"},
    "proof_sampler": set(),
    "recipes": {"generators", "model_store", "planning", "run_config", "session"},
    "report": {"lab"},
    "run_config": {"cic", "contest", "generators", "ryanstream", "triad"},
    "ryanstream": set(),
    "sandbox": set(),
    "serving": {"compose", "contest", "lab", "local_server", "run_config", "session", "triad", "verify"},
    "session": {"compose", "contest", "lab", "model_store", "report", "run_config", "triad", "verify"},
    "triad": {"cic", "contest", "proof_sampler", "verify"},
    "verify": set(),
    "viewer": {"lab", "local_server", "report"},
}
# They wire everything together: they may import all rooms, and inside functions too, so that a command starts fast.
FREE = {"api", "cli", "compose"}
# `mathlete/__init__.py` (inside a function: `import mathlete` is quick) and `__main__.py`.
ROOT_MAY_IMPORT = {"api", "cli"}
WITHOUT_TORCH = {
    "core",
    "cic",
    "contest",
    "lab",
    "local_server",
    "model_store",
    "planning",
    "proof_sampler",
    "report",
    "sandbox",
    "triad",
    "verify",
    "viewer",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import: where it stands, what it names, and whether it is inside a function."""

    file: Path
    line: int
    target: str
    local: bool


def violations(source: Path) -> list[str]:
    """Each import under `source` that breaks the table, as `file:line: what is wrong`."""
    found = []
    for file in sorted(source.rglob("*.py")):
        room = room_of(file, source)
        if room not in {*MAY_IMPORT, *FREE, ""}:
            found.append(f"{file}:1: room {room!r} is not in the import table; add it to MAY_IMPORT")
            continue
        for found_import in imports_of(file, source):
            complaint = complaint_about(found_import, room)
            if complaint is not None:
                found.append(f"{file}:{found_import.line}: {complaint}")
    return found


def complaint_about(found: Import, room: str) -> str | None:
    package, _, rest = found.target.partition(".")
    if package == "torch" and room in WITHOUT_TORCH:
        return f"{room} must not import torch"
    if package != PACKAGE or room in FREE:
        return None
    if found.local and room != "":  # the package itself loads its names when they are asked for
        return f"{found.target} is imported inside a function; only cli, compose and api may do that"
    target = rest.partition(".")[0]
    allowed = ROOT_MAY_IMPORT if room == "" else {room, "core", *MAY_IMPORT[room]}
    if room == "core":
        allowed = {"core"}
    if target in {"", *allowed}:  # "" is the package itself, which holds the version and nothing else
        return None
    return f"{room or PACKAGE} must not import {target} (it may import {', '.join(sorted(allowed))})"


def room_of(file: Path, source: Path) -> str:
    """The room of a file: its first folder, or its own name at the top; "" for the package itself."""
    first = file.relative_to(source).parts[0].removesuffix(".py")
    return "" if first in {"__init__", "__main__"} else first


def imports_of(file: Path, source: Path) -> Iterator[Import]:
    """All imports of a file, relative ones resolved, and literal `import_module` calls."""
    package = [PACKAGE, *file.relative_to(source).parent.parts]

    def visit(node: ast.AST, local: bool) -> Iterator[Import]:
        for target in targets_of(node, package, source):
            yield Import(file, getattr(node, "lineno", 1), target, local)
        inside = local or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(file.read_text(encoding="utf-8"), str(file)), False)


def targets_of(node: ast.AST, package: list[str], source: Path) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = package[: len(package) - level + 1] if level else []
            prefix = ".".join([*base, *([module] if module else [])])
            if prefix != PACKAGE:
                return [prefix]
            # `from mathlete import x`: a room, or a name of the package itself.
            rooms = {path.stem for path in source.iterdir()}
            return [f"{PACKAGE}.{alias.name}" if alias.name in rooms else PACKAGE for alias in names]
        case ast.Call(func=ast.Name(id="__import__" | "import_module"), args=[ast.Constant(value=str(name)), *_]):
            return [name]
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
            return [name]
    return []


def test_the_tree_keeps_to_the_table() -> None:
    complaints = violations(SOURCE)
    assert not complaints, "\n".join(["imports that DESIGN.md's table forbids:", *complaints])


def test_the_whole_tree_was_looked_at() -> None:
    assert {"core", "cic", "contest", "lab", "ryanstream", "triad"} <= {
        room_of(f, SOURCE) for f in SOURCE.rglob("*.py")
    }
    seen = {found.target for file in SOURCE.rglob("*.py") for found in imports_of(file, SOURCE)}
    assert "mathlete.core.attempt" in seen
    assert "torch" in seen


def test_the_table_agrees_with_itself() -> None:
    for room in WITHOUT_TORCH:
        assert MAY_IMPORT[room] <= WITHOUT_TORCH, f"{room} would get torch through a room that it may import"
    assert not MAY_IMPORT["core"]
    assert MAY_IMPORT["ryanstream"].isdisjoint({"triad", "verify", "sandbox", "contest", "lab"})


def test_rooms_without_torch_do_not_load_it_by_a_detour() -> None:
    """The slow twin: a dependency of a dependency would escape the syntax trees."""
    modules = [
        ".".join([PACKAGE, *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        for file in sorted(SOURCE.rglob("*.py"))
        if room_of(file, SOURCE) in WITHOUT_TORCH
    ]
    code = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
    assert len(modules) > 15


def tree(folder: Path, files: dict[str, str]) -> Path:
    source = folder / PACKAGE
    for name, text in {"core/__init__.py": "", "cic/__init__.py": "", "cli/__init__.py": "", **files}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    return source


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("core/a.py", "import mathlete.cic.majority", "1: core must not import cic"),
        ("core/a.py", "\n\nfrom mathlete.cic import majority", "3: core must not import cic"),
        ("core/a.py", "from ..cic.majority import tally", "1: core must not import cic"),
        ("core/a.py", "from .. import cic", "1: core must not import cic"),
        ("core/__init__.py", "from ..cic import majority", "1: core must not import cic"),
        ("core/deep/a.py", "from ...cic import majority", "1: core must not import cic"),
        ("core/a.py", "from mathlete import cic", "1: core must not import cic"),
        ("core/a.py", "import os, mathlete.cli", "1: core must not import cli"),
        ("core/a.py", "if True:\n    from mathlete.cic import x", "2: core must not import cic"),
        ("core/a.py", "from importlib import import_module\nimport_module('mathlete.cic')", "2: core must not"),
        ("ryanstream/a.py", "from mathlete.verify import x", "1: ryanstream must not import verify"),
        ("ryanstream/model/a.py", "import mathlete.triad.loop", "1: ryanstream must not import triad"),
        ("triad/a.py", "from mathlete.generators.ryanstream import x", "1: triad must not import generators"),
        ("triad/a.py", "from mathlete.lab.run_store import x", "1: triad must not import lab"),
        ("generators/a.py", "from mathlete.triad import x", "1: generators must not import triad"),
        ("report/a.py", "from mathlete.triad import x", "1: report must not import triad"),
        ("cic/a.py", "import torch", "1: cic must not import torch"),
        ("lab/a.py", "def f():\n    import torch.nn as nn", "2: lab must not import torch"),
        ("sandbox/a.py", "from torch.nn import functional", "1: sandbox must not import torch"),
        ("cic/a.py", "def f():\n    from mathlete.core import x", "2: mathlete.core is imported inside a function"),
        (
            "cic/a.py",
            "class A:\n    async def f(self):\n        import mathlete.core",
            "3: mathlete.core is imported in",
        ),
        ("cic/a.py", "f = lambda: __import__('mathlete.core')", "1: mathlete.core is imported inside a function"),
        ("utils.py", "", "1: room 'utils' is not in the import table"),
        ("utils/a.py", "", "1: room 'utils' is not in the import table"),
        ("__main__.py", "import mathlete.cic", "1: mathlete must not import cic"),
    ],
)
def test_the_checker_finds(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    source = tree(tmp_path, {name: text})
    (found,) = violations(source)
    assert found.startswith(f"{source / name}:{complaint}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("core/a.py", "import json\nfrom mathlete.core.b import c\nfrom . import d\nfrom .e import f"),
        ("core/a.py", "from mathlete import __version__"),
        ("core/a.py", "def f():\n    import json"),
        ("core/a.py", "import torchlight"),
        ("contest/a.py", "from mathlete.cic.majority import tally\nfrom mathlete.core.attempt import Attempt"),
        ("ryanstream/a.py", "import torch\nfrom mathlete.core.generation import SamplingParams"),
        ("generators/a.py", "from mathlete.ryanstream.engine import Engine"),
        ("cli/a.py", "def f():\n    import torch\n    from mathlete.ryanstream import engine"),
        ("compose.py", "def f():\n    from mathlete.triad import loop\nimport mathlete.lab"),
        ("__main__.py", "from mathlete.cli.main import main"),
        ("__init__.py", "__version__ = '1'"),
    ],
)
def test_the_checker_allows(tmp_path: Path, name: str, text: str) -> None:
    assert violations(tree(tmp_path, {name: text})) == []


def test_the_package_tested_is_the_one_in_this_checkout() -> None:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).parent == SOURCE.resolve()
