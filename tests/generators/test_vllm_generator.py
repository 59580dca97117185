"""What Mathlete puts around vLLM, over a stand-in for its engine: segments, going back, what is put in or refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from fake_vllm import FakeEngine, printable
from tiny_qwen import _MERGES, control_tokens, tiny_vocab

from mathlete.core.errors import EngineError
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams, Span, TokenChunk
from mathlete.core.problem import AnswerKind
from mathlete.generators.chat_format import chat_ids
from mathlete.generators.turn_formats import Read, TokenPrompt
from mathlete.generators.vllm_generator import VLLMFacts, VLLMGenerator
from mathlete.generators.vllm_turns import ChatTurns, FormatTurns, Turns
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary
from mathlete.ryanstream.model.tokenizer import EngineTokenizer, build_tokenizer_json

CHAT = (Message("user", "What is six times seven?"),)


@cache
def tokenizer() -> EngineTokenizer:
    merges = [tuple(merge.split(" ")) for merge in _MERGES]
    ids = control_tokens()
    return EngineTokenizer(build_tokenizer_json(tiny_vocab(), merges, "qwen2"), ids, [ids["<|im_end|>"]])


def make_generator(engine: FakeEngine, turns: Turns | None = None, **facts: Any) -> VLLMGenerator:
    told = VLLMFacts(token_bytes=tokenizer().token_bytes(288), eos_token_ids=tokenizer().eos_token_ids, **facts)
    chat = ChatTurns(tokenizer(), told.token_bytes, lambda messages: chat_ids(tokenizer(), messages))
    return VLLMGenerator(engine, turns or chat, told)


def saying(text: str) -> Any:
    """A model that answers `CHAT` with a text, and then ends it."""
    ids = [*tokenizer().encode(text), *tokenizer().eos_token_ids]
    num_prompt = len(chat_ids(tokenizer(), CHAT))

    def likely(known: Sequence[int]) -> list[int]:
        place = len(known) - num_prompt
        return [ids[min(place, len(ids) - 1)], *printable(known)[1:]]

    return likely


def ask(name: str = "a", **sampling: Any) -> GenerateRequest:
    return GenerateRequest(name, CHAT, SamplingParams(**{"temperature": 0.0, "max_tokens": 200, **sampling}))


def finish(generator: VLLMGenerator, num: int = 1) -> dict[str, Completion]:
    done: dict[str, Completion] = {}
    for _ in range(2000):
        for event in generator.events(0.0):
            if isinstance(event, Finished):
                done[event.request_id] = event.completion
        if len(done) == num:
            return done
    raise AssertionError(f"only {len(done)} of {num} ended")


def answer(engine: FakeEngine, request: GenerateRequest, **facts: Any) -> Completion:
    generator = make_generator(engine, **facts)
    generator.submit(request)
    return finish(generator)[request.request_id]


@pytest.mark.parametrize("per_step", [1, 3, 50])
def test_what_stands_behind_a_stop_string_is_dropped(per_step: int) -> None:
    text = "It is 42, naïve 😀.\n```output\nnever said"
    for stop, told in (("```output", text[: text.index("\nnever")]), ("output\n", text[: text.index("never")])):
        engine = FakeEngine(saying(text), per_step)
        done = answer(engine, ask(stop=(stop, "never said")))
        assert (done.text, done.finish_reason, done.stop) == (told, "stop", stop)
        assert len(done.token_ids) == len(done.logprobs) == len(done.top_means) == done.usage.output
        assert tokenizer().decode(done.token_ids).startswith(told)
        assert not engine.rows and engine.aborted == ([("a#1",)] if per_step < 50 else [])
    done = answer(FakeEngine(saying(text), per_step), ask(stop=("```output",), include_stop=False))
    assert done.text == text[: text.index("```")]
    whole = answer(FakeEngine(saying(text), per_step), ask(stop=("```python",)))
    assert (whole.text, whole.finish_reason, whole.stop) == (text, "stop", None)
    assert whole.token_ids[-1] in tokenizer().eos_token_ids


def test_siblings_are_aborted_in_one_call_and_keep_what_they_wrote() -> None:
    engine = FakeEngine()
    generator = make_generator(engine)
    for name in "abc":
        generator.submit(GenerateRequest(name, CHAT, SamplingParams(temperature=0.0), group="g" * (name < "c")))
    told = "".join(e.text for _ in range(3) for e in generator.events(0.0) if e.request_id == "a")  # type: ignore[union-attr]
    generator.abort(group="g")
    assert engine.aborted == [("a#1", "b#2")]
    done = finish(generator, 2)
    assert done["a"].text == done["b"].text == told and done["a"].usage.output == 3
    assert {one.finish_reason for one in done.values()} == {"abort"}
    assert list(engine.rows) == ["c#3"]


def test_going_back_asks_anew_behind_what_is_kept() -> None:
    engine = FakeEngine(per_step=2)
    generator = make_generator(engine)
    generator.submit(ask(max_tokens=20))
    for _ in range(4):
        list(generator.events(0.0))
    whole = engine.rows["a#1"].ids
    generator.rewind("a", 3, SamplingParams(temperature=1.0, max_tokens=11, seed=7))
    segment, seed = engine.asked[-1]
    num_prompt = len(chat_ids(tokenizer(), CHAT))
    assert segment.prompt_ids == tuple(whole[: num_prompt + 3])
    assert (segment.max_tokens, seed, segment.segment_id) == (8, 7, "a#2")
    assert engine.aborted == [("a#1",)]
    done = finish(generator)["a"]
    assert done.token_ids[:3] == tuple(whole[num_prompt : num_prompt + 3])
    assert (done.usage.output, done.usage.discarded, done.usage.prompt) == (11, 5, num_prompt)
    assert done.text == tokenizer().decode(done.token_ids)


@pytest.mark.parametrize("per_step", [1, 4])
def test_thinking_is_closed_by_tokens_that_alone_may_come(per_step: int) -> None:
    engine = FakeEngine(per_step=per_step)
    generator = make_generator(engine)
    request = GenerateRequest(
        "a", CHAT, SamplingParams(temperature=0.0, max_tokens=30, thinking_budget=5), (Span("<think>"),)
    )
    generator.submit(request)
    done = finish(generator)["a"]
    close = tokenizer().encode("\n</think>\n\n")
    forced = [segment for segment, _ in engine.asked if segment.forced_id is not None]
    assert [segment.forced_id for segment in forced] == close
    assert {segment.max_tokens for segment in forced} == {1}
    assert done.token_ids[5 : 5 + len(close)] == tuple(close)
    assert (done.usage.forced, done.usage.output, done.finish_reason) == (len(close), 30, "length")
    assert all(logprob <= -1 for logprob in done.logprobs[5 : 5 + len(close)]), "the model's own, not 0"
    assert len(done.top_means) == 30
    generator.submit(request)
    while generator._running["a"].num_output < 5 + len(close):
        list(generator.events(0.0))
    generator.rewind("a", 5 + len(close) - 2, request.sampling)
    again = finish(generator)["a"]
    assert (again.token_ids, again.usage.forced) == (done.token_ids, len(close)), "it goes on within what is put in"


def test_a_stop_string_may_be_completed_by_what_is_put_in() -> None:
    request = GenerateRequest(
        "a", CHAT, SamplingParams(temperature=0.0, thinking_budget=2, stop=("</think>",)), (Span("<think>"),)
    )
    done = answer(FakeEngine(), request)
    assert done.stop == "</think>" and done.text.endswith("\n</think>")


def boxed() -> Any:
    vocabulary = Vocabulary(tokenizer().token_bytes(288), tokenizer().eos_token_ids)
    return build_constraint(ConstraintSpec(), vocabulary, AnswerKind("integer", 0, 999), "so \\boxed{")


def test_constraints_go_along_with_their_request() -> None:
    constraint = boxed()
    unread = constraint.copy()
    request = GenerateRequest("a", CHAT, SamplingParams(temperature=1.0, max_tokens=12), constraint=constraint)
    generator = make_generator(FakeEngine(), constraints=True)
    generator.submit(request)
    while generator._running["a"].num_output < 4:
        list(generator.events(0.0))
    generator.rewind("a", 2, request.sampling)
    ids = finish(generator)["a"].token_ids
    assert unread.validate(ids) == len(ids) == constraint.num_accepted
    read = boxed()
    assert read.accept(tokenizer().encode("1"))
    with pytest.raises(EngineError, match="has read 1 tokens"):
        generator.submit(GenerateRequest("b", CHAT, constraint=read))


def test_a_token_that_a_constraint_had_masked_is_never_taken() -> None:
    class Careless(FakeEngine):
        """One whose masks are not kept to: a runner that does not know our logits processor."""

        def add(self, segment: Any, seed: int | None, wants_logprobs: bool) -> None:
            super().add(segment, seed, wants_logprobs)
            self.rows[segment.segment_id].segment = type(segment)(
                **{name: getattr(segment, name) for name in segment.__slots__ if name != "constraint"}, constraint=None
            )

    done = answer(
        Careless(lambda ids: [ord("z") - 33 - 20, *range(40, 59)]),
        GenerateRequest("a", CHAT, SamplingParams(temperature=0.0), constraint=boxed()),
        constraints=True,
    )
    assert done.finish_reason == "error" and "which vLLM drew all the same" in str(done.error)
    assert done.token_ids == ()


def test_what_cannot_be_kept_to_is_refused() -> None:
    guessing = make_generator(FakeEngine(), speculates=True, constraints=True)
    with pytest.raises(EngineError, match="min_p"):
        guessing.submit(ask(min_p=0.1))
    with pytest.raises(EngineError, match="vLLM takes none while it guesses"):
        guessing.submit(GenerateRequest("a", CHAT, constraint=boxed()))
    assert not guessing.capabilities.top_k and guessing.guesses() == {"drafted": 0.0, "accepted": 0.0}
    plain = make_generator(FakeEngine())
    with pytest.raises(EngineError, match="loaded without them"):
        plain.submit(GenerateRequest("a", CHAT, constraint=boxed()))
    with pytest.raises(EngineError, match="takes 2 at most"):
        plain.submit(ask(temperature=2.1))
    refusing = make_generator(FakeEngine(refuses=ValueError("no such thing")))
    with pytest.raises(EngineError, match="refuses request 'a': no such thing"):
        refusing.submit(ask())
    for generator in (guessing, plain, refusing):
        assert list(generator.events(0.0)) == []
    assert plain.guesses() is None


def test_seeds_are_given_where_they_can_be() -> None:
    for gives in (True, False):
        engine = FakeEngine()
        answer(engine, ask(seed=11, max_tokens=2), gives_seeds=gives)
        assert [seed for _, seed in engine.asked] == [11 if gives else None]


def test_an_engine_that_dies_ends_what_runs_and_says_so_from_then_on() -> None:
    engine = FakeEngine(dies=(3, RuntimeError("CUDA error: an illegal memory access")))
    generator = make_generator(engine)
    for name in "ab":
        generator.submit(ask(name))
    done = finish(generator, 2)
    for one in done.values():
        assert one.finish_reason == "error" and one.usage.output == 3 and len(one.text) == 3
        assert "has died: RuntimeError: CUDA error" in str(one.error)
    with pytest.raises(EngineError, match="has died: RuntimeError"):
        generator.submit(ask())
    assert list(generator.events(0.0)) == [] and generator.failure is not None
    generator.abort(group="g")
    generator.close()
    generator.close()
    assert engine.num_closed == 1


def test_nothing_is_told_of_a_segment_that_was_given_up() -> None:
    """Asynchronous scheduling: a step's news may name a segment that was aborted after the step began."""

    class Late(FakeEngine):
        def step(self) -> Any:
            told, self.held = getattr(self, "held", []), super().step()
            return told

    engine = Late()
    generator = make_generator(engine)
    generator.submit(ask(max_tokens=6))
    for _ in range(3):
        list(generator.events(0.0))
    generator.rewind("a", 1, SamplingParams(temperature=0.0, max_tokens=6))
    done = finish(generator)["a"]
    assert done.usage.output == 6 and done.text == tokenizer().decode(done.token_ids)


