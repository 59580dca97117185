"""What every `Generator` keeps to. One suite for all of them: a test module defines the fixture `subject` and imports
all of this (`from conformance import *`).

Knows the contract of `core.protocols.Generator` and `core.generation`; knows no engine. What a generator cannot do is
told by its `Capabilities`, and then the suite looks for a clear refusal, or for what is left empty.

Real models say what they like, so most tests first ask for an answer and then for a part of it. Where a subject's
`say` can be given, its text is known beforehand.
"""  # noqa: D205

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pytest

from mathlete.core.errors import EngineError
from mathlete.core.generation import (
    Capabilities,
    Completion,
    Finished,
    GenerateRequest,
    Message,
    SamplingParams,
    Span,
    TokenChunk,
    TokenConstraint,
)
from mathlete.core.problem import AnswerKind
from mathlete.core.protocols import Generator
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.config import ConstraintSpec
from mathlete.proof_sampler.vocabulary import Vocabulary

CHAT = (Message("system", "Answer briefly."), Message("user", "Count from 1 to 30, with commas between the numbers."))


def boxed_constraint(token_bytes: Sequence[bytes], eos_token_ids: Sequence[int]) -> TokenConstraint:
    """For a text that goes on inside a box, where an integer of three digits at most is to stand."""
    vocabulary = Vocabulary(token_bytes, eos_token_ids)
    built = build_constraint(ConstraintSpec(), vocabulary, AnswerKind("integer", 0, 999), "so \\boxed{")
    assert built is not None
    return built


@dataclass(eq=False)
class Subject:
    """A generator under test, and what is known of it.

    Attributes:
        make: a new one, loaded.
        capabilities: what it does.
        chat: what it is asked; its answer must go on for 24 tokens at least.
        hot: temperature at which its answers differ by their seeds.
        wait_s: seconds after which a request that has not ended is lost.
        slack_s: seconds by which `events` may take longer than it was given.
        deterministic: whether greedy answers are the same again, to the letter, when nothing runs beside them.
        say: a chat that is answered with exactly this text, and then the end of text; None where it is not steered.
        ending: a chat whose answer ends by itself within 64 tokens; None where there is none.
        too_long: a chat that can never fit; None where everything does.
        ignores_eos: whether `ignore_eos` is kept to; None where that is refused.
        stop_ids: whether `stop_token_ids` are kept to; else they are refused.
        constraint: one that what it writes can be checked against, where there are constraints.
        control_token: the name of one of its control tokens, that a user may not bring in.
        num_requests: how many are under way in the test of many.
        num_long: tokens of an answer that takes so long that something can be done meanwhile.
        remakes: whether `make` is cheap enough to be called for a test of its own.
        tells_prompt: whether the prompt's tokens are counted when a stop string has ended an answer; servers that are
            not told of stop strings count at the end only, and it never comes.
        tells_end: whether each token has its log-probability: not so where a server says nothing of the end of text,
            or tells of several tokens that make one character as of one.
    """

    make: Callable[[], Generator]
    capabilities: Capabilities = Capabilities()
    chat: tuple[Message, ...] = CHAT
    hot: float = 1.5
    wait_s: float = 60.0
    slack_s: float = 1.0
    deterministic: bool = True
    say: Callable[[str], tuple[Message, ...]] | None = None
    ending: tuple[Message, ...] | None = None
    too_long: tuple[Message, ...] | None = None
    ignores_eos: bool | None = True
    stop_ids: bool = True
    constraint: Callable[[], TokenConstraint] | None = None
    control_token: str | None = None
    num_requests: int = 32
    num_long: int = 80
    remakes: bool = True
    tells_prompt: bool = True
    tells_end: bool = True

    @cached_property
    def shared(self) -> Generator:
        """The one that all tests use which do not close it."""
        return self.make()

    def long(self, name: str = "a", group: str | None = None, **sampling: object) -> GenerateRequest:
        """A request for an answer that takes so long that something can be done meanwhile."""
        return self.ask(name, group, **{"max_tokens": self.num_long, "ignore_eos": bool(self.ignores_eos), **sampling})

    def ask(self, name: str = "a", group: str | None = None, **sampling: object) -> GenerateRequest:
        """A request for a greedy answer of 24 tokens, unless told otherwise."""
        params = SamplingParams(**{"temperature": 0.0, "top_p": 1.0, "max_tokens": 24, **sampling})  # type: ignore[arg-type]
        return GenerateRequest(name, self.chat, params, group=group)


