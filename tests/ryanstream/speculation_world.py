"""A made-up machine and made-up drafts, to see what a control of depth makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.depth_control import DepthControl, DraftLimits, DraftVerdict, MeasuredStep
from mathlete.ryanstream.speculative.draft_tree import EMPTY, DraftTree
from mathlete.ryanstream.speculative.step_cost import StepCurve

CPU = StepCurve((1, 2, 3, 4, 8, 16, 32, 64, 320), (0.023, 0.026, 0.0285, 0.031, 0.040, 0.060, 0.088, 0.165, 0.83))
GPU = StepCurve((1, 64, 128, 320), (0.012, 0.0125, 0.017, 0.038))
STEEP = StepCurve((1, 2, 320), (0.020, 0.038, 6.0))  # no row is cheaper in company

Guess = tuple[float, float]  # confidence, and how likely the model really draws it
Source = Callable[[random.Random, int], Sequence[Guess]]  # of a chain, at a step


def steady(acceptance: float, confidence: float | None = None) -> Source:
    """Every guess is as good as the next; its confidence may lie."""
    return lambda noise, step: [(acceptance if confidence is None else confidence, acceptance)] * 8


def varied(noise: random.Random, step: int) -> Sequence[Guess]:
    """Sure of some tokens and unsure of others, and rightly so."""
    confidences = [noise.betavariate(2.0, 1.0) for _ in range(8)]
    return [(confidence, confidence) for confidence in confidences]


def sparse(noise: random.Random, step: int) -> Sequence[Guess]:
    """Seldom anything to say, but then right: a found repetition."""
    return [(0.9, 0.93)] * 8 if noise.random() < 0.15 else []


def changing(first: Source, then: Source, at: int) -> Source:
    """Another one from step `at` on."""
    return lambda noise, step: (first if step < at else then)(noise, step)


def alternating(first: Source, then: Source, period: int) -> Source:
    """Now the one, now the other."""
    return lambda noise, step: (first if step // period % 2 == 0 else then)(noise, step)


def new_request(number: int) -> EngineRequest:
    return EngineRequest(f"r{number}", (1, 2, 3), SamplingParams(), None, arrival=number)


@dataclass
class World:
    """Steps of a batch on a machine with a curve of costs.

    Attributes:
        curve: true seconds of a step.
        source: where guesses come from.
        num_requests: of the batch.
        level_s: seconds a level of drafting takes.
        ask_s: seconds an ask takes whatever comes of it.
        noise: standard deviation of the logarithm of a step's seconds; one step in 50 takes three times as long.
        slower_at: step from which on the whole machine takes twice as long, or None.
        steps_per_request: after so many a request ends and another takes its place.
    """

    curve: StepCurve
    source: Source
    num_requests: int = 1
    level_s: float = 0.0
    ask_s: float = 0.0
    noise: float = 0.05
    slower_at: int | None = None
    steps_per_request: int = 400
    at: int = 0
    tokens: int = 0
    seconds: float = 0.0
    drafted: int = 0
    requests: list[EngineRequest] = field(default_factory=list)

    def run(self, control: DepthControl, num_steps: int, seed: int = 0) -> float:
        """Tokens a second."""
        guesses, machine = random.Random(seed), random.Random(seed + 1)
        self.requests = [new_request(number) for number in range(self.num_requests)]
        for _ in range(num_steps):
            self._step(control, guesses, machine)
        return self.tokens / self.seconds

    def _step(self, control: DepthControl, guesses: random.Random, machine: random.Random) -> None:
        if self.at % self.steps_per_request == self.steps_per_request - 1:
            control.forget(self.requests.pop(0))
            self.requests.append(new_request(self.num_requests + self.at))
        limits = control.limits(self.requests, self.level_s)
        offers = [self.source(guesses, self.at) for _ in self.requests]
        trees = [_chain(offer, limit) for offer, limit in zip(offers, limits, strict=True)]
        asked = max(limit.max_depth for limit in limits)
        propose_s = self.ask_s + self.level_s * max(1, max(tree.num_nodes for tree in trees)) if asked else 0.0
        if asked:
            trees = control.prune(self.requests, trees)
        verdicts = tuple(
            DraftVerdict(request, tree, _accepted(tree, offer, guesses))
            for request, tree, offer in zip(self.requests, trees, offers, strict=True)
            if tree.num_nodes
        )
        rows = self.num_requests + sum(tree.num_nodes for tree in trees)
        true_s = self.curve.at(rows) * (2 if self.slower_at is not None and self.at >= self.slower_at else 1)
        seconds = true_s * machine.lognormvariate(0, self.noise) * (3 if machine.random() < 0.02 and self.noise else 1)
        control.note(MeasuredStep(seconds, propose_s, rows, self.num_requests, verdicts))
        self.tokens += self.num_requests + sum(len(verdict.accepted) for verdict in verdicts)
        self.drafted += rows - self.num_requests
        self.seconds += true_s + propose_s  # the noise would only blur the comparison
        self.at += 1


def _chain(offer: Sequence[Guess], limit: DraftLimits) -> DraftTree:
    length, most, product = 0, min(len(offer), limit.max_nodes, limit.max_depth), 1.0
    while length < most and product >= limit.min_probability:
        product *= offer[length][0]
        length += 1
    return DraftTree.chain(range(length), [confidence for confidence, _ in offer[:length]]) if length else EMPTY


def _accepted(tree: DraftTree, offer: Sequence[Guess], guesses: random.Random) -> tuple[int, ...]:
    num = 0
    while num < tree.num_nodes and guesses.random() < offer[num][1]:
        num += 1
    return tuple(range(num))


class Off:
    """No speculation."""

    def limits(self, requests: Sequence[EngineRequest], step_cost_s: float) -> list[DraftLimits]:
        return [DraftLimits(0, 0)] * len(requests)

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        return list(trees)

    def note(self, step: MeasuredStep) -> None:
        pass

    def forget(self, request: EngineRequest) -> None:
        pass
