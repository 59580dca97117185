"""Names of environment variables, in which keys are handed over."""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_variable_name(text: str) -> bool:
    """Whether `text` can be the name of one. What cannot may be a key itself: a message must not repeat it."""
    return _VARIABLE.fullmatch(text) is not None
