"""Runs and recordings in one store: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.core.errors import InputError, StorageError
from mathlete.core.problem import Problem
from mathlete.core.record import RunRecord, fold_run
from mathlete.core.trace import TraceEvent
from mathlete.lab.gathering import VOTED, GatheredRun, add_recording, gather_runs
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.run_finding import find_runs
from mathlete.lab.run_reading import read_figures
from mathlete.lab.run_store import RunStore, list_runs
from recorded_runs import attempt, run_events

NUM_KILLS = 6

# Copies a few events at a time, and says so after each copy.
CHILD = """
import sys
from pathlib import Path
from mathlete.lab import gathering
from mathlete.lab.run_finding import find_runs

gathering.BLOCK_BYTES = 1
gathering.gather_runs(find_runs(sys.argv[1], Path()), Path(sys.argv[2]), lambda *told: print(told, flush=True))
"""


def make_run(runs: Path, name: str, events: list[TraceEvent]) -> Path:
    (runs / name).mkdir(parents=True)
    with RunStore.create(runs / name / "run.sqlite") as store:
        store.append_many(events)
    return runs / name / "run.sqlite"


def read(path: Path, run_id: str | None = None) -> list[TraceEvent]:
    with RunStore.read(path, run_id) as store:
        return list(store.events())


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of three runs."""
    for number, name in enumerate("abc"):
        make_run(tmp_path / "runs", name, run_events(start_s=1000.0 * (number + 1)))
    return tmp_path / "runs"


