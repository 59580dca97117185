"""The organiser's gRPC service: names, messages, ports and limits, as his package `kaggle_evaluation` has them.

Knows the wire, byte for byte; does not know what a value means (`payload`), nor who asks or answers. The messages are
described here field by field, in a pool of their own, so that they do not meet the organiser's own descriptions.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "kaggle_evaluation_client"
METHOD = f"/{PACKAGE}.KaggleEvaluationService/Send"
SERVICE = f"{PACKAGE}.KaggleEvaluationService"
ENDPOINT = "predict"

# A server takes the first that is free; a client tries them in turn.
PORTS = (50_051, *range(60_053, 60_063))

# A client gives a server so long to begin to listen. The first answer has no deadline, so models are loaded there.
STARTUP_S = 900.0

# What the organiser's gateway of AIMO-3 waits for each later answer.
RESPONSE_S = 9 * 3600.0

RERUN_VARIABLE = "KAGGLE_IS_COMPETITION_RERUN"  # is set where the hidden problems are asked

_MAX_RECEIVED_BYTES = 64 << 20  # the organiser sets no limit; a statement has a few thousand

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)

# Fields of `Payload`'s oneof, in the order of their numbers, from 1.
PAYLOAD_FIELDS = (
    "str_value", "bool_value", "int_value", "float_value", "none_value", "list_value", "tuple_value", "dict_value",
    "pandas_dataframe_value", "polars_dataframe_value", "pandas_series_value", "polars_series_value",
    "numpy_array_value", "numpy_scalar_value", "bytes_io_value",
)  # fmt: skip

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "str_value": _Field.TYPE_STRING,
    "bool_value": _Field.TYPE_BOOL,
    "int_value": _Field.TYPE_SINT64,
    "float_value": _Field.TYPE_FLOAT,
    "none_value": _Field.TYPE_BOOL,
}
_MESSAGES = {"list_value": "PayloadList", "tuple_value": "PayloadList", "dict_value": "PayloadMap"}


def _add_field(message: Any, name: str, number: int, of: str | int, *, repeated: bool = False) -> Any:
    """A field of a type (a number of protobuf's), or of another message (its name)."""
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    added = message.field.add(name=name, number=number, label=label)
    if isinstance(of, str):
        added.type, added.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{of}"
    else:
        added.type = of
    return added


def _add_map(message: Any, name: str, number: int) -> None:
    """A field that maps strings to payloads, as `map<string, Payload>` is written out."""
    entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    nested = message.nested_type.add(name=entry)
    nested.options.map_entry = True
    _add_field(nested, "key", 1, _Field.TYPE_STRING)
    _add_field(nested, "value", 2, "Payload")
    _add_field(message, name, number, f"{message.name}.{entry}", repeated=True)


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="mathlete/kaggle.proto", package=PACKAGE, syntax="proto3")
    request = file.message_type.add(name="KaggleEvaluationRequest")
    _add_field(request, "name", 1, _Field.TYPE_STRING)
    _add_field(request, "args", 2, "Payload", repeated=True)
    _add_map(request, "kwargs", 3)
    _add_field(file.message_type.add(name="KaggleEvaluationResponse"), "payload", 1, "Payload")
    payload = file.message_type.add(name="Payload")
    payload.oneof_decl.add(name="value")
    for number, name in enumerate(PAYLOAD_FIELDS, 1):
        field = _add_field(payload, name, number, _MESSAGES.get(name) or _TYPES.get(name, _Field.TYPE_BYTES))
        field.oneof_index = 0
    _add_field(file.message_type.add(name="PayloadList"), "payloads", 1, "Payload", repeated=True)
    _add_map(file.message_type.add(name="PayloadMap"), "payload_map", 1)
    return file


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_describe())
Request = _message_class("KaggleEvaluationRequest")
Response = _message_class("KaggleEvaluationResponse")
Payload = _message_class("Payload")
