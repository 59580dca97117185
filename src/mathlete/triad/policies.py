"""From names and settings to a policy: what live solving builds, a recorded run is decided by again.

Knows every policy, selector and stopping rule by name. Knows no command line, no generator and no files, so that
`compose` and the lab build the very same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mathlete.cic.registry import SELECTORS, make_selector
from mathlete.contest.difficulty import weight_of
from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.contest.stop_rules import STOP_RULES, make_stop_rule
from mathlete.core.errors import InputError
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.protocols import Selector
from mathlete.triad.driver import DriverConfig
from mathlete.triad.integration import TriadConfig, TriadPolicy
from mathlete.triad.pipeline import AVAILABLE, SCORERS, PipelineSelector
from mathlete.triad.prometheus import PrometheusPolicy
from mathlete.triad.prometheus_answers import FAULTS, Faults

PolicyName = Literal["triad", "vote", "fixed", "pipeline", "prometheus"]
TemperatureSchedule = Literal["fixed", "annealed"]

# What "triad" does when it is not told otherwise. Of the checks, z3's and the choice between solutions did not pay with
# the embedded model (LOG.md).
TRIAD_CHECKS = ("sympy_check", "enumeration_check")
TRIAD_SECOND_ROUND = 2

# Times its share of the clock that a problem may take under that policy, which ends one when others need the time.
TRIAD_STRETCH = 2.0


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How problems are worked on, and all that a policy is made of.

    Attributes:
        policy: all attempts ("fixed"), until the vote is settled ("vote"), "triad", all attempts and of them the best
            scored one ("pipeline"), or "prometheus".
        attempts: attempts a problem at most.
        selector: name of the rule that chooses the answer.
        stop: name of the rule that says when a vote is settled.
        pillars: ways of solving, in turn.
        temperature: of sampling.
        temperature_schedule: "fixed", or "annealed": a wave's temperature follows from the votes before it.
        checks: pillars that check the leading answers.
        second_round: attempts that are shown what the others found, where the votes are split.
        cured: faults of "prometheus" that are not made.
        scorer: name of what "pipeline" scores attempts by.
    """

    policy: PolicyName = "fixed"
    attempts: int = 8
    selector: str = "majority"
    stop: str = "settled"
    pillars: tuple[str, ...] = ("code",)
    temperature: float = 0.8
    temperature_schedule: TemperatureSchedule = "fixed"
    checks: tuple[str, ...] = ()
    second_round: int = 0
    cured: tuple[str, ...] = ()
    scorer: str = AVAILABLE

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that names what there is not; policies check their numbers."""
        for name, known in (
            ("policy", get_args(PolicyName)),
            ("selector", tuple(SELECTORS)),
            ("stop", tuple(STOP_RULES)),
            ("temperature_schedule", get_args(TemperatureSchedule)),
            ("scorer", SCORERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if unknown := sorted(set(self.cured) - set(FAULTS)):
            raise ValueError(f"cured may name {', '.join(FAULTS)}, not {', '.join(unknown)}")

    @property
    def rule(self) -> str:
        """What chooses the answer, in a word: the selector, or what "pipeline" scores by."""
        return f"pipeline_{self.scorer}" if self.policy == "pipeline" else self.selector


def make_policy(settings: PolicySettings) -> Policy:
    """The policy that `settings` describe. Raises `ValueError` naming a number that is out of range."""
    selector, rule = selector_of(settings), make_stop_rule(settings.stop)
    if settings.policy in ("fixed", "pipeline"):
        return FixedPolicy(settings.attempts, settings.pillars, settings.temperature, selector)
    if settings.policy == "vote":
        return VotePolicy(settings.attempts, settings.pillars, settings.temperature, selector, rule)
    if settings.policy == "prometheus":
        faults = Faults(**{name: name not in settings.cured for name in FAULTS})
        return PrometheusPolicy(faults, settings.attempts, settings.temperature)
    triad = TriadConfig(
        attempts=settings.attempts,
        pillars=settings.pillars,
        temperature=settings.temperature,
        anneals=settings.temperature_schedule == "annealed",
        checks=settings.checks,
        second_round=settings.second_round,
    )
    return TriadPolicy(selector, rule, triad)


def selector_of(settings: PolicySettings) -> Selector:
    """What chooses the answer under a policy: the rule that it names, or the policy's own."""
    return PipelineSelector(settings.scorer) if settings.policy == "pipeline" else make_selector(settings.selector)


def with_policy_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run recorded of its configuration; one of a time when the command was the policy says which it was."""
    if "policy" in config:
        return dict(config)
    policy = "vote" if config.get("command") == "solve" else "fixed"  # and a plain vote chose
    return {**config, "policy": policy, "selector": "majority"}


def settings_of(config: Mapping[str, Any]) -> PolicySettings:
    """How a run with this configuration is decided: one that is to be, or one that recorded it.

    Raises:
        ValueError: it names a policy or rule that there is not (any more).
    """
    config = with_policy_names(config)
    known = {item.name: config[item.name] for item in fields(PolicySettings) if item.name in config}
    for name in ("pillars", "checks", "cured"):
        if name in known:
            known[name] = tuple(known[name])
    if config.get("beam_width"):
        known["pillars"] = ("beam",)
    return PolicySettings(**known)


def recorded_policy(config: Mapping[str, Any]) -> Policy:
    """The policy of a run that recorded this configuration.

    Raises:
        InputError: it names a policy or rule that there is not (any more).
    """
    try:
        return make_policy(settings_of(config))
    except (ValueError, TypeError) as error:
        raise InputError(f"the policy that the run recorded cannot be made: {error}") from error


def driving_of(config: Mapping[str, Any]) -> DriverConfig:
    """How a run with this configuration is driven; what it does not say is as in `DriverConfig`."""
    config = with_policy_names(config)
    names = ("attempts", "max_in_flight", "tokens_per_s", "token_budget")
    known: dict[str, Any] = {name: config[name] for name in names if name in config}
    if "max_tokens" in config:  # paths of a beam cost as many as its width
        known["max_tokens"] = config["max_tokens"] * max(1, config.get("beam_width", 0))
    return DriverConfig(**known, stretch=stretch_of(config["policy"]))


def stretch_of(policy: str) -> float:
    """Times its share of the clock that a problem may take at most under a policy (see `DriverConfig.stretch`)."""
    return TRIAD_STRETCH if policy == "triad" else 1.0


def weigher_of(policy: str) -> Callable[[Problem], float]:
    """The part of the clock that a problem should get under a policy, relative to others."""
    return weight_of if policy == "triad" else lambda problem: 1.0
