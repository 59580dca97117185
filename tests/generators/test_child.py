"""An engine in a process of its own that dies: nothing is lost, nothing is told twice, nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_children import WORDS

from mathlete.core.errors import EngineError, InputError
from mathlete.core.generation import (
    Completion,
    Finished,
    GenerateRequest,
    GeneratorEvent,
    Message,
    SamplingParams,
    Span,
    TokenChunk,
)
from mathlete.generators.child import ChildGenerator, RestartLimits
from mathlete.generators.child_messages import Load
from mathlete.generators.scripted import CAPABILITIES

QUICK = RestartLimits(max_restarts=5, backoff_s=0.01)
WAIT_S = 30.0

Start = Callable[..., ChildGenerator]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a generator; those that are left are closed, and leave no process."""
    made: list[ChildGenerator] = []

    def begin(function: str, *arguments: object, limits: RestartLimits = QUICK) -> ChildGenerator:
        made.append(ChildGenerator(Load(f"scripted_children:{function}", arguments), limits=limits))
        return made[-1]

    yield begin
    pids = [generator.pid for generator in made]
    for generator in made:
        generator.close()
    for pid in pids:
        assert pid is None or not is_there(pid)


def is_there(pid: int) -> bool:
    """Whether there is a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(name: str, seed: int = 0, **sampling: object) -> GenerateRequest:
    params = SamplingParams(**{"max_tokens": 60, "seed": seed, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(name, (Message("user", "Count."),), params, group=f"g{seed % 2}")


class Listener:
    """All that a generator told."""

    def __init__(self, generator: ChildGenerator) -> None:
        self.generator = generator
        self.finished: dict[str, Completion] = {}
        self.chunks: dict[str, list[TokenChunk]] = {}

    def take(self, timeout_s: float = 0.05) -> list[GeneratorEvent]:
        start_s = time.monotonic()
        events = list(self.generator.events(timeout_s))
        assert time.monotonic() - start_s < timeout_s + 0.5, "the driver waits no longer than it says"
        for event in events:
            assert event.request_id not in self.finished, "an event after the end"
            if isinstance(event, Finished):
                self.finished[event.request_id] = event.completion
            else:
                assert isinstance(event, TokenChunk)
                self.chunks.setdefault(event.request_id, []).append(event)
        return events

    def until(self, condition: Callable[[], object]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end_s, (self.finished, {key: self.count(key) for key in self.chunks})
            self.take()

    def until_ended(self, num: int) -> dict[str, Completion]:
        self.until(lambda: len(self.finished) == num)
        return self.finished

    def text(self, name: str) -> str:
        return "".join(chunk.text for chunk in self.chunks.get(name, []))

    def count(self, name: str) -> int:
        return sum(chunk.num_tokens for chunk in self.chunks.get(name, []))

    def kill(self) -> int:
        """Kill the process as the system does when memory runs out; wait until there is none or another one."""
        pid = self.generator.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        end_s = time.monotonic() + WAIT_S
        while self.generator.pid == pid and time.monotonic() < end_s:
            time.sleep(0.001)
        return pid


def numbers(seed: int, num: int = 60) -> str:
    return " ".join(f"{seed}.{i}" for i in range(num))


def test_what_is_known_of_the_engine_comes_over(start: Start) -> None:
    told: list[tuple[str, int, int]] = []
    load = Load("scripted_children:load_scripted", (0.0, CAPABILITIES))
    generator = ChildGenerator(load, lambda *step: told.append(step))
    facts = generator.facts
    assert (facts.description, facts.tokens_per_s, facts.capabilities) == ("scripted", 100.0, CAPABILITIES)
    assert facts.warnings == ("it only says what it is told to",)
    assert told == [("Learning the script", 1, 1)]
    pid = generator.pid
    assert pid is not None and is_there(pid)
    generator.close()
    assert not is_there(pid), "ended and reaped"
    with pytest.raises(EngineError, match="closed"):
        generator.submit(ask("a"))


def test_killed_in_the_middle_every_request_ends_as_if_it_had_not_been(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004))
    for i in range(8):
        listener.generator.submit(ask(str(i), i))
    listener.until(lambda: all(listener.count(str(i)) >= 10 for i in range(8)))
    pid = listener.kill()
    assert not is_there(pid)
    listener.generator.submit(ask("late", 9))  # whatever it is doing
    finished = listener.until_ended(9)
    for i in range(8):
        done = finished[str(i)]
        assert (done.text, done.finish_reason) == (numbers(i), "length")
        assert done.num_tokens == len(done.token_ids) == len(done.logprobs) == 60
        assert done.usage.discarded >= 10
        assert done.text.startswith(listener.text(str(i))) and 59 <= listener.count(str(i)) <= 60, "told once"
    assert finished["late"].text == numbers(9) and finished["late"].usage.discarded == 0
    (warning,) = listener.generator.take_warnings()
    assert f"process {pid}" in warning and "SIGKILL" in warning and "8 requests in flight" in warning
    assert "1 of at most 5" in warning and listener.generator.take_warnings() == ()


def test_killed_twice(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004))
    for i in range(4):
        listener.generator.submit(ask(str(i), i))
    for num in (10, 25):
        listener.until(lambda num=num: listener.count("0") >= num)  # type: ignore[misc]
        listener.kill()
    finished = listener.until_ended(4)
    assert [finished[str(i)].text for i in range(4)] == [numbers(i) for i in range(4)]
    assert len(listener.generator.take_warnings()) == 2


def test_killed_while_it_repeats(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004))
    listener.generator.submit(ask("a", 3))
    listener.until(lambda: listener.count("a") >= 30)
    listener.kill()
    listener.until(lambda: listener.generator.pid is not None)
    time.sleep(0.3)  # it starts, or repeats what was told
    listener.kill()
    assert listener.until_ended(1)["a"].text == numbers(3)


def test_where_seeds_do_not_repeat_it_goes_on_behind_what_was_told(start: Start) -> None:
    able = replace(CAPABILITIES, seeds=False)
    listener = Listener(start("load_scripted", 0.004, able))
    alone = Listener(start("load_scripted", 0.0, able))
    for one in (listener, alone):
        one.generator.submit(ask("a"))
    listener.until(lambda: listener.count("a") >= 12)
    listener.kill()
    done, whole = listener.until_ended(1)["a"], alone.until_ended(1)["a"]
    assert done.text == whole.text and done.num_tokens == whole.num_tokens
    assert (done.token_ids, done.logprobs) == ((), ()), "not known of what was written before"
    assert len(done.entropies) == done.usage.output == whole.usage.output
    assert done.text.startswith(listener.text("a")) and done.usage.prompt == whole.usage.prompt
    assert done.usage.discarded == 0


def test_what_does_not_repeat_although_it_should_goes_on_too(start: Start) -> None:
    listener = Listener(start("load_fickle", 0.004))
    listener.generator.submit(ask("a", max_tokens=30))
    listener.until(lambda: listener.count("a") >= 10)
    pid = listener.kill()
    done = listener.until_ended(1)["a"]
    told = done.text.split()
    assert done.text.startswith(listener.text("a")), "what was told stands"
    assert told[0] == f"{pid}.0" and not told[-1].startswith(str(pid))
    assert done.usage.output == 30 and done.usage.discarded > 0


def test_ends_that_were_asked_for_while_it_was_dead(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004, limits=RestartLimits(3, backoff_s=0.5)))
    for i in range(4):
        listener.generator.submit(ask(str(i), i))
    listener.until(lambda: listener.count("3") >= 5)
    listener.kill()
    listener.generator.abort(group="g0")
    listener.take(0.0)
    assert {name: done.finish_reason for name, done in listener.finished.items()} == {"0": "abort", "2": "abort"}
    assert listener.finished["0"].text == listener.text("0") and listener.finished["0"].usage.output >= 5
    assert listener.until_ended(4)["1"].text == numbers(1)


def test_going_back_survives_a_death(start: Start) -> None:
    """What it wrote after going back comes again, token for token."""
    listener = Listener(start("load_seeded", 0.004))
    request = ask("a", 1)
    listener.generator.submit(request)
    listener.until(lambda: listener.count("a") >= 20)
    listener.generator.rewind("a", 10, replace(request.sampling, seed=2))
    kept = listener.chunks["a"][:10]
    listener.chunks["a"] = kept
    listener.until(lambda: listener.count("a") >= 25)
    told = listener.text("a")
    assert told.split()[9] == "1.9" and told.split()[10] == "2.10"
    listener.kill()
    done = listener.until_ended(1)["a"]
    assert done.text == f"{numbers(1, 10)} {' '.join(f'2.{i}' for i in range(10, 60))}"
    assert done.num_tokens == len(done.token_ids) == 60 and done.usage.discarded >= 10
    assert done.text.startswith(listener.text("a")) and listener.count("a") >= 59


def test_after_the_last_restart_every_request_has_its_error(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004, limits=RestartLimits(1, backoff_s=0.01)))
    for i in range(3):
        listener.generator.submit(ask(str(i), i))
    listener.until(lambda: listener.count("2") >= 5)
    listener.kill()
    listener.until(lambda: listener.generator.pid is not None and listener.take())
    listener.kill()
    finished = listener.until_ended(3)
    for i in range(3):
        assert finished[str(i)].finish_reason == "error"
        assert "SIGKILL" in (finished[str(i)].error or "") and "started again 1 times" in (finished[str(i)].error or "")
        assert finished[str(i)].text == listener.text(str(i))
    with pytest.raises(EngineError, match="SIGKILL"):
        listener.generator.submit(ask("late"))
    assert listener.take(0.0) == []
    listener.generator.abort(request_id="late")


def test_an_error_of_the_engine_is_a_death_with_words(start: Start) -> None:
    listener = Listener(start("load_breaking", limits=RestartLimits(1, backoff_s=0.01)))
    good = replace(ask("good"), messages=(Message("user", "say: one two three"),))
    listener.generator.submit(replace(ask("bad"), messages=(Message("user", "say: break"),)))
    listener.generator.submit(good)
    finished = listener.until_ended(2)
    assert all("illegal memory access" in (done.error or "") for done in finished.values())
    (warning,) = listener.generator.take_warnings()
    assert "RuntimeError: CUDA error: an illegal memory access" in warning


def test_killed_while_it_loads(start: Start, tmp_path: Path) -> None:
    generator = start("load_in_turn", str(tmp_path), ("killed", "killed"))
    listener = Listener(generator)
    generator.submit(replace(ask("a"), messages=(Message("user", "say: one two three"),)))
    assert listener.until_ended(1)["a"].text == "one two three"
    warnings = generator.take_warnings()
    assert len(warnings) == 2 and all("while it was being loaded" in warning for warning in warnings)


def test_what_cannot_be_loaded_is_told_once(start: Start, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model for process 0"):
        start("load_in_turn", str(tmp_path), ("refused",))
    assert len(list(tmp_path.iterdir())) == 1, "it was not tried again"
    with pytest.raises(EngineError, match="nobody"):
        start("nobody")


def test_killed_while_it_loads_too_often(start: Start, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"SIGKILL.*started again 2 times"):
        start("load_in_turn", str(tmp_path), ("killed",) * 9, limits=RestartLimits(2, backoff_s=0.01))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_load_that_fails_later_is_tried_again(start: Start, tmp_path: Path) -> None:
    listener = Listener(start("load_in_turn", str(tmp_path), ("", "refused", "killed")))
    listener.generator.submit(ask("a"))
    listener.until(lambda: listener.count("a") >= 2)
    listener.kill()
    assert listener.until_ended(1)["a"].finish_reason == "stop"
    killed, refused, killed_again = listener.generator.take_warnings()
    assert "SIGKILL" in killed and "could not be loaded: there is no model for process 1" in refused
    assert "SIGKILL" in killed_again and "while it was being loaded" in killed_again


def test_a_constraint_that_cannot_be_sent_is_refused(start: Start) -> None:
    generator = start("load_scripted", 0.0, replace(CAPABILITIES, constraints=True))
    with pytest.raises(EngineError, match="own_process"):
        generator.submit(replace(ask("a"), constraint=Unsendable()))
    assert list(generator.events(0.0)) == []


class Unsendable:
    def __reduce__(self) -> str:
        raise TypeError("it holds a lock")


def test_an_id_of_one_that_was_ended_can_be_used_at_once(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004))
    for seed in range(5):
        listener.generator.submit(ask("a", seed))
        listener.until(lambda: listener.count("a") >= 3)
        listener.generator.abort(request_id="a")
        listener.until(lambda: "a" in listener.finished)
        done = listener.finished.pop("a")
        assert done.text.startswith(listener.text("a")) and done.finish_reason == "abort"
        listener.chunks.clear()


PARENT = """
import sys, time
from mathlete.generators.child import ChildGenerator
from mathlete.generators.child_messages import Load
generator = ChildGenerator(Load("scripted_children:load_seeded", (0.01,)))
print(generator.pid, flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_its_parent() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_there(pid)
    parent.kill()
    parent.communicate()
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s and is_there(pid) and state_of(pid) != "Z":
        time.sleep(0.02)
    assert not is_there(pid) or state_of(pid) == "Z", "whoever takes over orphans reaps it"


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_ctrl_c_in_the_terminal_does_not_reach_it(start: Start) -> None:
    generator = start("load_seeded", 0.004)
    assert generator.pid is not None
    assert os.getsid(generator.pid) == generator.pid != os.getsid(0)
    os.kill(generator.pid, signal.SIGINT)
    listener = Listener(generator)
    generator.submit(ask("a", 4))
    assert listener.until_ended(1)["a"].text == numbers(4) and generator.take_warnings() == ()


def test_a_continuation_is_handed_on(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.0))
    listener.generator.submit(replace(ask("a", 5), continuation=(Span(numbers(5, 10)),)))
    assert listener.until_ended(1)["a"].text == " ".join(f"5.{i}" for i in range(10, 60))


