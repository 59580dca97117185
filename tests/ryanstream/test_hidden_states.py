"""Hidden states on request and embeddings, against transformers' last hidden state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driving import drive, greedy, load, run_all
from hypothesis import given
from hypothesis import strategies as st
from tiny_qwen import TinyModel
from torch import Tensor

from mathlete.core.errors import EngineError
from mathlete.ryanstream.embedding import embed
from mathlete.ryanstream.engine import Engine
from mathlete.ryanstream.hidden_states import HiddenPositions

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


def states_of_transformers(tiny: TinyModel, ids: list[int]) -> Tensor:
    """[len(ids), hidden] after the final norm."""
    with torch.inference_mode():
        return tiny.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]


@pytest.fixture
def engine(tiny: TinyModel, engine_cache: Path) -> Engine:
    return load(tiny.folder, engine_cache, precision="fp32").engine


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return torch.randint(0, 260, (70,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.mark.parametrize("limits", [{}, {"max_step_tokens": 9}, {"batch_invariant": True}], ids=str)
def test_chosen_positions_and_outputs(
    tiny: TinyModel, engine_cache: Path, prompt: list[int], limits: dict[str, int]
) -> None:
    """Among other requests that want none; the token that is drawn last has no state."""
    engine = load(tiny.folder, engine_cache, precision="fp32", **limits).engine
    engine.add("plain", prompt[:33], greedy(5))
    engine.add("some", prompt, greedy(6), hidden=HiddenPositions(frozenset({0, 15, 16, 40, 69}), outputs=True))
    ended = drive(engine)
    assert ended.outputs["plain"].request.hidden == {}
    request = ended.outputs["some"].request
    assert sorted(request.hidden) == [0, 15, 16, 40, 69, *range(70, 70 + len(request.output_ids) - 1)]
    expected = states_of_transformers(tiny, [*prompt, *request.output_ids])
    for position, state in request.hidden.items():
        torch.testing.assert_close(state, expected[position], **TOLERANCE)
        assert not state.is_inference(), "a head could not be trained on it"


def test_positions_in_a_found_prefix_are_computed_again(engine: Engine, tiny: TinyModel, prompt: list[int]) -> None:
    """The cache holds 64 of the 70 tokens. Blocks before the first wanted position are reused, the rest is not."""
    plain = run_all(engine, [prompt], [greedy(1)])
    for first, num_cached in ((0, 0), (20, 16), (33, 32), (69, 64)):
        engine.add("again", prompt, greedy(3), hidden=HiddenPositions(frozenset({first, 69})))
        request = drive(engine).outputs["again"].request
        assert request.num_cached == num_cached
        assert request.output_ids[:1] == plain.ids("0")
        expected = states_of_transformers(tiny, prompt)
        for position in (first, 69):
            torch.testing.assert_close(request.hidden[position], expected[position], **TOLERANCE)


def test_states_survive_preemption(tiny: TinyModel, engine_cache: Path, prompt: list[int]) -> None:
    """What was kept before a request was put aside is kept; only what is missing is computed again."""
    engine = load(tiny.folder, engine_cache, precision="fp32", num_blocks=9).engine
    for i in range(4):
        wanted = HiddenPositions(frozenset({3, 30 + i}), outputs=True)
        engine.add(str(i), prompt[i : 40 + i], greedy(45), hidden=wanted)
    ended = drive(engine)
    assert ended.num_preempted > 0
    for i in range(4):
        request = ended.outputs[str(i)].request
        ids = [*prompt[i : 40 + i], *request.output_ids]
        expected = states_of_transformers(tiny, ids)
        assert sorted(request.hidden) == [3, 30 + i, *range(40, len(ids) - 1)]
        for position, state in request.hidden.items():
            torch.testing.assert_close(state, expected[position], **TOLERANCE)


def test_a_position_outside_the_prompt_is_refused(engine: Engine) -> None:
    for position in (-1, 3):
        with pytest.raises(EngineError, match=f"no prompt token at position {position}"):
            engine.add("r", [1, 2, 3], greedy(1), hidden=HiddenPositions(frozenset({position})))
    assert not engine.has_work


def test_embeddings(engine: Engine, tiny: TinyModel, prompt: list[int]) -> None:
    prompts = [prompt[:1], prompt[:17], prompt[:50], prompt[3:70], prompt[:50]]
    expected = [states_of_transformers(tiny, ids) for ids in prompts]
    torch.testing.assert_close(embed(engine, prompts), torch.stack([rows[-1] for rows in expected]), **TOLERANCE)
    means = torch.stack([rows.mean(0) for rows in expected])
    torch.testing.assert_close(embed(engine, prompts, "mean"), means, **TOLERANCE)
    engine.check_integrity()


def test_embeddings_on_the_kernels_are_near(tiny: TinyModel, engine_cache: Path, prompt: list[int]) -> None:
    exact = states_of_transformers(tiny, prompt)[-1]
    found = embed(load(tiny.folder, engine_cache).engine, [prompt])[0]
    assert torch.cosine_similarity(found, exact, dim=0) > 0.99


def test_embeddings_leave_nothing_behind(engine: Engine, prompt: list[int]) -> None:
    with pytest.raises(EngineError, match="empty prompt"):
        embed(engine, [prompt, []])
    assert not engine.has_work
    with pytest.raises(EngineError, match="no prompts"):
        embed(engine, [])
    engine.add("other", prompt, greedy(1))
    with pytest.raises(EngineError, match="idle engine"):
        embed(engine, [prompt])
    assert set(drive(engine).outputs) == {"other"}


@given(st.frozensets(st.integers(0, 20)), st.booleans(), st.integers(0, 30), st.integers(0, 30), st.integers(1, 21))
def test_wanted_positions(prompt: frozenset[int], outputs: bool, start: int, end: int, num_prompt: int) -> None:
    wanted = HiddenPositions(frozenset(p for p in prompt if p < num_prompt), outputs)
    expected = [p for p in range(start, end) if p in wanted.prompt or (outputs and p >= num_prompt)]
    assert wanted.within(start, end, num_prompt) == expected
    assert wanted.first_missing(num_prompt, end, set()) == next(iter(wanted.within(0, end, num_prompt)), end)
    assert wanted.first_missing(num_prompt, end, range(end)) == end
