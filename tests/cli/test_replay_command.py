"""`mathlete replay`: JSON for scripts, tables for people, errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from calling import Mathlete

from mathlete.cic.registry import SELECTORS
from mathlete.lab.run_store import RunStore

SLICE = Path(__file__).parents[2] / "benchmarks" / "data" / "math_attempts.jsonl.gz"
KEYS = ["selector", "file", "n", "k", "accuracy", "ci", "majority", "oracle", "gap_closed", "vs_majority"]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Six problems with four attempts, tokens and seconds, and one with two attempts."""
    path = tmp_path / "few.jsonl"
    with path.open("w") as file:
        for number, answers in enumerate(["1112", "1222", "1122", "1111", "2223", "2111", "12"]):
            attempts = [{"answer": a, "tokens": 10 * (i + 1), "seconds": i + 1.0} for i, a in enumerate(answers)]
            row = {"problem_id": f"p{number}", "problem": f"How many? {number}", "gold": "1", "attempts": attempts}
            file.write(json.dumps(row) + "\n")
    return path


def test_one_selector_on_one_file_is_one_object(mathlete: Mathlete, traces: Path) -> None:
    called = mathlete("replay", traces, "--selector", "majority_larger", "--json")
    assert called.code == 0, called.err
    told = json.loads(called.out)
    assert list(told)[: len(KEYS)] == KEYS
    assert (told["selector"], told["file"], told["n"], told["k"]) == ("majority_larger", "few.jsonl", 6, None)
    assert told["accuracy"] == pytest.approx(3 / 6) and told["majority"] == pytest.approx(3.5 / 6)
    assert told["oracle"] == pytest.approx(5 / 6)
    assert told["gap_closed"] == pytest.approx(-0.5 / 1.5)
    assert told["vs_majority"]["diff"] == pytest.approx(-0.5 / 6)
    assert told["ci"][0] <= told["accuracy"] <= told["ci"][1]
    assert (told["num_left_out"], told["num_bad_rows"], told["in_sample"]) == (1, 0, False)


def test_several_of_anything_are_a_list(mathlete: Mathlete, traces: Path) -> None:
    several = mathlete("replay", traces, "--selector", "majority,huikang", "--k", "2", "--k", "all", "--json")
    told = json.loads(several.out)
    assert [(item["selector"], item["k"]) for item in told] == [
        ("majority", 2), ("huikang", 2), ("majority", None), ("huikang", None),
    ]  # fmt: skip
    everything = json.loads(mathlete("replay", traces, "--json").out)
    assert [item["selector"] for item in everything] == list(SELECTORS)
    curve = json.loads(mathlete("replay", traces, "--selector", "majority", "--k", "curve", "--json").out)
    assert [item["k"] for item in curve] == [1, 2, 4, None]


def test_a_table_for_people_has_the_best_first_and_says_what_is_left_out(mathlete: Mathlete, traces: Path) -> None:
    called = mathlete("replay", traces, "--selector", "majority,majority_larger")
    lines = called.out.splitlines()
    assert called.code == 0 and "few.jsonl: 6 problems, all attempts of each" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["majority", "majority_larger"]
    assert "●" in lines[2] and "─" in lines[2]
    assert "left out: 1 problems with too few attempts" in called.out
    assert max(map(len, lines)) <= 120


def test_a_whole_decision_is_replayed_with_its_stops(mathlete: Mathlete, traces: Path) -> None:
    called = mathlete(
        "replay", traces, "--selector", "majority", "--stop", "uncatchable_strict", "--slots", "1", "--json"
    )
    told = json.loads(called.out)
    assert list(told)[: len(KEYS)] == KEYS
    assert (told["policy"], told["stop"], told["k"], told["n"]) == ("vote", "uncatchable_strict", 4, 6)
    assert 0 < told["token_share"] < 1 and told["tokens"] > 0
    assert sum(told["stop_reasons"].values()) == 6
    shown = mathlete("replay", traces, "--selector", "majority", "--policy", "fixed", "--budget", "1h")
    assert "policy fixed" in shown.out and shown.code == 0


