"""How a family of models writes a chat: which control tokens stand around which turns. Pure; knows no engine.

Chosen by the control tokens that a tokenizer has. Control tokens are put in by id, so no message can contain one. Where
a model's own template would make up a system message because there is none (Qwen2.5: "You are Qwen ...", Llama 3.1: a
date), these do not: what the model is told is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from mathlete.core.errors import ModelError
from mathlete.core.generation import Message, Role

CONTENT = "{content}"


class TextEncoder(Protocol):
    """What is needed of a tokenizer."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids by name."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a control token."""
        ...


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat as a sequence of pieces. A piece that is the name of a control token stands for its id, any other is text.

    Attributes:
        name: for messages to people.
        needs: control tokens without which a model does not know this format.
        start: pieces before the first turn.
        turns: pieces of a closed turn, `CONTENT` standing for what the message says.
        answer: pieces that open the assistant's turn.
        trims: whether a message's outer white space is left out.
        forgets_thinking: whether an assistant's closed turn is shown from its `</think>` on only.
    """

    name: str
    needs: tuple[str, ...]
    start: tuple[str, ...]
    turns: Mapping[Role, tuple[str, ...]]
    answer: tuple[str, ...]
    trims: bool = False
    forgets_thinking: bool = False

    @property
    def turn_start(self) -> str:
        """The text that an assistant's turn begins with before the model writes: `<think>`, or nothing."""
        opens = self.answer.index("<think>") if "<think>" in self.answer else len(self.answer)
        return "".join(self.answer[opens:])


_ROLES: tuple[Role, ...] = ("system", "user", "assistant")

# Qwen2, Qwen2.5, Qwen2.5-Math, Qwen3 (which thinks unless told not to).
CHATML = ChatFormat(
    name="ChatML",
    needs=("<|im_start|>", "<|im_end|>"),
    start=(),
    turns={role: ("<|im_start|>", f"{role}\n", CONTENT, "<|im_end|>", "\n") for role in _ROLES},
    answer=("<|im_start|>", "assistant\n"),
)

LLAMA3 = ChatFormat(
    name="Llama 3",
    needs=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    start=("<|begin_of_text|>",),
    turns={role: ("<|start_header_id|>", role, "<|end_header_id|>", "\n\n", CONTENT, "<|eot_id|>") for role in _ROLES},
    answer=("<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"),
    trims=True,
)

# DeepSeek-R1 and what was distilled from it. The template opens the block of thinking itself.
DEEPSEEK_R1 = ChatFormat(
    name="DeepSeek-R1",
    needs=("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    start=("<｜begin▁of▁sentence｜>",),
    turns={
        "system": (CONTENT,),
        "user": ("<｜User｜>", CONTENT),
        "assistant": ("<｜Assistant｜>", CONTENT, "<｜end▁of▁sentence｜>"),
    },
    answer=("<｜Assistant｜>", "<think>", "\n"),
    forgets_thinking=True,
)

# DeepSeek-R1-Distill-Llama keeps Llama 3's control tokens beside its own, so its format is looked for first.
CHAT_FORMATS = (DEEPSEEK_R1, CHATML, LLAMA3)

_HARMONY = {"<|start|>", "<|message|>", "<|channel|>"}


def chat_format_of(control_tokens: Mapping[str, int]) -> ChatFormat:
    """The format a model knows. Raises `ModelError` when it knows none of `CHAT_FORMATS`."""
    for chat_format in CHAT_FORMATS:
        if all(name in control_tokens for name in chat_format.needs):
            return chat_format
    if _HARMONY <= control_tokens.keys():
        raise ModelError(
            "the model is one of gpt-oss, whose turns are messages in channels (Harmony) and no chat: use an engine of "
            "type vllm or openai_server for it, with turn_format harmony (docs/turn-formats.md)"
        )
    known = "; ".join(f"{f.name} ({', '.join(f.needs)})" for f in CHAT_FORMATS)
    raise ModelError(
        f"the model's tokenizer has the control tokens of no chat format that is known: {known}. "
        "Use an instruction-tuned model of the Qwen, Llama 3 or DeepSeek-R1 family."
    )


def chat_ids(encoder: TextEncoder, messages: Sequence[Message]) -> list[int]:
    """A chat in the model's own format, up to the start of the assistant's turn. Raises `ModelError` without one."""
    chat_format = chat_format_of(encoder.control_tokens)
    control = encoder.control_tokens
    pieces: list[tuple[str, int | None]] = [(piece, control.get(piece)) for piece in chat_format.start]
    for message in messages:
        for piece in chat_format.turns[message.role]:
            is_content = piece == CONTENT
            pieces.append((_shown(chat_format, message), None) if is_content else (piece, control.get(piece)))
    pieces += [(piece, control.get(piece)) for piece in chat_format.answer]
    ids: list[int] = []
    for is_text, run in groupby(pieces, key=lambda piece: piece[1] is None):
        if is_text:  # text between two control tokens is encoded as one, as a template's text is
            ids += encoder.encode("".join(text for text, _ in run))
        else:
            ids += [token_id for _, token_id in run if token_id is not None]
    return ids


def _shown(chat_format: ChatFormat, message: Message) -> str:
    """What a closed turn shows of a message."""
    text = message.content
    if chat_format.forgets_thinking and message.role == "assistant":
        text = text.rsplit("</think>", 1)[-1]
    return text.strip() if chat_format.trims else text