class TestGatherRuns:
    def test_all_runs_of_a_folder(self, runs: Path, tmp_path: Path) -> None:
        into, told = tmp_path / "all.sqlite", []
        gathered = gather_runs(find_runs(str(runs), runs), into, lambda *of: told.append(of))
        num = len(run_events())
        assert gathered == tuple(GatheredRun(name, num, 0) for name in "abc")
        assert [run.id for run in list_runs(into)] == ["a", "b", "c"]
        assert list_runs(into)[1].source == str(runs / "b" / "run.sqlite")
        for name in "abc":
            assert read(into, name) == read(runs / name / "run.sqlite")
        assert told[0] == ("a", 0, num) and told[-1] == ("c", num, num)

    def test_nothing_comes_twice(self, runs: Path, tmp_path: Path) -> None:
        into = tmp_path / "all.sqlite"
        gather_runs(find_runs(str(runs / "a"), runs), into)
        gather_runs(find_runs(str(runs), runs), into)
        again = gather_runs(find_runs(str(runs), runs), into)
        assert again == tuple(GatheredRun(name, 0, len(run_events())) for name in "abc")
        assert read(into, "a") == read(runs / "a" / "run.sqlite")

    def test_a_run_that_went_on_is_continued(self, tmp_path: Path) -> None:
        into, events = tmp_path / "all.sqlite", run_events()
        path = make_run(tmp_path / "runs", "a", events[:5])
        gather_runs(find_runs(str(path), tmp_path), into)
        with RunStore.open(path) as store:
            store.append_many(events[5:])
        assert gather_runs(find_runs(str(path), tmp_path), into) == (GatheredRun("a", len(events) - 5, 5),)
        assert read(into, "a") == events

    def test_a_store_of_many_runs_can_be_gathered_itself(self, runs: Path, tmp_path: Path) -> None:
        first, second = tmp_path / "first.sqlite", tmp_path / "second.sqlite"
        gather_runs(find_runs(str(runs), runs), first)
        gather_runs(find_runs(str(first), runs), second)
        assert gather_runs(find_runs(str(runs), runs), second)[0].num_copied == 0, "they are the same runs"
        assert [run.id for run in list_runs(second)] == ["a", "b", "c"]

    @pytest.mark.parametrize("length", [3, 20, None])
    def test_another_run_of_the_same_name_is_refused(self, runs: Path, tmp_path: Path, length: int | None) -> None:
        into = tmp_path / "all.sqlite"
        gather_runs(find_runs(str(runs / "a"), runs), into)
        other = make_run(tmp_path / "others", "a", run_events(start_s=5000.0)[:length])
        with pytest.raises(InputError, match="a run of the name 'a' that is not the one in"):
            gather_runs(find_runs(str(other), runs), into)
        assert read(into, "a") == run_events()

    def test_an_older_copy_is_said_to_be_one(self, runs: Path, tmp_path: Path) -> None:
        into = tmp_path / "all.sqlite"
        gather_runs(find_runs(str(runs / "a"), runs), into)
        older = make_run(tmp_path / "others", "a", run_events()[:5])
        with pytest.raises(InputError, match="has gone on further.*older copy"):
            gather_runs(find_runs(str(older), runs), into)

    def test_a_store_into_itself(self, runs: Path) -> None:
        with pytest.raises(InputError, match="into itself"):
            gather_runs(find_runs(str(runs), runs), runs / "b" / "run.sqlite")

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no run"):
            gather_runs((), tmp_path / "all.sqlite")

    def test_killed_at_any_moment_it_goes_on(self, runs: Path, tmp_path: Path) -> None:
        into, noise = tmp_path / "all.sqlite", random.Random(3)
        for _ in range(NUM_KILLS):
            child = subprocess.Popen([sys.executable, "-c", CHILD, runs, into], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            with child, child.stdout:
                for _ in range(noise.randrange(1, 20)):
                    child.stdout.readline()
                child.send_signal(signal.SIGKILL)
            for run in list_runs(into):
                events = read(into, run.id)
                assert events == read(runs / run.id / "run.sqlite")[: len(events)]
        gather_runs(find_runs(str(runs), runs), into)
        assert [read(into, name) for name in "abc"] == [read(runs / name / "run.sqlite") for name in "abc"]

    def test_no_room(self, runs: Path, small_disk: Path) -> None:
        into = small_disk / "all.sqlite"
        filler = small_disk / "filler"
        filler.write_bytes(bytes(930_000))
        with pytest.raises(StorageError, match="free some space"):
            gather_runs(find_runs(str(runs), runs), into)
        filler.unlink()
        gather_runs(find_runs(str(runs), runs), into)
        assert [read(into, name) for name in "abc"] == [read(runs / name / "run.sqlite") for name in "abc"]


def recorded(problem_id: str, gold: str = "1", group: str = "base") -> RecordedProblem:
    attempts = tuple(
        replace(attempt(problem_id, n, answer), model=f"m{n}") for n, answer in enumerate(("1", "x", None))
    )
    check = attempt(problem_id, 3, None, "sympy_check")
    return RecordedProblem(Problem(problem_id, "How many?"), gold, group, attempts, (True, True, False), (check,))


def folded(path: Path, run_id: str) -> RunRecord:
    return fold_run(read(path, run_id))


class TestAddRecording:
    def test_everything_is_kept(self, tmp_path: Path) -> None:
        path, problems = tmp_path / "all.sqlite", [recorded("p"), recorded("q", "2/3", "other")]
        assert add_recording(path, "theirs", "their.jsonl", problems).id == "theirs"
        run = folded(path, "theirs")
        assert list_runs(path)[0].source == run.config["source"] == "their.jsonl"
        assert (run.config["command"], run.config["attempts"], run.finished) == ("import", 3, "complete")
        assert run.stats == {"num_problems": 2, "num_attempts": 8}
        for item in problems:
            record = run.problems[item.problem.id]
            assert record.problem == item.problem and (record.gold, record.group) == (item.gold, item.group)
            assert record.attempts == (*item.attempts, *item.checks)
            assert record.correct == {item.attempts[0].id, item.attempts[1].id}, "what they say, not what we compare"
            assert not record.unfinished and (record.opened_at_s, record.stop_reason) == (None, VOTED)
            chosen = record.selection
            assert chosen is not None and (chosen.rule, chosen.answer, chosen.confidence) == ("majority", "1", 0.5)
        with RunStore.read(path, "theirs") as store:
            assert read_figures(store).num_right == 2, "told without the attempts being read"

    def test_one_model_is_told(self, tmp_path: Path) -> None:
        one = recorded("p")
        of_one = replace(one, attempts=tuple(replace(item, model="theirs") for item in one.attempts))
        add_recording(tmp_path / "all.sqlite", "one", "f", [of_one])
        add_recording(tmp_path / "all.sqlite", "many", "f", [one])
        assert folded(tmp_path / "all.sqlite", "one").config["model"] == "theirs"
        assert folded(tmp_path / "all.sqlite", "many").config["model"] is None

    def test_problems_are_taken_one_by_one(self, tmp_path: Path) -> None:
        taken = []

        def problems() -> Iterator[RecordedProblem]:
            for number in range(3):
                taken.append(number)
                yield recorded(f"p{number}")

        add_recording(tmp_path / "all.sqlite", "theirs", "f", problems())
        assert list(folded(tmp_path / "all.sqlite", "theirs").problems) == ["p0", "p1", "p2"] and taken == [0, 1, 2]

    def test_a_recording_that_breaks_leaves_nothing(self, tmp_path: Path) -> None:
        def broken() -> Iterator[RecordedProblem]:
            yield recorded("p")
            raise InputError("line 2 is broken")

        path = tmp_path / "all.sqlite"
        with pytest.raises(InputError, match="line 2 is broken"):
            add_recording(path, "theirs", "f", broken())
        assert [left.name for left in tmp_path.iterdir()] == ["all.lock"]
        add_recording(path, "first", "f", [recorded("p")])
        with pytest.raises(InputError, match="line 2 is broken"):
            add_recording(path, "theirs", "f", broken())
        assert [run.id for run in list_runs(path)] == ["first"]
        add_recording(path, "theirs", "f", [recorded("p")])
        assert [run.id for run in list_runs(path)] == ["first", "theirs"]

    def test_what_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "all.sqlite"
        with pytest.raises(InputError, match="problem 'p' is twice in f"):
            add_recording(path, "theirs", "f", [recorded("p"), recorded("p")])
        with pytest.raises(InputError, match="no recorded attempts in f"):
            add_recording(path, "theirs", "f", [])
        add_recording(path, "theirs", "f", [recorded("p")])
        with pytest.raises(InputError, match="a run 'theirs' in the store .* already"):
            add_recording(path, "theirs", "f", [recorded("p")])
