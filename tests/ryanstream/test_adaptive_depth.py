"""How much is guessed: never at a loss to speak of, and nearly as much as pays, on made-up machines and drafts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from speculation_world import (
    CPU,
    GPU,
    STEEP,
    Off,
    Source,
    World,
    alternating,
    changing,
    new_request,
    sparse,
    steady,
    varied,
)

from mathlete.ryanstream.request import Status
from mathlete.ryanstream.speculative.acceptance import Acceptance
from mathlete.ryanstream.speculative.adaptive_depth import AdaptiveDepth
from mathlete.ryanstream.speculative.depth_control import (
    DepthControl,
    DraftLimits,
    DraftVerdict,
    FixedDepth,
    MeasuredStep,
)
from mathlete.ryanstream.speculative.draft_history import DraftHistory, PastDraft
from mathlete.ryanstream.speculative.draft_tree import EMPTY, ROOT, DraftTree
from mathlete.ryanstream.speculative.published_depth import PublishedDepth
from mathlete.ryanstream.speculative.step_cost import StepCostModel, StepCurve

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
CURVES = {"cpu": CPU, "gpu": GPU, "steep": STEEP}
NOTHING: Source = lambda noise, step: []  # noqa: E731
BAD: dict[str, Source] = {
    "poor": steady(0.1),
    "boastful": steady(0.1, confidence=0.9),
    "middling": steady(0.4),
    "nothing": NOTHING,
    "changeable": alternating(steady(0.9, 0.8), steady(0.05, 0.8), period=20),
    "turned bad": changing(steady(0.9, 0.8), steady(0.05, 0.8), at=500),
}
GOOD: dict[str, Source] = {
    "good": steady(0.85),
    "fair": steady(0.7),
    "modest": steady(0.8, confidence=0.3),
    "varied": varied,
    "sparse": sparse,
}


def adaptive(curve: StepCurve) -> AdaptiveDepth:
    return AdaptiveDepth(StepCostModel(StepCurve(ROWS, tuple(curve.at(rows) for rows in ROWS))))


def gain(world: World, control: DepthControl, num_steps: int) -> float:
    """Tokens a second, of those without speculation."""
    return world.run(control, num_steps) * world.curve.at(world.num_requests) / world.num_requests


@pytest.mark.parametrize("level", [0.0, 0.4], ids=["free", "dear"])
@pytest.mark.parametrize("num_requests", [1, 8])
@pytest.mark.parametrize("machine", CURVES)
@pytest.mark.parametrize("source", BAD)
def test_it_never_costs_more_than_two_percent(source: str, machine: str, num_requests: int, level: float) -> None:
    curve = CURVES[machine]
    world = World(curve, BAD[source], num_requests, level * curve.at(1), ask_s=0.002 * curve.at(1))
    assert gain(world, adaptive(curve), 1200 if num_requests == 1 else 600) >= 0.98


@pytest.mark.parametrize("level", [0.0, 0.25], ids=["free", "dear"])
@pytest.mark.parametrize("num_requests", [1, 4])
@pytest.mark.parametrize("machine", ["cpu", "gpu"])
@pytest.mark.parametrize("source", GOOD)
def test_it_is_nearly_as_good_as_the_best_fixed_depth(
    source: str, machine: str, num_requests: int, level: float
) -> None:
    curve = CURVES[machine]

    def world() -> World:
        return World(curve, GOOD[source], num_requests, level * curve.at(1))

    best = max(1.0, *(gain(world(), FixedDepth(depth), 300) for depth in (1, 2, 4, 8)))
    assert gain(world(), adaptive(curve), 800) >= 0.9 * best


@pytest.mark.parametrize("control", [FixedDepth(4), PublishedDepth()], ids=["fixed", "published"])
def test_others_lose_where_guesses_are_poor_or_rows_are_dear(control: DepthControl) -> None:
    assert gain(World(CPU, BAD["poor"], 4), control, 300) < 0.8
    assert gain(World(STEEP, GOOD["fair"], 1), control, 300) < 0.7
    assert gain(World(CPU, GOOD["fair"], 1, level_s=0.4 * CPU.at(1)), control, 300) < 0.95


@pytest.mark.parametrize("level", [0.0, 0.12, 0.4], ids=["free", "cheap", "dear"])
def test_it_begins_again_when_guesses_get_better(level: float) -> None:
    source = changing(steady(0.05, 0.8), steady(0.9, 0.8), at=600)
    world = World(CPU, source, level_s=level * CPU.at(1))
    control = adaptive(CPU)
    world.run(control, 600)
    assert world.drafted < 40, "guessed although it did not pay"
    for request in world.requests:
        control.forget(request)
    before = world.tokens, world.seconds
    world.run(control, 2400)
    rate = (world.tokens - before[0]) / (world.seconds - before[1])
    assert rate * CPU.at(1) > 1.1


def test_a_machine_that_gets_slower_all_over_changes_nothing() -> None:
    good = World(CPU, GOOD["fair"], slower_at=300)
    good.run(adaptive(CPU), 900)
    same = World(CPU, GOOD["fair"])
    same.run(adaptive(CPU), 900)
    assert good.drafted == pytest.approx(same.drafted, rel=0.1)
    assert good.tokens == pytest.approx(same.tokens, rel=0.05)


@pytest.mark.parametrize("machine", CURVES)
def test_without_a_measured_curve_it_learns_one(machine: str) -> None:
    world = World(CURVES[machine], BAD["poor"])
    assert gain(world, AdaptiveDepth(StepCostModel()), 1200) >= 0.97
    assert gain(World(CURVES[machine], GOOD["good"]), AdaptiveDepth(StepCostModel()), 1200) >= 0.97


def test_it_is_deterministic() -> None:
    first, second = World(CPU, varied, 3), World(CPU, varied, 3)
    assert first.run(adaptive(CPU), 200) == second.run(adaptive(CPU), 200)
    assert first.drafted == second.drafted > 0


def test_the_likeliest_nodes_of_the_whole_batch_are_kept_with_their_ancestors() -> None:
    control = adaptive(CPU)
    requests = [new_request(number) for number in range(3)]
    control.limits(requests, 0.0)
    likely = DraftTree.chain([1, 2, 3, 4], [0.95, 0.95, 0.95, 0.95])
    fork = DraftTree((5, 6, 7, 8), (ROOT, ROOT, 0, 1), (0.9, 0.03, 0.9, 0.9))
    kept = control.prune(requests, [likely, fork, EMPTY])
    assert kept == [likely, fork.keep([0, 2]), EMPTY]


def test_a_step_in_the_costs_is_looked_across() -> None:
    """Six rows cost what eight do: four more nodes are worth it although the first of them alone is not."""
    costs = StepCostModel(StepCurve((1, 4, 6, 8, 12, 16, 24), (1.0, 1.0, 1.6, 1.6, 3.0, 4.0, 6.0)))
    control, request = AdaptiveDepth(costs), new_request(0)
    control.limits([request], 0.0)
    (kept,) = control.prune([request], [DraftTree.chain(range(7), [0.97] * 7)])
    assert kept.num_nodes == 7
    (kept,) = control.prune([request], [DraftTree.chain(range(4), [0.97] * 4)])
    assert kept.num_nodes == 3


@pytest.mark.parametrize(("depth", "nodes"), [(0, None), (8, 4), (65, None), (8, 65)])
def test_limits_out_of_range_are_refused(depth: int, nodes: int | None) -> None:
    with pytest.raises(ValueError, match="max_depth <= max_nodes"):
        AdaptiveDepth(StepCostModel(), depth, nodes)


def test_trees_may_have_more_nodes_than_levels() -> None:
    assert AdaptiveDepth(StepCostModel(GPU), 4, 10).limits([new_request(0)], 0.0) == [DraftLimits(10, 4)]
    assert AdaptiveDepth(StepCostModel(GPU), 4, 10).limits([new_request(0)], 0.001) == [DraftLimits(3, 1)]


def verdict_of(request_number: int, confidences: Sequence[float], num_accepted: int) -> DraftVerdict:
    tree = DraftTree.chain(range(len(confidences)), confidences)
    return DraftVerdict(new_request(request_number), tree, tuple(range(num_accepted)))


def test_confidences_come_to_mean_what_they_turned_out_to_be_worth() -> None:
    acceptance, noise, asked = Acceptance(), random.Random(0), new_request(0)
    for number in range(400):
        acceptance.note(verdict_of(number, [0.9], int(noise.random() < 0.3)))
        acceptance.note(verdict_of(number, [0.5], int(noise.random() < 0.6)))
        acceptance.settle()
    high, low = acceptance.probabilities(asked, DraftTree((1, 2), (ROOT, ROOT), (0.9, 0.5)))
    assert high == pytest.approx(0.3, abs=0.12) and low == pytest.approx(0.6, abs=0.12)


def test_a_request_that_is_guessed_badly_is_believed_less() -> None:
    acceptance = Acceptance()
    good, bad = verdict_of(1, [0.6], 1), verdict_of(2, [0.6], 0)
    for _ in range(20):
        acceptance.note(good)
        acceptance.note(bad)
        acceptance.settle()
    tree = DraftTree.chain([1], [0.6])
    of_good, of_new, of_bad = (
        acceptance.probabilities(request, tree)[0] for request in (good.request, new_request(3), bad.request)
    )
    assert of_bad < 0.7 * of_new and of_new < of_good


def test_only_nodes_whose_parent_came_out_are_judged() -> None:
    once, again = Acceptance(), Acceptance()
    once.note(verdict_of(0, [0.9], 0))
    again.note(verdict_of(0, [0.9, 0.2, 0.2, 0.2], 0))
    for acceptance in (once, again):
        acceptance.settle()
    tree = DraftTree.chain([1, 2], [0.9, 0.2])
    assert once.probabilities(new_request(1), tree) == again.probabilities(new_request(1), tree)


def test_probabilities_fall_along_paths_whatever_the_confidences() -> None:
    acceptance, noise, request = Acceptance(), random.Random(3), new_request(0)
    for _ in range(50):
        confidences = [noise.choice((0.0, 1.0, noise.random())) for _ in range(8)]
        tree = DraftTree(tuple(range(8)), tuple(noise.randrange(-1, node) for node in range(8)), tuple(confidences))
        found = [*acceptance.probabilities(request, tree), 1.0]
        assert all(0 < found[node] < found[tree.parents[node]] for node in range(8))
        acceptance.note(DraftVerdict(request, tree, ()))
        acceptance.settle()


def test_a_draft_with_a_price_ends_where_going_on_does_not_pay() -> None:
    """A level takes 0.4 of a step here: what follows a token that is likely to be wrong is not worth it."""
    world, control = World(CPU, GOOD["good"], level_s=0.4 * CPU.at(1)), adaptive(CPU)
    world.run(control, 60)
    (limits,) = control.limits(world.requests, world.level_s)
    assert limits.max_depth > 1 and 0.3 < limits.min_probability < 0.9
    free = adaptive(CPU)
    World(CPU, GOOD["good"]).run(free, 60)
    assert free.limits([new_request(0)], 0.0)[0].min_probability == 0.0


def test_nothing_is_kept_of_requests_that_ended() -> None:
    control, request = adaptive(CPU), new_request(0)
    published = PublishedDepth()
    for one in (control, published):
        one.limits([request], 0.0)
        one.forget(request)
    request.status = Status.FINISHED  # with this very step, which is noted after its end
    verdict = DraftVerdict(request, DraftTree.chain([1], [0.5]), (0,))
    step = MeasuredStep(0.03, 0.0, 2, 1, (verdict,))
    control.note(step)
    published.note(step)
    assert not control._acceptance._requests and not published._records


def best_by_hand(
    drafts: Sequence[Sequence[float]], num_requests: int, step_s: Sequence[float], draft_s: float
) -> float:
    """The slow twin of `DraftHistory.rates` for chains of full depth: every number of nodes of every group."""
    tokens = seconds = 0.0
    for start in range(0, len(drafts) - num_requests + 1, num_requests):
        nodes = sorted(itertools.chain(*drafts[start : start + num_requests]), reverse=True)
        options = [
            (num_requests + sum(nodes[:number]), step_s[num_requests + number] + draft_s)
            for number in range(len(nodes) + 1)
        ]
        best = max(options, key=lambda option: option[0] / option[1])
        tokens, seconds = tokens + best[0], seconds + best[1]
    return tokens / seconds


@pytest.mark.parametrize("num_requests", [1, 3, 8])
def test_replayed_drafts_are_worth_what_they_are_by_hand(num_requests: int) -> None:
    noise = random.Random(num_requests)
    history = DraftHistory(max_depth=4)
    drafts = []
    for _ in range(24):
        chances = [noise.uniform(0.3, 1.0) for _ in range(4)]
        drafts.append(list(itertools.accumulate(chances, lambda a, b: a * b)))
        history.add(PastDraft(DraftTree.chain(range(4), chances), drafts[-1], asked_depth=4))
    step_s = np.array([CPU.at(max(1, rows)) for rows in range(num_requests * 9 + 1)])
    rates = history.rates(num_requests, step_s, [0.0, 0.001, 0.002, 0.003, 0.004])
    for depth, rate in enumerate(rates, start=1):
        cut = [draft[:depth] for draft in drafts]
        assert rate == pytest.approx(best_by_hand(cut, num_requests, step_s.tolist(), 0.001 * depth))


def test_a_draft_that_was_cut_short_is_continued_as_it_began() -> None:
    history = DraftHistory(max_depth=3)
    history.add(PastDraft(DraftTree.chain([1], [0.9]), [0.9], asked_depth=1))
    assert history.rates(1, np.ones(10), [0.0] * 4) == pytest.approx([1.9, 1.9 + 0.81, 1.9 + 0.81 + 0.729])
    assert history.rates(1, np.ones(10), [0.0] * 4, least=0.85) == pytest.approx([1.9, 1.9 + 0.81, 1.9 + 0.81])


def test_a_batch_larger_than_the_history_is_filled_up_with_it() -> None:
    history = DraftHistory(max_depth=1)
    history.add(PastDraft(DraftTree.chain([1], [0.5]), [0.5], asked_depth=1))
    assert history.rates(4, np.ones(20), [0.0, 1.0]) == pytest.approx([3.0])


def test_the_published_rule() -> None:
    control, request = PublishedDepth(), new_request(0)

    def after(num_accepted: int, times: int = 1) -> int:
        for _ in range(times):
            depth = control.limits([request], 0.0)[0].max_depth
            tree = DraftTree.chain(range(depth), [0.5] * depth)
            accepted = tuple(range(min(num_accepted, depth)))
            control.note(MeasuredStep(1.0, 0.0, 1 + depth, 1, (DraftVerdict(request, tree, accepted),)))
        return control.limits([request], 0.0)[0].max_depth

    assert after(0, times=2) == 4 and after(0) == 3 and after(0, times=3) == 2 and after(0, times=9) == 2
    assert after(8) == 3 and after(8, times=9) == 8
    assert after(4) == 8 and after(0, times=2) == 8 and after(4) == 8 and after(0, times=2) == 8, "not in a row"
    control.note(MeasuredStep(1.0, 0.0, 1, 1, (DraftVerdict(request, EMPTY, ()),)))
    assert control.limits([request], 0.0) == [DraftLimits(8, 8)], "nothing was computed of the draft"
    control.forget(request)
    assert control.limits([request], 0.0) == [DraftLimits(4, 4)]
    for first_depth in (1, 9):
        with pytest.raises(ValueError, match="first_depth"):
            PublishedDepth(first_depth)


def test_off_is_the_measure_of_the_simulation() -> None:
    assert gain(World(CPU, GOOD["good"], 4), Off(), 50) == pytest.approx(1.0)
