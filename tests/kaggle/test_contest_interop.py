"""Our server under the organiser's gateway, our gateway over the organiser's server; with his package, else skipped.

It is found by name, or in the folder that KAGGLE_EVALUATION names (the one that holds `kaggle_evaluation`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scripted_contest import contest, write_csv

from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.entrant import ContestEntrant
from mathlete.kaggle.entrant_launch import free_port
from mathlete.kaggle.entrant_process import Serving, serve_contest
from mathlete.kaggle.gateway import Gateway, GatewayConfig
from mathlete.kaggle.payload import decode, encode
from mathlete.kaggle.protocol import CHANNEL_OPTIONS, PORTS, RESPONSE_S, STARTUP_S, Payload
from mathlete.kaggle.server import InferenceServer, organiser_package

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def package() -> Iterator[Any]:
    """The organiser's server module, without the ports that other tests may have taken."""
    folder = os.environ.get("KAGGLE_EVALUATION")
    if folder:
        sys.path.insert(0, folder)
    try:
        server = organiser_package()
        if server is None:
            pytest.skip("needs the organiser's package: KAGGLE_EVALUATION=FOLDER that holds kaggle_evaluation")
        yield server
    finally:
        if folder:
            sys.path.remove(folder)


@pytest.fixture
def relay(package: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    relay = importlib.import_module("kaggle_evaluation.core.relay")
    assert tuple(relay.GRPC_PORTS) == PORTS or len(relay.GRPC_PORTS) == 1
    monkeypatch.setattr(relay, "GRPC_PORTS", [free_port()])
    return relay


def test_the_limits_are_the_organisers(package: Any) -> None:
    relay = importlib.import_module("kaggle_evaluation.core.relay")
    assert relay.STARTUP_LIMIT_SECONDS == STARTUP_S
    ours, theirs = dict(CHANNEL_OPTIONS), dict(relay._GRPC_CHANNEL_OPTIONS)
    assert {name for name in theirs if ours[name] != theirs[name]} == {"grpc.max_receive_message_length"}
    gateway = importlib.import_module("kaggle_evaluation.aimo_3_gateway").AIMO3Gateway(("x.csv",))
    assert gateway.timeout_seconds == RESPONSE_S


@pytest.mark.parametrize(
    "value", ["é", True, 3, -5, 1.5, None, [1, "a"], (1, [2]), {"a": [None]}, [], (), {}], ids=repr
)
def test_values_are_the_same_bytes(relay: Any, value: Any) -> None:
    assert encode(value).SerializeToString() == relay._serialize(value).SerializeToString()


def test_frames_and_columns_of_both_libraries_are_read(relay: Any) -> None:
    import numpy
    import pandas
    import polars

    columns = {"id": ["a"], "answer": [7]}
    for value, expected in [
        (polars.DataFrame(columns), columns),
        (pandas.DataFrame(columns), columns),
        (polars.Series("id", ["a"]), ["a"]),
        (pandas.Series(["a"], name="id"), ["a"]),
        (numpy.int64(4), 4),
    ]:
        assert decode(Payload.FromString(relay._serialize(value).SerializeToString())) == expected


@pytest.mark.parametrize("labels", [True, False])
def test_the_organisers_gateway_plays_with_our_server(
    package: Any, relay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: bool
) -> None:
    import polars

    monkeypatch.chdir(tmp_path)  # where it writes
    path = write_csv(tmp_path / "problems.csv", labels=labels)
    gateway = importlib.import_module("kaggle_evaluation.aimo_3_gateway").AIMO3Gateway((str(path),))
    with ContestEntrant(contest(tmp_path), Console(quiet=True)) as entrant:
        with InferenceServer(entrant.predict, ports=relay.GRPC_PORTS):
            gateway.run()
    submission = polars.read_parquet(tmp_path / "submission.parquet").sort("id")
    assert submission.to_dict(as_series=False) == {"id": ["p0", "p1", "p2"], "answer": [0, 11, 22]}


def test_our_gateway_plays_with_the_organisers_server(package: Any, relay: Any, tmp_path: Path) -> None:
    import polars

    seen: list[int] = []

    def predict(id_: polars.Series, problem: polars.Series, *label: polars.Series) -> polars.DataFrame:
        seen.append(len(label))
        return polars.DataFrame({"id": id_, "answer": [len(problem.item(0))]})

    server = package.AIMO3InferenceServer(predict)
    server.server.start()
    table = ContestTable.read(write_csv(tmp_path / "problems.csv"))
    run = Gateway(table, GatewayConfig(ports=relay.GRPC_PORTS, host="localhost")).play()
    server.server.stop(0).wait()
    assert run.error is None and seen == [1, 1, 1]
    assert run.answers == {"p0": 14, "p1": 15, "p2": 15}


def test_our_predict_in_the_organisers_server_under_his_gateway(
    package: Any, relay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a notebook does when it is saved: `contest serve --local-csv`."""
    import polars

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    path = write_csv(tmp_path / "problems.csv")
    assert serve_contest(contest(tmp_path), Serving(local_csv=path), Console(quiet=True)) is None
    submission = polars.read_parquet(tmp_path / "submission.parquet").sort("id")
    assert submission.to_dict(as_series=False) == {"id": ["p0", "p1", "p2"], "answer": [0, 11, 22]}
