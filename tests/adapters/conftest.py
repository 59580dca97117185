"""Runs with a scripted model and without a sandbox, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_model import ScriptedModel

from mathlete.session import crew, run_session
from no_sandbox import NoSandbox


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedModel:
    """The model of every run in this test; runs go into `tmp_path/runs`."""
    model = ScriptedModel()
    monkeypatch.setattr(run_session, "load_generator", model.load)
    monkeypatch.setattr(crew, "build_sandbox", NoSandbox)
    monkeypatch.chdir(tmp_path)
    return model
