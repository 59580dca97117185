"""A chat in the words of the model's own template, for models of a family that `chat_format` does not know.

The template never sees what messages say: it is rendered over marks, and the messages' text is put in their place
afterwards, as ordinary tokens. So nothing that a user or a model wrote can become a control token, or change what the
template does. Pure but for the template, which its tokenizer renders in a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mathlete.core.errors import EngineError, ModelError
from mathlete.core.generation import Message
from mathlete.ryanstream.model.tokenizer import EngineTokenizer

_MARK = "\ue0f0{}\ue0f1"
_FIND_MARK = re.compile("\ue0f0(\\d+)\ue0f1")


class TemplateChat:
    """Writes chats as a tokenizer's `chat_template` does."""

    def __init__(self, encoder: EngineTokenizer, tokenizer: Any) -> None:
        """Use the template of `tokenizer`, of Hugging Face's kind.

        Raises:
            ModelError: it has none.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                "the model's tokenizer has neither a chat template nor the control tokens of a chat format that is "
                "known here: use an instruction-tuned model, and copy its tokenizer_config.json or chat_template.jinja"
            )
        self._encoder = encoder
        self._tokenizer = tokenizer
        names = sorted(encoder.control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, names))) if names else None

    def __call__(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a chat up to the start of the assistant's turn.

        A system message that the template does not take is put in front of the user's.

        Raises:
            EngineError: the template does not take these messages.
        """
        try:
            return self._ids(messages)
        except Exception as error:  # a template is a program of its own, and raises what it likes
            merged = _without_system(messages)
            if merged is None:
                raise _refused(error) from error
        try:
            return self._ids(merged)
        except Exception as error:
            raise _refused(error) from error

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        marked = [{"role": message.role, "content": _MARK.format(i)} for i, message in enumerate(messages)]
        text: str = self._tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
        pieces: list[tuple[str, int | None]] = []
        for i, part in enumerate(_FIND_MARK.split(text)):
            pieces += [(messages[int(part)].content, None)] if i % 2 else self._pieces(part)
        ids: list[int] = []
        for is_text, run in groupby(pieces, key=lambda piece: piece[1] is None):
            if is_text:  # text between two control tokens is encoded as one
                ids += self._encoder.encode("".join(said for said, _ in run))
            else:
                ids += [token_id for _, token_id in run if token_id is not None]
        return ids

    def _pieces(self, text: str) -> list[tuple[str, int | None]]:
        """The template's own text, cut at its control tokens."""
        found: list[tuple[str, int | None]] = []
        start = 0
        for match in self._control.finditer(text) if self._control else ():
            found += [(text[start : match.start()], None), (match[0], self._encoder.control_tokens[match[0]])]
            start = match.end()
        return [*found, (text[start:], None)]


def _without_system(messages: Sequence[Message]) -> Sequence[Message] | None:
    """The same with the system's words in front of the user's; None where there is no such pair."""
    first, *rest = messages
    if first.role != "system" or not rest or rest[0].role != "user":
        return None
    return (Message("user", f"{first.content}\n\n{rest[0].content}"), *rest[1:])


def _refused(error: Exception) -> EngineError:
    return EngineError(f"the model's chat template does not take these messages: {error}")
