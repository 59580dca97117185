"""The three commands by which a proof is tried, and what Lean's messages on them mean.

1. *reference*: the statement with `sorry`, in a fresh environment: fixes what it means before the model has a say.
2. *attempt*: the statement with the model's proof, in parentheses.
3. *audit*: a theorem whose type is that of the reference and whose proof is the attempt, and the axioms that it uses.

All three names are random, so that no text written beforehand can speak for them. PROVED takes a clean attempt, and
of the audit exactly the one message that its own `#print axioms` gives, with axioms of the allow-list only. What the
attempt prints is never read as anything but an error.

Knows Lean's messages as the REPL gives them (github.com/leanprover-community/repl); not who runs it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mathlete.core.errors import InputError
from mathlete.verify.lean.statement import Statement

ALLOWED_AXIOMS = frozenset({"propext", "Classical.choice", "Quot.sound"})
"""What Mathlib itself rests on. Compiled computation (`native_decide`) and `sorry` bring others."""
MAX_DETAIL_CHARS = 2_000

Severity = Literal["trace", "info", "warning", "error"]
_SORRY_WARNING = re.compile(r"declaration uses [`']?sorry[`']?")


@dataclass(frozen=True, slots=True)
class LeanMessage:
    """One message of Lean's.

    Attributes:
        severity: its kind.
        line: of the command, from 1, where it belongs.
        text: what it says.
    """

    severity: Severity
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class LeanReply:
    """What Lean said of one command.

    Attributes:
        messages: in order.
        num_sorries: places of `sorry` in it.
        env: number of the environment behind it, for the next command; None when there is none.
        error: of the REPL itself ("Unknown environment."), or None.
    """

    messages: tuple[LeanMessage, ...] = ()
    num_sorries: int = 0
    env: int | None = None
    error: str | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """Texts of its errors."""
        own = (self.error,) if self.error is not None else ()
        return own + tuple(message.text for message in self.messages if message.severity == "error")


@dataclass(frozen=True, slots=True)
class CheckScript:
    """A proof ready to be tried.

    Attributes:
        imports: run once in a process; the environment behind them is used again.
        preamble: of the statement, run on top.
        reference: see the module.
        attempt: see the module.
        audit: see the module.
        audit_name: of the theorem that the audit states.
    """

    imports: str
    preamble: str
    reference: str
    attempt: str
    audit: str
    audit_name: str

    @property
    def commands(self) -> tuple[str, str, str]:
        """The three, in order."""
        return self.reference, self.attempt, self.audit

    def as_file(self) -> tuple[str, tuple[int, int]]:
        """All of it as one file, and the lines (from 1) where the attempt and the audit begin."""
        head = "\n".join(part for part in (self.imports, self.preamble, self.reference) if part) + "\n"
        attempt_line = head.count("\n") + 1
        audit_line = attempt_line + self.attempt.count("\n") + 1
        return f"{head}{self.attempt}\n{self.audit}\n", (attempt_line, audit_line)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a script.

    Attributes:
        is_proved: all conditions hold.
        failure: "statement" when Lean rejects the statement itself, "audit" when a proof that Lean took fails the
            audit; None for an ordinary error in the proof, or success.
        detail: Lean's messages or the axioms, for a person.
    """

    is_proved: bool
    failure: Literal["statement", "audit"] | None
    detail: str


def build_script(statement: Statement, proof: str) -> CheckScript:
    """The script for a proof that `proof.proof_term` let through; names are new each time."""
    token = secrets.token_hex(12)
    reference, attempt, audit = (f"mathlete_{part}_{token}" for part in ("reference", "attempt", "audit"))
    return CheckScript(
        imports=statement.imports,
        preamble=statement.preamble,
        reference=statement.theorem(reference, "sorry"),
        attempt=statement.theorem(attempt, f"(\n{proof}\n)"),
        audit=f"theorem {audit} : type_of% @{reference} := @{attempt}\n#print axioms {audit}",
        audit_name=audit,
    )


