"""An engine in a process of its own, as a `Generator`: when it dies, it is started again, and nothing is lost.

A model too large for the memory, a fault in a kernel, a CUDA error: whatever ends an engine ends its process, and not
the run. One thread of ours, the keeper, owns the process; the driver only touches the ledger (`child_ledger.py`), so it
never waits for more than it asked for, whether the engine computes a step, loads or is dead. An engine that has work
and gives no sign of life counts as dead.

What only the engine can know of a request (that its prompt can never fit) is told as its end, not at `submit`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait

from mathlete.core import errors
from mathlete.core.errors import EngineError, MathleteError
from mathlete.core.generation import GenerateRequest, GeneratorEvent, SamplingParams
from mathlete.generators.child_ledger import RequestLedger
from mathlete.generators.child_messages import (
    CannotRewind,
    Close,
    Died,
    EngineFacts,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    LoadReport,
    News,
    Refused,
    receive_message,
)
from mathlete.generators.child_process import ChildProcess

_CLOSE_S = 10.0  # that an engine has for ending in order
_LAST_WORDS_S = 0.5


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How often a process is started again, and when.

    Attributes:
        max_restarts: over the life of the generator; deaths for which a request was ended do not count.
        backoff_s: before the first of them; twice as long before each next one that follows within a minute.
        max_backoff_s: at most.
        max_silence_s: without a finished step, after which an engine that has loaded and has requests counts as hung; a
            step of a large model on few processors takes a while.
    """

    max_restarts: int = 5
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    max_silence_s: float = 300.0


