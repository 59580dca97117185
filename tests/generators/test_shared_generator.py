"""Several runs on one generator: nobody gets another's events, and whoever goes takes only their own along."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mathlete.core.errors import EngineError
from mathlete.core.generation import Finished, GenerateRequest, GeneratorEvent, Message, SamplingParams
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.generators.shared import GeneratorClient, SharedGenerator


def request(name: str, says: str, group: str = "problem") -> GenerateRequest:
    return GenerateRequest(name, (Message("user", says),), SamplingParams(max_tokens=500), group=group)


def echo(asked: GenerateRequest) -> Reply:
    return Reply.saying(asked.messages[-1].content, token_s=0.002)


class Fragile(ScriptedGenerator):
    """Fails when it is told to, and knows which threads called it."""

    broken = False
    threads: set[int]

    def __init__(self) -> None:
        super().__init__(echo)
        self.threads = set()

    def submit(self, request: GenerateRequest) -> None:
        self.threads.add(threading.get_ident())
        super().submit(request)

    def events(self, timeout_s: float) -> list[GeneratorEvent]:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise EngineError("the card fell off the bus")
        return list(super().events(timeout_s))


@pytest.fixture
def shared() -> Iterator[SharedGenerator]:
    made = SharedGenerator(Fragile())
    yield made
    made.close()


def finish(client: GeneratorClient, number: int, within_s: float = 10.0) -> dict[str, Finished]:
    ended: dict[str, Finished] = {}
    end_s = time.monotonic() + within_s
    while len(ended) < number and time.monotonic() < end_s:
        ended |= {event.request_id: event for event in client.events(0.05) if isinstance(event, Finished)}
    assert len(ended) == number
    return ended


def test_same_names_of_several_clients(shared: SharedGenerator) -> None:
    clients = [shared.client() for _ in range(4)]
    for number, client in enumerate(clients):
        for index in range(3):
            client.submit(request(f"problem#{index}/0", f"I am {number}, {index}"))
    for number, client in enumerate(clients):
        ended = finish(client, 3)
        texts = {name: event.completion.text for name, event in ended.items()}
        assert texts == {f"problem#{index}/0": f"I am {number}, {index}" for index in range(3)}
        assert client.num_running == 0 and client.usage.output == 3 * 5 and client.usage.prompt == 3 * 4
    assert isinstance(shared.generator, Fragile)
    assert len(shared.generator.threads) == 1 and threading.get_ident() not in shared.generator.threads


def test_a_group_is_aborted_for_its_client_only(shared: SharedGenerator) -> None:
    one, other = shared.client(), shared.client()
    long = "word " * 300
    one.submit(request("a", long))
    one.submit(request("b", "short", group="another"))
    other.submit(request("a", "short enough"))
    one.abort(group="problem")
    ended = finish(one, 2)
    assert ended["a"].completion.finish_reason == "abort" and ended["b"].completion.finish_reason == "stop"
    assert finish(other, 1)["a"].completion.text == "short enough"


def test_a_client_that_closes_takes_its_requests_along(shared: SharedGenerator) -> None:
    one, other = shared.client(), shared.client()
    one.submit(request("a", "word " * 400))
    other.submit(request("a", "word " * 20))
    one.close()
    one.close()
    finish(other, 1)
    assert isinstance(shared.generator, ScriptedGenerator)
    deadline_s = time.monotonic() + 5
    while shared.call(lambda: shared.generator._running) and time.monotonic() < deadline_s:  # type: ignore[attr-defined]
        time.sleep(0.01)
    assert not shared.call(lambda: shared.generator._running)  # type: ignore[attr-defined]


def test_a_refused_request_is_its_clients_alone(shared: SharedGenerator) -> None:
    one, other = shared.client(), shared.client()
    one.submit(request("a", "here"))
    with pytest.raises(EngineError, match="in use"):
        one.submit(request("a", "here"))
    other.submit(request("a", "there"))
    assert finish(other, 1)["a"].completion.text == "there" and finish(one, 1)["a"].completion.text == "here"
    with pytest.raises(EngineError, match="cannot go back"):
        one.rewind("a", 0, SamplingParams())


def test_when_the_generator_fails_everybody_hears_of_it(shared: SharedGenerator) -> None:
    one, other = shared.client(), shared.client()
    one.submit(request("a", "word " * 400))
    other.submit(request("a", "word " * 400))
    shared.generator.broken = True  # type: ignore[attr-defined]
    for client in (one, other):
        with pytest.raises(EngineError, match="fell off the bus"):
            finish(client, 1)
    with pytest.raises(EngineError, match="fell off the bus"):
        one.submit(request("b", "again"))
    assert shared.failure == "the card fell off the bus"
    one.close()


def test_nothing_works_once_it_is_closed() -> None:
    shared = SharedGenerator(Fragile())
    client = shared.client()
    client.submit(request("a", "word " * 400))
    shared.close()
    shared.close()
    with pytest.raises(EngineError, match="closed"):
        client.submit(request("b", "more"))
    client.close()
