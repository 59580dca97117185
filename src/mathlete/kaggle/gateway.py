"""The organiser's side of the protocol: asks for one problem after the other, in an order of its own.

As his gateway does: rows of the file go out as columns, a label among them where there is one; a server may be slow to
start, the first answer has no deadline, and an exception, a late answer or an answer of the wrong shape ends the run.
Unlike it: answers must be integers in 0..99999, which his leaves to the scoring; and with `lost_server_s` a server that
dies may come back and is asked again.

Knows the wire and the file; does not know who answers.
"""

from __future__ import annotations

import io
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
import pyarrow
import pyarrow.parquet

from mathlete.core.errors import EngineError, InputError
from mathlete.kaggle.contest_table import ContestTable, kind_of
from mathlete.kaggle.payload import decode, encode_series
from mathlete.kaggle.protocol import CHANNEL_OPTIONS, ENDPOINT, METHOD, PORTS, STARTUP_S, Request, Response
from mathlete.lab.run_folder import replace_file

LOW, HIGH = 0, 99_999

FailureKind = Literal[
    "SERVER_NEVER_STARTED",
    "SERVER_CONNECTION_FAILED",
    "SERVER_RAISED_EXCEPTION",
    "SERVER_MISSING_ENDPOINT",
    "INVALID_SUBMISSION",
    "GRPC_DEADLINE_EXCEEDED",
]
_NUMBER_OF: dict[FailureKind, int] = {
    "SERVER_NEVER_STARTED": 1,
    "SERVER_CONNECTION_FAILED": 2,
    "SERVER_RAISED_EXCEPTION": 3,
    "SERVER_MISSING_ENDPOINT": 4,
    "INVALID_SUBMISSION": 6,
    "GRPC_DEADLINE_EXCEEDED": 7,
}
_MAX_DETAILS = 8000  # characters of result.json
_RETRY_S = 0.1
_RAISED = re.compile(r"Exception calling application: (.*)", re.DOTALL)


class GatewayError(EngineError):
    """What ended a run at the gateway.

    Attributes:
        kind: the organiser's name for it.
    """

    def __init__(self, kind: FailureKind, details: str) -> None:
        """Of a kind, with what is known of it."""
        super().__init__(f"the gateway ended the run ({kind}): {details}")
        self.kind = kind
        self.details = details


@dataclass(frozen=True, slots=True)
class Call:
    """One problem as the gateway saw it.

    Attributes:
        id: of the problem, as text.
        asked_s: seconds since the gateway began.
        answered_s: likewise.
        answer: what was handed in.
        num_asked: how often it was asked: more than once where an answer came too late or the server was lost.
    """

    id: str
    asked_s: float
    answered_s: float
    answer: int
    num_asked: int = 1


