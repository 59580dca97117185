"""Rows of Hugging Face data sets: from the hub by the `datasets` package, or from a folder that it saved.

Knows names such as `hf:openai/gsm8k/main:test`, and the folders of `save_to_disk`, which are read by pyarrow alone: an
Arrow stream holds tables and nothing that could be run. Code that comes with a data set is never run.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mathlete.core.errors import InputError
from mathlete.lab.task_files import Row

PREFIX = "hf:"
_NAME = re.compile(
    r"hf:(?P<path>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.\[\]:%-]+))?", re.ASCII
)
_STATE_NAME = "state.json"
_SPLITS_NAME = "dataset_dict.json"
_PREFERRED_SPLIT = "test"


class DatasetName(NamedTuple):
    """A data set of the hub.

    Attributes:
        path: owner and name.
        config: which of its configurations; None for its only one.
        split: None for "test", or its only one.
    """

    path: str
    config: str | None
    split: str | None


def parse_dataset_name(text: str) -> DatasetName:
    """What `hf:OWNER/NAME[/CONFIG][:SPLIT]` means.

    Raises:
        InputError: it is not written so.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} names no data set; write hf:OWNER/NAME[/CONFIG][:SPLIT], as in hf:openai/gsm8k/main:test"
        )
    return DatasetName(match["path"], match["config"], match["split"])


def hub_rows(text: str) -> Iterator[Row]:
    """The rows of a data set of the hub, from its cache where it is there already.

    Raises:
        InputError: `datasets` is not installed, the name is wrong, or the data set cannot be had (no network).
    """
    name = parse_dataset_name(text)
    try:
        datasets: Any = importlib.import_module("datasets")  # seconds long, and few inputs are data sets
    except ImportError as error:
        raise InputError(f'{text}: needs the datasets package: pip install "mathlete[datasets]"') from error
    try:
        found = datasets.load_dataset(name.path, name.config, split=name.split)
    except (
        Exception
    ) as error:  # of the package, of the hub's client, or of the network: all mean that there are no rows
        reason = " ".join(str(error).split())[:400]
        raise InputError(
            f"{text}: cannot be loaded ({type(error).__name__}: {reason}). Without a network only what is in the cache "
            "of datasets can be used; a folder written by its save_to_disk works everywhere"
        ) from error
    if isinstance(found, dict):
        found = found[_chosen_split(list(found), text, ":")]
    for number, fields in enumerate(found, start=1):
        yield Row(fields, Path(f"{PREFIX}{name.path}"), f"row {number}")


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` has written a folder."""
    return (folder / _STATE_NAME).is_file() or (folder / _SPLITS_NAME).is_file()


def saved_rows(folder: Path) -> Iterator[Row]:
    """The rows of a folder that `save_to_disk` wrote, read batch by batch.

    Raises:
        InputError: it is damaged, or has several splits and none is called "test".
    """
    if (folder / _SPLITS_NAME).is_file():
        splits = _read_json(folder / _SPLITS_NAME).get("splits")
        if not isinstance(splits, list) or not all(_is_plain_name(name) for name in splits):
            raise InputError(f"{folder / _SPLITS_NAME}: has no list of splits")
        return saved_rows(folder / _chosen_split(splits, str(folder), "/"))
    return _arrow_rows(folder)


def _arrow_rows(folder: Path) -> Iterator[Row]:
    import pyarrow

    state = _read_json(folder / _STATE_NAME)
    if state.get("_indices_data_files"):
        raise InputError(f"{folder}: its rows are chosen by an index; save it again after flatten_indices()")
    files = [str(item.get("filename")) for item in state.get("_data_files") or [] if isinstance(item, dict)]
    if not files or not all(map(_is_plain_name, files)):
        raise InputError(f"{folder / _STATE_NAME}: names no data files in its folder")
    number = 0
    for file in files:
        try:
            with pyarrow.memory_map(str(folder / file)) as source, pyarrow.ipc.open_stream(source) as batches:
                for batch in batches:
                    for fields in batch.to_pylist():
                        number += 1
                        yield Row(fields, folder, f"row {number}")
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{folder / file}: cannot be read as an Arrow stream ({error})") from error


def _chosen_split(splits: list[str], text: str, separator: str) -> str:
    if _PREFERRED_SPLIT in splits:
        return _PREFERRED_SPLIT
    if len(splits) == 1:
        return splits[0]
    choices = ", ".join(f"{text}{separator}{split}" for split in splits) or "nothing"
    raise InputError(f"{text}: which split? There are {choices}")


def _is_plain_name(name: object) -> bool:
    """Whether a name stays in its folder: a foreign file says it."""
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..") and "\0" not in name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be an object")
    return value
