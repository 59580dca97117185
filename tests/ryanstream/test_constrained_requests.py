"""Requests with a token constraint: what may be drawn, how it ends, what happens when the constraint fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driving import drive, drive_with_preemptions, greedy, load, run_all
from tiny_qwen import TinyModel, control_tokens
from token_walk import TokenWalk, counted, looping

from mathlete.core.errors import EngineError
from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.thinking import ThinkingTokens

EOS = control_tokens()["<|im_end|>"]
PROMPT = [40, 41, 42, 43, 44]
DIGITS = range(15, 25)


def noisy(seed: int = 0, max_tokens: int = 12, **fields: object) -> SamplingParams:
    return SamplingParams(temperature=1.5, top_p=1.0, seed=seed, max_tokens=max_tokens, **fields)  # type: ignore[arg-type]


@pytest.fixture
def engine(tiny: TinyModel, engine_cache: Path) -> Engine:
    return load(tiny.folder, engine_cache, precision="fp32").engine


def test_only_what_it_allows_comes_out(engine: Engine) -> None:
    walks = [TokenWalk(looping(DIGITS)) for _ in range(6)]
    free = [noisy(seed=100 + i) for i in range(3)]
    alone = run_all(engine, [PROMPT] * 3, free)
    for i, params in enumerate(free):
        engine.add(f"free{i}", PROMPT, params)
    for i, walk in enumerate(walks):
        engine.add(f"held{i}", PROMPT, noisy(seed=i), constraint=walk)
    ended = drive(engine)
    for i, walk in enumerate(walks):
        request = ended.outputs[f"held{i}"].request
        assert len(request.output_ids) == 12 and set(request.output_ids) <= set(DIGITS)
        assert walk.accepted == request.output_ids, "each token was accepted once"
    assert len({tuple(walk.accepted) for walk in walks}) == 6
    for i in range(3):
        assert ended.ids(f"free{i}") == alone.ids(str(i))


def test_what_is_told_is_of_the_models_own_distribution(tiny: TinyModel, engine: Engine) -> None:
    engine.add("a", PROMPT, replace(noisy(), num_logprobs=3), constraint=TokenWalk(looping(DIGITS)))
    request = drive(engine).outputs["a"].request
    own = tiny.next_logits([*PROMPT, *request.output_ids])[len(PROMPT) - 1 : -1].log_softmax(-1)
    drawn = own.gather(1, torch.tensor(request.output_ids)[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(request.logprobs), drawn, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(request.entropies), -(own.exp() * own).sum(-1), rtol=1e-4, atol=1e-4)
    likeliest = [[token.token_id for token in place] for place in request.top_logprobs]
    assert likeliest == own.topk(3).indices.tolist()


def test_it_ends_when_terminated(engine: Engine) -> None:
    engine.add("a", PROMPT, noisy(), constraint=TokenWalk(counted([DIGITS, [7], DIGITS])))
    engine.add("b", PROMPT, noisy(ignore_eos=True), constraint=TokenWalk(counted([DIGITS, [EOS], [8]])))
    engine.add("c", PROMPT, noisy(), constraint=TokenWalk(counted([DIGITS, [EOS], [8]])))
    engine.add("d", PROMPT, noisy(max_tokens=3), constraint=TokenWalk(counted([DIGITS, [7], DIGITS, [8]])))
    engine.add("e", PROMPT, noisy(max_tokens=3), constraint=TokenWalk(counted([DIGITS, [7], DIGITS])))
    ended = drive(engine).outputs
    told = {name: (output.end.reason, len(output.request.output_ids)) for name, output in ended.items() if output.end}
    assert told == {"a": ("stop", 3), "b": ("stop", 3), "c": ("stop", 2), "d": ("length", 3), "e": ("stop", 3)}


def test_stop_strings_go_on_working(tiny: TinyModel, engine_cache: Path) -> None:
    loaded = load(tiny.folder, engine_cache, precision="fp32")
    one, two = (loaded.tokenizer.encode(digit)[0] for digit in "34")
    for name, choices in (("inside", [[one], [two], [one]]), ("at its end", [[one], [two]])):
        walk = TokenWalk(counted(choices))
        loaded.engine.add(name, PROMPT, noisy(stop=("34",), include_stop=False), constraint=walk)
    for output in drive(loaded.engine).outputs.values():
        assert output.end is not None and (output.end.stop, output.end.num_output_bytes) == ("34", 0)
        assert output.request.output_ids == [one, two]


def test_it_outlives_preemption(tiny: TinyModel, engine_cache: Path) -> None:
    prompts = [[i + 1] * 20 for i in range(5)]
    runs = []
    for driven in (drive, drive_with_preemptions):
        engine = load(tiny.folder, engine_cache, precision="fp32").engine
        for i, prompt in enumerate(prompts):
            engine.add(str(i), prompt, noisy(seed=i, max_tokens=40), constraint=TokenWalk(looping(DIGITS)))
        runs.append(driven(engine))
    plain, interrupted = runs
    assert interrupted.num_preempted >= 20
    for i in range(5):
        assert interrupted.ids(str(i)) == plain.ids(str(i)) and len(plain.ids(str(i))) == 40


class RaisesInMask(TokenWalk):
    def fill_mask(self, mask: memoryview) -> None:
        mask[:] = memoryview(b"\xff" * mask.nbytes).cast("I")
        if len(self.accepted) == 2:
            raise RuntimeError("no such state")


class RaisesInAccept(TokenWalk):
    def accept(self, token_ids: Sequence[int]) -> bool:
        return {}[token_ids[0]]


class Refuses(TokenWalk):
    def accept(self, token_ids: Sequence[int]) -> bool:
        return False


@pytest.mark.parametrize(
    ("walk", "num_tokens", "message"),
    [
        (RaisesInMask(looping(range(250))), 2, r"at output token 2: it raised RuntimeError: no such state"),
        (RaisesInAccept(looping(DIGITS)), 0, r"at output token 0: it raised KeyError: \d+"),
        (Refuses(looping(DIGITS)), 0, r"it refused token \d+, which it had allowed"),
        (TokenWalk({0: {15: 1}, 1: {}}), 1, None),
        (TokenWalk({0: {}}), 0, "at output token 0: it allows no token that the model could draw"),
    ],
    ids=["mask", "accept", "refusal", "terminated", "nothing"],
)
def test_a_failing_constraint_ends_its_request_alone(
    engine: Engine, walk: TokenWalk, num_tokens: int, message: str | None
) -> None:
    alone = run_all(engine, [PROMPT], [noisy(seed=3)])
    engine.add("bad", PROMPT, noisy(seed=1), constraint=walk)
    engine.add("good", PROMPT, noisy(seed=3))
    engine.add("held", PROMPT, noisy(seed=2), constraint=TokenWalk(looping(DIGITS)))
    ended = drive(engine)
    bad = ended.outputs["bad"]
    assert bad.end is not None and len(bad.request.output_ids) == num_tokens
    if message is None:
        assert bad.end.reason == "stop"
    else:
        assert bad.end.reason == "error" and bad.new_token_id is None
        with pytest.raises(EngineError, match=f"the request's constraint failed .*{message}"):
            raise EngineError(bad.end.message)
    assert ended.ids("good") == alone.ids("0")
    assert len(ended.ids("held")) == 12


def test_a_fork_needs_a_copy(engine: Engine) -> None:
    class Uncopied(TokenWalk):
        def copy(self) -> TokenWalk:
            raise NotImplementedError("one of a kind")

    engine.add("plain", PROMPT, noisy(), constraint=Uncopied(looping(DIGITS)))
    engine.add("copying", PROMPT, noisy(), constraint=TokenWalk(looping(DIGITS)))
    for _ in range(4):
        engine.step()
    with pytest.raises(
        EngineError,
        match=r"'plain' cannot be forked: its constraint \(Uncopied\): it raised NotImplementedError: one of",
    ):
        engine.fork("plain", "twin", noisy(seed=1))
    engine.fork("copying", "twin", noisy(seed=1))
    ended = drive(engine)
    first, second = (ended.outputs[name].request for name in ("copying", "twin"))
    assert first.output_ids != second.output_ids and first.output_ids[:4] == second.output_ids[:4]
    for request in (first, second):
        assert isinstance(request.constraint, TokenWalk) and request.constraint.accepted == request.output_ids


def test_a_forced_close_must_be_allowed(tiny: TinyModel, engine_cache: Path) -> None:
    loaded = load(tiny.folder, engine_cache, precision="fp32")
    tokens = ThinkingTokens((280,), (281,), (30, 281, 31))
    params = noisy(thinking_budget=2)
    willing = TokenWalk({0: {**dict.fromkeys(DIGITS, 0), 30: 1}, 1: {281: 2}, 2: {31: 3}, 3: {32: 3}})
    for name, walk in (("willing", willing), ("refusing", TokenWalk(looping(DIGITS)))):
        loaded.engine.add(name, [*PROMPT, 280], params, constraint=walk, thinking=tokens)
    ended = drive(loaded.engine)
    assert ended.ids("willing")[2:] == [30, 281, 31] + [32] * 7
    refusing = ended.outputs["refusing"]
    assert len(refusing.request.output_ids) == 2 and refusing.end is not None
    assert "it refused token 30, which closes the block of thinking by force" in str(refusing.end.message)


def test_logits_that_are_no_numbers_end_their_requests_alone(tiny: TinyModel, engine_cache: Path) -> None:
    """With a constraint, with a forced token, with top logprobs, and plainly: prompts that start with 5 are broken."""
    loaded = load(tiny.folder, engine_cache, precision="fp32")
    model = loaded.engine._runner._model
    forward = model.forward

    @torch.inference_mode()
    def broken(batch, cache):  # type: ignore[no-untyped-def]
        output = forward(batch, cache)
        starts = {int(batch.row_seq[i]) for i in range(len(batch.token_ids)) if batch.positions[i] == 0}
        bad = [s for s in starts if batch.token_ids[(batch.row_seq == s).nonzero()[0, 0]] == 5]
        for row, seq in enumerate(batch.row_seq[batch.logit_rows].tolist()):
            if seq in bad:
                output.logits[row] = torch.nan
        return output

    alone = run_all(loaded.engine, [PROMPT], [noisy(seed=3)])
    model.forward = broken  # type: ignore[method-assign]
    tokens = ThinkingTokens((280,), (281,), (281,))
    loaded.engine.add("plain", [5, 1], noisy())
    loaded.engine.add("held", [5, 2], noisy(), constraint=TokenWalk(looping(DIGITS)))
    loaded.engine.add("forced", [5, 280], noisy(thinking_budget=0), thinking=tokens)
    loaded.engine.add("top", [5, 3], noisy(num_logprobs=20))
    loaded.engine.add("good", PROMPT, noisy(seed=3))
    loaded.engine.add("good held", PROMPT, noisy(seed=3), constraint=TokenWalk(looping(DIGITS)))
    ended = drive(loaded.engine)
    for name in ("plain", "held", "forced", "top"):
        output = ended.outputs[name]
        assert output.end is not None and output.end.message == "the model's logits were not numbers"
        assert output.request.output_ids == output.request.top_logprobs == []
    assert ended.ids("good") == alone.ids("0") and len(ended.ids("good held")) == 12


def test_the_generator_hands_it_over(tiny: TinyModel, engine_cache: Path) -> None:
    generator = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    walk = TokenWalk(counted([DIGITS] * 4))
    generator.submit(GenerateRequest("a", (Message("user", "?"),), greedy(9), priority=-3, constraint=walk))
    assert [request.priority for request in generator._engine._requests.values()] == [-3]
    ends = [event for _ in range(9) for event in generator.events(0.0) if isinstance(event, Finished)]
    assert [len(end.completion.token_ids) for end in ends] == [4]
    assert ends[0].completion.text.isdigit() and ends[0].completion.finish_reason == "stop"
