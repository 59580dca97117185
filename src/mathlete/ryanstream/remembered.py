"""What was measured once and is kept in a file. Knows files; knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def remembered(path: Path, read: Callable[[Any], T | None], measure: Callable[[], T], write: Callable[[T], Any]) -> T:
    """What is kept at `path`, or, when nothing that fits is, what is measured and kept there.

    A file that cannot be read or written only costs the measurement: it is a cache.

    Args:
        path: a JSON file.
        read: makes it of the file's content; None, or a `ValueError`, `KeyError` or `TypeError`, when it does not fit.
        measure: makes it anew.
        write: what to keep of it, as JSON.
    """
    try:
        kept = read(json.loads(path.read_text(encoding="utf-8")))
        if kept is not None:
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    measured = measure()
    partial = path.with_name(f"{path.name}.{time.monotonic_ns()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(write(measured)), encoding="utf-8")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
    return measured