def test_a_request_that_kills_its_engine_ends_with_an_error_and_the_others_live(start: Start) -> None:
    listener = Listener(start("load_dying"))
    for i in range(4):
        listener.generator.submit(ask(f"good {i}", i))
    for i in range(2):  # of one prompt
        listener.generator.submit(replace(ask(f"bad {i}", i), messages=(Message("user", "poison"),)))
    finished = listener.until_ended(6)
    for i in range(4):
        assert not finished[f"good {i}"].error and finished[f"good {i}"].text == WORDS
    for i in range(2):
        assert finished[f"bad {i}"].finish_reason == "error" and "died" in (finished[f"bad {i}"].error or "")
    warnings = listener.generator.take_warnings()
    assert len(warnings) == 3 and "most likely of a request" in warnings[-1]
    listener.generator.submit(ask("after"))
    assert not listener.until_ended(7)["after"].error


def test_an_engine_that_hangs_is_killed_and_started_again(start: Start) -> None:
    listener = Listener(start("load_seeded", 0.004, limits=RestartLimits(3, backoff_s=0.01, max_silence_s=3.0)))
    time.sleep(0.1)
    listener.generator.submit(ask("a", 4))
    listener.until(lambda: listener.count("a") >= 10)
    pid = listener.generator.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert listener.until_ended(1)["a"].text == numbers(4)
    (warning,) = listener.generator.take_warnings()
    assert f"process {pid}" in warning and "hangs" in warning and not is_there(pid)


def test_an_engine_with_nothing_to_do_may_be_silent(start: Start) -> None:
    generator = start("load_seeded", 0.004, limits=RestartLimits(max_silence_s=0.5))
    pid = generator.pid
    time.sleep(0.8)
    assert generator.take_warnings() == () and generator.pid == pid is not None
