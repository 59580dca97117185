import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mathlete.core.errors import InputError
from mathlete.lab.task_golds import prove_gold
from mathlete.lab.tasks import load_tasks

ROOT = Path(__file__).parents[2]
PROBLEMS = ROOT.parent / "shared" / "problems"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_csv_with_quoted_cells_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    text = '\ufeffid,problem,answer\r\na,"Two\nlines, and a ""quote"".","1,234"\r\n\r\nb,$1+1$?,\r\n'
    tasks = load_tasks(write(tmp_path / "p.csv", text)).tasks
    assert [(t.problem.id, t.problem.statement, t.gold, t.group) for t in tasks] == [
        ("a", 'Two\nlines, and a "quote".', "1234", "a"),
        ("b", "$1+1$?", None, "b"),
    ]


def test_a_csv_without_answers_and_with_other_columns(tmp_path: Path) -> None:
    (task,) = load_tasks(str(write(tmp_path / "p.csv", "problem,note,id\nWhat?,x,7\n"))).tasks
    assert (task.problem.id, task.problem.statement, task.gold) == ("7", "What?", None)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_the_other_formats(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"id": "a", "problem": "A?", "answer": "42", "group": "g", "source": "here"},
        {"id": "b", "problem": "B?", "answer": None, "group": None, "source": None},
    ]
    path = tmp_path / f"p{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, gzip.compress(jsonl(*rows).encode()) if suffix.endswith(".gz") else jsonl(*rows))
    first, second = load_tasks(path).tasks
    assert (first.problem.id, first.gold, first.group, first.problem.source) == ("a", "42", "g", "here")
    assert (second.problem.id, second.gold, second.group, second.problem.source) == ("b", None, "b", None)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_formal_statements(tmp_path: Path, suffix: str) -> None:
    statement = "import Mathlib\n\ntheorem a : 1 + 1 = {answer} := by sorry"
    rows = [{"id": "a", "problem": "A?", "formal_statement": statement}]
    rows += [{"id": "b", "problem": "B?", "formal_statement": ""}]
    path = tmp_path / f"p{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([*rows, {**rows[1], "id": "c", "formal_statement": None}]), path)
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(rows[0]), *(row.values() for row in rows)])
    else:
        write(path, jsonl(*rows, {"id": "c", "problem": "C?", "formal_statement": float("nan")}))
    first, *others = load_tasks(path).tasks
    assert first.problem.formal_statement == statement
    assert [task.problem.formal_statement for task in others] == [None] * len(others) != []


def test_a_formal_statement_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", jsonl({"id": "a", "problem": "A?", "formal_statement": 3}))
    with pytest.raises(InputError, match="line 1: problem 'a': 'formal_statement' must be text, not 3"):
        load_tasks(path)


def test_numbers_as_ids_and_answers(tmp_path: Path) -> None:
    rows = [{"id": 1, "problem": "?", "answer": 42}, {"id": 2, "problem": "?", "answer": 7.0}]
    rows.append({"id": 3, "problem": "?", "answer": float("nan")})
    assert [(t.problem.id, t.gold) for t in load_tasks(write(tmp_path / "p.jsonl", jsonl(*rows))).tasks] == [
        ("1", "42"),
        ("2", "7"),
        ("3", None),
    ]


def test_rows_that_are_not_integer_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"id": str(i), "problem": "?", "answer": "x", "integer": False} for i in range(4)]
    path = write(tmp_path / "p.jsonl", jsonl(*rows, {"id": "z", "problem": "?", "answer": "1", "integer": True}))
    loaded = load_tasks(path)
    assert [task.problem.id for task in loaded.tasks] == ["z"]
    assert loaded.skipped == ("0", "1", "2", "3")
    assert loaded.notes == ("4 problems were left out because their answer is no integer: 0, 1, 2, ...",)


def test_nothing_is_read_after_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", jsonl({"id": "a", "problem": "?"}, {"id": "b", "problem": "?"}) + "broken")
    assert [task.problem.id for task in load_tasks(path, limit=2).tasks] == ["a", "b"]
    assert [row.place for row in load_tasks(path, limit=3).refused] == [f"{path}, line 3"]
    with pytest.raises(InputError, match="limit must be at least 1"):
        load_tasks(path, limit=0)


