"""The entrant's side of the protocol: a gRPC server that answers `predict`, the organiser's or our own.

Knows the wire and which server to use. Does not know how an answer is found: an `Answerer` is asked. What arrives is
never an exception to the gateway: a message that cannot be read is a problem without a statement.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from mathlete.core.errors import InputError
from mathlete.kaggle.payload import decode, encode_frame
from mathlete.kaggle.protocol import (
    CHANNEL_OPTIONS,
    ENDPOINT,
    METHOD,
    PORTS,
    RERUN_VARIABLE,
    SERVICE,
    Request,
    Response,
)

Answerer = Callable[[object, object], int]
"""From an id and a statement, as they came, to an integer; never raises."""

_ORGANISER = "kaggle_evaluation.aimo_3_inference_server"


def only_value(column: Any) -> Any:
    """The value of a column of one row: of ours, of polars, of pandas, or a value that came by itself; None for none.

    Longer columns never come; the first value counts.
    """
    if hasattr(column, "to_list"):
        column = column.to_list()
    if isinstance(column, list | tuple):
        return column[0] if column else None
    return column


def is_rerun() -> bool:
    """Whether this is where the hidden problems are asked."""
    return os.environ.get(RERUN_VARIABLE) is not None


class InferenceServer:
    """Our server: one call at a time, as the organiser's. Use as a context manager."""

    def __init__(self, answer: Answerer, *, host: str = "127.0.0.1", ports: Sequence[int] = PORTS) -> None:
        """Listen at once; calls that come before `start` wait.

        Args:
            answer: finds the answers.
            host: address to listen at; the organiser's gateway asks from another container, so "[::]" there.
            ports: the first that is free is taken; 0 for any.

        Raises:
            InputError: none of them is free.
        """
        self._answer = answer
        options = (*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0))
        self._server = grpc.server(futures.ThreadPoolExecutor(1, "mathlete-predict"), options=options)
        handler = grpc.unary_unary_rpc_method_handler(self._send, request_deserializer=bytes, response_serializer=bytes)
        name = METHOD.rpartition("/")[2]
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {name: handler}),))
        self.port = self._bind(host, ports)
        self._over = threading.Event()

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def wait(self) -> None:
        """Until `stop` is called, from another thread or a signal handler."""
        self._over.wait()

    def stop(self, grace_s: float = 0.0) -> None:
        """Take no more calls; the one in hand gets `grace_s` seconds. Safe to call twice."""
        self._over.set()
        self._server.stop(grace_s).wait()

    def __enter__(self) -> InferenceServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self.stop()

    def _bind(self, host: str, ports: Sequence[int]) -> int:
        for port in ports:
            try:
                bound = self._server.add_insecure_port(f"{host}:{port}")
            except RuntimeError:  # what grpc says of a port in use
                continue
            if bound:
                return int(bound)
        raise InputError(
            f"none of the ports {', '.join(map(str, ports))} at {host} is free; another contest server may be running: "
            "end it, or give --port"
        )

    def _send(self, message: bytes, context: Any) -> bytes:
        try:
            request = Request.FromString(message)
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no request of kaggle_evaluation")
        if request.name != ENDPOINT:
            raise NotImplementedError(f"No listener for {request.name} was registered.")
        given = [_decoded(item) for item in request.args]
        # What follows id and problem is the label, where the gateway's file has one: it is not even looked at.
        id_value, statement = (only_value(item) for item in (*given, None, None)[:2])
        answer = self._answer(id_value, statement)
        return bytes(
            Response(payload=encode_frame({"id": [_sendable(id_value)], "answer": [answer]})).SerializeToString()
        )


def _decoded(payload: Any) -> Any:
    try:
        return decode(payload)
    except InputError:
        return None


def _sendable(id_value: object) -> object:
    return id_value if isinstance(id_value, str | int) else str(id_value)


def organiser_package() -> Any:
    """The organiser's server module, or None where his package is not installed."""
    try:
        return importlib.import_module(_ORGANISER)
    except ModuleNotFoundError as error:
        if error.name is not None and _ORGANISER.startswith(error.name):
            return None
        raise InputError(
            f"the organiser's package kaggle_evaluation is here but needs {error.name}, which is not: install it, or "
            "take the package off the path"
        ) from error


def organiser_server(package: Any, answer: Answerer) -> Any:
    """The organiser's server with our `predict`; it listens when it is told to serve, or to run a local gateway."""
    polars = importlib.import_module("polars")

    def predict(id_: Any, problem: Any, *label: Any) -> Any:
        """One row in, one row out; `label` comes where the file has an answer column, and is not looked at."""
        del label
        id_value = only_value(id_)
        return polars.DataFrame({"id": [_sendable(id_value)], "answer": [answer(id_value, only_value(problem))]})

    return package.AIMO3InferenceServer(predict)
