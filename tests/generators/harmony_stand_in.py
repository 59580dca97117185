"""A small encoding with gpt-oss's control tokens, and a way to write Harmony down in tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import pytest

from mathlete.core.errors import ModelError
from mathlete.generators.harmony_tokens import CONTROL_NAMES, HarmonyTokens
from mathlete.generators.harmony_vocabulary import load_harmony_tokens
from mathlete.model_store.store import default_cache_dir

_FIRST_CONTROL = 1000
_PIECES = re.compile("|".join(re.escape(name) for name in CONTROL_NAMES))


class StandInTokens:
    """Bytes are their own ids, except that runs of up to four fence and line characters are one token."""

    def __init__(self) -> None:
        self.control = {name: _FIRST_CONTROL + place for place, name in enumerate(CONTROL_NAMES)}
        words = [b"```\n", b"```\n\n", b"\n\n", b"assistant", b"analysis", b"final", b"print"]
        self._words = dict(zip(words, range(256, 256 + len(words)), strict=True))
        self._spelled = {**{byte: bytes([byte]) for byte in range(256)}, **{i: word for word, i in self._words.items()}}
        self._pattern = re.compile(b"|".join(sorted(map(re.escape, words), key=len, reverse=True)) + b"|.", re.DOTALL)

    def encode(self, text: str) -> list[int]:
        found = self._pattern.findall(text.encode("utf-8", "replace"))
        return [self._words.get(piece, piece[0]) for piece in found]

    def spelled(self, token_id: int) -> bytes:
        return self._spelled.get(token_id, b"")


@cache
def _loaded() -> HarmonyTokens | ModelError:
    try:
        return load_harmony_tokens(default_cache_dir())
    except ModelError as error:
        return error


def real_tokens() -> HarmonyTokens:
    """gpt-oss's own; skips where its vocabulary is not."""
    tokens = _loaded()
    if isinstance(tokens, ModelError):
        pytest.skip(f"needs gpt-oss's vocabulary: {tokens}")
    return tokens


def ids_of(tokens: HarmonyTokens, written: str) -> list[int]:
    """The ids of Harmony as it is written: names of control tokens are those tokens."""
    ids: list[int] = []
    place = 0
    for match in _PIECES.finditer(written):
        ids += [*tokens.encode(written[place : match.start()]), tokens.control[match[0]]]
        place = match.end()
    return [*ids, *tokens.encode(written[place:])]


def written_of(tokens: HarmonyTokens, token_ids: Iterable[int]) -> str:
    """Harmony as it is written, of ids. A control token and plain tokens that spell its name look the same."""
    names = {token_id: name for name, token_id in tokens.control.items()}
    pieces = [names[i].encode() if i in names else tokens.spelled(i) for i in token_ids]
    return b"".join(pieces).decode("utf-8", "replace")


def mathematician(prompt: str) -> str:
    """Two programs, the second of which needs what the first defined, and an answer from what they printed."""
    opening, *turns = prompt.split("<|start|>python to=assistant")
    if not opening.startswith("<|start|>system") or "## python" not in opening:
        return "<|channel|>final<|message|>I have no tool.<|return|>"
    call = "<|end|><|start|>assistant<|channel|>commentary to=python code<|message|>"
    if not turns:
        return f"<|channel|>analysis<|message|>First ```python\nnot this\n```\n a product.{call}a = 6 * 7\na<|call|>"
    if len(turns) == 1:
        return f"<|channel|>analysis<|message|>And with it a sum.{call}print(a + {_output(turns[0])})<|call|>"
    final = f"So it is \\boxed{{{_output(turns[1])}}}."
    return f"<|channel|>analysis<|message|>Done.<|end|><|start|>assistant<|channel|>final<|message|>{final}<|return|>"


def _output(turn: str) -> str:
    found = re.match(r"<\|channel\|>commentary<\|message\|>(\d+)<\|end\|>", turn)
    assert found is not None, turn
    return found[1]
