"""`LeanChecker`: is this a proof of this statement? PROVED, or UNKNOWN with the reason; a failed proof refutes nothing.

Knows the order of the walls: what may be written (`proof.py`), what Lean says (`backend.py`), and what that is worth
(`script.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType

from mathlete.core.errors import InputError
from mathlete.core.selection import Evidence
from mathlete.verify.lean.backend import LeanBackend
from mathlete.verify.lean.finding import KEY_VARIABLE, LeanFound
from mathlete.verify.lean.kimina import KiminaClient, KiminaConfig
from mathlete.verify.lean.proof import proof_term
from mathlete.verify.lean.repl_pool import ReplConfig, ReplPool
from mathlete.verify.lean.script import build_script, judge_replies
from mathlete.verify.lean.statement import Statement, parse_statement

CHECKER = "lean"


class LeanChecker:
    """Checks proofs with a backend. Safe to use from several threads when the backend is."""

    def __init__(self, backend: LeanBackend) -> None:
        """Keep the backend; `close` closes it."""
        self._backend = backend

    def check(self, statement: Statement | str, proof: str) -> Evidence:
        """Try a proof of a statement. Never raises for what a model wrote.

        Args:
            statement: the theorem that is to be proved; a text is read by `parse_statement`.
            proof: what the model wrote: a term, usually "by ...".

        Returns:
            PROVED when Lean takes the proof, its type is the statement's, and it rests on allowed axioms only;
            otherwise UNKNOWN. `failure` is "statement" when the statement cannot be used, "refused" for a proof that
            is not tried, "audit" for one that Lean takes and the audit does not, "timeout", "memory", "crash" or
            "unreachable" when Lean gave no answer, and None for a proof with ordinary errors.
        """
        started = time.monotonic()
        claim = f"Lean proof of {statement.name}" if isinstance(statement, Statement) else "Lean proof"
        try:
            parsed = parse_statement(statement) if isinstance(statement, str) else statement
        except InputError as error:
            return Evidence(CHECKER, claim, "UNKNOWN", "statement", detail=str(error))
        claim = f"Lean proof of {parsed.name}"
        try:
            script = build_script(parsed, proof_term(proof, parsed))
        except InputError as error:
            return Evidence(CHECKER, claim, "UNKNOWN", "refused", detail=str(error))
        run = self._backend.run(script)
        elapsed_s = time.monotonic() - started
        if run.failure is not None:
            return Evidence(CHECKER, claim, "UNKNOWN", run.failure, elapsed_s, run.detail)
        trial = judge_replies(script, run.replies)
        if trial.is_proved:
            return Evidence(CHECKER, claim, "PROVED", None, elapsed_s, f"{trial.detail}\n{proof}")
        return Evidence(CHECKER, claim, "UNKNOWN", trial.failure, elapsed_s, trial.detail)

    def close(self) -> None:
        """Close the backend. Safe to call twice."""
        self._backend.close()

    def __enter__(self) -> LeanChecker:
        """For `with`: closed at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_backend(found: LeanFound, environ: Mapping[str, str] = os.environ, num_processes: int = 1) -> LeanBackend:
    """The backend for what `find_lean` found: a server before local processes.

    Raises:
        InputError: there is no Lean, or the server's address cannot be used; the message says how to get it.
    """
    if found.server is not None:
        try:
            return KiminaClient(KiminaConfig(found.server, environ.get(KEY_VARIABLE) or None))
        except ValueError as error:
            raise InputError(f"the Lean server cannot be used: {error}") from error
    if found.missing:
        remedies = "; ".join(f"{missing.what}: {missing.remedy}" for missing in found.missing)
        raise InputError(f"no Lean 4 to check proofs with. Missing: {remedies}")
    command = (str(found.lake), "env", str(found.repl))
    return ReplPool(ReplConfig(command, found.project, num_processes))
