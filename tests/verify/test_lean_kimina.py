"""The checker over a Kimina Lean Server: a stand-in that answers in the real one's documented form."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mathlete.verify.lean import kimina
from mathlete.verify.lean.kimina import KiminaClient, KiminaConfig
from mathlete.verify.lean.lean_check import LeanChecker

STATEMENT = "import Mathlib\n\nopen Nat\n\ntheorem small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n := by sorry"

Answer = Callable[[str, dict[str, Any]], tuple[int, bytes]]


class Server:
    """Answers with what the test sets, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda path, body: (500, b"")
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(200 if self.path == "/health" else 404, b'{"status": "ok"}')

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, body, self.headers["Authorization"]))
                self.say(*server.answer(self.path, body))

            def say(self, status: int, content: bytes) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()


def checker(server: Server, **options: Any) -> LeanChecker:
    return LeanChecker(KiminaClient(KiminaConfig(server.url, pause_s=0, **options)))


def lean(code: str, axioms: str = "[propext]", *extra: tuple[str, str, str]) -> dict[str, Any]:
    """A response as Lean would give it: messages with the lines of the whole file.

    Each of `extra` is (text that its line holds, severity, message).
    """

    def line_of(pattern: str) -> int:
        return code[: re.search(pattern, code).start()].count("\n") + 1

    def said(line: int, severity: str, data: str) -> dict[str, Any]:
        return {"severity": severity, "pos": {"line": line, "column": 0}, "endPos": None, "data": data}

    name = re.search(r"#print axioms (\w+)", code)[1]
    return {
        "env": 1,
        "messages": [
            said(line_of("theorem mathlete_reference"), "warning", "declaration uses 'sorry'"),
            *(said(line_of(pattern), severity, data) for pattern, severity, data in extra),
            said(line_of("#print axioms"), "info", f"'{name}' depends on axioms: {axioms}"),
        ],
        "sorries": [{"pos": {"line": 6, "column": 0}, "endPos": {"line": 6, "column": 5}, "goal": "⊢ 1 ≤ n"}],
    }


def current(make: Callable[[str], dict[str, Any]]) -> Answer:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path != "/api/check":
            return 404, b""
        (snippet,) = body["snippets"]
        result = {"id": snippet["id"], "time": 0.1, "response": make(snippet["code"])}
        return 200, json.dumps({"results": [result]}).encode()

    return answer


def test_a_proof_is_proved(server: Server) -> None:
    server.answer = current(lean)
    found = checker(server, key="secret", check_s=7).check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("PROVED", None)
    ((path, body, key),) = server.asked
    assert (path, key, body["timeout"]) == ("/api/check", "Bearer secret", 7)
    lines = body["snippets"][0]["code"].splitlines()
    assert lines[:2] == ["import Mathlib", "open Nat"]
    assert lines[-1].startswith("#print axioms mathlete_audit_")


