"""A sandbox that starts nothing, for runs whose attempts write no programs."""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.code import CodeLimits
from mathlete.core.protocols import CodeDone


class NoSandbox:
    """For attempts that write no programs; it costs no second to start."""

    def submit(self, run_id: str, code: str, limits: CodeLimits, session: str | None = None) -> None:
        raise AssertionError(f"{run_id} wants to run a program")

    def poll(self) -> Sequence[CodeDone]:
        return ()

    def cancel(self, run_id: str) -> None:
        raise AssertionError(f"{run_id} was never run")

    def end_session(self, session: str) -> None:
        pass

    def close(self) -> None:
        pass

    def describe_isolation(self) -> tuple[str, ...]:
        return ("netns", "newroot", "readonly")

    def __enter__(self) -> NoSandbox:
        return self

    def __exit__(self, *error: object) -> None:
        pass