def test_log_probabilities_that_are_not_the_models_are_left_out() -> None:
    for error, tells in ((0.0, True), (0.1, True), (-0.8, False)):
        generator = make_generator(FakeEngine(per_step=3, error_of_logprobs=error), speculates=True)
        generator.check_logprobs()
        assert generator.capabilities.logprobs == tells
        assert bool(generator.warnings) != tells
        generator.submit(ask(max_tokens=6, num_logprobs=2))
        done = finish(generator)["a"]
        assert len(done.logprobs) == len(done.top_logprobs) == len(done.top_means) == (6 if tells else 0)
        assert (done.usage.drafted, done.usage.accepted) == (2, 1)


def test_speed_is_that_of_many_together() -> None:
    generator = make_generator(FakeEngine())
    assert generator.measure_speed(4) > 0
    assert list(generator.events(0.0)) == []
    dead = make_generator(FakeEngine(dies=(2, RuntimeError("out of luck"))))
    with pytest.raises(EngineError, match="out of luck"):
        dead.measure_speed(4)


class Spelt:
    """A `TokenFormat`: "!" ends the turn, "?" has "ok" put in behind it and is not said."""

    name = "spelt"

    def prompt(self, request: GenerateRequest) -> TokenPrompt:
        return TokenPrompt((1, 2, 3), tuple(tokenizer().encode("!")))

    def reader(self, request: GenerateRequest) -> Spelt:
        return Spelt()

    def take(self, token_id: int) -> Read:
        said = tokenizer().decode([token_id])
        if said == "?":
            return Read("ok", forced=tuple(tokenizer().encode("ok")))
        return Read("" if said == "!" else said, ended=said == "!")

    def finish(self, *, was_cut: bool = True) -> Read:
        return Read("…" if was_cut else "?")