@dataclass
class Heard:
    """What a generator told."""

    finished: dict[str, Completion] = field(default_factory=dict)
    chunks: dict[str, list[TokenChunk]] = field(default_factory=dict)

    def text(self, request_id: str) -> str:
        return "".join(chunk.text for chunk in self.chunks.get(request_id, []))

    def count(self, request_id: str) -> int:
        return sum(chunk.num_tokens for chunk in self.chunks.get(request_id, []))

    def take(self, generator: Generator, timeout_s: float = 0.05) -> None:
        for event in generator.events(timeout_s):
            assert event.request_id not in self.finished, "an event after the end"
            if isinstance(event, Finished):
                self.finished[event.request_id] = event.completion
            else:
                assert isinstance(event, TokenChunk) and event.num_tokens >= 0
                assert len(event.entropies) in (0, event.num_tokens)
                self.chunks.setdefault(event.request_id, []).append(event)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(subject: Subject) -> Iterator[None]:
    """A test that failed half-way does not spoil the next."""
    yield
    if "shared" in vars(subject):
        for name in [*map(str, range(64)), *"abcdefgh"]:
            subject.shared.abort(request_id=name)
        end_s = time.monotonic() + 5
        while time.monotonic() < end_s and list(subject.shared.events(0.05)):
            pass


def listen(subject: Subject, generator: Generator, expected: int, heard: Heard | None = None) -> Heard:
    """All events until so many requests have ended."""
    heard = heard or Heard()
    end_s = time.monotonic() + subject.wait_s
    while len(heard.finished) < expected:
        assert time.monotonic() < end_s, f"only {len(heard.finished)} of {expected} ended in {subject.wait_s} s"
        heard.take(generator)
    assert list(generator.events(0.0)) == []
    return heard


def answers(subject: Subject, *requests: GenerateRequest, generator: Generator | None = None) -> Heard:
    generator = generator or subject.shared
    for request in requests:
        generator.submit(request)
    heard = listen(subject, generator, len(requests))
    for request in requests:
        check(subject, request, heard)
    return heard


def answer(subject: Subject, request: GenerateRequest) -> Completion:
    return answers(subject, request).finished[request.request_id]


def advance(subject: Subject, generator: Generator, num_tokens: int, *requests: GenerateRequest) -> Heard:
    """Submit, and wait until the last request has told of so many tokens and has not ended.

    A small model on a busy machine may be done before it is looked at: then all is asked again.
    """
    name = requests[-1].request_id
    for _ in range(8):
        for request in requests:
            generator.submit(request)
        heard, end_s = Heard(), time.monotonic() + subject.wait_s
        while heard.count(name) < num_tokens and name not in heard.finished:
            assert time.monotonic() < end_s, f"{heard.count(name)} tokens of {name!r} in {subject.wait_s} s"
            heard.take(generator)
        if name not in heard.finished:
            return heard
        listen(subject, generator, len(requests), heard)
    raise AssertionError(f"{name!r} ended early, again and again: {heard.finished[name]}")


