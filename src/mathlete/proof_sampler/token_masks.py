"""Which tokens may follow a state of a text: exact, worked out once for each kind of state and kept.

A token may follow if feeding its bytes to the tracker is accepted; nothing is approximated. Knows states and
vocabularies; keeps no text.

Two states are of one kind when they differ only in frames too deep for any token to reach and in a distance to the
ceiling on depth that no token covers. A mask is words of 32 bits, bit i % 32 of word i // 32 for token i.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from mathlete.proof_sampler.bracket_states import START, Control, Frame, State, States
from mathlete.proof_sampler.bracket_tracker import BracketTracker
from mathlete.proof_sampler.vocabulary import Vocabulary

ENDED: States = ()
"""The text has ended: only the end of text may follow."""

_MAX_REMEMBERED = 1 << 15
_Kind = tuple[object, ...]


class TokenMasks:
    """Masks of one vocabulary under one set of rules; shared by all texts under them."""

    def __init__(self, vocabulary: Vocabulary, tracker: BracketTracker) -> None:
        """No mask is worked out yet."""
        self.vocabulary = vocabulary
        self.tracker = tracker
        self._reach = max((_num_closed(group) for group in vocabulary.groups), default=1)
        self._by_kind: dict[_Kind, NDArray[np.uint32]] = {}
        self._by_states: dict[States, memoryview] = {}

    @property
    def num_kinds(self) -> int:
        """Kinds of states met so far."""
        return len(self._by_kind)

    def mask(self, states: States) -> memoryview:
        """The mask after `states`: read-only words (format "I"), [num_words]."""
        found = self._by_states.get(states)
        if found is None:
            if len(self._by_states) >= _MAX_REMEMBERED:
                self._by_states.clear()
            found = self._by_states[states] = self._worked_out(states)
        return found

    def allows(self, states: States, token_id: int) -> States | None:
        """The states after one more token, `ENDED` where only an end of text may follow; None when it may not come."""
        if token_id in self.vocabulary.eos_ids:
            return ENDED if not states or self.tracker.may_end(states) else None
        if not states or not 0 <= token_id < self.vocabulary.size:
            return None
        token = self.vocabulary.token_bytes[token_id]
        after = self.tracker.feed(states, token) if token else ()
        if not after:
            return None
        return ENDED if self.tracker.is_done(after) else after

    def after_text(self, text: str) -> States:
        """The states after a text that stands already, see `BracketTracker.feed_leniently`."""
        states = self.tracker.feed_leniently((START,), text.encode("utf-8", errors="replace"))
        return ENDED if self.tracker.is_done(states) else states

    def _worked_out(self, states: States) -> memoryview:
        words = np.zeros(self.vocabulary.num_words, dtype=np.uint32)
        for state in states:
            words |= self._of_kind(state)
        if not states or self.tracker.may_end(states):
            for token_id in self.vocabulary.eos_ids:
                words[token_id // 32] |= np.uint32(1 << (token_id % 32))
        return memoryview(words.tobytes()).cast("I")

    def _of_kind(self, state: State) -> NDArray[np.uint32]:
        """The tokens that may follow one reading, ends of text apart."""
        kind = self._kind(state)
        found = self._by_kind.get(kind)
        if found is None:
            # A forgiving tracker takes whatever follows a name: there letters do not count.
            by_letters = state.control in _SPELT and (not self.tracker.forgiving or state.control is Control.ANSWER)
            allowed = self._spelt(state) if by_letters else self._grouped(state)
            packed = np.packbits(allowed, bitorder="little")
            found = np.zeros(self.vocabulary.num_words, dtype="<u4")
            found.view(np.uint8)[: len(packed)] = packed
            self._by_kind[kind] = found
        return found

    def _kind(self, state: State) -> _Kind:
        frames: list[tuple[int, bytes, int]] = []
        frame: Frame | None = state.top
        while frame is not None and len(frames) <= self._reach:
            frames.append((frame.kind, frame.name, frame.dollar))
            frame = frame.below
        depth = 0 if state.top is None else state.top.depth
        room = min(self.tracker.max_depth - depth, self._reach)
        return state.control, state.detail, state.line_start, state.literal, state.answered, room, *frames

    def _grouped(self, state: State) -> NDArray[np.bool_]:
        """Of every token, by trying each canonical spelling once."""
        advance = self.tracker.feed
        fits = np.fromiter(
            (bool(advance((state,), group)) for group in self.vocabulary.groups), bool, len(self.vocabulary.groups)
        )
        return np.append(fits, False)[self.vocabulary.group_of]  # -1, ends of text and empty tokens: the last

    def _spelt(self, state: State) -> NDArray[np.bool_]:
        """Of every token, by trying those as they are that can come into question at all."""
        vocabulary = self.vocabulary
        allowed = np.zeros(vocabulary.size, dtype=bool)
        if state.control is Control.BEGIN_NAME:
            allowed[np.array(vocabulary.starting(_PART_OF_NAME), dtype=int)] = True  # a name goes on as it likes
        elif state.control is Control.END_NAME:
            assert isinstance(state.detail, bytes)
            for token_id in vocabulary.starting(_PART_OF_NAME):
                allowed[token_id] = state.detail.startswith(vocabulary.token_bytes[token_id])
        for token_id in vocabulary.starting(_SPELT[state.control]):
            allowed[token_id] = bool(self.tracker.feed((state,), vocabulary.token_bytes[token_id]))
        return allowed


_PART_OF_NAME = re.compile(rb"[A-Za-z0-9*]+\Z")
_SPELT = {
    Control.BEGIN_NAME: re.compile(rb"[A-Za-z0-9*]*\}"),
    Control.END_NAME: re.compile(rb"[A-Za-z0-9*]*\}"),
    Control.ANSWER: re.compile(rb"[ 0-9,{}\\!-]*?\}|[ 0-9,{}\\!-]+\Z"),
}


def _num_closed(token: bytes) -> int:
    """Frames that a token may close or open, at most."""
    return 1 + sum(token.count(byte) for byte in b"{}$\\\n>")
