"""Speculation changes how many steps an engine takes, and nothing else: tokens, numbers, ends, blocks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driving import drive, load
from guessing import DrawingProposer, GuessingProposer
from ledger_runner import EOS, VOCAB, LedgerRunner, next_token
from tiny_qwen import TinyModel
from token_walk import TokenWalk, looping

from mathlete.core.generation import SamplingParams
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.hidden_states import HiddenPositions
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.scheduler import Scheduler, SchedulerConfig
from mathlete.ryanstream.speculative.depth_control import FixedDepth
from mathlete.ryanstream.speculative.draft_tree import ROOT, DraftTree, DrawnFrom
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.speculation import Speculation
from mathlete.ryanstream.thinking import ThinkingTokens

NUM_SEEDS = 6000


def ledger_oracle(request: EngineRequest, path: tuple[int, ...]) -> int:
    return next_token((*request.token_slice(0, request.num_tokens), *path), request.sampling.seed)


def guessing(right: float, branches: bool, depth: int = 5, nodes: int = 9, seed: int = 0) -> Speculation:
    proposer = GuessingProposer(ledger_oracle, VOCAB, right, branches, seed)
    return Speculation(proposer, FixedDepth(depth, nodes if branches else depth))


def ledger_engine(num_blocks: int, speculation: Speculation | None) -> Engine:
    return Engine(
        LedgerRunner(), num_blocks, [EOS], config=SchedulerConfig(6, 48, 120), speculation=speculation,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("num_blocks", [9, 60])
def test_ledger_requests_get_the_same_tokens(right: float, branches: bool, num_blocks: int) -> None:
    """With scarce blocks requests are put aside in between; the ledger refuses to read a slot with other tokens."""
    rng = random.Random(7)
    jobs = [
        (str(i), [rng.randrange(VOCAB - 1) for _ in range(rng.randint(1, 40))], rng.randint(1, 60), i % 3)
        for i in range(24)
    ]
    results = []
    for speculation in (None, guessing(right, branches)):
        engine = ledger_engine(num_blocks, speculation)
        for name, prompt, num, seed in jobs:
            engine.add(name, prompt, SamplingParams(max_tokens=num, seed=seed), group=f"g{seed}")
        ended = drive(engine)
        engine.check_integrity()
        results.append({name: (ended.ids(name), ended.outputs[name].end) for name, *_ in jobs})
    assert results[0] == results[1]
    assert speculation is not None
    counts = speculation.statistics
    assert counts.num_drafted > 100 and sorted(speculation.proposer.forgotten) == sorted(name for name, *_ in jobs)  # type: ignore[attr-defined]
    assert sum(request_end[1] is not None for request_end in results[1].values()) == 24
    if right == 1.0 and not branches:
        assert counts.num_drafted - counts.num_accepted < 0.05 * counts.num_drafted  # those behind an end of text
        assert counts.num_tokens > 2 * counts.num_draws
    if right == 0.0:
        assert counts.num_accepted < 0.1 * counts.num_drafted


def test_drafts_take_only_what_is_left_of_a_step() -> None:
    engine = ledger_engine(60, guessing(1.0, False))
    for i in range(6):
        engine.add(str(i), [i] * 30, SamplingParams(max_tokens=40, seed=i))
    while engine.has_work:
        engine.step()
        if engine.last_plan is not None:
            assert engine.last_plan.num_rows <= 48


def test_guesses_that_are_all_right_and_one_more_token() -> None:
    """Depth d gives exactly d + 1 tokens a step: the last row's draw is not thrown away."""
    for depth in range(1, 6):
        speculation = Speculation(Oracular(), FixedDepth(depth))
        engine = ledger_engine(60, speculation)
        engine.add("a", [1, 2, 3], SamplingParams(max_tokens=3 * (depth + 1) + 1, seed=1, ignore_eos=True))
        given = [len(engine.step()) for _ in range(4)]
        assert given == [1, *[depth + 1] * 3] and not engine.has_work
        counts = speculation.statistics
        assert (counts.num_steps, counts.num_tokens, counts.num_draws) == (4, 3 * depth + 4, 4)
        assert counts.num_drafted == counts.num_accepted == 3 * depth


class Oracular(GuessingProposer):
    """Always guesses right and as much as it may."""

    def __init__(self) -> None:
        super().__init__(ledger_oracle, VOCAB, 1.0, False)

    def _tree(self, slot: DraftSlot) -> DraftTree:
        tokens: tuple[int, ...] = ()
        for _ in range(slot.max_depth):
            tokens = (*tokens, ledger_oracle(slot.request, tokens))
        return DraftTree.chain(tokens, [0.9] * len(tokens))


