from pathlib import Path

import pytest

from mathlete.core.errors import InputError
from mathlete.verify.lean.finding import find_lean
from mathlete.verify.lean.kimina import KiminaClient
from mathlete.verify.lean.lean_check import open_backend
from mathlete.verify.lean.repl_pool import ReplPool


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_nothing_is_there_and_all_of_it_is_named(tmp_path: Path) -> None:
    found = find_lean({"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert not found.is_usable
    assert [missing.what for missing in found.missing] == [
        "Lean's toolchain (lake)",
        "the Lean REPL",
        "a Lean project with Mathlib",
    ]
    assert found.summary.startswith("no Lean 4: missing Lean's toolchain")
    with pytest.raises(InputError, match="elan.*MATHLETE_LEAN_REPL.*MATHLETE_LEAN_PROJECT"):
        open_backend(found)


def test_a_local_lean(tmp_path: Path) -> None:
    lake = program(tmp_path / ".elan" / "bin" / "lake")
    repl = program(tmp_path / "repl")
    project = tmp_path / "project"
    (project / ".lake" / "packages" / "mathlib").mkdir(parents=True)
    (project / "lakefile.toml").write_text("")
    (project / "lean-toolchain").write_text("leanprover/lean4:v4.24.0\n")
    environ = {
        "PATH": "",
        "HOME": str(tmp_path),
        "MATHLETE_LEAN_REPL": str(repl),
        "MATHLETE_LEAN_PROJECT": str(project),
    }
    found = find_lean(environ)
    assert (found.missing, found.lake, found.repl, found.project) == ((), lake, repl, project)
    assert found.toolchain == "leanprover/lean4:v4.24.0" and found.toolchain in found.summary
    backend = open_backend(found)
    assert isinstance(backend, ReplPool)
    backend.close()


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda tmp: None, "a lakefile in"),
        (lambda tmp: (tmp / "lakefile.lean").write_text(""), "Mathlib in"),
    ],
)
def test_a_project_that_is_not_ready(tmp_path: Path, build: object, what: str) -> None:
    build(tmp_path)  # type: ignore[operator]
    program(tmp_path / "lake")
    program(tmp_path / "repl")
    found = find_lean({"PATH": str(tmp_path), "MATHLETE_LEAN_PROJECT": str(tmp_path)})
    (missing,) = found.missing
    assert missing.what.startswith(what) and "lake" in missing.remedy


def test_a_repl_that_is_no_program(tmp_path: Path) -> None:
    found = find_lean({"PATH": str(tmp_path), "MATHLETE_LEAN_REPL": str(tmp_path / "none")})
    assert any("names" in missing.what and "no program" in missing.what for missing in found.missing)


def test_a_server_is_enough(tmp_path: Path) -> None:
    found = find_lean({"PATH": str(tmp_path), "MATHLETE_LEAN_SERVER": "http://localhost:8000"})
    assert found.is_usable and "http://localhost:8000" in found.summary
    assert isinstance(open_backend(found, {}), KiminaClient)


def test_a_server_with_a_bad_address(tmp_path: Path) -> None:
    found = find_lean({"PATH": str(tmp_path), "MATHLETE_LEAN_SERVER": "localhost"})
    with pytest.raises(InputError, match="address"):
        open_backend(found, {})
