"""What a generator and the process that holds its engine say to each other. Plain data between two of our own.

We say `Load` first, then `Submit`, `Abort` and `Rewind`, and `Close` at the end. The process says `LoadProgress`, then
`Loaded` or `LoadFailed`, then `News` as it comes, `Refused` and `CannotRewind` where something was asked in vain, and
`Died` before it ends of an error. The end of the connection says that the other side has ended, in whatever way.

A *key* names one writing of a request: the process's news of a writing that counts no longer (the request went back, or
was begun anew) comes with an old key and is dropped.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from mathlete.core.generation import Capabilities, GenerateRequest, GeneratorEvent, SamplingParams
from mathlete.core.protocols import Generator
from mathlete.proof_sampler.token_constraint import ConstraintOrigin

LoadReport = Callable[[str, int, int], None]
"""Told how far loading is: the step in words, how much of it is done, how much there is."""


class LoadedEngine(Protocol):
    """What the function of a `Load` gives; `compose.LoadedGenerator` is one."""

    @property
    def generator(self) -> Generator:
        """What drives the model."""
        ...

    @property
    def description(self) -> str:
        """Engine and kernels."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about it."""
        ...

    @property
    def tokens_per_s(self) -> float | None:
        """Of many attempts together, where it was measured."""
        ...

    @property
    def take_warnings(self) -> Callable[[], tuple[str, ...]]:
        """What a person should know of what happened since the last call."""
        ...

    @property
    def guesses(self) -> Callable[[], Mapping[str, float] | None]:
        """What became of the tokens guessed so far; None where none are guessed."""
        ...

    @property
    def vocabulary(self) -> Sequence[bytes]:
        """The bytes of each token id; empty where they are not told."""
        ...

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Those that end a text."""
        ...

    @property
    def turn_start(self) -> str:
        """What an assistant's turn begins with before the model writes."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the generator does of what may be asked for."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """Call `function`, "module:name", with `arguments` and a `LoadReport`: it gives a `LoadedEngine`.

    It must be importable where the process looks for modules, which is where this one does.
    """

    function: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far loading is, see `LoadReport`."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is told of a loaded engine; the fields of `compose.LoadedGenerator` that are data."""

    description: str
    warnings: tuple[str, ...] = ()
    tokens_per_s: float | None = None
    vocabulary: tuple[bytes, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    turn_start: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine is ready."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """It cannot be loaded: name of a class of `core.errors` (or of another error), its text, and notes on it."""

    kind: str
    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a request.

    Attributes:
        key: of what it writes.
        request: with its constraint, unless that is made anew from `constraint`.
        constraint: what its constraint is made from.
        rewinds: where it went back before and with which sampling, tokens growing: it does so again, and its chunks are
            told only from the last of these places on.
    """

    key: int
    request: GenerateRequest
    constraint: ConstraintOrigin | None = None
    rewinds: tuple[tuple[int, SamplingParams], ...] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    """End the request of this key; nothing when it has ended."""

    key: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """Take the request of this key back, see `Generator.rewind`; what it writes from there has a new key."""

    key: int
    new_key: int
    num_tokens: int
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Close:
    """Release the model and end."""


@dataclass(frozen=True, slots=True)
class News:
    """What happened in one turn of the engine: events with the keys of their requests, and what goes with them."""

    events: tuple[tuple[int, GeneratorEvent], ...]
    warnings: tuple[str, ...] = ()
    guesses: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine does not take a request."""

    key: int
    text: str


@dataclass(frozen=True, slots=True)
class CannotRewind:
    """The request ended before it could go back, or before it had gone back again; `key` is the newest."""

    key: int


@dataclass(frozen=True, slots=True)
class Died:
    """The process ends of an error of the engine; `text` is for a person."""

    text: str


def send_message(connection: Connection, message: object) -> None:
    """Raises `OSError` when the other side is gone."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive_message(connection: Connection) -> object:
    """The next message, whenever it comes. Raises `EOFError` or `OSError` when the other side is gone."""
    message: object = pickle.loads(connection.recv_bytes())
    return message