@dataclass(slots=True)
class GatewayRun:
    """How a run went at the gateway.

    Attributes:
        num_problems: of the file.
        calls: answered ones, in the order in which they were asked.
        error: what ended the run early; None when every problem was answered.
    """

    num_problems: int
    calls: list[Call] = field(default_factory=list)
    error: GatewayError | None = None

    @property
    def answers(self) -> dict[str, int]:
        """What was handed in, by id."""
        return {call.id: call.answer for call in self.calls}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How a gateway asks.

    Attributes:
        ports: tried in turn until the server is there.
        host: of the server.
        startup_s: seconds that the server may take to begin to listen.
        response_s: seconds that an answer may take, the first excepted; None for as long as it takes.
        lost_server_s: seconds for which a server that is gone is asked again; 0 ends the run, as the organiser does.
        asks_again: whether a late answer is asked for again, not the end of the run as with the organiser.
        seed: of the order of the rows; None to keep the order of the file.
    """

    ports: Sequence[int] = PORTS
    host: str = "localhost"
    startup_s: float = STARTUP_S
    response_s: float | None = None
    lost_server_s: float = 0.0
    asks_again: bool = False
    seed: int | None = 0


class Gateway:
    """Plays one run. Used by one thread.

    Attributes:
        run: what has happened so far.
    """

    def __init__(
        self,
        table: ContestTable,
        config: GatewayConfig,
        *,
        on_call: Callable[[GatewayRun], None] = lambda run: None,
        before_call: Callable[[int], float | None] = lambda number: None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask about `table`.

        Args:
            table: the problems.
            config: how.
            on_call: called after each answer.
            before_call: called with the number of each call, from 0; gives a deadline for it in seconds, or None for
                that of `config`. It may wait.
            on_wait: called again and again while no server is there; what it raises ends the run.
        """
        self._table = table
        self._config = config
        self._on_call = on_call
        self._before_call = before_call
        self._on_wait = on_wait
        self._channel: Any = None
        self._send: Any = None
        self._was_there = False
        self._start_s = time.monotonic()
        self.run = GatewayRun(len(table))

    def play(self) -> GatewayRun:
        """Ask for every problem; an error ends the run and is told in it, with what was collected before."""
        order = list(range(len(self._table)))
        if self._config.seed is not None:
            random.Random(self._config.seed).shuffle(order)
        try:
            for number, row in enumerate(order):
                self.run.calls.append(self._ask(number, row))
                self._on_call(self.run)
        except GatewayError as error:
            self.run.error = error
        finally:
            if self._channel is not None:
                self._channel.close()
        return self.run

    def _ask(self, number: int, row: int) -> Call:
        columns = self._table.columns
        request = Request(
            name=ENDPOINT,
            args=[encode_series(name, [column[row]], kind_of(column)) for name, column in columns.items()],
        ).SerializeToString()
        given = self._before_call(number)
        asked_s, num_asked, lost_s = self._now_s(), 0, None
        deadline_s = given or (self._config.response_s if number else None)
        while True:
            num_asked += 1
            try:
                message = self._send_once(request, deadline_s)
                break
            except GatewayError as error:
                deadline_s = None
                if error.kind == "GRPC_DEADLINE_EXCEEDED" and self._config.asks_again:
                    continue
                lost_s = self._now_s() if lost_s is None else lost_s
                is_lost = error.kind in ("SERVER_CONNECTION_FAILED", "SERVER_NEVER_STARTED")
                if not is_lost or self._now_s() - lost_s >= self._config.lost_server_s:
                    raise
                self._forget_server()
        answer = _checked(message)
        return Call(str(columns["id"][row]), asked_s, self._now_s(), answer, num_asked)

    def _send_once(self, request: bytes, deadline_s: float | None) -> bytes:
        try:
            if self._send is None:
                return self._connect(request, deadline_s)
            return bytes(self._send(request, timeout=deadline_s, wait_for_ready=False))
        except grpc.RpcError as error:
            raise _told(error) from None

    def _connect(self, request: bytes, deadline_s: float | None) -> bytes:
        """Find the port at which the server listens, with the request itself, as the organiser's client does."""
        start_s = self._now_s()
        limit_s = self._config.lost_server_s if self._was_there else self._config.startup_s
        while self._now_s() - start_s < limit_s:
            for port in self._config.ports:
                channel = grpc.insecure_channel(f"{self._config.host}:{port}", options=CHANNEL_OPTIONS)
                send = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
                try:
                    message = send(request, timeout=deadline_s, wait_for_ready=False)
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.UNAVAILABLE:
                        channel.close()
                        self._on_wait()
                        time.sleep(_RETRY_S)
                        continue
                    self._take_up(channel, send)
                    raise
                self._take_up(channel, send)
                return bytes(message)
        raise GatewayError(
            "SERVER_NEVER_STARTED",
            f"no server answered at the ports {', '.join(map(str, self._config.ports))} for {limit_s:g} s",
        )

    def _take_up(self, channel: Any, send: Any) -> None:
        self._channel, self._send, self._was_there = channel, send, True

    def _forget_server(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._send = None

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s


def write_outcome(run: GatewayRun, table: ContestTable, folder: Path) -> None:
    """Write result.json and, only where every problem was answered, submission.parquet (id, answer), as the organiser.

    Raises:
        StorageError: one of them could not be written.
    """
    result: dict[str, Any] = {"Succeeded": run.error is None}
    if run.error is not None:
        result |= {
            "ErrorType": _NUMBER_OF[run.error.kind],
            "ErrorName": run.error.kind,
            "ErrorDetails": run.error.details[:_MAX_DETAILS],
        }
    replace_file(folder / "result.json", json.dumps(result).encode())
    if run.error is None:
        given = {str(key): key for key in table.columns["id"]}
        answers = [call.answer for call in run.calls]
        ids = pyarrow.array([given[call.id] for call in run.calls], type=kind_of(table.columns["id"]))
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"id": ids, "answer": answers}), sink)
        replace_file(folder / "submission.parquet", sink.getvalue())


def _told(error: Any) -> GatewayError:
    details = str(error.details() or error.code())
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return GatewayError("GRPC_DEADLINE_EXCEEDED", details)
    if f"No listener for {ENDPOINT} was registered" in details:
        return GatewayError("SERVER_MISSING_ENDPOINT", details)
    raised = _RAISED.search(details)
    if raised is not None:
        return GatewayError("SERVER_RAISED_EXCEPTION", raised[1])
    return GatewayError("SERVER_CONNECTION_FAILED", details)


def _checked(message: bytes) -> int:
    """The answer of a response: one row with an integer in range. Raises `GatewayError`."""
    try:
        frame = decode(Response.FromString(message).payload)
    except (InputError, ValueError) as error:
        raise GatewayError("INVALID_SUBMISSION", f"the answer cannot be read: {error}") from error
    if not isinstance(frame, dict) or "answer" not in frame:
        raise GatewayError("INVALID_SUBMISSION", f"a data frame with id and answer was expected, not {frame!r:.80}")
    if len(frame["answer"]) != 1:
        raise GatewayError("INVALID_SUBMISSION", f"expected 1 rows but received {len(frame['answer'])}")
    (answer,) = frame["answer"]
    if isinstance(answer, bool) or not isinstance(answer, int) or not LOW <= answer <= HIGH:
        raise GatewayError("INVALID_SUBMISSION", f"answers are integers from {LOW} to {HIGH}, not {answer!r:.80}")
    return answer
