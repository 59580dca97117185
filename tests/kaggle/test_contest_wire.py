"""The bytes of the organiser's protocol."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from mathlete.core.errors import InputError
from mathlete.kaggle.payload import decode, encode, encode_frame, encode_series
from mathlete.kaggle.protocol import CHANNEL_OPTIONS, METHOD, PORTS, Payload, Request, Response

# Written by the organiser's package (kaggle_evaluation of AIMO-3, `relay._serialize(value).SerializeToString()`).
GOLDEN = {
    "é": "0a02c3a9",
    True: "1001",
    3: "1806",
    -5: "1809",
    1.5: "250000c03f",
    None: "2801",
}


@pytest.mark.parametrize("value", list(GOLDEN), ids=repr)
def test_primitives_are_the_organisers_bytes(value: Any) -> None:
    assert encode(value).SerializeToString().hex() == GOLDEN[value]
    assert decode(Payload.FromString(bytes.fromhex(GOLDEN[value]))) == value


@pytest.mark.parametrize("value", [[1, "a", None], (1, (2, [])), {"a": [True], "b": {}}, [], (), {}, b"x"], ids=repr)
def test_nested_values_come_back(value: Any) -> None:
    assert decode(Payload.FromString(encode(value).SerializeToString())) == value


def test_columns_and_frames_come_back() -> None:
    assert decode(encode_series("problem", ["naïve 😀 \n $x$"])) == ["naïve 😀 \n $x$"]
    assert decode(encode_series("problem", [None], pyarrow.string())) == [None]
    assert decode(encode_frame({"id": [7], "answer": [99_999]})) == {"id": [7], "answer": [99_999]}


def test_numbers_of_numpy_are_read_and_never_unpickled() -> None:
    def saved(value: Any, **options: Any) -> bytes:
        sink = io.BytesIO()
        numpy.save(sink, value, **options)
        return sink.getvalue()

    assert decode(Payload(numpy_scalar_value=saved(numpy.int64(4)))) == 4
    assert list(decode(Payload(numpy_array_value=saved(numpy.arange(3))))) == [0, 1, 2]
    with pytest.raises(InputError, match="cannot be read"):
        decode(Payload(numpy_array_value=saved(numpy.array([{}], dtype=object), allow_pickle=True)))


def parquet(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (Payload(), "missing"),
        (Payload(polars_series_value=b"no parquet"), "cannot be read"),
        (Payload(polars_dataframe_value=b""), "cannot be read"),
        (Payload(numpy_array_value=b""), "cannot be read"),
        (Payload(numpy_scalar_value=b"PK\x03\x04 no archive"), "cannot be read"),
        (Payload(pandas_series_value=parquet(pyarrow.table({}))), "cannot be read"),
        (Payload(polars_series_value=parquet(pyarrow.table({"a": [0] * 1_000_001}))), "1,000,001 rows"),
    ],
)
def test_what_cannot_be_read_is_an_error(payload: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        decode(payload)


def test_a_value_nested_too_deeply_is_refused() -> None:
    value: Any = None
    for _ in range(40):
        value = [value]
    with pytest.raises(InputError, match="nested too deeply"):
        decode(encode(value))
    with pytest.raises(InputError, match="cannot be sent"):
        encode(object())


def test_a_call_on_the_wire() -> None:
    """Fields by number, as the organiser's .proto numbers them."""
    request = Request(name="predict", args=[encode("a")], kwargs={"k": encode(1)})
    assert request.SerializeToString().hex() == "0a07707265646963741203" + "0a0161" + "1a07" + "0a016b" + "12021802"
    assert Response(payload=encode(3)).SerializeToString().hex() == "0a021806"
    assert METHOD == "/kaggle_evaluation_client.KaggleEvaluationService/Send"
    assert (PORTS[0], PORTS[1], len(PORTS)) == (50_051, 60_053, 11)
    retries = json.loads(dict(CHANNEL_OPTIONS)["grpc.service_config"])["methodConfig"][0]["retryPolicy"]  # type: ignore[arg-type]
    assert (retries["maxAttempts"], retries["retryableStatusCodes"]) == (5, ["UNAVAILABLE"])
