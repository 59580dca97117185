"""One model over two processes (gloo on the CPU): the same tokens as one process, and a clear end when one is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from driving import Ended, drive, greedy, load, run_all
from guessing import GuessingProposer
from tiny_qwen import TinyModel

from mathlete.core.errors import EngineError, ModelError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.hidden_states import HiddenPositions
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.model.native.kernels import NativeKernels
from mathlete.ryanstream.parallel.messages import ExportBlocks
from mathlete.ryanstream.parallel.runner import ParallelRunner
from mathlete.ryanstream.parallel.workers import Workers
from mathlete.ryanstream.rank_loading import RankTask
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import SchedulerConfig
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.speculation import Speculation

NUM_BLOCKS = 64
NEW_TOKENS = 20
LENGTHS = (1, 5, 15, 16, 17, 33, 48, 70)
# Sums over two ranks are made in another order; measured: 4e-6.
LOGPROB_TOLERANCE = 5e-5
# What a user may have to wait for the news; measured: well below a second.
NOTICED_S = 5.0
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randint(0, 260, (length,), generator=noise).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(tiny: TinyModel, engine_cache: Path, prompts: list[list[int]]) -> Ended:
    """What one process says."""
    engine = load(tiny.folder, engine_cache, NUM_BLOCKS, precision="fp32").engine
    return run_all(engine, prompts, [greedy(NEW_TOKENS)] * len(prompts))


@pytest.fixture(scope="module")
def pair(tiny: TinyModel, engine_cache: Path) -> Iterator[LoadedEngine]:
    loaded = load(tiny.folder, engine_cache, NUM_BLOCKS, precision="fp32", tensor_parallel=2)
    yield loaded
    pids = pids_of(loaded)
    loaded.close()
    assert not any(alive(pid) for pid in pids)


def pids_of(loaded: LoadedEngine) -> tuple[int, ...]:
    assert loaded.workers is not None
    return loaded.workers.pids


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def soon(condition: Callable[[], bool], within_s: float = NOTICED_S) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def fresh_engine(pair: LoadedEngine, num_blocks: int = NUM_BLOCKS, **limits: int) -> Engine:
    """Another engine on the same ranks: processes are slow to start."""
    config = SchedulerConfig(**{"max_model_len": 128, **limits})
    return Engine(pair.engine.runner, num_blocks, pair.tokenizer.eos_token_ids, pair.token_bytes, config)


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_step_tokens": 7}, {"max_running": 2}, {"num_blocks": 9}],
    ids=["at once", "chunks of 7", "two at a time", "few blocks"],
)
def test_two_processes_say_what_one_says(
    pair: LoadedEngine, prompts: list[list[int]], expected: Ended, limits: dict[str, int]
) -> None:
    ended = run_all(fresh_engine(pair, **limits), prompts, [greedy(NEW_TOKENS)] * len(prompts))
    assert (ended.num_preempted > 0) == ("num_blocks" in limits)
    for i in range(len(prompts)):
        ours, theirs = ended.outputs[str(i)].request, expected.outputs[str(i)].request
        assert ours.output_ids == theirs.output_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=LOGPROB_TOLERANCE)
        assert ours.entropies == pytest.approx(theirs.entropies, abs=10 * LOGPROB_TOLERANCE)


def test_the_engine_tells_the_whole_models_shape(pair: LoadedEngine) -> None:
    assert (pair.config.num_heads, pair.config.num_kv_heads, pair.config.vocab_size) == (4, 2, 288)
    assert pair.engine.runner.cache[0].keys.shape[1] == 1, "and each rank keeps its own heads' keys"


def test_hidden_states_are_whole(
    pair: LoadedEngine, tiny: TinyModel, engine_cache: Path, prompts: list[list[int]]
) -> None:
    one = load(tiny.folder, engine_cache, NUM_BLOCKS, precision="fp32").engine
    kept = []
    for engine in (one, fresh_engine(pair)):
        engine.add("x", prompts[5], greedy(1), hidden=HiddenPositions(frozenset([3, 32])))
        kept.append(drive(engine).outputs["x"].request.hidden)
    assert kept[0].keys() == kept[1].keys() == {3, 32}
    for position, state in kept[0].items():
        torch.testing.assert_close(kept[1][position], state, rtol=0, atol=2e-5)


def test_a_fork_copies_blocks_on_every_rank(pair: LoadedEngine, prompts: list[list[int]], expected: Ended) -> None:
    """Both go on in the middle of a block that they share; whoever writes first gets a copy."""
    engine = fresh_engine(pair)
    engine.add("parent", prompts[4], greedy(NEW_TOKENS))
    for _ in range(4):
        engine.step()
    engine.fork("parent", "child", greedy(NEW_TOKENS))
    ended = drive(engine)
    assert ended.ids("parent") == ended.ids("child") == expected.ids("4")


def test_drafts_are_computed_and_moved_on_every_rank(
    pair: LoadedEngine, prompts: list[list[int]], expected: Ended
) -> None:
    told = {str(i): expected.ids(str(i)) for i in range(len(prompts))}

    def oracle(request: EngineRequest, path: tuple[int, ...]) -> int:
        at = len(request.output_ids) + len(path)
        ids = told[request.request_id]
        return ids[at] if at < len(ids) else 0

    speculation = Speculation(GuessingProposer(oracle, 260, 0.7, True), FixedDepth(4, 8))
    pair.engine.speculation = speculation
    try:
        ended = run_all(pair.engine, prompts, [greedy(NEW_TOKENS)] * len(prompts))
    finally:
        pair.engine.speculation = None
    assert all(ended.ids(name) == ids for name, ids in told.items())
    assert speculation.statistics.num_accepted > 50


def test_blocks_are_exported_and_imported_on_every_rank(pair: LoadedEngine, prompts: list[list[int]]) -> None:
    run_all(fresh_engine(pair), [prompts[7]], [greedy(2)])
    runner = pair.engine.runner
    assert isinstance(runner, ParallelRunner)
    exported = runner.export_blocks([0, 1])
    assert {"rank0/0.keys", "rank1/0.keys", "rank1/2.values"} < set(exported)
    assert not torch.equal(exported["rank0/0.keys"], exported["rank1/0.keys"]), "the ranks have other heads"
    runner.import_blocks([40, 41], exported)
    again = runner.export_blocks([40, 41])
    assert all(torch.equal(again[name], tensor) for name, tensor in exported.items())
    only_ours = {name: tensor for name, tensor in exported.items() if name.startswith("rank0")}
    with pytest.raises(ValueError, match="another number of ranks"):
        runner.import_blocks([40, 41], only_ours)


def test_int8_on_the_native_kernels(
    tiny: TinyModel, engine_cache: Path, prompts: list[list[int]], kernels: NativeKernels
) -> None:
    """Other roundings than in one process, so texts part ways; what is said at first must be as likely."""
    one = run_all(load(tiny.folder, engine_cache, precision="w8a8").engine, prompts, [greedy(1)] * len(prompts))
    loaded = load(tiny.folder, engine_cache, precision="w8a8", tensor_parallel=2)
    assert loaded.kernels == "native" and kernels is not None
    two = run_all(loaded.engine, prompts, [greedy(1)] * len(prompts))
    loaded.close()
    ours, theirs = ([run.outputs[str(i)].request.entropies[0] for i in range(len(prompts))] for run in (two, one))
    assert ours == pytest.approx(theirs, abs=0.1)
    assert max(theirs) - min(theirs) > 0.25, "entropies that are all alike would make the comparison empty"


def test_a_killed_worker_is_an_error_within_seconds(tiny: TinyModel, engine_cache: Path) -> None:
    loaded = load(tiny.folder, engine_cache, precision="fp32", tensor_parallel=2)
    (pid,) = pids_of(loaded)
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C in a terminal reaches the engine's process only"
    engine = loaded.engine
    for i in range(3):
        engine.add(str(i), [1, 2, 3 + i], SamplingParams(temperature=1, seed=i, max_tokens=100, ignore_eos=True))
    for _ in range(5):
        engine.step()
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(EngineError, match=rf"rank 1 of 2 \(process {pid}\).* was killed by SIGKILL .*Load the model"):
        for _ in range(50):
            engine.step()
    assert time.monotonic() - start < NOTICED_S
    assert not alive(pid)
    with pytest.raises(EngineError, match="was killed by SIGKILL"):  # and so it stays
        engine.step()
    loaded.close()
    loaded.close()


def test_a_stopped_worker_is_given_up(tiny: TinyModel, engine_cache: Path) -> None:
    """The sum waits for a rank that lives but does not answer."""
    workers = Workers([CPU, CPU], [task(tiny.folder, engine_cache)], timeout_s=2)
    workers.wait_until_loaded(num_blocks=4)
    (pid,) = workers.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=rf"no answer within 2 s .*process {pid}.*may be stopped"):
        with workers.work([ExportBlocks((0,))]):
            workers.group.sum_(torch.ones(1))
    assert not alive(pid)
    workers.close()


def test_a_step_that_rank_0_breaks_off_ends_the_model(tiny: TinyModel, engine_cache: Path) -> None:
    """The other ranks are in the middle of it, so nothing after it could be right."""
    workers = Workers([CPU, CPU], [task(tiny.folder, engine_cache)])
    workers.wait_until_loaded(num_blocks=4)
    (pid,) = workers.pids
    with pytest.raises(KeyboardInterrupt), workers.work([ExportBlocks((0,))]):
        raise KeyboardInterrupt
    assert not alive(pid)
    with pytest.raises(EngineError, match=r"was broken off \(KeyboardInterrupt\(\)\); load the model again"):
        with workers.work([ExportBlocks((0,))]):
            pass


def task(folder: Path, cache: Path, ranks: int = 2) -> RankTask:
    config = EngineConfig(precision="fp32", max_model_len=128, num_threads=1, tensor_parallel=ranks)
    return RankTask(folder, cache, config)


def test_a_worker_that_cannot_load_says_why(tmp_path: Path, engine_cache: Path) -> None:
    workers = Workers([CPU, CPU], [task(tmp_path / "nothing.gguf", engine_cache)])
    (pid,) = workers.pids
    with pytest.raises(EngineError, match=r"rank 1 of 2 .* failed while loading .*nothing.gguf is neither a GGUF file"):
        workers.wait_until_loaded(num_blocks=4)
    assert not alive(pid)


def test_a_worker_killed_before_it_has_loaded(tiny: TinyModel, engine_cache: Path) -> None:
    workers = Workers([CPU, CPU], [task(tiny.folder, engine_cache)])
    (pid,) = workers.pids
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="was killed by SIGKILL .* while loading its part"):
        workers.wait_until_loaded(num_blocks=4)


def test_a_model_that_cannot_be_cut_so(tiny: TinyModel, engine_cache: Path) -> None:
    with pytest.raises(ModelError, match="cannot be cut into 3 parts; tensor_parallel can be 1, 2, 4"):
        load(tiny.folder, engine_cache, precision="fp32", tensor_parallel=3)


SCRIPT = """
import sys, time
from pathlib import Path
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine_config import EngineConfig
from mathlete.ryanstream.loading import load_engine
config = EngineConfig(precision="fp32", max_model_len=128, num_threads=1, tensor_parallel=2, max_running=4)
loaded = load_engine(Path(sys.argv[1]), Path(sys.argv[2]), config, lambda what, done, total: None)
print(*loaded.workers.pids, flush=True)
while True:
    loaded.engine.add("x", [1, 2, 3], SamplingParams(max_tokens=50))
    while loaded.engine.has_work:
        loaded.engine.step()
"""


def test_no_worker_outlives_a_killed_engine(tiny: TinyModel, engine_cache: Path) -> None:
    """A script without `if __name__ == "__main__"`, killed in the middle of a step."""
    command = [sys.executable, "-c", SCRIPT, str(tiny.folder), str(engine_cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    assert soon(lambda: not alive(pid))
