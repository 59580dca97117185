"""Wires concrete classes together. The only module, with the command line, that knows them all.

The engine is imported when a model is loaded, since torch comes with it: what is wrong with the input is told first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mathlete.cic.registry import SELECTORS
from mathlete.contest.stop_rules import STOP_RULES
from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError, InputError
from mathlete.core.generation import SamplingParams, TokenConstraint
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner, ConstraintFactory, Generator, ProofChecker, StepChecker, TraceSink
from mathlete.proof_sampler.beam import BeamConfig
from mathlete.proof_sampler.soft_terms import soft_terms
from mathlete.ryanstream.speculative.draft_tree import MAX_DRAFT_NODES
from mathlete.ryanstream.speculative.methods import NEED_A_DRAFT_MODEL, RUN_A_MODEL, Method
from mathlete.sandbox.pool import SandboxPool
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver
from mathlete.triad.in_flight import live_source
from mathlete.triad.lean_check import PILLAR as LEAN_CHECK
from mathlete.triad.making import CHECK_PILLARS, SOLVING_PILLARS, AttemptMaker
from mathlete.triad.policies import (
    PolicyName,
    TemperatureSchedule,
    driving_of,
    make_policy,
    settings_of,
    weigher_of,
    with_policy_names,
)
from mathlete.triad.progress import RunProgress
from mathlete.triad.prometheus_answers import FAULTS
from mathlete.verify.checks.check_program import CheckConfig

Precision = Literal["auto", "w8a8", "int4", "nf4", "bf16"]
KVCacheDtype = Literal["bf16", "int8"]
Backtracking = Literal["off", "on", "strict"]

# Of a program's seconds, what a check may ask about numbers for; the rest is for its start and for reporting.
_CHECK_SHARE = 0.7

# Tokens of a request beyond those it samples: the statement, and what its programs printed.
_PROMPT_ROOM = 3072


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
        for name in ("attempts", "max_in_flight", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        self._check_speculation()
        self._check_pillars()
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
        if self.cured and self.policy != "prometheus":
            raise ValueError(f"cured is for --policy prometheus, and the policy is {self.policy}")

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


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """A generator that is ready.

    Attributes:
        generator: what drives the model.
        description: engine and kernels, for the trace.
        tokens_per_s: of many attempts together, where it was measured.
        warnings: what a person should know about it.
        take_warnings: what a person should know of what happened since the last call.
        guesses: what became of the tokens guessed so far; None where none are guessed.
        vocabulary: the bytes of each of its token ids, where constraints can be had.
        eos_token_ids: those of them that end a text.
        turn_start: what an assistant's turn begins with before the model writes.
        checker: judges the steps of beams.
    """

    generator: Generator
    description: str
    warnings: tuple[str, ...] = ()
    tokens_per_s: float | None = None
    take_warnings: Callable[[], tuple[str, ...]] = tuple
    guesses: Callable[[], Mapping[str, float] | None] = lambda: None
    vocabulary: Sequence[bytes] = ()
    eos_token_ids: tuple[int, ...] = ()
    turn_start: str = ""
    checker: StepChecker | None = None

    def close(self) -> None:
        """End generator and checker. Safe to call twice."""
        if self.checker is not None:
            self.checker.close()
        self.generator.close()


def build_generator(
    config: RunConfig,
    model_path: Path,
    cache_dir: Path,
    progress: Callable[[str, int, int], None],
    draft_path: Path | None = None,
) -> LoadedGenerator:
    """Load the model into the embedded engine, and what guesses for it from `draft_path`.

    Raises `ModelError`, `StorageError` or `EngineError`.
    """
    try:
        from mathlete.generators.ryanstream import RyanStreamGenerator
        from mathlete.ryanstream.engine_config import EngineConfig
        from mathlete.ryanstream.loading import load_engine
    except ModuleNotFoundError as error:
        raise engine_is_missing(error) from error

    engine = EngineConfig(
        precision=config.precision,
        kv_cache_dtype=config.kv_cache_dtype,
        batch_invariant=config.batch_invariant,
        tensor_parallel=config.tensor_parallel,
        device=config.device,
        max_running=config.max_in_flight,
        max_step_tokens=max(256, 2 * config.max_in_flight),  # every running request gets a token in each step
        max_model_len=config.max_tokens + _PROMPT_ROOM,
        num_threads=config.threads,
        speculative=config.speculative_method,
        num_speculative_tokens=config.num_speculative_tokens,
        draft_width=config.draft_width,
        draft_model=draft_path,
    )
    loaded = load_engine(model_path, cache_dir, engine, progress)
    try:
        generator = RyanStreamGenerator(loaded, config.normalize_math)
        speed = generator.measure_speed(min(16, config.max_in_flight))
    except BaseException:
        loaded.close()
        raise
    warnings = (*kernel_warnings(loaded.kernels), *speculation_warnings(config, loaded.speculation))
    return LoadedGenerator(
        generator,
        generator.description,
        warnings,
        speed,
        generator.take_warnings,
        generator.guesses,
        generator.token_bytes,
        generator.eos_token_ids,
        generator.chat_format.turn_start,
    )


def add_step_checks(config: RunConfig, loaded: LoadedGenerator) -> LoadedGenerator:
    """The generator, going back from dead ends where `config` wants it, or with a checker of steps for its beams."""
    if config.beam_width:
        from mathlete.verify.symbolic import SymbolicVerifier

        return replace(loaded, checker=SymbolicVerifier())
    if config.backtracking == "off":
        return loaded
    from mathlete.proof_sampler.backtracking import STRICT, BacktrackingConfig, BacktrackingGenerator
    from mathlete.proof_sampler.equations import EquationTracker
    from mathlete.verify.symbolic import SymbolicVerifier

    limits = STRICT if config.backtracking == "strict" else BacktrackingConfig()
    limits = replace(limits, wait=config.command == "evaluate")  # so that a run repeats to the token
    checker = SymbolicVerifier()
    return replace(loaded, generator=BacktrackingGenerator(loaded.generator, checker, limits, EquationTracker()))


def build_constraints(config: RunConfig, loaded: LoadedGenerator) -> ConstraintFactory | None:
    """What attempts may write, or None when `config` lets them write anything.

    Raises:
        EngineError: when the generator does not tell its vocabulary.
    """
    if not config.constraints:
        return None
    if not loaded.vocabulary:
        raise EngineError(f"{loaded.description} does not tell its vocabulary: --constraints needs it, leave them out")
    from mathlete.proof_sampler.building import build_constraint
    from mathlete.proof_sampler.config import ConstraintSpec
    from mathlete.proof_sampler.vocabulary import Vocabulary

    vocabulary = Vocabulary(loaded.vocabulary, loaded.eos_token_ids)
    spec = ConstraintSpec()

    def constraint(problem: Problem, written: str) -> TokenConstraint | None:
        return build_constraint(spec, vocabulary, problem.answer_kind, loaded.turn_start + written)

    return constraint


def engine_is_missing(error: ModuleNotFoundError) -> EngineError:
    """What to say when a package of the engine is not installed."""
    return EngineError(
        f"the embedded engine needs {error.name}, which is not installed; "
        "install Mathlete with its extras: pip install 'mathlete[engine,tools]'"
    )


def kernel_warnings(kernels: str) -> tuple[str, ...]:
    """What to say of the engine's kernels: "native", "triton", or "torch (why neither)"."""
    if kernels in ("native", "triton"):
        return ()
    return (f"the engine runs on its slow path: {kernels}; its own kernels would be several times faster",)


