"""Flags of speculation: what they become in a run's configuration and in the engine's, and what guesses is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mathlete import compose
from mathlete.compose import build_generator, speculation_warnings
from mathlete.core.errors import EngineError, InputError
from mathlete.model_store.progress import ignore_progress
from mathlete.model_store.store import ModelStore
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.engine_loading import find_draft_model


def config(**given: Any) -> RunConfig:
    return RunConfig(command="solve", source=None, model="m", budget_s=10.0, **given)


def test_old_runs_had_no_speculation() -> None:
    old = decode_config({"command": "solve", "source": None, "model": "m", "budget_s": 1.0})
    assert (old.speculative_method, old.num_speculative_tokens, old.draft_model) == ("off", 8, None)
    assert old.draft_width == 1


def test_the_engine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mathlete.ryanstream import loading

    told = []

    def load(model: Path, cache: Path, engine: Any, progress: Callable[..., None]) -> None:
        told.append(engine)
        raise EngineError("far enough")

    monkeypatch.setattr(loading, "load_engine", load)
    given = config(speculative_method="draft", draft_model="0.5b", num_speculative_tokens=5, draft_width=3)
    with pytest.raises(EngineError, match="far enough"):
        build_generator(given, tmp_path, tmp_path, lambda what, done, total: None, tmp_path / "draft.gguf")
    assert (told[0].speculative, told[0].num_speculative_tokens, told[0].draft_width) == ("draft", 5, 3)
    assert told[0].draft_model == tmp_path / "draft.gguf"


def test_a_method_that_would_not_pay_is_told() -> None:
    asked = config(speculative_method="early_exit")
    assert speculation_warnings(asked, "layer 12 of 28") == ()
    assert speculation_warnings(config(), "off") == ()
    (warning,) = speculation_warnings(asked, "off (no exit pays)")
    assert warning == "--speculative-method early_exit is off (no exit pays)"


def test_a_draft_model_is_looked_for_like_a_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(InputError, match="no model called 'gpt-17'") as told:
        find_draft_model("draft", "gpt-17", store, ignore_progress)
    assert told.value.__notes__ == ["This is what --draft-model names."]


@pytest.mark.parametrize("method", ["eagle", "early_exit"])
def test_a_head_is_a_folder(tmp_path: Path, method: str) -> None:
    store = ModelStore(tmp_path)
    assert find_draft_model(method, str(tmp_path), store, ignore_progress) == tmp_path
    with pytest.raises(InputError, match="there is no file or folder .*nowhere"):
        find_draft_model(method, str(tmp_path / "nowhere"), store, ignore_progress)
    assert find_draft_model(method, None, store, ignore_progress) is None


def test_a_path_holds_wherever_a_run_is_resumed_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mathlete.cli import main
    from mathlete.session import run_session as session

    seen: list[RunConfig] = []

    def load(given: RunConfig, console: object) -> compose.LoadedGenerator:
        seen.append(given)
        raise EngineError("far enough")

    monkeypatch.setattr(session, "load_generator", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.gguf").touch()
    arguments = ["solve", "How many?", "--speculative-method", "draft", "--draft-model", "small.gguf"]
    result = CliRunner().invoke(main.app, arguments)
    assert isinstance(result.exception, EngineError)
    assert seen[0].draft_model == str(tmp_path / "small.gguf")
