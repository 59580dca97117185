"""The run store: what is acknowledged is kept, and each way of failing has its message."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from damaged_store import damaged_store
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.attempt import Attempt, Turn
from mathlete.core.errors import InputError, StorageError
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent, encode
from mathlete.lab.run_store import STORE_VERSION, RunStore

NUM_KILLS = 20

# Says the number of each event once `append` has returned, which is what "acknowledged" means here.
CHILD = """
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import RunStore

path = Path(sys.argv[1])
store = RunStore.open(path) if path.exists() else RunStore.create(path)
n = sum(1 for _ in store.events())
while True:
    store.append(TraceEvent("warning", float(n), {"message": str(n), "padding": "x" * (n * 37 % 5000)}))
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
    n += 1
"""


def warning(message: str, at_s: float = 0.0) -> TraceEvent:
    return TraceEvent("warning", at_s, {"message": message})


def messages(store: RunStore) -> list[str]:
    return [event.data["message"] for event in store.events()]


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as any other program would open it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
utf8_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    TraceEvent,
    kind=st.sampled_from(["warning", "decision", "turn_finished"]),
    at_s=st.floats(0, 1e6),
    data=st.dictionaries(st.text(), json_values, max_size=4),
    problem_id=st.none() | utf8_text,
    attempt_id=st.none() | utf8_text,
    wall_time=st.floats(0, 2e9),
)


@settings(max_examples=40, deadline=None)
@given(written=st.lists(events, max_size=6))
def test_events_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, written: list[TraceEvent]) -> None:
    path = tmp_path_factory.mktemp("run") / "run.sqlite"
    with RunStore.create(path) as store:
        store.append_many(written[:2])
        for event in written[2:]:
            store.append(event)
    with RunStore.open(path) as store:
        assert list(store.events()) == written


def test_a_long_turn_is_stored_small_and_exact(tmp_path: Path) -> None:
    noise = random.Random(1)
    numbers = tuple(noise.gauss(-1, 1) for _ in range(4096))
    turn = Turn(text="x" * 12_000, num_tokens=4096, logprobs=numbers, entropies=numbers)
    attempt = Attempt("p#0", "p", 0, "code", 7, 0.8, "3", "boxed", (turn,), 4096, 1.5, {"mean_entropy": 0.25})
    path = tmp_path / "run.sqlite"
    opened = TraceEvent(
        "run_started", 0.0, {"config": {}, "problems": [{"id": "p", "statement": "s", "low": 0, "high": 9}]}
    )
    with RunStore.create(path) as store:
        store.append(opened)
        store.append(TraceEvent("attempt_finished", 1.0, {"attempt": encode(attempt)}, "p", "p#0"))
        assert fold_run(store.events()).problems["p"].attempts == (attempt,)
    assert path.stat().st_size < 120_000, "4,096 tokens with two arrays, noisier than any model's"


def test_short_payloads_stay_readable_text(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run.sqlite") as store:
        store.append_many([warning("short"), warning("long" * 1000)])
    with raw(tmp_path / "run.sqlite") as connection:
        kinds = connection.execute("SELECT typeof(data) FROM events ORDER BY seq").fetchall()
    assert kinds == [("text",), ("blob",)]


def test_the_table_refuses_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        store.append(warning("kept"))
    for statement in ("UPDATE events SET kind = 'x'", "DELETE FROM events"):
        with raw(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    with RunStore.read(path) as store:
        assert messages(store) == ["kept"]


def test_every_append_is_synced(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run.sqlite") as store:
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    with RunStore.open(tmp_path / "run.sqlite") as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_append_many_is_all_or_nothing(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run.sqlite") as store:
        store.append(warning("first"))
        unstorable: Any = TraceEvent("warning", "not a number", {"message": "x"}, problem_id=object())  # type: ignore[arg-type]
        with pytest.raises(StorageError):
            store.append_many([warning("second"), unstorable])
        assert messages(store) == ["first"]
        store.append(warning("third"))
        assert messages(store) == ["first", "third"]


def test_an_interrupt_inside_a_transaction_leaves_the_store_usable(tmp_path: Path) -> None:
    class InterruptingConnection:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def executemany(self, *arguments: Any) -> None:
            self._connection.executemany(*arguments)
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

    with RunStore.create(tmp_path / "run.sqlite") as store:
        connection = store._connection
        store._connection = InterruptingConnection(connection)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            store.append(warning("lost"))
        store._connection = connection
        store.append(warning("kept"))
        assert messages(store) == ["kept"]


def test_closing_twice_is_safe_and_leaves_one_file(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run.sqlite")
    store.append(warning("x"))
    store.close()
    store.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.lock", "run.sqlite"]


def test_only_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        store.append(warning("x"))
        with pytest.raises(InputError, match=rf"still running \(pid {os.getpid()}\)"):
            RunStore.open(path)
        with RunStore.read(path) as reader:
            assert messages(reader) == ["x"], "reading works while the run goes on"
            with pytest.raises(StorageError, match="readonly"):
                reader.append(warning("y"))
    with RunStore.open(path) as store:
        assert messages(store) == ["x"]


def test_a_reader_leaves_the_writers_locks_alone(tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any handle of it."""
    path = tmp_path / "run.sqlite"
    code = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA journal_mode = DELETE').fetchone()"
    with RunStore.create(path) as store:
        store.append(warning("x"))
        RunStore.read(path).close()
        with pytest.raises(InputError):
            RunStore.open(path)
        taken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "locked" in taken.stderr, "another program cannot take the log away"
        store.append(warning("y"))
    with RunStore.read(path) as reader:
        assert messages(reader) == ["x", "y"]