def test_drafts_take_the_blocks_that_are_left() -> None:
    """Fewer nodes where there is less room, and at most one block of what might be asked for again."""
    pool = KVCacheManager(6)
    scheduler = Scheduler(SchedulerConfig(6, 48, 120), pool)
    request = EngineRequest("a", tuple(range(20)), SamplingParams(), None, 0)
    scheduler.add(request)
    scheduler.schedule()
    assert pool.num_free == 4 and len(request.block_ids) == 2
    others = pool.allocate(2)
    assert others is not None
    assert scheduler.reserve_draft(request, 64) == 12 + 2 * 16, "the rest of its block, and the two that are free"
    assert scheduler.reserve_draft(request, 64) == 12 + 2 * 16 and pool.num_free == 0
    pool.release(request.block_ids[2:])
    del request.block_ids[2:]
    full = pool.allocate(2)
    assert full is not None
    full[0] = pool.register(full, 0, range(16))
    full[1] = pool.register(full, 1, range(16))
    pool.release(full)
    assert pool.num_free == pool.num_idle == 2
    assert scheduler.reserve_draft(request, 64) == 12 + 16 and pool.num_idle == 1
    assert scheduler.reserve_draft(request, 5) == 5 and pool.num_idle == 1


def test_forks_of_a_request_with_room_for_drafts() -> None:
    alone = ledger_engine(60, None)
    alone.add("a", [1, 2, 3], SamplingParams(max_tokens=50, seed=1))
    expected = drive(alone).ids("a")
    engine = ledger_engine(60, guessing(0.7, True))
    engine.add("a", [1, 2, 3], SamplingParams(max_tokens=50, seed=1))
    outputs = []
    while len(outputs) < 10:
        outputs += engine.step()
    engine.fork("a", "b", SamplingParams(max_tokens=50, seed=1))
    ended = drive(engine)
    assert ended.outputs["a"].request.output_ids == ended.outputs["b"].request.output_ids == expected


@pytest.mark.parametrize("precision", ["w8a8", "int4", "fp32"])
@pytest.mark.parametrize("branches", [False, True])
def test_the_tiny_model_says_the_same(tiny: TinyModel, engine_cache: Path, precision: str, branches: bool) -> None:
    """Bitwise with the native kernels; a tree's rows are summed as if they lay one after the other."""
    prompts = {f"{seed}": [40 + seed, 41, 42, 7, 9] for seed in range(4)}
    told: dict[str, tuple[int, ...]] = {}

    def oracle(request: EngineRequest, path: tuple[int, ...]) -> int:
        at = len(request.output_ids) + len(path)
        return told[request.request_id][at] if at < len(told[request.request_id]) else 3

    runs = []
    for speculation in (
        None,
        Speculation(GuessingProposer(oracle, 200, 0.8, branches), FixedDepth(4, 4 + 4 * branches)),
    ):
        engine = load(tiny.folder, engine_cache, precision=precision).engine
        engine.speculation = speculation
        for name, prompt in prompts.items():
            temperature = 0.0 if name == "0" else 0.9
            engine.add(
                name,
                prompt,
                SamplingParams(temperature, max_tokens=40, seed=int(name), ignore_eos=True, num_logprobs=2),
            )
        ended = drive(engine)
        engine.check_integrity()
        requests = [ended.outputs[name].request for name in prompts]
        told = {request.request_id: tuple(request.output_ids) for request in requests}
        runs.append([(r.output_ids, r.logprobs, r.entropies, r.top_means, r.top_logprobs) for r in requests])
    assert speculation is not None
    assert speculation.statistics.num_accepted > 40
    if precision == "fp32":  # sums of another number of rows run in another order
        assert [run[0] for run in runs[0]] == [run[0] for run in runs[1]]
        for before, after in zip(*runs, strict=True):
            assert before[1] == pytest.approx(after[1], abs=1e-4)
    else:
        assert runs[0] == runs[1]


def test_hidden_states_of_output_are_kept_without_drafts(tiny: TinyModel, engine_cache: Path) -> None:
    engine = load(tiny.folder, engine_cache).engine
    engine.speculation = Speculation(GuessingProposer(lambda request, path: 5, 200, 1.0, False), FixedDepth(3))
    engine.add("a", [4, 5, 6], SamplingParams(max_tokens=8, ignore_eos=True), hidden=HiddenPositions(outputs=True))
    request = drive(engine).outputs["a"].request
    assert sorted(request.hidden) == [3, 4, 5, 6, 7, 8, 9] and request.num_drafted == 0


