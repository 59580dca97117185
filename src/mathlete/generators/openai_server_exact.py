"""Turns that go on from exactly the tokens that were sampled, over a server that tells ids and takes them (vLLM).

A turn begins over `/chat/completions`, as ever. From then on its prompt is ids: those of the chat, by the server's own
template (`/tokenize`), those that were sampled, and those of what was put in. No template sees the begun turn, so none
can take the thinking out of it, and the server finds all of it in its cache. Pure.
"""

from __future__ import annotations

from mathlete.core.generation import Completion, GenerateRequest, Span
from mathlete.generators.openai_server_dialects import Dialect
from mathlete.generators.openai_server_turns import (
    Asked,
    ChatTurns,
    PromptPiece,
    chat_fields,
    without_control_tokens,
)

_MAX_REMEMBERED = 2048


class ExactTurns(ChatTurns):
    """Chats whose turns go on by ids."""

    def __init__(self, dialect: Dialect) -> None:
        """For such a server."""
        super().__init__(dialect)
        self._known: dict[tuple[tuple[int, ...], str], Span] = {}

    def ask(self, request: GenerateRequest, written: Span | None) -> Asked:
        """See `Turns.ask`."""
        begun = "".join(span.text for span in request.continuation)
        if not begun and (written is None or not written.token_ids):
            return super().ask(request, written)
        chat = {"messages": chat_fields(request.messages), "add_generation_prompt": True}
        pieces: list[PromptPiece] = [chat]
        for span in request.continuation:
            # Ids of another model may not be taken for its own, so only what was told here counts.
            known = self._known.get((span.token_ids, span.text), Span(span.text))
            pieces += [known.token_ids, *_asked(known.text)]
        if written is not None:
            pieces.append(written.token_ids)
        return Asked("/completions", {"add_special_tokens": False}, tuple(piece for piece in pieces if piece))

    def remember(self, completion: Completion, covered: Span) -> None:
        """What was told, and how it goes on: by the ids that spell (the beginning of) its text, then by the rest."""
        self._known[completion.token_ids, completion.text] = covered
        if len(self._known) > _MAX_REMEMBERED:
            del self._known[next(iter(self._known))]


def _asked(text: str) -> list[PromptPiece]:
    return [{"prompt": without_control_tokens(text), "add_special_tokens": False}] if text else []
