"""The integration layer: which pillar works next on a problem, when it is checked, and when its answer stands.

A pure policy over a pool. Independent attempts of the solving pillars come first, a wave at a time while other problems
wait; once there is something to check and the vote does not settle it, checks judge the leading answers; only where
the votes stay split is a second round shown what the first found. A problem ends when its selector is sure, when a
stopping rule says so, or when another attempt is not worth what its tokens add elsewhere (`contest/allocation.py`).

Knows nothing of generators, prompts or recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mathlete.cic.crystallisation import annealed_temperature, last_transition
from mathlete.cic.majority import tally, votes_of
from mathlete.cic.registry import CALIBRATED
from mathlete.contest.allocation import Worth, worth_another, worth_waiting
from mathlete.contest.difficulty import solve_rate
from mathlete.contest.policy import ALL_FINISHED, OUT_OF_TIME, next_pillar
from mathlete.contest.stop_rules import StopRule, num_outstanding
from mathlete.core.attempt import Attempt, is_check_pillar
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.protocols import Selector
from mathlete.core.selection import FALLBACK, Selection
from mathlete.triad.lean_check import asked_about

OUT_OF_TOKENS = "the run's tokens are spent"

_CHECK_ATTEMPTS = 0.25  # tokens of a check, in attempts: with the embedded model about 100 of 480 (LOG.md)
_MAX_CHECKS = 2  # of one pillar: a second one where the leader has changed


@dataclass(frozen=True, slots=True)
class TriadConfig:
    """How the pillars work together.

    Attributes:
        attempts: at solving, of the first round, at most.
        pillars: of the attempts, in turn.
        temperature: of sampling, checks included.
        anneals: whether the next wave's temperature follows from the order of the pool when it is launched instead
            (`cic.crystallisation.annealed_temperature`); checks and second rounds keep `temperature`.
        wave: attempts at once while other problems wait for the same slots, and the next when they have ended, or at
            once where no other problem may be opened yet; without any waiting, all of them.
        min_attempts: that end before the problem may, unless time or tokens run out; as many as the clock affords.
        stop_confidence: chance that the selection is right, from which on nothing more is done; 1 for never. It and
            `check_below` are for selectors that are calibrated.
        checks: pillars that check the leading answers, one attempt each where they have something to work on.
        max_checked: answers that a check is asked about at most.
        check_below: a selection of at least this confidence is not checked; 1 for checking each.
        second_round: attempts that are shown what the others found, where the votes are split; 0 for none.
        split_below: share of the votes that the leader must have not to be split.
        weighs_worth: whether another attempt must be worth its price to other problems.
    """

    attempts: int = 8
    pillars: tuple[str, ...] = ("code",)
    temperature: float = 0.8
    anneals: bool = False
    wave: int = 3
    min_attempts: int = 3
    stop_confidence: float = 0.95
    checks: tuple[str, ...] = ()
    max_checked: int = 3
    check_below: float = 1.0
    second_round: int = 0
    split_below: float = 0.5
    weighs_worth: bool = True

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("attempts", "wave", "min_attempts", "max_checked"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        for name in ("stop_confidence", "check_below", "split_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if self.second_round < 0:
            raise ValueError(f"second_round must be >= 0, not {self.second_round}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, not {self.temperature}")
        if not self.pillars or any(map(is_check_pillar, self.pillars)):
            raise ValueError(f"pillars must name pillars that solve, not {self.pillars}")
        if not all(map(is_check_pillar, self.checks)):
            raise ValueError(f"checks must name pillars that check, not {self.checks}")


@dataclass(frozen=True, slots=True)
class TriadPolicy:
    """See the module. The same state gives the same action; selections are only remembered, by the pool's ids.

    Attributes:
        selector: chooses the answer and says how sure it is.
        rule: when the votes are settled.
        config: how the pillars work together.
    """

    selector: Selector
    rule: StopRule
    config: TriadConfig = field(default_factory=TriadConfig)
    _remembered: dict[str, tuple[tuple[str, ...], Selection]] = field(default_factory=dict, repr=False, compare=False)

    def decide(self, state: PoolState) -> Action:
        """The next action; see the module."""
        selection = self._select(state.problem, state.attempts)
        outlook = state.outlook
        if state.remaining_s <= 0:
            return Stop(selection, OUT_OF_TIME)
        if outlook is not None and outlook.tokens_left == 0:
            return Stop(selection, OUT_OF_TOKENS)
        action = self._next(state, selection)
        has_ended = isinstance(action, Stop) or len(state.tries) >= self.config.wave or _is_checking(state)
        check = self._due_check(state, selection) if has_ended else None
        return action if check is None else check

    def _next(self, state: PoolState, selection: Selection) -> Action:
        """What to do but for checks."""
        if (reason := self._why_settled(state, selection)) is not None:
            return Wait() if _is_checking(state) else Stop(selection, reason)
        if (launch := self._next_wave(state, selection)) is not None:
            return launch
        if state.num_in_flight and not all(item.round > 1 for item in state.in_flight):
            return Wait() if self._worth_waiting(state, selection) else Stop(selection, _NOT_WORTH)
        if self._worth_another(state, selection) and (launch := self._second_round(state)) is not None:
            return launch
        if state.num_in_flight:
            return Wait()
        return Stop(selection, ALL_FINISHED if self._num_to_launch(state) <= 0 else _NOT_WORTH)

    def _select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        ids = tuple(attempt.id for attempt in attempts)
        known = self._remembered.get(problem.id)
        if known is None or known[0] != ids:
            known = ids, self.selector.select(problem, attempts)
            self._remembered[problem.id] = known
        return known[1]

    def _why_settled(self, state: PoolState, selection: Selection) -> str | None:
        """Why nothing more is to be done, whatever is in flight; only a check that was begun is waited for."""
        if selection.rule == FALLBACK or not self._has_enough(state):
            return None
        chance = _chance(selection)
        if chance is not None and chance >= self.config.stop_confidence:
            return f"the selection is sure: {chance:.2f}"
        wanted = self._wanted(state)
        return self.rule.why_stop(state, wanted) if num_outstanding(state, wanted) else None

    def _has_enough(self, state: PoolState) -> bool:
        return len(state.tries) >= min(self.config.min_attempts, self._wanted(state))

    def _due_check(self, state: PoolState, selection: Selection) -> Launch | None:
        """The next check of the leading answers, unless the vote is sure without; another one for a new leader."""
        config = self.config
        if selection.rule == FALLBACK:
            return None
        begun = [(item.pillar, item.about) for item in state.begun]
        is_first = not any(is_check_pillar(pillar) for pillar, _ in begun)
        chance = _chance(selection)
        if is_first and chance is not None and config.check_below <= chance and config.check_below < 1:
            return None
        leading = self._leading(state.attempts, selection)
        for pillar in config.checks:
            asked = [about for name, about in begun if name == pillar]
            if len(asked) >= _MAX_CHECKS or any(selection.answer in about for about in asked):
                continue
            about = asked_about(pillar, state.problem, leading)
            if about is not None and about not in asked:
                return Launch(1, pillar, config.temperature, about)
        return None

    def _leading(self, attempts: Sequence[Attempt], selection: Selection) -> tuple[str, ...]:
        answers = [selection.answer, *(item.answer for item in tally(attempts))]
        return tuple(dict.fromkeys(answers))[: self.config.max_checked]

    def _next_wave(self, state: PoolState, selection: Selection) -> Launch | None:
        num_to_launch = self._num_to_launch(state)
        if num_to_launch <= 0:
            return None
        outlook = state.outlook
        is_alone = outlook is None or (outlook.num_waiting == 0 and outlook.tokens_left is None)
        num_begun = len(state.tries) + state.num_trying
        num_of_wave = num_begun % self.config.wave  # begun of the present wave; 0 between two
        num = num_to_launch if is_alone else min(num_to_launch, self.config.wave - num_of_wave)
        if outlook is not None and outlook.num_waiting == 0 and state.affordable is not None:
            # The last ones work to the end of the clock: more at once than it affords slow each other until none ends.
            num = min(num, max(self.config.wave, state.affordable - len(state.tries)) - state.num_trying)
        if state.num_trying and not num_of_wave and outlook is not None and outlook.may_open and not is_alone:
            return None
        if num_begun >= self.config.wave and not self._worth_another(state, selection):
            return None
        if num <= 0:
            return None
        begun = [item.pillar for item in state.begun if item.is_independent]
        pillar, alike = next_pillar(self.config.pillars, begun, num)
        return Launch(alike, pillar, self._temperature(state.attempts))

    def _temperature(self, attempts: Sequence[Attempt]) -> float:
        """Of the attempts of a wave."""
        if not self.config.anneals:
            return self.config.temperature
        votes = votes_of(attempts)
        order = tally(attempts)[0].votes / len(votes) if votes else 0.0
        transition = last_transition(votes)
        return annealed_temperature(order, transition is not None and transition.crystallised)

    def _worth_another(self, state: PoolState, selection: Selection) -> bool:
        if not self.config.weighs_worth or selection.rule == FALLBACK:
            return True
        return self._pays(worth_another, state, selection)

    def _worth_waiting(self, state: PoolState, selection: Selection) -> bool:
        if not self.config.weighs_worth or selection.rule == FALLBACK or state.num_trying < state.num_in_flight:
            return True
        if not self._has_enough(state):
            return True
        return self._pays(worth_waiting, state, selection)

    def _pays(self, ask: Callable[..., Worth], state: PoolState, selection: Selection) -> bool:
        average = None if state.outlook is None else state.outlook.tokens_per_attempt
        rate = solve_rate(state.problem, state.attempts, average)
        return ask(
            state, confidence=_chance(selection), selected=selection.answer, solve_rate=rate,
            least=self.config.min_attempts, overhead=_CHECK_ATTEMPTS * len(self.config.checks),
        ).pays  # fmt: skip

    def _second_round(self, state: PoolState) -> Launch | None:
        """Attempts that see what the others found, once, where no answer has enough of the votes.

        Those for which there was no slot, or that were cut off before the run was resumed, see what their siblings saw.
        """
        begun = [item.about for item in state.begun if item.round > 1]
        num = self.config.second_round - len(begun)
        if num <= 0:
            return None
        if begun:
            return Launch(num, self.config.pillars[0], self.config.temperature, begun[0], round=2)
        votes = tally(state.attempts)
        if len(votes) < 2:
            return None
        if votes[0].votes >= self.config.split_below * sum(item.votes for item in votes):
            return None
        about = tuple(item.answer for item in votes[: self.config.max_checked])
        return Launch(num, self.config.pillars[0], self.config.temperature, about, round=2)

    def _wanted(self, state: PoolState) -> int:
        """Attempts of the first round at most: where each is weighed, what is affordable binds only below the least."""
        affordable = state.affordable
        if affordable is None or (self.config.weighs_worth and affordable >= self.config.min_attempts):
            return self.config.attempts
        return min(self.config.attempts, affordable)

    def _num_to_launch(self, state: PoolState) -> int:
        """Attempts of the first round that may still be launched."""
        return num_outstanding(state, self._wanted(state)) - state.num_trying


_NOT_WORTH = "another attempt is not worth its tokens"


def _is_checking(state: PoolState) -> bool:
    return any(is_check_pillar(item.pillar) for item in state.in_flight)


def _chance(selection: Selection) -> float | None:
    """The calibrated chance that the selection is right; None where its rule's confidence is no such thing."""
    return selection.confidence if selection.rule in CALIBRATED else None
