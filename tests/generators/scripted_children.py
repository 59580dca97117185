"""What is loaded into processes of their own by the tests of them; importable there since it lies on the path here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.core.generation import Capabilities, GenerateRequest
from mathlete.core.protocols import Generator
from mathlete.generators.scripted import CAPABILITIES, Reply, ScriptedGenerator
from mathlete.proof_sampler.building import build_constraint  # noqa: F401  (loaded before the clock of a test begins)

WORDS = "Let us see: one and one is two, naïve 😀 as that may be; so the answer must be \\boxed{2}. " * 2


@dataclass
class Scripted:
    """A `LoadedEngine`."""

    generator: Generator
    capabilities: Capabilities
    description: str = "scripted"
    warnings: tuple[str, ...] = ("it only says what it is told to",)
    tokens_per_s: float | None = 100.0
    take_warnings: Callable[[], tuple[str, ...]] = tuple
    guesses: Callable[[], Mapping[str, float] | None] = lambda: None
    vocabulary: Sequence[bytes] = ()
    eos_token_ids: tuple[int, ...] = ()
    turn_start: str = ""

    def close(self) -> None:
        self.generator.close()


def script(request: GenerateRequest, token_s: float = 0.0) -> Reply:
    """Says what the user says behind "say: ", else always the same; goes on where the turn so far has ended."""
    _, told, text = request.messages[-1].content.partition("say: ")
    whole = text if told else WORDS
    begun = "".join(span.text for span in request.continuation)
    return Reply.saying(whole[len(begun) :] if whole.startswith(begun) else whole, token_s=token_s)


def load_scripted(token_s: float, capabilities: Capabilities, report: Callable[[str, int, int], None]) -> Scripted:
    report("Learning the script", 1, 1)
    generator = ScriptedGenerator(lambda request: script(request, token_s), capabilities=capabilities)
    return Scripted(generator, capabilities)


def load_seeded(token_s: float, report: Callable[[str, int, int], None]) -> Scripted:
    """Says numbers that follow from the seed."""

    def say(request: GenerateRequest) -> Reply:
        begun = sum(len(span.text.split()) for span in request.continuation)
        return Reply.saying(" ".join(f"{request.sampling.seed}.{i}" for i in range(begun, 60)), token_s=token_s)

    return Scripted(ScriptedGenerator(say, capabilities=CAPABILITIES), CAPABILITIES)


def load_fickle(token_s: float, report: Callable[[str, int, int], None]) -> Scripted:
    """Says something else in each process, whatever the seed, and claims that it does not."""

    def say(request: GenerateRequest) -> Reply:
        return Reply.saying(" ".join(f"{os.getpid()}.{i}" for i in range(40)), token_s=token_s)

    return Scripted(ScriptedGenerator(say, capabilities=CAPABILITIES), CAPABILITIES)


def load_in_turn(folder: str, deaths: tuple[str, ...], report: Callable[[str, int, int], None]) -> Scripted:
    """The first processes die as `deaths` say while they load ("" for not); the others load the script."""
    num = len(list(Path(folder).iterdir()))
    (Path(folder) / str(num)).touch()
    if num < len(deaths) and deaths[num]:
        if deaths[num] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError(f"there is no model for process {num}")
    return load_scripted(0.01, CAPABILITIES, report)


def load_breaking(report: Callable[[str, int, int], None]) -> Scripted:
    """Breaks at the word "break"."""

    class Breaking(ScriptedGenerator):
        def events(self, timeout_s: float):  # type: ignore[no-untyped-def]
            if any("break" in request.messages[-1].content for request in self.requests):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return super().events(timeout_s)

    return Scripted(Breaking(lambda request: script(request, 0.005)), Capabilities())


def load_dying(report: Callable[[str, int, int], None]) -> Scripted:
    """Ends without a word at the word "poison"."""

    class Dying(ScriptedGenerator):
        def events(self, timeout_s: float):  # type: ignore[no-untyped-def]
            if any("poison" in request.messages[-1].content for request in self.requests):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().events(timeout_s)

    return Scripted(Dying(lambda request: script(request, 0.002), capabilities=CAPABILITIES), CAPABILITIES)
