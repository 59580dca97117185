"""Where gpt-oss's vocabulary comes from, and what is said, at once, when it is not there."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from mathlete.core.errors import ModelError
from mathlete.generators import harmony_vocabulary
from mathlete.generators.harmony_vocabulary import (
    FOLDER_VARIABLE,
    VOCABULARY_FILE,
    find_vocabulary,
    load_harmony_tokens,
    vocabulary_folder,
)
from mathlete.model_store.store import default_cache_dir


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    try:
        return find_vocabulary(default_cache_dir())
    except ModelError as error:
        pytest.skip(f"needs gpt-oss's vocabulary: {error}")


def test_a_missing_file_is_an_error_at_once(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(ModelError, match=f"(?s){VOCABULARY_FILE}.*download.*{FOLDER_VARIABLE}"):
        load_harmony_tokens(tmp_path, "openai/gpt-oss-20b")
    assert time.monotonic() - began_s < 1


def test_a_damaged_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / VOCABULARY_FILE).write_text("IQ== 0\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="is not the vocabulary of gpt-oss models"):
        load_harmony_tokens(tmp_path / "cache")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model": {"vocab": {"a": "x"}}}', '{"model": {"vocab": {"€": 0}}}', "[" * 100_000]
)
def test_another_tokenizer_is_an_error(tmp_path: Path, content: str) -> None:
    model = tmp_path / "gpt-oss"
    model.mkdir()
    (model / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="not a gpt-oss model's tokenizer"):
        find_vocabulary(tmp_path / "cache", str(model))


def test_a_tokenizer_with_other_tokens_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmony_vocabulary, "_NUM_ORDINARY", 2)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1, "<|end|>": 2}}}))
    with pytest.raises(ModelError, match="its tokens are others"):
        find_vocabulary(tmp_path / "cache", str(tmp_path))


def test_it_is_found_where_the_variable_says_and_beside_the_model(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_vocabulary(tmp_path, str(vocabulary.parent)) == vocabulary
    monkeypatch.setenv(FOLDER_VARIABLE, str(vocabulary.parent))
    assert find_vocabulary(tmp_path) == vocabulary


def test_it_is_made_of_a_checkpoints_tokenizer(vocabulary: Path, tmp_path: Path) -> None:
    characters = {byte: char for char, byte in harmony_vocabulary._bytes_by_character().items()}
    lines = [line.split() for line in vocabulary.read_bytes().splitlines()]
    vocab = {"".join(characters[byte] for byte in base64.b64decode(raw)): int(rank) for raw, rank in lines}
    vocab["<|start|>"] = 200_006
    model = tmp_path / "gpt-oss-20b"
    model.mkdir()
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    made = find_vocabulary(tmp_path / "cache", str(model))
    assert made == vocabulary_folder(tmp_path / "cache") / VOCABULARY_FILE
    assert made.read_bytes() == vocabulary.read_bytes()
    assert [path.name for path in made.parent.iterdir()] == [VOCABULARY_FILE]


def test_tokens_spell_what_was_encoded(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(vocabulary.parent))
    tokens = load_harmony_tokens(default_cache_dir())
    text = "∑ naïve <|end|> 𝔸\n```\n"
    ids = tokens.encode(text)
    assert b"".join(tokens.spelled(i) for i in ids).decode() == text
    assert not set(ids) & set(tokens.control.values())
    assert tokens.spelled(tokens.control["<|end|>"]) == tokens.spelled(-1) == tokens.spelled(1 << 40) == b""
