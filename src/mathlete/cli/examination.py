"""What this machine offers for solving, one finding a thing. Looks; does not print, and does not import torch.

Each part of the examination is a function from nothing, or from what was read, to findings.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mathlete.compose import isolation_warnings
from mathlete.core.errors import MathleteError, ModelError
from mathlete.model_store.store import DEFAULT_MODEL, ModelStatus, ModelStore
from mathlete.ryanstream import machine
from mathlete.ryanstream.model.native import requirements
from mathlete.sandbox.needs import missing_layers, read_kernel_settings
from mathlete.sandbox.pool import SandboxPool
from mathlete.verify.lean.finding import find_lean

Judgment = Literal["ok", "warning", "missing"]

# What the engine cannot do without, and what is of use where it is there; with the module's name and how to get it.
_ENGINE = ("torch", "numpy", "safetensors", "tokenizers", "gguf")
_EXTRAS = {
    "numpy": ("numpy", "mathlete[tools]", "programs of the model that import it fail"),
    "sympy": ("sympy", "mathlete[tools]", "programs of the model that import it fail, and no step is checked by it"),
    "z3": ("z3-solver", "mathlete[tools]", "programs of the model that import it fail, and no answer is checked by it"),
    "transformers": ("transformers", "transformers", "only comparisons and tests use it"),
    "triton": ("triton", "mathlete[gpu]", "only NVIDIA GPUs use it"),
    "vllm": ("vllm", "vllm", "only recipes with an engine of type vllm use it"),
    "httpx": ("httpx", "mathlete[server]", "only recipes with an engine of type openai_server use it"),
    "openai_harmony": ("openai-harmony", "mathlete[server]", "only gpt-oss models in vLLM use it"),
    "ray": ("ray", "mathlete[cluster]", "only runs over several hosts use it"),
    "grpc": ("grpcio", "mathlete[contest]", "only `mathlete contest` uses it"),
    "inspect_ai": ("inspect-ai", "inspect-ai", "only for use inside Inspect"),
}
_NEEDED_BY_SOLVING = ("numpy", "sympy", "z3")
_INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "i8mm")
_ROOM_BESIDE_WEIGHTS_BYTES = 1_500_000_000  # the interpreter with torch, and a KV cache for a few attempts


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: of the examination: "sandbox", "engine", "machine", "models", "extras", "lean".
        name: of the thing.
        judgment: whether it is as it should be; "missing" for what is not there, needed or not.
        found: what is there.
        remedy: what to do; empty where nothing needs to be done.
        is_fatal: whether nothing can be solved as it is.
    """

    part: str
    name: str
    judgment: Judgment
    found: str
    remedy: str = ""
    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was found, and the sandbox's layers in force."""

    findings: tuple[Finding, ...]
    isolation: tuple[str, ...]

    @property
    def can_solve(self) -> bool:
        """Whether solving can work at all."""
        return not any(finding.is_fatal for finding in self.findings)


def examine(store: ModelStore) -> Examination:
    """Look at everything; takes about a second, in which a trial program runs."""
    isolation, sandbox = examine_sandbox()
    findings = (*sandbox, *examine_engine(store.cache_dir), *examine_machine(), *examine_models(store))
    return Examination((*findings, *examine_extras(), *examine_lean()), isolation)


def examine_sandbox() -> tuple[tuple[str, ...], list[Finding]]:
    """The layers in force, and what is to be said of them and of those that are not."""
    try:
        with SandboxPool(num_workers=1) as pool:
            layers = pool.describe_isolation()
    except MathleteError as error:
        remedy = "programs of the model need Linux and a temporary directory that can be written"
        return (), [Finding("sandbox", "programs", "missing", str(error), remedy, is_fatal=True)]
    holes = isolation_warnings(layers)
    findings = [Finding("sandbox", "isolation", "warning" if holes else "ok", ", ".join((*layers, *holes)))]
    for missing, need in missing_layers(layers, read_kernel_settings()).items():
        findings.append(Finding("sandbox", missing, "missing", "not in force", need))
    return layers, findings


def examine_engine(cache_dir: Path) -> Iterator[Finding]:
    """The engine's packages, and which kernels it would compute with."""
    absent = [name for name in _ENGINE if find_spec(name) is None]
    if absent:
        found = f"not installed: {', '.join(absent)}"
        yield Finding("engine", "packages", "missing", found, "pip install 'mathlete[engine]'", is_fatal=True)
    else:
        yield Finding("engine", "packages", "ok", ", ".join(f"{name} {_version(name)}" for name in _ENGINE))
    reason = requirements.why_unavailable(requirements.read_cpu_flags())
    compiler, built = requirements.find_compiler(), any((cache_dir / "kernels").glob("kernels-*.so"))
    if reason is not None:
        yield Finding("engine", "CPU kernels", "warning", f"torch: {reason}", "slower, and as right as the native ones")
    elif compiler is None and not built:
        found, remedy = "torch: there is no C++ compiler for the native ones", "install g++, or set CXX"
        yield Finding("engine", "CPU kernels", "warning", found, remedy)
    else:
        state = "compiled before" if built else f"compiled by {compiler} on first use"
        yield Finding("engine", "CPU kernels", "ok", f"native, {state}")
    yield _gpu_kernels()


