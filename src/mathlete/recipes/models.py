"""Where the model that a recipe names is, and whether it can be what an engine loads. Looks at names of files only.

Does not know hubs: a name that is no path is left to the engine.
"""

from __future__ import annotations

import os
from pathlib import Path

from mathlete.core.errors import InputError
from mathlete.model_store.registry import find_model

# Any of these is a tokenizer to vLLM: the fast form, SentencePiece, byte pairs, Mistral's and tiktoken's.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model")
_PATH_BEGINS = ("/", "./", "../", "~")


def located(engine_type: str, model: str, folder: Path) -> str:
    """A model as a recipe names it, as an absolute path where it is one; `folder` is the recipe's.

    A path is what begins with "/", "./", "../" or "~", ends in ".gguf", or is there. A server's models have names only.
    """
    if engine_type == "openai_server" or (engine_type == "ryanstream" and find_model(model) is not None):
        return model
    path = folder / os.path.expanduser(model)
    if model.startswith(_PATH_BEGINS) or model.endswith(".gguf") or os.path.exists(path):
        return os.path.abspath(path)
    return model


def check_model(engine_type: str, model: str, whose: str) -> None:
    """Refuse a model on this machine that is not there, or a folder that has not all of one.

    Args:
        engine_type: see `EngineSpec.type`.
        model: name, or absolute path.
        whose: of whom it is, for the message.

    Raises:
        InputError: the file or folder is not there, or is a folder without `config.json` or without a tokenizer.
    """
    if engine_type == "openai_server" or not os.path.isabs(model):
        return
    if not os.path.exists(model):
        raise InputError(
            f"{whose}: there is no model at {model}; put it there, or name where it is, with --model where there is "
            "one engine"
        )
    if not os.path.isdir(model):
        return
    names = set(os.listdir(model))
    if "config.json" not in names:
        raise InputError(f"{whose}: {model} has no config.json, so it is no model's folder")
    if not names.intersection(_TOKENIZERS):
        raise InputError(
            f"{whose}: {model} has no tokenizer (none of {', '.join(_TOKENIZERS)}); copy tokenizer.json and "
            "tokenizer_config.json of the checkpoint into it"
        )
