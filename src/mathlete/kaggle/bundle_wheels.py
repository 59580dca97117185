"""The packages that a notebook without internet installs: resolved by pip for its machine, pinned, with their hashes.

Knows pip's command line. pip does the work, so that what is pinned is what pip will accept; where it needs an index, so
does a bundle.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mathlete
from mathlete.core.errors import InputError
from mathlete.kaggle.bundle_manifest import Wheel
from mathlete.model_store.disk import sha256_of

WHEELS_NAME = "wheels.txt"
VLLM = "vllm==0.32.0"  # the version that the adapter's tests run against
_ROOT = Path(mathlete.__file__).parents[2]  # of the checkout, where there is one
LOCK = _ROOT / "requirements.lock"
_OLD_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_TAG = re.compile(r"manylinux_2_(\d{1,2})_(\w+)")
_MAX_TOLD, _MAX_LINE_CHARS = 6, 300  # of what pip said

RunPip = Callable[[Sequence[str]], None]
"""Runs pip with arguments. Raises `InputError` with what it said."""


@dataclass(frozen=True, slots=True)
class Target:
    """The machine of the notebook.

    Attributes:
        python: "3.12".
        platform: tag of wheels, "manylinux_2_28_x86_64".
    """

    python: str = "3.12"
    platform: str = "manylinux_2_28_x86_64"

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that cannot be meant."""
        if not re.fullmatch(r"3\.\d{1,2}", self.python):
            raise ValueError(f"python must be like 3.12, not {self.python!r}")
        if not _TAG.fullmatch(self.platform):
            raise ValueError(f"platform must be like manylinux_2_28_x86_64, not {self.platform!r}")

    def pip_arguments(self) -> list[str]:
        """What tells pip to choose for this machine, older platform tags included, which it does not add by itself."""
        match = _TAG.fullmatch(self.platform)
        assert match is not None, "checked at construction"
        machine = match[2]
        tags = []
        for number in range(int(match[1]), 4, -1):
            tags.append(f"manylinux_2_{number}_{machine}")
            if number in _OLD_TAGS:
                tags.append(f"{_OLD_TAGS[number]}_{machine}")
        platforms = [argument for tag in (*tags, f"linux_{machine}") for argument in ("--platform", tag)]
        return ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.python, *platforms]


@dataclass(frozen=True, slots=True)
class PackageSources:
    """Where pip looks, by its own options.

    Attributes:
        index_url: in place of PyPI.
        extra_index_urls: besides.
        find_links: folders or pages with wheels.
        no_index: look into `find_links` only.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False

    def pip_arguments(self) -> list[str]:
        """These options."""
        index = [] if self.index_url is None else ["--index-url", self.index_url]
        extra = [argument for url in self.extra_index_urls for argument in ("--extra-index-url", url)]
        links = [argument for place in self.find_links for argument in ("--find-links", place)]
        return [*index, *extra, *links, *(["--no-index"] if self.no_index else [])]


def extras_for(engine_types: Collection[str]) -> tuple[str, ...]:
    """Mathlete's extras that engines of these types need in a contest."""
    by_type = {"ryanstream": ("engine",), "vllm": ("server",)}
    return ("contest", *(extra for kind in sorted(set(engine_types)) for extra in by_type[kind]), "tools")


def build_own_wheel(folder: Path, run_pip: RunPip) -> Path:
    """Mathlete's own wheel, from the checkout that this is.

    Raises:
        InputError: this is no checkout, or it cannot be built.
    """
    if not (_ROOT / "pyproject.toml").is_file():
        raise InputError(
            "Mathlete was not installed from a checkout, so its own wheel cannot be built: give it with --own-wheel "
            "FILE"
        )
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") is not None else []
    run_pip(["wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(_ROOT)])
    (wheel,) = folder.glob("mathlete-*.whl")
    return wheel


def resolve(
    own_wheel: Path, engine_types: Collection[str], target: Target, sources: PackageSources, run_pip: RunPip
) -> tuple[Wheel, ...]:
    """Every package that is needed, chosen by pip for the notebook's machine; nothing is installed.

    With vLLM, which pins torch and more by itself, versions are pip's choice; else those of `requirements.lock`.

    Args:
        own_wheel: of Mathlete.
        engine_types: of the run's engines.
        target: the notebook's machine.
        sources: where pip looks.
        run_pip: runs it.

    Raises:
        InputError: pip finds no set of packages; the message says what it said.
    """
    wanted = [f"{own_wheel}[{','.join(extras_for(engine_types))}]", *([VLLM] if "vllm" in engine_types else [])]
    constraints = ["--constraint", str(LOCK)] if is_locked(engine_types) else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        run_pip(
            [
                "install", "--dry-run", "--ignore-installed", "--target", folder, "--report", str(report),
                *target.pip_arguments(), *sources.pip_arguments(), *constraints, *wanted,
            ]
        )  # fmt: skip
        told = json.loads(report.read_text(encoding="utf-8"))
    return tuple(sorted(_wheels(told, own_wheel), key=lambda wheel: wheel.name))


def is_locked(engine_types: Collection[str]) -> bool:
    """Whether versions are those of `requirements.lock`."""
    return LOCK.is_file() and "vllm" not in engine_types


def _wheels(report: Any, own_wheel: Path) -> Iterable[Wheel]:
    """Of pip's installation report, https://pip.pypa.io/en/stable/reference/installation-report/ (version 1)."""
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        info = item["download_info"]
        filename = unquote(urlsplit(info["url"]).path).rpartition("/")[2]
        if filename == own_wheel.name:
            yield Wheel(name, version, filename, sha256_of(own_wheel, lambda done: None), "", own_wheel.stat().st_size)
            continue
        digest = info.get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise InputError(
                f"pip does not know the SHA-256 of {filename} ({info['url']}): give an index that tells hashes, or the "
                "wheels themselves with --find-links FOLDER"
            )
        yield Wheel(name, version, filename, digest, info["url"])


def requirements_text(wheels: Iterable[Wheel]) -> str:
    """`wheels.txt`, as `pip install --require-hashes -r` reads it."""
    command = "pip install --no-index --find-links wheels --require-hashes -r wheels.txt"
    head = f"# Exact versions and hashes. Install: {command}\n"
    return head + "".join(f"{wheel.name}=={wheel.version} \\\n    --hash=sha256:{wheel.sha256}\n" for wheel in wheels)


def download(folder: Path, requirements: Path, target: Target, sources: PackageSources, run_pip: RunPip) -> None:
    """The files themselves, checked by pip against their hashes; those that are in `folder` already are left.

    Raises:
        InputError: pip cannot get one.
    """
    links = ["--find-links", str(folder)]
    run_pip(
        [
            "download", "--no-deps", "--require-hashes", "--dest", str(folder), *target.pip_arguments(),
            *sources.pip_arguments(), *links, "--requirement", str(requirements),
        ]
    )  # fmt: skip


def run_pip(arguments: Sequence[str]) -> None:
    """Run this Python's pip; see `RunPip`."""
    is_long = arguments[0] == "download"  # gigabytes: its progress is shown
    quiet = [] if is_long else ["--quiet"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *quiet, *arguments]
    shown = 2 if is_long else subprocess.DEVNULL
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        told = "\n  ".join(line[:_MAX_LINE_CHARS] for line in lines[-_MAX_TOLD:])
        raise InputError(
            f"pip {arguments[0]} failed:\n  {told}\nWithout an index: --no-index --find-links FOLDER with the wheels, "
            "or --notebook-only for a bundle without packages."
        )
