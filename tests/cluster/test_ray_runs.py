"""Runs over several workers of a Ray cluster, two nodes' worth of processes: as in one process, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import scripted_cluster
from rich.console import Console

from mathlete.cluster.crew import RayCrew
from mathlete.cluster.slots import ClusterSpec
from mathlete.core.errors import EngineError, InputError
from mathlete.core.problem import Problem
from mathlete.core.record import RunRecord, fold_run
from mathlete.lab.run_store import RunStore, list_runs
from mathlete.lab.tasks import Task
from mathlete.run_config import RunConfig
from mathlete.session.crew import OpenCrew
from mathlete.session.run_session import SessionResult, resume_run, start_run
from mathlete.session.sweep import Sweep, begin_sweep, run_sweep
from mathlete.triad.progress import RunProgress

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'mathlete[cluster]'")
pytestmark = pytest.mark.slow

HERE = str(Path(__file__).parent)
TASKS = [Task(Problem(f"p{i}", f"What is {i} + {2 * i}?"), str(3 * i), f"p{i}") for i in range(24)]
CONFIG = RunConfig(
    "evaluate", None, "scripted", 120.0, attempts=4, max_in_flight=8, pillars=("reasoning",), max_tokens=200
)


# In a process of its own: Ray leaves processes of a node behind without waiting for them.
NODES = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 2, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes on this machine; this process is connected to it."""
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", NODES], env=env, stdin=pipe, stdout=pipe, text=True) as nodes:
        assert nodes.stdout is not None and nodes.stdin is not None
        address = nodes.stdout.readline().strip()
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", namespace="mathlete")
            assert len(ray.nodes()) == 2
            yield address
        finally:
            ray.shutdown()
            nodes.stdin.close()
            nodes.wait()


class Crews:
    """Opens crews and remembers the last one."""

    def __init__(self, address: str, faults: Path | None = None, **options: object) -> None:
        env = {"PYTHONPATH": HERE, **({} if faults is None else {"MATHLETE_TEST_FAULTS": str(faults)})}
        told = {"num_workers": 3, "loader": "scripted_cluster:load", "env": env, **options}
        self.spec = ClusterSpec(address, **told)  # type: ignore[arg-type]
        self.last: RayCrew | None = None

    def open(self, config: RunConfig, problems: list[Problem], console: Console) -> RayCrew:
        self.last = RayCrew(self.spec, config, problems, console)
        return self.last

    def pids(self) -> list[int]:
        assert self.last is not None
        return [slot.facts.pid for slot in self.last.slots.living if slot.facts is not None]


def num_done(progress: RunProgress) -> int:
    return sum(row.state == "done" for row in progress.problems)


def run(
    tmp_path: Path, open_crew: OpenCrew | None, watch: Callable[[RunProgress], None] | None = None, **options: object
) -> SessionResult:
    config = replace(CONFIG, **options)  # type: ignore[arg-type]
    load = scripted_cluster.load if open_crew is None else None
    return start_run(config, TASKS, tmp_path / "runs", Console(stderr=True), load, watch=watch, open_crew=open_crew)


def attempts_of(record: RunRecord) -> dict[str, tuple[str | None, int, str]]:
    """What was written, by attempt."""
    return {
        attempt.id: (attempt.answer, attempt.num_tokens, attempt.turns[-1].text)
        for item in record.problems.values()
        for attempt in item.attempts
    }


