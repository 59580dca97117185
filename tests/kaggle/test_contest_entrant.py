"""The entrant: an integer in time, whatever happens inside."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from scripted_contest import BrokenGenerator
from scripted_contest import contest as scripted

from mathlete.compose import LoadedGenerator, build_sandbox
from mathlete.core.errors import EngineError, InputError, StorageError
from mathlete.core.generation import GeneratorEvent
from mathlete.core.record import RunRecord, fold_run
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.kaggle.contest_run import Contest
from mathlete.kaggle.contest_sink import clamped
from mathlete.kaggle.entrant import MAX_STATEMENT_CHARS, NO_STATEMENT, ContestEntrant, question_of
from mathlete.kaggle.processes import descendants
from mathlete.lab.run_store import RunStore
from mathlete.run_config import RunConfig
from no_sandbox import NoSandbox


def contest(folder: Path, **options: Any) -> Contest:
    return scripted(folder, **{"make_sandbox": NoSandbox, **options})


@contextmanager
def playing(contest: Contest, **options: Any) -> Iterator[ContestEntrant]:
    with ContestEntrant(contest, Console(quiet=True), **options) as entrant:
        yield entrant


def record_of(entrant: ContestEntrant) -> RunRecord:
    with RunStore.read(entrant.folder / "run.sqlite") as store:
        return fold_run(store.events())


def loading(make: Callable[[], Any]) -> Callable[[RunConfig, Console], LoadedGenerator]:
    return lambda config, console: LoadedGenerator(make(), "scripted")


def test_problems_are_answered_and_recorded(tmp_path: Path) -> None:
    with playing(contest(tmp_path)) as entrant:
        assert [entrant.predict(f"p{i}", f"What are {i} + {i}?") for i in range(3)] == [0, 2, 4]
    record = record_of(entrant)
    assert [item.selection and item.selection.answer for item in record.problems.values()] == ["0", "2", "4"]
    assert record.finished == "complete" and not record.warnings
    assert {"report.html", "submission.csv", "submission.parquet", "attempts.jsonl"} <= {
        path.name for path in entrant.folder.iterdir()
    }
    shares = [item.moments[0].data["budget_s"] for item in record.problems.values()]
    assert shares == [pytest.approx(share, rel=0.2) for share in (10, 15, 30)], "banked time goes on"


def test_the_same_problem_again_has_the_same_answer_at_once(tmp_path: Path) -> None:
    with playing(contest(tmp_path)) as entrant:
        first = entrant.predict("p", "What are 1 + 1?")
        start_s = time.monotonic()
        assert entrant.predict("p", "What are 1 + 1?") == first == 2
        assert time.monotonic() - start_s < 0.05
        assert entrant.predict("p", "What are 5 + 5?") == 10, "another problem of the same name is another problem"
        assert entrant.predict("p", "What are 5 + 5?") == 10
        assert entrant.num_answered == 2
    assert list(record_of(entrant).problems) == ["p", "p (2)"]


def test_more_problems_than_announced_and_fewer(tmp_path: Path) -> None:
    with playing(contest(tmp_path, num_problems=1)) as entrant:
        assert [entrant.predict(i, f"What are {i} + 3?") for i in range(3)] == [3, 4, 5]
    with playing(contest(tmp_path, num_problems=9)) as entrant:
        assert entrant.predict(1, "What are 1?") == 1
    assert record_of(entrant).finished == "interrupted"


def test_an_engine_that_fails_is_loaded_again(tmp_path: Path) -> None:
    failures = iter([RuntimeError("out of luck"), EngineError("out of memory")])
    loads: list[int] = []

    def make() -> BrokenGenerator:
        loads.append(1)
        return BrokenGenerator(lambda: next(failures, None))

    with playing(contest(tmp_path, load=loading(make))) as entrant:
        assert entrant.predict("p", "What are 20 + 3?") == 23
    assert len(loads) == 3
    assert [message.split(": ", 1)[1] for message in record_of(entrant).warnings] == [
        "failed and is started again: RuntimeError('out of luck')",
        "failed and is started again: out of memory",
    ]


def test_attempts_that_had_ended_count_when_the_engine_fails(tmp_path: Path) -> None:
    """An engine that never comes back: the answer is that of the attempts before."""
    turns = iter(range(1_000))

    def failure() -> BaseException | None:
        return RuntimeError("gone") if next(turns) > 60 else None

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        if next(loads) > 0:
            raise EngineError("no GPU any more")
        return LoadedGenerator(BrokenGenerator(failure), "scripted")

    loads = iter(range(1_000))
    asked = contest(tmp_path, budget_s=4.0, num_problems=2, attempts=64, policy="fixed", load=load)
    with playing(asked) as entrant:
        assert entrant.predict("p", "What are 20 + 3?") == 23
        assert entrant.predict("q", "What are 20 + 4?") == 0, "and later ones have the fallback"
    record = record_of(entrant)
    assert record.problems["p"].attempts and record.problems["p"].stop_reason == "the engine failed"
    assert any("no GPU any more" in message for message in record.warnings)


def test_an_engine_that_never_loads_costs_no_answer(tmp_path: Path) -> None:
    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        raise ValueError("a defect")

    with playing(contest(tmp_path, budget_s=1.5, load=load)) as entrant:
        assert [entrant.predict(i, "What are 1?") for i in range(3)] == [0, 0, 0]
    assert set(record_of(entrant).problems) == {"0", "1", "2"}


class Hanging(BrokenGenerator):
    """Does not come back, until it is let go."""

    def __init__(self, let_go: threading.Event, num_before: int) -> None:
        super().__init__(lambda: None)
        self._let_go, self._num_left = let_go, num_before

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        self._num_left -= 1
        if self._num_left < 0:
            self._let_go.wait()
        return super().events(timeout_s)


def test_an_engine_that_hangs_does_not_hang_the_gateway(tmp_path: Path) -> None:
    let_go = threading.Event()
    asked = contest(tmp_path, budget_s=3.0, num_problems=2, attempts=64, policy="fixed",
                    load=loading(lambda: Hanging(let_go, 15)))  # fmt: skip
    entrant = ContestEntrant(asked, Console(quiet=True), grace_s=0.2)
    start_s = time.monotonic()
    assert entrant.predict("p", "What are 20 + 3?") == 23, "the leader of the attempts that had ended"
    assert entrant.predict("q", "What are 1 + 1?") == 0
    assert 2.0 < time.monotonic() - start_s < 4.0
    let_go.set()
    entrant.close()
    assert entrant.predict("p", "What are 20 + 3?") == 23, "what was handed in stands"


def test_no_token_at_all_has_the_engine_loaded_again_once(tmp_path: Path) -> None:
    loads: list[int] = []

    def make() -> ScriptedGenerator:
        loads.append(1)
        return ScriptedGenerator(lambda request: Reply.failing("lost"))

    with playing(contest(tmp_path, load=loading(make))) as entrant:
        assert entrant.predict("p", "What are 1?") == 0
    assert len(loads) == 2
    assert "p: not one token came; the engine is loaded again" in record_of(entrant).warnings


def test_a_full_disk_does_not_end_the_contest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_full, append = threading.Event(), RunStore.append_many

    def appending(store: RunStore, events: Any) -> None:
        if is_full.is_set():
            raise StorageError("No space left on device")
        append(store, events)

    monkeypatch.setattr(RunStore, "append_many", appending)
    with playing(contest(tmp_path)) as entrant:
        assert entrant.predict("p", "What are 1 + 1?") == 2
        is_full.set()
        assert entrant.predict("q", "What are 2 + 2?") == 4
        is_full.clear()
        assert entrant.predict("r", "What are 3 + 3?") == 6
    record = record_of(entrant)
    answers = {key: item.selection and item.selection.answer for key, item in record.problems.items()}
    assert answers == {"p": "2", "q": "4", "r": "6"}, "what waited in memory is in the store again"


def test_a_contest_that_was_cut_off_is_taken_up_with_its_clock(tmp_path: Path) -> None:
    asked = contest(tmp_path, run_id="mine", budget_s=60.0)
    with playing(asked) as first:
        assert first.predict("p", "What are 1 + 1?") == 2
    time.sleep(1.1)
    with playing(contest(tmp_path, run_id="mine", budget_s=999.0, num_problems=77)) as again:
        start_s = time.monotonic()
        assert again.predict("p", "What are 1 + 1?") == 2
        assert time.monotonic() - start_s < 0.1
        assert again.predict("q", "What are 2 + 1?") == 3
    record = record_of(again)
    assert record.config["budget_s"] == 60.0 and record.config["num_problems"] == 3, "as it was begun"
    opened = [item.opened_at_s for item in record.problems.values()]
    assert opened[0] is not None and opened[1] is not None and opened[1] - opened[0] > 1.0, "time went on meanwhile"
    assert any("taken up again" in message for message in record.warnings)


def test_a_run_that_is_no_contest_is_not_taken_up(tmp_path: Path) -> None:
    with playing(contest(tmp_path, run_id="mine")) as entrant:
        with pytest.raises(InputError, match="is still running"):
            ContestEntrant(contest(tmp_path, run_id="mine"), Console(quiet=True))
        assert entrant.predict("p", "What are 1?") == 1
    (tmp_path / "runs" / "other").mkdir()
    with RunStore.create(tmp_path / "runs" / "other" / "run.sqlite") as store:
        store.append(TraceEvent("run_started", 0.0, {"config": {"command": "solve"}, "problems": []}))
    with pytest.raises(InputError, match="is no run of a contest"):
        ContestEntrant(contest(tmp_path, run_id="other"), Console(quiet=True))


@pytest.mark.parametrize(
    ("key", "statement", "name", "text"),
    [
        ("a", "What?", "a", "What?"),
        (7, "What?", "7", "What?"),
        (None, "What?", "problem-4", "What?"),
        (math.nan, None, "problem-4", NO_STATEMENT),
        ("  ", "  \n", "problem-4", NO_STATEMENT),
        ("a" * 999, math.nan, "a" * 200, NO_STATEMENT),
        ("a", "x" * 200_000, "a", "x" * MAX_STATEMENT_CHARS),
        ("\ud800", "\ud800?", "?", "??"),
        ("a", 42, "a", "42"),
    ],
)
def test_what_a_call_asks(key: object, statement: object, name: str, text: str) -> None:
    question = question_of(key, statement, 4)
    assert (question.problem.id, question.problem.statement) == (name, text)
    assert question.is_blank == (text == NO_STATEMENT)


def test_a_problem_without_a_statement_takes_no_time(tmp_path: Path) -> None:
    with playing(contest(tmp_path)) as entrant:
        start_s = time.monotonic()
        assert entrant.predict("p", None) == 0
        assert time.monotonic() - start_s < 2
        assert entrant.predict("q", "What are 1 + 1?") == 2
    assert record_of(entrant).problems["p"].stop_reason == "it came without a statement"


@pytest.mark.parametrize(
    ("answer", "handed_in"),
    [("7", 7), ("-3", 0), ("100000", 99_999), (None, 0), ("x", 0), ("9" * 5000, 0), ("99999", 99_999), ("007", 7)],
)
def test_what_is_handed_in_is_admitted(answer: str | None, handed_in: int) -> None:
    assert clamped(answer) == handed_in


WILD = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5), st.lists(st.none())
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WILD, WILD, st.integers(0, 5)), min_size=1, max_size=4))
def test_predict_never_raises(tmp_path: Path, calls: list[tuple[object, object, int]]) -> None:
    """Whatever comes, and whatever the engine does: raise, say nothing, say nonsense, refuse to load or to close."""
    mood = iter([number for _, _, number in calls] * 50)

    class Moody(BrokenGenerator):
        def close(self) -> None:
            if next(mood, 0) == 1:
                raise OSError("will not close")

        def submit(self, request: Any) -> None:
            if next(mood, 0) == 2:
                raise EngineError("will not take it")
            super().submit(request)

        def abort(self, **which: Any) -> None:
            if next(mood, 0) == 3:
                raise KeyError("will not end it")
            super().abort(**which)

    def failure() -> BaseException | None:
        return MemoryError("enough") if next(mood, 0) == 4 else None

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        if next(mood, 0) == 5:
            raise EngineError("will not load")
        return LoadedGenerator(Moody(failure), "moody")

    with playing(contest(tmp_path, budget_s=0.4, attempts=2, load=load)) as entrant:
        for key, statement, _ in calls:
            answer = entrant.predict(key, statement)
            assert type(answer) is int and 0 <= answer <= 99_999


def test_programs_run_in_a_sandbox_that_may_die(tmp_path: Path) -> None:
    """The process that programs are forked from is killed."""
    with playing(contest(tmp_path, make_sandbox=build_sandbox)) as entrant:
        assert entrant.predict("p", "What is 1 + 1?") == 2
        for entry in descendants(os.getpid()):
            if "mathlete.sandbox" in entry.command:
                os.kill(entry.pid, signal.SIGKILL)
                break
        assert entrant.predict("q", "What is 2 + 2?") == 4