def test_a_tree_says_what_is_wrong_with_it() -> None:
    q = DrawnFrom((1, 2), (0.5, 0.5))
    for fields, message in [
        (((1,), (0,), (0.5,)), "earlier node"),
        (((1, 1), (ROOT, ROOT), (0.5, 0.5)), "same token"),
        (((1, 2), (ROOT, ROOT), (0.5, 0.5), (q, q)), "form a chain"),
        (((1,), (), (0.5,)), "a parent"),
        (((0,) * 65, tuple(range(-1, 64)), (0.5,) * 65), "at most 64"),
    ]:
        with pytest.raises(ValueError, match=message):
            DraftTree(*fields)


def test_a_trees_paths_depths_and_children() -> None:
    tree = DraftTree((5, 6, 7, 6), (ROOT, ROOT, 0, 2), (0.9, 0.1, 0.5, 0.5))
    assert tree.depths() == (1, 1, 2, 3) and tree.paths() == ((0,), (1,), (0, 2), (0, 2, 3)) and not tree.is_chain
    assert (tree.child(ROOT, 6), tree.child(0, 7), tree.child(1, 7), tree.child(2, 6)) == (1, 2, None, 3)
    kept = tree.keep([0, 2])
    assert kept == replace(DraftTree.chain((5, 7), (0.9, 0.5))) and kept.is_chain


def test_constrained_and_thinking_requests_say_the_same(tiny: TinyModel, engine_cache: Path) -> None:
    """Also where guesses break the constraint, or go on where a block of thinking is closed by force."""
    digits = {0: dict.fromkeys(range(15, 20), 1), 1: dict.fromkeys(range(17, 25), 0) | {3: 2}}
    tokens = ThinkingTokens((280,), (281,), (30, 281, 31))
    told: dict[str, list[int]] = {}

    def oracle(request: EngineRequest, path: tuple[int, ...]) -> int:
        at = len(request.output_ids) + len(path)
        return told[request.request_id][at] if at < len(told[request.request_id]) else 3

    runs = []
    for speculation in (None, Speculation(GuessingProposer(oracle, 40, 0.7, True), FixedDepth(4, 8))):
        engine = load(tiny.folder, engine_cache).engine
        engine.speculation = speculation
        for i in range(4):
            params = SamplingParams(1.5, 1.0, max_tokens=30, seed=i, ignore_eos=True)
            engine.add(f"walk{i}", [40, 41], params, constraint=TokenWalk(digits))
            engine.add(f"free{i}", [40, 280], replace(params, thinking_budget=5), thinking=tokens)
        ended = drive(engine)
        told = {name: output.request.output_ids for name, output in ended.outputs.items()}
        runs.append({name: (o.request.output_ids, o.request.logprobs, o.end) for name, o in ended.outputs.items()})
    assert runs[0] == runs[1]
    assert speculation is not None and speculation.statistics.num_accepted > 30
    assert sum(output.request.num_forced for output in ended.outputs.values()) >= 3
    for i in range(4):
        walk = TokenWalk(digits)
        assert walk.accept(told[f"walk{i}"])


class Breaking(TokenWalk):
    """Raises when it is copied, when it is told of token 25, or when it is asked what may follow that."""

    def __init__(self, breaks_in: str) -> None:
        super().__init__({0: dict.fromkeys(range(15, 25), 0) | {25: 1}, 1: {15: 1, 16: 1}})
        self.breaks_in = breaks_in

    def copy(self) -> TokenWalk:
        if self.breaks_in == "copy":
            raise RuntimeError("no copies today")
        twin = Breaking(self.breaks_in)
        twin.states, twin.accepted = [*self.states], [*self.accepted]
        return twin

    def accept(self, token_ids: Sequence[int]) -> bool:
        if self.breaks_in == "accept" and 25 in token_ids:
            raise RuntimeError("no 25 today")
        return super().accept(token_ids)

    def fill_mask(self, mask: memoryview) -> None:
        if self.breaks_in == "fill_mask" and self.states[-1] == 1:
            mask[0] = 1 << 3  # what it wrote before it raised does not count
            raise RuntimeError("nothing after 25")
        super().fill_mask(mask)


