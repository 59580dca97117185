"""Configurations of published models that need not be on this machine: a table of our own, `model_configs/*.json`.

Each file is a Hugging Face `config.json` cut down to what a plan needs, under "config", with "source" (where the
figures were published), "names" (what recipes may call it) and, where the weights are published packed, "format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from mathlete.planning.hf_config import shape_from_config
from mathlete.planning.model_shape import ModelShape


@cache
def published_models() -> Mapping[str, ModelShape]:
    """Every shape of the table, by each of its names in lower case."""
    return {name.lower(): shape for names, shape in _entries() for name in names}


def find_published(name: str) -> ModelShape | None:
    """The published model of this name, with its publisher or without; None when the table has none."""
    models = published_models()
    return models.get(name.lower()) or models.get(name.lower().rpartition("/")[2])


def _entries() -> Iterator[tuple[list[str], ModelShape]]:
    folder = files("mathlete.planning").joinpath("model_configs")
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".json"):
            entry: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            names: list[str] = entry["names"]
            yield names, shape_from_config(entry["config"], names[0], entry["source"])
