"""ProofBeamSearch: a beam over steps of a proof, not tokens. A pure state machine: knows no generator and no clock.

Whoever drives it asks for the `expansions` of a level, has each written (one step more, sampled, not the likeliest),
tells of each with `add`, and asks again, until it is `done`. Words: a *beam* is a text of whole steps; a *level* is one
step more; a *candidate* is a beam with one step more. A level has `width` candidates, of which the best one in `expand`
survive and share the next level's among them (search-and-learn's N and M, Beeching et al. 2024). A candidate that ended
its text is *finished* and keeps its place: each level after it has one candidate less. So a search samples about
`width` times the tokens of one text.

Score (higher is better) of a beam of n tokens with log-probability L:

    L / ((5 + n) / 6) ** alpha + reward

with alpha = 0.6: length normalisation of Wu et al. 2016 ("Google's Neural Machine Translation System", eq. 14), SPEC
A1's length penalty. `reward` is what the driver gives for the steps beside it (a step reward, soft terms), 0 without.
A step that a checker refuted takes its candidate out, unless no other is left.

All candidates' tokens count: `num_tokens` is what the search cost, and it never exceeds `max_total_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.core.attempt import BeamCandidate, BeamLevel, Fate
from mathlete.core.selection import Verdict


@dataclass(frozen=True, slots=True)
class BeamConfig:
    """Limits of a search.

    Attributes:
        width: candidates of a level (SPEC A1: 4).
        expand: of so many candidates one survives.
        length_penalty: alpha of the score.
        max_tokens: of a beam.
        max_total_tokens: of all candidates together.
        max_steps: of a beam.
        max_step_tokens: of a step.
        min_step_tokens: a shorter one goes on over its end.
    """

    width: int = 4
    expand: int = 2
    length_penalty: float = 0.6
    max_tokens: int = 1024
    max_total_tokens: int = 4096
    max_steps: int = 32
    max_step_tokens: int = 256
    min_step_tokens: int = 12

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        names = ("width", "expand", "max_tokens", "max_total_tokens", "max_steps", "max_step_tokens", "min_step_tokens")
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"BeamConfig.{name} must be >= 1, not {getattr(self, name)}")
        if not 0 <= self.length_penalty <= 2:
            raise ValueError(f"BeamConfig.length_penalty must be in [0, 2], not {self.length_penalty}")


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One step that was written.

    Attributes:
        name: by which whoever drives the search knows it.
        text: what stands, what a program printed included.
        sum_logprob: of its tokens, natural.
        num_tokens: sampled.
        ends: whether the text is over with it.
        verdict: of a checker, on what it claims.
        detail: the claim that the verdict is about, for a person.
        reward: added to the score.
    """

    name: str
    text: str
    sum_logprob: float
    num_tokens: int
    ends: bool = False
    verdict: Verdict = "UNKNOWN"
    detail: str = ""
    reward: float = 0.0


class Expansion(NamedTuple):
    """A candidate to be written: one more step of a beam.

    Attributes:
        level: from 0.
        parent: which of the level's beams.
        child: which of its candidates.
        steps: the beam's so far.
        max_tokens: that the step may take.
    """

    level: int
    parent: int
    child: int
    steps: tuple[BeamStep, ...]
    max_tokens: int

    @property
    def name(self) -> str:
        """Unique in the search."""
        return f"{self.level}.{self.parent}.{self.child}"


@dataclass(frozen=True, slots=True)
class Beam:
    """A text of whole steps."""

    steps: tuple[BeamStep, ...] = ()

    @property
    def text(self) -> str:
        """All that stands in it."""
        return "".join(step.text for step in self.steps)

    @property
    def num_tokens(self) -> int:
        """Sampled for it."""
        return sum(step.num_tokens for step in self.steps)

    @property
    def ended(self) -> bool:
        """Whether its text is over."""
        return bool(self.steps) and self.steps[-1].ends

    @property
    def refuted(self) -> bool:
        """Whether its last step claims what is wrong."""
        return bool(self.steps) and self.steps[-1].verdict == "REFUTED"

    def score(self, length_penalty: float) -> float:
        """See the module; 0 for an empty beam."""
        logprob = math.fsum(step.sum_logprob for step in self.steps)
        reward = math.fsum(step.reward for step in self.steps)
        return logprob / math.pow((5 + self.num_tokens) / 6, length_penalty) + reward


class _Told(NamedTuple):
    """What was told of an expansion: the beam with its step, or None when that could not be written; and its cost."""

    expansion: Expansion
    beam: Beam | None
    num_tokens: int


