"""`mathlete runs import` and `mathlete tasks check`, as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import Mathlete
from typer.testing import CliRunner

from mathlete.cli.main import app
from mathlete.core.errors import InputError
from mathlete.core.record import fold_run
from mathlete.lab.recordings import read_recordings
from mathlete.lab.run_store import RunStore


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for seed, answer in enumerate(["\\frac{1}{2}", "0.5", "3"]):
        row = {"problem": "Half of one?", "expected_answer": "1/2", "generation": f"\\boxed{{{answer}}}"}
        jsonl(folder / f"output-rs{seed}.jsonl", row)
    return folder


def test_a_folder_of_samples_into_a_file_and_into_a_store(tmp_path: Path, samples: Path) -> None:
    out, store = tmp_path / "out.jsonl", tmp_path / "all.sqlite"
    told = json.loads(run("runs", "import", samples, "--mapping", "nemo-skills", "--out", out, "--json"))
    assert (told["target"], told["num_problems"], told["num_attempts"], told["num_bad"]) == (str(out), 1, 3, 0)
    shown = run("runs", "import", samples, "--mapping", "nemo-skills", "--into", store, "--name", "theirs")
    assert shown == f"1 problems with 3 attempts: {store}::theirs\n"
    for path in (out, f"{store}::theirs"):
        (problem,) = read_recordings(path)
        assert [attempt.answer for attempt in problem.attempts] == ["\\frac{1}{2}", "0.5", "3"]
        assert (problem.gold, problem.correct) == ("1/2", (True, True, False))
    compared = json.loads(run("compare", out, store, "--json"))
    assert compared["scores"]["mcnemar"]["only_first"] == compared["scores"]["mcnemar"]["only_second"] == 0
    with pytest.raises(InputError, match="recorded elsewhere"):
        run("replay", store, "--redecide")
    with pytest.raises(InputError, match="there is a run 'theirs' in the store"):
        run("runs", "import", out, "--into", store, "--name", "theirs")


def test_bad_rows_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = {"problem_id": "a", "problem": "?", "gold": "1", "attempts": [{"answer": "1"}]}
    bad = {**good, "problem_id": "b", "attempts": [{"answer": "1", "tokens": -1}]}
    path, out = jsonl(tmp_path / "few.jsonl", bad, good), tmp_path / "out.jsonl"
    with pytest.raises(InputError, match=r"few\.jsonl, line 1, attempt 0: 'tokens' must be a finite number"):
        run("runs", "import", path, "--out", out)
    assert not out.exists()
    told = json.loads(run("runs", "import", path, "--out", out, "--skip-bad", "--json"))
    assert (told["num_problems"], told["num_bad"]) == (1, 1)
    assert told["bad"][0]["where"] == f"{path}, line 1, attempt 0"
    with pytest.raises(InputError, match="no problems with attempts to import"):
        run("runs", "import", path, "--out", tmp_path / "none.jsonl", "--skip-bad", "--min-attempts", 9)
    assert not (tmp_path / "none.jsonl").exists()


def test_what_an_import_must_be_told(samples: Path) -> None:
    with pytest.raises(InputError, match="give either --into STORE or --out"):
        run("runs", "import", samples)
    with pytest.raises(InputError, match="did you mean nemo-skills"):
        run("runs", "import", samples, "--mapping", "nemo-skill", "--out", "x.jsonl")
    with pytest.raises(InputError, match="--name is of the run in a store"):
        run("runs", "import", samples, "--name", "x", "--out", "x.jsonl")


TASKS = [
    {"id": "a", "question": "?", "answer": "so\n#### 18"},
    {"id": "b", "question": "?", "answer": "1/2"},
    {"id": "c", "question": "?", "answer": "x", "integer": False},
    {"id": "d\x1b[2J", "question": "?"},
    {"id": "e"},
]


def test_checking_tasks_as_a_table(tmp_path: Path) -> None:
    shown = run("tasks", "check", jsonl(tmp_path / "t.jsonl", *TASKS), code=1)
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1] == ["line", "1", "a", "so", "####", "18", "18"]
    assert lines[2][:5] == ["line", "2", "b", "1/2", "the"] and "(not_an_integer);" in lines[2]
    assert lines[-1] == "5 rows: 1 ok, 1 unlabelled, 1 skipped, 2 refused".split()
    assert "\x1b" not in shown


def test_checking_tasks_as_json(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", *TASKS)
    told = json.loads(run("tasks", "check", path, "--json", code=1))
    assert [(row["place"], row["status"], row["gold"]) for row in told["rows"]] == [
        (f"{path}, line 1", "ok", "18"),
        (f"{path}, line 2", "refused", None),
        (f"{path}, line 3", "skipped", None),
        (f"{path}, line 4", "unlabelled", None),
        (f"{path}, line 5", "refused", None),
    ]
    assert told["rows"][4]["reason"] == "has no 'problem' or 'question' or 'statement'; it has 'id'"
    assert (told["num_rows"], told["num_ok"], told["num_refused"]) == (5, 1, 2)


def test_checking_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,problem,answer\n")
    with pytest.raises(InputError, match="t.csv: it has no rows"):
        run("tasks", "check", tmp_path / "t.csv")


def test_checking_with_another_range_and_a_mapping(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"text": "?", "sol": -5})
    (tmp_path / "m.toml").write_text('[problem]\nstatement = "text"\ngold = "sol"\n')
    arguments = ("tasks", "check", path, "--mapping", tmp_path / "m.toml")
    run(*arguments, code=1)
    run(*arguments, "--low", -9)
    with pytest.raises(InputError, match="--low 5 is above --high 1"):
        run(*arguments, "--low", 5, "--high", 1)
    with pytest.raises(InputError, match="is a statement; give a file"):
        run("tasks", "check", "What is one?")


def test_evaluate_lists_what_it_leaves_out_and_goes_on(mathlete: Mathlete, tmp_path: Path) -> None:
    rows = [{"key": "a", "text": "What is 40+2?", "sol": "#### 42"}, {"key": "b", "text": "?", "sol": "1/2"}]
    path = jsonl(tmp_path / "t.jsonl", *rows)
    mapping = tmp_path / "m.toml"
    mapping.write_text('[problem]\nid = "key"\nstatement = "text"\ngold = "sol"\n')
    called = mathlete("evaluate", path, "--mapping", mapping, "--attempts", "1", "--json")
    assert called.code == 0, called.err
    assert "1 rows were left out, because what they say cannot be used:" in called.err
    assert (
        f"{path}, line 2: problem 'b': the answer, '1/2', is not an integer in 0..99999 (not_an_integer)" in called.err
    )
    (folder,) = (tmp_path / "runs").iterdir()
    with RunStore.read(folder / "run.sqlite") as store:
        run = fold_run(store.events())
    assert {record.problem.id: record.gold for record in run.problems.values()} == {"a": "42"}
    assert (run.config["mapping"], run.config["source"]) == (str(mapping), str(path))


def test_solve_needs_every_problem_but_not_every_label(mathlete: Mathlete, tmp_path: Path) -> None:
    rows = [{"id": "a", "problem": "What is 40+2?", "answer": "x"}, {"id": "b"}]
    refused = mathlete("solve", jsonl(tmp_path / "t.jsonl", *rows))
    assert refused.code == 2 and "line 2: problem 'b': has no 'problem'" in refused.err
    assert not (tmp_path / "runs").exists()
    called = mathlete("solve", jsonl(tmp_path / "t.jsonl", rows[0]), "--attempts", "1")
    assert called.code == 0, called.err
    assert "1 problems have no label, because what they say cannot be used:" in called.err
