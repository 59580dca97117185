"""Gateway and server over real gRPC: the protocol's traps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet
import pytest

from mathlete.core.errors import InputError
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.entrant_launch import free_port
from mathlete.kaggle.gateway import Gateway, GatewayConfig, GatewayRun, write_outcome
from mathlete.kaggle.payload import decode, encode, encode_frame
from mathlete.kaggle.protocol import METHOD, Payload, Request, Response
from mathlete.kaggle.server import InferenceServer, only_value

Answer = Callable[[object, object], int]


@contextmanager
def serving(answer: Answer) -> Iterator[InferenceServer]:
    with InferenceServer(answer, ports=(0,)) as server:
        yield server


def play(answer: Answer, table: ContestTable, **options: Any) -> GatewayRun:
    with serving(answer) as server:
        return Gateway(table, GatewayConfig(ports=(server.port,), host="127.0.0.1", **options)).play()


def table_of(tmp_path: Path, text: str) -> ContestTable:
    path = tmp_path / "problems.csv"
    path.write_text(text, encoding="utf-8")
    return ContestTable.read(path)


@pytest.fixture
def table(tmp_path: Path) -> ContestTable:
    return table_of(tmp_path, "id,problem,answer\na,What?,1\nb,Why?,2\nc,How?,3\nd,Who?,4\ne,When?,5\n")


def test_every_problem_is_asked_once_in_turn_and_in_another_order(table: ContestTable, tmp_path: Path) -> None:
    asked: list[tuple[object, object]] = []
    inside = threading.Lock()

    def answer(key: object, statement: object) -> int:
        assert inside.acquire(blocking=False), "one at a time"
        asked.append((key, statement))
        inside.release()
        return 7

    run = play(answer, table, seed=1)
    assert run.error is None and len(asked) == 5
    assert dict(asked) == {"a": "What?", "b": "Why?", "c": "How?", "d": "Who?", "e": "When?"}
    orders = {tuple(call.id for call in play(answer, table, seed=seed).calls) for seed in range(4)}
    assert len(orders) > 1 and tuple("abcde") not in orders
    assert [call.id for call in play(answer, table, seed=None).calls] == list("abcde")
    write_outcome(run, table, tmp_path)
    submission = pyarrow.parquet.read_table(tmp_path / "submission.parquet").to_pydict()
    assert submission == {"id": [key for key, _ in asked[:5]], "answer": [7] * 5}
    assert json.loads((tmp_path / "result.json").read_text()) == {"Succeeded": True}


def test_the_label_goes_over_the_wire_and_is_not_looked_at(table: ContestTable) -> None:
    """A server that handed on what comes third would get all of them right."""
    run = play(lambda *given: len(given), table)
    assert set(run.answers.values()) == {2}
    assert table.golds == {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}


@pytest.mark.parametrize(
    ("ids", "kinds"), [("1\n2\n", int), ("a1\n2\n", str), ("007\n008\n", int), ('"000aaa"\n"111bbb"\n', str)]
)
def test_ids_keep_their_type(tmp_path: Path, ids: str, kinds: type) -> None:
    table = table_of(tmp_path, "id,problem\n" + "".join(f"{key},What?\n" for key in ids.split()))
    seen: list[object] = []

    def answer(key: object, statement: object) -> int:
        seen.append(key)
        return 1

    run = play(answer, table, seed=None)
    assert [type(key) for key in seen] == [kinds, kinds]
    write_outcome(run, table, tmp_path)
    assert pyarrow.parquet.read_table(tmp_path / "submission.parquet").to_pydict()["id"] == seen


@pytest.mark.parametrize(
    ("statement", "arrives"),
    [("", None), ("naïve 😀 \u202e", "naïve 😀 \u202e"), ("x" * 3_000_000, "x" * 3_000_000),
     ('"a ""b"",\nc"', 'a "b",\nc'), ("42", 42)],
    ids=["empty", "unicode", "huge", "quoted", "number"],
)  # fmt: skip
def test_statements_arrive_as_they_are(tmp_path: Path, statement: str, arrives: object) -> None:
    seen: list[object] = []

    def answer(key: object, given: object) -> int:
        seen.append(given)
        return 1

    table = table_of(tmp_path, f"id,problem\nk,{statement}\n")
    assert play(answer, table).error is None
    assert seen == [arrives]


def raising(key: object, statement: object) -> int:
    if key == "c":
        raise ZeroDivisionError("no luck")
    return 5


def test_an_exception_ends_the_run_with_what_was_collected(table: ContestTable, tmp_path: Path) -> None:
    run = play(raising, table, seed=None)
    assert run.error is not None and run.error.kind == "SERVER_RAISED_EXCEPTION"
    assert run.error.details == "no luck"
    assert run.answers == {"a": 5, "b": 5}
    write_outcome(run, table, tmp_path)
    assert not (tmp_path / "submission.parquet").exists()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {
        "Succeeded": False,
        "ErrorType": 3,
        "ErrorName": "SERVER_RAISED_EXCEPTION",
        "ErrorDetails": "no luck",
    }


@contextmanager
def raw_server(respond: Callable[[Any], Any]) -> Iterator[int]:
    """A server that sends what it likes."""
    from concurrent import futures

    def send(message: bytes, context: Any) -> bytes:
        return bytes(Response(payload=respond(Request.FromString(message))).SerializeToString())

    server = grpc.server(futures.ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(send, bytes, bytes)
    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (encode(None), "a data frame"),
        (encode(7), "a data frame"),
        (encode_frame({"id": ["a"]}), "a data frame"),
        (encode_frame({"id": [], "answer": []}), "expected 1 rows but received 0"),
        (encode_frame({"id": ["a", "b"], "answer": [1, 2]}), "expected 1 rows but received 2"),
        (encode_frame({"id": ["a"], "answer": [100_000]}), "from 0 to 99999, not 100000"),
        (encode_frame({"id": ["a"], "answer": [-1]}), "from 0 to 99999"),
        (encode_frame({"id": ["a"], "answer": [1.5]}), "integers"),
        (encode_frame({"id": ["a"], "answer": [True]}), "integers"),
        (encode_frame({"id": ["a"], "answer": ["7"]}), "integers"),
        (encode_frame({"id": ["a"], "answer": [None]}), "integers"),
        (Payload(polars_dataframe_value=b"garbage"), "cannot be read"),
        (Payload(), "cannot be read"),
    ],
)
def test_an_answer_of_the_wrong_shape_ends_the_run(table: ContestTable, payload: Any, complaint: str) -> None:
    with raw_server(lambda request: payload) as port:
        run = Gateway(table, GatewayConfig(ports=(port,), host="127.0.0.1")).play()
    assert run.error is not None and run.error.kind == "INVALID_SUBMISSION"
    assert complaint in run.error.details


def test_a_server_that_is_slow_to_start_is_waited_for(table: ContestTable) -> None:
    port = free_port()
    servers: list[InferenceServer] = []

    def start() -> None:
        time.sleep(0.7)
        servers.append(InferenceServer(lambda key, statement: 3, ports=(port,)))
        servers[0].start()

    starter = threading.Thread(target=start)
    starter.start()
    run = Gateway(table, GatewayConfig(ports=(free_port(), port), host="127.0.0.1", startup_s=30)).play()
    starter.join()
    servers[0].stop()
    assert run.error is None and len(run.calls) == 5
    assert run.calls[0].answered_s > 0.6


def test_a_server_that_never_starts_is_told(table: ContestTable) -> None:
    run = Gateway(table, GatewayConfig(ports=(free_port(),), host="127.0.0.1", startup_s=0.5)).play()
    assert run.error is not None and run.error.kind == "SERVER_NEVER_STARTED"
    assert not run.calls


def slow_but_once(seconds: float) -> Answer:
    asked: list[object] = []

    def answer(key: object, statement: object) -> int:
        asked.append(key)
        if len(asked) in (1, 3):  # the first answer has no deadline
            time.sleep(seconds)
        return 4

    return answer


def test_a_late_answer_ends_the_run_but_the_first_may_take_its_time(table: ContestTable) -> None:
    run = play(slow_but_once(0.8), table, response_s=0.3, seed=None)
    assert run.error is not None and run.error.kind == "GRPC_DEADLINE_EXCEEDED"
    assert run.answers == {"a": 4, "b": 4}


def test_a_late_answer_is_asked_for_again_where_a_rehearsal_wants_it(table: ContestTable) -> None:
    run = play(slow_but_once(0.8), table, response_s=0.3, seed=None, asks_again=True)
    assert run.error is None
    assert [call.num_asked for call in run.calls] == [1, 1, 2, 1, 1]


def test_a_server_that_dies_ends_the_run_unless_it_is_waited_for(table: ContestTable) -> None:
    port = free_port()

    def dying(lost_server_s: float) -> GatewayRun:
        server = InferenceServer(lambda key, statement: 3, ports=(port,))
        server.start()
        again: list[InferenceServer] = []

        def before(number: int) -> None:
            if number == 2:
                server.stop()

                def start() -> None:
                    time.sleep(0.5)
                    again.append(InferenceServer(lambda key, statement: 9, ports=(port,)))
                    again[0].start()

                if lost_server_s:
                    threading.Thread(target=start).start()

        config = GatewayConfig(ports=(port,), host="127.0.0.1", lost_server_s=lost_server_s, seed=None)
        run = Gateway(table, config, before_call=before).play()
        for item in again:
            item.stop()
        return run

    lost = dying(0.0)
    assert lost.error is not None and lost.error.kind == "SERVER_CONNECTION_FAILED" and len(lost.calls) == 2
    assert dying(30.0).answers == {"a": 3, "b": 3, "c": 9, "d": 9, "e": 9}


def test_an_endpoint_that_is_not_there_is_told_as_the_organiser_tells_it() -> None:
    with serving(lambda key, statement: 1) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        send = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as told:
            send(Request(name="train").SerializeToString())
        assert "No listener for train was registered" in str(told.value)
        with pytest.raises(grpc.RpcError) as refused:
            send(b"\xff\xff\xff")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        channel.close()


@pytest.mark.parametrize(
    "args",
    [
        [],
        [encode("only an id")],
        [encode(3), encode("a statement that came by itself")],
        [Payload(polars_series_value=b"garbage"), Payload()],
        [encode([]), encode({"no": "column"})],
        [encode(1.5), encode(b"bytes"), encode(3), encode(4)],
    ],
    ids=range(6),
)
def test_calls_of_any_shape_are_answered(args: list[Any]) -> None:
    with serving(lambda key, statement: 8) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        send = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        response = Response.FromString(send(Request(name="predict", args=args).SerializeToString()))
        channel.close()
    frame = decode(response.payload)
    assert frame["answer"] == [8] and len(frame["id"]) == 1


def test_a_port_in_use_is_told() -> None:
    with serving(lambda key, statement: 1) as server:
        with pytest.raises(InputError, match=f"none of the ports {server.port} at 127.0.0.1 is free"):
            InferenceServer(lambda key, statement: 1, ports=(server.port,))
        second = InferenceServer(lambda key, statement: 1, ports=(server.port, 0))
        assert second.port != server.port
        second.stop()


def test_only_values() -> None:
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    for column in (["x"], polars.Series("id", ["x"]), pandas.Series(["x"]), "x", ("x",)):
        assert only_value(column) == "x"
    assert only_value(polars.Series("id", [], dtype=polars.String)) is None and only_value([]) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot read"),
        ("id,problem\n", "at least one row"),
        ("problem,id\nWhat?,a\n", "columns id,problem"),
        ("id,problem\na,What?,3\n", "columns id,problem"),
        ('id,problem\na,"open\n', "cannot read"),
    ],
)
def test_files_that_are_no_contest(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        table_of(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the problems"):
        ContestTable.read(tmp_path / "none.csv")