def check(subject: Subject, request: GenerateRequest, heard: Heard) -> None:
    """What holds for every completion that is no error."""
    done, able, sampling = heard.finished[request.request_id], subject.capabilities, request.sampling
    assert done.error is None and done.finish_reason in ("stop", "length", "abort"), done
    num = done.num_tokens
    assert done.usage.output == num <= sampling.max_tokens
    assert done.usage.prompt > 0 or done.finish_reason == "abort" or (done.stop and not subject.tells_prompt)
    assert 0 <= done.usage.cached <= done.usage.prompt
    assert heard.count(request.request_id) <= num
    told = heard.text(request.request_id)
    whole = done.text + (done.stop or "" if not sampling.include_stop else "")
    assert whole.startswith(told) or "\ufffd" in done.text, "what was told in chunks is not what was written"
    if done.stop is not None:
        assert done.finish_reason == "stop" and done.stop in sampling.stop
        assert done.text.endswith(done.stop) == sampling.include_stop or done.text.count(done.stop)
    if done.finish_reason == "length":
        assert num == sampling.max_tokens and done.stop is None
    assert len(done.token_ids) == (num if able.token_ids else 0)
    assert len(done.entropies) == (num if able.entropies else 0)
    assert all(entropy >= -1e-6 for entropy in done.entropies)
    check_logprobs(subject, done, able, sampling.num_logprobs)


def check_logprobs(subject: Subject, done: Completion, able: Capabilities, num_logprobs: int) -> None:
    num = done.num_tokens
    if able.logprobs and not subject.tells_end:
        assert bool(done.text) <= len(done.logprobs) <= num
        num = len(done.logprobs)
    assert len(done.logprobs) == (num if able.logprobs else 0)
    assert all(logprob <= 1e-6 and not math.isnan(logprob) for logprob in done.logprobs)
    assert len(done.top_means) in (0, num)
    assert all(mean <= 1e-6 for mean in done.top_means)
    assert len(done.top_logprobs) == (num if num_logprobs and able.logprobs else 0)
    for top in done.top_logprobs:
        values = [item.logprob for item in top]
        assert 0 < len(top) <= num_logprobs and values == sorted(values, reverse=True)
        ids = [item.token_id for item in top]
        assert (min(ids) >= 0 and len(set(ids)) == len(ids)) or (not able.token_ids and set(ids) == {-1})


def test_chunks_and_completion_agree(subject: Subject) -> None:
    heard = answers(subject, subject.ask())
    done = heard.finished["a"]
    assert (done.finish_reason, done.stop, done.num_tokens) == ("length", None, 24)
    assert heard.count("a") >= 16 and heard.text("a"), "an answer is told as it comes"
    assert len(heard.chunks["a"]) > 2


def test_greedy_answers_repeat(subject: Subject) -> None:
    first, again = answer(subject, subject.ask()), answer(subject, subject.ask(seed=99))
    if not subject.deterministic:
        pytest.skip("greedy answers of this one may differ")
    assert (first.text, first.token_ids) == (again.text, again.token_ids)


def test_a_seed_gives_the_same_alone_and_in_company(subject: Subject) -> None:
    requests = [subject.ask(str(i), temperature=subject.hot, seed=i, max_tokens=8 + i, group="g") for i in range(5)]
    together = answers(subject, *requests).finished
    if not subject.capabilities.seeds:
        return
    for request in requests:
        alone = answer(subject, request)
        assert (alone.token_ids, alone.text) == (
            together[request.request_id].token_ids,
            together[request.request_id].text,
        )


def test_other_seeds_give_other_answers(subject: Subject) -> None:
    if subject.say is not None:
        pytest.skip("says what it is told to")
    requests = [subject.ask(str(i), temperature=subject.hot, seed=1000 + i) for i in range(4)]
    assert len({done.text for done in answers(subject, *requests).finished.values()}) > 1


def test_one_token_is_enough(subject: Subject) -> None:
    done = answer(subject, subject.ask(max_tokens=1))
    assert (done.num_tokens, done.finish_reason) == (1, "length")


def stop_in(text: str) -> str:
    """Three characters from the middle of a text that stand there for the first time."""
    for i in range(4, len(text) - 3):
        stop = text[i : i + 3]
        if "\ufffd" not in stop and text.index(stop) == i and stop.strip() == stop and len(set(stop)) > 1:
            return stop
    pytest.skip(f"no stop string can be taken from {text!r}")


