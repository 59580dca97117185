"""Hugging Face data sets, without a network and mostly without the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from mathlete.core.errors import InputError
from mathlete.lab.hugging_face import parse_dataset_name
from mathlete.lab.tasks import load_tasks

ROWS = [
    {
        "question": "Natalia sold 48 clips in April and half as many in May. How many altogether?",
        "answer": "48+24\n#### 72",
    },
    {"question": "What is half of one?", "answer": "#### 1/2"},
    {"question": "What is $1+1$?", "answer": "#### 2"},
]


def saved(folder: Path, rows: list[dict[str, Any]] = ROWS, **state: Any) -> Path:
    """A folder as `save_to_disk` of datasets writes it."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    known = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "f", "_split": None}
    (folder / "state.json").write_text(json.dumps({**known, **state}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_folder_that_save_to_disk_wrote(tmp_path: Path) -> None:
    path = saved(tmp_path / "gsm8k")
    loaded = load_tasks(path, require_gold=True)
    assert [(task.problem.id, task.gold) for task in loaded.tasks] == [("gsm8k-1", "72"), ("gsm8k-3", "2")]
    assert [(row.place, row.id) for row in loaded.refused] == [(f"{path}, row 2", "gsm8k-2")]
    assert len(load_tasks(str(path)).tasks) == 3


def test_a_folder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        saved(tmp_path / "sets" / split, ROWS[:1] if split == "test" else ROWS)
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [task.problem.id for task in load_tasks(tmp_path / "sets").tasks] == ["test-1"]
    assert len(load_tasks(tmp_path / "sets" / "train").tasks) == 3
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    with pytest.raises(InputError, match="sets: which split\\? There are .*sets/train, .*sets/dev"):
        load_tasks(tmp_path / "sets")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../../secret.arrow"}]}, "names no data files in its folder"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "names no data files in its folder"),
        ({"_data_files": []}, "names no data files in its folder"),
        ({"_data_files": [7]}, "names no data files in its folder"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "gone.arrow: cannot be read as an Arrow stream"),
        ({"_data_files": [{"filename": "state.json"}]}, "state.json: cannot be read as an Arrow stream"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "its rows are chosen by an index"),
    ],
)
def test_folders_that_lead_elsewhere_or_are_damaged(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    path = saved(tmp_path / "set", **state)
    with pytest.raises(InputError, match="set") as caught:
        load_tasks(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"splits": ["../x"]}', '{"splits": 3}'])
def test_broken_descriptions(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(
        InputError, match=r"dataset_dict\.json: (cannot be read|must be an object|has no list of splits)"
    ):
        load_tasks(tmp_path)


def test_the_package_writes_what_is_read_here(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "set", num_shards=2)
    datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS).select([0, 2])).save_to_disk(tmp_path / "sets")
    assert [task.gold for task in load_tasks(tmp_path / "set").tasks] == ["72", None, "2"]
    assert [task.gold for task in load_tasks(tmp_path / "sets").tasks] == ["72", "2"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:openai/gsm8k", ("openai/gsm8k", None, None)),
        ("hf:openai/gsm8k/main:test", ("openai/gsm8k", "main", "test")),
        ("hf:openai/gsm8k:train[:10%]", ("openai/gsm8k", None, "train[:10%]")),
        ("hf:squad", ("squad", None, None)),
    ],
)
def test_names(text: str, parts: tuple[str, str | None, str | None]) -> None:
    assert parse_dataset_name(text) == parts


@pytest.mark.parametrize("text", ["hf:", "hf:a/b/c/d", "hf:a b", "hf:a/b:", "hf:/etc", "hf:../x/y/z"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="names no data set; write hf:OWNER/NAME"):
        parse_dataset_name(text)


def test_the_hub_through_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(path: str, name: str | None, split: str | None) -> Any:
        asked.append((path, name, split))
        return ROWS if split is not None else {"train": ROWS[:1], "test": ROWS}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    loaded = load_tasks("hf:openai/gsm8k/main:train")
    assert [(task.problem.id, task.gold) for task in loaded.tasks] == [
        ("gsm8k-1", "72"),
        ("gsm8k-2", None),
        ("gsm8k-3", "2"),
    ]
    assert loaded.refused[0].place == "hf:openai/gsm8k, row 2"
    assert len(load_tasks("hf:openai/gsm8k").tasks) == 3, "the split called test"
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", None, None)]


def test_without_a_network_or_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **more: Any) -> Any:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\n(offline)")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(
        InputError, match=r"hf:openai/gsm8k: cannot be loaded \(ConnectionError: .*\)\. Without a network"
    ):
        load_tasks("hf:openai/gsm8k")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'needs the datasets package: pip install "mathlete\[datasets\]"'):
        load_tasks("hf:openai/gsm8k")