def test_the_pipeline_takes_the_best_scored_attempt(mathlete: Mathlete, traces: Path) -> None:
    told = json.loads(mathlete("replay", traces, "--policy", "pipeline", "--scorer", "fewest_tokens", "--json").out)
    assert (told["policy"], told["selector"], told["stop_reasons"]) == (
        "pipeline", "pipeline_fewest_tokens", {"all attempts finished": 6},
    )  # fmt: skip
    assert told["accuracy"] == pytest.approx(4 / 6), "the first attempt of each has the fewest tokens"
    assert told["vs_majority"]["diff"] == pytest.approx(0.5 / 6)
    called = mathlete("replay", traces, "--policy", "pipeline", "--scorer", "luck")
    assert called.code == 2 and "scorer must be one of available, mean_logprob" in called.err


def test_rows_that_cannot_be_used_are_named(mathlete: Mathlete, traces: Path) -> None:
    traces.write_text(traces.read_text() + '{"problem_id": "x", "attempts": []}\n')
    called = mathlete("replay", traces, "--selector", "majority", "--json")
    assert called.code == 0 and json.loads(called.out)["num_bad_rows"] == 1
    assert "line 8" in called.err and "has no 'problem'" in called.err
    traces.write_text("{}\n")
    alone = mathlete("replay", traces, "--selector", "majority")
    assert alone.code == 2 and alone.err.count("line 1") == 1


@pytest.mark.parametrize("flags", [[], ["--policy", "fixed"]])
def test_a_recording_that_cannot_be_used_does_not_keep_the_others_back(
    mathlete: Mathlete, traces: Path, tmp_path: Path, flags: list[str]
) -> None:
    notes = tmp_path / "README.md"
    notes.write_text("No recording.")
    called = mathlete("replay", notes, traces, "--selector", "majority", *flags, "--json")
    assert called.code == 2 and json.loads(called.out)["file"] == traces.name
    assert "1 of 2 recordings cannot be replayed" in called.err and "README.md" in called.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--selector", "best"], "there is no selector 'best'; there are triad, majority"),
        (["--k", "none at all"], "--k takes a number of attempts"),
        (["--k", "9"], "no problem has 9 attempts, the most is 4"),
        (["--seed", "-1"], "greater than or equal to 0"),
        (["--min-attempts", "7"], "no problem has 7 attempts"),
        (["--stop", "soon"], "stop must be one of"),
        (["--stop", "settled", "--k", "9"], "no problem has so many attempts"),
        (["--budget", "soon"], "is not a duration"),
        (["--mapping", "no_such_preset"], "no_such_preset"),
    ],
)
def test_what_cannot_be_replayed_is_said(mathlete: Mathlete, traces: Path, flags: list[str], message: str) -> None:
    called = mathlete("replay", traces, *flags)
    assert called.code == 2 and message in " ".join(called.err.split()), called.err


def test_a_file_that_is_not_there(mathlete: Mathlete, tmp_path: Path) -> None:
    called = mathlete("replay", tmp_path / "gone.jsonl", "--selector", "majority")
    assert called.code == 2 and "gone.jsonl: file not found" in called.err.replace("\n", "")


def test_ctrl_c_ends_it_and_its_processes(tmp_path: Path) -> None:
    """Texts make it slow enough to be interrupted."""
    path = tmp_path / "slow.jsonl"
    with path.open("w") as file:
        for number in range(400):
            attempts = [{"answer": str(i % 3), "text": f"{i} {number} so " * 300} for i in range(40)]
            row = {"problem_id": f"p{number}", "problem": "How many?", "gold": "1", "attempts": attempts}
            file.write(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "mathlete", "replay", str(path), "--selector", "cic", "-j", "2"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    for _ in range(600):
        workers = [int(pid) for pid in children.read_text().split()]
        if len(workers) >= 3:  # two, and the one that tracks resources
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "interrupted" in said and "Traceback" not in said
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in workers):
            break
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


