"""The server as its clients see it: OpenAI's own package, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from scripted_model import ScriptedModel
from served import Serve, question

import mathlete
from mathlete.compose import LoadedGenerator
from mathlete.core.errors import EngineError
from mathlete.core.generation import GeneratorEvent
from mathlete.run_config import RunConfig
from mathlete.serving.app import ChatServer
from mathlete.serving.chat_request import Ceilings

KEY = "a-key-of-more-than-16-letters"


def test_the_openai_package_gets_an_answer(serve: Serve) -> None:
    openai = pytest.importorskip("openai")
    served = serve(ScriptedModel({"times 7": "42"}))
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        assert [model.id for model in client.models.list()] == ["mathlete"]
        assert client.models.retrieve("mathlete").owned_by == "mathlete"
        answer = client.chat.completions.create(
            model="mathlete",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 6 times 7?"}],
            temperature=0.7,
            seed=3,
            max_tokens=4000,
            extra_body={"attempts": 3, "budget": "30s"},
        )
    message = answer.choices[0].message
    assert message.content.splitlines()[0] == r"\boxed{42}" and "attempts" in message.content.splitlines()[2]
    assert "3 attempts begun" in message.reasoning_content and "42 ×" in message.reasoning_content
    assert answer.choices[0].finish_reason == "stop" and answer.id.startswith("chatcmpl-")
    assert answer.usage.completion_tokens > 10 and answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.completion_tokens + answer.usage.prompt_tokens
    told = answer.mathlete
    assert (told["answer"], told["votes"]) == (42, {"42": told["num_attempts"]}) and 0 < told["confidence"] <= 1
    run = mathlete.open_run(told["run"], out=served.runs_dir)
    assert run.answer == 42 and run.report_html.is_file() and run.record.finished == "complete"
    assert (run.record.config["attempts"], run.record.config["seed"], run.record.config["budget_s"]) == (3, 3, 30.0)


def test_the_openai_package_gets_a_stream(serve: Serve) -> None:
    openai = pytest.importorskip("openai")
    served = serve(ScriptedModel(token_s=0.03))
    with openai.OpenAI(base_url=served.url, api_key="any") as client:
        stream = client.chat.completions.create(
            model="mathlete",
            messages=[{"role": "user", "content": "What is 6 times 7?"}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"attempts": 2},
        )
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    reasoning = [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)]
    content = [index for index, delta in enumerate(deltas) if delta.content]
    assert len(reasoning) >= 2 and "Begun" in reasoning[0] and "votes: 42" in reasoning[-1]
    assert len(content) == 1 and deltas[content[0]].content.startswith(r"\boxed{42}")
    assert deltas[0].role == "assistant" and len({chunk.id for chunk in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].mathlete["answer"] == 42
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0


def test_a_stream_is_server_sent_events(serve: Serve) -> None:
    served = serve(ScriptedModel())
    answer = served.post(question(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""] and all(event.startswith("data: ") for event in events[:-1])
    last = json.loads(events[-3].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "stop" and "usage" not in last


def test_several_problems_share_the_engine(serve: Serve) -> None:
    model = ScriptedModel({f"number {k}?": str(k) for k in range(8)}, token_s=0.005)
    served = serve(model, num_at_once=4, num_waiting=8)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(served.post, question(f"Which is number {k}?")) for k in range(8)]
        seen = 0
        while not all(one.done() for one in asked):
            seen = max(seen, served.desk.num_running)
            time.sleep(0.01)
        answers = [one.result().json()["mathlete"] for one in asked]
    assert [answer["answer"] for answer in answers] == list(range(8))
    assert 2 <= seen <= 4 and len(model.configs) == 1 and len({answer["run"] for answer in answers}) == 8
    assert len(list(served.runs_dir.iterdir())) == 8


def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    served = serve(ScriptedModel(token_s=0.05), num_at_once=1, num_waiting=1)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(served.post, question(stream=True, attempts=1)) for _ in range(2)]
        served.wait_for(lambda: served.desk.num_in_queue == 1)
        refused = served.post(question())
        assert refused.status_code == 429 and refused.headers["retry-after"] == "10"
        assert refused.json()["error"]["code"] == "queue_full"
        health = served.get("/health").json()
        assert health == {"status": "ok", "running": 1, "waiting": 1}
        texts = sorted((one.result().text for one in asked), key=lambda text: "Waiting: 1 problem first" in text)
    assert "Waiting" not in texts[0] and "Waiting: 1 problem first" in texts[1]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_problem(serve: Serve, stream: bool) -> None:
    served = serve(ScriptedModel(token_s=0.2), num_at_once=1)
    with httpx.Client(trust_env=False, timeout=0.3) as client, pytest.raises(httpx.TimeoutException):
        url = f"{served.url}/chat/completions"
        with client.stream("POST", url, json=question(stream=stream)) as answer:
            for _ in answer.iter_raw():
                pass
    served.wait_for(lambda: served.desk.num_running == 0)
    (folder,) = served.runs_dir.iterdir()
    assert mathlete.open_run(folder).record.finished == "interrupted"
    assert served.post(question("Again?", attempts=1, budget="6s")).status_code == 200  # the engine is free again


def test_a_client_that_is_gone_before_its_stream_begins(serve: Serve) -> None:
    served = serve(ScriptedModel(token_s=0.2), num_at_once=1)
    app = ChatServer(served.desk, "mathlete", Ceilings()).app()
    told = [{"type": "http.request", "body": json.dumps(question(stream=True)).encode()}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return told.pop(0) if len(told) > 1 else told[0]

    async def send(message: Any) -> None:
        await asyncio.sleep(0.01)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "query_string": b""}
    asyncio.run(app({**scope, "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80)}, receive, send))
    served.wait_for(lambda: served.desk.num_running == 0 and served.desk.num_in_queue == 0, within_s=5)


def test_a_client_that_goes_away_while_it_waits(serve: Serve) -> None:
    served = serve(ScriptedModel(token_s=0.1), num_at_once=1)
    first = threading.Thread(target=served.post, args=(question(attempts=1),))
    first.start()
    served.wait_for(lambda: served.desk.num_running == 1)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{served.url}/chat/completions", json=question(), timeout=0.5, trust_env=False)
    served.wait_for(lambda: served.desk.num_in_queue == 0)
    first.join()
    assert len(list(served.runs_dir.iterdir())) == 1 and any("before it began" in line for line in served.told)


def test_the_end_answers_what_is_worked_on(serve: Serve) -> None:
    served = serve(ScriptedModel(token_s=0.5), num_at_once=1)
    with ThreadPoolExecutor(2) as threads:
        worked_on = threads.submit(served.post, question())
        served.wait_for(lambda: served.desk.num_running == 1)
        waiting = threads.submit(served.post, question())
        served.wait_for(lambda: served.desk.num_in_queue == 1)
        served.end()
        answer = worked_on.result().json()
        assert answer["mathlete"]["reason"] == "interrupted" and "guess" in answer["choices"][0]["message"]["content"]
        assert waiting.result().status_code == 503 and "ending" in waiting.result().text


class Breaking(ScriptedModel):
    """A model that works until it is told to break."""

    broken = False

    def load(self, config: RunConfig, console: Console) -> LoadedGenerator:
        model, loaded = self, super().load(config, console)
        events = loaded.generator.events

        def events_or_failure(timeout_s: float) -> Iterable[GeneratorEvent]:
            if model.broken:
                raise EngineError("the card fell off the bus")
            return events(timeout_s)

        loaded.generator.events = events_or_failure  # type: ignore[method-assign]
        return loaded


def test_an_engine_that_fails(serve: Serve) -> None:
    model = Breaking(token_s=0.1)
    served = serve(model)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(served.post, question(stream=stream)) for stream in (False, True)]
        served.wait_for(lambda: model.num_requests == 8)
        model.broken = True
        whole, stream = (one.result() for one in asked)
    assert whole.status_code == 503 and "fell off the bus" in whole.json()["error"]["message"]
    assert stream.status_code == 200 and "fell off the bus" in stream.text and "[DONE]" in stream.text
    assert served.get("/health").status_code == 503 and "fell off" in served.get("/health").json()["status"]
    assert served.post(question()).status_code == 503
    for folder in served.runs_dir.iterdir():  # an answer was handed in all the same
        assert (folder / "submission.csv").read_text().splitlines()[0] == "id,answer"


def test_attempts_that_the_engine_refuses_are_no_failure(serve: Serve) -> None:
    def refuse_the_first(number: int) -> None:
        if number == 1:
            raise EngineError("its prompt can never fit")

    told = serve(ScriptedModel(on_request=refuse_the_first)).post(question(attempts=3)).json()["mathlete"]
    assert (told["answer"], told["num_attempts"]) == (42, 3) and told["votes"] == {"42": 2}


def test_what_is_refused(serve: Serve) -> None:
    served = serve(ScriptedModel(), ceilings=Ceilings(statement_chars=50, body_bytes=2000))
    for body, status in [
        (question(model="gpt-4"), 404),
        (question(temperature="hot"), 400),
        (question("x" * 51), 413),
        (question("x" * 3000), 413),
        ([1, 2], 400),
        (question(checks=None, policy="triad", attempts=65), 400),
    ]:
        answer = served.post(body)
        error = answer.json()["error"]
        assert answer.status_code == status and error["message"] and error["type"], body
    url = f"{served.url}/chat/completions"
    for content, kind, status in [
        (b"{", "application/json", 400),
        (b"[" * 1900, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
    ]:
        answer = httpx.post(url, content=content, headers={"content-type": kind}, trust_env=False)
        assert answer.status_code == status and "message" in answer.json()["error"], content[:20]
    assert served.get("/nothing").status_code == 404 and served.get("/nothing").json()["error"]["message"]
    assert served.get("/chat/completions").status_code == 405
    assert served.get("/models/other").status_code == 404
    assert not served.runs_dir.exists()


def test_a_statement_is_never_a_file(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("id,problem\na,The secret problem\n")
    served = serve(ScriptedModel())
    told = served.post(question("secret.csv")).json()["mathlete"]
    (record,) = mathlete.open_run(told["run"], out=served.runs_dir).record.problems.values()
    assert record.problem.statement == "secret.csv"


def test_without_a_key_only_this_machine_asks(serve: Serve) -> None:
    served = serve(ScriptedModel())
    assert served.get("/models").status_code == 200
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert served.get("/models", Host=host).status_code in (400, 421), host
    assert served.get("/models", Origin="https://evil.example").status_code == 403
    assert served.get("/models", Origin="null").status_code == 403
    answer = served.get("/models", Origin=served.url.removesuffix("/v1"))
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


def test_with_a_key_whoever_has_it_asks(serve: Serve) -> None:
    served = serve(ScriptedModel(), key=KEY)
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
        refused = served.post(question(), **given)
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in refused.text and refused.headers["www-authenticate"] == "Bearer"
    assert served.get("/models", Authorization=f"Bearer {KEY}", Host="solver.example").status_code == 200
    assert served.post(question(), Authorization=f"bearer {KEY}").status_code == 200
    assert served.get("/health").status_code == 200
    assert not any(KEY in line for line in served.told)
