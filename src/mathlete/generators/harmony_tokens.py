"""The tokens of gpt-oss models, as Harmony's turns need them: names of control tokens, and what an encoding can do.

Knows nothing of messages, and not where an encoding comes from (`harmony_vocabulary`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

START = "<|start|>"
END = "<|end|>"
MESSAGE = "<|message|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
RETURN = "<|return|>"
CALL = "<|call|>"
END_OF_TEXT = "<|endoftext|>"
CONTROL_NAMES = (START, END, MESSAGE, CHANNEL, CONSTRAIN, RETURN, CALL, END_OF_TEXT)


class HarmonyTokens(Protocol):
    """An encoding."""

    @property
    def control(self) -> Mapping[str, int]:
        """Ids of `CONTROL_NAMES`."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a control token, whatever the text says."""
        ...

    def spelled(self, token_id: int) -> bytes:
        """The bytes of an ordinary token; nothing for a control token, or an id that there is not."""
        ...