def test_several_budgets_are_points_of_a_curve(mathlete: Mathlete, traces: Path) -> None:
    options = ("--selector", "majority", "--policy", "fixed", "--slots", "1", "--budget", "10s,1m")
    points = json.loads(mathlete("replay", traces, *options, "--json").out)
    assert [point["budget_s"] for point in points] == [10.0, 60.0]
    assert points[0]["tokens"] < points[1]["tokens"] and points[0]["seconds"] <= 10 < points[1]["seconds"]
    assert "10 s" in mathlete("replay", traces, *options).out


def test_contests(mathlete: Mathlete, traces: Path) -> None:
    options = ("--contest", "5", "--budget", "60s", "--contests", "3", "--k", "3")
    told = json.loads(mathlete("replay", traces, *options, "--json").out)
    assert (told["file"], told["num_problems"], told["num_overruns"]) == ("few.jsonl", 5, 0)
    assert told["two_run_score"]["value"] == pytest.approx(told["right"]["value"])
    assert told["replay"]["selector"] == "majority" and told["replay"]["attempts"] == 3
    shown = mathlete("replay", traces, *options, "--runs", "1", "--selector", "majority,huikang", "--no-faults")
    assert shown.code == 0 and "3 contests of 5 problems in 60 s, policy triad" in shown.out
    assert "huikang" in shown.out and "not over new problems" in shown.out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--contest", "3", "--token-budget", "9"], "give --budget, not --token-budget"),
        (["--contest", "3", "--k", "curve"], "--k is one number"),
        (["--contest", "3", "--selector", "best"], "selector must be one of"),
        (["--contest", "3", "--half-speed-at", "8"], "give that too"),
        (["--contest", "3", "--tokens-per-s", "0"], "alone must be > 0"),
    ],
)
def test_contests_that_cannot_be_held(mathlete: Mathlete, traces: Path, options: list[str], complaint: str) -> None:
    called = mathlete("replay", traces, *options)
    assert called.code != 0 and complaint in called.err and "Traceback" not in called.err


def test_runs_are_decided_again(mathlete: Mathlete, problems: Path, tmp_path: Path) -> None:
    assert mathlete("solve", problems, "--policy", "triad", "--attempts", "4", "--budget", "60s").code == 0
    assert mathlete("evaluate", problems, "--attempts", "2", "--budget", "60s").code == 0
    shown = mathlete("replay", tmp_path / "runs", "--redecide")
    assert shown.code == 0, shown.err
    assert shown.out.count("all as recorded") == 2 and shown.out.count("all selections and stops as recorded") == 2
    told = json.loads(mathlete("replay", next((tmp_path / "runs").iterdir()), "--redecide", "--json").out)
    assert told["is_faithful"] and told["redecided"]["num_stops"] == 3 and told["held_again"]["num_problems"] == 3


def test_a_run_that_was_tampered_with_is_told(mathlete: Mathlete, problems: Path, tmp_path: Path) -> None:
    assert mathlete("evaluate", problems, "--attempts", "2", "--budget", "60s").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    with RunStore.read(folder / "run.sqlite") as store:
        events = list(store.events())
    forged = tmp_path / "forged.sqlite"
    with RunStore.create(forged) as store:
        for event in events:
            if event.kind == "problem_finished":
                event = replace(event, data={**event.data, "selection": {**event.data["selection"], "answer": "43"}})
            store.append(event)
    called = mathlete("replay", forged, "--redecide")
    assert called.code == 1 and "recorded answer 43 by" in called.out and "not as recorded" in called.out


def test_a_run_that_is_not_there(mathlete: Mathlete, tmp_path: Path) -> None:
    called = mathlete("replay", tmp_path / "gone", "--redecide")
    assert called.code != 0 and "gone" in called.err and "Traceback" not in called.err