@pytest.mark.parametrize("include_stop", [True, False])
def test_a_stop_string_ends_the_text(subject: Subject, include_stop: bool) -> None:
    hot = {"temperature": subject.hot, "seed": 5} if subject.capabilities.seeds else {}
    whole = answer(subject, subject.ask(**hot)).text
    stop = stop_in(whole)
    done = answer(subject, subject.ask(**hot, stop=("never said", stop), include_stop=include_stop))
    assert (done.finish_reason, done.stop) == ("stop", stop)
    if subject.deterministic:
        assert done.text == whole[: whole.index(stop) + (len(stop) if include_stop else 0)]
    else:
        assert (stop in done.text) == include_stop
    assert 0 < done.num_tokens <= 24


def test_the_stop_string_that_ends_first_wins(subject: Subject) -> None:
    if subject.say is None:
        pytest.skip("its text is not known beforehand")
    chat = subject.say("one two ```output\nthree four")
    for stop in ("```output", "```output\n", "two", " ```out", "\nthree fo"):
        done = answer(subject, replace(subject.ask(stop=("four", stop), max_tokens=60), messages=chat))
        text = "one two ```output\nthree four"
        assert (done.text, done.stop) == (text[: text.index(stop) + len(stop)], stop)


def test_a_stop_string_in_the_prompt_is_not_looked_for(subject: Subject) -> None:
    words = subject.chat[-1].content.split()
    said = answer(subject, subject.ask()).text
    stop = next((word for word in words if word not in said), None)
    if stop is None:
        pytest.skip(f"all words of the prompt are said: {said!r}")
    assert answer(subject, subject.ask(stop=(stop,))).finish_reason == "length"


def test_end_of_text_is_a_stop(subject: Subject) -> None:
    if subject.ending is None:
        pytest.skip("no answer of this one ends by itself")
    request = replace(subject.ask(max_tokens=64, stop=("never said",)), messages=subject.ending)
    done = answer(subject, request)
    assert (done.finish_reason, done.stop) == ("stop", None)
    assert 0 < done.num_tokens < 64
    if subject.say is None:
        assert "<|" not in done.text, "the end of text spells nothing"


def test_the_end_of_text_can_be_ignored(subject: Subject) -> None:
    if subject.ignores_eos is None:
        with pytest.raises(EngineError, match="ignore_eos"):
            subject.shared.submit(subject.ask(ignore_eos=True))
        return
    if subject.ending is None or not subject.ignores_eos:
        pytest.skip("no answer ends by itself" if subject.ending is None else "a script has an end")
    request = replace(subject.ask(max_tokens=40, ignore_eos=True), messages=subject.ending)
    done = answer(subject, request)
    assert (done.finish_reason, done.num_tokens) == ("length", 40)


def test_a_stop_id_ends_it(subject: Subject) -> None:
    if not subject.stop_ids:
        with pytest.raises(EngineError, match="stop_token_ids"):
            subject.shared.submit(subject.ask(stop_token_ids=(5,)))
        return
    ids = answer(subject, subject.ask()).token_ids
    done = answer(subject, subject.ask(stop_token_ids=(ids[5],)))
    assert (done.finish_reason, done.stop) == ("stop", None)
    if subject.deterministic:
        assert done.token_ids == ids[: ids.index(ids[5]) + 1]


def test_logprobs_are_told_for_each_token(subject: Subject) -> None:
    done = answer(subject, subject.ask(num_logprobs=3))
    if subject.capabilities.logprobs and subject.capabilities.token_ids:
        for token_id, logprob, top in zip(done.token_ids, done.logprobs, done.top_logprobs, strict=True):
            assert top[0].logprob >= logprob - 1e-3
            assert all(abs(item.logprob - logprob) < 1e-3 for item in top if item.token_id == token_id)
    capped = answer(subject, subject.ask(temperature=subject.hot, num_logprobs=20, max_tokens=8))
    assert capped.num_tokens == 8


