"""Which state machine an attempt of a pillar is. Knows all pillars; runs none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mathlete.core.attempt import Attempt
from mathlete.core.generation import Message
from mathlete.core.policy import Launch
from mathlete.core.problem import Problem
from mathlete.core.protocols import ConstraintFactory
from mathlete.core.seeds import derive_seed
from mathlete.proof_sampler.beam import BeamConfig
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.beam_attempt import PILLAR as BEAM
from mathlete.triad.beam_attempt import BeamAttempt, StepReward
from mathlete.triad.check_attempt import CheckAttempt, CheckMethod
from mathlete.triad.genselect import PILLAR as GENSELECT
from mathlete.triad.genselect import GenSelectConfig, gen_select
from mathlete.triad.lean_check import PILLAR as LEAN
from mathlete.triad.lean_check import LeanCheckConfig, proof_goal
from mathlete.triad.pillar import PillarAttempt
from mathlete.triad.program_check import PROGRAM_CHECKS, program_check
from mathlete.triad.prometheus import PROMETHEUS_PILLARS
from mathlete.triad.proof_attempt import ProofAttempt
from mathlete.triad.second_round import second_round_messages
from mathlete.triad.solution_attempt import CODE, REASONING, SolutionAttempt
from mathlete.verify.checks.check_program import CheckConfig

_SOLUTIONS = {spec.name: spec for spec in (CODE, REASONING, *PROMETHEUS_PILLARS)}

SOLVING_PILLARS = (CODE.name, REASONING.name, BEAM)
CHECK_PILLARS = (*PROGRAM_CHECKS, GENSELECT, LEAN)


@dataclass(frozen=True, slots=True)
class AttemptMaker:
    """Makes the attempts of a run.

    Attributes:
        run_seed: all their noise is derived from it.
        config: limits of an attempt.
        beam: limits of an attempt of the beam pillar.
        constraints: what attempts may write, or None.
        checks_steps: whether there is a checker for the steps of beams.
        step_reward: of beams, see `BeamAttempt.reward`; or None.
        check: limits of a check by program.
        genselect: limits of a choice between solutions.
        lean: limits of a try at a formal proof.
        closes_thinking: whether whoever writes for a pillar can close a block of thinking.
    """

    run_seed: int = 0
    config: AttemptConfig = field(default_factory=AttemptConfig)
    beam: BeamConfig = field(default_factory=BeamConfig)
    constraints: ConstraintFactory | None = None
    checks_steps: bool = False
    step_reward: StepReward | None = None
    check: CheckConfig = field(default_factory=CheckConfig)
    genselect: GenSelectConfig = field(default_factory=GenSelectConfig)
    lean: LeanCheckConfig = field(default_factory=LeanCheckConfig)
    closes_thinking: Callable[[str], bool] = lambda pillar: True

    def make(
        self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt], started_s: float
    ) -> PillarAttempt:
        """An attempt that is about to start; see `AttemptSource.start`.

        One of a later round is shown the answers it is about.

        Raises:
            ValueError: there is no such pillar, or it has nothing to check.
            InputError: a formal statement is none.
        """
        if launch.pillar == LEAN:
            goal = proof_goal(problem, launch.about)
            return ProofAttempt(
                problem, index, self.run_seed, launch.temperature, started_s, self.config, goal, self.lean
            )
        if (method := self._check_method(problem, index, launch, pool)) is not None:
            return CheckAttempt(problem, index, self.run_seed, launch.temperature, started_s, self.config, method)
        spec = CODE if launch.pillar == BEAM else _SOLUTIONS.get(launch.pillar)
        if spec is None:
            known = ", ".join((*_SOLUTIONS, BEAM, *CHECK_PILLARS))
            raise ValueError(f"there is no pillar {launch.pillar!r}: there are {known}")
        opening: tuple[Message, ...] = ()
        if launch.round > 1 and launch.about:
            opening = second_round_messages(spec, problem, launch.about, pool)
        if launch.pillar == BEAM:
            return BeamAttempt(
                problem, index, self.run_seed, launch.temperature, started_s, self.config, self.beam,
                self.constraints, self.checks_steps, self.step_reward, opening,
            )  # fmt: skip
        config = replace(self.config, closes_thinking=self.closes_thinking(launch.pillar))
        return SolutionAttempt(
            problem, index, self.run_seed, launch.temperature, started_s, config, self.constraints, spec, opening
        )

    def _check_method(
        self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt]
    ) -> CheckMethod | None:
        """Of a pillar that judges answers; None for one that gives them."""
        seed = derive_seed(self.run_seed, problem.id, index, "check")
        if launch.pillar in PROGRAM_CHECKS:
            return program_check(PROGRAM_CHECKS[launch.pillar], problem, launch.about, pool, seed, self.check)
        if launch.pillar == GENSELECT:
            return gen_select(problem, launch.about, pool, seed, self.genselect)
        return None
