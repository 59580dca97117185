"""What the programs in benchmarks/ reckon, and how the one that times other engines starts, stops and ends them."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mathlete.ryanstream.measuring import Workload

FOLDER = Path(__file__).parents[1] / "benchmarks"

FAKE_ENGINE = """
import json, os, sys, time
print("loading", file=sys.stderr)
if "broken" in sys.argv:
    sys.exit("no such model")
print(json.dumps({"ready": 0.1, "version": "1"}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job.get("die"):
        sys.exit("out of memory")
    print(json.dumps({"seconds": 2.0, "num_tokens": 8, "pid": os.getpid()}), flush=True)
"""


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return module("peers")


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    return module("quality")


@pytest.fixture(scope="module")
def speculation() -> ModuleType:
    return module("speculation")


@pytest.fixture
def fake_engine(peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    child = tmp_path / "engine.py"
    child.write_text(FAKE_ENGINE)
    monkeypatch.setattr(peers, "_CHILD", child)
    return lambda model="sound": peers.Process(peers.Peer("fake", "fake", Path(sys.executable), model), 1, 1, 64)


def state_of(pid: int) -> str:
    """The letter of /proc: T is stopped, S asleep."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_engine_stands_still_while_it_is_not_timed(fake_engine: Any) -> None:
    engine = fake_engine()
    try:
        assert engine.ready["version"] == "1"
        pid = engine.run({})["pid"]
        deadline = time.monotonic() + 5
        while state_of(pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state_of(pid) == "T"
        assert engine.run({})["num_tokens"] == 8
    finally:
        engine.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_an_engine_that_ends_is_told_with_its_last_words(peers: ModuleType, fake_engine: Any) -> None:
    with pytest.raises(peers.PeerFailed, match="fake: loading / no such model"):
        fake_engine("broken")
    engine = fake_engine()
    with pytest.raises(peers.PeerFailed, match="out of memory"):
        engine.run({"die": True})
    engine.close()


def test_medians_and_paired_ratios(peers: ModuleType) -> None:
    size = {"attempts": 16, "problems": 1}
    rows = []
    for ours, theirs in ((30.0, 10.0), (20.0, 20.0), (40.0, 10.0)):
        rows.append({"pair": "other", "engine": "ryanstream", **size, "tokens_per_s": ours})
        rows.append({"pair": "other", "engine": "other", **size, "tokens_per_s": theirs})
    rows.append({"pair": "broken", **size, "failed": "broken: out of memory"})
    paired, failed = peers._medians(rows)
    assert paired["median_tokens_per_s"] == {"ryanstream": 30.0, "other": 10.0}
    assert (paired["median_ratio"], paired["least_ratio"], paired["most_ratio"]) == (3.0, 1.0, 4.0)
    assert failed["failed"] == "broken: out of memory"
    table = io.StringIO()
    peers._print_table([paired, failed], table)
    assert "| 1 x 16 | other | 30.0 | 10.0 | 3.00 (1.00 to 4.00) |" in table.getvalue()
    assert "failed: broken: out of memory" in table.getvalue()


def test_precision_by_the_number_of_attempts(peers: ModuleType) -> None:
    table = "1:int4,16:w8a8"
    found = [peers._precision(table, Workload(attempts)) for attempts in (1, 8, 16, 32)]
    assert found == ["int4", "int4", "w8a8", "w8a8"]
    assert peers._precision(table, Workload(8, problems=8)) == "w8a8"
    assert peers._precision("auto", Workload(1)) == "auto"


def test_peers_that_are_not_there_are_left_out(peers: ModuleType, tmp_path: Path) -> None:
    given = argparse.Namespace(model=Path("m.gguf"), hf=None, hf_int8=None, gguf_int8=None, root=tmp_path, pairs=False)
    given.precision = "w8a8"
    assert [peer.name for peer in peers._peers(given)] == ["ryanstream"]
    (tmp_path / "vllm" / "bin").mkdir(parents=True)
    (tmp_path / "vllm" / "bin" / "python").touch()
    given.hf, given.pairs = tmp_path, True
    assert [peer.name for peer in peers._peers(given)] == ["vllm", "vllm-compiled", "transformers"]


def test_mcnemars_exact_p(quality: ModuleType) -> None:
    assert quality.mcnemar_p(0, 0) == 1.0
    assert quality.mcnemar_p(5, 5) == 1.0
    assert quality.mcnemar_p(1, 9) == quality.mcnemar_p(9, 1) == pytest.approx(2 * 11 / 1024)


def test_where_greedy_completions_part(quality: ModuleType) -> None:
    figures = quality._greedy_figures([[1, 2, 3, 4], [1, 2, 9, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]])
    assert figures["greedy_share_until_divergence"] == pytest.approx((1 + 0.5) / 2)
    assert figures["greedy_equal"] == 0.5


def test_answers_are_compared_row_by_row(quality: ModuleType) -> None:
    found, reference = [True, True, False, False], [True, False, True, True]
    figures = quality._gsm8k_figures(found, reference)
    assert (figures["gsm8k_accuracy"], figures["gsm8k_gained"], figures["gsm8k_lost"]) == (0.5, 1, 2)
    assert figures["gsm8k_change"] == -0.25
    assert figures["gsm8k_change_low"] < -0.25 < figures["gsm8k_change_high"]


def test_the_text_of_problems_and_of_plain_files(quality: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "b.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    text = quality._read_text([tmp_path / "a.txt", tmp_path / "b.jsonl"])
    assert text == "Some text.\n\nProblem. 1 + 1?\nAnswer. 2"


def test_the_default_text_is_long_enough_for_several_windows(quality: ModuleType) -> None:
    assert len(quality._DEFAULT_TEXT.read_text().split()) > 1500


def speculation_line(problem: str, attempts: int, on_s: float) -> str:
    run = {"steps": 4, "draws": 4, "drafted": 6, "accepted": 0, "token_ids": [[1, 2, 3, 4]] * attempts}
    row = {"problem": problem, "method": "ngram", "attempts": attempts, "off_first": True, "identical": True}
    return json.dumps({**row, "on": {"seconds": on_s, **run}, "off": {"seconds": 2.0, **run}}) + "\n"


def test_pairs_are_read_back_and_a_line_that_was_cut_off_is_left_out(speculation: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert speculation.read_pairs(path) == {}
    whole = speculation_line("a", 1, 1.0) + speculation_line("a", 4, 4.0) + speculation_line("b", 4, 1.0)
    path.write_text(whole + speculation_line("b", 1, 1.0)[:50])
    pairs = speculation.read_pairs(path)
    assert list(pairs) == [("a", "ngram", 1), ("a", "ngram", 4), ("b", "ngram", 4)]
    assert path.read_text() == whole, "a line that was cut off would spoil the next"
    one, four = speculation.summaries(pairs)
    assert (one["attempts"], one["pairs"], one["speedup"], one["worst_problem"]) == (1, 1, 2.0, "a")
    assert (four["attempts"], four["pairs"], four["worst_problem"]) == (4, 2, "a")
    path.write_text("{}{\n" + whole)
    with pytest.raises(SystemExit, match="line 1: not JSON"):
        speculation.read_pairs(path)


def test_engines_are_warmed_up_without_what_decides_the_depth(
    speculation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    loaded = SimpleNamespace(engine=SimpleNamespace(speculation=SimpleNamespace(depth="adaptive")))

    def run(given: Any, problem: Any, job: Any, new: int, *, off_first: bool) -> None:
        limits = given.engine.speculation.depth.limits([None], 0.0)[0]
        seen.append((job.attempts, limits.max_depth, limits.max_nodes))

    monkeypatch.setattr(speculation, "_run", run)
    speculation.warm_up(loaded, speculation.Method("early_exit", width=3), [1, 4], 6)
    assert seen == [(n, depth, 3 * depth) for n in (1, 4) for depth in (6, 3, 1)]
    assert loaded.engine.speculation.depth == "adaptive"


def test_methods_of_guessing_and_their_options(speculation: ModuleType) -> None:
    method = speculation.Method.parse
    assert method("draft+w4+fixed") == speculation.Method("draft", "fixed", 4)
    assert method("draft+drawn") == speculation.Method("draft", drawn=True)
    assert method("suffix+published").control == "published" and method("ngram").control == "adaptive"
    with pytest.raises(SystemExit, match="'often' is none of fixed, published, drawn, wN"):
        method("ngram+often")
