"""Recorded attempts from files of every form that people have."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.trace import TraceEvent, encode_ending, encode_problem
from mathlete.lab.import_report import ImportReport
from mathlete.lab.mapping import RecordingMapping, mapping_of
from mathlete.lab.parquet_export import feature_names, write_parquet
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.recordings import from_data_frame, read_recordings
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_reading import read_problems
from mathlete.lab.run_store import RunStore

NATALIA = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
SUM = "What is $1+1$?"


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def told(problem: RecordedProblem) -> tuple[str, str, list[str | None], list[bool]]:
    answers = [attempt.answer for attempt in problem.attempts]
    return problem.problem.id, problem.gold, answers, list(problem.correct)


def interchange(problem_id: str, *answers: str | None, gold: str = "72") -> dict[str, Any]:
    return {"problem_id": problem_id, "problem": SUM, "gold": gold, "attempts": [{"answer": a} for a in answers]}


def test_interchange_files_and_a_folder_of_them(tmp_path: Path) -> None:
    jsonl(tmp_path / "b10.jsonl.gz", interchange("c", None))
    jsonl(tmp_path / "b2.jsonl", interchange("a", "72", "7"), interchange("b", "72"))
    (tmp_path / "notes.txt").write_text("not read")
    report = ImportReport()
    problems = list(read_recordings(tmp_path, report=report))
    assert [told(item) for item in problems] == [
        ("a", "72", ["72", "7"], [True, False]),
        ("b", "72", ["72"], [True]),
        ("c", "72", [None], [False]),
    ]
    assert (report.num_problems, report.num_attempts, report.notes) == (3, 4, [])


def test_problems_with_too_few_attempts_are_left_out_and_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "few.jsonl", interchange("a", "72", "7"), interchange("b"), interchange("c", "1"))
    report = ImportReport()
    assert [item.problem.id for item in read_recordings(path, report=report)] == ["a", "c"]
    assert report.notes == ["1 problems were left out because they have too few attempts"]
    assert [item.problem.id for item in read_recordings(path, min_attempts=2)] == ["a"]
    assert [item.problem.id for item in read_recordings(path, min_attempts=0)] == ["a", "b", "c"]


def test_ids_differ_over_all_files(tmp_path: Path) -> None:
    jsonl(tmp_path / "x.jsonl", interchange("a", "1"))
    jsonl(tmp_path / "y.jsonl", interchange("a", "1"), interchange("b", "1"))
    rows = read_recordings(tmp_path)
    assert [next(rows).problem.id, next(rows).problem.id] == ["a", "b"]
    with pytest.raises(InputError, match=r"y\.jsonl, line 1: problem 'a' was in .*x\.jsonl, line 1 already"):
        next(rows)


# The formats of others, each as its program writes it.


def nemo_skills(folder: Path) -> Path:
    for seed, (text, answer, right) in enumerate([("So \\boxed{72}.", "72", True), ("\\boxed{96}", "96", False)]):
        common = {"expected_answer": 72, "reference_solution": "48/2=24", "generation_time": 1.5, "error": ""}
        rows = [
            {"problem": NATALIA, **common, "generation": text, "num_generated_tokens": 31 + seed}
            | {"predicted_answer": answer, "symbolic_correct": right},
            {"problem": SUM, **common, "expected_answer": 2, "generation": "", "num_generated_tokens": 0}
            | {"predicted_answer": None, "symbolic_correct": False},
        ]
        jsonl(folder / f"output-rs{seed}.jsonl", *rows)
    (folder / "metrics.json").write_text("{}")
    jsonl(folder / "generation.log.jsonl", {"not": "an attempt"})
    return folder


def lm_eval(folder: Path) -> Path:
    def row(doc_id: int, resps: list[str], filtered: str, score: float, filter_name: str) -> dict[str, Any]:
        doc = {"question": NATALIA if doc_id == 0 else SUM, "answer": f"48/2 = 24\n#### {72 if doc_id == 0 else 2}"}
        arguments = {"gen_args_0": {"arg_0": f"Question: {doc['question']}\nAnswer:", "arg_1": {"until": ["Q:"]}}}
        known = {"doc_id": doc_id, "doc": doc, "target": doc["answer"], "arguments": arguments, "resps": [resps]}
        known |= {"filtered_resps": [filtered], "filter": filter_name, "metrics": ["exact_match"]}
        return known | {"doc_hash": f"{doc_id}" * 8, "prompt_hash": "p", "target_hash": "t", "exact_match": score}

    rows = [row(0, ["24+48 #### 72"], "72", 1.0, "strict-match"), row(1, ["two"], "[invalid]", 0.0, "strict-match")]
    rows += [
        row(0, ["24+48 #### 72"], "72", 1.0, "flexible-extract"),
        row(1, ["two"], "[invalid]", 0.0, "flexible-extract"),
    ]
    return jsonl(folder / "model" / "samples_gsm8k_2026-01-05T10-00-00.000001.jsonl", *rows)


def inspect_sample(sample_id: int, epoch: int, answer: str, value: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"ANSWER: {answer}", "source": "generate"}
    usage = {"input_tokens": 90, "output_tokens": 12 + epoch, "total_tokens": 102 + epoch}
    asked = (
        NATALIA if sample_id == 1 else [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SUM}]
    )
    return {
        "id": sample_id, "epoch": epoch, "input": asked, "target": "72" if sample_id == 1 else ["2"], "messages": [],
        "output": {"model": "small", "choices": [{"message": message}], "usage": usage, "time": 2},
        "scores": {"match": {"value": value, "answer": answer, "explanation": message["content"]}},
        "metadata": {}, "store": {}, "events": [], "model_usage": {"small": usage}, "attachments": {},
    }  # fmt: skip


SAMPLES = [inspect_sample(1, 1, "72", "C"), inspect_sample(1, 2, "96", "I"), inspect_sample(2, 1, "2", 1.0)]


def inspect_json(folder: Path) -> Path:
    path = folder / "2026-01-05T10-00-00_gsm8k_x.json"
    path.write_text(json.dumps({"version": 2, "status": "success", "eval": {}, "samples": SAMPLES}))
    return path


def inspect_eval(folder: Path) -> Path:
    path = folder / "2026-01-05T10-00-00_gsm8k_x.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in SAMPLES:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", "{}")
    return path


@pytest.mark.parametrize("write", [nemo_skills, inspect_json, inspect_eval])
def test_presets_that_have_an_attempt_a_row(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    preset = "nemo-skills" if write is nemo_skills else "inspect"
    problems = list(read_recordings(write(tmp_path), preset))
    first, second = problems
    assert (first.problem.statement, first.gold, second.problem.statement, second.gold) == (NATALIA, "72", SUM, "2")
    assert [attempt.answer for attempt in first.attempts] == ["72", "96"]
    assert first.correct == (True, False)
    if preset == "nemo-skills":
        assert first.problem.id.startswith("s-") and len(second.attempts) == 2 and second.correct == (False, False)
        assert [(a.num_tokens, a.elapsed_s, a.text) for a in first.attempts][0] == (31, 1.5, "So \\boxed{72}.")
    else:
        assert (first.problem.id, second.problem.id, second.correct) == ("1", "2", (True,))
        assert [(a.num_tokens, a.elapsed_s, a.text, a.model) for a in first.attempts] == [
            (13, 2, "ANSWER: 72", "small"),
            (14, 2, "ANSWER: 96", "small"),
        ]


def test_one_file_of_nemo_skills_and_a_folder_without_any(tmp_path: Path) -> None:
    folder = nemo_skills(tmp_path)
    problems = list(read_recordings([folder / "output-rs1.jsonl"], "nemo-skills"))
    assert [told(item)[1:] for item in problems] == [("72", ["96"], [False]), ("2", [None], [False])]
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other: no file there is named like 'output\*\.jsonl'"):
        list(read_recordings(tmp_path / "other", "nemo-skills"))


def test_lm_eval_reads_one_filter_and_golds_of_gsm8k(tmp_path: Path) -> None:
    report = ImportReport()
    path = lm_eval(tmp_path)
    problems = list(read_recordings(path.parent, "lm-eval", report=report))
    assert [told(item) for item in problems] == [
        ("00000000", "72", ["72"], [True]),
        ("11111111", "2", [None], [False]),
    ]
    assert problems[0].problem.statement == NATALIA
    assert report.notes == ["2 rows were left out because they show the same attempts by another filter"]


def test_lm_eval_with_repeats_reads_each_answer_from_its_text(tmp_path: Path) -> None:
    doc = {"problem": SUM, "solution": "It is $\\boxed{2}$."}
    row = {
        "doc_id": 3, "doc": doc, "target": "It is $\\boxed{2}$.", "filter": "none", "exact_match": 1,
        "resps": [["so \\boxed{2}", "The answer is 3.", "no idea", "\\boxed{\\frac{1}{2}}"]], "filtered_resps": ["2"],
    }  # fmt: skip
    (problem,) = read_recordings(jsonl(tmp_path / "samples_minerva_math_algebra_x.jsonl", row), "lm-eval")
    assert told(problem) == ("3", "2", ["2", "3", None, "\\frac{1}{2}"], [True, False, False, False])
    assert [attempt.text for attempt in problem.attempts] == row["resps"][0]


# Tables.


ROWS = [
    {"problem_id": 1, "question": SUM, "expected_answer": "2", "answer": "2", "tokens": 7, "model": "a"},
    {"problem_id": 2, "question": NATALIA, "expected_answer": "72", "answer": None, "tokens": 8, "model": "a"},
    {"problem_id": 1, "question": SUM, "expected_answer": "2", "answer": "3", "tokens": 9, "model": "b"},
]
IN_ROWS = [("1", "2", ["2", "3"], [True, False]), ("2", "72", [None], [False])]


def table(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
        return path
    if path.suffix == ".csv":
        lines = [",".join(ROWS[0])] + [",".join("" if v is None else f'"{v}"' for v in row.values()) for row in ROWS]
        path.write_text("\n".join(lines))
        return path
    return jsonl(path, *ROWS)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl", "t.jsonl.gz"])
def test_a_table_of_attempts_with_obvious_names(tmp_path: Path, name: str) -> None:
    problems = list(read_recordings(table(tmp_path / name)))
    assert [told(item) for item in problems] == IN_ROWS
    assert [(a.num_tokens, a.model, a.index, a.id) for a in problems[0].attempts] == [
        (7, "a", 0, "1#0"),
        (9, "b", 1, "1#1"),
    ]
    assert problems[0].problem == Problem("1", SUM, source="t")


def test_attempts_of_one_problem_in_several_files(tmp_path: Path) -> None:
    for name in ("x2", "x10"):
        jsonl(tmp_path / f"{name}.jsonl", *({**row, "text": name} for row in ROWS))
    mapping = mapping_of(
        {
            "problem": {"id": "problem_id", "statement": "question", "gold": "expected_answer", "group": "@file"},
            "attempt": {"answer": "answer", "model": "@file", "text": "text"},
            "features": {"length": "tokens"},
            "where": {"model": ["a"]},
        },
        "mine",
    )
    report = ImportReport()
    first, second = read_recordings(tmp_path, mapping, report=report)
    assert [(a.model, a.text, a.features) for a in first.attempts] == [
        ("x2", "x2", {"length": 7}),
        ("x10", "x10", {"length": 7}),
    ]
    assert (len(second.attempts), second.group, report.num_unwanted) == (2, "x2", 2)


def test_parquet_with_a_problem_a_row(tmp_path: Path) -> None:
    rows = [
        {"problem_id": "a", "problem": SUM, "gold": "2", "group": "g", "attempts": [
            {"answer": "2", "correct": None, "tokens": 5, "features": {"entropy": 0.5, "x": None}},
            {"answer": None, "correct": False, "tokens": None, "features": None},
        ]},
        {"problem_id": "b", "problem": SUM, "gold": "2", "group": None, "attempts": []},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    first, second = read_recordings(tmp_path / "t.parquet", min_attempts=0)
    assert told(first) == ("a", "2", ["2", None], [True, False])
    assert (first.group, first.attempts[0].features, second.group) == ("g", {"entropy": 0.5}, "b")


LISTS = {
    "layout": "lists",
    "problem": {"id": "id", "statement": "q", "gold": "gold"},
    "attempt": {"answer": "answers", "tokens": "lengths", "correct": "marks"},
}


def test_parallel_lists_of_one_row(tmp_path: Path) -> None:
    row = {"id": "a", "q": SUM, "gold": 2.0, "answers": ["2", "x+1"], "lengths": [4, 5], "marks": ["yes", False]}
    path = jsonl(tmp_path / "t.jsonl", row)
    mapping = mapping_of({**LISTS, "values": {"right": "yes"}}, "mine")
    (problem,) = read_recordings(path, mapping)
    assert told(problem) == ("a", "2", ["2", "x+1"], [True, False])
    assert [attempt.num_tokens for attempt in problem.attempts] == [4, 5]
    with pytest.raises(
        InputError, match="t.jsonl, line 1: lists of one problem must be of one length: .*'answers' has 2"
    ):
        list(read_recordings(jsonl(tmp_path / "t.jsonl", {**row, "lengths": [1]}), mapping))


def test_data_frames(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert [told(item) for item in from_data_frame(pandas.DataFrame(ROWS))] == IN_ROWS
    frame = pandas.DataFrame([{"id": "a", "q": SUM, "gold": "2", "answers": ["2"], "lengths": [4], "marks": [True]}])
    assert [told(item) for item in from_data_frame(frame, mapping_of(LISTS, "mine"))] == [("a", "2", ["2"], [True])]
    bad = pandas.DataFrame([{**row, "tokens": "many"} for row in ROWS])
    with pytest.raises(
        InputError, match="3 rows cannot be used:\n  data frame, row 1: 'tokens' must be a finite number"
    ):
        list(from_data_frame(bad))
    with pytest.raises(InputError, match="a pandas data frame with columns is needed, not list"):
        list(from_data_frame(ROWS))


# Runs of ours.


def run_folder(path: Path) -> Path:
    folder = RunFolder.create(path, "run")
    problems = [Problem("a", SUM), Problem("b", NATALIA)]
    attempts = [Attempt(f"a#{i}", "a", i, "code", 0, 0.8, answer, None, (), 9, 1.5) for i, answer in enumerate("23")]
    check = Attempt("a#2", "a", 2, "sympy_check", 0, 0.8, None, None, (), 3, 1.0, about=("2",))
    with RunStore.create(folder.store_path) as store:
        store.append(TraceEvent("run_started", 0, {"config": {}, "problems": [encode_problem(p) for p in problems]}))
        for attempt in (*attempts, check):
            started = {"index": attempt.index, "pillar": attempt.pillar, "seed": 0, "temperature": 0.8, "round": 1}
            store.append(TraceEvent("attempt_started", 1, started, "a", attempt.id))
            store.append(TraceEvent("attempt_finished", 2, {"attempt": encode_ending(attempt)}, "a", attempt.id))
        store.append(TraceEvent("gold_revealed", 3, {"gold": "2", "group": "g"}, "a"))
    return folder.path


def test_run_folders_and_their_stores(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    for given in (path, path / "run.sqlite"):
        report = ImportReport()
        (problem,) = read_recordings(given, report=report)
        assert told(problem) == ("a", "2", ["2", "3"], [True, False])
        assert (problem.group, [check.about for check in problem.checks]) == ("g", [("2",)])
        assert report.notes == ["1 problems of runs were left out because they have no known answer"]


def test_a_run_exported_as_parquet_is_read_back_with_its_checks(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    with RunStore.read(path / "run.sqlite") as store:
        records = [record for record in read_problems(store) if record.gold is not None]
        write_parquet(records, "run", "small", feature_names(store), tmp_path / "run.parquet")
    (problem,) = read_recordings(tmp_path / "run.parquet")
    assert told(problem) == ("a", "2", ["2", "3"], [True, False])
    (check,) = problem.checks
    assert (check.pillar, check.about, check.num_tokens, problem.group) == ("sympy_check", ("2",), 3, "g")


# Golds that are no integers.


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\dfrac12", True),
        ("18", "18.0", True),
        ("18", "\\frac{36}{2}", True),
        ("2\\sqrt{3}", "\\sqrt{12}", True),
        ("x^2-1", "(x-1)(x+1)", True),
        ("(1,2)", "(2,1)", False),
        ("\\frac{1}{2}", "0.33", False),
        ("72", "96", False),
    ],
)
def test_answers_of_every_form_are_judged(tmp_path: Path, gold: str, answer: str, right: bool) -> None:
    report = ImportReport()
    path = jsonl(tmp_path / "t.jsonl", interchange("a", answer, answer, gold=gold))
    (problem,) = read_recordings(path, report=report)
    assert problem.correct == (right, right)
    assert report.num_judged_unknown == 0


def test_what_stays_open_counts_as_wrong_and_is_told(tmp_path: Path) -> None:
    report = ImportReport()
    path = jsonl(
        tmp_path / "t.jsonl", interchange("a", "about three", "about three", "\\frac{1}{3}", gold="\\frac{1}{3}")
    )
    (problem,) = read_recordings(path, report=report)
    assert problem.correct == (False, False, True)
    assert report.num_judged_unknown == 2
    assert report.notes[0].startswith(
        "2 answers could be shown neither right nor wrong, and count as wrong: 'about three', gold '\\\\frac{1}{3}': "
    )


def test_a_mapping_is_a_value(tmp_path: Path) -> None:
    mapping = RecordingMapping("m", problem={"statement": ("q",), "gold": ("g",)}, attempt={"answer": ("a",)})
    rows = [{"q": SUM, "g": 2, "a": 2}, {"q": SUM, "g": 2, "a": 3}]
    problems = list(read_recordings(jsonl(tmp_path / "t.jsonl", *rows), mapping))
    assert [told(item) for item in problems] == [("t-1", "2", ["2"], [True]), ("t-2", "2", ["3"], [False])]
