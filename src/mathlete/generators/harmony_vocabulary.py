"""The encoding of gpt-oss models, by `openai-harmony`, from a vocabulary file of this machine.

Left alone, `openai-harmony` downloads its vocabulary when it is first used, and hangs where there is no network. So the
file is looked for here first, known by its digest, and never downloaded. A gpt-oss checkpoint brings its own: the file
is written anew from the checkpoint's `tokenizer.json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from openai_harmony import HarmonyEncoding, load_harmony_encoding

from mathlete.core.errors import ModelError, StorageError
from mathlete.generators.harmony_tokens import CONTROL_NAMES

VOCABULARY_FILE = "o200k_base.tiktoken"
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
VOCABULARY_URL = f"https://openaipublic.blob.core.windows.net/encodings/{VOCABULARY_FILE}"
FOLDER_VARIABLE = "TIKTOKEN_ENCODINGS_BASE"
"""The folder in which `openai-harmony` looks for the file."""

_MAX_VOCABULARY_BYTES = 16 * 1024**2
_MAX_TOKENIZER_BYTES = 256 * 1024**2
_NUM_ORDINARY = 199_998


class OpenAIHarmonyTokens:
    """`HarmonyTokens` by `openai-harmony`."""

    def __init__(self, encoding: HarmonyEncoding, token_bytes: list[bytes]) -> None:
        """Wrap an encoding whose ordinary tokens spell `token_bytes`."""
        self._encoding = encoding
        self._token_bytes = token_bytes
        self.control: Mapping[str, int] = {
            name: encoding.encode(name, allowed_special={name})[0] for name in CONTROL_NAMES
        }

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a control token, whatever the text says."""
        return list(self._encoding.encode(text, disallowed_special=()))

    def spelled(self, token_id: int) -> bytes:
        """The bytes of an ordinary token; nothing for a control token, or an id that there is not."""
        return self._token_bytes[token_id] if 0 <= token_id < len(self._token_bytes) else b""


def load_harmony_tokens(cache_dir: Path, model: str = "") -> OpenAIHarmonyTokens:
    """The encoding, within a second. Sets `FOLDER_VARIABLE` in this process.

    Args:
        cache_dir: Mathlete's cache; see `find_vocabulary`.
        model: name or path of the model.

    Raises:
        ModelError: there is no vocabulary file, or it is damaged.
        StorageError: it cannot be written to the cache.
    """
    path = find_vocabulary(cache_dir, model)
    os.environ[FOLDER_VARIABLE] = str(path.parent)
    token_bytes = [base64.b64decode(line.split(b" ", 1)[0]) for line in path.read_bytes().splitlines()]
    return OpenAIHarmonyTokens(load_harmony_encoding("HarmonyGptOss"), token_bytes)


def vocabulary_folder(cache_dir: Path) -> Path:
    """Where Mathlete's cache keeps the file."""
    return cache_dir / "encodings"


def find_vocabulary(cache_dir: Path, model: str = "") -> Path:
    """The vocabulary file, checked by its digest.

    It is looked for in the folder that `FOLDER_VARIABLE` names, in Mathlete's cache, and in the model's own folder; if
    that has a `tokenizer.json`, the file is made of it, and kept in the cache.

    Raises:
        ModelError: there is none, or the one that is there is another; the message says what to do.
        StorageError: it cannot be written to the cache.
    """
    folders = [vocabulary_folder(cache_dir)]
    if named := os.environ.get(FOLDER_VARIABLE):
        folders.insert(0, Path(named))
    checkpoint = Path(model) if model else None
    if checkpoint is not None and checkpoint.is_dir():
        folders.append(checkpoint)
    for folder in folders:
        path = folder / VOCABULARY_FILE
        if path.is_file():
            _check(path)
            return path
    if checkpoint is not None and (checkpoint / "tokenizer.json").is_file():
        made = vocabulary_of(checkpoint / "tokenizer.json")
        return _keep(made, vocabulary_folder(cache_dir))
    looked = ", ".join(str(folder) for folder in folders)
    raise ModelError(
        f"gpt-oss models need the vocabulary file {VOCABULARY_FILE}, and it is not in {looked}. With a network, "
        f"download {VOCABULARY_URL} into {vocabulary_folder(cache_dir)}; without one, bring it along and name its "
        f"folder in {FOLDER_VARIABLE}. A gpt-oss checkpoint's own folder, with its tokenizer.json, serves as well: "
        "give its path as the model"
    )


def vocabulary_of(tokenizer_json: Path) -> bytes:
    """The vocabulary file, made of a gpt-oss checkpoint's `tokenizer.json`.

    Raises:
        ModelError: that is not the tokenizer of a gpt-oss model: what it gives has another digest.
    """
    try:
        if tokenizer_json.stat().st_size > _MAX_TOKENIZER_BYTES:
            raise ValueError(f"it has more than {_MAX_TOKENIZER_BYTES} bytes")
        vocabulary = json.loads(tokenizer_json.read_text(encoding="utf-8"))["model"]["vocab"]
        by_character = _bytes_by_character()
        spelled = {
            int(token_id): bytes(by_character[char] for char in token)
            for token, token_id in vocabulary.items()
            if 0 <= int(token_id) < _NUM_ORDINARY
        }
        lines = [b"%s %d\n" % (base64.b64encode(spelled[rank]), rank) for rank in range(_NUM_ORDINARY)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{tokenizer_json} is not a gpt-oss model's tokenizer ({type(error).__name__}: {error}): "
            f"bring {VOCABULARY_FILE} along and name its folder in {FOLDER_VARIABLE}"
        ) from error
    made = b"".join(lines)
    if hashlib.sha256(made).hexdigest() != VOCABULARY_SHA256:
        raise ModelError(
            f"{tokenizer_json} is not a gpt-oss model's tokenizer: its tokens are others. "
            "For a model of another family leave turn_format at auto, or set it to chat"
        )
    return made


def _check(path: Path) -> None:
    if path.stat().st_size > _MAX_VOCABULARY_BYTES or _digest(path) != VOCABULARY_SHA256:
        raise ModelError(
            f"{path} is not the vocabulary of gpt-oss models (SHA-256 {VOCABULARY_SHA256}): delete it, and download "
            f"it anew from {VOCABULARY_URL}"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(content: bytes, folder: Path) -> Path:
    """Write the file whole or not at all: other processes may look for it."""
    path = folder / VOCABULARY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error}): make room, or set MATHLETE_CACHE") from error
    return path


def _bytes_by_character() -> dict[str, int]:
    """The byte that each character stands for in a byte-level `tokenizer.json` (as GPT-2 has it)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {**{chr(byte): byte for byte in shown}, **{chr(256 + place): byte for place, byte in enumerate(hidden)}}
