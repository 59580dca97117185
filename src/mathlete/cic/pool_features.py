"""What a pool of attempts tells of each of its answers, as numbers. Pure.

Words: a *class* is one answer and the attempts that gave it; the *outside option* is that no class is right. Every
quantity of attempts (tokens, entropies, errors, ...) is relative to the pool: the class's mean of its logarithm, less
the mean over the classes. So a longer or a surer model does not shift it, a quantity that nobody tells is 0 in every
class, and one more attempt like a class's others changes that class's votes and nothing else. Knows attempts and the
statement. Does not know what is right, nor how much a feature counts (`choice_model.py` does).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

from mathlete.cic.answer_values import answer_value
from mathlete.cic.disorder import shannon_entropy
from mathlete.cic.evidence import Basis, basis_of
from mathlete.cic.majority import tally, votes_of
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem

TAIL_CHARS = 1_500
"""Doubts are looked for in the end of what the model wrote, where it settles on its answer."""

# Words of somebody who hands in an answer without having found it.
_DOUBT = re.compile(
    r"\b(?:guess|perhaps|maybe|not sure|uncertain|can't|cannot|unable|approximat\w*|assum\w*|suspect|plausibl\w*|likely"
    r"|probably|give up|placeholder|fallback|just answer)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,|\\,|\\!|,\\!)(?=[0-9]{3})")
_MAX_COUNT = 3  # verdicts beyond the third add nothing
_SMALLEST = 1e-4  # entropies and log-probabilities nearer to 0 are all the same

VERDICTS = (
    *(f"{verdict}_by_{basis}" for basis in get_args(Basis) for verdict in ("supported", "refuted")),
    "proved",
)


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """One answer of a pool.

    Attributes:
        answer: its text.
        attempts: those that gave it, in the order of the pool.
        features: by name: every one of `CLASS_FEATURES`, and `member:<model>` for each model that voted.
    """

    answer: str
    attempts: tuple[Attempt, ...]
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PoolFeatures:
    """A pool as numbers.

    Attributes:
        classes: in the plain vote's order.
        outside: every one of `OUTSIDE_FEATURES`.
    """

    classes: tuple[AnswerClass, ...]
    outside: Mapping[str, float]


def pool_features(problem: Problem, attempts: Sequence[Attempt]) -> PoolFeatures:
    """The features of a pool; no classes when nobody answered.

    Class features. Votes: `log_votes`; `vote_share`, among the answers; `dependent_share`, votes of the class that were
    cast knowing others' answers; `more_pillars`, kinds of attempt that agree beyond the first, at most 2. Shapes that
    wrong answers have: `is_zero`, `is_one` (of either sign), `in_statement` (the number stands there), `not_integer`;
    `not_boxed`, share of its votes read from output or text. Relative to the pool (see above): `tokens`, `entropy`,
    `tail_entropy`, `surprise` (minus the mean log-probability), `tool_calls`, `tool_errors`, `doubts` (words of doubt
    at the end). Verdicts of checks, by what they rest on.

    Outside features: `constant`; of the votes `leader_share`, `disorder` (normalised entropy), `log_classes`;
    `null_share`, attempts without an answer; `log_attempts`; `entropy_level`, the mean log of the attempts' entropies,
    and `entropy_unknown`, which is 1 when none tells.
    """
    by_id = {attempt.id: attempt for attempt in attempts}
    classes = [(t.answer, tuple(by_id[attempt_id] for attempt_id in t.attempt_ids)) for t in tally(attempts)]
    if not classes:
        return PoolFeatures((), {})
    num_votes = sum(len(members) for _, members in classes)
    numbers = set(_NUMBER.findall(_GROUPED.sub("", problem.statement)))
    relative = {name: _relative(measure, classes) for name, measure in _QUANTITIES.items()}
    counted = _verdicts(attempts)
    built = []
    for index, (answer, members) in enumerate(classes):
        features = {
            **_vote_features(members, num_votes),
            **_shape(answer, numbers),
            **{name: values[index] for name, values in relative.items()},
            **{name: float(min(_MAX_COUNT, counted.get((answer, name), 0))) for name in VERDICTS},
            **_members(members),
        }
        built.append(AnswerClass(answer, members, features))
    return PoolFeatures(tuple(built), _outside(attempts))


def member_name(attempt: Attempt) -> str:
    """Which member of an ensemble made an attempt: its model, or its pillar where all are one model's."""
    return attempt.model or attempt.pillar


def _vote_features(members: Sequence[Attempt], num_votes: int) -> dict[str, float]:
    independent = {attempt.pillar for attempt in members if attempt.round == 1}
    return {
        "log_votes": math.log(len(members)),
        "vote_share": len(members) / num_votes,
        "dependent_share": fmean(attempt.round > 1 for attempt in members),
        "more_pillars": float(min(2, max(0, len(independent) - 1))),
        "not_boxed": fmean(attempt.answer_source in ("stdout", "text") for attempt in members),
    }