def answers_of(record: RunRecord) -> dict[str, str]:
    return {key: item.selection.answer for key, item in record.problems.items() if item.selection is not None}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The same run in one process."""
    return run(tmp_path_factory.mktemp("alone"), None).record


def assert_whole(result: SessionResult, alone: RunRecord) -> None:
    """Every problem was answered once, and as in one process, attempt by attempt."""
    assert result.record.finished == "complete"
    assert answers_of(result.record) == answers_of(alone) and len(answers_of(alone)) == len(TASKS)
    assert attempts_of(result.record) == attempts_of(alone)
    assert all(len(item.attempts) == 4 for item in result.record.problems.values()), "no attempt twice"
    with RunStore.read(result.folder.store_path) as store:
        ends = [event.problem_id for event in store.events(kinds=["problem_finished"])]
        assert sorted(ends) == sorted(task.problem.id for task in TASKS), "one end each"
        assert store.num_events("gold_revealed") == len(TASKS)
        for task in TASKS:  # in order for each problem
            times = [event.at_s for event in store.events(problem_id=task.problem.id)]
            kinds = [event.kind for event in store.events(problem_id=task.problem.id)]
            assert kinds[0] == "problem_opened" and kinds[-2:] == ["problem_finished", "gold_revealed"]
            assert times[-1] >= times[0] >= 0
    assert result.folder.report_html.is_file()


def test_three_workers_do_what_one_process_does(address: str, tmp_path: Path, alone: RunRecord) -> None:
    crews = Crews(address)
    seen: list[set[int]] = []
    result = run(tmp_path, crews.open, lambda progress: seen.append(set(crews.pids())))
    assert_whole(result, alone)
    assert len(max(seen, key=len)) == 3, "three processes worked"
    assert result.record.config["num_workers"] == 3 and result.record.warnings == ()


def test_a_worker_killed_in_the_middle(address: str, tmp_path: Path, alone: RunRecord) -> None:
    crews = Crews(address)
    killed: list[int] = []

    def kill(progress: RunProgress) -> None:
        if not killed and num_done(progress) >= 6 and len(crews.pids()) == 3:
            killed.append(crews.pids()[1])
            os.kill(killed[0], signal.SIGKILL)

    result = run(tmp_path, crews.open, kill)
    assert killed
    assert_whole(result, alone)
    (warning,) = result.record.warnings
    assert f"process {killed[0]}" in warning and "replaced (1 of at most 3 times)" in warning


def test_a_worker_that_cannot_load_and_one_that_dies_of_it(address: str, tmp_path: Path, alone: RunRecord) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    for name in ("refused", "killed"):
        (faults / f"{name}.fault").touch()
    result = run(tmp_path, Crews(address, faults).open, **{"max_in_flight": 4})
    assert_whole(result, alone)
    told = "\n".join(result.record.warnings)
    assert "cannot load its engine: there is no model on this host" in told
    assert "died" in told and "it is replaced" in told


def test_no_worker_can_load(address: str, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    for i in range(2):
        (faults / f"refused-{i}.fault").touch()
    with pytest.raises(EngineError, match="no worker is left.*there is no model on this host"):
        run(tmp_path, Crews(address, faults, num_workers=2).open)
    assert list((tmp_path / "runs").iterdir()) == [], "nothing was begun, nothing is left"


def test_time_that_runs_out_ends_every_problem(address: str, tmp_path: Path) -> None:
    result = run(tmp_path, Crews(address, num_workers=2).open, budget_s=1.0, attempts=64)
    assert result.record.finished == "budget" and len(answers_of(result.record)) == len(TASKS)
    assert result.record.elapsed_s < 3.0


HEAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rich.console import Console
from test_ray_runs import CONFIG, TASKS, Crews
from mathlete.session.run_session import start_run
start_run(CONFIG, TASKS, Path(sys.argv[2]), Console(stderr=True), open_crew=Crews(sys.argv[3]).open)
"""


def start_head(tmp_path: Path, address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HEAD, HERE, str(tmp_path / "runs"), address])


def wait_for_ends(tmp_path: Path, process: subprocess.Popen[bytes], num: int) -> Path:
    """Until so many problems have ended in the run's store; the run's folder."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        assert process.poll() is None, "it ended before it was to"
        for path in (tmp_path / "runs").glob("*/run.sqlite"):
            with suppress(InputError), RunStore.read(path) as store:  # it may just be made
                if store.num_events("problem_finished") >= num:
                    return path.parent
        time.sleep(0.02)
    raise AssertionError("it takes too long")


def test_the_head_is_killed_and_the_run_gone_on_with(address: str, tmp_path: Path, alone: RunRecord) -> None:
    process = start_head(tmp_path, address)
    folder = wait_for_ends(tmp_path, process, 5)
    process.kill()
    process.wait()
    with RunStore.read(folder / "run.sqlite") as store:
        num_before = store.num_events("problem_finished")
    assert 5 <= num_before < len(TASKS)
    result = resume_run(str(folder), tmp_path / "runs", None, Console(stderr=True), Crews(address).open)
    assert result.record.finished == "complete"
    assert attempts_of(result.record) == attempts_of(alone) and answers_of(result.record) == answers_of(alone)
    with RunStore.read(folder / "run.sqlite") as store:
        assert store.num_events("problem_finished") == len(TASKS), "none was answered again"


def test_ctrl_c_ends_it_in_order(address: str, tmp_path: Path) -> None:
    process = start_head(tmp_path, address)
    folder = wait_for_ends(tmp_path, process, 5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    with RunStore.read(folder / "run.sqlite") as store:
        (finished,) = store.events(kinds=["run_finished"])
        assert finished.data["reason"] == "interrupted"
        assert {event.problem_id for event in store.events(kinds=["problem_finished"])} == {
            task.problem.id for task in TASKS
        }
    result = resume_run(str(folder), tmp_path / "runs", None, Console(stderr=True), Crews(address, num_workers=2).open)
    assert result.record.finished == "complete" and len(answers_of(result.record)) == len(TASKS)


def test_workers_stay_for_all_seeds_of_a_sweep(address: str, tmp_path: Path, alone: RunRecord) -> None:
    crews = Crews(address, num_workers=2)
    num_opened: list[int] = []

    def open_crew(config: RunConfig, problems: list[Problem], console: Console) -> RayCrew:
        num_opened.append(1)
        return crews.open(config, problems, console)

    sweep = Sweep(tmp_path / "sweep", "tasks.csv", {"scripted": CONFIG}, (CONFIG.seed, 7))
    begin_sweep(sweep)
    assert run_sweep(sweep, TASKS, Console(stderr=True), open_crew)
    assert len(num_opened) == 1
    assert [run.id for run in list_runs(sweep.store_path)] == ["scripted-s0", "scripted-s7"]
    with RunStore.read(sweep.store_path, "scripted-s0") as store:
        first = fold_run(store.events())
    with RunStore.read(sweep.store_path, "scripted-s7") as store:
        second = fold_run(store.events())
    assert attempts_of(first) == attempts_of(alone)
    assert len(answers_of(second)) == len(TASKS) and attempts_of(second) != attempts_of(alone)
