"""The shape of the model that a recipe names: a local folder, a GGUF file, or a published model of our table."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from mathlete.core.errors import InputError, ModelError
from mathlete.planning.gguf_header import shape_from_gguf
from mathlete.planning.hf_config import shape_from_config
from mathlete.planning.model_shape import ModelShape
from mathlete.planning.published_models import find_published, published_models

_MAX_CONFIG_BYTES = 1 << 20


def find_model(model: str) -> ModelShape:
    """The shape of a model by its name or path.

    Raises:
        InputError: nothing is known of it.
        ModelError: its files do not describe a model that can be counted.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return shape_from_gguf(path)
    found = find_published(model)
    if found is not None:
        return found
    names = sorted({shape.name for shape in published_models().values()})
    near = difflib.get_close_matches(model, [*published_models(), *names], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise InputError(
        f"the plan knows no model {model[:80]!r}: {meant}Name a folder with its config.json, a GGUF file, or one of "
        f"{', '.join(names)}"
    )


def _of_folder(folder: Path) -> ModelShape:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json, so it is no model's folder")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ModelError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes, so it is no model's configuration")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {str(error)[:200]}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no JSON object")
    return shape_from_config(config, folder.resolve().name, str(path))
