"""What a check's trials mean for the candidates. Pure.

A check speaks only when it tells numbers apart: it must reject nearly all decoys and accept a candidate. One that
accepts everything, or nothing, is a bad check and no evidence, whatever it says on the candidates. Nothing is ever
PROVED here: that the program tests what the statement asks is the model's word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mathlete.core.selection import Evidence, Verdict
from mathlete.verify.checks.check_program import CheckKind
from mathlete.verify.checks.manner import Manner
from mathlete.verify.checks.trials import Trial, Trials

_MIN_DECOYS = 4  # of which a check must have judged so many before it counts as telling numbers apart
_DECOYS_PER_SLIP = 8  # it may accept one decoy in so many
_MAX_PROGRAM = 8_000

_CLAIMS: dict[CheckKind, str] = {
    "sympy": "{answer} satisfies the conditions of the problem",
    "smt": "the conditions of the problem can be met with the answer {answer}",
    "enumeration": "working through the cases gives {answer}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """On one answer.

    Attributes:
        answer: canonical text.
        verdict: SUPPORTED, REFUTED or UNKNOWN.
        reason: a clause for a person.
        failure: why there is no verdict, as in `Evidence.failure`.
    """

    answer: str
    verdict: Verdict
    reason: str
    failure: str | None = None


def judge(trials: Trials, kind: CheckKind) -> tuple[Finding, ...]:
    """One finding for each candidate."""
    if trials.trouble:
        failure = "timeout" if trials.trouble == "timeout" else "crash"
        why = "the check took too long" if failure == "timeout" else f"the check failed: {trials.trouble}"
        return tuple(Finding(str(trial.answer), "UNKNOWN", why, failure) for trial in trials.candidates)
    if kind == "enumeration":
        return _judge_count(trials)
    if why := _why_mute(trials):
        return tuple(_unknown(trial, why) for trial in trials.candidates)
    accepted = [trial for trial in trials.candidates if trial.outcome == "accepted"]
    if not accepted:
        instead = ", ".join(str(trial.answer) for trial in trials.decoys if trial.outcome == "accepted")
        why = f"the check accepts none of the candidates, but {instead}" if instead else "the check accepts nothing"
        return tuple(_unknown(trial, why) for trial in trials.candidates)
    return tuple(_judge_one(trial, accepted, trials) for trial in trials.candidates)


def _why_mute(trials: Trials) -> str:
    """Why the check tells nothing, or "" when it tells numbers apart."""
    judged = [trial for trial in trials.decoys if trial.outcome in ("accepted", "rejected")]
    accepted = [trial for trial in judged if trial.outcome == "accepted"]
    if len(judged) < _MIN_DECOYS:
        return f"the check judged only {len(judged)} of {len(trials.decoys)} numbers that are no candidates"
    if len(accepted) > len(judged) // _DECOYS_PER_SLIP:
        return f"the check accepts {len(accepted)} of {len(judged)} numbers that are no candidates"
    for trial in trials.candidates:
        if trial.outcome == "accepted" and (other := trials.others.get(trial.answer)):
            return f"the conditions can be met with {trial.answer} and with {other}"
    return ""


def _judge_one(trial: Trial, accepted: Sequence[Trial], trials: Trials) -> Finding:
    answer = str(trial.answer)
    if trial.outcome == "rejected":
        return Finding(answer, "REFUTED", f"the check rejects it and accepts {_names(accepted)}")
    if trial.outcome != "accepted":
        return _unknown(trial, "")
    if len(accepted) > 1:
        return Finding(answer, "UNKNOWN", f"the check accepts {_names(accepted)} alike")
    if trials.others.get(trial.answer) == "":
        return Finding(answer, "SUPPORTED", "the check accepts it and no other integer in the range")
    num_rejected = sum(decoy.outcome == "rejected" for decoy in trials.decoys)
    return Finding(
        answer, "SUPPORTED", f"the check accepts it and rejects {num_rejected} of {len(trials.decoys)} other numbers"
    )


def _judge_count(trials: Trials) -> tuple[Finding, ...]:
    found = f"working through the cases gives {trials.counted}"
    if all(trial.answer != trials.counted for trial in trials.candidates):
        return tuple(
            Finding(str(trial.answer), "UNKNOWN", f"{found}, which nobody found") for trial in trials.candidates
        )
    return tuple(
        Finding(str(trial.answer), "SUPPORTED" if trial.answer == trials.counted else "REFUTED", found)
        for trial in trials.candidates
    )


_WHY_UNKNOWN = {
    "timeout": "the check took too long on it",
    "raised": "the check failed on it",
    "unknown": "the solver could not decide",
    "inconsistent": "the check said two things on it",
    "not_asked": "the check was not asked about it before time was up",
}
_FAILURES = {"timeout": "timeout", "raised": "crash", "not_asked": "timeout", "unknown": "timeout"}


def _unknown(trial: Trial, why: str) -> Finding:
    told = _WHY_UNKNOWN.get(trial.outcome, "")
    if told and trial.detail:
        told = f"{told}: {trial.detail}"
    return Finding(
        str(trial.answer), "UNKNOWN", "; ".join(part for part in (why, told) if part), _FAILURES.get(trial.outcome)
    )


def _names(trials: Sequence[Trial]) -> str:
    return ", ".join(str(trial.answer) for trial in trials)


def checker_name(kind: CheckKind, manner: Manner) -> str:
    """`sympy_check`, or with the manner behind a colon when the check does not test but works out or states."""
    return f"{kind}_check" if manner == "tested" else f"{kind}_check:{manner}"


def to_evidence(
    findings: Sequence[Finding], about: Collection[str], kind: CheckKind, manner: Manner, source: str, elapsed_s: float
) -> tuple[Evidence, ...]:
    """The findings as they are recorded, with the program; of answers that were not asked for, only verdicts."""
    return tuple(
        Evidence(
            checker=checker_name(kind, manner),
            claim=_CLAIMS[kind].format(answer=finding.answer),
            verdict=finding.verdict,
            failure=finding.failure,
            elapsed_s=elapsed_s,
            detail=f"{finding.reason}\n\n{source[:_MAX_PROGRAM]}",
            answer=finding.answer,
        )
        for finding in findings
        if finding.answer in about or finding.verdict != "UNKNOWN"
    )


def no_evidence(about: Sequence[str], kind: CheckKind, failure: str, reason: str) -> tuple[Evidence, ...]:
    """UNKNOWN on every answer: there was no check to run."""
    return tuple(
        Evidence(f"{kind}_check", _CLAIMS[kind].format(answer=answer), "UNKNOWN", failure, 0.0, reason, answer)
        for answer in about
    )
