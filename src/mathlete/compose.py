"""Wires concrete classes together. The only module, with the command line, that knows them all.

The engine is imported when a model is loaded, since torch comes with it: what is wrong with the input is told first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError, InputError
from mathlete.core.generation import Capabilities, TokenConstraint
from mathlete.core.policy import Policy
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeRunner, ConstraintFactory, Generator, ProofChecker, StepChecker, TraceSink
from mathlete.generators.routed import RoutedGenerator
from mathlete.generators.server_settings import ServerSettings
from mathlete.generators.turn_formats import TokenFormat, TurnSettings
from mathlete.generators.vllm_settings import VLLMSettings
from mathlete.proof_sampler.beam import BeamConfig
from mathlete.proof_sampler.soft_terms import soft_terms
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.sandbox.pool import SandboxPool
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver
from mathlete.triad.in_flight import live_source
from mathlete.triad.lean_check import PILLAR as LEAN_CHECK
from mathlete.triad.making import AttemptMaker
from mathlete.triad.policies import driving_of, make_policy, settings_of, weigher_of
from mathlete.triad.progress import RunProgress
from mathlete.verify.checks.check_program import CheckConfig

# Of a program's seconds, what a check may ask about numbers for; the rest is for its start and for reporting.
_CHECK_SHARE = 0.7

# Tokens of a request beyond those it samples: the statement, and what its programs printed.
_PROMPT_ROOM = 3072


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
        capabilities: what the generator does of what may be asked for.
        model_of: name of the model that writes for a pillar; None where a run has one.
        capabilities_of: what is done of whoever writes for a pillar; None where it is the same for all.
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
    capabilities: Capabilities = Capabilities()
    model_of: Callable[[str], str | None] = lambda pillar: None
    capabilities_of: Callable[[str], Capabilities] | None = None

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


def embedded_config(spec: EngineSpec, config: RunConfig) -> RunConfig:
    """The configuration with which the embedded engine of a recipe is loaded. Raises `ValueError` naming a setting."""
    return replace(config, engines=(), model=spec.model, **spec.settings)


def build_engine(spec: EngineSpec, config: RunConfig) -> LoadedGenerator:
    """An engine that is not the embedded one: vLLM in this process, or a server.

    Raises:
        EngineError: it cannot be started or reached, or a package for it is missing.
    """
    if spec.type == "vllm":
        return _build_vllm(spec, config)
    from mathlete.generators.openai_server import connect

    served = ServerSettings(**spec.settings)
    generator = connect(spec.model, served, lambda: _load_harmony(spec.model, served.turns()))
    return LoadedGenerator(
        generator,
        generator.description,
        generator.warnings,
        take_warnings=generator.take_warnings,
        turn_start=generator.turn_start,
        capabilities=generator.capabilities,
    )


def _load_harmony(model: str, turns: TurnSettings) -> TokenFormat:
    """The turn format of gpt-oss models. Raises `EngineError`, or `ModelError` when their vocabulary is not here."""
    try:
        from mathlete.generators.harmony_vocabulary import load_harmony_tokens
    except ModuleNotFoundError as error:
        raise EngineError(
            f"gpt-oss models need {error.name}, which is not installed: pip install 'mathlete[server]'"
        ) from error
    from mathlete.generators.harmony import Harmony
    from mathlete.model_store.store import default_cache_dir

    return Harmony(load_harmony_tokens(default_cache_dir(), model), turns)


def _build_vllm(spec: EngineSpec, config: RunConfig) -> LoadedGenerator:
    from mathlete.generators.vllm import load_vllm

    settings = VLLMSettings(**spec.settings)
    is_harmony = settings.turns.resolved(spec.model) == "harmony"
    harmony = _load_harmony(spec.model, settings.turns) if is_harmony else None
    generator = load_vllm(
        spec.model,
        settings,
        max_model_len=config.max_tokens + _PROMPT_ROOM,
        max_num_seqs=config.max_in_flight,
        constraints=config.constraints,
        token_format=harmony,
    )
    try:
        speed = generator.measure_speed(min(16, config.max_in_flight))
    except BaseException:
        generator.close()
        raise
    return LoadedGenerator(
        generator,
        generator.description,
        generator.warnings,
        speed,
        generator.take_warnings,
        generator.guesses,
        generator.token_bytes,
        generator.eos_token_ids,
        generator.turn_start,
        capabilities=generator.capabilities,
    )


def load_in_child(
    function: str, arguments: tuple[object, ...], name: str, report: Callable[[str, int, int], None]
) -> LoadedGenerator:
    """An engine in a process of its own, which is started again when it dies (`generators.child`).

    Args:
        function: "module:name"; called there with `arguments` and a `report`, it gives a `LoadedGenerator`.
        arguments: plain data.
        name: of the engine, in messages.
        report: told how far loading is.

    Raises:
        MathleteError: it cannot be loaded; the message is that of the process.
    """
    from mathlete.generators.child import ChildGenerator
    from mathlete.generators.child_messages import Load

    generator = ChildGenerator(Load(function, arguments), report, name=name)
    facts = generator.facts
    return LoadedGenerator(
        generator,
        f"{facts.description}, in a process of its own",
        facts.warnings,
        facts.tokens_per_s,
        generator.take_warnings,
        generator.guesses,
        facts.vocabulary,
        facts.eos_token_ids,
        facts.turn_start,
        capabilities=facts.capabilities,
    )


def join_engines(specs: Sequence[EngineSpec], loaded: Mapping[str, LoadedGenerator]) -> LoadedGenerator:
    """One generator of all engines, by name; the ends of texts and constraints are known where there is one engine."""
    if len(specs) == 1:
        return loaded[specs[0].name]
    (others,) = (spec for spec in specs if not spec.pillars)
    by_pillar = {pillar: spec for spec in specs for pillar in spec.pillars}
    speeds = [loaded[spec.name].tokens_per_s for spec in specs]
    able = [asdict(loaded[spec.name].capabilities) for spec in specs]
    return LoadedGenerator(
        RoutedGenerator(
            {pillar: loaded[spec.name].generator for pillar, spec in by_pillar.items()}, loaded[others.name].generator
        ),
        "; ".join(f"{spec.name}: {loaded[spec.name].description}" for spec in specs),
        tuple(f"{spec.name}: {warning}" for spec in specs for warning in loaded[spec.name].warnings),
        None if None in speeds else sum(filter(None, speeds)),
        take_warnings=lambda: tuple(
            f"{spec.name}: {warning}" for spec in specs for warning in loaded[spec.name].take_warnings()
        ),
        capabilities=Capabilities(**{name: all(one[name] for one in able) for name in able[0]}),
        model_of=lambda pillar: by_pillar.get(pillar, others).model,
        capabilities_of=lambda pillar: loaded[by_pillar.get(pillar, others).name].capabilities,
    )


def check_capabilities(config: RunConfig, loaded: LoadedGenerator) -> None:
    """Refuse at once what the generator could only refuse request by request.

    Raises:
        EngineError: the generator cannot do what a person asked for; the message names the flag.
    """
    able = loaded.capabilities
    for flag, is_asked, is_done in (
        ("--thinking-budget", config.thinking_budget is not None, able.thinking_budget),
        ("--top-k and --min-p", config.top_k > 0 or config.min_p > 0, able.top_k),
        ("--backtracking", config.backtracking != "off", able.rewinding),
    ):
        if is_asked and not is_done:
            raise EngineError(f"{loaded.description} cannot do {flag}: leave it out, or take another engine")


def add_step_checks(config: RunConfig, loaded: LoadedGenerator) -> LoadedGenerator:
    """The generator, going back from dead ends where `config` wants it, or with a checker of steps for its beams.

    Raises:
        EngineError: `config` asks for what the generator cannot do; it is closed then.
    """
    try:
        check_capabilities(config, loaded)
    except EngineError:
        loaded.close()
        raise
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
            max_programs=config.max_programs,
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
        closes_thinking=lambda pillar: (
            (loaded.capabilities if loaded.capabilities_of is None else loaded.capabilities_of(pillar)).thinking_budget
        ),
    )
    code = CodeLimits(wall_s=config.code_timeout_s)
    return Driver(
        live_source(
            loaded.generator, runner, maker, code, checker=loaded.checker, prover=prover, model_of=loaded.model_of
        ),
        sink,
        build_policy(config),
        driving_of({**asdict(config), "tokens_per_s": loaded.tokens_per_s}),
        weigh=weigher_of(config.policy),
        on_progress=on_progress,
    )


def _soft_reward(problem: Problem, step: str, before: str) -> float:
    """SPEC A1's soft terms, as points of a beam's score."""
    return soft_terms(step, before, problem).total