def test_another_process_sees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        child.stdout.readline()
        with pytest.raises(InputError, match=rf"pid {child.pid}"):
            RunStore.open(path)
        child.kill()
    RunStore.open(path).close()  # the kernel has dropped the dead process's lock


def test_a_killed_writer_loses_no_acknowledged_event(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    noise = random.Random(20251125)
    num_kept = 0
    for _ in range(NUM_KILLS):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged = [child.stdout.readline()]
        wait_for = noise.randrange(1, 40)
        while len(acknowledged) < wait_for:
            acknowledged.append(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        whole = [int(line) for line in acknowledged if line.endswith("\n")]
        assert whole[0] == num_kept, "the child went on where the last one was killed"

        with RunStore.read(path) as store:
            assert len(messages(store)) > whole[-1], "a reader sees all of it before anybody has repaired anything"
        with raw(path) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        with RunStore.open(path) as store:
            kept = messages(store)
        assert kept == [str(n) for n in range(len(kept))]
        assert whole[-1] + 1 <= len(kept) <= whole[-1] + 2, "at most the event in the making is unacknowledged"
        num_kept = len(kept)
    assert num_kept >= NUM_KILLS


class TestOpenRefuses:
    def test_a_missing_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no run store"):
            RunStore.open(tmp_path / "run.sqlite")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no run store"):
            RunStore.open(tmp_path)

    @pytest.mark.parametrize("num_lines", [1, 100, 1000])
    def test_a_file_that_is_not_sqlite(self, tmp_path: Path, num_lines: int) -> None:
        (tmp_path / "run.sqlite").write_text("id,answer\n1,2\n" * num_lines)
        with pytest.raises(InputError, match="not an SQLite file"):
            RunStore.open(tmp_path / "run.sqlite")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "run.sqlite").touch()
        with pytest.raises(InputError, match="ended before it began"):
            RunStore.open(tmp_path / "run.sqlite")

    def test_a_run_cut_off_while_its_store_was_made(self, tmp_path: Path) -> None:
        with raw(tmp_path / "run.sqlite") as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        with pytest.raises(InputError, match="ended before it began"):
            RunStore.open(tmp_path / "run.sqlite")

    def test_somebody_elses_database(self, tmp_path: Path) -> None:
        with raw(tmp_path / "run.sqlite") as connection:
            connection.execute("CREATE TABLE events (seq INTEGER, version INTEGER)")
        with pytest.raises(InputError, match="not a run store"):
            RunStore.open(tmp_path / "run.sqlite")

    @pytest.mark.parametrize(
        "change",
        [
            f"PRAGMA user_version = {STORE_VERSION + 1}",
            "INSERT INTO events (kind, at_s, wall_time, version, data) VALUES ('warning', 0, 0, 99, '{}')",
        ],
    )
    def test_a_newer_version(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "run.sqlite"
        RunStore.create(path).close()
        with raw(path) as connection:
            connection.execute(change)
        for opening in (RunStore.open, RunStore.read):
            with pytest.raises(InputError, match="newer Mathlete"), opening(path) as store:
                list(store.events())

    def test_an_older_version_is_read_and_gone_on_with(self, tmp_path: Path) -> None:
        """Version 1 knew no top means of a turn."""
        path = tmp_path / "run.sqlite"
        turn = {"text": "x", "code": None, "result": None, "tool_text": None, "num_tokens": 1, "logprobs": [-0.5]}
        problem = {"id": "p", "statement": "?", "type": "integer", "low": 0, "high": 9}
        with closing(RunStore.create(path)) as store:
            store.append(TraceEvent("run_started", 0.0, {"config": {}, "problems": [problem]}, version=1))
            store.append(TraceEvent("turn_finished", 1.0, {"turn": turn}, "p", "p#0", version=1))
        with closing(RunStore.open(path)) as store:
            store.append(TraceEvent("turn_finished", 2.0, {"turn": encode(Turn("y", top_means=(-9.0,)))}, "p", "p#0"))
        with closing(RunStore.read(path)) as store:
            turns = fold_run(store.events()).problems["p"].unfinished["p#0"]
        assert turns == (Turn("x", num_tokens=1, logprobs=(-0.5,)), Turn("y", top_means=(-9.0,)))

    @pytest.mark.parametrize("damage", ["all but the first page", "truncated", "inside a long event"])
    def test_a_damaged_store(self, tmp_path: Path, damage: str) -> None:
        path = damaged_store(tmp_path / "run.sqlite", damage)
        before = path.read_bytes()
        with pytest.raises(StorageError, match=r"recover"):
            RunStore.open(path)
        assert path.read_bytes() == before, "looking does no further damage"

    def test_an_event_that_cannot_be_decoded(self, tmp_path: Path) -> None:
        path = tmp_path / "run.sqlite"
        RunStore.create(path).close()
        with raw(path) as connection:
            connection.execute(
                "INSERT INTO events (kind, at_s, wall_time, version, data) VALUES ('x', 0, 0, 1, x'00ff')"
            )
        with RunStore.open(path) as store, pytest.raises(StorageError, match="event 1 cannot be decoded"):
            list(store.events())


def test_create_refuses_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        store.append(warning("precious"))
    with pytest.raises(InputError, match="already"):
        RunStore.create(path)
    with RunStore.read(path) as store:
        assert messages(store) == ["precious"]


def test_create_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        RunStore.create(tmp_path / "missing" / "run.sqlite")


def test_a_store_locked_by_another_program_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathlete.lab.store_connection._BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "run.sqlite"
    with RunStore.create(path) as store:
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="locked.*nobody holds it"):
                store.append(warning("refused"))
        store.append(warning("kept"))
        assert messages(store) == ["kept"]


def test_a_full_disk_is_reported_and_survived(small_disk: Path) -> None:
    path = small_disk / "run.sqlite"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(400_000))
    with RunStore.create(path) as store:
        kept = []
        with pytest.raises(StorageError, match=r"run\.sqlite.*every event before this one is safe.*free some space"):
            for n in range(2_000):
                store.append(TraceEvent("warning", 0.0, {"message": f"{n} {os.urandom(2000).hex()}"}))
                kept.append(n)
        assert kept, "some events fitted"
        assert len(messages(store)) == len(kept), "what was acknowledged can be read while the disk is full"
        with pytest.raises(StorageError):
            store.append_many([warning("y" * 30 + os.urandom(60_000).hex())])
        filler.unlink()
        store.append(warning("after"))
    with RunStore.open(path) as store:
        numbers = [message.split()[0] for message in messages(store)]
    assert numbers == [*(str(n) for n in kept), "after"]


def test_a_run_killed_on_a_full_disk_can_be_opened_again(small_disk: Path) -> None:
    path = small_disk / "run.sqlite"
    child = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=60)
    assert "StorageError" in child.stderr
    acknowledged = [int(line) for line in child.stdout.split()]
    with RunStore.read(path) as store:
        assert messages(store) == [str(n) for n in range(len(acknowledged))]


def test_a_new_run_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(StorageError, match="run"):
        RunStore.create(small_disk / "run.sqlite")


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_cut_off_run_on_a_full_disk_is_not_called_damaged(tmp_path: Path, small_disk: Path) -> None:
    with RunStore.create(tmp_path / "run.sqlite") as store:
        store.append(warning("kept"))
        for name in ("run.sqlite", "run.sqlite-wal"):  # as a crash leaves them
            shutil.copy(tmp_path / name, small_disk / name)
    (small_disk / "run.lock").write_text("1\n")
    filler = fill(small_disk)
    for opening in (RunStore.open, RunStore.read):
        with pytest.raises(StorageError, match="everything recorded so far is safe; free some space"):
            opening(small_disk / "run.sqlite")
    filler.unlink()
    with RunStore.open(small_disk / "run.sqlite") as store:
        assert messages(store) == ["kept"]