def test_the_admissible_interval_reaches_problem_and_gold(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "id,problem,answer\na,?,-3\n")
    (task,) = load_tasks(path, low=-5, high=5).tasks
    assert (task.gold, task.problem.answer_kind.low, task.problem.answer_kind.high) == ("-3", -5, 5)
    with pytest.raises(InputError, match=r"line 2: problem 'a': the answer, '-3', is not an integer in 0\.\.99999"):
        load_tasks(path, require_gold=True)


@pytest.mark.parametrize("text", ["What is $1/2 + 3/2$?", "Find x.\nIt is in data.csv", "x" * 5000 + " a/b", "1+1"])
def test_a_statement_is_one_task(text: str) -> None:
    (task,) = load_tasks(text).tasks
    assert (task.problem.id, task.problem.statement, task.gold) == ("problem", text, None)
    with pytest.raises(InputError, match="has no answer to compare with"):
        load_tasks(text, require_gold=True)


def test_a_statement_that_is_no_text() -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        load_tasks("what is \udcff ?")


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    write(tmp_path / "problems.csv", "id,problem\na,?\n")
    with pytest.raises(InputError, match=r"problem\.csv: file not found; did you mean .*problems\.csv\?"):
        load_tasks(str(tmp_path / "problem.csv"))
    with pytest.raises(InputError, match="file not found; there is no directory"):
        load_tasks("nowhere/at/all")
    with pytest.raises(InputError, match="file not found"):
        load_tasks("qqqq.jsonl")
    with pytest.raises(InputError, match="file not found"):
        load_tasks(tmp_path / "some words")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_at_all(text: str) -> None:
    with pytest.raises(InputError, match="the problem is empty"):
        load_tasks(text)