def test_filters_are_applied_or_refused(subject: Subject) -> None:
    hot = {"temperature": subject.hot, "seed": 3}
    for filtered in ({"top_k": 1}, {"min_p": 1.0}):
        if not subject.capabilities.top_k:
            with pytest.raises(EngineError, match="top_k|min_p"):
                subject.shared.submit(subject.ask(**hot, **filtered))
        else:
            done = answer(subject, subject.ask(**hot, **filtered))
            if subject.deterministic:
                assert done.text == answer(subject, subject.ask()).text, "the likeliest token is the only one left"
    assert answer(subject, subject.ask(**hot, top_p=0.5)).num_tokens > 0


def test_an_abort_keeps_what_was_written(subject: Subject) -> None:
    generator = subject.shared
    request = subject.long()
    heard = advance(subject, generator, 3, request)
    generator.abort(request_id="a")
    generator.abort(request_id="a")
    listen(subject, generator, 1, heard)
    check(subject, request, heard)
    done = heard.finished["a"]
    assert done.finish_reason == "abort" and done.num_tokens >= heard.count("a") >= 3
    assert done.text.startswith(heard.text("a"))


def test_an_abort_before_the_first_token(subject: Subject) -> None:
    generator = subject.shared
    generator.submit(subject.ask())
    generator.abort(request_id="a")
    done = listen(subject, generator, 1).finished["a"]
    assert done.finish_reason == "abort" and done.error is None
    generator.abort(request_id="a")
    generator.abort(group="never heard of")
    assert list(generator.events(0.0)) == []


def test_siblings_end_together_and_others_go_on(subject: Subject) -> None:
    generator = subject.shared
    groups = {"a": "x", "b": "x", "d": None, "c": "y"}
    heard = advance(subject, generator, 2, *(subject.long(name, group) for name, group in groups.items()))
    generator.abort(group="x")
    listen(subject, generator, 4, heard)
    reasons = {name: done.finish_reason for name, done in heard.finished.items()}
    assert "abort" not in (reasons["c"], reasons["d"])
    assert "abort" in (reasons["a"], reasons["b"])
    for name in groups:
        check(subject, subject.long(name), heard)


def test_an_id_can_be_used_again_after_its_end_only(subject: Subject) -> None:
    generator = subject.shared
    generator.submit(subject.ask())
    with pytest.raises(EngineError, match="'a' is in use"):
        generator.submit(subject.ask())
    generator.abort(request_id="a")
    with pytest.raises(EngineError, match="'a' is in use"):
        generator.submit(subject.ask())
    assert listen(subject, generator, 1).finished["a"].finish_reason == "abort"
    assert answer(subject, subject.ask()).finish_reason == "length"


def test_a_prompt_that_can_never_fit_is_told(subject: Subject) -> None:
    if subject.too_long is None:
        pytest.skip("everything fits")
    generator = subject.shared
    request = replace(subject.ask(), messages=subject.too_long)
    try:
        generator.submit(request)
    except EngineError as error:
        assert "token" in str(error) or "context" in str(error)
    else:
        done = listen(subject, generator, 1).finished["a"]
        assert done.finish_reason == "error" and done.error and done.num_tokens == 0
    assert answer(subject, subject.ask()).finish_reason == "length", "it goes on with others"


def test_usage_counts_the_prompt(subject: Subject) -> None:
    short = answer(subject, subject.ask()).usage
    more = (*subject.chat[:-1], Message("user", subject.chat[-1].content + " one two three four" * 2))
    longer = answer(subject, replace(subject.ask(), messages=more)).usage
    assert longer.prompt >= short.prompt + 8
    assert short.forced == short.discarded == 0


def test_a_second_turn_goes_on_with_the_first(subject: Subject) -> None:
    whole = answer(subject, subject.ask(max_tokens=16))
    first = answer(subject, subject.ask(max_tokens=8))
    begun = replace(subject.ask("b", max_tokens=8), continuation=(Span(first.text, first.token_ids),))
    second = answer(subject, begun)
    assert second.usage.prompt > first.usage.prompt
    if subject.capabilities.continuation and subject.deterministic and "\ufffd" not in first.text:
        assert first.text + second.text == whole.text
    if subject.capabilities.continuation and subject.capabilities.token_ids and subject.deterministic:
        assert first.token_ids + second.token_ids == whole.token_ids


