"""An OpenAI-compatible server without a model, on a free port of this machine: answers well, or as badly as it is told.

It says what the last user message has behind "say: " in hexadecimal, else always the same; goes on with a turn that has
begun where its dialect can. Faults are taken one for each request, in order.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from mathlete.core.generation import Message

WORDS = "Let us see: one and one is two, naïve 😀 as that may be; so the answer must be \\boxed{2}. " * 4
MODEL = "fake-1b"
EOS_ID = 0


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: answered instead of 200, with `headers` and `body`.
        after: pieces after which the stream goes wrong, by `how`.
        how: "reset" (the connection is), "end" (it is closed as if all were well), "hang", "say" (`body` is sent).
        body: what is said then.
        headers: beside the usual ones.
        drip_s: seconds between two pieces.
    """

    status: int = 200
    after: int | None = None
    how: Literal["reset", "end", "hang", "say"] = "end"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    drip_s: float = 0.0


def saying(text: str) -> tuple[Message, ...]:
    """A chat that is answered with exactly this."""
    return (Message("user", f"say: {text.encode().hex()}"),)


@dataclass
class FakeServer:
    """The server; `with FakeServer(...) as server:` runs it.

    Attributes:
        dialect: which it behaves like.
        faults: of the next requests.
        key: that it wants to be shown.
        context: words of a prompt at most.
        refuses: fields that it does not know.
        piece_s: seconds between two pieces.
        bodies: what it was asked, in order.
        headers: of these.
        num_broken_off: streams whose client went away.
    """

    dialect: str = "vllm"
    faults: list[Fault] = field(default_factory=list)
    key: str | None = None
    context: int = 2000
    refuses: tuple[str, ...] = ()
    piece_s: float = 0.0
    thinks: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_broken_off: int = 0
    num_at_once: int = 0
    most_at_once: int = 0
    model_faults: list[Fault] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> FakeServer:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def id_of(self, piece: str) -> int:
        with self.lock:
            return self.ids.setdefault(piece, len(self.ids) + 1)

    def tokenize(self, body: dict[str, Any]) -> list[int]:
        """A chat is one token here, and a text one for each word."""
        if "messages" in body:
            return [self.id_of(json.dumps(body["messages"]))]
        return [self.id_of(piece) for piece in re.findall(r"\s*\S+|\s+", body["prompt"])]

    def messages_of(self, token_ids: list[int]) -> list[dict[str, str]]:
        """What a prompt in ids says: a chat, and the beginning of its answer."""
        with self.lock:
            says = {token_id: text for text, token_id in self.ids.items()}
        messages: list[dict[str, str]] = json.loads(says[token_ids[0]])
        return [*messages, {"role": "assistant", "content": "".join(says[i] for i in token_ids[1:])}]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client went away, which is what many tests do."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        fake = self.fake
        if fake.model_faults:
            return self._fail(fake.model_faults.pop(0))
        if not self._may():
            return None
        if self.path == "/v1/models":
            entry: dict[str, Any] = {"id": MODEL, "object": "model", "owned_by": fake.dialect.replace(".", "")}
            if fake.dialect == "vllm":
                entry["max_model_len"] = fake.context
            return self._json(200, {"object": "list", "data": [entry]})
        if self.path == "/props" and fake.dialect == "llama.cpp":
            return self._json(200, {"total_slots": 40})
        return self._json(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize" and fake.dialect == "vllm":
            return self._json(200, {"tokens": fake.tokenize(body), "max_model_len": fake.context})
        if self.path == "/v1/completions" and fake.dialect == "vllm":
            body |= {"messages": fake.messages_of(body["prompt"]), "continue_final_message": True}
        elif self.path != "/v1/chat/completions":
            return self._json(404, {"detail": "Not Found"})
        with fake.lock:
            fake.bodies.append(body)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            fault = fake.faults.pop(0) if fake.faults else Fault()
            fake.num_at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake.num_at_once)
        try:
            self._answer(body, fault)
        except OSError:
            fake.num_broken_off += 1
            self.close_connection = True
        finally:
            with fake.lock:
                fake.num_at_once -= 1
        return None

    def _answer(self, body: dict[str, Any], fault: Fault) -> None:
        fake = self.fake
        if fault.status != 200:
            return self._fail(fault)
        if not self._may():
            return None
        if body["model"] != MODEL:
            return self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        for name in fake.refuses:
            if name in body:
                return self._json(400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}})
        num_prompt = len(_words(body))
        if num_prompt > fake.context:
            message = f"This model's maximum context length is {fake.context} tokens, and you asked for {num_prompt}."
            return self._json(400, {"error": {"message": message}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, event in enumerate((*_events(fake, body, num_prompt), "[DONE]")):
            if fault.after == i:
                self._go_wrong(fault)
                return None
            if pause_s := fault.drip_s or fake.piece_s:
                time.sleep(pause_s)
            self._chunk(f"data: {event}\n\n".encode())
        self._chunk(b"")
        return None

    def _go_wrong(self, fault: Fault) -> None:
        if fault.how == "reset":
            time.sleep(0.05)  # what is on its way would be lost with the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault.how == "hang":
            self.fake.closing.wait(20)
        elif fault.how == "say":
            self._chunk(fault.body)
            self._chunk(b"")
        else:
            self._chunk(b"")
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _may(self) -> bool:
        if self.fake.key is None or self.headers.get("Authorization") == f"Bearer {self.fake.key}":
            return True
        told = self.headers.get("Authorization", "nothing")
        self._json(401, {"error": {"message": f"Incorrect API key provided: {told}."}})
        return False

    def _fail(self, fault: Fault) -> None:
        self._send(fault.status, fault.body or b'{"error": {"message": "told to fail"}}', fault.headers)

    def _json(self, status: int, told: object) -> None:
        self._send(status, json.dumps(told).encode(), (("Content-Type", "application/json"),))

    def _send(self, status: int, body: bytes, headers: Sequence[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _words(body: dict[str, Any]) -> list[str]:
    texts = [f"{message['role']} {message['content']}" for message in body["messages"]]
    return re.findall(r"\w+|[^\w\s]", " ".join(texts))


def _reply(fake: FakeServer, body: dict[str, Any]) -> tuple[str, str]:
    """What is said, and what of it the client has said already."""
    messages = body["messages"]
    user = next((m["content"] for m in reversed(messages) if m["role"] == "user" and "say: " in m["content"]), "")
    whole = bytes.fromhex(user.partition("say: ")[2]).decode() if user else WORDS
    begins = fake.dialect == "llama.cpp" or body.get("continue_final_message")
    begun = messages[-1]["content"] if begins and messages[-1]["role"] == "assistant" else ""
    return (whole[len(begun) :] if whole.startswith(begun) else whole), begun


def _events(fake: FakeServer, body: dict[str, Any], num_prompt: int) -> Iterator[str]:
    text, begun = _reply(fake, body)
    pieces = re.findall(r"\s*\S+|\s+", text)
    if body.get("ignore_eos"):
        pieces *= 100
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    reason = "length" if len(pieces) >= limit else "stop"
    pieces = pieces[:limit]
    stops, said = body.get("stop") or [], ""
    yield _event(fake, body, {"role": "assistant", "content": "" if fake.dialect == "vllm" else None})
    if fake.thinks:
        yield _event(fake, body, {"reasoning_content": fake.thinks})
    for i, piece in enumerate(pieces):
        said += piece
        ends = {stop: said.index(stop) + len(stop) for stop in stops if stop in said}
        stop = min(ends, key=lambda name: (ends[name], -len(name)), default=None)
        shown = piece if stop is None else said[: ends[stop]][len(said) - len(piece) :]
        is_stop_id = fake.id_of(piece) in (body.get("stop_token_ids") or ())
        told = {"content": (begun if fake.dialect == "llama.cpp" and i == 0 else "") + shown}
        usage = _usage(num_prompt, i + 1)
        yield _event(fake, body, told, piece=piece, usage=usage if fake.dialect == "vllm" else None, num=i + 1)
        if stop is not None or is_stop_id:
            yield _event(fake, body, {}, reason="stop", stop=stop, num=i + 1)
            yield json.dumps({"choices": [], "usage": usage})
            return
    num = len(pieces)
    if reason == "stop" or not pieces:
        num += 1
        yield _event(fake, body, {"content": ""}, reason="stop", piece="", num=num)
    else:
        yield _event(fake, body, {}, reason=reason, num=num)
    yield json.dumps({"choices": [], "usage": _usage(num_prompt, num)})


def _usage(num_prompt: int, num: int) -> dict[str, Any]:
    details = {"cached_tokens": num_prompt // 2}
    return {"prompt_tokens": num_prompt, "completion_tokens": num, "prompt_tokens_details": details}


def _event(
    fake: FakeServer,
    body: dict[str, Any],
    delta: dict[str, Any],
    *,
    reason: str | None = None,
    stop: str | None = None,
    piece: str | None = None,
    usage: dict[str, Any] | None = None,
    num: int = 0,
) -> str:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": reason}
    token_id = EOS_ID if piece == "" else fake.id_of(piece or "")
    tells_end = fake.dialect == "vllm" or piece != ""
    if piece is not None and body.get("return_token_ids") and fake.dialect == "vllm":
        choice["token_ids"] = [token_id]
    if piece is not None and "logprobs" in body and tells_end:
        num_top = body["logprobs"] if "prompt" in body else body.get("top_logprobs", 0)
        choice["logprobs"] = {"content": [_logprobs(fake, piece, token_id, num_top)]}
    if stop is not None and fake.dialect == "vllm":
        choice["stop_reason"] = stop
    if "prompt" in body:
        choice |= {"text": choice.pop("delta").get("content") or "", "logprobs": _legacy(choice.get("logprobs"))}
    event: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
    if usage is not None:
        event["usage"] = usage
    if fake.dialect == "llama.cpp" and num:
        event["timings"] = {"prompt_n": len(_words(body)), "cache_n": 0, "predicted_n": num}
    return json.dumps(event)


def _logprobs(fake: FakeServer, piece: str, token_id: int, num_top: int) -> dict[str, Any]:
    def entry(i: int, text: str) -> dict[str, Any]:
        told: dict[str, Any] = {"token": text, "bytes": list(text.encode()), "logprob": -0.25 - math.log1p(i)}
        if fake.dialect == "vllm":
            told["token"] = f"token_id:{i + token_id}"
        elif fake.dialect == "llama.cpp":
            told["id"] = i + token_id
        return told

    top = [entry(i, piece if i == 0 else f"other {i}") for i in range(num_top)]
    return {**entry(0, piece), "top_logprobs": top}


def _legacy(logprobs: dict[str, Any] | None) -> dict[str, Any] | None:
    """As `/completions` tells them."""
    if logprobs is None:
        return None
    (entry,) = logprobs["content"]
    top = {item["token"]: item["logprob"] for item in entry["top_logprobs"]}
    return {
        "tokens": [entry["token"]],
        "token_logprobs": [entry["logprob"]],
        "top_logprobs": [{entry["token"]: entry["logprob"], **top}],
        "text_offset": [0],
    }