class ChildGenerator:
    """A `Generator` whose engine lives in another process. Driven by one thread.

    Attributes:
        facts: what is known of the engine.
    """

    def __init__(
        self,
        load: Load,
        report: LoadReport = lambda what, done, total: None,
        *,
        name: str = "the engine",
        limits: RestartLimits | None = None,
    ) -> None:
        """Start the process and wait until its engine is ready.

        Args:
            load: what is loaded in it.
            report: told how far that is, in this thread.
            name: of the engine, in messages.
            limits: how often it is started again.

        Raises:
            MathleteError: what the function of `load` raises there.
            EngineError: the process ended while it loaded, as often as it may be started; or it cannot be started.
        """
        self._load = load
        self._name = name
        self._limits = limits or RestartLimits()
        self._changed = threading.Condition()
        self._ledger: RequestLedger | None = None
        self._facts: EngineFacts | None = None
        self._failure: MathleteError | None = None
        self._closing = False
        self._progress: list[LoadProgress] = []
        self._warnings: list[str] = []
        self._guesses: Mapping[str, float] | None = None
        self._pid: int | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._keeper.start()
        try:
            self._wait_until_ready(report)
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> EngineFacts:
        """What is known of the engine."""
        assert self._facts is not None, "the constructor returns when it is known"
        return self._facts

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._pid

    def submit(self, request: GenerateRequest) -> None:
        """Queue a request, also while the engine is started again.

        Raises:
            EngineError: for an id in use, for what the engine cannot do, for a constraint that cannot be sent to
                another process, and when there is no engine any more.
        """
        with self._changed:
            if self._failure is not None:
                raise EngineError(str(self._failure))
            if self._ledger is None:
                raise EngineError(f"{self._name} is closed")
            self._ledger.submit(request)
        self._rouse()

    def events(self, timeout_s: float) -> Iterable[GeneratorEvent]:
        """What has happened; waits for it at most `timeout_s`, and not at all when nothing is in flight."""
        ledger = self._ledger
        if ledger is None:
            return []
        with self._changed:
            self._changed.wait_for(lambda: ledger.has_events or not ledger.num_in_flight, timeout_s)
            return ledger.take_events()

    def abort(self, *, request_id: str | None = None, group: str | None = None) -> None:
        """End one request or all of a group; each gives a `Finished` with reason "abort"."""
        with self._changed:
            if self._ledger is not None:
                self._ledger.abort(request_id, group)
        self._rouse()

    def rewind(self, request_id: str, num_tokens: int, sampling: SamplingParams) -> None:
        """Take a running request back; see `Generator.rewind`."""
        with self._changed:
            if self._ledger is None:
                raise EngineError(f"request {request_id!r} cannot go back: there is none that runs")
            self._ledger.rewind(request_id, num_tokens, sampling)
        self._rouse()

    def take_warnings(self) -> tuple[str, ...]:
        """What a person should know of what happened since the last call: the engine's own, and each of its deaths."""
        with self._changed:
            warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def guesses(self) -> Mapping[str, float] | None:
        """What became of the tokens guessed since the engine was last started; None where none are guessed."""
        return self._guesses

    def close(self) -> None:
        """End the engine, its process, and whatever that has started. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._rouse()
        self._keeper.join()
        self._ledger = None
        self._wake.close()
        self._woken.close()

    def _wait_until_ready(self, report: Callable[[str, int, int], None]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._progress or self._facts is not None or self._failure is not None)
                told, self._progress = self._progress, []
                is_ready, failure = self._facts is not None, self._failure
            for step in told:
                report(step.what, step.done, step.total)
            if failure is not None:
                raise failure
            if is_ready:
                return

    def _rouse(self) -> None:
        """Have the keeper look at the ledger and at `_closing`."""
        try:
            self._wake.send(b"!")
        except (BlockingIOError, OSError):  # it has been told often enough, or there is no keeper any more
            pass

    # --- the keeper's thread ---

    def _keep(self) -> None:
        try:
            self._keep_alive()
        except BaseException as error:  # nobody else would notice that there is no keeper
            self._give_up(f"{self._name} cannot be kept alive: {type(error).__name__}: {error}")
            raise

    def _keep_alive(self) -> None:
        """Until it is closed or given up: start a process, serve it until it ends, say so, wait, and again."""
        num_restarts, backoff_s = 0, self._limits.backoff_s
        while True:
            start_s = time.monotonic()
            ending = self._live_once()
            if ending is None or self._closing:
                return
            if num_restarts >= self._limits.max_restarts and not ending.is_of_request:
                self._give_up(f"{self._name} {ending.told}, and it has been started again {num_restarts} times already")
                return
            if time.monotonic() - start_s > 60:
                backoff_s = self._limits.backoff_s
            num_restarts += not ending.is_of_request
            with self._changed:
                self._warnings.append(f"{self._name} {ending.told}, {self._consequence(ending, num_restarts)}")
                if self._changed.wait_for(lambda: self._closing, backoff_s):
                    return
            backoff_s = min(2 * backoff_s, self._limits.max_backoff_s)

    def _consequence(self, ending: _Ending, num_restarts: int) -> str:
        num = 0 if self._ledger is None else self._ledger.num_in_flight
        left = f"{num} request{'' if num == 1 else 's'} in flight; it is started again"
        if ending.is_of_request:
            return f"most likely of a request, which ends with an error; {left}"
        return f"{left} ({num_restarts} of at most {self._limits.max_restarts} times)"

    def _live_once(self) -> _Ending | None:
        """One process, from its start to its end; None when no other is wanted."""
        is_of_request = False
        try:
            process = ChildProcess(self._limits.max_silence_s)
        except OSError as error:
            return _Ending(f"could not be started ({error.strerror})")
        self._pid = process.pid
        life = _Life()
        try:
            process.send(self._load)
            self._serve(process, life)
        except BlockingIOError:
            life.last_words = f"hangs: it took no message for {self._limits.max_silence_s:g} s, so it is killed"
        except (EOFError, OSError):  # it is gone; what it said before is still to be heard
            self._hear_the_rest(process, life)
        finally:
            if self._closing:
                way = process.end(_CLOSE_S if life.is_ready else 0.0)
            else:
                way = process.end(_LAST_WORDS_S if life.last_words else 0.0)
            self._pid = None
            with self._changed:
                if self._ledger is not None:
                    is_of_request = self._ledger.went_down()
                self._changed.notify_all()
        if self._closing or self._failure is not None:
            return None
        when = "" if life.is_ready else " while it was being loaded"
        return _Ending(f"(process {process.pid}) {life.last_words or way + when}", is_of_request)

    def _serve(self, process: ChildProcess, life: _Life) -> None:
        """Carry messages both ways until the process has ended, hangs, or is to be closed."""
        was_busy, heard_s, silence_s = False, 0.0, self._limits.max_silence_s
        while True:
            with self._changed:
                messages = self._ledger.take_messages() if self._ledger is not None else []
                is_busy = life.is_ready and self._ledger is not None and self._ledger.num_in_flight > 0
            if self._closing:
                process.send(Close())
                return
            for message in messages:
                process.connection.send_bytes(message)
            if is_busy and not was_busy:
                heard_s = time.monotonic()
            was_busy = is_busy
            left_s = max(0.0, heard_s + silence_s - time.monotonic()) if is_busy else None
            ready = wait([process.connection, self._woken, process.has_ended], left_s)
            if self._woken in ready:
                self._woken.recv(4096)
            if process.connection in ready:
                self._take(receive_message(process.connection), life)
                heard_s = time.monotonic()
            elif not ready and is_busy:
                life.last_words = f"hangs: it has work and said nothing for {silence_s:g} s, so it is killed"
            elif process.has_ended in ready:
                return
            if life.last_words is not None:
                return

    def _hear_the_rest(self, process: ChildProcess, life: _Life) -> None:
        try:
            while process.connection.poll(0):
                self._take(receive_message(process.connection), life)
        except (EOFError, OSError):
            return

    def _take(self, message: object, life: _Life) -> None:
        with self._changed:
            match message:
                case LoadProgress():
                    if self._facts is None:
                        self._progress.append(message)
                case Loaded(facts):
                    life.is_ready = True
                    self._facts = self._facts or facts
                    self._ledger = self._ledger or RequestLedger(facts.capabilities)
                    self._ledger.came_up(facts.capabilities)
                case LoadFailed():
                    if self._facts is None:  # it would fail again
                        self._failure = _error_of(message)
                    life.last_words = f"could not be loaded: {message.text}"
                case Died(text):
                    life.last_words = f"failed: {text}"
                case _:
                    self._take_of_requests(message)
            self._changed.notify_all()

    def _take_of_requests(self, message: object) -> None:
        assert self._ledger is not None, "it is there since the engine is"
        match message:
            case News():
                self._warnings += message.warnings
                if message.guesses is not None:
                    self._guesses = message.guesses
                self._ledger.take_news(message)
            case Refused():
                self._ledger.take_refused(message)
            case CannotRewind():
                self._ledger.take_cannot_rewind(message)
            case _:
                raise AssertionError(f"the engine's process said {message}")

    def _give_up(self, text: str) -> None:
        with self._changed:
            self._failure = EngineError(f"{text}. Its messages are on the error output; start the run again")
            if self._ledger is not None:
                self._ledger.give_up(str(self._failure))
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a process ended: with the engine's name before it a sentence; and whether a request was ended for it."""

    told: str
    is_of_request: bool = False


@dataclass(slots=True)
class _Life:
    """What is known of one process."""

    is_ready: bool = False
    last_words: str | None = None


def _error_of(failed: LoadFailed) -> MathleteError:
    """The error again that the engine's loader raised in the other process."""
    kind = getattr(errors, failed.kind, None)
    is_ours = isinstance(kind, type) and issubclass(kind, MathleteError)
    error: MathleteError = kind(failed.text) if is_ours and kind is not None else EngineError(failed.text)
    for note in failed.notes:
        error.add_note(note)
    return error
