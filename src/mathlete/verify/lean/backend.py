"""Who runs Lean: what `repl_pool.py` and `kimina.py` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mathlete.verify.lean.script import CheckScript, LeanReply

RunFailure = Literal["timeout", "memory", "crash", "unreachable"]


@dataclass(frozen=True, slots=True)
class LeanRun:
    """What came of running a script.

    Attributes:
        replies: to its commands, in order; fewer than three when a command had errors, or the run failed.
        failure: why Lean did not answer to the end: it took too long, took too much memory, ended, or the server
            cannot be used; None when it did.
        detail: for a person.
    """

    replies: tuple[LeanReply, ...]
    failure: RunFailure | None = None
    detail: str = ""


class LeanBackend(Protocol):
    """Runs scripts. Safe to use from several threads."""

    def run(self, script: CheckScript) -> LeanRun:
        """Run the commands one after another, up to the first with errors. Never raises for what Lean does."""
        ...

    def close(self) -> None:
        """End whatever runs. Safe to call twice."""
        ...
