"""The viewer over HTTP: what it shows, whom it refuses, and what it says of what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from written_run import HOSTILE, create, write_steps, write_whole

from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_store import RunStore
from mathlete.viewer.app import Viewer
from mathlete.viewer.index import Catalogue


def get(catalogue: Catalogue, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Viewer(catalogue).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7717") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """A folder with one finished run, "r1"."""
    write_whole(tmp_path)
    return Catalogue(folders=[tmp_path])


def test_pages_of_a_run(catalogue: Catalogue) -> None:
    index = get(catalogue, "/")
    assert index.status_code == 200 and 'href="/runs/r1"' in index.text and "complete" in index.text
    front = get(catalogue, "/runs/r1").text
    assert 'href="/runs/r1/problems/2"' in front and "Over." in front and "<math" in front
    assert "So $" not in front and 'class="turn"' not in front  # no attempt is in it
    problem = get(catalogue, "/runs/r1/problems/1").text
    assert 'class="turn"' in problem and 'href="/runs/r1#row-1"' in problem and 'rel="next"' in problem


def test_a_single_run_needs_no_index(tmp_path: Path) -> None:
    path = write_whole(tmp_path)
    answer = get(Catalogue(named=[FoundRun(path, "r1")]), "/")
    assert answer.status_code == 307 and answer.headers["location"] == "/runs/r1"


def test_runs_are_compared_with_links_to_their_problems(tmp_path: Path) -> None:
    write_whole(tmp_path, "r1")
    write_whole(tmp_path, "r2")
    catalogue = Catalogue(folders=[tmp_path])
    assert "/compare?run=r" in get(catalogue, "/").text
    page = get(catalogue, "/compare?run=r1&run=r2")
    assert page.status_code == 200 and "/runs/r2/problems/2" in page.text
    assert get(catalogue, "/compare?run=r1").status_code == 404
    assert get(catalogue, "/compare?run=r1&run=nope").status_code == 404


def test_what_is_not_there(catalogue: Catalogue) -> None:
    for path, words in [("/runs/nope", "no run"), ("/runs/r1/problems/3", "no problem 3"), ("/nope", "Not Found")]:
        answer = get(catalogue, path)
        assert answer.status_code == 404 and words in answer.text, path
    assert get(catalogue, "/runs/..%2f..%2fetc%2fpasswd").status_code == 404
    assert get(catalogue, "/runs/r1/events").status_code == 400
    assert get(catalogue, "/runs/r1/events?seen=1-x").status_code == 400
    assert get(catalogue, "/runs/r1/events?seen=1-1&problem=-1").status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7717", "localhost:9000", "[::1]:7717", "[::1]", "LOCALHOST"])
def test_this_machine_is_let_in(catalogue: Catalogue, host: str) -> None:
    assert get(catalogue, "/", Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7717",
        "127.0.0.1.evil.example",
        "localhost.evil.example:7717",
        "0.0.0.0:7717",
        "",
        "x@localhost",
        "localhost:x",
        ":7717",
        "10.0.0.1",
    ],
)
def test_a_name_that_somebody_pointed_at_this_machine_is_refused(catalogue: Catalogue, host: str) -> None:
    answer = get(catalogue, "/runs/r1", Host=host)
    assert answer.status_code == 421 and "r1" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
def test_nothing_can_be_changed(catalogue: Catalogue, method: str) -> None:
    answer = get(catalogue, "/runs/r1", method)
    assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/runs/r1", "/runs/nope", "/nope", "/runs/r1/problems/1"])
def test_every_answer_is_fenced(catalogue: Catalogue, path: str) -> None:
    answer = get(catalogue, path, Origin="https://evil.example")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    write_whole(tmp_path, hostile=True)
    catalogue = Catalogue(folders=[tmp_path])
    for path in ("/runs/r1", "/runs/r1/problems/1"):
        text = get(catalogue, path).text
        assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text and "<img" not in text
        assert HOSTILE not in text and not any(character in text for character in "\x00\u202e")


def test_a_store_with_many_runs(tmp_path: Path) -> None:
    path = write_whole(tmp_path)
    with RunStore.create(path, "second") as store:
        for _ in write_steps(store):
            pass
    catalogue = Catalogue(folders=[tmp_path])
    assert {"r1", "second"} <= set(catalogue.runs())
    assert get(catalogue, "/runs/second/problems/1").status_code == 200


def test_a_damaged_store_beside_others_is_told(tmp_path: Path) -> None:
    write_whole(tmp_path, "good")
    bad = write_whole(tmp_path, "bad")
    bad.write_bytes(b"not a store" * 1000)
    catalogue = Catalogue(folders=[tmp_path])
    index = get(catalogue, "/")
    assert index.status_code == 200 and "is not a run store" in index.text and "complete" in index.text
    assert "good" in get(catalogue, "/runs/good").text
    assert "Nothing is recorded yet" in get(catalogue, "/runs/bad").text


def test_outlines_of_few_runs_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathlete.viewer.index.MAX_HELD", 2)
    names: Sequence[str] = [f"r{number}" for number in range(4)]
    for name in names:
        create(tmp_path, name).close()
    catalogue = Catalogue(folders=[tmp_path])
    watched = [catalogue.find(name) for name in names]
    assert catalogue.find("r3") is watched[3] and catalogue.find("r0") is not watched[0]