def test_a_token_format_of_its_own_is_followed() -> None:
    script = tokenizer().encode("ab?ok") + tokenizer().encode("cd!")

    def likely(known: Sequence[int]) -> list[int]:
        return [script[min(len(known) - 3, len(script) - 1)], *range(100, 119)]

    engine = FakeEngine(likely)
    generator = make_generator(engine, FormatTurns(Spelt()))
    generator.submit(ask())
    heard = [event for _ in range(12) for event in generator.events(0.0)]
    assert isinstance(heard[-1], Finished)
    done = heard[-1].completion
    assert (done.text, done.finish_reason, done.usage.forced) == ("abokcd", "stop", 2)
    assert "".join(event.text for event in heard if isinstance(event, TokenChunk)) == "abokcd"
    assert done.token_ids == tuple(script)
    generator.submit(ask(max_tokens=2))
    cut = finish(generator)["a"]
    assert cut.finish_reason == "length" and cut.text == "ab…"


def test_requests_hold_plain_data_for_vllms_process() -> None:
    from mathlete.generators.constraint_arguments import args_of_constraint, constraint_request

    constraint = boxed()
    assert constraint.accept(tokenizer().encode("12"))
    told = json.loads(json.dumps(args_of_constraint(constraint, tokenizer().encode("12"))))
    asked = constraint_request(told)
    assert asked is not None and asked.accepted_ids == tuple(tokenizer().encode("12"))
    vocabulary = Vocabulary(tokenizer().token_bytes(288), tokenizer().eos_token_ids)
    rebuilt = asked.build(vocabulary)
    assert rebuilt is not None and rebuilt.states == constraint.states
