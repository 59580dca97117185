"""Pools of attempts for the tests of `cic` and of stopping rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import strategies as st

from mathlete.cic.majority import Vote, votes_of
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import Evidence, Verdict

PROBLEM = Problem("p", "How many?")
REAL_PROBLEM = Problem("p", "How much?", AnswerKind("expression"))


def attempt(
    index: int, answer: str | None, features: Mapping[str, float] | None = None, text: str = "", pillar: str = "code"
) -> Attempt:
    turns = (Turn(text),) if text else ()
    return Attempt(f"p#{index}", "p", index, pillar, 1, 0.8, answer, None, turns, 1, 1.0, features or {})


def pool_of(*answers: str | None) -> list[Attempt]:
    return [attempt(index, answer) for index, answer in enumerate(answers)]


def votes_for(*answers: str) -> tuple[Vote, ...]:
    return votes_of(pool_of(*answers))


def told(*pairs: tuple[str | None, str]) -> list[Attempt]:
    """Attempts with (answer, text)."""
    return [attempt(index, answer, text=text) for index, (answer, text) in enumerate(pairs)]


def featured(name: str, *pairs: tuple[str | None, float | None]) -> list[Attempt]:
    """Attempts with (answer, value of one feature)."""
    return [
        attempt(index, answer, {} if value is None else {name: value}) for index, (answer, value) in enumerate(pairs)
    ]


def check(index: int, answer: str, verdict: Verdict, pillar: str = "sympy_check") -> Attempt:
    evidence = (Evidence(pillar, f"{answer} is right", verdict, answer=answer),)
    return Attempt(f"p#{index}", "p", index, pillar, 1, 0.8, None, None, (), 1, 1.0, about=(answer,), evidence=evidence)


FEATURE_NAMES = (
    "mean_entropy", "top5_entropy_bits", "tail_entropy", "tail_top5_entropy_bits", "mean_confidence", "tail_confidence",
    "bottom_10_percent_group", "min_window_confidence", "prm_last", "prm_min", "prm_prod", "prm_mean",
)  # fmt: skip
ANSWERS = (
    "1",
    "2",
    "100",
    "104",
    "0",
    "-3",
    "1/2",
    "0.5",
    "nan",
    "inf",
    "",
    "5 hours",
    str(10**40),
    str(10**40 + 1),
    "9" * 5000,
)

_values = st.floats(allow_nan=True, allow_infinity=True)
_checks = st.builds(
    check,
    st.just(0),
    st.sampled_from(ANSWERS),
    st.sampled_from(["PROVED", "SUPPORTED", "REFUTED", "UNKNOWN"]),
    st.sampled_from(["sympy_check", "genselect_check"]),
)
_solutions = st.builds(
    attempt,
    st.just(0),
    st.none() | st.sampled_from(ANSWERS),
    st.dictionaries(st.sampled_from(FEATURE_NAMES), _values, max_size=4),
    st.sampled_from(["", "So 1 + 1 = 2.", "By symmetry, the answer is 100.", "é\ud800 lone"]),
)


def _numbered(attempts: list[Attempt]) -> list[Attempt]:
    return [replace(a, id=f"p#{index}", index=index) for index, a in enumerate(attempts)]


pools = st.lists(_solutions | _checks, max_size=8).map(_numbered)
"""Anything that recorded or live attempts may look like, checks included."""
