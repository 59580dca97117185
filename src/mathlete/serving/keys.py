"""The key that other machines ask with: where it comes from, and when it could be guessed."""

from __future__ import annotations

import os
import re
import secrets

from mathlete.core.environment import is_variable_name
from mathlete.core.errors import InputError

_KEY = re.compile(r"[!-~]{16,512}")


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable, None where no variable is named.

    Raises:
        InputError: it is not set, or could be guessed.
    """
    if variable is None:
        return None
    if not is_variable_name(variable):  # perhaps a key itself, so it is not told
        raise InputError("--api-key-env takes the name of an environment variable, such as MATHLETE_KEY, and not a key")
    key = os.environ.get(variable)
    if key is None:
        raise InputError(f"--api-key-env {variable}: there is no such environment variable; set it to the server's key")
    if not _KEY.fullmatch(key):
        raise InputError(
            f"--api-key-env {variable}: a key has from 16 to 512 letters, digits and signs, without spaces; make one "
            "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return key


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(32)
