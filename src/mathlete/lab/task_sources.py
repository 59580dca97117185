"""What a person means by a file of problems: a file, a folder, a data set, or a statement written out.

Knows names and paths, and what stands near a name that is not there. Does not read what it finds.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.lab.hugging_face import PREFIX, is_saved_dataset
from mathlete.lab.task_files import SUFFIXES

_MAX_PATH_CHARS = 1_000
_PATH_SUFFIXES = (*SUFFIXES, ".json", ".tsv", ".txt", ".xlsx")


def find_source(path_or_text: str | os.PathLike[str]) -> str | Path | None:
    """The file, folder or data set that is meant, or None for a statement.

    Raises:
        InputError: it is empty, or looks like a file that is not there.
    """
    text = os.fspath(path_or_text)
    if not text.strip():
        raise InputError("the problem is empty: give a statement, or a .csv, .jsonl or .parquet file")
    may_be_path = len(text) <= _MAX_PATH_CHARS and "\n" not in text and "\0" not in text
    if may_be_path and text.startswith(PREFIX) and not any(map(str.isspace, text)):
        return text
    path = Path(text)
    if may_be_path and os.path.isdir(text):
        if is_saved_dataset(path):
            return path
        raise InputError(f"{path}: is a directory; name a file in it ({', '.join(SUFFIXES)})")
    if may_be_path and os.path.exists(text):  # unlike pathlib's, false for a name that is too long
        return path
    looks_like_path = text.lower().endswith(_PATH_SUFFIXES) or (os.sep in text and not any(map(str.isspace, text)))
    if not isinstance(path_or_text, str) or (may_be_path and looks_like_path):
        raise InputError(f"{path}: file not found{_near_names(path)}")
    return None


def _near_names(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return f"; there is no directory {path.parent}"
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3)
    if not near:
        return ". A problem given as text must contain a space"
    return "; did you mean " + " or ".join(str(path.parent / name) for name in near) + "?"
