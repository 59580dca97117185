"""`mathlete bench` as a person or a script meets it, on a tiny random model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tiny_qwen import TinyModel
from typer.testing import CliRunner

from mathlete.cli import bench
from mathlete.core.errors import EngineError, InputError
from mathlete.ryanstream import measuring, roofline

Run = Callable[..., Result]
SMALL = ("--prompt", "160", "--new", "4", "--repeat", "2", "--threads", "1", "--precision", "bf16")


@pytest.fixture(autouse=True)
def small_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a gigabyte takes its time where others read too."""
    monkeypatch.setattr(roofline, "_READ_BYTES", 1 << 22)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, engine_cache: Path) -> Run:
    """On the torch path, so that nothing is compiled; in a cache of the tests."""
    monkeypatch.setenv("MATHLETE_CACHE", str(engine_cache))
    monkeypatch.setenv("MATHLETE_NATIVE", "0")
    return lambda *arguments: CliRunner().invoke(bench.app, [str(argument) for argument in arguments])


def rows_of(result: Result) -> list[dict[str, Any]]:
    assert result.exception is None, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def assert_engine_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert {"model", "precision", "kernels", "threads", "attempts", "problems", "repeats"} <= row.keys()
        assert 0 < row["tokens_per_s"] <= row["decode_tokens_per_s"]
        assert 0 < row["step_s"] <= row["step_p95_s"]
        for name in ("first_token_s", "kv_bytes_per_attempt", "weight_gb_per_s", "gop_per_s", "read_gb_per_s"):
            assert row[name] > 0, name
        assert row["roofline_tokens_per_s"] > 0


def test_engine_as_json(run: Run, tiny: TinyModel) -> None:
    rows = rows_of(run("engine", "--model", tiny.folder, "--attempts", "1,3", "--problems", 2, *SMALL, "--json"))
    assert [(row["attempts"], row["problems"], row["repeats"]) for row in rows] == [(1, 2, 2), (3, 2, 2)]
    assert all((row["prompt_tokens"], row["new_tokens"], row["precision"]) == (160, 4, "bf16") for row in rows)
    assert_engine_rows(rows)


def test_engine_for_a_person(run: Run, tiny: TinyModel) -> None:
    result = run("engine", "--model", tiny.folder, "--attempts", "2", *SMALL)
    assert result.exit_code == 0
    head, line, machine, facts = result.stdout.splitlines()[:4]
    assert head.split()[:5] == ["precision", "attempts", "tokens/s", "decode", "roofline"]
    assert line.split()[:2] == ["bf16", "2"] and "%)" in line
    assert "this machine reads" in machine and "keys and values each" in machine
    assert facts.startswith("160 prompt + 4 new tokens, medians of 2, 1 threads, torch")


def test_an_interrupt_prints_the_figures_so_far(run: Run, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, calls = measuring.run_prompts, []

    def run_three(*arguments: Any) -> measuring.Timing:
        calls.append(arguments)
        if len(calls) > 3:  # a warm-up, both runs of one attempt; the next warm-up is interrupted
            raise KeyboardInterrupt
        return timed(*arguments)

    monkeypatch.setattr(measuring, "run_prompts", run_three)
    result = run("engine", "--model", tiny.folder, "--attempts", "1,2", *SMALL, "--json")
    assert result.exit_code == 130
    assert [(row["attempts"], row["repeats"]) for row in json.loads(result.stdout)] == [(1, 2)]
    assert "interrupted: these are the figures so far" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attempts", "1,x"), "--attempts takes numbers of at least 1"),
        (("--attempts", "0"), "--attempts takes numbers of at least 1"),
        (("--precision", "int3"), "--precision must be one of"),
        (("--kv-cache-dtype", "fp8"), "--kv-cache-dtype must be bf16 or int8"),
        (("--prompt", "64", "--precision", "bf16"), "--prompt must be at least"),
    ],
)
def test_what_is_wrong_with_the_options_is_told_by_name(
    run: Run, tiny: TinyModel, arguments: tuple[str, ...], message: str
) -> None:
    result = run("engine", "--model", tiny.folder, "--new", "4", "--repeat", "1", *arguments)
    assert isinstance(result.exception, InputError) and message in str(result.exception)


def test_loader_as_json_and_for_a_person(run: Run, tiny: TinyModel, engine_cache: Path) -> None:
    rows = rows_of(run("loader", "--model", tiny.folder, "--precision", "bf16", "--repeat", "2", "--json"))
    assert [row["start"] for row in rows] == ["cold", "warm", "warm"]
    assert all(0 < row["load_s"] < row["first_token_s"] for row in rows)
    assert not list(engine_cache.glob("bench-*")), "the empty cache of the cold start is still there"
    shown = run("loader", "--model", tiny.folder, "--precision", "bf16", "--repeat", "1").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [["precision", "start"], ["bf16", "cold"], ["bf16", "warm"]]


def test_scheduler_of_made_up_problems(run: Run) -> None:
    small = ("--problems", 3, "--attempts", 3, "--slots", 4, "--orders", 1)
    rows = rows_of(run("scheduler", *small, "--json"))
    assert rows[0]["policy"] == "fcfs" and len(rows) > 3
    assert all(row["num_tokens"] == rows[0]["num_tokens"] for row in rows), "policies computed different tokens"
    assert all(row["settled_ratio"].keys() == {"mean", "low", "high"} for row in rows)
    assert run("scheduler", *small).stdout.splitlines()[0].split()[:2] == ["policy", "settled"]


def test_scheduler_of_recorded_attempts(run: Run, tmp_path: Path) -> None:
    attempts = [{"answer": "4", "tokens": 30}, {"answer": "5", "tokens": 50}, {"answer": "4", "tokens": 20}]
    row = {"problem_id": "p", "problem": "How many?", "gold": "4", "group": "p", "attempts": attempts}
    (tmp_path / "attempts.jsonl").write_text(json.dumps(row) + "\n")
    rows = rows_of(run("scheduler", tmp_path / "attempts.jsonl", "--orders", "1", "--json"))
    assert rows[0]["num_tokens"] == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}\n", "is no file of recorded attempts: KeyError('attempts')"),
        ('{"attempts": []}\nnothing\n', "line 2, is not JSON"),
        ('{"attempts": [{"answer": "1"}]}\n', "has no problem with two attempts whose `tokens` are recorded"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_holds_no_attempts(run: Run, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "attempts.jsonl"
    if content is not None:
        path.write_text(content)
    result = run("scheduler", path)
    assert isinstance(result.exception, InputError) and message in str(result.exception)


def test_missing_packages_of_the_engine_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mathlete.ryanstream.simulator.compare", None)
    result = run("scheduler")
    assert isinstance(result.exception, EngineError)
    assert "pip install 'mathlete[engine,tools]'" in str(result.exception)


@pytest.mark.model
def test_engine_of_the_small_model(small_model_path: Path) -> None:
    arguments = ["engine", "--model", str(small_model_path), "--attempts", "2", "--new", "4", "--repeat", "1", "--json"]
    rows = rows_of(CliRunner().invoke(bench.app, arguments))
    assert [(row["attempts"], row["prompt_tokens"], row["new_tokens"]) for row in rows] == [(2, 200, 4)]
    assert_engine_rows(rows)
