"""Text to token ids and back. A text can never turn into a control token: those are known by name only.

Two kinds: byte-level BPE (Qwen, Llama 3) and SentencePiece BPE with byte tokens (Llama 2, Mistral). The latter
writes a space as U+2581, so that character in a text comes back as a space.

Built on the `tokenizers` library. The library's added-token matching is not used, so "<|im_end|>" in a
problem is encoded as the characters it consists of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mathlete.core.errors import ModelError


class PreTokenizer(NamedTuple):
    """How a byte-level tokenizer cuts text before it merges; a GGUF file holds only a name for it.

    `pattern` cuts out pieces; `composes`: whether text is brought to normal form C first; `whole_words`: whether a
    piece that is a token as a whole is taken as it is, whatever the merges say.
    """

    pattern: str
    composes: bool
    whole_words: bool


# As GPT-4's (cl100k), with a number's digits one at a time in Qwen2 and up to three at a time, from the left, in
# Llama 3. The names are those of llama.cpp's `llama-vocab.cpp`, the rest is as in the models' own tokenizer.json.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = PreTokenizer(_WORDS + r"\p{N}" + _REST, composes=True, whole_words=False)
_LLAMA3 = PreTokenizer(_WORDS + r"\p{N}{1,3}" + _REST, composes=False, whole_words=True)
PRE_TOKENIZERS = {
    "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2, "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3
}  # fmt: skip


def build_tokenizer_json(vocab: Mapping[str, int], merges: Sequence[tuple[str, ...]], name: str) -> str:
    """A byte-level BPE tokenizer in the `tokenizers` format, from what a GGUF file holds.

    Raises:
        ModelError: for a pre-tokeniser that is not known; guessing one would silently cut text the wrong way.
    """
    chosen = PRE_TOKENIZERS.get(name)
    if chosen is None:
        raise ModelError(f"the pre-tokeniser {name!r} is not known (known: {', '.join(PRE_TOKENIZERS)})")
    pairs = [(merge[0], merge[1]) for merge in merges]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(vocab), merges=pairs, fuse_unk=False, byte_fallback=False, ignore_merges=chosen.whole_words
        )
    )
    if chosen.composes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(chosen.pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    text: str = tokenizer.to_str()
    return text


# ChatML, Qwen; Llama 3; DeepSeek. None of them stands inside an answer.
_END_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"
)  # fmt: skip


def end_token_ids(control_tokens: Mapping[str, int], given: Iterable[int | None]) -> tuple[int, ...]:
    """Ids that end a text: those a file names, and those known by name, which files often leave out."""
    named = (control_tokens[name] for name in _END_TOKENS if name in control_tokens)
    return tuple(sorted({*(i for i in given if i is not None), *named}))


class SplitTokenizer(NamedTuple):
    """A tokenizer.json without its added tokens, and these by name.

    `spoken` are the ids among them that are part of a text when the model writes them (`<think>`), not a signal.
    """

    tokenizer_json: str
    control_tokens: dict[str, int]
    spoken_ids: tuple[int, ...]


def split_control_tokens(tokenizer_json: str) -> SplitTokenizer:
    """Take the added tokens out of a tokenizer.json: names, vocabulary entries and merges that would make one.

    What is left cannot spell an added token as one id. It also writes no space before a text (as SentencePiece
    models do): pieces of a chat are encoded one after another, and each must come back as it was.

    Raises:
        ModelError: when the text is no tokenizer.json.
    """
    try:
        content = json.loads(tokenizer_json)
        added = content.get("added_tokens") or []
        control = {entry["content"]: int(entry["id"]) for entry in added}
        spoken = tuple(int(entry["id"]) for entry in added if not entry.get("special", True))
        content["added_tokens"], content["post_processor"] = [], None
        content["normalizer"] = _without_prefix_space(content.get("normalizer"))
        content["pre_tokenizer"] = _without_prefix_space(content.get("pre_tokenizer"))
        _drop_tokens(content["model"], control)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"tokenizer.json is not in the `tokenizers` format ({type(error).__name__}: {error})"
        ) from error
    return SplitTokenizer(json.dumps(content), control, spoken)


def _without_prefix_space(part: Any) -> Any:
    """A normaliser or pre-tokeniser with the steps that put a space before the text taken out or turned off."""
    if not isinstance(part, dict):
        return part
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            kept = [_without_prefix_space(step) for step in part[name] if step.get("type") != "Prepend"]
            return {**part, name: kept}
    off = {"prepend_scheme": "never", "add_prefix_space": False}
    return None if part.get("type") == "Prepend" else {k: off.get(k, value) for k, value in part.items()}


def _drop_tokens(model: dict[str, Any], names: Mapping[str, int]) -> None:
    """Take `names` out of a BPE model's vocabulary, with the merges that need or make them."""
    model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in names}
    pairs = [(merge, merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
    model["merges"] = [merge for merge, pair in pairs if not ({*pair, "".join(pair)} & names.keys())]
    if model.get("unk_token") in names:
        model["unk_token"] = None


class EngineTokenizer:
    """Encodes plain text and decodes token ids of one model."""

    def __init__(
        self, tokenizer_json: str, control_tokens: Mapping[str, int], eos_token_ids: Sequence[int],
        spoken_ids: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Load the tokenizer.

        Args:
            tokenizer_json: in the `tokenizers` format, without added tokens (`split_control_tokens`).
            control_tokens: ids by name, such as "<|im_start|>".
            eos_token_ids: ids that end a text.
            spoken_ids: control tokens whose name is part of the text when the model writes them.

        Raises:
            ModelError: when the tokenizer is neither byte-level BPE nor SentencePiece BPE that falls back to bytes.
        """
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self.control_tokens = dict(control_tokens)
        self.eos_token_ids = tuple(eos_token_ids)
        vocab = self._tokenizer.get_vocab(with_added_tokens=False)
        control_ids = set(self.control_tokens.values())
        spell = _spell_piece if getattr(self._tokenizer.model, "byte_fallback", False) else _spell_byte_level
        try:
            self._bytes_of = {i: spell(token) for token, i in vocab.items() if i not in control_ids}
        except KeyError as error:
            raise ModelError(f"the tokenizer is not byte-level BPE: no byte is written {error}") from error
        if spell is _spell_piece and not {bytes([byte]) for byte in range(256)} <= set(self._bytes_of.values()):
            raise ModelError("the tokenizer is SentencePiece BPE without a token for each byte: text would be lost")
        spoken = set(spoken_ids)
        self._bytes_of.update({i: name.encode() for name, i in self.control_tokens.items() if i in spoken})

    @classmethod
    def load(cls, folder: Path) -> EngineTokenizer:
        """Read tokenizer.json and control_tokens.json as `checkpoint.convert` wrote them."""
        control = json.loads((folder / "control_tokens.json").read_text(encoding="utf-8"))
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        return cls(text, control["tokens"], control["eos_token_ids"], control["spoken_ids"])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; never a control token. Lone surrogates become U+FFFD."""
        ids: list[int] = self._tokenizer.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text that ids spell; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._bytes_of.get(i, b"") for i in token_ids).decode("utf-8", errors="replace")

    def token_bytes(self, vocab_size: int) -> list[bytes]:
        """The bytes each id stands for, [vocab_size]; control and unused ids stand for none, unless spoken."""
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


def _spell_byte_level(token: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in token)


def _spell_piece(token: str) -> bytes:
    """A SentencePiece token: "<0x0A>" is a byte, a low block is a space."""
    byte = _BYTE_PIECE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


_BYTE_OF = _byte_of_character()
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SURROGATE = re.compile("[\ud800-\udfff]")
