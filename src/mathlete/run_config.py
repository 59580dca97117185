"""What a run was asked to do, as data: every option of `mathlete solve`, and the engines that write for it.

Knows names and limits; builds nothing. `compose` makes the parts that it describes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from mathlete.cic.registry import SELECTORS
from mathlete.contest.stop_rules import STOP_RULES
from mathlete.core.generation import SamplingParams
from mathlete.generators.server_settings import ServerSettings
from mathlete.generators.vllm_settings import VLLMSettings
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES
from mathlete.ryanstream.speculative.methods import NEED_A_DRAFT_MODEL, RUN_A_MODEL, Method
from mathlete.triad.making import CHECK_PILLARS, SOLVING_PILLARS
from mathlete.triad.pipeline import AVAILABLE, SCORERS
from mathlete.triad.policies import PolicyName, TemperatureSchedule, with_policy_names
from mathlete.triad.prometheus_answers import FAULTS

EngineType = Literal["ryanstream", "vllm", "openai_server"]
Precision = Literal["auto", "w8a8", "int4", "nf4", "bf16"]
KVCacheDtype = Literal["bf16", "int8"]
Backtracking = Literal["off", "on", "strict"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One of the engines of a run.

    Attributes:
        name: unique in the run.
        type: "ryanstream" (embedded), "vllm" (in process) or "openai_server" (any OpenAI-compatible server).
        model: name or path, as the engine takes it.
        pillars: that it writes for; empty for all that no other engine names.
        own_process: run it in a process of its own, which is started again when it dies.
        settings: the engine's own options: `generators.vllm_settings.VLLMSettings`,
            `generators.server_settings.ServerSettings`, or of the embedded engine the fields `EMBEDDED_SETTINGS`.
    """

    name: str
    type: EngineType
    model: str
    pillars: tuple[str, ...] = ()
    own_process: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field or setting that is out of range."""
        if self.type not in get_args(EngineType):
            raise ValueError(f"type must be one of {', '.join(get_args(EngineType))}, not {self.type!r}")
        if not self.name or not self.model:
            raise ValueError("name and model must not be empty")
        for field_name in ("name", "model"):
            if not getattr(self, field_name).isprintable():  # both are told to people, in terminals
                raise ValueError(f"{field_name} must have no control characters, not {getattr(self, field_name)!r:.80}")
        if unknown := sorted(set(self.pillars) - {*SOLVING_PILLARS, *CHECK_PILLARS}):
            known = ", ".join((*SOLVING_PILLARS, *CHECK_PILLARS))
            raise ValueError(f"pillars may name {known}, not {', '.join(unknown)}")
        known_settings = settings_of_engine(self.type)
        if unknown := sorted(set(self.settings) - set(known_settings)):
            raise ValueError(
                f"{unknown[0]} is no setting of {self.type}; there are {', '.join(sorted(known_settings))}"
            )
        if self.type != "ryanstream":
            _SETTINGS[self.type](**self.settings)


# Fields of `RunConfig` that say how the embedded engine is set up; an `EngineSpec` of that type may set them.
EMBEDDED_SETTINGS = (
    "precision",
    "kv_cache_dtype",
    "batch_invariant",
    "tensor_parallel",
    "device",
    "threads",
    "normalize_math",
    "speculative_method",
    "num_speculative_tokens",
    "draft_width",
    "draft_model",
)

_SETTINGS: Mapping[str, type] = {"vllm": VLLMSettings, "openai_server": ServerSettings}


def settings_of_engine(engine_type: str) -> tuple[str, ...]:
    """Names of the settings that an engine of a type takes."""
    if engine_type == "ryanstream":
        return EMBEDDED_SETTINGS
    return tuple(item.name for item in fields(_SETTINGS[engine_type]))


def settings_type(engine_type: str) -> type:
    """The dataclass that has these settings among its fields."""
    return RunConfig if engine_type == "ryanstream" else _SETTINGS[engine_type]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run was asked to do; recorded in its trace, so that it can be resumed as it was.

    Attributes:
        command: "solve" (a problem ends when its vote is settled) or "evaluate" (every attempt is made).
        source: the problem file, or None when the problem was given as text.
        model: name or path.
        budget_s: seconds for solving, from the moment the model is ready.
        attempts: attempts a problem at most.
        seed: all noise is derived from it.
        temperature: of sampling.
        temperature_schedule: "fixed", or "annealed": a wave's temperature follows from the votes before it.
        top_p: of sampling.
        min_p: of sampling.
        max_tokens: sampled tokens of an attempt.
        top_k: of sampling; 0 for no limit.
        max_in_flight: attempts generating at once.
        threads: CPU threads of the engine; None for all cores this process may use.
        precision: of the linear layers; "auto" takes the fastest for each step.
        kv_cache_dtype: of keys and values.
        batch_invariant: guarantee that an attempt's tokens do not depend on the others'.
        tensor_parallel: processes that hold the model together.
        device: "cpu", "cuda" or "cuda:N".
        thinking_budget: tokens of a `<think>` block before it is closed by force; None for no limit.
        normalize_math: make mathematical text of statements uniform before the model sees it.
        code_timeout_s: seconds a program may run.
        speculative_method: how tokens are guessed ahead; what is drawn keeps its distribution.
        num_speculative_tokens: how many of them in a row at most; how many is decided by what pays.
        draft_width: guesses side by side at most, where a model guesses; 1 for one after the other.
        draft_model: name or path of what guesses: a smaller model with the same tokenizer ("draft"), the folder of a
            head ("eagle") or of a trained exit ("early_exit", where it may be left out).
        constraints: whether attempts may only write what can still become balanced, with an answer of the right kind.
        backtracking: whether attempts go back from dead ends; "strict" sooner and more often.
        beam_width: partial solutions that an attempt keeps in a beam over steps; 0 for an attempt that writes one.
        beam_soft_terms: whether the soft terms' published points count in a beam's score.
        policy: how a problem is worked on (see `build_policy`).
        selector: name of the rule that chooses the answer, of `cic.registry.SELECTORS`.
        stop: name of the rule that says when a vote is settled, of `contest.stop_rules.STOP_RULES`.
        pillars: ways of solving, in turn; a beam stands in for each when there is a `beam_width`.
        checks: pillars that check the leading answers; "lean_check" needs Lean, and problems with formal statements.
        second_round: attempts that are shown what the others found, where the votes are split.
        token_budget: tokens of all problems together; None for no limit.
        cured: faults of the policy "prometheus" that are not made.
        mapping: which columns of `source` hold what: name of a preset, or path of a mapping file; None for usual names.
        engines: what writes, where a recipe says so; empty for the embedded engine as the other fields describe it.
        recipe: name of the recipe that the options are from; None where there was none.
        scorer: name of what the policy "pipeline" scores attempts by, of `triad.pipeline.SCORERS`.
        max_programs: programs that an attempt may run.
    """

    command: str
    source: str | None
    model: str
    budget_s: float
    attempts: int = 8
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.95
    min_p: float = 0.0
    max_tokens: int = 1024
    top_k: int = 0
    max_in_flight: int = 32
    threads: int | None = None
    precision: Precision = "w8a8"
    kv_cache_dtype: KVCacheDtype = "bf16"
    batch_invariant: bool = False
    tensor_parallel: int = 1
    device: str = "cpu"
    thinking_budget: int | None = None
    normalize_math: bool = False
    code_timeout_s: float = 10.0
    speculative_method: Method = "off"
    num_speculative_tokens: int = 8
    draft_width: int = 1
    draft_model: str | None = None
    constraints: bool = False
    backtracking: Backtracking = "off"
    beam_width: int = 0
    beam_soft_terms: bool = False
    policy: PolicyName = "fixed"
    selector: str = "triad"
    stop: str = "settled"
    pillars: tuple[str, ...] = ("code",)
    checks: tuple[str, ...] = ()
    second_round: int = 0
    token_budget: int | None = None
    cured: tuple[str, ...] = ()
    mapping: str | None = None
    temperature_schedule: TemperatureSchedule = "fixed"
    engines: tuple[EngineSpec, ...] = ()
    recipe: str | None = None
    scorer: str = AVAILABLE
    max_programs: int = 4

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name, known in (
            ("precision", get_args(Precision)),
            ("kv_cache_dtype", get_args(KVCacheDtype)),
            ("backtracking", get_args(Backtracking)),
            ("speculative_method", get_args(Method)),
            ("policy", get_args(PolicyName)),
            ("temperature_schedule", get_args(TemperatureSchedule)),
            ("selector", tuple(SELECTORS)),
            ("stop", tuple(STOP_RULES)),
            ("scorer", SCORERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.precision == "auto" and self.batch_invariant:
            raise ValueError("batch_invariant needs a fixed --precision: auto chooses by the size of the batch")
        if self.precision == "auto" and self.tensor_parallel > 1:
            raise ValueError("tensor_parallel needs a fixed --precision: with auto the processes could disagree")
        for name in ("budget_s", "code_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, not {getattr(self, name)}")
        for name in ("attempts", "max_in_flight", "tensor_parallel", "max_programs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be >= 1, not {self.threads}")
        self._check_speculation()
        self._check_pillars()
        self._check_engines()
        if self.beam_width < 0:
            raise ValueError(f"beam_width must be >= 0, not {self.beam_width}")
        if self.beam_width and self.backtracking != "off":
            raise ValueError("beam_width leaves no use for --backtracking: a beam gives up whole branches")
        if self.beam_soft_terms and not self.beam_width:
            raise ValueError("beam_soft_terms counts in the score of a beam: give --beam-width too")
        if not math.isfinite(self.temperature):
            raise ValueError(f"temperature must be a number, not {self.temperature}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, not {self.device!r}")
        SamplingParams(
            self.temperature, self.top_p, self.top_k, self.min_p, self.max_tokens, thinking_budget=self.thinking_budget
        )

    def _check_pillars(self) -> None:
        for name, known in (("pillars", SOLVING_PILLARS), ("checks", CHECK_PILLARS), ("cured", FAULTS)):
            if unknown := sorted(set(getattr(self, name)) - set(known)):
                raise ValueError(f"{name} may name {', '.join(known)}, not {', '.join(unknown)}")
        if not self.pillars:
            raise ValueError(f"pillars must name at least one of {', '.join(SOLVING_PILLARS)}")
        if self.second_round < 0:
            raise ValueError(f"second_round must be >= 0, not {self.second_round}")
        if self.token_budget is not None and self.token_budget < 1:
            raise ValueError(f"token_budget must be >= 1, not {self.token_budget}")
        for name in ("checks", "second_round", "token_budget"):
            if getattr(self, name) and self.policy != "triad":
                raise ValueError(f"{name} is for --policy triad, and the policy is {self.policy}")
        if self.temperature_schedule != "fixed" and self.policy != "triad":
            raise ValueError(f"temperature_schedule is for --policy triad, and the policy is {self.policy}")
        if self.scorer != AVAILABLE and self.policy != "pipeline":
            raise ValueError(f"scorer is for --policy pipeline, and the policy is {self.policy}")
        if self.cured and self.policy != "prometheus":
            raise ValueError(f"cured is for --policy prometheus, and the policy is {self.policy}")

    def _check_engines(self) -> None:
        names = [engine.name for engine in self.engines]
        if len(set(names)) < len(names):
            raise ValueError(f"engines must have different names, not {', '.join(names)}")
        taken = [pillar for engine in self.engines for pillar in engine.pillars]
        if twice := sorted({pillar for pillar in taken if taken.count(pillar) > 1}):
            raise ValueError(f"engines may share no pillar, and {', '.join(twice)} is written by several")
        if self.engines and sum(not engine.pillars for engine in self.engines) != 1:
            raise ValueError("engines must have exactly one without pillars: it writes for all that no other names")
        for engine in self.engines:
            if engine.type == "ryanstream":
                replace(self, engines=(), model=engine.model, **engine.settings)

    def _check_speculation(self) -> None:
        method, model = self.speculative_method, self.draft_model
        for name in ("num_speculative_tokens", "draft_width"):
            if not 1 <= getattr(self, name) <= MAX_DRAFT_NODES:
                raise ValueError(f"{name} must be from 1 to {MAX_DRAFT_NODES}, not {getattr(self, name)}")
        if method in NEED_A_DRAFT_MODEL and model is None:
            raise ValueError(
                f"speculative_method {method} guesses with a model: give --draft-model, {NEED_A_DRAFT_MODEL[method]}"
            )
        for name, is_given in (("draft_model", model is not None), ("draft_width", self.draft_width > 1)):
            if is_given and method not in RUN_A_MODEL:
                raise ValueError(
                    f"{name} is for --speculative-method {', '.join(RUN_A_MODEL)}, and the method is {method}"
                )
        if method in RUN_A_MODEL and self.tensor_parallel > 1:
            raise ValueError(
                f"speculative_method {method} runs in one process, and --tensor-parallel is {self.tensor_parallel}: "
                "leave one of them out, or guess by ngram or suffix"
            )


def decode_config(data: dict[str, Any]) -> RunConfig:
    """The configuration that a trace recorded. Extra entries (version, isolation, ...) are for people."""
    told = with_policy_names(data)
    known: dict[str, Any] = {name: told[name] for name in RunConfig.__dataclass_fields__ if name in told}
    for name in ("pillars", "checks", "cured"):
        if name in known:
            known[name] = tuple(known[name])
    known["engines"] = tuple(_decode_engine(engine) for engine in known.get("engines", ()))
    return RunConfig(**known)


def _decode_engine(data: Mapping[str, Any]) -> EngineSpec:
    return EngineSpec(**{**data, "pillars": tuple(data["pillars"])})
