"""Foreign files that are broken or meant to do harm: the row and the reason are named, memory and time stay bounded."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind
from mathlete.lab import json_lines
from mathlete.lab.bad_rows import BadRow
from mathlete.lab.import_report import ImportReport
from mathlete.lab.json_lines import decode_json, decode_json_slowly
from mathlete.lab.mapped_rows import map_row
from mathlete.lab.mapping import load_mapping, mapping_of
from mathlete.lab.recorded import MalformedError, problem_from
from mathlete.lab.recordings import read_recordings
from mathlete.lab.task_files import Row


def good(problem_id: str = "p", **entry: Any) -> dict[str, Any]:
    return {"problem_id": problem_id, "problem": "?", "gold": "1", "attempts": [{"answer": "1", **entry}]}


def raw(entry: str) -> str:
    return f'{{"problem_id": "p", "problem": "?", "gold": "1", "attempts": [{{"answer": "1", {entry}}}]}}'


BAD_ROWS = {
    "NaN tokens": (raw('"tokens": NaN'), ", attempt 0: 'tokens' must be a finite number from 0 to 1e+15, not nan"),
    "infinite seconds": (raw('"seconds": Infinity'), ", attempt 0: 'seconds' must be a finite number"),
    "1e400": (raw('"tokens": 1e400'), ", attempt 0: 'tokens' must be a finite number from 0 to 1e+15, not inf"),
    "huge integer": (raw(f'"tokens": 1{"0" * 400}'), ", attempt 0: 'tokens' must be a finite number"),
    "huge feature": (raw(f'"features": {{"x": 1{"0" * 400}}}'), ", attempt 0: feature 'x' must be a number of 64 bits"),
    "integer too long": (raw(f'"tokens": 1{"0" * 5000}'), ": not a line of JSON (Exceeds the limit"),
    "answer is a list": (raw('"x": 1').replace('"answer": "1"', '"answer": ["1"]'), "'answer' must be text, a number"),
    "answer is true": (raw('"x": 1').replace('"answer": "1"', '"answer": true'), "'answer' must be text, a number"),
    "answer is NaN": (raw('"x": 1').replace('"answer": "1"', '"answer": NaN'), "'answer' must be text, a number"),
    "correct is 1": (raw('"correct": 1'), ", attempt 0: 'correct' must be true or false, not 1"),
    "half a surrogate pair": (raw('"text": "\\ud800"'), ": a text holds half of a surrogate pair"),
    "half a pair in a key": (raw('"\\udfff": 1'), ": a text holds half of a surrogate pair"),
    "not UTF-8": (b'{"problem_id": "\xff"}', ": not UTF-8 text"),
    "nested bomb": ("[" * 200_000, ": not a line of JSON (nested too deeply)"),
    "nested bomb of objects": ('{"a":' * 200_000, ": not a line of JSON"),
    "nested in a feature": (raw('"features": ' + '{"a":' * 900 + "1" + "}" * 900), "feature 'a' must be a number"),
    "cut off": ('{"problem_id": "p", "problem": "?", "gold": "1", "att', ": not a line of JSON"),
    "two objects": (json.dumps(good()) * 2, ": not a line of JSON (Extra data"),
    "a list": ("[]", ": must be an object"),
    "null": ("null", ": must be an object"),
    "NUL bytes": (b"\x00" * 40, ": not a line of JSON"),
    "attempts null": ({**good(), "attempts": None}, ": 'attempts' must be a list, not None"),
    "attempts object": ({**good(), "attempts": {"0": {}}}, ": 'attempts' must be a list"),
    "attempts mixed": ({**good(), "attempts": [{"answer": "1"}, "2"]}, ", attempt 1: must be an object, not '2'"),
    "id is a list": ({**good(), "problem_id": ["p"]}, ": 'problem_id' must be text"),
    "id is true": ({**good(), "problem_id": True}, ": 'problem_id' must be text"),
    "id is blank": ({**good(), "problem_id": " "}, ": 'problem_id' must be text that is not blank"),
    "gold is an object": ({**good(), "gold": {"value": 1}}, ": 'gold' must be text"),
    "group is a list": ({**good(), "group": [1]}, ": 'group' must be text"),
    "negative tokens": (good(tokens=-3), ", attempt 0: 'tokens' must be a finite number from 0"),
    "seed too long": (raw(f'"seed": {2**64}'), ", attempt 0: 'seed' must be a whole number"),
    "seed is no whole number": (good(seed=0.5), ", attempt 0: 'seed' must be a whole number from 0 up"),
    "tokens true": (good(tokens=True), ", attempt 0: 'tokens' must be a finite number"),
    "tokens as text": (good(tokens="12"), ", attempt 0: 'tokens' must be a finite number"),
    "about is a number": (good(about=7), ", attempt 0: 'about' must be a list of texts, not 7"),
    "about of objects": (good(about=[{}]), ", attempt 0: 'about' must be a list of texts"),
    "evidence is an object": (good(evidence={"verdict": "PROVED"}), ", attempt 0: 'evidence' must be a list"),
    "evidence with wrong types": (
        good(evidence=[{"checker": 1, "claim": "c", "verdict": "PROVED"}]),
        ", attempt 0: evidence cannot be read ('checker' must be text, not 1)",
    ),
    "evidence that takes for ever": (
        good(evidence=[{"checker": "c", "claim": "c", "verdict": "PROVED", "elapsed_s": "inf"}]),
        ", attempt 0: 'elapsed_s' must be a finite number",
    ),
    "evidence with more": (
        good(evidence=[{"checker": "c", "claim": "c", "verdict": "PROVED", "__class__": "os"}]),
        ", attempt 0: evidence cannot be read",
    ),
    "verdict is a list": (good(evidence=[{"verdict": ["PROVED"]}]), ", attempt 0: evidence must be an object"),
    "features is a list": (good(features=[1.0]), ", attempt 0: 'features' must be an object"),
    "feature is text": (good(features={"x": "1"}), ", attempt 0: feature 'x' must be a number, not '1'"),
    "failure unknown": (good(failure="bored"), ", attempt 0: 'failure' must be one of no_answer"),
    "failure is a list": (good(failure=[]), ", attempt 0: 'failure' must be one of"),
    "model is an object": (good(model={}), ", attempt 0: 'model' must be text"),
    "text is a list": (good(text=["a"]), ", attempt 0: 'text' must be text"),
    "check is malformed": ({**good(), "checks": [{"tokens": -1}]}, ", check 0: 'tokens' must be a finite number"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_the_row_and_the_reason_are_named_and_the_others_are_read(tmp_path: Path, case: str) -> None:
    row, reason = BAD_ROWS[case]
    line = row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([json.dumps(good("a")).encode(), line, b"", json.dumps(good("b")).encode()]))
    read = []
    with pytest.raises(InputError) as caught:
        for problem in read_recordings(path):
            read.append(problem.problem.id)
    assert read == ["a", "b"]
    assert str(caught.value).startswith(f"{path}, line 2") and reason in str(caught.value)
    assert len(str(caught.value)) < 1_000
    report = ImportReport()
    assert len(list(read_recordings(path, skip_bad=True, report=report))) == 2
    assert report.bad.num == 1


def test_old_programs_write_nan_where_they_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(raw('"features": {"x": NaN, "y": Infinity, "z": 0.5}'))
    (problem,) = read_recordings(path)
    assert problem.attempts[0].features == {"z": 0.5}


def test_integers_beyond_64_bits_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**good(), "gold": 10**30 + 1, "attempts": [{"answer": 10**30}]}))
    (problem,) = read_recordings(path)
    assert (problem.gold, problem.attempts[0].answer, problem.correct) == (f"{10**30 + 1}", f"{10**30}", (False,))


def test_many_bad_rows_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(good(f"{i}", tokens=-1 if i % 2 else 1)) + "\n" for i in range(100)))
    with pytest.raises(InputError) as caught:
        list(read_recordings(path))
    lines = str(caught.value).splitlines()
    assert lines[0] == "50 rows cannot be used:"
    assert lines[1].startswith(f"  {path}, line 2, attempt 0: 'tokens' must be")
    assert (len(lines), lines[-1]) == (22, "  ... and 30 more")


@pytest.mark.parametrize("cut", [-1, -9, -300])
def test_a_gzip_file_that_is_cut_off_gives_what_is_whole(tmp_path: Path, cut: int) -> None:
    lines = "".join(json.dumps(good(f"{i}", text=f"{i * 7919 % 104729}" * 9)) + "\n" for i in range(3_000))
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode())[:cut])
    read = []
    with pytest.raises(InputError, match=r"t\.jsonl\.gz, line \d+: broken gzip file"):
        for problem in read_recordings(path):
            read.append(problem.problem.id)
    assert read == [str(i) for i in range(len(read))] and len(read) > 2_000


def test_a_line_without_an_end_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(json.dumps(good("a")).encode() + b"\n")
        for _ in range(64):
            file.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"bomb\.jsonl\.gz, line 2: longer than 1 MiB"):
        list(read_recordings(path))


FILES = {
    "empty": ("t.jsonl", b"", "t.jsonl: the file is empty"),
    "blank": ("t.jsonl", b"\n \n", "t.jsonl: the file is empty"),
    "not gzip": ("t.jsonl.gz", b"plain", "t.jsonl.gz: broken gzip file"),
    "not Parquet": ("t.parquet", b"PAR1xxxxPAR1", "t.parquet: cannot be read as Parquet"),
    "not a store": ("t.sqlite", b"plain", "t.sqlite"),
    "a pickle": ("t.pkl", b"\x80\x04.", "t.pkl: unknown kind of file"),
    "CSV with a column twice": ("t.csv", b"a,a\n1,2\n", "t.csv: column 'a' occurs more than once"),
    "CSV with an open quote": ("t.csv", b'id,problem,gold,answer\n1,?,1,"2\n', "t.csv, line 2: broken CSV"),
    "CSV of another shape": (
        "t.csv",
        b"id,problem,gold,answer\n1,?,1\n",
        "t.csv, line 2: 3 cells where the header has 4",
    ),
    "CSV in Latin-1": ("t.csv", b"id,problem,gold,answer\n1,\xe9,1,1\n", "t.csv, line 2: not UTF-8 text"),
    "other columns": ("t.csv", b"name,text\n1,?\n", "t.csv, line 2: has no statement at 'problem' or 'question'"),
    "no gold": ("t.csv", b"id,problem,answer\n1,?,3\n", "t.csv, line 2: has no gold at 'gold' or 'expected_answer'"),
    "no answers known": ("t.json", b"{}", "t.json: the mapping table names no `rows`"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read(tmp_path: Path, case: str) -> None:
    name, content, message = FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_recordings(path))
    assert message in str(caught.value)


def test_paths_that_are_not_there_are_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: file not found"):
        read_recordings([tmp_path, tmp_path / "none.jsonl"])
    with pytest.raises(InputError, match="no run and no recorded attempts there"):
        list(read_recordings(tmp_path))


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.parquet").write_bytes(b"x")
    (tmp_path / "c.jsonl").write_text(json.dumps(good("c")))
    read: list[str] = []
    paths = sorted(tmp_path.iterdir())
    with pytest.raises(
        InputError, match="2 rows cannot be used:\n  .*a.jsonl: the file is empty\n  .*b.parquet: cannot be"
    ):
        read.extend(problem.problem.id for problem in read_recordings(paths))
    assert [problem.problem.id for problem in read_recordings(paths, skip_bad=True)] == ["c"]


# Rows that hold one attempt each.


def rows_file(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(
        "".join(json.dumps({"id": "p", "problem": "?", "gold": "1", "answer": "1", **row}) + "\n" for row in rows)
    )
    return path


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"gold": "2"},
            "line 2: problem 'p' has another statement or gold in .*line 1; two problems must not share an id",
        ),
        ({"problem": "!"}, "line 2: problem 'p' has another statement or gold"),
        ({"tokens": -1}, "line 2: 'tokens' must be a finite number from 0"),
        ({"tokens": "NaN?"}, "line 2: 'tokens' must be a finite number, not 'NaN\\?'"),
        ({"tokens": "1e999"}, "line 2: 'tokens' must be a finite number, not inf"),
        ({"tokens": 10**30}, "line 2: holds a value that is neither text nor a number of 64 bits"),
        ({"correct": 0.5}, "line 2: 'correct' is 0.5, which says neither right nor wrong"),
        ({"correct": "C"}, "line 2: 'correct' is 'C', which says neither right nor wrong"),
        ({"answer": {"x": 1}}, "line 2: 'answer' must be text or a number"),
        ({"answer": True}, "line 2: 'answer' must be text or a number"),
        ({"features": {"x": [1]}}, "line 2: feature 'x' must be a number"),
        ({"model": [1]}, "line 2: 'model' must be text"),
        ({"pillar": "lean_check", "evidence": [{}]}, "line 2: evidence must be an object with a 'verdict'"),
        ({"seed": "x"}, "line 2: 'seed' must be a whole number"),
        ({"gold": None}, "line 2: has no gold at"),
        ({"gold": {"a": 1}}, "line 2: 'gold' must be text or a number"),
        ({"problem": 0.5}, "line 2: has no statement at"),
    ],
)
def test_a_bad_attempt_costs_its_row_alone(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = rows_file(tmp_path / "t.jsonl", {}, row, {"answer": "3"})
    with pytest.raises(InputError, match=reason):
        list(read_recordings(path))
    (problem,) = read_recordings(path, skip_bad=True)
    assert [attempt.answer for attempt in problem.attempts] == ["1", "3"]


def test_columns_that_change_their_type(tmp_path: Path) -> None:
    path = rows_file(
        tmp_path / "t.jsonl", {"answer": 1}, {"answer": 1.0}, {"answer": "1"}, {"answer": None}, {"answer": 1.5}
    )
    (problem,) = read_recordings(path)
    assert [attempt.answer for attempt in problem.attempts] == ["1", "1", "1", None, "1.5"]
    assert problem.correct == (True, True, True, False, False)


def test_parquet_with_columns_of_other_types(tmp_path: Path) -> None:
    columns = {"id": ["a", "b"], "problem": ["?", "?"], "gold": ["1", "1"], "answer": pa.array([b"\xff", b"1"])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(
        InputError, match=r"2 rows cannot be used:\n  .*t\.parquet, row 1: 'answer' must be text or a number"
    ):
        list(read_recordings(tmp_path / "t.parquet"))
    pq.write_table(pa.table({"id": pa.array(["a"]), "problem": pa.array([["?"]])}), tmp_path / "u.parquet")
    with pytest.raises(InputError, match=r"u\.parquet, row 1: has no statement at"):
        list(read_recordings(tmp_path / "u.parquet"))


# Archives and documents.


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"samples/{name}.json", content)
    return path


def test_archives_that_are_broken_or_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.eval", x=b"{", y=b"[]", z=b" " * (3 << 20))
    monkeypatch.setattr("mathlete.lab.row_files.MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(InputError) as caught:
        list(read_recordings(path, "inspect"))
    message = str(caught.value)
    assert message.startswith("3 rows cannot be used:")
    for part in ("member samples/x.json: not a line of JSON", "y.json: must be an object", "z.json: longer than 1 MiB"):
        assert part in message
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.eval: cannot be read as an archive"):
        list(read_recordings(path, "inspect"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("other.json", "{}")
    with pytest.raises(InputError, match=r"a\.eval: no member of the archive is named like 'samples/\*\.json'"):
        list(read_recordings(path, "inspect"))
    with pytest.raises(InputError, match="a.eval: the mapping table names no `members`"):
        list(read_recordings(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"samples": {}}', "there is no list at 'samples'"),
        (b'{"version": 2}', "there is no list at 'samples'"),
        (b'{"samples": [7]}', "row 1: must be an object, not 7"),
        (b'{"samples": [', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_documents_without_rows(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="log.json") as caught:
        list(read_recordings(path, "inspect"))
    assert message in str(caught.value)


# Whatever is written: an error of ours or a problem, never another exception; fast and slow decoding agree.


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
NAMES = ["answer", "correct", "tokens", "seconds", "features", "failure", "evidence", "about", "text", "model", "round"]


@given(
    st.dictionaries(st.sampled_from(NAMES), JSON), st.dictionaries(st.sampled_from(["gold", "group", "checks"]), JSON)
)
def test_any_object_is_read_or_refused(entry: dict[str, Any], head: dict[str, Any]) -> None:
    try:
        problem = problem_from({**good(), **head, "attempts": [entry]}, "x", AnswerKind(), lambda answer, gold: False)
    except MalformedError as error:
        assert str(error)
    else:
        assert len(problem.attempts) == len(problem.correct) == 1


LIST_MAPPING = mapping_of(
    {
        "layout": "lists",
        "attempts": "a",
        "problem": {"statement": "q", "gold": "g"},
        "attempt": {"answer": ["x", "@text"]},
    },
    "m",
)


@pytest.mark.parametrize(
    "mapping", [load_mapping("inspect"), load_mapping("table"), LIST_MAPPING], ids=lambda m: m.name
)
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["id", "input", "target", "scores", "output", "problem", "gold", "answer", "q", "g", "a", "correct", "text"]
        ),
        JSON,
    )
)
def test_any_row_is_mapped_or_refused(mapping: Any, fields: dict[str, Any]) -> None:
    try:
        mapped = map_row(Row(fields, Path("f.jsonl"), "line 1"), mapping)
    except MalformedError as error:
        assert str(error)
    else:
        assert isinstance(mapped.head["problem"], str)


@given(JSON)
def test_fast_and_slow_decoding_agree(value: Any) -> None:
    content = json.dumps(value).encode()
    try:
        slow = decode_json_slowly(content)
    except ValueError as error:
        with pytest.raises(ValueError, match="surrogate"):
            decode_json(content)
        assert "surrogate" in str(error)
    else:
        assert repr(decode_json(content)) == repr(slow)


@given(st.binary(max_size=60))
def test_fast_and_slow_decoding_refuse_the_same_bytes(content: bytes) -> None:
    outcomes = []
    for decode in (decode_json, decode_json_slowly):
        try:
            outcomes.append(repr(decode(content)))
        except ValueError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


def test_a_bad_row_is_shown_in_one_line_of_bounded_length() -> None:
    assert len(str(BadRow("f", "x" * 10_000))) < 600
    assert io.StringIO(str(BadRow("f, line 2", "why"))).read() == "f, line 2: why"
