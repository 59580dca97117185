"""Text to token ids and back. A text can never turn into a control token: those are known by name only.

Built on the `tokenizers` library. The library's added-token matching is not used, so "<|im_end|>" in a
problem is encoded as the characters it consists of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mathlete.core.errors import ModelError

# The pre-tokeniser's patterns by their GGUF name; the file itself holds only the name.
# qwen2: Qwen2's tokenizer.json: digits one at a time, otherwise like GPT-4's (cl100k).
_PATTERNS = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
}


def build_tokenizer_json(vocab: Mapping[str, int], merges: Sequence[tuple[str, ...]], pattern_name: str) -> str:
    """A byte-level BPE tokenizer in the `tokenizers` format, from what a GGUF file holds.

    Raises:
        ModelError: for a pattern that is not known; guessing one would silently cut text the wrong way.
    """
    pattern = _PATTERNS.get(pattern_name)
    if pattern is None:
        raise ModelError(f"the pre-tokeniser {pattern_name!r} is not known (known: {', '.join(_PATTERNS)})")
    pairs = [(merge[0], merge[1]) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab=dict(vocab), merges=pairs, fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    text: str = tokenizer.to_str()
    return text


def split_control_tokens(tokenizer_json: str) -> tuple[str, dict[str, int]]:
    """Take the added tokens out of a tokenizer.json; returns what is left and the tokens by name."""
    content = json.loads(tokenizer_json)
    control = {entry["content"]: int(entry["id"]) for entry in content.get("added_tokens", [])}
    content["added_tokens"] = []
    content["post_processor"] = None
    return json.dumps(content), control


class EngineTokenizer:
    """Encodes plain text and decodes token ids of one model."""

    def __init__(self, tokenizer_json: str, control_tokens: Mapping[str, int], eos_token_ids: Sequence[int]) -> None:
        """Load the tokenizer; `control_tokens` maps names such as "<|im_start|>" to ids.

        Raises:
            ModelError: when the tokenizer is not byte-level.
        """
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self.control_tokens = dict(control_tokens)
        self.eos_token_ids = tuple(eos_token_ids)
        vocab = self._tokenizer.get_vocab(with_added_tokens=False)
        control_ids = set(self.control_tokens.values())
        try:
            self._bytes_of = {
                token_id: bytes(_BYTE_OF[character] for character in token)
                for token, token_id in vocab.items()
                if token_id not in control_ids
            }
        except KeyError as error:
            raise ModelError(f"the tokenizer is not byte-level BPE: no byte is written {error}") from error

    @classmethod
    def load(cls, folder: Path) -> EngineTokenizer:
        """Read tokenizer.json and control_tokens.json as `checkpoint.convert` wrote them."""
        control = json.loads((folder / "control_tokens.json").read_text(encoding="utf-8"))
        return cls((folder / "tokenizer.json").read_text(encoding="utf-8"), control["tokens"], control["eos_token_ids"])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; never a control token. Lone surrogates become U+FFFD."""
        ids: list[int] = self._tokenizer.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def token_bytes(self, vocab_size: int) -> list[bytes]:
        """The bytes each id stands for, [vocab_size]; control and unused ids stand for none."""
        return [self._bytes_of.get(token_id, b"") for token_id in range(vocab_size)]

    def covered_prefix(self, token_ids: Sequence[int], text: str) -> CoveredPrefix:
        """The longest run of `token_ids` that spells a prefix of `text`, control tokens ending it.

        Ids that spell all of `text` are all kept, also where bytes that are no UTF-8 stand in it as U+FFFD.
        """
        pieces = list(takewhile(bool, (self._bytes_of.get(token_id, b"") for token_id in token_ids)))
        if b"".join(pieces).decode("utf-8", errors="replace") == text:
            return CoveredPrefix(tuple(token_ids[: len(pieces)]), "")
        raw, covered, count = without_surrogates(text).encode(), 0, 0
        for piece in pieces:
            if raw[covered : covered + len(piece)] != piece:
                break
            covered, count = covered + len(piece), count + 1
        return CoveredPrefix(tuple(token_ids[:count]), raw[covered:].decode("utf-8", errors="replace"))


def without_surrogates(text: str) -> str:
    """The text with each lone surrogate, which no UTF-8 can hold, as U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class CoveredPrefix(NamedTuple):
    """Token ids, and the rest of the text, which they do not spell."""

    token_ids: tuple[int, ...]
    rest: str


def _byte_of_character() -> dict[str, int]:
    """The inverse of GPT-2's printable alphabet of bytes (`bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return {**table, **{chr(256 + i): byte for i, byte in enumerate(others)}}


_BYTE_OF = _byte_of_character()
_SURROGATE = re.compile("[\ud800-\udfff]")
