"""Pairs of runs with guessing and without: what is counted, what is put back, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from driving import load
from tiny_qwen import TinyModel
from typer.testing import CliRunner

from mathlete.cli import bench
from mathlete.core.errors import EngineError, InputError
from mathlete.core.generation import SamplingParams
from mathlete.ryanstream import speculation_measuring
from mathlete.ryanstream.speculation_measuring import SpeculationPair, SpeculationRun, run_pair, summarise_pairs

SAMPLING = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24, seed=3, ignore_eos=True)


@pytest.mark.parametrize("off_first", [True, False])
def test_a_pair_is_the_same_attempts_twice(tiny: TinyModel, engine_cache: Path, off_first: bool) -> None:
    engine = load(tiny.folder, engine_cache, precision="fp32", speculative="ngram").engine
    pair = run_pair(engine, [5, 6, 7, 8] * 5, SAMPLING, 2, "p", off_first=off_first)
    assert pair.is_identical and pair.on.num_tokens == pair.off.num_tokens == 48
    assert pair.off.drafted == pair.off.accepted == 0 and pair.off.steps == 24
    assert pair.on.steps <= pair.off.steps and pair.on.draws + pair.on.accepted >= pair.on.num_tokens
    assert pair.on.token_ids[0] != pair.on.token_ids[1], "attempts have noise of their own"
    assert engine.speculation is not None and not engine.has_work
    engine.check_integrity()


def test_what_was_interrupted_leaves_nothing_behind(
    tiny: TinyModel, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(tiny.folder, engine_cache, precision="fp32", speculative="ngram").engine
    speculation, step, calls = engine.speculation, engine.step, []

    def interrupted() -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_pair(engine, [5, 6, 7], SAMPLING, 2, "p", off_first=True)
    assert engine.speculation is speculation and not engine.has_work
    engine.check_integrity()


def test_an_engine_that_does_not_speculate_has_nothing_to_compare(tiny: TinyModel, engine_cache: Path) -> None:
    engine = load(tiny.folder, engine_cache, precision="fp32").engine
    with pytest.raises(EngineError, match="does not speculate"):
        run_pair(engine, [5, 6, 7], SAMPLING, 1, "p", off_first=True)


def pair_of(on_s: float, off_s: float, accepted: int = 4) -> SpeculationPair:
    ids = (tuple(range(10)),)
    return SpeculationPair(
        on=SpeculationRun(on_s, 10 - accepted, 10 - accepted, 8, accepted, ids),
        off=SpeculationRun(off_s, 10, 10, 0, 0, ids),
    )


def test_figures_of_pairs() -> None:
    figures = summarise_pairs([pair_of(1.0, 2.0), pair_of(2.0, 2.0, accepted=0), pair_of(1.0, 3.0)])
    assert figures.pairs == figures.identical == 3
    assert figures.tokens_per_s == pytest.approx(30 / 4) and figures.off_tokens_per_s == pytest.approx(30 / 7)
    assert figures.speedup == pytest.approx(7 / 4) and figures.median_speedup == pytest.approx(2.0)
    assert (figures.worst_speedup, figures.worst_pair) == (1.0, 1)
    assert figures.low == pytest.approx(1.0) and figures.high == pytest.approx(3.0)
    assert figures.steps_saved == pytest.approx(1 - 22 / 30)
    assert figures.tokens_per_draw == pytest.approx(30 / 22)
    assert figures.acceptance == pytest.approx(8 / 24) and figures.drafted_share == pytest.approx(24 / 46)


def test_other_lengths_are_compared_by_the_token() -> None:
    on = SpeculationRun(1.0, 5, 5, 0, 0, ((1, 2, 3, 4, 5),))
    off = SpeculationRun(4.0, 10, 10, 0, 0, (tuple(range(10)),))
    pair = SpeculationPair(on, off)
    assert pair.speedup == pytest.approx(2.0) and not pair.is_identical
    assert summarise_pairs([pair]).acceptance == 0.0


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, engine_cache: Path, tiny: TinyModel) -> Run:
    monkeypatch.setenv("MATHLETE_CACHE", str(engine_cache))
    monkeypatch.setenv("MATHLETE_NATIVE", "0")
    small = ["speculation", "--model", str(tiny.folder), "--prompt", "160", "--new", "8", "--problems", "2",
             "--threads", "1", "--precision", "bf16"]  # fmt: skip
    return lambda *arguments: CliRunner().invoke(bench.app, [*small, *map(str, arguments)])


def test_bench_speculation(run: Run, tiny: TinyModel) -> None:
    result = run("--method", "ngram,draft", "--draft-model", tiny.folder, "--attempts", 2, "--json")
    assert result.exception is None, result.output
    rows = json.loads(result.stdout)
    assert [(row["method"], row["attempts"], row["pairs"], row["identical"]) for row in rows] == [
        ("ngram", 2, 2, 2),
        ("draft", 2, 2, 2),
    ]
    for row in rows:
        assert row["tokens_per_s"] > 0 and row["low"] <= row["speedup"] <= row["high"]
    shown = run("--method", "suffix").stdout.splitlines()
    assert shown[0].split()[:3] == ["method", "off", "on"] and shown[1].split()[0] == "suffix"
    assert "the requests of a group" in shown[2] and "8 tokens each" in shown[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "ngram,magic"), "--method takes ngram, suffix, draft, early_exit, eagle"),
        (("--method", "off"), "--method takes ngram"),
        (("--method", "draft"), "--method draft guesses with a model: give --draft-model"),
        (("--method", "eagle", "--draft-model", "nowhere"), "there is no file or folder nowhere"),
        (("--precision", "int3"), "--precision must be one of"),
    ],
)
def test_bench_speculation_names_what_is_wrong(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, InputError) and message in str(result.exception)


def test_an_interrupted_bench_prints_the_figures_so_far(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, calls = speculation_measuring.run_pair, []

    def run_two(*arguments: object, **options: object) -> SpeculationPair:
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return timed(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(speculation_measuring, "run_pair", run_two)
    result = run("--method", "ngram,suffix", "--json")
    assert result.exit_code == 130 and [row["method"] for row in json.loads(result.stdout)] == ["ngram"]
    assert "interrupted: these are the figures so far" in result.stderr
