"""The workers as Ray actors: started, asked, lost, replaced. Knows nothing of problems."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mathlete.cluster.messages import Beginning, Orders, Report, WorkerFacts
from mathlete.cluster.placement import Demand
from mathlete.cluster.ray_connection import LOCAL, ray
from mathlete.cluster.worker import LOADER, Worker, WorkerSpec
from mathlete.core.errors import MathleteError

_EXCHANGE_S = 0.25  # that a worker may wait for news
_SILENT_S = 120.0  # without an answer after which a worker that has loaded counts as lost
_CLOSE_S = 5.0
# Calls that an actor takes at once: one that waits for the engine to load, and one that says to close.
_MAX_CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Where a run works.

    Attributes:
        address: of the Ray cluster: "local" for one that is started here, "auto", or host:port.
        num_workers: engines at work at once.
        max_restarts: times that each of them is replaced when it dies.
        patience_s: that the run's clock waits for the others once the first worker is ready.
        loader: what gives a worker its generator, see `WorkerSpec`.
        env: variables of the workers' environment.
    """

    address: str = LOCAL
    num_workers: int = 1
    max_restarts: int = 3
    patience_s: float = 60.0
    loader: str = LOADER
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name, least in (("num_workers", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, not {getattr(self, name)}")


@dataclass(slots=True, eq=False)
class Slot:
    """A place for a worker.

    Attributes:
        name: "worker 1", for people and for the books.
        actor: the worker; None when there is none any more.
        asked: what it has been asked and has not answered.
        asked_s: when, on the monotonic clock.
        facts: once it is ready.
        num_restarts: so far.
        is_working: whether its driver has been started and has not ended.
    """

    name: str
    actor: Any = None
    asked: Any = None
    asked_s: float = 0.0
    facts: WorkerFacts | None = None
    num_restarts: int = 0
    is_working: bool = False

    def __str__(self) -> str:
        """Where it is, as far as that is known."""
        return self.name if self.facts is None else f"{self.name} ({self.facts.host}, process {self.facts.pid})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a worker.

    Attributes:
        slot: which.
        value: what it said: its facts when it has loaded, None when it has begun, else a report.
        refusal: why it cannot load its engine; it will not be able to later either.
        loss: how it was lost, as the end of a sentence.
    """

    slot: Slot
    value: WorkerFacts | Report | None = None
    refusal: MathleteError | None = None
    loss: str | None = None


class Slots:
    """All places for workers of a run."""

    def __init__(self, spec: ClusterSpec, demand: Demand, worker_spec: WorkerSpec) -> None:
        """Start a worker in each."""
        options: dict[str, Any] = {
            "num_cpus": demand.num_cpus,
            "num_gpus": demand.num_gpus,
            "max_concurrency": _MAX_CONCURRENCY,
            "max_restarts": 0,  # a worker without its state is another one: the head starts it and knows
            "scheduling_strategy": "SPREAD",
        }
        if spec.env:
            options["runtime_env"] = {"env_vars": dict(spec.env)}
        self._actor_class = ray.remote(Worker).options(**options)
        self._worker_spec = ray.put(worker_spec)
        self.all = [Slot(f"worker {i + 1}") for i in range(spec.num_workers)]
        for slot in self.all:
            self.start(slot)

    @property
    def living(self) -> list[Slot]:
        """Those with a worker, ready or not."""
        return [slot for slot in self.all if slot.actor is not None]

    def start(self, slot: Slot) -> None:
        """Start a worker and have it load."""
        slot.actor, slot.facts, slot.is_working = self._actor_class.remote(self._worker_spec), None, False
        self._ask(slot, slot.actor.load.remote())

    def begin(self, slot: Slot, beginning: Beginning) -> None:
        """Have a worker's driver start a session."""
        slot.is_working = True
        self._ask(slot, slot.actor.begin.remote(beginning))

    def exchange(self, slot: Slot, orders: Orders) -> None:
        """Tell a worker what to do, and ask for its news."""
        self._ask(slot, slot.actor.exchange.remote(orders, _EXCHANGE_S))

    def drop(self, slot: Slot) -> None:
        """Have no worker in this place any more."""
        if slot.actor is not None:
            ray.kill(slot.actor, no_restart=True)
        slot.actor, slot.asked, slot.is_working = None, None, False

    def answers(self, timeout_s: float) -> list[Answer]:
        """What has been answered; waits for the first at most `timeout_s`."""
        asked = {slot.asked: slot for slot in self.all if slot.asked is not None}
        if not asked:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=timeout_s)
        answers = [self._read(asked[reference], reference) for reference in ready]
        now_s = time.monotonic()
        for slot in asked.values():
            if slot.asked is not None and slot.facts is not None and now_s - slot.asked_s > _SILENT_S:
                answers.append(Answer(slot, loss=f"has not answered for {_SILENT_S:.0f} s"))
        return answers

    def close(self) -> None:
        """End all workers: in order, and by force where that takes long."""
        closing = [slot.actor.close.remote() for slot in self.living if slot.facts is not None]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for slot in self.living:
            self.drop(slot)

    def _ask(self, slot: Slot, reference: Any) -> None:
        slot.asked, slot.asked_s = reference, time.monotonic()

    def _read(self, slot: Slot, reference: Any) -> Answer:
        slot.asked = None
        try:
            value = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, MathleteError) and slot.facts is None:
                return Answer(slot, refusal=cause)
            return Answer(slot, loss=f"failed: {type(cause).__name__}: {cause}")
        except ray.exceptions.RayError as error:
            return Answer(slot, loss=f"died ({_cause(error)})")
        if isinstance(value, WorkerFacts):
            slot.facts = value
        return Answer(slot, value)


def _cause(error: Exception) -> str:
    """Ray tells a page of what may have happened; what did happen is one sentence of it."""
    told = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    causes = [line for line in told if line.startswith("The actor is dead because")] or told
    sentence = causes[0].removeprefix("The actor is dead because ").partition(". ")[0]
    return sentence.partition(" Worker exit")[0].rstrip(".")
