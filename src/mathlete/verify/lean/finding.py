"""Which Lean 4 this machine has, and what is missing for checking proofs. Looks at paths and variables only.

Either of two is enough: a Kimina Lean Server, or `lake`, a built REPL, and a project with Mathlib in which it runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERVER_VARIABLE = "MATHLETE_LEAN_SERVER"
KEY_VARIABLE = "MATHLETE_LEAN_SERVER_KEY"
REPL_VARIABLE = "MATHLETE_LEAN_REPL"
PROJECT_VARIABLE = "MATHLETE_LEAN_PROJECT"

_ELAN = "curl -sSf https://raw.githubusercontent.com/leanprover/elan/master/elan-init.sh | sh"


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is not there: what it is, and how to get it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LeanFound:
    """What was found.

    Attributes:
        server: address of a Kimina Lean Server, from MATHLETE_LEAN_SERVER.
        lake: Lean's build tool, on PATH or where elan puts it.
        repl: the built REPL, from MATHLETE_LEAN_REPL or PATH.
        project: a Lean project with Mathlib, from MATHLETE_LEAN_PROJECT.
        toolchain: the Lean version that the project asks for, as its `lean-toolchain` names it.
        missing: what a local REPL lacks; empty when nothing does.
    """

    server: str | None
    lake: Path | None
    repl: Path | None
    project: Path | None
    toolchain: str | None
    missing: tuple[Missing, ...]

    @property
    def is_usable(self) -> bool:
        """Whether proofs can be checked."""
        return self.server is not None or not self.missing

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.server is not None:
            return f"Kimina Lean Server at {self.server}"
        if not self.missing:
            return f"REPL {self.repl} in {self.project} ({self.toolchain or 'unknown toolchain'})"
        return f"no Lean 4: missing {', '.join(missing.what for missing in self.missing)}"


def find_lean(environ: Mapping[str, str] = os.environ) -> LeanFound:
    """Look for Lean; starts nothing and asks no server."""
    lake = _program("lake", environ)
    repl = Path(environ[REPL_VARIABLE]) if environ.get(REPL_VARIABLE) else _program("repl", environ)
    project = Path(environ[PROJECT_VARIABLE]) if environ.get(PROJECT_VARIABLE) else None
    missing = [*_missing_programs(lake, repl, environ), *_missing_project(project)]
    return LeanFound(
        server=environ.get(SERVER_VARIABLE) or None,
        lake=lake,
        repl=repl,
        project=project,
        toolchain=None if project is None else _toolchain(project),
        missing=tuple(missing),
    )


def _program(name: str, environ: Mapping[str, str]) -> Path | None:
    homes = [Path(environ["ELAN_HOME"])] if environ.get("ELAN_HOME") else []
    homes += [Path(environ["HOME"]) / ".elan"] if environ.get("HOME") else []
    search = os.pathsep.join([environ.get("PATH", os.defpath), *(str(home / "bin") for home in homes)])
    found = shutil.which(name, path=search)
    return None if found is None else Path(found)


def _missing_programs(lake: Path | None, repl: Path | None, environ: Mapping[str, str]) -> list[Missing]:
    missing: list[Missing] = []
    if lake is None:
        missing.append(Missing("Lean's toolchain (lake)", f"install elan: {_ELAN}"))
    build = "git clone https://github.com/leanprover-community/repl && cd repl && lake build"
    if repl is None:
        missing.append(Missing("the Lean REPL", f"{build}; then set {REPL_VARIABLE} to .lake/build/bin/repl in it"))
    elif not os.access(repl, os.X_OK) or not repl.is_file():
        named = f"{REPL_VARIABLE} names {repl}, which is no program" if environ.get(REPL_VARIABLE) else f"{repl}"
        missing.append(Missing(f"the Lean REPL ({named})", build))
    return missing


def _missing_project(project: Path | None) -> list[Missing]:
    make = "lake +leanprover/lean4:v4.24.0 new checks math && cd checks && lake exe cache get && lake build"
    if project is None:
        return [Missing("a Lean project with Mathlib", f"{make}; then set {PROJECT_VARIABLE} to its folder")]
    if not any((project / name).is_file() for name in ("lakefile.toml", "lakefile.lean")):
        return [Missing(f"a lakefile in {project} ({PROJECT_VARIABLE})", make)]
    places = (project / ".lake" / "packages" / "mathlib", project / "Mathlib")
    if not any(place.is_dir() for place in places):
        return [Missing(f"Mathlib in {project}", f"cd {project} && lake exe cache get && lake build")]
    return []


def _toolchain(project: Path) -> str | None:
    try:
        return (project / "lean-toolchain").read_text(encoding="utf-8").strip()[:100] or None
    except (OSError, UnicodeDecodeError):
        return None