def test_an_older_server_is_asked_at_its_own_place(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path != "/verify":
            return 404, b""
        (code,) = body["codes"]
        result = {"custom_id": code["custom_id"], "error": None, "response": {**lean(code["proof"]), "time": 0.1}}
        return 200, json.dumps({"results": [result]}).encode()

    server.answer = answer
    assert checker(server).check(STATEMENT, "by omega").verdict == "PROVED"
    assert [path for path, _, _ in server.asked] == ["/api/check", "/verify"]


@pytest.mark.parametrize(
    ("make", "failure", "detail"),
    [
        (lambda code: lean(code, "[sorryAx]"), "audit", "sorryAx"),
        (lambda code: lean(code, "[propext]", ("by omega", "error", "omega failed")), None, "omega failed"),
        (
            lambda code: lean(code, "[propext]", ("theorem mathlete_audit", "error", "type mismatch")),
            "audit",
            "mismatch",
        ),
        (lambda code: lean(code, "[propext]", ("theorem mathlete_reference", "error", "unknown ℕ")), "statement", "ℕ"),
        (lambda code: {"env": 1}, "statement", ""),
        (lambda code: {"message": "Lean REPL failed"}, "statement", "Lean REPL failed"),
        (lambda code: {**lean(code), "sorries": [1, 2]}, "audit", "sorry"),
        (lambda code: {"env": 1, "messages": "none"}, "crash", "form"),
        (lambda code: {**lean(code), "messages": lean(code)["messages"][:1]}, "audit", "0 things"),
    ],
)
def test_everything_else_is_unknown(
    server: Server, make: Callable[[str], dict[str, Any]], failure: str | None, detail: str
) -> None:
    server.answer = current(make)
    found = checker(server).check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("UNKNOWN", failure)
    assert detail in found.detail


def test_a_message_of_the_attempt_does_not_speak_for_the_audit(server: Server) -> None:
    """The audit's message counts only where the audit stands, and only with its random name."""

    def make(code: str) -> dict[str, Any]:
        name = re.search(r"#print axioms (\w+)", code)[1]
        response = lean(code, "[propext]", ("by omega", "info", f"'{name}' depends on axioms: [propext]"))
        return {**response, "messages": response["messages"][:-1]}

    server.answer = current(make)
    assert checker(server).check(STATEMENT, "by omega").failure == "audit"


@pytest.mark.parametrize(
    ("status", "content", "failure", "num_asked"),
    [
        (429, b"", "unreachable", 3),
        (503, b"", "unreachable", 3),
        (401, b"", "unreachable", 1),
        (302, b"", "unreachable", 1),
        (200, b"no json", "unreachable", 1),
        (200, b"[]", "unreachable", 1),
        (200, b'{"results": []}', "unreachable", 1),
        (200, b'{"results": [{"id": "other", "response": {"env": 1}}]}', "unreachable", 1),
        (200, b'{"results": [{"id": "mathlete", "error": "Lean REPL command timed out in 60 seconds"}]}', "timeout", 1),
        (200, b'{"results": [{"id": "mathlete", "error": "out of memory"}]}', "crash", 1),
        (200, b'{"results": [{"id": "mathlete", "response": 5}]}', "crash", 1),
    ],
)
def test_a_server_that_fails(server: Server, status: int, content: bytes, failure: str, num_asked: int) -> None:
    server.answer = lambda path, body: (status, content)
    found = checker(server).check(STATEMENT, "by omega")
    assert (found.verdict, found.failure) == ("UNKNOWN", failure)
    assert len(server.asked) == num_asked


def test_a_busy_server_is_asked_again(server: Server) -> None:
    good = current(lean)
    server.answer = lambda path, body: (503, b"") if len(server.asked) < 3 else good(path, body)
    assert checker(server).check(STATEMENT, "by omega").verdict == "PROVED"
    assert len(server.asked) == 3


def test_an_answer_without_end_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kimina, "MAX_RESPONSE_BYTES", 1000)
    server.answer = lambda path, body: (200, b"x" * 5000)
    found = checker(server).check(STATEMENT, "by omega")
    assert found.failure == "unreachable" and "longer" in found.detail


def test_a_server_that_is_not_there() -> None:
    waits: list[float] = []
    client = KiminaClient(KiminaConfig("http://127.0.0.1:9", pause_s=0.5), sleep=waits.append)
    found = LeanChecker(client).check(STATEMENT, "by omega")
    assert (found.failure, waits) == ("unreachable", [0.5, 1.0])
    assert not client.is_alive()


def test_health(server: Server) -> None:
    assert KiminaClient(KiminaConfig(server.url)).is_alive()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "localhost:8000"}, "url"),
        ({"url": "http://a", "num_tries": 0}, "num_tries"),
        ({"url": "http://a", "check_s": 0}, "check_s"),
        ({"url": "http://a", "pause_s": -1}, "pause_s"),
    ],
)
def test_the_configuration_names_a_bad_field(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        KiminaConfig(**options)