BROKEN = {
    "empty": ("p.csv", "", "p.csv: the file is empty"),
    "blank": ("p.jsonl", "\n\n", "p.jsonl: the file is empty"),
    "only a header": ("p.csv", "id,problem\n", "no problems to solve: it has no rows"),
    "only skipped": ("p.jsonl", jsonl({"id": "a", "problem": "?", "integer": False}), "all of its 1 rows say"),
    "only refused": (
        "p.csv",
        "id,name\na,?\nb,?\n",
        "no problems to solve: 2 rows were left out, because what they say",
    ),
    "column twice": ("p.csv", "id,problem,id\na,?,b\n", "column 'id' occurs more than once"),
    "open quote": ("p.csv", 'id,problem\na,?\nb,"never\nclosed\n', "line 3: broken CSV"),
    "latin-1": ("p.csv", "id,problem\na,?\nb,\xe9t\xe9\n".encode("latin-1"), "line 3: not UTF-8 text"),
    "not gzip": ("p.jsonl.gz", "plain", "p.jsonl.gz: broken gzip file"),
    "cut gzip": ("p.jsonl.gz", gzip.compress(b"x" * 5000)[:-12], "p.jsonl.gz: broken gzip file"),
    "parquet": ("p.parquet", "plain", "p.parquet: cannot be read as Parquet"),
    "kind": ("p.docx", "plain", "p.docx: unknown kind of file; its name must end in one of .csv, .csv.gz, .jsonl"),
}
GOOD = {"id": "good", "problem": "?", "answer": "1"}
# Rows that cannot be used, in a file that has a good one too.
REFUSED = {
    "columns": ("p.csv", "id,name,question\ngood,x,?\nb,x,\n", "line 3", "'question' is empty; fill it in"),
    "duplicate": ("p.csv", 'id,problem\ngood,"1\n2"\ngood,?\n', "line 4", "id 'good' was used before, in line 2"),
    "empty problem": ("p.csv", "id,problem\ngood,?\nb, \n", "line 3", "'problem' is empty"),
    "empty id": ("p.csv", "id,problem\ngood,?\n ,?\n", "line 3", "'id' is empty"),
    "bare comma": (
        "p.csv",
        "id,problem\na,One, two?\ngood,?\n",
        "line 2",
        "3 cells where the header has 2; a cell with a",
    ),
    "not json": ("p.jsonl", "{'id'}\n" + jsonl(GOOD), "line 1", "not a line of JSON"),
    "deep json": ("p.jsonl", "[" * 100_000 + "\n" + jsonl(GOOD), "line 1", "not a line of JSON"),
    "latin-1 json": ("p.jsonl", jsonl(GOOD).encode() + b'{"id": "\xe9"}', "line 2", "not UTF-8 text"),
    "json list": ("p.jsonl", jsonl(GOOD, [1, 2]), "line 2", "must be an object, {...}, not '[1, 2]'"),
    "json keys": (
        "p.jsonl",
        jsonl(GOOD, {"id": "a", "q": "?"}),
        "line 2",
        "has no 'problem' or 'question' or 'statement'; it has",
    ),
    "json type": ("p.jsonl", jsonl(GOOD, {"id": "a", "problem": 3}), "line 2", "'problem' must be text, not 3"),
    "json id": ("p.jsonl", jsonl(GOOD, {"id": [1], "problem": "?"}), "line 2", "'id' must be text, not [1]"),
    "surrogate": ("p.jsonl", jsonl(GOOD) + '{"id": "a", "problem": "\\ud800"}', "line 2", "half of a surrogate pair"),
    "formal": (
        "p.jsonl",
        jsonl(GOOD, {**GOOD, "id": "a", "formal_statement": 3}),
        "line 2",
        "'formal_statement' must be text, not 3",
    ),
}
# Golds that no answer could ever match.
BAD_GOLDS = {
    "fraction": (
        "1/2",
        "the answer, '1/2', is not an integer in 0..99999 (not_an_integer); correct it, leave it empty",
    ),
    "range": ("100000", "the answer, '100000', is not an integer in 0..99999 (out_of_range)"),
    "negative": (-3, "the answer, '-3', is not an integer in 0..99999 (out_of_range)"),
    "words": ("none of these", "the answer, 'none of these', is not an integer in 0..99999 (unparsable)"),
    "two": ("3 or 4", "the answer, '3 or 4', is not an integer in 0..99999"),
    "braces": ("7}{", "in a box it is not found; are its braces balanced?"),
    "too large": ("9" * 600, "is not an integer in 0..99999 (too_large)"),
    "list": ([1], "the answer must be text or a number, not [1]"),
    "true": (True, "the answer must be text or a number, not True"),
    "mark": ("so ####", "the answer, 'so ####', is empty behind its mark"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_cannot_be_used_is_listed_and_costs_the_others_nothing(tmp_path: Path, case: str) -> None:
    name, content, place, reason = REFUSED[case]
    path = write(tmp_path / name, content)
    loaded = load_tasks(path)
    assert [task.problem.id for task in loaded.tasks] == ["good"]
    (refused,) = loaded.refused
    assert (refused.place, refused.is_kept) == (f"{path}, {place}", False)
    assert reason in refused.reason
    (note,) = loaded.notes
    assert note.startswith("1 rows were left out, because what they say cannot be used:\n  ") and str(refused) in note


def test_whoever_owes_each_problem_an_answer_is_told_which_rows_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", jsonl(GOOD, {"id": "b"}, {"id": "c", "problem": "?", "answer": "x"}))
    loaded = load_tasks(path)
    with pytest.raises(
        InputError, match="^1 rows are no problems, because what they say cannot be used:\n.*line 2: problem 'b'"
    ):
        loaded.check_none_is_lost()
    load_tasks(write(path, jsonl(GOOD, {"id": "c", "problem": "?", "answer": "x"}))).check_none_is_lost()


@pytest.mark.parametrize("case", BAD_GOLDS)
def test_each_gold_is_proved_to_pass_the_verifier(tmp_path: Path, case: str) -> None:
    gold, reason = BAD_GOLDS[case]
    path = write(tmp_path / "p.jsonl", jsonl(GOOD, {"id": "bad", "problem": "?", "answer": gold}))
    evaluated = load_tasks(path, require_gold=True)
    assert [task.problem.id for task in evaluated.tasks] == ["good"]
    assert [(row.place, row.id, row.is_kept) for row in evaluated.refused] == [(f"{path}, line 2", "bad", False)]
    assert reason in evaluated.refused[0].reason
    solved = load_tasks(path)
    assert [(task.problem.id, task.gold) for task in solved.tasks] == [("good", "1"), ("bad", None)]
    assert [row.is_kept for row in solved.refused] == [True]
    assert solved.notes[0].startswith("1 problems have no label, because what they say cannot be used:")


@pytest.mark.parametrize(
    "gold", ["7", 7, 7.0, "1,234", "2^{10} \\bmod 7", "\\frac{84}{2}", "x = 42", "48/2=24\n#### 72", "\\boxed{5}."]
)
def test_golds_of_many_forms_are_canonical_integers(tmp_path: Path, gold: object) -> None:
    (task,) = load_tasks(write(tmp_path / "p.jsonl", jsonl({**GOOD, "answer": gold})), require_gold=True).tasks
    assert task.gold is not None and task.gold == str(int(task.gold))
    assert prove_gold(task.gold, task.problem.answer_kind).gold == task.gold


def test_many_refused_rows_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    rows = [{"id": f"{i}", "problem": "?", "answer": "x"} for i in range(30)]
    (note,) = load_tasks(write(tmp_path / "p.jsonl", jsonl(GOOD, *rows)), require_gold=True).notes
    lines = note.splitlines()
    assert (len(lines), lines[0][:22], lines[-1]) == (22, "30 rows were left out,", "  ... and 10 more")


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"question": "Q?", "answer": "5+5=10\n#### 10"}, ("p-1", "Q?", "10")),
        ({"ID": "2024-I-1", "Problem": "Q?", "Answer": 204}, ("2024-I-1", "Q?", "204")),
        ({"unique_id": "x", "problem": "Q?", "solution": "So $\\boxed{12}$.", "level": 5}, ("x", "Q?", "12")),
        ({"problem": "Q?", "expected_answer": "3", "prompt": "other"}, ("p-1", "Q?", "3")),
        ({"problem_id": 7, "prompt": "Q?", "final_answer": 3}, ("7", "Q?", "3")),
    ],
)
def test_obvious_names_of_others(tmp_path: Path, row: dict[str, object], task: tuple[str, str, str]) -> None:
    (loaded,) = load_tasks(write(tmp_path / "p.jsonl", jsonl(row)), require_gold=True).tasks
    assert (loaded.problem.id, loaded.problem.statement, loaded.gold) == task


