"""Which state machine an attempt of a pillar is. Knows all pillars; runs none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mathlete.core.attempt import Attempt
from mathlete.core.policy import Launch
from mathlete.core.problem import Problem
from mathlete.core.protocols import ConstraintFactory
from mathlete.proof_sampler.beam import BeamConfig
from mathlete.triad.beam_attempt import PILLAR as BEAM
from mathlete.triad.beam_attempt import BeamAttempt, StepReward
from mathlete.triad.code_attempt import AttemptConfig, CodeAttempt
from mathlete.triad.pillar import PillarAttempt


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
    """

    run_seed: int = 0
    config: AttemptConfig = field(default_factory=AttemptConfig)
    beam: BeamConfig = field(default_factory=BeamConfig)
    constraints: ConstraintFactory | None = None
    checks_steps: bool = False
    step_reward: StepReward | None = None

    def make(
        self, problem: Problem, index: int, launch: Launch, pool: Sequence[Attempt], started_s: float
    ) -> PillarAttempt:
        """An attempt that is about to start; see `AttemptSource.start`."""
        if launch.pillar == BEAM:
            return BeamAttempt(
                problem, index, self.run_seed, launch.temperature, started_s, self.config, self.beam,
                self.constraints, self.checks_steps, self.step_reward,
            )  # fmt: skip
        return CodeAttempt(problem, index, self.run_seed, launch.temperature, started_s, self.config, self.constraints)
