"""The whole plan: every engine of a recipe on its machines, together, and what a problem of the contest gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mathlete.planning.advice import advise, propose_layout
from mathlete.planning.engine_plan import EnginePlan, plan_engine
from mathlete.planning.gpu_placement import GpuLoad, place, placement_problems
from mathlete.planning.hardware import Hardware
from mathlete.planning.parallel_weights import Layout
from mathlete.planning.planned import AttemptShape, ContestShape, PlannedEngine
from mathlete.planning.token_budget import TokenBudget, token_budget


@dataclass(frozen=True, slots=True)
class Proposal:
    """Another layout of an engine, where a better one was found.

    Attributes:
        engine: its name.
        layout: proposed.
        plan: of the engine with it.
    """

    engine: str
    layout: Layout
    plan: EnginePlan


@dataclass(frozen=True, slots=True)
class Plan:
    """What `mathlete plan` tells.

    Attributes:
        hardware: that it is for.
        attempts: of a problem.
        engines: planned here.
        elsewhere: names of engines that run on machines the plan knows nothing of.
        loads: every accelerator with what lies on it.
        advice: by engine, what to change; empty where nothing needs to.
        proposals: layouts that would serve better.
        problems: why the engines do not fit together.
        budget: of a problem; None without a contest, or where an engine cannot run.
    """

    hardware: Hardware
    attempts: AttemptShape
    engines: tuple[EnginePlan, ...]
    elsewhere: tuple[str, ...]
    loads: tuple[GpuLoad, ...]
    advice: dict[str, tuple[str, ...]]
    proposals: tuple[Proposal, ...]
    problems: tuple[str, ...]
    budget: TokenBudget | None

    @property
    def fits(self) -> bool:
        """Whether every engine runs with at least one attempt at its longest, and all of them together."""
        return not self.problems and all(engine.fits for engine in self.engines)


def make_plan(
    engines: Sequence[PlannedEngine],
    hardware: Hardware,
    attempts: AttemptShape,
    contest: ContestShape | None = None,
    elsewhere: Sequence[str] = (),
) -> Plan:
    """Plan engines on machines.

    An engine whose `max_model_len` is shorter than the attempts gets attempts of that length: its own requests cannot
    be longer.

    Raises:
        InputError: a type of keys and values is not known.
    """
    plans = tuple(
        plan_engine(engine, hardware.accelerator, _of_engine(attempts, engine), hardware.host_link_gb_per_s)
        for engine in engines
    )
    loads = place(plans, hardware)
    problems = placement_problems(plans, loads, hardware)
    return Plan(
        hardware=hardware,
        attempts=attempts,
        engines=plans,
        elsewhere=tuple(elsewhere),
        loads=loads,
        advice={plan.engine.name: advise(plan, hardware, plan.attempts) for plan in plans},
        proposals=tuple(_proposals(plans, hardware)),
        problems=problems,
        budget=None if contest is None or problems else token_budget(plans, loads, contest, attempts),
    )


def _of_engine(attempts: AttemptShape, engine: PlannedEngine) -> AttemptShape:
    length = min(attempts.length, engine.max_model_len)
    prompt = min(attempts.prompt, length - 1)
    return replace(attempts, prompt=prompt, length=length, mean_new=min(attempts.mean_new, length - prompt))


def _proposals(plans: Sequence[EnginePlan], hardware: Hardware) -> list[Proposal]:
    """Where one engine has the machines to itself: the layout of fewest GPUs a copy, in as many copies as there fit."""
    if len(plans) != 1:
        return []
    plan = plans[0]
    layout = propose_layout(plan, hardware, plan.attempts)
    if layout is None or layout == plan.engine.layout:
        return []
    found = plan_engine(
        replace(plan.engine, layout=layout), hardware.accelerator, plan.attempts, hardware.host_link_gb_per_s
    )
    if plan.fits and plan.speeds[-1].slow_tokens_per_s >= found.speeds[-1].slow_tokens_per_s:
        return []
    return [Proposal(plan.engine.name, layout, found)]