def test_what_was_inserted_is_read(subject: Subject) -> None:
    first = answer(subject, subject.ask(max_tokens=8))
    alone = answer(subject, replace(subject.ask(max_tokens=8), continuation=(Span(first.text, first.token_ids),)))
    spans = (Span(first.text, first.token_ids), Span("\n```output\n2\n```\n"))
    for more in (spans, (*spans, Span("So", ()), Span(" \\boxed{2}"))):
        done = answer(subject, replace(subject.ask("b", max_tokens=8), continuation=more))
        assert done.num_tokens > 0 and done.usage.prompt > alone.usage.prompt


def test_going_back(subject: Subject) -> None:
    generator = subject.shared
    heat = subject.hot if subject.capabilities.seeds else 0.0
    request = subject.long(temperature=heat, seed=5)
    if not subject.capabilities.rewinding:
        generator.submit(request)
        with pytest.raises(EngineError, match="go back|rewind"):
            generator.rewind("a", 0, request.sampling)
        generator.abort(request_id="a")
        assert listen(subject, generator, 1).finished["a"].finish_reason == "abort"
        return
    whole = answer(subject, request)
    before = advance(subject, generator, 6, request)
    kept, num_told = before.chunks["a"][0], before.count("a")
    generator.rewind("a", kept.num_tokens, request.sampling)
    heard = listen(subject, generator, 1)
    check(subject, request, Heard(heard.finished))
    done = heard.finished["a"]
    assert done.usage.discarded >= num_told - kept.num_tokens
    assert done.text.startswith(kept.text) or "\ufffd" in done.text
    assert done.text.endswith(heard.text("a")[-1:]) or done.stop or len(heard.text("a")) < len(done.text)
    if subject.capabilities.seeds:
        assert (done.token_ids, done.text) == (whole.token_ids, whole.text)


def test_it_cannot_go_back_to_what_was_not(subject: Subject) -> None:
    generator = subject.shared
    with pytest.raises(EngineError, match="'a'"):
        generator.rewind("a", 0, subject.ask().sampling)
    running = subject.long()
    heard = advance(subject, generator, 2, running)
    for num_tokens, sampling in (
        (subject.num_long, running.sampling),
        (-1, running.sampling),
        (1, replace(running.sampling, max_tokens=1)),
        (1, replace(running.sampling, stop=("x",))),
    ):
        with pytest.raises(EngineError, match="'a'"):
            generator.rewind("a", num_tokens, sampling)
    assert listen(subject, generator, 1, heard).finished["a"].usage.discarded == 0


class Anything:
    """A constraint that allows everything."""

    terminated = False

    def accept(self, token_ids: Sequence[int]) -> bool:
        return True

    def validate(self, token_ids: Sequence[int]) -> int:
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        return None

    def fill_mask(self, mask: memoryview) -> None:
        mask[:] = memoryview(bytes([255] * mask.nbytes)).cast(mask.format)  # type: ignore[call-overload]

    def copy(self) -> Anything:
        return self


def test_constraints_are_kept_to_or_refused(subject: Subject) -> None:
    if not subject.capabilities.constraints:
        with pytest.raises(EngineError, match="constraint"):
            subject.shared.submit(replace(subject.ask(), constraint=Anything()))
        assert list(subject.shared.events(0.0)) == []
        return
    assert subject.constraint is not None, "a subject with constraints brings one"
    for seed in range(3):
        constraint = subject.constraint()
        unread = constraint.copy()
        request = replace(subject.ask(temperature=subject.hot, seed=seed), constraint=constraint)
        ids = answer(subject, request).token_ids
        assert unread.validate(ids) == len(ids) > 0