def read_reply(answer: Mapping[str, Any]) -> LeanReply:
    """One answer of the REPL's.

    Raises:
        InputError: it is not of the documented form.
    """
    if isinstance(answer.get("message"), str) and "env" not in answer:
        return LeanReply(error=answer["message"])
    env, messages, sorries = answer.get("env"), answer.get("messages") or [], answer.get("sorries") or []
    if not isinstance(messages, list) or not isinstance(sorries, list) or not (env is None or isinstance(env, int)):
        raise InputError("the answer of the Lean REPL is not of the documented form")
    return LeanReply(tuple(map(_message, messages)), len(sorries), env)


def _message(told: object) -> LeanMessage:
    match told:
        case {
            "severity": "trace" | "info" | "warning" | "error" as severity,
            "pos": {"line": int(line)},
            "data": str(text),
        }:
            return LeanMessage(severity, line, text)
    raise InputError("a message of the Lean REPL is not of the documented form")


def judge_replies(script: CheckScript, replies: Sequence[LeanReply]) -> Trial:
    """What three replies mean, one a command; fewer when a command could not be run because the one before failed."""
    reference = replies[0]
    uses_sorry = [message for message in reference.messages if _SORRY_WARNING.search(message.text)]
    if reference.errors or len(uses_sorry) != 1:
        return Trial(False, "statement", f"Lean does not take the statement: {_shown(reference.errors)}")
    if len(replies) < 2 or replies[1].errors:
        return Trial(False, None, _shown(replies[1].errors) if len(replies) > 1 else "the proof was not tried")
    if replies[1].num_sorries or any(_SORRY_WARNING.search(message.text) for message in replies[1].messages):
        return Trial(False, "audit", "the proof uses sorry")
    if len(replies) < 3:
        return Trial(False, "audit", "the audit was not made")
    return _judge_audit(script, replies[2])


def _judge_audit(script: CheckScript, reply: LeanReply) -> Trial:
    if reply.errors:
        return Trial(False, "audit", f"the proof does not prove the statement: {_shown(reply.errors)}")
    if len(reply.messages) != 1 or reply.num_sorries or reply.messages[0].severity != "info":
        return Trial(False, "audit", f"the audit says {len(reply.messages)} things, and not just its axioms")
    axioms = read_axioms(reply.messages[0].text, script.audit_name)
    if axioms is None:
        return Trial(False, "audit", "the audit does not tell its axioms")
    foreign = sorted(axioms - ALLOWED_AXIOMS)
    if foreign:
        return Trial(False, "audit", f"axioms that are not allowed: {', '.join(foreign)}"[:MAX_DETAIL_CHARS])
    return Trial(True, None, f"axioms: {', '.join(sorted(axioms)) or 'none'}")


def read_axioms(text: str, name: str) -> frozenset[str] | None:
    """The axioms in the message of `#print axioms name`; None when it is another message."""
    if text == f"'{name}' does not depend on any axioms":
        return frozenset()
    match = re.fullmatch(rf"'{re.escape(name)}' depends on axioms:\s*\[([^\[\]]*)\]", text)
    if match is None:
        return None
    return frozenset(part.strip() for part in match[1].split(","))


def split_by_line(reply: LeanReply, lines: tuple[int, int]) -> tuple[LeanReply, LeanReply, LeanReply]:
    """The reply to a whole file as replies to the three commands, by the line of each message.

    Places of `sorry` are not told apart: one is the reference's own, and any other counts against the attempt.
    """
    parts = [
        tuple(message for message in reply.messages if low <= message.line < high)
        for low, high in ((0, lines[0]), (lines[0], lines[1]), (lines[1], 1 << 62))
    ]
    return (
        LeanReply(parts[0], min(1, reply.num_sorries), error=reply.error),
        LeanReply(parts[1], max(0, reply.num_sorries - 1)),
        LeanReply(parts[2]),
    )


def _shown(texts: Sequence[str]) -> str:
    return "\n".join(texts)[:MAX_DETAIL_CHARS] or "no message"
