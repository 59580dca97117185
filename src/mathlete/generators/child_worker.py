"""The program of an engine's own process: loads it, drives it and tells what happens. Started by `child_process.py`.

The engine is driven from the main thread; one thread reads what is asked for, so that whoever asks never waits for a
step of the engine, and one waits for the end of the process that started this one.
"""

from __future__ import annotations

import importlib
import os
import queue
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.generation import Finished, GeneratorEvent, SamplingParams, TokenChunk, TokenConstraint
from mathlete.generators.child_messages import (
    Abort,
    CannotRewind,
    Close,
    Died,
    EngineFacts,
    Load,
    Loaded,
    LoadedEngine,
    LoadFailed,
    LoadProgress,
    News,
    Refused,
    Rewind,
    Submit,
    receive_message,
    send_message,
)
from mathlete.proof_sampler.building import build_constraint
from mathlete.proof_sampler.vocabulary import Vocabulary

_TURN_S = 0.05  # that an engine without news may take until what is asked is looked at again
_PAUSE_S = 0.002  # when an engine that has work comes back at once and without news
_GUESSES_EVERY_S = 1.0
_SIGN_OF_LIFE_S = 2.0
_LOOK_S = 1.0  # between looks whether there is a parent


def main(connection_fd: int, lifeline_fd: int) -> int:
    """Serve until it is closed. Returns the exit status."""
    for number in (connection_fd, lifeline_fd):
        os.set_inheritable(number, False)  # what an engine starts is not to keep them open
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    threading.Thread(target=_end_with_parent, args=(lifeline_fd,), daemon=True).start()
    connection = Connection(connection_fd)
    try:
        load = receive_message(connection)
        assert isinstance(load, Load)
        engine = _load(connection, load)
        if engine is None:
            return 1
        Worker(connection, engine).serve()
        engine.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the other side is gone, and this one with it
        return 0
    except BaseException as error:
        traceback.print_exc()
        with suppress(OSError):
            send_message(connection, Died(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _load(connection: Connection, load: Load) -> LoadedEngine | None:
    """The engine, or None when it has been told why there is none."""

    def report(what: str, done: int, total: int) -> None:
        send_message(connection, LoadProgress(what, done, total))

    try:
        module, _, name = load.function.partition(":")
        engine: LoadedEngine = getattr(importlib.import_module(module), name)(*load.arguments, report)
    except Exception as error:
        if not isinstance(error, MathleteError):
            traceback.print_exc()
        told = str(error) if isinstance(error, MathleteError) else f"{type(error).__name__}: {error}"
        notes = tuple(getattr(error, "__notes__", ()))
        send_message(connection, LoadFailed(type(error).__name__, told, notes))
        return None
    facts = EngineFacts(
        engine.description,
        engine.warnings,
        engine.tokens_per_s,
        tuple(engine.vocabulary),
        engine.eos_token_ids,
        engine.turn_start,
        engine.capabilities,
    )
    send_message(connection, Loaded(facts))
    return engine


@dataclass(slots=True)
class _Replay:
    """A request that goes back as it did before; its chunks are not told until it has.

    Attributes:
        rewinds: still to be done.
        num_tokens: that it has written.
    """

    rewinds: list[tuple[int, SamplingParams]]
    num_tokens: int = 0


class Worker:
    """Drives one engine as it is asked to."""

    def __init__(self, connection: Connection, engine: LoadedEngine) -> None:
        """Take over a loaded engine."""
        self._connection = connection
        self._engine = engine
        self._generator = engine.generator
        self._asked: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._keys: dict[str, int] = {}  # of running requests
        self._replays: dict[str, _Replay] = {}
        self._held: list[Submit] = []  # until the request of the same id that was aborted has ended
        self._vocabulary: Vocabulary | None = None
        self._guesses_at_s = 0.0
        self._told_s = 0.0

    def serve(self) -> None:
        """Until it is told to close. Raises what the engine raises: there is no going on then."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            wait = not self._keys
            try:
                while True:
                    message = self._asked.get(wait)
                    if isinstance(message, Close):
                        return
                    if isinstance(message, BaseException):
                        raise message
                    self._do(message)
                    wait = False
            except queue.Empty:
                pass
            start_s = time.monotonic()
            events = list(self._generator.events(_TURN_S))
            if (failure := getattr(self._generator, "failure", None)) is not None:
                raise EngineError(failure)  # of vLLM: what it tells of its requests does not stand, they come again
            self._tell(events)
            if not events and time.monotonic() - start_s < _PAUSE_S:
                time.sleep(_PAUSE_S)

    def _listen(self) -> None:
        try:
            while True:
                self._asked.put(receive_message(self._connection))
        except (EOFError, OSError) as error:
            self._asked.put(error)

    def _do(self, message: object) -> None:
        match message:
            case Submit():
                self._submit(message)
            case Abort(key):
                self._abort(key)
            case Rewind():
                self._rewind(message)
            case _:
                raise AssertionError(f"asked for {message}")

    def _submit(self, asked: Submit) -> None:
        request_id = asked.request.request_id
        if request_id in self._keys:
            self._held.append(asked)
            return
        request = asked.request
        try:
            if asked.constraint is not None:
                request = replace(request, constraint=self._constraint(asked))
            self._generator.submit(request)
        except EngineError as error:
            send_message(self._connection, Refused(asked.key, str(error)))
            return
        self._keys[request_id] = asked.key
        if asked.rewinds:
            self._replays[request_id] = _Replay(list(asked.rewinds))

    def _constraint(self, asked: Submit) -> TokenConstraint | None:
        assert asked.constraint is not None
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._engine.vocabulary, self._engine.eos_token_ids)
        return build_constraint(
            asked.constraint.spec, self._vocabulary, asked.constraint.answer_kind, asked.constraint.text_so_far
        )

    def _abort(self, key: int) -> None:
        held = [asked for asked in self._held if asked.key == key]
        for asked in held:
            self._held.remove(asked)
            send_message(self._connection, Refused(key, "aborted before its start"))
        for request_id, known in self._keys.items():
            if known == key:
                self._generator.abort(request_id=request_id)
                return

    def _rewind(self, asked: Rewind) -> None:
        request_id = next((name for name, key in self._keys.items() if key == asked.key), None)
        try:
            if request_id is None:
                raise EngineError("it has ended")
            self._generator.rewind(request_id, asked.num_tokens, asked.sampling)
            self._keys[request_id] = asked.new_key
        except EngineError:
            send_message(self._connection, CannotRewind(asked.new_key))

    def _tell(self, events: list[GeneratorEvent]) -> None:
        told: list[tuple[int, GeneratorEvent]] = []
        failed: list[CannotRewind] = []
        for event in events:
            request_id = event.request_id
            replay = self._replays.get(request_id)
            if replay is None:
                told.append((self._keys[request_id], event))
            elif isinstance(event, TokenChunk):
                replay.num_tokens += event.num_tokens
            elif isinstance(event, Finished):  # before it could go back again
                failed.append(CannotRewind(self._keys[request_id]))
            if isinstance(event, Finished):
                del self._keys[request_id]
                self._replays.pop(request_id, None)
        for request_id, replay in list(self._replays.items()):
            self._replay(request_id, replay)
        warnings, guesses = self._engine.take_warnings(), self._guesses()
        if told or warnings or guesses is not None or time.monotonic() - self._told_s > _SIGN_OF_LIFE_S:
            self._told_s = time.monotonic()
            send_message(self._connection, News(tuple(told), warnings, guesses))
        for answer in failed:
            send_message(self._connection, answer)
        held, self._held = self._held, []
        for asked in held:
            self._submit(asked)

    def _replay(self, request_id: str, replay: _Replay) -> None:
        while replay.rewinds and replay.num_tokens >= replay.rewinds[0][0]:
            num_tokens, sampling = replay.rewinds.pop(0)
            self._generator.rewind(request_id, num_tokens, sampling)
            replay.num_tokens = num_tokens
        if not replay.rewinds:
            del self._replays[request_id]

    def _guesses(self) -> Mapping[str, float] | None:
        now_s = time.monotonic()
        if self._keys and now_s < self._guesses_at_s:
            return None
        self._guesses_at_s = now_s + _GUESSES_EVERY_S
        return self._engine.guesses()


def _end_with_parent(lifeline_fd: int) -> None:
    """When the process that started this one has ended in any way, end it too, and all that it has started.

    A thread and not PR_SET_PDEATHSIG, because that signal comes when the *thread* that started us ends.
    """
    parent = os.getppid()  # a fork of it may hold on to the other end of the lifeline
    while os.getppid() == parent and not select.select([lifeline_fd], [], [], _LOOK_S)[0]:
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