def test_thinking_is_closed_in_time_or_refused(subject: Subject) -> None:
    request = replace(subject.ask(max_tokens=40, thinking_budget=4), continuation=(Span("<think>"),))
    if not subject.capabilities.thinking_budget:
        with pytest.raises(EngineError, match="thinking_budget"):
            subject.shared.submit(request)
        assert list(subject.shared.events(0.0)) == []
        return
    done = answer(subject, request)
    assert "</think>" in done.text and done.usage.forced > 0


def test_priorities_are_taken(subject: Subject) -> None:
    requests = [replace(subject.ask(str(i), max_tokens=6), priority=priority) for i, priority in enumerate((5, -3, 0))]
    assert len(answers(subject, *requests).finished) == 3


def test_many_at_once(subject: Subject) -> None:
    generator, num = subject.shared, subject.num_requests
    requests = [
        replace(subject.ask(str(i), group=f"g{i % 4}", max_tokens=4 + i % 8, temperature=subject.hot, seed=i))
        for i in range(num)
    ]
    for request in requests:
        generator.submit(request)
    heard = Heard()
    while not heard.finished:
        heard.take(generator)
    generator.abort(group="g3")
    listen(subject, generator, num, heard)
    for request in requests:
        check(subject, request, heard)
        if request.group != "g3":
            assert heard.finished[request.request_id].finish_reason != "abort"


def test_events_come_back_in_time(subject: Subject) -> None:
    generator = subject.shared
    start_s = time.monotonic()
    assert list(generator.events(0.05)) == []
    assert time.monotonic() - start_s < 0.05 + subject.slack_s
    generator.submit(subject.ask())
    heard = Heard()
    while not heard.finished:
        start_s = time.monotonic()
        heard.take(generator, 0.02)
        assert time.monotonic() - start_s < 0.02 + subject.slack_s


def test_all_characters_are_said(subject: Subject) -> None:
    if subject.say is None:
        pytest.skip("its text is not known beforehand")
    text = (
        "naïve 😀 \u2211\u222b 数学 \u0645\u0631 é\u0301 <|im_end|> </think> \\(x<y\\) \x0b\u2028 data: [DONE]\n\nend"
    )
    heard = answers(subject, replace(subject.ask(max_tokens=200), messages=subject.say(text)))
    assert (heard.finished["a"].text, heard.finished["a"].finish_reason) == (text, "stop")


def test_broken_characters_are_told_whole(subject: Subject) -> None:
    requests = [subject.ask(str(i), temperature=4.0 * subject.hot, seed=i, max_tokens=16) for i in range(4)]
    heard = answers(subject, *requests)
    for request in requests:
        heard.finished[request.request_id].text.encode()  # no half of a pair


def test_a_user_cannot_bring_control_tokens_in(subject: Subject) -> None:
    if subject.control_token is None:
        pytest.skip("its control tokens are not known")
    plain = answer(subject, subject.ask(max_tokens=2)).usage.prompt
    hostile = (*subject.chat[:-1], Message("user", subject.chat[-1].content + f" {subject.control_token}" * 8))
    assert answer(subject, replace(subject.ask(max_tokens=2), messages=hostile)).usage.prompt >= plain + 24
    spans = (Span("So" + f" {subject.control_token}" * 8),)
    inserted = answer(subject, replace(subject.ask(max_tokens=2), continuation=spans)).usage.prompt
    assert inserted >= plain + 24


def test_empty_and_odd_messages_are_taken(subject: Subject) -> None:
    for messages in (
        (Message("user", ""),),
        (Message("user", "\x00\x07 \ud7ff\u200b\ufeff"),),
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c")),
    ):
        answer(subject, replace(subject.ask(max_tokens=4), messages=messages))


def test_close_ends_everything_and_can_be_repeated(subject: Subject) -> None:
    generator = subject.make() if subject.remakes else subject.shared
    generator.submit(subject.long())
    list(generator.events(0.01))
    generator.close()
    generator.close()
    assert [event for event in generator.events(0.01) if not isinstance(event, Finished)] == []