@pytest.mark.parametrize("guess", [25, None], ids=["wrong and right guesses", "right guesses"])
@pytest.mark.parametrize("breaks_in", ["copy", "accept", "fill_mask"])
def test_a_constraint_that_breaks_on_a_guess_ends_its_request_as_without_guesses(
    tiny: TinyModel, engine_cache: Path, breaks_in: str, guess: int | None
) -> None:
    """A guess may lead where the text never goes; where it does go there, its end says the same."""
    told: dict[str, list[int]] = {}

    def oracle(request: EngineRequest, path: tuple[int, ...]) -> int:
        at = len(request.output_ids) + len(path)
        if guess is not None and at % 3 == 2:
            return guess
        return told[request.request_id][at] if at < len(told[request.request_id]) else 25

    runs = []
    for speculation in (None, Speculation(GuessingProposer(oracle, 40, 1.0, False), FixedDepth(3))):
        engine = load(tiny.folder, engine_cache).engine
        engine.speculation = speculation
        for seed in range(16):
            params = SamplingParams(1.5, 1.0, max_tokens=12, seed=seed, ignore_eos=True)
            engine.add(str(seed), [40, 41], params, constraint=Breaking(breaks_in))
        ended = drive(engine)
        told = {name: output.request.output_ids for name, output in ended.outputs.items()}
        runs.append({name: (output.request.output_ids, output.end) for name, output in ended.outputs.items()})
    assert runs[0] == runs[1]
    ends = Counter(end.reason for _, end in runs[0].values() if end is not None)
    assert ends == {"length": 16} if breaks_in == "copy" else (ends["length"] and ends["error"])
    assert speculation is not None
    counts = speculation.statistics
    assert counts.num_drafted == 0 if breaks_in == "copy" else counts.num_accepted > 10


class Cutting(FixedDepth):
    """Looks at what was drawn and computes only the guesses it likes: all of them must be judged nevertheless."""

    def prune(self, requests: Sequence[EngineRequest], trees: Sequence[DraftTree]) -> list[DraftTree]:
        return [
            tree.keep(range(next((n for n, t in enumerate(tree.token_ids) if t % 2), tree.num_nodes))) for tree in trees
        ]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("depth", [FixedDepth(3), Cutting(3)])
def test_guesses_that_are_drawn_leave_the_distribution_as_it_is(
    tiny: TinyModel, engine_cache: Path, depth: FixedDepth, constrained: bool
) -> None:
    """Chi-square of three tokens over many seeds, with against without; and a proposer that favours wrong tokens."""
    engine = load(tiny.folder, engine_cache, num_blocks=256, prompt_cache=False, max_running=64).engine
    params = SamplingParams(2.0, 0.95, top_k=4, min_p=0.05, max_tokens=3, ignore_eos=True)
    allowed = TokenWalk(looping([token for token in range(260) if token % 3]))
    counts: list[Counter[tuple[int, ...]]] = []
    likely = Counter[int]()
    for seed in range(40):
        engine.add(str(seed), [40, 41, 42], replace(params, seed=seed))
    for output in drive(engine).outputs.values():
        likely.update(output.request.output_ids)
    tokens = tuple(token for token, _ in likely.most_common(3))
    proposer = DrawingProposer(DrawnFrom((*tokens, 9), (0.5, 0.2, 0.2, 0.1)))
    for first_seed, speculation in ((0, None), (10**6, Speculation(proposer, depth))):
        engine.speculation = speculation
        for seed in range(NUM_SEEDS):
            constraint = allowed.copy() if constrained else None
            engine.add(str(seed), [40, 41, 42], replace(params, seed=first_seed + seed), constraint=constraint)
        counts.append(Counter())
        while engine.has_work:
            counts[-1].update(tuple(o.request.output_ids) for o in engine.step() if o.end is not None)
    assert speculation is not None and speculation.statistics.num_accepted > 0.1 * NUM_SEEDS
    assert chi_square_p(*counts) > 1e-3


def chi_square_p(first: Counter[tuple[int, ...]], second: Counter[tuple[int, ...]]) -> float:
    """That both are draws from one distribution; rare outcomes are counted together."""
    common = [key for key in first | second if first[key] + second[key] >= 20]
    table = [[counts[key] for key in common] for counts in (first, second)]
    for row, counts in zip(table, (first, second), strict=True):
        row.append(sum(counts.values()) - sum(row))
    columns = [column for column in zip(*table, strict=True) if sum(column) > 0]
    total = sum(map(sum, columns))
    shares = [sum(column[i] for column in columns) / total for i in (0, 1)]
    statistic = sum(
        (column[i] - sum(column) * shares[i]) ** 2 / (sum(column) * shares[i]) for column in columns for i in (0, 1)
    )
    assert len(columns) >= 8, "there is something to compare"
    return float(torch.special.gammaincc(torch.tensor((len(columns) - 1) / 2.0), torch.tensor(statistic / 2)))
