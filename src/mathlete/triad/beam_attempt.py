"""One attempt as a beam search over steps: several requests and programs under way at once.

A step is written by one request or, where a blank line stands inside a program, by several, one after the other. A step
that ends with a program has it run, and what it printed belongs to the step. Pure: it is told what came back and says
what is to be done next. Knows nothing of generators, processes or clocks.

Siblings have the same continuation, token for token, so an engine with a prefix cache computes it once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mathlete.core.attempt import BeamLevel, Failure, Turn
from mathlete.core.generation import Finished, GenerateRequest, Message
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, ConstraintFactory, StepChecked
from mathlete.core.seeds import derive_seed
from mathlete.proof_sampler.beam import Beam, BeamConfig, BeamStep, ProofBeamSearch
from mathlete.proof_sampler.dead_ends import ends_in_code
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.attempt_ending import NOT_LOOKED_FOR, answer_in, ending, features_of
from mathlete.triad.beam_candidate import Candidate, Judgement, judgement_of, with_discarded
from mathlete.triad.chat import opening_messages
from mathlete.triad.code_blocks import program_at_end
from mathlete.triad.pillar import CheckStep, Continue, Done, RunProgram, Step, Wait
from mathlete.triad.solution_attempt import CODE
from mathlete.verify.integers import Extraction

PILLAR = "beam"

_CLOSING = "```\n"
_STOPS = (_CLOSING, "\n\n")

StepReward = Callable[[Problem, str, str], float]
"""What a step is worth, given the problem, the step and the text before it."""


@dataclass(slots=True)
class BeamAttempt:
    """The state of a search in flight.

    Attributes:
        problem: what it works on.
        index: its number within the problem.
        run_seed: of the run; all noise is derived from it.
        temperature: of sampling.
        started_s: when it was launched, seconds of the run's clock.
        config: limits of an attempt; `max_tokens` is that of one beam.
        beam: limits of the search.
        constraints: what may be written, or None.
        checks_steps: whether steps with an equation go to a checker first.
        reward: what a step is worth beside its probability, or None.
        opening: the chat that opens it; the code pillar's first-round prompts when empty.
    """

    problem: Problem
    index: int
    run_seed: int
    temperature: float
    started_s: float
    config: AttemptConfig
    beam: BeamConfig
    constraints: ConstraintFactory | None = None
    checks_steps: bool = False
    reward: StepReward | None = None
    opening: tuple[Message, ...] = ()
    _search: ProofBeamSearch = field(init=False)
    _open: dict[str, Candidate] = field(default_factory=dict)  # by name
    _written: dict[str, Candidate] = field(default_factory=dict)  # all that are, by name
    _level_tokens: Counter[int] = field(default_factory=Counter)
    _to_send: list[GenerateRequest] = field(default_factory=list)
    _turns: tuple[Turn, ...] | None = None
    _num_recorded: int = 0  # levels

    def __post_init__(self) -> None:
        """Begin with an empty text."""
        self._search = ProofBeamSearch(self.beam)

    @property
    def attempt_id(self) -> str:
        """Unique in the run."""
        return f"{self.problem.id}#{self.index}"

    @property
    def seed(self) -> int:
        """From which its noise is derived."""
        return derive_seed(self.run_seed, self.problem.id, self.index, 0)

    @property
    def num_tokens(self) -> int:
        """Sampled by all candidates whose requests have ended."""
        return self._level_tokens.total()

    @property
    def num_turns(self) -> int:
        """Levels begun."""
        return len(self._level_tokens)

    def next_requests(self) -> Sequence[GenerateRequest]:
        """The rest of steps that go on over their end, else the candidates of the next level."""
        if not self._open:
            for expansion in self._search.expansions():
                candidate = Candidate(expansion, self._candidates_of(expansion.steps))
                self._open[candidate.name] = candidate
                self._to_send.append(self._request(candidate))
        requests, self._to_send = self._to_send, []
        return requests

    def take(self, event: Finished, now_s: float) -> Step:
        """A candidate's request has ended: it goes on, runs its program, is checked, or is complete."""
        candidate = self._candidate_of(event.request_id)
        completion = event.completion
        candidate.note(completion)
        self._level_tokens[candidate.expansion.level] += completion.num_tokens + completion.usage.discarded
        if completion.finish_reason in ("error", "abort"):
            return self._dropped(candidate, now_s)
        if completion.stop is not None and self._goes_on(candidate, completion.stop):
            self._to_send.append(self._request(candidate))
            return Continue()
        program = program_at_end(candidate.since_program) if completion.stop else None
        if program is not None and candidate.num_programs_before < self.config.max_programs:
            candidate.code = program
            return RunProgram(program, candidate.name)
        candidate.ends = completion.finish_reason == "stop" and completion.stop is None
        if self.checks_steps and "=" in candidate.text and not ends_in_code(candidate.written):
            return CheckStep(candidate.text, candidate.name, candidate.context(self.problem))
        return self._complete(candidate, Judgement(), now_s)

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """A candidate's program has ended: what it printed belongs to the step."""
        candidate = self._candidate_of(done.run_id)
        candidate.note_result(done.result)
        return self._complete(candidate, Judgement(), now_s)

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """A candidate's step was judged."""
        return self._complete(self._candidate_of(checked.check_id), judgement_of(checked.evidence), now_s)

    def refuse(self, request_id: str, now_s: float) -> Step:
        """A candidate has grown too long for the generator."""
        return self._dropped(self._candidate_of(request_id), now_s)

    def take_turns(self) -> Sequence[Turn]:
        """The steps of the chosen beam, once the attempt is over."""
        turns, self._turns = self._turns or (), None
        return turns

    def take_beam_levels(self) -> Sequence[BeamLevel]:
        """What was decided since the last call."""
        levels = self._search.levels[self._num_recorded :]
        self._num_recorded = len(self._search.levels)
        return levels

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt; `failure` says who cut it off, or stands when no answer can be extracted."""
        found, best = self._best() if failure != "stopped" else (NOT_LOOKED_FOR, self._ranked()[0])
        turns = self._turns = self._turns_of(best)
        return ending(self, PILLAR, turns, found, failure, now_s, self._features(turns, best, found))

    def candidates(self) -> list[tuple[str | None, float]]:
        """The answer of each beam that ended its text, None where there is none, with its score; the best first."""
        over = [beam for beam in self._search.ranked() if beam.ended]
        return [(self._answer_of(beam).answer, self._search.score(beam)) for beam in over]

    def _request(self, candidate: Candidate) -> GenerateRequest:
        written, num_parts = candidate.written, len(candidate.spans)
        return GenerateRequest(
            request_id=f"{self.attempt_id}/{candidate.name}.{num_parts}",
            messages=self.opening or opening_messages(CODE.name, self.problem),
            sampling=self.config.sampling(
                self.temperature,
                candidate.expansion.max_tokens - candidate.num_tokens,
                derive_seed(self.run_seed, self.problem.id, self.index, PILLAR, candidate.name, num_parts),
                (_CLOSING,) if ends_in_code(written) else _STOPS,
            ),
            continuation=candidate.continuation,
            group=self.problem.id,
            constraint=None if self.constraints is None else self.constraints(self.problem, written),
        )

    def _candidates_of(self, steps: Sequence[BeamStep]) -> tuple[Candidate, ...]:
        return tuple(self._written[step.name] for step in steps)

    def _candidate_of(self, name: str) -> Candidate:
        """By the id of a request (`.../level.parent.child.part`), a program or a check (without the part)."""
        return self._open[".".join(name.rpartition("/")[2].split(".")[:3])]

    def _goes_on(self, candidate: Candidate, stop: str) -> bool:
        """Whether a stop is no end of a step: inside a program, or too soon."""
        if candidate.expansion.max_tokens - candidate.num_tokens < 1:
            return False
        if stop != _CLOSING and ends_in_code(candidate.written):
            return True
        return stop != _CLOSING and candidate.num_tokens < self.beam.min_step_tokens

    def _complete(self, candidate: Candidate, judgement: Judgement, now_s: float) -> Step:
        del self._open[candidate.name]
        self._written[candidate.name] = candidate
        reward = 0.0 if self.reward is None else self.reward(self.problem, candidate.text, candidate.before)
        self._search.add(candidate.expansion, candidate.step(judgement, reward))
        return self._next(now_s)

    def _dropped(self, candidate: Candidate, now_s: float) -> Step:
        """A candidate that cannot be written counts with what it cost, and no more."""
        del self._open[candidate.name]
        self._search.drop(candidate.expansion, candidate.num_tokens + candidate.num_discarded)
        return self._next(now_s)

    def _next(self, now_s: float) -> Step:
        if self._open:
            return Wait()
        if self._search.done:
            return self.end(now_s, self._why_silent())
        self._to_send = [*self.next_requests()]
        if not self._to_send:  # no tokens are left for another level
            return self.end(now_s, self._why_silent())
        return Continue()

    def _why_silent(self) -> Failure:
        ranked = self._ranked()
        return "no_answer" if ranked[0].ended else "length"

    def _ranked(self) -> list[Beam]:
        return self._search.ranked() or [Beam()]

    def _best(self) -> tuple[Extraction, Beam]:
        """The best beam that has an answer; without one, the best."""
        ranked = self._ranked()
        for beam in ranked:
            found = self._answer_of(beam)
            if found.answer is not None:
                return found, beam
        return self._answer_of(ranked[0]), ranked[0]

    def _answer_of(self, beam: Beam) -> Extraction:
        turns = [candidate.turn() for candidate in self._candidates_of(beam.steps)]
        return answer_in(turns, self.problem.answer_kind, complete=beam.ended)

    def _turns_of(self, beam: Beam) -> tuple[Turn, ...]:
        """The beam's steps; what else was sampled for a level counts as discarded there, of later ones in the last."""
        turns = [candidate.turn() for candidate in self._candidates_of(beam.steps)] or [Turn("")]
        for level, spent in self._level_tokens.items():
            place = min(level, len(turns) - 1)
            own = turns[level].num_tokens if level < len(beam.steps) else 0
            turns[place] = with_discarded(turns[place], spent - own)
        return tuple(turns)

    def _features(self, turns: Sequence[Turn], best: Beam, found: Extraction) -> dict[str, float]:
        """Of the chosen beam's tokens, and of the search."""
        features = features_of(turns)
        answers = [answer for answer, _ in self.candidates() if answer is not None]
        features["beam_score"] = self._search.score(best)
        features["beams_finished"] = float(len(answers))
        if answers and found.answer is not None:
            features["beams_agreeing"] = answers.count(found.answer) / len(answers)
        features["beam_refuted"] = float(self._search.count("refuted"))
        features["beam_merged"] = float(self._search.count("repeated"))
        return features
