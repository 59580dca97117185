"""Which of a recipe's vLLM engines get processes of their own."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session import engine_loading


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [(False, (), "here"), (True, (), "child"), (False, ("vllm",), "child"), (False, ("openai_server",), "here")],
)
def test_vllm_shares_its_process_with_no_other(
    monkeypatch: pytest.MonkeyPatch, own: bool, others: tuple[Any, ...], expected: str
) -> None:
    monkeypatch.setattr(engine_loading, "build_engine", lambda spec, config: "here")
    monkeypatch.setattr(engine_loading, "load_in_child", lambda *arguments: "child")
    spec = EngineSpec("main", "vllm", "folder", own_process=own)
    more = tuple(EngineSpec(f"e{i}", kind, "m", ("reasoning",)) for i, kind in enumerate(others))
    config = RunConfig("solve", None, "folder", 60.0, engines=(spec, *more))
    assert engine_loading.load_engine(spec, config, lambda progress: None) == expected
