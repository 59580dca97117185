"""A server in this process: scripted model, no sandbox, a real port."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from rich.console import Console

sys.path.append(str(Path(__file__).parents[1] / "adapters"))  # the scripted model is there

from scripted_model import ScriptedModel  # noqa: E402
from served import Served  # noqa: E402

from mathlete.cli.serve import SharedEngine  # noqa: E402
from mathlete.local_server import Server, address_of, open_port  # noqa: E402
from mathlete.run_config import RunConfig  # noqa: E402
from mathlete.serving.app import ChatServer  # noqa: E402
from mathlete.serving.chat_request import Ceilings  # noqa: E402
from mathlete.serving.desk import Desk  # noqa: E402
from mathlete.session import crew  # noqa: E402
from no_sandbox import NoSandbox  # noqa: E402

BASE = RunConfig("solve", None, "scripted", 60.0, attempts=4, policy="vote", pillars=("reasoning",))


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """Start a server; it ends with the test. Runs go into `tmp_path/runs`."""
    monkeypatch.setattr(crew, "build_sandbox", NoSandbox)
    with ExitStack() as cleanup:
        yield lambda model, **options: _start(cleanup, tmp_path / "runs", model, **options)


def _start(
    cleanup: ExitStack,
    runs_dir: Path,
    model: ScriptedModel,
    *,
    key: str | None = None,
    num_at_once: int = 2,
    num_waiting: int = 2,
    ceilings: Ceilings | None = None,
) -> Served:
    told: list[str] = []
    engine = SharedEngine(model.load(BASE, Console(quiet=True)))
    desk = Desk(BASE, engine, runs_dir, num_at_once=num_at_once, num_waiting=num_waiting, tell=told.append)
    server = Server(ChatServer(desk, "mathlete", ceilings or Ceilings(), key).app(), desk.end, 60)
    listening = open_port("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_interrupted, args=(listening,))
    thread.start()

    def end() -> None:
        desk.end()
        server.should_exit = True
        thread.join(30)
        desk.close()
        engine.close()
        assert not thread.is_alive()

    served = Served(f"{address_of(listening)}v1", desk, told, runs_dir, end)
    cleanup.callback(end)
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        try:
            httpx.get(served.url.removesuffix("/v1") + "/health", trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.02)
    return served
