"""Values of the organiser's protocol: what arrives as Python values and columns, what is sent as the same bytes.

Columns and frames are Parquet or Arrow inside a message, whichever library the other side uses, and are read and
written with pyarrow alone. What arrives is foreign: sizes and depths are bounded, nothing is unpickled.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from mathlete.core.errors import InputError
from mathlete.kaggle.protocol import Payload

_MAX_ROWS = 1_000_000
_MAX_DEPTH = 32
_MAX_UNPACKED_BYTES = 512 << 20

Column = list[Any]
Frame = dict[str, Column]


def decode(payload: Any, depth: int = 0) -> Any:
    """The value of a message: Python values, a series as a `Column`, a frame as a `Frame`, an array as numpy's.

    Raises:
        InputError: it is of no known kind, nested too deeply, too large, or its bytes are no frame.
    """
    kind = payload.WhichOneof("value")
    if kind is None or depth > _MAX_DEPTH:
        raise InputError(f"a value in the gateway's message is {'missing' if kind is None else 'nested too deeply'}")
    value = getattr(payload, kind)
    if kind == "none_value":
        return None
    if kind in ("list_value", "tuple_value"):
        items = [decode(item, depth + 1) for item in value.payloads]
        return items if kind == "list_value" else tuple(items)
    if kind == "dict_value":
        return {key: decode(item, depth + 1) for key, item in value.payload_map.items()}
    if isinstance(value, bytes) and kind != "bytes_io_value":
        try:
            return _decode_bytes(kind, value)
        except Exception as error:  # foreign bytes, through several libraries, raise whatever they like
            raise InputError(f"a {kind} in the gateway's message cannot be read: {error!r:.200}") from error
    return value


def encode(value: Any) -> Any:
    """The message of a Python value. Raises `InputError` for a type that the protocol does not have."""
    if isinstance(value, bool):
        return Payload(bool_value=value)
    for kind, name in ((str, "str_value"), (int, "int_value"), (float, "float_value"), (bytes, "bytes_io_value")):
        if isinstance(value, kind):
            return Payload(**{name: value})
    message = Payload()
    if value is None:
        message.none_value = True
    elif isinstance(value, list | tuple):
        items = message.list_value if isinstance(value, list) else message.tuple_value
        items.SetInParent()
        items.payloads.extend(map(encode, value))
    elif isinstance(value, Mapping):
        message.dict_value.SetInParent()
        for key, item in value.items():
            message.dict_value.payload_map[key].CopyFrom(encode(item))
    else:
        raise InputError(f"a {type(value).__name__} cannot be sent to the gateway")
    return message


def encode_series(name: str, values: Sequence[Any], kind: pyarrow.DataType | None = None) -> Any:
    """A polars series: a Parquet file of one column."""
    table = pyarrow.table({name: pyarrow.array(values, type=kind)})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, compression="lz4", write_statistics=False)
    return Payload(polars_series_value=sink.getvalue())


def encode_frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A polars data frame: an Arrow stream."""
    table = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return Payload(polars_dataframe_value=sink.getvalue())


def _decode_bytes(kind: str, data: bytes) -> Any:
    if kind in ("numpy_array_value", "numpy_scalar_value"):
        array = numpy.load(io.BytesIO(data), allow_pickle=False)
        return array if kind == "numpy_array_value" else array.item()
    table = _read_stream(data) if kind == "polars_dataframe_value" else _read_parquet(data)
    frame: Frame = {
        str(name): column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)
    }
    if kind.endswith("dataframe_value"):
        return frame
    if not frame:
        raise ValueError("it has no column")
    return next(iter(frame.values()))


def _read_parquet(data: bytes) -> pyarrow.Table:
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    told = file.metadata
    unpacked = sum(told.row_group(number).total_byte_size for number in range(told.num_row_groups))
    if told.num_rows > _MAX_ROWS or unpacked > _MAX_UNPACKED_BYTES:
        raise ValueError(f"it has {told.num_rows:,} rows in {unpacked:,} bytes")
    return file.read()


def _read_stream(data: bytes) -> pyarrow.Table:
    num_rows, batches = 0, []
    with pyarrow.ipc.open_stream(data) as reader:
        for batch in reader:
            num_rows += batch.num_rows
            if num_rows > _MAX_ROWS:
                raise ValueError(f"it has more than {_MAX_ROWS:,} rows")
            batches.append(batch)
        return pyarrow.Table.from_batches(batches, reader.schema)
