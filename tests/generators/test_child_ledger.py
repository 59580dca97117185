"""The account of requests, without a process: which an engine gets again, and which it is not to get any more."""

from __future__ import annotations

import pickle
from dataclasses import replace

from mathlete.core.generation import (
    Capabilities,
    Finished,
    GenerateRequest,
    Message,
    SamplingParams,
    TokenChunk,
    TokenConstraint,
)
from mathlete.generators.child_ledger import RequestLedger
from mathlete.generators.child_messages import News, Submit
from mathlete.generators.scripted import CAPABILITIES


class Engine:
    """What the other side would do: takes what it is asked, says a token of each request when it is told to."""

    def __init__(self, able: Capabilities = CAPABILITIES) -> None:
        self.able = able
        self.ledger = RequestLedger(able)
        self.has: dict[str, int] = {}
        self.errors: dict[str, str | None] = {}

    def ask(self, name: str, constraint: TokenConstraint | None = None) -> None:
        params = SamplingParams(max_tokens=60)
        self.ledger.submit(GenerateRequest(name, (Message("user", name),), params, "g", constraint=constraint))

    def start(self) -> list[str]:
        """A new one; the requests that it has been given."""
        self.ledger.came_up(self.able)
        return self.take()

    def take(self) -> list[str]:
        asked = [message for message in map(pickle.loads, self.ledger.take_messages()) if isinstance(message, Submit)]
        self.has |= {message.request.request_id: message.key for message in asked}
        return [message.request.request_id for message in asked]

    def say(self, name: str, num: int = 1) -> list[str]:
        """The next tokens of a request; what it is given thereupon."""
        for _ in range(num):
            self.ledger.take_news(News(((self.has[name], TokenChunk(name, "x", 1)),)))
        return self.take()

    def die(self) -> bool:
        self.has.clear()
        is_of_request = self.ledger.went_down()
        ends = [event for event in self.ledger.take_events() if isinstance(event, Finished)]
        self.errors |= {event.request_id: event.completion.error for event in ends}
        return is_of_request


def test_after_two_deaths_requests_come_one_at_a_time() -> None:
    engine = Engine()
    for name in ("a", "b", "c"):
        engine.ask(name)
    assert engine.start() == ["a", "b", "c"] and not engine.die()
    assert engine.start() == ["a", "b", "c"] and not engine.die()
    assert engine.start() == ["a"], "the others wait until it has survived this one"
    engine.ask("new")
    assert engine.take() == ["new"], "which was there at no death"
    assert engine.say("a") == ["b"]
    assert engine.die() and list(engine.errors) == ["b"] and "died" in (engine.errors["b"] or "")
    assert engine.start() == ["new", "a"] and engine.say("a") == ["c"]


def test_what_kills_late_is_found_too() -> None:
    """Each is alone until it is beyond where it was when the last engine died."""
    engine = Engine()
    for name in ("a", "bad"):
        engine.ask(name)
    for _ in range(2):
        engine.start()
        for name in ("a", "bad"):
            engine.say(name, 5)
        assert not engine.die()
    assert engine.start() == ["a"] and engine.say("a", 1) == ["bad"], "after its first token"
    engine.say("bad", 5)
    assert not engine.die(), "nobody was on trial any more"
    assert engine.start() == ["a"] and engine.say("a", 5) == [] and engine.say("a", 1) == ["bad"]
    engine.say("bad", 5)
    assert engine.die() and list(engine.errors) == ["bad"]


def test_an_end_makes_way_for_the_next() -> None:
    engine = Engine()
    for name in ("a", "b"):
        engine.ask(name)
    for _ in range(2):
        engine.start()
        engine.die()
    assert engine.start() == ["a"]
    engine.ledger.abort("b", None)
    assert engine.ledger.num_in_flight == 1, "one that no engine has ends at once"
    engine.ask("c")
    engine.ledger.abort("a", None)
    assert engine.take() == ["c"] and not engine.die()
    assert list(engine.errors.values()) == [None, None], "ended, and not blamed"


def test_what_cannot_be_taken_up_again_ends_and_the_others_go_on() -> None:
    engine = Engine(replace(CAPABILITIES, constraints=True, seeds=False))
    engine.ask("constrained", object())  # type: ignore[arg-type]  # of no kind that can be made anew
    engine.ask("a")
    engine.start()
    engine.say("constrained", 3)
    engine.die()
    assert engine.start() == ["a"]
    engine.die()
    assert "constraint" in (engine.errors["constrained"] or "")
