"""How hard a problem will be: from its statement before anything is tried, then from how the first attempts went.

Knows texts, attempts and a few fitted numbers (`difficulty.json`, written by `benchmarks/fit_clock.py`, which also
says how little a statement tells). Knows no clock and no answers.

The estimate is a *solve rate*: the share of a model's attempts that will be right. A statement moves it around the
average of the problems that were fitted; how good the model at hand is shows only in its attempts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from mathlete.cic.pool_features import num_programs
from mathlete.core.attempt import CUT_OFF, Attempt
from mathlete.core.problem import Problem

# The specification's bands in minutes on its contest's hardware (middles of 2-3, 5-6 and 10-15), for problems of
# which most, some and few attempts are right. Only their proportions matter: other hardware is slower for all.
BAND_MINUTES = {"quick": 2.5, "medium": 5.5, "hard": 12.5}
_BAND_FROM = {"quick": 2 / 3, "medium": 1 / 3, "hard": 0.0}  # solve rates

_GRID = 200
_NUMBER = re.compile(r"\d[\d,]*")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|equiv|neq|mid)\b")
_TOPICS: Mapping[str, re.Pattern[str]] = {
    "counts": re.compile(r"how many|number of|in how many ways|count", re.IGNORECASE),
    "geometry": re.compile(r"triangle|circle|polygon|angle|tangent|perpendicular|\\overline|area of", re.IGNORECASE),
    "extremum": re.compile(r"maximum|minimum|largest|smallest|greatest|least|maximal|minimal", re.IGNORECASE),
    "divisibility": re.compile(r"divis|modul|remainder|prime|\\pmod|\\gcd|digit", re.IGNORECASE),
    "chance": re.compile(r"probab|random|expected|dice|\bcoin", re.IGNORECASE),
    "defines": re.compile(r"\b(?:let|define|denote|suppose|called|given that)\b", re.IGNORECASE),
    "every": re.compile(r"\b(?:for (?:all|every|each)|such that|satisf\w+)\b", re.IGNORECASE),
}


def statement_features(statement: str) -> dict[str, float]:
    """What is counted in a statement: its length, its structure, and cues of its topic (0 or 1)."""
    numbers = [match.replace(",", "") for match in _NUMBER.findall(statement)]
    structure = {
        "log_length": math.log(1 + len(statement)),
        "log_sentences": math.log(1 + len(re.findall(r"[.?!](?:\s|$)", statement))),
        "log_numbers": math.log(1 + len(numbers)),
        "largest_digits": math.log(1 + max((len(number) for number in numbers), default=0)),
        "log_letters": math.log(1 + len(set(_LETTER.findall(statement)))),
        "log_commands": math.log(1 + len(_COMMAND.findall(statement))),
        "log_relations": math.log(1 + len(_RELATION.findall(statement))),
    }
    return structure | {name: float(bool(pattern.search(statement))) for name, pattern in _TOPICS.items()}


@dataclass(frozen=True, slots=True)
class DifficultyModel:
    """A logistic model of the solve rate.

    Attributes:
        intercept: log-odds of the average problem.
        weights: log-odds for one unit of each feature of the statement.
        means: of the features over the fitted problems.
        precision: how far problems with the same features differ: their solve rates follow Beta(m p, (1 - m) p).
        length_weight: log-odds for an e-fold longer attempt, after the first attempts.
        error_weight: log-odds for one error of a tool in each attempt.
    """

    intercept: float
    weights: Mapping[str, float]
    means: Mapping[str, float]
    precision: float
    length_weight: float
    error_weight: float

    def solve_rate(self, statement: str) -> float:
        """The expected share of right attempts before any was made."""
        features = statement_features(statement)
        return _logistic(self.intercept + sum(w * (features[n] - self.means[n]) for n, w in self.weights.items()))


@lru_cache(1)
def difficulty_model() -> DifficultyModel:
    """The fitted model that ships with the package."""
    text = files("mathlete.contest").joinpath("difficulty.json").read_text(encoding="utf-8")
    return DifficultyModel(**json.loads(text)["model"])


def solve_rate(problem: Problem, attempts: Sequence[Attempt] = (), tokens_per_attempt: float | None = None) -> float:
    """The expected share of right attempts, by the statement and by how the first attempts went, perhaps none.

    Attempts that are longer than usual, and errors of their tools, lower it. Their votes are left out: they are counted
    by the model of answers (`contest/answer_model.py`), of which this is the prior. The weights are what lengths and
    errors tell besides votes, as they were fitted together.

    Args:
        problem: what is asked.
        attempts: those of the first round that ended by themselves are looked at.
        tokens_per_attempt: the run's average; None when it is not known, and lengths say nothing.
    """
    model, told = difficulty_model(), statement_solve_rate(problem.statement)
    ended = [a for a in attempts if a.is_independent and a.failure not in CUT_OFF and not a.tells_nothing]
    if not ended:
        return told
    mean = sum(attempt.num_tokens for attempt in ended) / len(ended)
    errors = sum(num_programs(attempt, "tool_errors") or 0.0 for attempt in ended) / len(ended)
    odds = math.log(told / (1 - told)) + model.error_weight * errors
    if tokens_per_attempt is not None and mean > 0:
        odds += model.length_weight * math.log(mean / tokens_per_attempt)
    return _logistic(odds)


@lru_cache(4096)
def statement_solve_rate(statement: str) -> float:
    """The expected share of right attempts before any was made, by the model that ships."""
    return difficulty_model().solve_rate(statement)


def weight_of(problem: Problem) -> float:
    """The part of the clock that a problem should get, relative to the average problem's 1; for `Driver(weigh=...)`.

    The expected minutes over the three bands: a statement tells little, so no problem is far from the average.
    """
    model = difficulty_model()
    average = _minutes(_logistic(model.intercept), model.precision)
    return _minutes(statement_solve_rate(problem.statement), model.precision) / average


def band_chances(solve_rate: float, precision: float) -> dict[str, float]:
    """The chance of each band for a problem with an expected solve rate; see `DifficultyModel.precision`."""
    a, b = solve_rate * precision, (1 - solve_rate) * precision
    points = [(i + 0.5) / _GRID for i in range(_GRID)]
    density = [math.exp((a - 1) * math.log(x) + (b - 1) * math.log(1 - x)) for x in points]
    chances = dict.fromkeys(_BAND_FROM, 0.0)
    for x, weight in zip(points, density, strict=True):
        chances[next(name for name, low in _BAND_FROM.items() if x >= low)] += weight / sum(density)
    return chances


@lru_cache(4096)
def _minutes(solve_rate: float, precision: float) -> float:
    return sum(chance * BAND_MINUTES[name] for name, chance in band_chances(solve_rate, precision).items())


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
