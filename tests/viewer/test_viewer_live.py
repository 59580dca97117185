"""The viewer as a person starts it: a server of its own, a run that is written meanwhile, an end by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from written_run import create, write_steps

from mathlete.core.errors import InputError
from mathlete.lab.run_finding import FoundRun
from mathlete.local_server import Server, address_of
from mathlete.viewer.app import Viewer
from mathlete.viewer.index import Catalogue
from mathlete.viewer.server import GRACE_S, open_port

PATIENCE_S = 60.0


@contextmanager
def served(catalogue: Catalogue) -> Iterator[str]:
    """The address of a viewer on a free port, served by another thread."""
    viewer = Viewer(catalogue, poll_s=0.02)
    server, listening = Server(viewer.app(), viewer.close, GRACE_S), open_port("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_interrupted, args=(listening,))
    thread.start()
    try:
        yield address_of(listening)
    finally:
        server.handle_exit(signal.SIGINT, None)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it does not end"


class Listener:
    """Somebody's browser: reads what is pushed, one event at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, dict[str, str], str]:
        """Kind, parts and id of the next event."""
        fields: dict[str, str] = {}
        give_up_s = time.monotonic() + PATIENCE_S
        for line in self._lines:
            assert time.monotonic() < give_up_s, "nothing but signs of life"
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                return fields["event"], json.loads(fields["data"]), fields["id"]
            else:
                fields = {}
        raise AssertionError("the viewer stopped pushing")

    def until(self, words: str) -> str:
        """The id of the event that brings `words` in some part."""
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            kind, parts, place = self.next()
            assert kind == "parts"
            if any(words in html for html in parts.values()):
                return place
        raise AssertionError(f"never heard of {words!r}")


def events_of(client: httpx.Client, path: str) -> str:
    """Where a page says that its news are."""
    return client.get(path).text.split('data-events="')[1].split('"')[0].replace("&amp;", "&")


def test_a_page_follows_a_run_that_begins_goes_on_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "r1" / "run.sqlite"
    with (
        served(Catalogue(named=[FoundRun(path, "r1")])) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        with client.stream("GET", events_of(client, "/runs/r1")) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            listener = Listener(response)
            assert "Nothing is recorded yet" in listener.next()[1]["live"]
            with create(tmp_path) as store:
                steps = write_steps(store)
                next(steps)
                assert listener.next()[0] == "again"
                with client.stream("GET", events_of(client, "/runs/r1")) as second:
                    front = Listener(second)
                    problem_events = events_of(client, "/runs/r1/problems/1")
                    with client.stream("GET", problem_events) as third:
                        problem = Listener(third)
                        next(steps)
                        front.until("0 of 1")
                        problem.until("Turn 1")
                    next(steps)
                    seen = front.until("0 of 2")
                    for _ in steps:
                        pass
                    front.until("Over.")
                # A connection that was lost takes up where it was: the browser says what it had last.
                with client.stream("GET", problem_events, headers={"Last-Event-ID": seen}) as again:
                    Listener(again).until("This is the right answer")


def test_the_end_does_not_wait_for_those_who_listen(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        next(write_steps(store))
        with httpx.Client(timeout=60) as client:
            with served(Catalogue(named=[FoundRun(store.path, "r1")])) as address:
                events = events_of(client, f"{address}runs/r1")
                response = client.send(client.build_request("GET", f"{address.rstrip('/')}{events}"), stream=True)
            begun_s = time.monotonic()
            assert "".join(response.iter_text()).startswith("retry:")  # whole: it ended in order
            assert time.monotonic() - begun_s < PATIENCE_S


def test_ports() -> None:
    with open_port("127.0.0.1", 0) as taken:
        with pytest.raises(InputError, match=r"in use.*--port"):
            open_port("127.0.0.1", taken.getsockname()[1])
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", ""):
        with pytest.raises(InputError, match="this machine only"):
            open_port(host, 0)
    with open_port("localhost", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_ctrl_c_ends_the_command_quietly(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        next(write_steps(store))
        command = [sys.executable, "-m", "mathlete", "view", str(store.path.parent), "--port", "0", "--no-open"]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "400"}
        )
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            address = next(word for word in told.split() if word.startswith("http://127.0.0.1:"))
            with httpx.Client(timeout=60) as client:
                events = events_of(client, f"{address}runs/r1")
                with client.stream("GET", f"{address.rstrip('/')}{events}") as response:
                    Listener(response).next()
                    process.send_signal(signal.SIGINT)
                    assert process.wait(PATIENCE_S) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
