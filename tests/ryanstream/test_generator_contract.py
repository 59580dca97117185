"""What every `Generator` keeps to, shown on RyanStream (a tiny random model) and on the scripted double."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from driving import load
from tiny_qwen import TinyModel

from mathlete.core.errors import EngineError, ModelError
from mathlete.core.generation import Completion, Finished, GenerateRequest, Message, SamplingParams, Span, TokenChunk
from mathlete.core.protocols import Generator
from mathlete.generators.ryanstream import RyanStreamGenerator
from mathlete.generators.scripted import END_OF_TEXT_ID, Reply, ScriptedGenerator, replies_in_order
from mathlete.ryanstream.model.tokenizer import EngineTokenizer

CHAT = (Message("system", "s"), Message("user", "What is 1 + 1?"))
WORDS = "Let us see: one and one is two, naïve 😀 as that may be; so the answer must be \\boxed{2}. Done with it all. "


@dataclass
class Heard:
    """Everything a generator told until nothing was left to wait for."""

    finished: dict[str, Completion] = field(default_factory=dict)
    chunks: dict[str, list[TokenChunk]] = field(default_factory=dict)

    def text(self, request_id: str) -> str:
        return "".join(chunk.text for chunk in self.chunks.get(request_id, []))


def say(*args: object, **kwargs: object) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "max_tokens": 24, **kwargs})  # type: ignore[arg-type]


def ask(name: str, sampling: SamplingParams | None = None, group: str | None = None) -> GenerateRequest:
    return GenerateRequest(name, CHAT, sampling or say(), group=group)


def listen(generator: Generator, expected: int, max_calls: int = 500) -> Heard:
    heard = Heard()
    for _ in range(max_calls):
        for event in generator.events(0.01):
            assert event.request_id not in heard.finished, "an event after the end"
            if isinstance(event, Finished):
                heard.finished[event.request_id] = event.completion
            else:
                heard.chunks.setdefault(event.request_id, []).append(event)
        if len(heard.finished) == expected:
            assert list(generator.events(0.0)) == []
            return heard
    raise AssertionError(f"only {len(heard.finished)} of {expected} ended")


def answers(generator: Generator, requests: Sequence[GenerateRequest]) -> Heard:
    for request in requests:
        generator.submit(request)
    return listen(generator, len(requests))


@pytest.fixture(params=["ryanstream", "scripted"])
def generator(request: pytest.FixtureRequest, tiny: TinyModel, engine_cache: Path) -> Iterator[Generator]:
    made: Generator
    if request.param == "scripted":
        made = ScriptedGenerator(lambda asked: WORDS)
    else:
        made = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    yield made
    made.close()
    made.close()


def test_chunks_and_completion_agree(generator: Generator) -> None:
    heard = answers(generator, [ask("a")])
    completion = heard.finished["a"]
    assert completion.finish_reason == "length" and completion.stop is None and completion.error is None
    assert len(completion.token_ids) == len(completion.logprobs) == len(completion.entropies) == 24
    assert completion.usage.output == 24 and completion.usage.prompt > 0
    assert all(logprob <= 0 for logprob in completion.logprobs) and all(e >= 0 for e in completion.entropies)
    assert sum(chunk.num_tokens for chunk in heard.chunks["a"]) == 23  # the last comes with the end
    assert completion.text.startswith(heard.text("a")) and heard.text("a")


def test_a_request_gives_the_same_alone_and_in_company(generator: Generator) -> None:
    requests = [ask(str(i), say(temperature=0.9, seed=i, max_tokens=10 + i), group="g") for i in range(6)]
    together = answers(generator, requests).finished
    for request in requests:
        alone = answers(generator, [request]).finished[request.request_id]
        assert alone.token_ids == together[request.request_id].token_ids
        assert alone.text == together[request.request_id].text


@pytest.mark.parametrize("include_stop", [True, False])
def test_a_stop_string_ends_the_text(generator: Generator, include_stop: bool) -> None:
    noisy = say(temperature=100.0, top_p=1.0, seed=5)  # the random model would keep to broken bytes
    whole = answers(generator, [ask("a", noisy)]).finished["a"].text
    pairs = [whole[i : i + 2] for i in range(4, len(whole) - 1)]
    stop = next(pair for pair in pairs if "\ufffd" not in pair)
    cut = answers(generator, [ask("a", replace(noisy, stop=("never", stop), include_stop=include_stop))]).finished["a"]
    assert (cut.finish_reason, cut.stop) == ("stop", stop)
    start = whole.index(stop)
    assert cut.text == whole[: start + (len(stop) if include_stop else 0)]
    assert 0 < len(cut.token_ids) < 24


def test_a_stop_string_in_the_prompt_is_not_looked_for(generator: Generator) -> None:
    assert answers(generator, [ask("a", say(stop=("What is 1",)))]).finished["a"].finish_reason == "length"


def test_a_stop_id_ends_it_and_is_kept(generator: Generator) -> None:
    ids = answers(generator, [ask("a")]).finished["a"].token_ids
    cut = answers(generator, [ask("a", say(stop_token_ids=(ids[5],)))]).finished["a"]
    assert cut.finish_reason == "stop" and cut.stop is None
    assert cut.token_ids == ids[: ids.index(ids[5]) + 1]


def test_one_token_is_enough(generator: Generator) -> None:
    heard = answers(generator, [ask("a", say(max_tokens=1))])
    assert len(heard.finished["a"].token_ids) == 1 and not heard.chunks


def test_abort_of_one_and_of_a_group(generator: Generator) -> None:
    for name, group in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None)):
        generator.submit(ask(name, group=group))
    before = Heard()
    for _ in range(3):
        for event in generator.events(0.01):
            assert isinstance(event, TokenChunk)
            before.chunks.setdefault(event.request_id, []).append(event)
    generator.abort(request_id="d")
    generator.abort(group="x")
    generator.abort(request_id="nobody", group="nothing")
    finished = listen(generator, 4).finished
    assert {name: c.finish_reason for name, c in finished.items()} == dict(a="abort", b="abort", c="length", d="abort")
    for name in "abd":
        assert len(finished[name].token_ids) == sum(c.num_tokens for c in before.chunks.get(name, []))
        assert finished[name].text.startswith(before.text(name))


def test_an_id_can_be_used_again_after_its_end_only(generator: Generator) -> None:
    generator.submit(ask("a"))
    with pytest.raises(EngineError, match="'a' is in use"):
        generator.submit(ask("a"))
    generator.abort(request_id="a")
    with pytest.raises(EngineError, match="'a' is in use"):
        generator.submit(ask("a"))
    assert listen(generator, 1).finished["a"].finish_reason == "abort"
    assert answers(generator, [ask("a")]).finished["a"].finish_reason == "length"


def test_a_second_turn_continues_the_first(generator: Generator) -> None:
    first = answers(generator, [ask("a")]).finished["a"]
    spans = (Span(first.text, first.token_ids), Span("\n```output\n2\n```\n"))
    second = answers(generator, [replace(ask("b"), continuation=spans)]).finished["b"]
    assert second.finish_reason == "length" and len(second.token_ids) == 24


def test_nothing_to_do_gives_nothing(generator: Generator) -> None:
    assert list(generator.events(5.0)) == []
    generator.close()
    assert list(generator.events(5.0)) == []


def test_ryanstream_finds_the_first_turn_in_its_cache(tiny: TinyModel, engine_cache: Path) -> None:
    generator = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    first = answers(generator, [ask("a")]).finished["a"]
    second = answers(generator, [replace(ask("b"), continuation=(Span(first.text, first.token_ids),))]).finished["b"]
    assert "\ufffd" in first.text, "this seed gives bytes that are no UTF-8, which must not be encoded anew"
    assert second.usage.prompt == first.usage.prompt + 24
    assert second.usage.cached == (second.usage.prompt - 1) // 16 * 16


def test_ryanstream_refuses_what_never_fits(tiny: TinyModel, engine_cache: Path) -> None:
    generator = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    with pytest.raises(EngineError, match="prompt tokens; the engine takes fewer than 128"):
        generator.submit(GenerateRequest("a", (Message("user", "x" * 400),)))
    assert list(generator.events(0.0)) == []


def test_ryanstream_needs_a_known_chat_format(tiny: TinyModel, engine_cache: Path) -> None:
    loaded = load(tiny.folder, engine_cache, precision="fp32")
    plain = EngineTokenizer(loaded.tokenizer._tokenizer.to_str(), {"<|im_end|>": 270}, [270])
    with pytest.raises(ModelError, match=r"no chat format that is known: .*ChatML \(<\|im_start\|>"):
        RyanStreamGenerator(replace(loaded, tokenizer=plain))


def test_a_script_ends_with_end_of_text() -> None:
    heard = answers(ScriptedGenerator(lambda asked: "so 2"), [ask("a")])
    completion = heard.finished["a"]
    assert (completion.text, completion.finish_reason) == ("so 2", "stop")
    assert completion.token_ids[-1] == END_OF_TEXT_ID and len(completion.token_ids) == 3
    assert heard.text("a") == "so 2"


def test_a_script_of_lists() -> None:
    reply = Reply(("x", "y"), logprobs=(-1.0, -2.0), entropies=(0.1,))
    generator = ScriptedGenerator(replies_in_order({"a": [reply], "g": ["first", Reply.failing("out of memory")]}))
    finished = answers(generator, [ask("a"), ask("b", group="g"), ask("c", group="g")]).finished
    assert finished["a"].logprobs == (-1.0, -2.0, -2.0) and finished["a"].entropies == (0.1, 0.1, 0.1)
    assert finished["b"].text == "first"
    assert (finished["c"].finish_reason, finished["c"].error) == ("error", "out of memory")
    with pytest.raises(EngineError, match="no reply left for request 'd'"):
        generator.submit(ask("d", group="g"))
    assert [request.request_id for request in generator.requests] == ["a", "b", "c", "d"]


def test_a_script_takes_its_time() -> None:
    """Half a second, then a token a second, by a clock that only `sleep` moves."""
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    reply = Reply(("x", "y"), delay_s=0.5, token_s=1.0)
    generator = ScriptedGenerator(lambda asked: reply, clock=lambda: now[0], sleep=sleep)
    generator.submit(ask("a"))
    assert list(generator.events(1.0)) == [] and now[0] == 101.0
    assert list(generator.events(1.0)) == [TokenChunk("a", "x", 1, (0.5,))] and now[0] == 101.5
    assert list(generator.events(9.0)) == [TokenChunk("a", "y", 1, (0.5,))] and now[0] == 102.5
    (end,) = generator.events(9.0)
    assert isinstance(end, Finished) and now[0] == 103.5


def test_ryanstream_measures_its_speed_and_is_idle_again(tiny: TinyModel, engine_cache: Path) -> None:
    generator = RyanStreamGenerator(load(tiny.folder, engine_cache, precision="fp32"))
    assert generator.measure_speed(4) > 0
    assert list(generator.events(0.0)) == []
    assert answers(generator, [ask("a")]).finished["a"].usage.output == 24


def advance(generator: Generator, num_tokens: int) -> str:
    """Let request "a" write at least so many tokens; what it was told to have said."""
    text, counted = "", 0
    while counted < num_tokens:
        for event in generator.events(0.01):
            assert isinstance(event, TokenChunk) and len(event.entropies) == event.num_tokens
            text, counted = text + event.text, counted + event.num_tokens
    return text


def test_a_request_that_went_back_says_the_same_again(generator: Generator) -> None:
    noisy = say(temperature=100.0, top_p=1.0, seed=5)
    whole = answers(generator, [ask("a", noisy)])
    generator.submit(ask("a", noisy))
    for back, ahead in ((7, 12), (0, 5), (3, 20), (20, 19)):
        advance(generator, ahead)
        generator.rewind("a", back, noisy)
    heard = listen(generator, 1)
    again, first = heard.finished["a"], whole.finished["a"]
    assert (again.token_ids, again.text, again.finish_reason) == (first.token_ids, first.text, first.finish_reason)
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-3)  # in fp32 a sum depends on the rows beside it
    assert again.entropies == pytest.approx(first.entropies, abs=1e-3)
    assert heard.finished["a"].usage.output == 24 and heard.finished["a"].usage.discarded == 5 + 12 + 17 + 2
    assert whole.text("a").endswith(heard.text("a")), "chunks go on where it went back to"
    assert sum(chunk.num_tokens for chunk in heard.chunks["a"]) == 3


def test_a_request_cannot_go_back_to_what_was_not(generator: Generator) -> None:
    with pytest.raises(EngineError, match="'a' cannot go back"):
        generator.rewind("a", 0, say())
    generator.submit(ask("a"))
    advance(generator, 4)
    for num_tokens, sampling in ((5, say()), (-1, say()), (2, say(max_tokens=2)), (2, say(stop=("x",)))):
        with pytest.raises(EngineError, match="'a'"):
            generator.rewind("a", num_tokens, sampling)
    assert len(listen(generator, 1).finished["a"].token_ids) == 24
    with pytest.raises(EngineError, match="'a' cannot go back"):
        generator.rewind("a", 0, say())


def test_other_noise_and_fewer_tokens_hold_from_there_on(generator: Generator) -> None:
    if isinstance(generator, ScriptedGenerator):
        generator._script = lambda asked: WORDS if asked.sampling.seed == 1 else WORDS.upper()
    first = say(temperature=100.0, top_p=1.0, seed=1)
    whole = answers(generator, [ask("a", first)]).finished["a"]
    generator.submit(ask("a", first))
    advance(generator, 10)
    generator.rewind("a", 6, replace(first, seed=2, max_tokens=14))
    other = listen(generator, 1).finished["a"]
    assert other.token_ids[:6] == whole.token_ids[:6] and other.token_ids[6:10] != whole.token_ids[6:10]
    assert len(other.token_ids) == 14 and other.usage.discarded == 4 and other.finish_reason == "length"
