"""An entrant and its server as a process: what `mathlete contest serve` does, and what a rehearsal starts and kills.

Knows how the process is told what to do, and signals. The organiser's server is used where his package is installed
and no port is asked for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from mathlete.core.errors import InputError
from mathlete.kaggle.contest_run import Contest
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.engine_guards import failing_on_demand
from mathlete.kaggle.entrant import ContestEntrant
from mathlete.kaggle.gateway import Gateway, GatewayConfig, GatewayRun, write_outcome
from mathlete.kaggle.protocol import PORTS
from mathlete.kaggle.server import InferenceServer, is_rerun, organiser_package, organiser_server
from mathlete.run_config import decode_config
from mathlete.session.crew import Load
from mathlete.session.engine_loading import load_generator

ALL_ADDRESSES = "[::]"  # the organiser's gateway asks from another container
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Serving:
    """Where an entrant serves.

    Attributes:
        host: address to listen at; None for this machine only, or for all where the hidden problems are asked.
        port: to listen at; None for the organiser's, and his server where his package is installed.
        local_csv: problems to be asked by a gateway in this process, where nobody else asks.
    """

    host: str | None = None
    port: int | None = None
    local_csv: Path | None = None

    @property
    def address(self) -> str:
        """To listen at."""
        return self.host or (ALL_ADDRESSES if is_rerun() else "127.0.0.1")


def serve_contest(contest: Contest, serving: Serving, console: Console) -> GatewayRun | None:
    """Serve until a signal, or where there are local problems and no rerun, until these are answered.

    The server listens within a second or two, and the engine is loaded meanwhile.

    Returns:
        What a local gateway saw; None where none of our own played.

    Raises:
        MathleteError: the run cannot be begun, no port is free, or the local problems cannot be read.
    """
    table = None
    if serving.local_csv is not None and not is_rerun():
        table = ContestTable.read(serving.local_csv)
    package = organiser_package() if serving.port is None else None
    with ContestEntrant(contest, console) as entrant:
        if package is not None:
            _serve_by_organiser(package, entrant, None if table is None else serving.local_csv, console)
            return None
        ports = PORTS if serving.port is None else (serving.port,)
        with InferenceServer(entrant.predict, host=serving.address, ports=ports) as server, _Ending() as ending:
            console.print(f"serving at {serving.address}:{server.port}; run: {entrant.folder}", soft_wrap=True)
            if table is None:
                ending.wait()
                entrant.close()  # ends the problem in hand, so that the call that waits for it has its answer
                server.stop(_END_S)
                return None
            run = Gateway(table, GatewayConfig(ports=(server.port,), seed=contest.config.seed)).play()
            entrant.close()
            write_outcome(run, table, entrant.folder)
            return run


def _serve_by_organiser(package: Any, entrant: ContestEntrant, local_csv: Path | None, console: Console) -> None:
    server = organiser_server(package, entrant.predict)
    console.print(f"serving with the organiser's package; run: {entrant.folder}", soft_wrap=True)
    if local_csv is not None:
        server.run_local_gateway((str(local_csv),))  # writes submission.parquet into the working directory
        return
    with _Ending() as ending:
        server.server.start()
        ending.wait()
        entrant.close()
        server.server.stop(_END_S).wait()


class _Ending:
    """Waits for SIGINT, SIGTERM or SIGHUP, as a context manager in the main thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __enter__(self) -> _Ending:
        def ask(number: int, frame: FrameType | None) -> None:
            self._asked.set()

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, ask) for number in signals}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def wait(self) -> None:
        self._asked.wait()


def encode_contest(contest: Contest, port: int) -> str:
    """What `run_encoded` takes: a contest that is played at a port, as JSON.

    Raises:
        InputError: the run has no name, by which it could be taken up again.
    """
    if contest.run_id is None:
        raise InputError("a contest that another process plays must have a run_id")
    return json.dumps(
        {
            "config": asdict(contest.config),
            "num_problems": contest.num_problems,
            "runs_dir": str(contest.runs_dir.absolute()),
            "run_id": contest.run_id,
            "port": port,
        }
    )


def run_encoded(text: str, load: Load = load_generator) -> None:
    """Serve what `encode_contest` says, in this process; SIGUSR1 has the engine raise an exception once.

    It ends in order when its standard input does: whoever started it is gone.
    """
    told = json.loads(text)
    fail = threading.Event()
    signal.signal(signal.SIGUSR1, lambda number, frame: fail.set())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    contest = Contest(
        decode_config(told["config"]),
        told["num_problems"],
        Path(told["runs_dir"]),
        told["run_id"],
        failing_on_demand(load, fail),
    )
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    serve_contest(contest, Serving(port=told["port"]), console)


def _end_with_starter() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_encoded(sys.argv[1])