def _members(members: Sequence[Attempt]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for attempt in members:
        name = f"member:{member_name(attempt)}"
        counts[name] = counts.get(name, 0.0) + 1.0
    return counts


def _shape(answer: str, numbers: set[str]) -> dict[str, float]:
    value = answer_value(answer)
    is_integer = value is not None and value.denominator == 1
    return {
        "is_zero": float(value == 0),
        "is_one": float(value is not None and abs(value) == 1),
        "in_statement": float(is_integer and value != 0 and str(value) in numbers),
        "not_integer": float(not is_integer),
    }


def _relative(
    measure: Callable[[Attempt], float | None], classes: Sequence[tuple[str, Sequence[Attempt]]]
) -> list[float]:
    means = []
    for _, members in classes:
        told = [value for value in map(measure, members) if value is not None]
        means.append(fmean(told) if told else None)
    known = [mean for mean in means if mean is not None]
    centre = fmean(known) if known else 0.0
    return [0.0 if mean is None else mean - centre for mean in means]


def _verdicts(attempts: Sequence[Attempt]) -> dict[tuple[str, str], int]:
    """How often each verdict was given on each answer."""
    counted: dict[tuple[str, str], int] = {}
    for evidence in (item for attempt in attempts for item in attempt.evidence):
        if evidence.answer is None or evidence.verdict == "UNKNOWN":
            continue
        basis = basis_of(evidence.checker)
        if basis is None:
            continue
        name = "proved" if evidence.verdict == "PROVED" else f"{evidence.verdict.lower()}_by_{basis}"
        counted[evidence.answer, name] = counted.get((evidence.answer, name), 0) + 1
    return counted


def _outside(attempts: Sequence[Attempt]) -> dict[str, float]:
    answers = [vote.answer for vote in votes_of(attempts)]
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    silent = [a for a in attempts if a.answer is None and not a.is_check and not a.tells_nothing]
    counted = (*(vote.attempt for vote in votes_of(attempts)), *silent)
    entropies = [value for value in map(_entropy, counted) if value is not None]
    num_attempts = len(answers) + len(silent)
    return {
        "constant": 1.0,
        "leader_share": max(counts.values()) / len(answers),
        "disorder": shannon_entropy(answers),
        "log_classes": math.log(len(counts)),
        "null_share": len(silent) / num_attempts,
        "log_attempts": math.log(num_attempts),
        "entropy_level": fmean(entropies) if entropies else 0.0,
        "entropy_unknown": float(not entropies),
    }


def _log_feature(name: str, sign: float = 1.0) -> Callable[[Attempt], float | None]:
    """The logarithm of a feature of attempts that is of one sign; None when it is not told."""

    def measure(attempt: Attempt) -> float | None:
        value = attempt.features.get(name)
        return None if value is None or not math.isfinite(value) else math.log(max(_SMALLEST, sign * value))

    return measure


def _tokens(attempt: Attempt) -> float | None:
    return math.log(attempt.num_tokens) if attempt.num_tokens > 0 else None


def num_programs(attempt: Attempt, name: Literal["tool_calls", "tool_errors"]) -> float | None:
    """Programs it ran, or of these those that failed: from its turns, or what the file of a recorded one says."""
    results = [turn.result for turn in attempt.turns if turn.result is not None]
    if not results:
        told = attempt.features.get(name)
        return 0.0 if told is None and attempt.pillar == "code" else told
    return float(len(results) if name == "tool_calls" else sum(result.status != "ok" for result in results))


def _tool_calls(attempt: Attempt) -> float | None:
    count = num_programs(attempt, "tool_calls")
    return None if count is None else math.log1p(count)


def _tool_errors(attempt: Attempt) -> float | None:
    count = num_programs(attempt, "tool_errors")
    return None if count is None else math.log1p(count)


def _doubts(attempt: Attempt) -> float | None:
    text = attempt.text[-TAIL_CHARS:]
    return math.log1p(len(_DOUBT.findall(text))) if text else None


_entropy = _log_feature("mean_entropy")
_QUANTITIES: Mapping[str, Callable[[Attempt], float | None]] = {
    "tokens": _tokens,
    "entropy": _entropy,
    "tail_entropy": _log_feature("tail_entropy"),
    "surprise": _log_feature("mean_logprob", -1.0),
    "tool_calls": _tool_calls,
    "tool_errors": _tool_errors,
    "doubts": _doubts,
}
CLASS_FEATURES = (
    "log_votes", "vote_share", "dependent_share", "more_pillars", "is_zero", "is_one", "in_statement",
    "not_integer", "not_boxed", *_QUANTITIES, *VERDICTS,
)  # fmt: skip
OUTSIDE_FEATURES = (
    "constant", "leader_share", "disorder", "log_classes", "null_share", "log_attempts", "entropy_level",
    "entropy_unknown",
)  # fmt: skip
