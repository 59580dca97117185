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

from mathlete.core.attempt import CUT_OFF, Attempt, Failure, Turn
from mathlete.core.code import ToolResult
from mathlete.core.confidence import confidence_features
from mathlete.core.generation import Completion, Finished, GenerateRequest, SamplingParams, Span
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone, ConstraintFactory, StepChecked
from mathlete.core.seeds import derive_seed
from mathlete.core.selection import Verdict
from mathlete.proof_sampler.beam import Beam, BeamConfig, BeamStep, Expansion, ProofBeamSearch
from mathlete.proof_sampler.dead_ends import ends_in_code
from mathlete.triad.chat import opening_messages, tool_text
from mathlete.triad.code_attempt import PILLAR as PROMPTS
from mathlete.triad.code_attempt import AttemptConfig
from mathlete.triad.code_blocks import program_at_end
from mathlete.triad.pillar import CheckStep, Continue, Done, RunProgram, Step, Wait
from mathlete.verify.extraction import extract_answer
from mathlete.verify.integers import Extraction

PILLAR = "beam"

_CLOSING = "```\n"
_STOPS = (_CLOSING, "\n\n")

StepReward = Callable[[Problem, str, str], float]
"""What a step is worth, given the problem, the step and the text before it."""


@dataclass(slots=True)
class _Candidate:
    """A step on its way."""

    expansion: Expansion
    name: str
    spans: list[Span] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    top_means: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_discarded: int = 0
    num_parts: int = 0
    ends: bool = False
    code: str | None = None
    result: ToolResult | None = None
    tool_text: str | None = None

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)

    def turn(self) -> Turn:
        return Turn(
            self.text,
            self.code,
            self.result,
            self.tool_text,
            self.num_tokens + self.num_discarded,
            tuple(self.logprobs),
            tuple(self.entropies),
            tuple(self.top_means),
            self.num_discarded,
        )


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
    _search: ProofBeamSearch = field(init=False)
    _open: dict[str, _Candidate] = field(default_factory=dict)  # by name
    _written: dict[str, _Candidate] = field(default_factory=dict)  # all that are, by name
    _level_tokens: Counter[int] = field(default_factory=Counter)
    _to_send: list[GenerateRequest] = field(default_factory=list)
    _turns: tuple[Turn, ...] | None = None

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

    @property
    def search(self) -> ProofBeamSearch:
        """The search itself, for whoever looks into it."""
        return self._search

    def next_requests(self) -> Sequence[GenerateRequest]:
        """The rest of steps that go on over their end, else the candidates of the next level."""
        if not self._open:
            for expansion in self._search.expansions():
                name = f"{expansion.level}.{expansion.parent}.{expansion.child}"
                self._open[name] = _Candidate(expansion, name)
                self._to_send.append(self._request(self._open[name]))
        requests, self._to_send = self._to_send, []
        return requests

    def take(self, event: Finished, now_s: float) -> Step:
        """A candidate's request has ended: it goes on, runs its program, is checked, or is complete."""
        candidate = self._candidate_of(event.request_id)
        completion = event.completion
        self._note(candidate, completion)
        if completion.finish_reason in ("error", "abort"):
            return self._dropped(candidate, now_s)
        text = candidate.text
        if completion.stop is not None and self._goes_on(candidate, completion.stop):
            self._to_send.append(self._request(candidate))
            return Continue()
        program = program_at_end(self._before(candidate, since_program=True) + text) if completion.stop else None
        if program is not None and self._num_programs(candidate) < self.config.max_programs:
            candidate.code = program
            return RunProgram(program, candidate.name)
        candidate.ends = completion.finish_reason == "stop" and completion.stop is None
        if self.checks_steps and "=" in text and not ends_in_code(self._before(candidate) + text):
            return CheckStep(text, candidate.name)
        return self._complete(candidate, "UNKNOWN", now_s)

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """A candidate's program has ended: what it printed belongs to the step."""
        candidate = self._candidate_of(done.run_id)
        shown = tool_text(done.result)
        candidate.result, candidate.tool_text = done.result, shown if candidate.text.endswith("\n") else "\n" + shown
        return self._complete(candidate, "UNKNOWN", now_s)

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """A candidate's step was judged."""
        verdicts = [evidence.verdict for evidence in checked.evidence]
        verdict: Verdict = "REFUTED" if "REFUTED" in verdicts else "SUPPORTED" if verdicts else "UNKNOWN"
        return self._complete(self._candidate_of(checked.check_id), verdict, now_s)

    def refuse(self, request_id: str, now_s: float) -> Step:
        """A candidate has grown too long for the generator."""
        return self._dropped(self._candidate_of(request_id), now_s)

    def take_turns(self) -> Sequence[Turn]:
        """The steps of the chosen beam, once the attempt is over."""
        turns, self._turns = self._turns or (), None
        return turns

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the attempt; `failure` says who cut it off, or stands when no answer can be extracted."""
        found, best = self._best() if failure != "stopped" else (Extraction(None, "", "missing"), self._ranked()[0])
        turns = self._turns = self._turns_of(best)
        reason: Failure | None = failure if failure in CUT_OFF else None
        if reason is None and found.value is None:
            reason = "out_of_range" if found.problem == "out_of_range" else failure
        return Done(
            Attempt(
                id=self.attempt_id,
                problem_id=self.problem.id,
                index=self.index,
                pillar=PILLAR,
                seed=self.seed,
                temperature=self.temperature,
                answer=None if found.value is None else str(found.value),
                answer_source=found.source,
                turns=turns,
                num_tokens=sum(turn.num_tokens for turn in turns),
                elapsed_s=now_s - self.started_s,
                features=self._features(turns, best, found),
                failure=reason,
                num_discarded=sum(turn.num_discarded for turn in turns),
            )
        )

    def candidates(self) -> list[tuple[str | None, float]]:
        """The answer of each beam that ended its text, None where there is none, with its score; the best first."""
        over = [beam for beam in self._search.ranked() if beam.ended]
        return [(_as_text(self._extract(beam)), self._search.score(beam)) for beam in over]

    def _request(self, candidate: _Candidate) -> GenerateRequest:
        spans = [*self._spans_of(candidate.expansion.steps), *candidate.spans]
        written = "".join(span.text for span in spans)
        parts = (candidate.name, candidate.num_parts)
        return GenerateRequest(
            request_id=f"{self.attempt_id}/{candidate.name}.{candidate.num_parts}",
            messages=opening_messages(PROMPTS, self.problem),
            sampling=SamplingParams(
                temperature=self.temperature,
                top_p=self.config.top_p,
                top_k=self.config.top_k,
                min_p=self.config.min_p,
                max_tokens=candidate.expansion.max_tokens - candidate.num_tokens,
                seed=derive_seed(self.run_seed, self.problem.id, self.index, PILLAR, *parts),
                stop=(_CLOSING,) if ends_in_code(written) else _STOPS,
                thinking_budget=self.config.thinking_budget,
            ),
            continuation=tuple(spans),
            group=self.problem.id,
            constraint=None if self.constraints is None else self.constraints(self.problem, written),
        )

    def _spans_of(self, steps: Sequence[BeamStep]) -> list[Span]:
        spans = []
        for step in steps:
            candidate = self._written[step.name]
            spans += [*candidate.spans, *([Span(candidate.tool_text)] if candidate.tool_text else [])]
        return spans

    def _candidate_of(self, name: str) -> _Candidate:
        """By the id of a request (`.../level.parent.child.part`), a program or a check (without the part)."""
        return self._open[".".join(name.rpartition("/")[2].split(".")[:3])]

    def _note(self, candidate: _Candidate, completion: Completion) -> None:
        candidate.spans.append(Span(completion.text, completion.token_ids))
        candidate.logprobs += completion.logprobs
        candidate.entropies += completion.entropies
        candidate.top_means += completion.top_means
        candidate.num_tokens += len(completion.token_ids)
        candidate.num_discarded += completion.usage.discarded
        candidate.num_parts += 1
        level = candidate.expansion.level
        self._level_tokens[level] += len(completion.token_ids) + completion.usage.discarded

    def _goes_on(self, candidate: _Candidate, stop: str) -> bool:
        """Whether a stop is no end of a step: inside a program, or too soon."""
        if candidate.expansion.max_tokens - candidate.num_tokens < 1:
            return False
        if stop != _CLOSING and ends_in_code(self._before(candidate) + candidate.text):
            return True
        return stop != _CLOSING and candidate.num_tokens < self.beam.min_step_tokens

    def _before(self, candidate: _Candidate, since_program: bool = False) -> str:
        """What stands before the step; only what stands behind the last program's output, if asked."""
        texts: list[str] = []
        for step in candidate.expansion.steps:
            if since_program and self._written[step.name].result is not None:
                texts.clear()
            else:
                texts.append(step.text)
        return "".join(texts)

    def _num_programs(self, candidate: _Candidate) -> int:
        return sum(self._written[step.name].result is not None for step in candidate.expansion.steps)

    def _complete(self, candidate: _Candidate, verdict: Verdict, now_s: float) -> Step:
        del self._open[candidate.name]
        self._written[candidate.name] = candidate
        step = BeamStep(
            name=candidate.name,
            text=candidate.text + (candidate.tool_text or ""),
            sum_logprob=sum(candidate.logprobs),
            num_tokens=candidate.num_tokens,
            ends=candidate.ends,
            verdict=verdict,
            reward=0.0 if self.reward is None else self.reward(self.problem, candidate.text, self._before(candidate)),
        )
        self._search.add(candidate.expansion, step)
        return self._next(now_s)

    def _dropped(self, candidate: _Candidate, now_s: float) -> Step:
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
            found = self._extract(beam)
            if found.value is not None:
                return found, beam
        return self._extract(ranked[0]), ranked[0]

    def _extract(self, beam: Beam) -> Extraction:
        candidates = [self._written[step.name] for step in beam.steps]
        ran = [i for i, candidate in enumerate(candidates) if candidate.result is not None]
        after = "".join(candidate.text for candidate in candidates[ran[-1] + 1 if ran else 0 :])
        last = candidates[ran[-1]].result if ran else None
        stdout = last.stdout if last is not None and last.status == "ok" else None
        return extract_answer(after, stdout, self.problem.answer_kind, complete=beam.ended)

    def _turns_of(self, beam: Beam) -> tuple[Turn, ...]:
        """The beam's steps; what else was sampled for a level counts as discarded there, of later ones in the last."""
        turns = [self._written[step.name].turn() for step in beam.steps] or [Turn("")]
        for level, spent in self._level_tokens.items():
            place = min(level, len(turns) - 1)
            own = turns[level].num_tokens if level < len(beam.steps) else 0
            turns[place] = _with_discarded(turns[place], spent - own)
        return tuple(turns)

    def _features(self, turns: Sequence[Turn], best: Beam, found: Extraction) -> dict[str, float]:
        """Of the chosen beam's tokens, and of the search."""
        features = confidence_features(
            [value for turn in turns for value in turn.logprobs],
            [value for turn in turns for value in turn.entropies],
            [value for turn in turns for value in turn.top_means],
        )
        answers = [answer for answer, _ in self.candidates() if answer is not None]
        features["beam_score"] = self._search.score(best)
        features["beams_finished"] = float(len(answers))
        if answers and found.value is not None:
            features["beams_agreeing"] = answers.count(str(found.value)) / len(answers)
        features["beam_refuted"] = float(self._search.num_refuted)
        features["beam_merged"] = float(self._search.num_merged)
        return features


def _with_discarded(turn: Turn, num_tokens: int) -> Turn:
    return Turn(
        turn.text, turn.code, turn.result, turn.tool_text, turn.num_tokens + num_tokens, turn.logprobs, turn.entropies,
        turn.top_means, turn.num_discarded + num_tokens,
    )  # fmt: skip


def _as_text(found: Extraction) -> str | None:
    return None if found.value is None else str(found.value)
