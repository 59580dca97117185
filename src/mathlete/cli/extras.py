"""Whether the packages of an extra are installed, told before a command does anything."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from mathlete.core.errors import InputError


def check_installed(what: str, packages: Mapping[str, str], extra: str) -> None:
    """Look for what a command needs.

    Args:
        what: needs them, for the message.
        packages: by the module that each brings.
        extra: of Mathlete, that brings them all.

    Raises:
        InputError: some are missing; it names them and the extra.
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}: pip install 'mathlete[{extra}]'")