def test_other_names_by_a_mapping(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", jsonl({"meta": {"key": "k", "family": "f"}, "text": "Q?", "sol": "#### 8", "id": "no"})
    )
    mapping = write(
        tmp_path / "m.toml",
        '[problem]\nid = "meta.key"\nstatement = "text"\ngold = "sol"\ngroup = "meta.family"\n',
    )
    (task,) = load_tasks(path, mapping=str(mapping)).tasks
    assert (task.problem.id, task.problem.statement, task.gold, task.group) == ("k", "Q?", "8", "f")
    with pytest.raises(InputError, match="there is no mapping 'mien'"):
        load_tasks(path, mapping="mien")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_says_what_and_where(tmp_path: Path, case: str) -> None:
    name, content, message = BROKEN[case]
    with pytest.raises(InputError) as caught:
        load_tasks(write(tmp_path / name, content))
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_other_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        load_tasks(str(tmp_path))
    pq.write_table(pa.table({"id": ["a"], "name": ["?"]}), tmp_path / "p.parquet")
    with pytest.raises(
        InputError, match="row 1: problem 'a': has no 'problem' or 'question' or 'statement'; it has 'id', 'name'"
    ):
        load_tasks(tmp_path / "p.parquet")
    loaded = load_tasks(write(tmp_path / "p.csv", "id,problem,answer\na,?,1\nb,?,\n"), require_gold=True)
    assert [row.reason for row in loaded.refused] == ["has no answer, and evaluating needs one for each"]


def test_the_examples_have_answers() -> None:
    tasks = load_tasks(ROOT / "examples" / "problems.csv", require_gold=True).tasks
    assert len(tasks) == 12
    with (ROOT / "examples" / "problems.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["id", "problem", "answer"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "limit", "num_tasks"), [("amc23", None, 39), ("math500", 60, 60), ("gsm8k_test", None, 1299)]
)
def test_the_development_problems(name: str, limit: int | None, num_tasks: int) -> None:
    path = PROBLEMS / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    loaded = load_tasks(path, limit=limit, require_gold=True)
    assert len(loaded.tasks) == num_tasks
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    integers = [row["id"] for row in rows if row["integer"]]
    assert [task.problem.id for task in loaded.tasks] == integers[:num_tasks]