def speculation_warnings(config: RunConfig, speculation: str) -> tuple[str, ...]:
    """What to say when nothing guesses although it was asked for; `speculation` is the engine's word on it."""
    if config.speculative_method == "off" or not speculation.startswith("off"):
        return ()
    return (f"--speculative-method {config.speculative_method} is {speculation}",)


def isolation_warnings(layers: Collection[str]) -> tuple[str, ...]:
    """What to say when programs of the model are fenced in less than they should be."""
    found = []
    if not {"netns", "seccomp"} & set(layers):
        found.append("reach the network")
    if not {"landlock", "newroot"} & set(layers):
        found.append("read your files")
    if not {"landlock", "readonly"} & set(layers):
        found.append("change your files")
    if not found:
        return ()
    *others, last = found
    holes = f"{', '.join(others)} and {last}" if others else last
    return (f"this machine lets programs that the model writes {holes}; best run in a container",)


def build_sandbox() -> SandboxPool:
    """Where programs run: two at once on a small machine, more where there are more cores."""
    from mathlete.ryanstream.machine import available_cores

    return SandboxPool(num_workers=max(2, available_cores() // 2))


def build_prover(config: RunConfig, problems: Sequence[Problem]) -> ProofChecker | None:
    """What checks formal proofs, or None when `config` asks for none. Starts nothing before the first proof.

    Raises:
        InputError: this machine has no Lean, or a formal statement cannot be used; the message says what to do.
    """
    if LEAN_CHECK not in config.checks:
        return None
    from mathlete.verify.lean.background import LeanInBackground
    from mathlete.verify.lean.finding import find_lean
    from mathlete.verify.lean.lean_check import LeanChecker, open_backend
    from mathlete.verify.lean.statement import names_answer, statement_about

    for problem in problems:
        if problem.formal_statement is not None:
            try:
                statement_about(problem.formal_statement, "0" if names_answer(problem.formal_statement) else None)
            except InputError as error:
                error.add_note(f"This is the formal_statement of problem {problem.id!r}; {LEAN_CHECK} is to prove it.")
                raise
    try:
        return LeanInBackground(LeanChecker(open_backend(find_lean())))
    except InputError as error:
        error.add_note(f"Only --checks {LEAN_CHECK} needs Lean: leave it out, or see `mathlete doctor`.")
        raise


def proof_warnings(config: RunConfig, problems: Sequence[Problem]) -> tuple[str, ...]:
    """What to say when proofs are asked for and there is nothing to prove."""
    if LEAN_CHECK not in config.checks or any(problem.formal_statement is not None for problem in problems):
        return ()
    return (f"{LEAN_CHECK} has nothing to prove: no problem comes with a formal_statement",)


def build_policy(config: RunConfig) -> Policy:
    """How a problem is worked on: all attempts ("fixed"), until the vote is settled ("vote"), or "triad"."""
    return make_policy(settings_of(asdict(config)))


def beam_config(config: RunConfig) -> BeamConfig:
    """Limits of a beam: each of its paths may be as long as an attempt, and all of them cost as many as its width."""
    width = config.beam_width or 1
    return BeamConfig(width=width, max_tokens=config.max_tokens, max_total_tokens=width * config.max_tokens)


def build_driver(
    config: RunConfig,
    loaded: LoadedGenerator,
    runner: CodeRunner,
    sink: TraceSink,
    on_progress: Callable[[RunProgress], None],
    prover: ProofChecker | None = None,
) -> Driver:
    """The loop over one run. `prover` is what `build_prover` gives."""
    maker = AttemptMaker(
        run_seed=config.seed,
        config=AttemptConfig(
            config.max_tokens,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p,
            thinking_budget=config.thinking_budget,
        ),
        beam=beam_config(config),
        constraints=build_constraints(config, loaded),
        checks_steps=loaded.checker is not None,
        step_reward=_soft_reward if config.beam_soft_terms else None,
        check=CheckConfig(total_s=_CHECK_SHARE * config.code_timeout_s),
    )
    code = CodeLimits(wall_s=config.code_timeout_s)
    return Driver(
        live_source(loaded.generator, runner, maker, code, checker=loaded.checker, prover=prover),
        sink,
        build_policy(config),
        driving_of({**asdict(config), "tokens_per_s": loaded.tokens_per_s}),
        weigh=weigher_of(config.policy),
        on_progress=on_progress,
    )


def _soft_reward(problem: Problem, step: str, before: str) -> float:
    """SPEC A1's soft terms, as points of a beam's score."""
    return soft_terms(step, before, problem).total


def decode_config(data: dict[str, Any]) -> RunConfig:
    """The configuration that a trace recorded. Extra entries (version, isolation, ...) are for people."""
    told = with_policy_names(data)
    known: dict[str, Any] = {name: told[name] for name in RunConfig.__dataclass_fields__ if name in told}
    for name in ("pillars", "checks", "cured"):
        if name in known:
            known[name] = tuple(known[name])
    return RunConfig(**known)
