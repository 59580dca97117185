"""Mathlete solves olympiad mathematics with language models that people run themselves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mathlete.api import Solutions, Solver, open_run, solve

__version__ = "0.1.0"
__all__ = ["Solutions", "Solver", "open_run", "solve"]


def __getattr__(name: str) -> Any:
    """What notebooks use, loaded when it is asked for: `import mathlete` alone brings in nothing else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("mathlete.api"), name)


def __dir__() -> list[str]:
    """The names for a person who looks around."""
    return sorted([*globals(), *__all__])
