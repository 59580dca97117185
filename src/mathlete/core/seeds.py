"""Seeds derived from one run seed, so that every attempt's noise can be named and repeated."""

from __future__ import annotations

import hashlib


def derive_seed(run_seed: int, *path: str | int) -> int:
    """A 63-bit seed for the place named by `path` (problem id, attempt index, turn index).

    Independent of the order in which attempts run; the same on every machine.
    """
    text = "/".join([str(run_seed), *(str(part) for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
