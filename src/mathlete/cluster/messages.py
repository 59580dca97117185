"""What head and workers say to each other. Plain data; Ray carries it between processes of our own.

The head calls `exchange` at a worker over and over: `Orders` go there, a `Report` comes back. Either may be lost with
the worker or be said twice: events and problems are numbered, so each counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord
from mathlete.core.trace import TraceEvent
from mathlete.run_config import RunConfig
from mathlete.triad.driver import RunOutcome
from mathlete.triad.progress import ProblemProgress


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What is known of a worker that is ready.

    Attributes:
        host: where it is.
        pid: its process.
        facts: of its crew (`session.crew.Crew.facts`).
        warnings: of its crew.
    """

    host: str
    pid: int
    facts: Mapping[str, object]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The run's clock as a worker's driver is to follow it.

    Attributes:
        config: of the run.
        budget_s: seconds from now.
        offset_s: where the run's clock stands now.
    """

    config: RunConfig
    budget_s: float
    offset_s: float


@dataclass(frozen=True, slots=True)
class Given:
    """A problem for a worker.

    Attributes:
        number: of all that were given to it, from 1.
        problem: that.
        earlier: what others left of it, with every finished attempt; None where nobody tried.
    """

    number: int
    problem: Problem
    earlier: ProblemRecord | None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the head says.

    Attributes:
        num_kept: events of this worker that are in the store.
        given: problems for it; those that it has had are said again and again until it reports having them.
        num_to_come: problems that nobody has taken yet, as far as they are its part.
        tokens_left: its part of the tokens that are left to the run; None for no limit.
        no_more: no problem will come any more, once what it has is done.
        stop: end soon, with the best answers that are there.
    """

    num_kept: int = 0
    given: tuple[Given, ...] = ()
    num_to_come: int = 0
    tokens_left: int | None = None
    no_more: bool = False
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says.

    Attributes:
        first: number of the first of `events`, from 0.
        events: what happened, in order, from the first that it does not know to be kept.
        num_taken: problems of those given that it has.
        wants: whether it could begin another problem now.
        open: the problems that it works on.
        num_tokens: sampled by it, attempts in flight included.
        warnings: what a person should know of what happened; each is said once.
        guesses: what became of tokens guessed ahead; None where none were.
        outcome: how its driver ended; None while it goes on.
        failure: what went wrong in it: it works no more.
    """

    first: int
    events: tuple[TraceEvent, ...]
    num_taken: int
    wants: bool
    open: tuple[ProblemProgress, ...]
    num_tokens: int
    warnings: tuple[str, ...] = ()
    guesses: Mapping[str, float] | None = None
    outcome: RunOutcome | None = None
    failure: str | None = None
