"""A try at a formal proof of a candidate answer, as a state machine: write, have it checked, correct it, a few times.

Ends with one `Evidence`: PROVED when the checker says so, else UNKNOWN with the reason, since a proof that fails
refutes nothing. Pure, as every attempt is: knows neither Lean nor processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mathlete.core.attempt import Failure
from mathlete.core.generation import Finished, GenerateRequest, Message, Span
from mathlete.core.protocols import CodeDone, StepChecked
from mathlete.core.selection import Evidence
from mathlete.triad.attempt_ending import check_ending
from mathlete.triad.lean_check import PILLAR, LeanCheckConfig, ProofGoal, lean_text, proof_in
from mathlete.triad.pillar import CheckProof, Continue, Done, Step
from mathlete.triad.turn_by_turn import TurnByTurn, failure_of, turn_from

_STOPS = ("```\n",)
# Of a check: there is no verdict because of the checker, and another proof would fare no better.
_NOT_THE_PROOFS_FAULT = frozenset({"statement", "crash", "unreachable"})
_GAVE_NO_VERDICT = _NOT_THE_PROOFS_FAULT | {"timeout", "memory"}
_TOLD = {
    "timeout": "Lean was stopped because checking the proof took too long.",
    "memory": "Lean was stopped because checking the proof took too much memory.",
}


@dataclass(slots=True)
class ProofAttempt(TurnByTurn):
    """The state of a try in flight.

    Attributes:
        goal: what is to be proved.
        limits: of the try.
        turns: closed turns, one a proof.
    """

    goal: ProofGoal
    limits: LeanCheckConfig
    _proof: str = ""
    _checked: list[Evidence] = field(default_factory=list)  # one for each proof that was checked

    def next_requests(self) -> Sequence[GenerateRequest]:
        """The request of the next turn, the only one."""
        turn = len(self.turns)
        return (
            GenerateRequest(
                request_id=f"{self.attempt_id}/{turn}",
                messages=self._messages(),
                sampling=self.config.sampling(self.temperature, self._tokens_left(), self.seed_of(turn), _STOPS),
                continuation=(Span(self.goal.start),),
                group=self.problem.id,
            ),
        )

    def take(self, event: Finished, now_s: float) -> Step:
        """The model has written: its proof is checked."""
        completion = event.completion
        turn = turn_from(completion, self.goal.start)
        self.turns.append(turn)
        if (failure := failure_of(completion)) is not None:
            return self.end(now_s, failure)
        proof = proof_in(turn.text, complete=completion.finish_reason == "stop")
        if proof is None:
            if completion.finish_reason == "length":
                return self._silent(now_s, "length", "length", "the proof was not finished")
            return self._silent(now_s, "no_answer", "unparsable", "the model wrote no proof")
        self._proof = proof
        return CheckProof(self.goal.statement.text, proof, str(len(self.turns)))

    def take_checked(self, checked: StepChecked, now_s: float) -> Step:
        """Its proof was checked: it is over, or has another turn with what was said shown."""
        (found,) = checked.evidence
        self._checked.append(found)
        if found.verdict == "PROVED":
            return self._done(now_s, "no_answer", "PROVED", None, found.detail)
        if self._may_correct(found):
            self.turns[-1] = replace(self.turns[-1], tool_text=lean_text(self._told(), self.limits))
            return Continue()
        failure: Failure = "tool_error" if found.failure in _GAVE_NO_VERDICT else "no_answer"
        return self._done(now_s, failure, "UNKNOWN", found.failure, found.detail)

    def take_result(self, done: CodeDone, now_s: float) -> Step:
        """It runs no programs. Raises `ValueError`."""
        raise ValueError(f"{self.attempt_id} runs no programs, {done.run_id!r} at {now_s:.1f} s least of all")

    def end(self, now_s: float, failure: Failure) -> Done:
        """Close the try, which came to nothing: `failure` says why."""
        return self._silent(now_s, failure, failure, "the check was not finished")

    def _messages(self) -> tuple[Message, ...]:
        if not self._checked:
            return self.goal.messages()
        return self.goal.correction(self._proof, self._told(), self.limits)

    def _told(self) -> str:
        """What the model is told of the last proof."""
        found = self._checked[-1]
        return _TOLD.get(found.failure or "", found.detail)

    def _may_correct(self, found: Evidence) -> bool:
        has_room = len(self.turns) < self.limits.max_turns and self._tokens_left() > 0
        return has_room and found.failure not in _NOT_THE_PROOFS_FAULT

    def _tokens_left(self) -> int:
        return min(self.limits.max_tokens, self.config.max_tokens) - self.num_tokens

    def _silent(self, now_s: float, failure: Failure, why: str, reason: str) -> Done:
        """UNKNOWN, and what was last said of a proof, if there was one."""
        said = f"{reason}; of the proof before: {self._checked[-1].detail}" if self._checked else reason
        return self._done(now_s, failure, "UNKNOWN", why, said)

    def _done(
        self, now_s: float, failure: Failure, verdict: Literal["PROVED", "UNKNOWN"], why: str | None, detail: str
    ) -> Done:
        elapsed_s = sum(found.elapsed_s for found in self._checked)
        evidence = Evidence(PILLAR, self.goal.claim, verdict, why, elapsed_s, detail, self.goal.answer)
        return check_ending(self, PILLAR, self.turns, (evidence,), failure, now_s)