class ProofBeamSearch:
    """One search, from an empty text to its finished beams.

    Attributes:
        config: limits.
        live: beams to be expanded.
        finished: beams whose text is over, or that have all the tokens or steps they may have, in order of ending.
        num_tokens: sampled so far, by all candidates.
        levels: what was decided, one for each level that is complete.
    """

    def __init__(self, config: BeamConfig) -> None:
        """Nothing is written yet."""
        self.config = config
        self.live: list[Beam] = [Beam()]
        self.finished: list[Beam] = []
        self.num_tokens = 0
        self.levels: list[BeamLevel] = []
        self._open: dict[tuple[int, int], Expansion] = {}
        self._told: list[_Told] = []  # of this level

    @property
    def done(self) -> bool:
        """Whether there is nothing left to expand."""
        return not self.live and not self._open

    def count(self, fate: Fate) -> int:
        """Candidates of all complete levels that ended so."""
        return sum(candidate.fate == fate for level in self.levels for candidate in level.candidates)

    def expansions(self) -> list[Expansion]:
        """The candidates of the next level; to be asked when none is open.

        Each beam that lives has its share of them, the best one the odd ones. Where few tokens are left there are fewer
        candidates; beams that get none are finished as they are.
        """
        assert not self._open, "the level before is not complete"
        config = self.config
        left = config.max_total_tokens - self.num_tokens
        num = min(config.width - len(self.finished), left // config.min_step_tokens)
        if not num and left > 0 and not self.finished and not any(beam.steps for beam in self.live):
            num = 1  # nothing is written yet: a short answer is better than none
        self.live.sort(key=self.score, reverse=True)
        self.finished += [beam for beam in self.live[max(0, num) :] if beam.steps]
        self.live = self.live[: max(0, num)]
        for parent, beam in enumerate(self.live):
            max_tokens = min(config.max_step_tokens, config.max_tokens - beam.num_tokens, left // num)
            for child in range(num // len(self.live) + (parent < num % len(self.live))):
                self._open[parent, child] = Expansion(len(self.levels), parent, child, beam.steps, max_tokens)
        return list(self._open.values())

    def add(self, expansion: Expansion, step: BeamStep) -> None:
        """The step of an expansion was written; with the last of a level the best survive."""
        self._take(_Told(expansion, Beam((*expansion.steps, step)), step.num_tokens))

    def drop(self, expansion: Expansion, num_tokens: int) -> None:
        """The step of an expansion cannot be written, and cost this much; a beam with no other is finished as it is."""
        self._take(_Told(expansion, None, num_tokens))

    def ranked(self) -> list[Beam]:
        """All beams there are, the best first: finished ones whose text is over, then the others."""
        everything = [*self.finished, *self.live]
        return sorted(everything, key=lambda beam: (not beam.ended, -self.score(beam)))

    def score(self, beam: Beam) -> float:
        """Of a beam, with this search's length penalty."""
        return beam.score(self.config.length_penalty)

    def _take(self, told: _Told) -> None:
        del self._open[told.expansion.parent, told.expansion.child]
        self.num_tokens += told.num_tokens
        self._told.append(told)
        if not self._open:
            self._select()

    def _select(self) -> None:
        """Keep the best candidates of a complete level, and note what became of each."""
        told, self._told = self._told, []
        continued = {item.expansion.parent for item in told if item.beam is not None}
        self.finished += [beam for parent, beam in enumerate(self.live) if parent not in continued and beam.steps]
        candidates = sorted((item.beam for item in told if item.beam is not None), key=self.score, reverse=True)
        sound = [beam for beam in candidates if not beam.refuted] or candidates[:1]
        distinct = _without_repeats(sound)
        over = [beam for beam in distinct if self._is_over(beam)]
        self.finished += over
        room = max(0, self.config.width - len(self.finished))
        self.live = [beam for beam in distinct if not self._is_over(beam)][: -(-room // self.config.expand)]
        kept = [*over, *self.live]

        def fate(beam: Beam) -> Fate:
            if beam in kept:
                return "kept"
            if beam not in sound:
                return "refuted"
            return "outscored" if beam in distinct else "repeated"

        decided = tuple(
            self._candidate(item, "lost" if item.beam is None else fate(item.beam))
            for item in sorted(told, key=lambda item: item.expansion[:3])
        )
        self.levels.append(BeamLevel(len(self.levels), decided))

    def _candidate(self, told: _Told, fate: Fate) -> BeamCandidate:
        steps = told.expansion.steps
        return BeamCandidate(
            name=told.expansion.name,
            parent=steps[-1].name if steps else None,
            num_tokens=told.num_tokens,
            score=None if told.beam is None else self.score(told.beam),
            verdict="UNKNOWN" if told.beam is None else told.beam.steps[-1].verdict,
            detail="" if told.beam is None else told.beam.steps[-1].detail,
            fate=fate,
        )

    def _is_over(self, beam: Beam) -> bool:
        config = self.config
        return (
            beam.ended
            or len(beam.steps) >= config.max_steps
            or config.max_tokens - beam.num_tokens < config.min_step_tokens
        )


def _without_repeats(beams: Sequence[Beam]) -> list[Beam]:
    """The first of those that say the same, white space apart."""
    found: dict[str, Beam] = {}
    for beam in beams:
        found.setdefault(" ".join(beam.text.split()), beam)
    return list(found.values())
