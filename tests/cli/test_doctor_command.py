"""`mathlete doctor`: what is there is judged, what is missing comes with what to do, and torch is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calling import Mathlete

from mathlete.cli import examination
from mathlete.core.errors import MathleteError
from mathlete.model_store.store import ModelStore
from mathlete.sandbox.isolation import LAYERS
from mathlete.sandbox.needs import KernelSettings, missing_layers, read_kernel_settings

SETTINGS = KernelSettings("6.8.0", "x86_64", "", "", "60000", "lockdown,capability,landlock")


class _FailingPool:
    def __init__(self, num_workers: int) -> None:
        pass

    def __enter__(self) -> _FailingPool:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def describe_isolation(self) -> tuple[str, ...]:
        raise MathleteError("the sandbox cannot run programs here: no room")


class _PoolOf(_FailingPool):
    layers: tuple[str, ...] = LAYERS

    def describe_isolation(self) -> tuple[str, ...]:
        return self.layers


def named(findings: Any, name: str) -> examination.Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    assert isinstance(found, examination.Finding)
    return found


@pytest.fixture
def full_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "SandboxPool", _PoolOf)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MATHLETE_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_a_person_reads_a_line_a_thing(mathlete: Mathlete, empty_cache: Path, full_pool: None) -> None:
    called = mathlete("doctor")
    assert called.code == 0
    assert f"  ok      isolation: {', '.join(LAYERS)}\n" in called.out
    assert f"  ok      cache: {empty_cache}, " in called.out
    assert "not fetched yet\n          mathlete models pull 1.5b\n" in called.out
    for part in ("sandbox", "engine", "machine", "models", "extras", "lean"):
        assert f"\n{part}\n" in f"\n{called.out}"
    assert not empty_cache.exists()  # it only looks


def test_json_has_every_finding(mathlete: Mathlete, empty_cache: Path, full_pool: None) -> None:
    shown = json.loads(mathlete("doctor", "--json").out)
    assert shown["can_solve"] is True
    assert shown["isolation"] == list(LAYERS)
    for finding in shown["findings"]:
        assert finding["judgment"] in ("ok", "warning", "missing") and finding["found"]
    remedies = [finding["remedy"] for finding in shown["findings"] if finding["judgment"] == "missing"]
    assert any(remedy.startswith("mathlete models pull") for remedy in remedies)


def test_the_real_trial_program_runs_and_torch_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mathlete.cli.examination import examine\nfrom mathlete.model_store.store import ModelStore\n"
        "found = examine(ModelStore())\nprint(found.can_solve, 'rlimit' in found.isolation, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout in ("True True False\n", "False True False\n")  # without the engine's packages


def test_nothing_can_be_solved_without_a_sandbox(
    mathlete: Mathlete, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "SandboxPool", _FailingPool)
    called = mathlete("doctor")
    assert called.code == 1
    assert "missing programs: the sandbox cannot run programs here: no room" in called.out
    assert called.out.endswith("nothing can be solved here yet\n")


def test_nothing_can_be_solved_without_torch(
    mathlete: Mathlete, empty_cache: Path, full_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = examination.find_spec
    monkeypatch.setattr(examination, "find_spec", lambda name: None if name in ("torch", "sympy") else known(name))
    called = mathlete("doctor", "--json")
    assert called.code == 1
    findings = [examination.Finding(**finding) for finding in json.loads(called.out)["findings"]]
    packages, sympy = named(findings, "packages"), named(findings, "sympy")
    assert (packages.found, packages.remedy) == ("not installed: torch", "pip install 'mathlete[engine]'")
    assert packages.is_fatal and not sympy.is_fatal
    assert (sympy.judgment, sympy.remedy) == ("warning", "pip install 'mathlete[tools]'")


def test_layers_that_are_missing_come_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "SandboxPool", _PoolOf)
    monkeypatch.setattr(_PoolOf, "layers", ("rlimit", "nnp", "nocaps", "seccomp"))
    layers, findings = examination.examine_sandbox()
    assert layers == ("rlimit", "nnp", "nocaps", "seccomp")
    isolation = named(findings, "isolation")
    assert isolation.judgment == "warning" and "change your files" in isolation.found
    assert named(findings, "userns, pidns, netns, ipcns, mntns").remedy
    assert named(findings, "landlock").judgment == "missing"


@pytest.mark.parametrize(
    ("settings", "need"),
    [
        ({"max_user_namespaces": "0"}, "user.max_user_namespaces=10000"),
        ({"userns_clone": "0"}, "kernel.unprivileged_userns_clone=1"),
        ({"apparmor_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns=0"),
        ({}, "seccomp=PROFILE"),
    ],
)
def test_why_there_are_no_namespaces(settings: dict[str, str], need: str) -> None:
    fields = {name: getattr(SETTINGS, name) for name in KernelSettings.__dataclass_fields__}
    in_force = [layer for layer in LAYERS if not layer.endswith("ns") and layer not in ("readonly", "tmpfs", "newroot")]
    found = missing_layers(in_force, KernelSettings(**{**fields, **settings}))
    assert list(found) == ["userns, pidns, netns, ipcns, mntns"]
    assert need in found["userns, pidns, netns, ipcns, mntns"]


def test_why_other_layers_are_missing() -> None:
    assert missing_layers(LAYERS, SETTINGS) == {}
    without = missing_layers([layer for layer in LAYERS if layer not in ("landlock", "seccomp", "readonly")], SETTINGS)
    assert without["landlock"].startswith("Linux 5.13 or newer")
    assert without["seccomp"].startswith("a kernel with seccomp")
    assert without["readonly"].startswith("Linux 5.12")
    assert (
        "takes its session with it" in missing_layers([layer for layer in LAYERS if layer != "gate"], SETTINGS)["gate"]
    )
    assert "change the root" in missing_layers([layer for layer in LAYERS if layer != "newroot"], SETTINGS)["newroot"]
    off = KernelSettings("6.8.0", "riscv64", "", "", "", "lockdown,capability")
    assert "lsm=landlock,lockdown,capability" in missing_layers([], off)["landlock"]
    assert "riscv64" in missing_layers([], off)["seccomp"]


def test_settings_are_read_where_they_are(tmp_path: Path) -> None:
    place = tmp_path / "proc" / "sys" / "user"
    place.mkdir(parents=True)
    (place / "max_user_namespaces").write_text("7\n")
    found = read_kernel_settings(tmp_path)
    assert (found.max_user_namespaces, found.userns_clone, found.security_modules) == ("7", "", "")


def test_models_are_judged_by_what_the_cache_holds(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    spec = store.models[-1]

    def finding() -> examination.Finding:
        return named(examination.examine_models(store), spec.name)

    assert (finding().judgment, finding().remedy) == ("missing", f"mathlete models pull {spec.aliases[0]}")
    path = store.path_of(spec)
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, spec.num_bytes)
    assert (finding().judgment, finding().remedy) == ("ok", "")
    os.truncate(path, spec.num_bytes - 1)
    assert finding().judgment == "warning" and finding().remedy.endswith("--force")
