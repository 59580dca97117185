"""The thinking budget: where a block is open, when its close is forced, and what the rest of the engine makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from driving import drive, drive_with_preemptions, load
from hypothesis import given
from hypothesis import strategies as st
from tiny_qwen import TinyModel
from token_walk import TokenWalk, counted

from mathlete.core.errors import EngineError
from mathlete.core.generation import Finished, GenerateRequest, Message, SamplingParams, Span
from mathlete.generators.ryanstream import RyanStreamGenerator, thinking_tokens
from mathlete.ryanstream.loading import LoadedEngine
from mathlete.ryanstream.model.tokenizer import EngineTokenizer
from mathlete.ryanstream.thinking import ThinkingBudget, ThinkingTokens

# Ids of the pure tests: text in pieces, then control tokens, which spell nothing.
PIECES = [b"<think>", b"</think>", b"<th", b"ink>", b"</", b"think", b">", b"a", b"<", b"<think></think>", b">b", b"\n"]
OPEN, CLOSE, OTHER = len(PIECES), len(PIECES) + 1, len(PIECES) + 2
BYTES = [*PIECES, b"", b"", b""]
SPELLED = ThinkingTokens((2, 3), (4, 5, 6), (11, 4, 5, 6, 11), frozenset({OTHER}))
CONTROL = ThinkingTokens((OPEN,), (CLOSE,), (11, CLOSE, 11), frozenset({OTHER}))


def feed(budget: ThinkingBudget, free: Sequence[int]) -> list[int]:
    """The output when the model would write `free` where it may."""
    output: list[int] = []
    left = list(free)
    while left or budget.forced_id is not None:
        token_id = left.pop(0) if budget.forced_id is None else budget.forced_id
        budget.push(token_id)
        output.append(token_id)
    return output


@pytest.mark.parametrize(
    ("tokens", "prompt", "free", "expected"),
    [
        (SPELLED, [7], [7] * 5, [7] * 5),
        (SPELLED, [7], [0, 7, 7, 7, 7], [0, 7, 7, 7, 11, 4, 5, 6, 11, 7]),
        (SPELLED, [7], [7, 8, 5, 10, 7, 7, 7, 7], [7, 8, 5, 10, 7, 7, 7, 11, 4, 5, 6, 11, 7]),
        (SPELLED, [7, 2, 3], [7] * 4, [7, 7, 7, 11, 4, 5, 6, 11, 7]),
        (SPELLED, [2, 3, 7, 7], [7] * 2, [7, 11, 4, 5, 6, 11, 7]),
        (SPELLED, [2, 3, *[7] * 9], [7], [11, 4, 5, 6, 11, 7]),
        (SPELLED, [2], [3, 7, 1, 7, 7, 7], [3, 7, 1, 7, 7, 7]),
        (SPELLED, [2, 3, 7, 4, 5, 6], [7] * 5, [7] * 5),
        (SPELLED, [2, 3, OTHER, 7], [7] * 5, [7] * 5),
        (SPELLED, [7], [9, 7, 7, 7, 7], [9, 7, 7, 7, 7]),
        (SPELLED, [0], [7, 7, 4, 7, 7], [7, 7, 4, 11, 4, 5, 6, 11, 7, 7]),
        (SPELLED, [0], [7, 4, 5, 10, 7, 7, 7], [7, 4, 5, 11, 4, 5, 6, 11, 10, 7, 7, 7]),
        (SPELLED, [0], [7, 1, 0, 7, 7, 7, 7], [7, 1, 0, 7, 7, 7, 11, 4, 5, 6, 11, 7]),
        (CONTROL, [7], [OPEN, 7, 7, 7, 7], [OPEN, 7, 7, 7, 11, CLOSE, 11, 7]),
        (CONTROL, [OTHER, 7, OPEN], [7] * 4, [7, 7, 7, 11, CLOSE, 11, 7]),
        (CONTROL, [OPEN, 7, OTHER], [7] * 5, [7] * 5),
        (CONTROL, [OPEN], [7, OTHER, 7, 7], [7, OTHER, 7, 11, CLOSE, 11, 7]),
        (CONTROL, [OPEN], [7, CLOSE, 7, 7, 7], [7, CLOSE, 7, 7, 7]),
        (CONTROL, [7], [2, 3, 7, 7, 7, 7], [2, 3, 7, 7, 7, 7]),
    ],
    ids=[
        "no block", "one token", "cut across tokens", "open prompt", "prompt counts", "spent in the prompt",
        "opened over the border", "closed in the prompt", "a control token ends it", "opened and closed at once",
        "in the middle of the end", "the end comes too late", "each block has its own", "control", "control in prompt",
        "control token ends it", "other control tokens count", "closes itself", "text is not the control token",
    ],
)  # fmt: skip
def test_what_is_forced(tokens: ThinkingTokens, prompt: list[int], free: list[int], expected: list[int]) -> None:
    assert feed(ThinkingBudget(tokens, BYTES, 3, prompt), free) == expected


@pytest.mark.parametrize("tokens", [SPELLED, CONTROL])
def test_a_budget_of_none_closes_at_once(tokens: ThinkingTokens) -> None:
    assert feed(ThinkingBudget(tokens, BYTES, 0, tokens.open_ids), [7]) == [*tokens.close_ids, 7]
    assert feed(ThinkingBudget(tokens, BYTES, 0, [7]), [*tokens.open_ids, 7]) == [
        *tokens.open_ids, *tokens.close_ids, 7
    ]  # fmt: skip


def test_empty_markers_are_refused() -> None:
    with pytest.raises(ValueError, match="ThinkingTokens.end_ids must not be empty"):
        ThinkingTokens((1,), (), (2,))


@given(
    prompt=st.lists(st.integers(0, len(PIECES) - 1), max_size=12),
    free=st.lists(st.integers(0, len(PIECES) - 1), max_size=25),
    budget=st.integers(0, 4),
)
def test_no_block_grows_beyond_its_budget(prompt: list[int], free: list[int], budget: int) -> None:
    """Judged by the text alone: the tokens since the last opening marker that no end has followed."""
    output = feed(ThinkingBudget(SPELLED, BYTES, budget, prompt), free)
    for end in range(1, len(output) + 1):
        ids = [*prompt, *output[:end]]
        text, inside = "".join(BYTES[i].decode() for i in ids), 0
        opened, at = None, 0
        while True:  # markers in turn, from the left
            marker = "<think>" if opened is None else "</think>"
            found = text.find(marker, at)
            if found < 0:
                break
            at = found + len(marker)
            opened = at if opened is None else None
        if opened is not None:
            starts = [sum(len(BYTES[i]) for i in ids[:n]) for n in range(len(ids))]
            inside = sum(start >= opened for start in starts[len(prompt) :])
        assert inside <= budget + len(SPELLED.close_ids)


def noisy(budget: int | None, **fields: object) -> SamplingParams:
    given = {"temperature": 3.0, "top_p": 1.0, "ignore_eos": True, "max_tokens": 20, "thinking_budget": budget}
    return SamplingParams(**{**given, **fields})  # type: ignore[arg-type]


@pytest.fixture
def loaded(tiny: TinyModel, engine_cache: Path) -> LoadedEngine:
    return load(tiny.folder, engine_cache, precision="fp32")


def test_forced_tokens_are_output_with_the_models_own_logprob(tiny: TinyModel, loaded: LoadedEngine) -> None:
    tokens = thinking_tokens(loaded.tokenizer)
    assert len(tokens.open_ids) > 1, "the tiny tokenizer spells it"
    prompt = [60, 61, *tokens.open_ids]
    loaded.engine.add("a", prompt, noisy(4), thinking=tokens)
    loaded.engine.add("free", prompt, noisy(None), thinking=tokens)
    ended = drive(loaded.engine)
    request, close = ended.outputs["a"].request, list(tokens.close_ids)
    assert request.output_ids[4 : 4 + len(close)] == close and request.num_forced == len(close)
    assert request.output_ids[:4] == ended.ids("free")[:4] and ended.outputs["free"].request.num_forced == 0
    own = tiny.next_logits([*prompt, *request.output_ids])[len(prompt) - 1 : -1].log_softmax(-1)
    chosen = own.gather(1, torch.tensor(request.output_ids)[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(request.logprobs), chosen, rtol=1e-4, atol=1e-4)
    assert len(request.entropies) == len(request.top_means) == len(request.output_ids) == 20


def test_limits_come_first(loaded: LoadedEngine) -> None:
    tokens = thinking_tokens(loaded.tokenizer)
    prompt, close = list(tokens.open_ids), list(tokens.close_ids)
    loaded.engine.add("before", prompt, noisy(9, max_tokens=5), thinking=tokens)
    loaded.engine.add("within", prompt, noisy(3, max_tokens=5), thinking=tokens)
    loaded.engine.add("stop id", prompt, noisy(3, stop_token_ids=(close[2],)), thinking=tokens)
    ended = drive(loaded.engine)
    reasons = {name: output.end.reason for name, output in ended.outputs.items() if output.end}
    assert reasons == {"before": "length", "within": "length", "stop id": "stop"}
    assert ended.outputs["before"].request.num_forced == 0
    assert ended.ids("within")[3:] == close[:2]
    assert ended.ids("stop id")[3:] == close[:3]


def test_a_stop_string_that_the_close_completes(loaded: LoadedEngine) -> None:
    """The budget is spent in the middle of it: the request ends there, and the next turn closes the block at once."""
    tokens = thinking_tokens(loaded.tokenizer)
    fence, close = loaded.tokenizer.encode("```"), list(tokens.close_ids)
    walk = TokenWalk(counted([[token_id] for token_id in [*fence, *close, *close]]))
    sampling = noisy(len(fence), stop=("```\n",))
    loaded.engine.add("a", tokens.open_ids, sampling, constraint=walk, thinking=tokens)
    first = drive(loaded.engine).outputs["a"]
    assert first.end is not None and (first.end.stop, first.end.num_output_bytes) == ("```\n", 4)
    assert first.request.output_ids == [*fence, close[0]] and first.request.num_forced == 1
    loaded.engine.add("b", [*tokens.open_ids, *first.request.output_ids], sampling, thinking=tokens)
    assert drive(loaded.engine).ids("b")[: len(close)] == close


def test_it_outlives_preemption_and_forking(tiny: TinyModel, engine_cache: Path) -> None:
    runs = []
    for driven in (drive, drive_with_preemptions):
        loaded = load(tiny.folder, engine_cache, precision="fp32")
        tokens = thinking_tokens(loaded.tokenizer)
        for i in range(5):
            params = noisy(6 + i, seed=i, max_tokens=40)
            loaded.engine.add(str(i), [*[i + 1] * 12, *tokens.open_ids], params, thinking=tokens)
        runs.append(driven(loaded.engine))
    assert runs[1].num_preempted >= 20
    assert all(runs[0].ids(str(i)) == runs[1].ids(str(i)) for i in range(5))
    assert all(run.outputs[str(i)].request.num_forced == len(tokens.close_ids) for run in runs for i in range(5))

    loaded.engine.add("a", tokens.open_ids, noisy(3), thinking=tokens)
    for _ in range(5):  # two tokens into the close
        loaded.engine.step()
    with pytest.raises(EngineError, match="must have the thinking_budget of 'a'"):
        loaded.engine.fork("a", "b", noisy(4))
    loaded.engine.fork("a", "b", noisy(3, seed=9))
    ended = drive(loaded.engine)
    close = list(tokens.close_ids)
    assert ended.ids("a")[3 : 3 + len(close)] == ended.ids("b")[3 : 3 + len(close)] == close
    assert ended.ids("a") != ended.ids("b")


def test_what_the_engine_needs_to_know(loaded: LoadedEngine) -> None:
    with pytest.raises(EngineError, match="'a' has a thinking budget, but not how thinking is written"):
        loaded.engine.add("a", [1], noisy(3))


def test_tokens_of_a_model_with_and_without_control_tokens(loaded: LoadedEngine) -> None:
    spelled = thinking_tokens(loaded.tokenizer)
    assert loaded.tokenizer.decode(spelled.open_ids) == "<think>"
    assert loaded.tokenizer.decode(spelled.end_ids) == "</think>"
    assert loaded.tokenizer.decode(spelled.close_ids) == "\n</think>\n\n"
    control = {**loaded.tokenizer.control_tokens, "<think>": 280, "</think>": 281}
    tokenizer = EngineTokenizer(loaded.tokenizer._tokenizer.to_str(), control, [270])
    close = (*tokenizer.encode("\n"), 281, *tokenizer.encode("\n\n"))
    turns = frozenset(loaded.tokenizer.control_tokens.values())
    assert thinking_tokens(tokenizer) == ThinkingTokens((280,), (281,), close, turns)


def test_through_the_generator(loaded: LoadedEngine) -> None:
    generator = RyanStreamGenerator(loaded)
    asked = (Message("user", "Write <think> and never close it."),)
    opened = (Span("<think>\n"),)
    generator.submit(GenerateRequest("quoted", asked, noisy(2)))
    generator.submit(GenerateRequest("opened", asked, noisy(2), continuation=opened))
    ends = {e.request_id: e.completion for _ in range(40) for e in generator.events(0.0) if isinstance(e, Finished)}
    assert "</think>" not in ends["quoted"].text and ends["quoted"].usage.forced == 0
    assert "\n</think>\n\n" in ends["opened"].text
    usage = ends["opened"].usage
    assert usage.output == 20 and usage.forced == len(thinking_tokens(loaded.tokenizer).close_ids)