def _gpu_kernels() -> Finding:
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    if not devices:
        return Finding("engine", "GPU kernels", "missing", "no NVIDIA GPU here; only --device cuda needs one")
    torch = find_spec("torch")
    folders = [] if torch is None else list(torch.submodule_search_locations or ())
    if not any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders):
        found = f"{', '.join(devices)}, but torch is no CUDA build"
        return Finding("engine", "GPU kernels", "warning", found, "install a CUDA build of torch (see the README)")
    if find_spec("triton") is None:
        return Finding("engine", "GPU kernels", "warning", "torch: no Triton", "pip install 'mathlete[gpu]'")
    return Finding("engine", "GPU kernels", "ok", f"Triton {_version('triton')} on {', '.join(devices)}")


def examine_machine() -> Iterator[Finding]:
    """Cores, instruction sets and memory."""
    flags = requirements.read_cpu_flags()
    sets = [name for name in _INSTRUCTION_SETS if name in flags]
    cores = f"{machine.available_cores()} of {machine.processor_name() or 'an unnamed processor'}"
    yield Finding("machine", "cores", "ok", f"{cores}; {', '.join(sets) or 'no instruction sets of note'}")
    total = machine.available_memory_bytes()
    free = total * (1 - machine.memory_in_use())
    text = f"{_gigabytes(free)} free of {_gigabytes(total)}"
    needed = ModelStore().find(DEFAULT_MODEL).num_bytes + _ROOM_BESIDE_WEIGHTS_BYTES
    if free < needed:
        remedy = f"{DEFAULT_MODEL} takes about {_gigabytes(needed)}: end other programs, or take --model 0.5b"
        yield Finding("machine", "memory", "warning", text, remedy)
    else:
        yield Finding("machine", "memory", "ok", text)


def examine_models(store: ModelStore) -> Iterator[Finding]:
    """The cache, and the known models in it."""
    existing = next(path for path in (store.cache_dir, *store.cache_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    yield Finding("models", "cache", "ok", f"{store.cache_dir}, {_gigabytes(free)} free on its disk")
    yield from (_of_model(store.status(spec), free) for spec in store.models)
    yield _harmony_vocabulary(store.cache_dir)


def _harmony_vocabulary(cache_dir: Path) -> Finding:
    name, purpose = "gpt-oss vocabulary", "only gpt-oss models in turn_format harmony need it"
    try:
        from mathlete.generators.harmony_vocabulary import find_vocabulary

        return Finding("models", name, "ok", str(find_vocabulary(cache_dir)))
    except ModuleNotFoundError as error:
        return Finding("models", name, "missing", f"no {error.name}; {purpose}", "pip install 'mathlete[server]'")
    except ModelError as error:
        return Finding("models", name, "missing", purpose, str(error))


def _of_model(status: ModelStatus, free_bytes: int) -> Finding:
    spec, size = status.spec, _gigabytes(status.spec.num_bytes)
    if status.state == "ready":
        return Finding("models", spec.name, "ok", f"{size}, {status.path}")
    pull = f"mathlete models pull {spec.aliases[0]}"
    if status.state == "damaged":
        return Finding("models", spec.name, "warning", f"damaged: {status.path}", f"{pull} --force")
    needed = spec.num_bytes - status.num_bytes
    found = f"{size}, {_gigabytes(status.num_bytes)} of it here" if status.num_bytes else f"{size}, not fetched yet"
    if free_bytes < needed:
        return Finding("models", spec.name, "missing", found, f"make room for {_gigabytes(needed)}, then {pull}")
    return Finding("models", spec.name, "missing", found, pull)


def examine_extras() -> Iterator[Finding]:
    """Packages that are of use and not required."""
    for module, (package, wanted, purpose) in _EXTRAS.items():
        if find_spec(module) is not None:
            yield Finding("extras", package, "ok", _version(package))
        else:
            judgment: Judgment = "warning" if module in _NEEDED_BY_SOLVING else "missing"
            yield Finding("extras", package, judgment, purpose, f"pip install '{wanted}'")


def examine_lean() -> Iterator[Finding]:
    """Lean 4, by which proofs are checked."""
    lean = find_lean()
    if lean.is_usable:
        yield Finding("lean", "Lean 4", "ok", lean.summary)
        return
    for missing in lean.missing:
        yield Finding("lean", missing.what, "missing", "not found; only lean_check needs it", missing.remedy)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # importable without having been installed
        return "of unknown version"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
