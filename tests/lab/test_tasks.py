import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mathlete.core.errors import InputError
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
    with pytest.raises(InputError, match="line 1: 'formal_statement' must be text, not 3"):
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
    with pytest.raises(InputError, match="line 3"):
        load_tasks(path, limit=3)
    with pytest.raises(InputError, match="limit must be at least 1"):
        load_tasks(path, limit=0)


def test_the_admissible_interval_reaches_problem_and_gold(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "id,problem,answer\na,?,-3\n")
    (task,) = load_tasks(path, low=-5, high=5).tasks
    assert (task.gold, task.problem.answer_kind.low, task.problem.answer_kind.high) == ("-3", -5, 5)
    with pytest.raises(InputError, match=r"line 2: the answer of 'a', '-3', is not an integer in 0\.\.99999"):
        load_tasks(path)


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
    "columns": ("p.csv", "name,question\na,?\n", "no column 'id' and no column 'problem'; found 'name', 'question'"),
    "column twice": ("p.csv", "id,problem,id\na,?,b\n", "column 'id' occurs more than once"),
    "duplicate": ("p.csv", 'id,problem\na,"1\n2"\nb,?\na,?\n', "line 5: id 'a' was used before, in line 2"),
    "empty problem": ("p.csv", "id,problem\na,?\nb, \n", "line 3: 'problem' is empty"),
    "empty id": ("p.csv", "id,problem\n,?\n", "line 2: 'id' is empty"),
    "bare comma": ("p.csv", "id,problem\na,One, two?\n", "line 2: 3 cells where the header has 2; a cell with a comma"),
    "open quote": ("p.csv", 'id,problem\na,?\nb,"never\nclosed\n', "line 3: broken CSV"),
    "answer": ("p.csv", "id,problem,answer\na,?,1/2\n", r"line 2: the answer of 'a', '1/2', is not an integer"),
    "range": ("p.csv", "id,problem,answer\na,?,100000\n", "'100000', is not an integer in 0..99999 (out_of_range)"),
    "latin-1": ("p.csv", "id,problem\na,?\nb,\xe9t\xe9\n".encode("latin-1"), "line 3: not UTF-8 text"),
    "not json": ("p.jsonl", jsonl({"id": "a", "problem": "?"}) + "{'id'}\n", "line 2: not a line of JSON"),
    "deep json": ("p.jsonl", "[" * 100_000, "line 1: not a line of JSON"),
    "json list": ("p.jsonl", "[1, 2]\n", "line 1: must be an object with the keys id and problem, not '[1, 2]'"),
    "json keys": ("p.jsonl", jsonl({"id": "a", "question": "?"}), "line 1: has no 'problem'; it has 'id', 'question'"),
    "json type": ("p.jsonl", jsonl({"id": "a", "problem": 3}), "line 1: 'problem' must be text, not 3"),
    "json answer": ("p.jsonl", jsonl({"id": "a", "problem": "?", "answer": [1]}), "must be text or a number, not [1]"),
    "surrogate": ("p.jsonl", '{"id": "a", "problem": "\\ud800"}', "line 1: 'problem' holds half of a surrogate pair"),
    "not gzip": ("p.jsonl.gz", "plain", "p.jsonl.gz: broken gzip file"),
    "cut gzip": ("p.jsonl.gz", gzip.compress(b"x" * 5000)[:-12], "p.jsonl.gz: broken gzip file"),
    "parquet": ("p.parquet", "plain", "p.parquet: cannot be read as Parquet"),
    "kind": ("p.docx", "plain", "p.docx: unknown kind of file; its name must end in one of .csv, .jsonl"),
}


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
    pq.write_table(pa.table({"id": ["a"], "question": ["?"]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no column 'problem'; found 'id', 'question'"):
        load_tasks(tmp_path / "p.parquet")
    with pytest.raises(InputError, match="line 3: problem 'b' has no answer"):
        load_tasks(write(tmp_path / "p.csv", "id,problem,answer\na,?,1\nb,?,\n"), require_gold=True)


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
