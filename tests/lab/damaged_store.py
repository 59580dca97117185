"""Stores that came to harm."""

import os
from pathlib import Path

from mathlete.core.trace import TraceEvent
from mathlete.lab.run_store import RunStore


def damaged_store(path: Path, damage: str) -> Path:
    """A store of short events and a long one: "truncated", hurt "inside a long event", or in all but its first page."""
    with RunStore.create(path) as store:
        store.append_many([TraceEvent("warning", 0.0, {"message": os.urandom(450).hex()}) for _ in range(60)])
        store.append(TraceEvent("warning", 0.0, {"message": os.urandom(40_000).hex()}))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "inside a long event":
        content[-32_768:-20_480] = bytes(12_288)
    else:
        content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    return path
