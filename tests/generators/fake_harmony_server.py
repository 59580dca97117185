"""A server like vLLM's whose model speaks Harmony: takes and tells token ids over `/v1/completions`, from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harmony_stand_in import ids_of, written_of

from mathlete.generators.harmony_tokens import HarmonyTokens

MODEL = "openai/gpt-oss-fake"


@dataclass
class FakeHarmonyServer:
    """`with FakeHarmonyServer(...) as server:` runs it.

    Attributes:
        tokens: the model's encoding.
        speaks: what the model says behind a prompt, both as Harmony is written.
        num_a_piece: tokens of an event.
        tells_ids: whether it tells them.
        breaks_after: events after which the next stream breaks off, once.
        prompts: ids that it was given, in order, without those of one token's try.
        bodies: what it was asked.
    """

    tokens: HarmonyTokens
    speaks: Callable[[str], str]
    num_a_piece: int = 3
    tells_ids: bool = True
    breaks_after: int | None = None
    prompts: list[list[int]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    path = "/v1/completions"
    owner = "vllm"

    def __enter__(self) -> FakeHarmonyServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def answer(self, body: dict[str, Any]) -> list[str]:
        """The events of a stream."""
        prompt = body["prompt"]
        said = ids_of(self.tokens, self.speaks(written_of(self.tokens, prompt)))
        ends = [place for place, token_id in enumerate(said, 1) if token_id in body["stop_token_ids"]]
        said = said[: min([*ends[:1], body["max_tokens"]])]
        reason = "stop" if said and said[-1] in body["stop_token_ids"] else "length"
        events = []
        for start in range(0, len(said), self.num_a_piece):
            ids = said[start : start + self.num_a_piece]
            choice: dict[str, Any] = {"index": 0, "text": written_of(self.tokens, ids), "finish_reason": None}
            choice["logprobs"] = {
                "tokens": [f"token_id:{i}" for i in ids],
                "token_logprobs": [-0.5] * len(ids),
                "top_logprobs": [{f"token_id:{i}": -0.5} for i in ids],
            }
            if self.tells_ids:
                choice["token_ids"] = ids
            usage = {"prompt_tokens": len(prompt), "completion_tokens": start + len(ids)}
            events.append(json.dumps({"choices": [choice], "usage": usage}))
        events.append(json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": reason}]}))
        return [*events, "[DONE]"]


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHarmonyServer

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        models = {"data": [{"id": MODEL, "object": "model", "owned_by": self.fake.owner, "max_model_len": 100_000}]}
        body = json.dumps(models).encode()
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == fake.path, self.path
        fake.bodies.append(body)
        is_try = body["max_tokens"] == 1
        if not is_try:
            fake.prompts.append(body.get("prompt", []))
        events = fake.answer(body)
        if fake.breaks_after is not None and not is_try:
            events, fake.breaks_after = events[: fake.breaks_after], None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for event in events:
                self.wfile.write(f"data: {event}\n\n".encode())
                self.wfile.flush()
        except OSError:  # the client has heard enough
            self.close_connection = True
