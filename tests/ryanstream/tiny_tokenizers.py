"""Small tokenizers of each family, in the form of a model folder's tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tiny_qwen import tiny_vocab
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from mathlete.ryanstream.model.tokenizer import EngineTokenizer, build_tokenizer_json, split_control_tokens

QWEN_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>")
QWEN_SPOKEN = ("<tool_call>", "</tool_call>", "<think>", "</think>")
LLAMA3_CONTROL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"
)  # fmt: skip
DEEPSEEK_CONTROL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<|EOT|>")
SENTENCEPIECE_CONTROL = ("<unk>", "<s>", "</s>")

# Family: pre-tokeniser, control tokens, control tokens that are spoken.
BYTE_LEVEL: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "qwen": ("qwen2", QWEN_CONTROL, QWEN_SPOKEN),
    "llama3": ("llama-bpe", LLAMA3_CONTROL, ()),
    "deepseek-qwen": ("deepseek-r1-qwen", DEEPSEEK_CONTROL, ("<think>", "</think>")),
    "deepseek-llama": ("llama-bpe", (*DEEPSEEK_CONTROL, *LLAMA3_CONTROL), ("<think>", "</think>")),
}
_MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("12", "3"), ("4", "5"), ("x", "1"), ("<", "/")]
_PIECES = ["▁t", "he", "▁the", "12", "x1", "</", "s>", "▁▁"]


def family_json(family: str) -> str:
    """A tokenizer.json with added tokens."""
    if family == "sentencepiece":
        return sentencepiece_tokenizer().backend_tokenizer.to_str()
    pre_tokenizer, control, spoken = BYTE_LEVEL[family]
    merged = ["Ġt", "he", "Ġthe", "12", "123", "45", "x1", "</"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*tiny_vocab(), *merged]))}
    tokenizer = Tokenizer.from_str(build_tokenizer_json(vocab, _MERGES, pre_tokenizer))
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in spoken])
    text: str = tokenizer.to_str()
    return text


def sentencepiece_tokenizer() -> LlamaTokenizer:
    """Llama 2's kind: byte tokens, "▁" for spaces; its pieces could merge into "</s>"."""
    names = [*SENTENCEPIECE_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [*"▁abcdefghijklmnopqrstuvwxyzABCxyz0123456789<>/|_[]$\\{}^+-=.,"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*names, *letters, *_PIECES]))}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("1", "2"), ("x", "1"), ("<", "/"), ("s", ">"), ("</", "s>")]
    merges.append(("▁", "▁"))
    return LlamaTokenizer(vocab=vocab, merges=merges)


def engine_tokenizer(family: str) -> EngineTokenizer:
    """As the engine loads it from a folder."""
    split = split_control_tokens(family_json(family))
    return EngineTokenizer(split.tokenizer_json, split.control_tokens, (), split.spoken_ids)


def transformers_tokenizer(family: str, **names: str) -> PreTrainedTokenizerFast:
    """As transformers loads it; `names` such as bos_token."""
    assert json.loads(family_json(family))["added_tokens"]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(family_json(family)), **names)
