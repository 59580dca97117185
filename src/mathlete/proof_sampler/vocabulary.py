r"""A model's vocabulary as constraints see it: what each token spells, and which tokens are the same to a tracker.

Knows bytes, ids and the shape of structure in a text (`canonical`); follows no text itself. Made once for a model.

Nearly all of a vocabulary of 150,000 tokens is plain words. Two tokens of the same *canonical* spelling are treated
alike by every tracker in every state, so that it is enough to try each spelling once. Where letters themselves
count (names of environments) or digits (answers), tokens are tried as they are; those that can come into question
there are few and are listed once (`starting`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mathlete.proof_sampler.bracket_states import NAMES, THINK_TAG

_WORDS = frozenset(
    name[start:end]
    for name in (*NAMES, THINK_TAG.strip(b"<>"))
    for start in range(len(name))
    for end in range(start + 1, len(name) + 1)
)
_PIECE = re.compile(
    rb"[A-Za-z]+|[0-9]+|[ \t\r]+|\n+|[.,]+|[\\{}$`^_<>/()\[\]|]|[^A-Za-z0-9 \t\r\n.,\\{}$`^_<>/()\[\]|]+"
)
# What stands in braces behind a command, or behind the rest of one: perhaps an environment's name or an answer.
_ARGUMENT = re.compile(rb"(?:.*\\)?[A-Za-z]*[ \t\r\n]*\{[A-Za-z0-9* \t\r-]", re.DOTALL)


def canonical(token: bytes) -> bytes:
    r"""What of a token's spelling a tracker can tell from another.

    Kept are the characters of structure in order, letters that may be part of a name that matters, and the kinds of
    all others, each run of one kind as one. A token that may name an environment or begin an answer
    is kept as it is.
    """
    if _ARGUMENT.match(token):
        return token
    pieces: list[bytes] = []
    before = b""  # the piece before, as it was spelt
    for piece in _PIECE.findall(token):
        kept = _canonical_piece(piece, before)
        if kept != b"!" or pieces[-1:] != [b"!"]:
            pieces.append(kept)
        before = piece
    return b"".join(pieces)


def _canonical_piece(piece: bytes, before: bytes) -> bytes:
    head = piece[:1]
    if head.isalpha():
        may_matter = before[-1:] in (b"", b"\\", b"<", b"/")
        return piece if may_matter and piece in _WORDS else b"z"
    if head.isdigit():
        return b"1"
    if head in (b" ", b"\t", b"\r"):
        return b" "
    if head == b"\n":
        return piece[:3]
    if head in (b".", b","):
        return b"."
    if head in b"()[]|":  # count behind a backslash or a dollar sign only
        return piece if before[-1:] in (b"", b"\\", b"$") else b"!"
    if head in b"/>":  # parts of <think> and </think>
        return piece if before in (b"", b"<", b"think") or before in _WORDS else b"!"
    return piece if head in b"\\{}$`^_<" else b"!"


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, token_bytes: Sequence[bytes], eos_ids: Sequence[int]) -> None:
        """Sort the tokens. Takes a fifth of a second for 150,000.

        Args:
            token_bytes: what each id spells, [vocab_size]; empty for control tokens and ids that are not used.
            eos_ids: ids that end a text, whatever they spell.

        Raises:
            ValueError: for an id that ends texts and is none of the vocabulary's.
        """
        outside = [i for i in eos_ids if not 0 <= i < len(token_bytes)]
        if outside:
            raise ValueError(f"eos_ids names {outside[0]}, but the vocabulary has {len(token_bytes)} ids")
        self.token_bytes = tuple(token_bytes)
        self.eos_ids = frozenset(eos_ids)
        groups: dict[bytes, int] = {}
        members = [
            groups.setdefault(canonical(token), len(groups)) if token and i not in self.eos_ids else -1
            for i, token in enumerate(self.token_bytes)
        ]
        self.group_of: NDArray[np.int32] = np.array(members, dtype=np.int32)
        self.groups = tuple(groups)
        self._starting: dict[re.Pattern[bytes], tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """Ids, control tokens and unused ones too."""
        return len(self.token_bytes)

    @property
    def num_words(self) -> int:
        """Words of 32 bits in a mask."""
        return -(-self.size // 32)

    def starting(self, pattern: re.Pattern[bytes]) -> tuple[int, ...]:
        """Ids of the tokens that `pattern` matches from their start; kept for the next time."""
        found = self._starting.get(pattern)
        if found is None:
            found = tuple(
                i for i, token in enumerate(self.token_bytes) if self.group_of[i] >= 0 and pattern.match(token)
            )
            self._starting[pattern] = found
        return found
