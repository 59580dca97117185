"""Drafts from what the requests of the same group have said: other attempts at the same problem repeat themselves.

Reads prompts, so the tool outputs of earlier turns too, and outputs, of requests that run and that have ended,
however they ended; a request without a group sees itself only. Costs no model. What counts as similar is
`suffix_index.py`'s to know, what a similar place is worth `suffix_drafts.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.speculative.draft_tree import DraftTree
from mathlete.ryanstream.speculative.proposer import DraftSlot
from mathlete.ryanstream.speculative.suffix_drafts import draft_tree
from mathlete.ryanstream.speculative.suffix_index import SuffixIndex, num_equal

DEFAULT_MAX_TOKENS = 1 << 18  # about 70 MB
_MAX_OCCURRENCES = 16  # Twice as many lengthened what is accepted by 0.3 %.

_Key = str | EngineRequest  # A group, or a request that keeps to itself.


@dataclass(slots=True, eq=False)
class _Group:
    """What some requests have said.

    Attributes:
        index: of it.
        num_running: requests that may still grow.
    """

    index: SuffixIndex
    num_running: int = 0


@dataclass(slots=True, eq=False)
class _Reading:
    """How far a request has been read.

    Attributes:
        group: its group.
        sequence: it, in the group's index.
        num_rewinds: how often it had gone back by then.
    """

    group: _Group
    sequence: int
    num_rewinds: int

    def catch_up(self, request: EngineRequest) -> None:
        """Read on, from where the request parted with what was read if it went back."""
        index = self.group.index
        if request.num_rewinds != self.num_rewinds:
            self.num_rewinds = request.num_rewinds
            start = len(request.prompt_ids)
            kept = num_equal(index.tokens(self.sequence, start), request.output_ids)
            index.truncate(self.sequence, start + kept)
        index.extend(self.sequence, request.token_slice(index.length(self.sequence), request.num_tokens))


class SiblingSuffixProposer:
    """See the module. See `Proposer` for the methods.

    What requests said is kept after their end, up to `max_tokens` over all groups; the group that has been idle for
    longest is forgotten first.
    """

    def __init__(self, max_tokens: int = DEFAULT_MAX_TOKENS) -> None:
        """Nothing is known yet.

        Raises:
            ValueError: if `max_tokens` is below 1.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._groups: dict[_Key, _Group] = {}  # that which grew last comes last
        self._readings: dict[EngineRequest, _Reading] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens that are indexed, of all groups."""
        return self._num_tokens

    def propose(self, slots: Sequence[DraftSlot]) -> list[DraftTree]:
        """See `Proposer.propose`."""
        for slot in slots:
            self._read(slot.request)
        return [self._draft(slot) for slot in slots]

    def note_hidden(self, request: EngineRequest, position: int, hidden: Tensor) -> None:
        """See `Proposer.note_hidden`; not called."""

    @property
    def wants_hidden(self) -> bool:
        """See `Proposer.wants_hidden`."""
        return False

    @property
    def step_cost_s(self) -> float:
        """See `Proposer.step_cost_s`; a lookup is not dearer for a deeper draft."""
        return 0.0

    def forget(self, request: EngineRequest) -> None:
        """See `Proposer.forget`. A request that was never guessed for is read as well."""
        key = self._key(request)
        if key is request:
            group = self._groups.pop(key, None)
            self._readings.pop(request, None)
            self._num_tokens -= group.index.num_tokens if group else 0
            return
        self._read(request)
        reading = self._readings.pop(request)
        group, before = reading.group, reading.group.index.num_tokens
        group.index.end(reading.sequence)
        group.num_running -= 1
        self._note_shrunk(key, group, before)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless groups, their indices and the readings agree."""
        for group in self._groups.values():
            group.index.check_integrity()
            assert group.num_running == sum(reading.group is group for reading in self._readings.values())
            assert group.num_running or group.index.num_tokens
        assert self._num_tokens == sum(group.index.num_tokens for group in self._groups.values()) <= self._max_tokens

    def _key(self, request: EngineRequest) -> _Key:
        return request if request.group is None else request.group

    def _read(self, request: EngineRequest) -> None:
        key = self._key(request)
        group = self._groups.pop(key, None) or _Group(SuffixIndex(self._max_tokens))
        self._groups[key] = group
        before = group.index.num_tokens
        reading = self._readings.get(request)
        if reading is None:
            # All that it knows by now counts as given: a fork's output is its source's.
            sequence = group.index.add(request.token_slice(0, request.num_tokens))
            self._readings[request] = _Reading(group, sequence, request.num_rewinds)
            group.num_running += 1
        else:
            reading.catch_up(request)
        self._num_tokens += group.index.num_tokens - before
        if self._num_tokens > self._max_tokens:
            self._make_room()

    def _make_room(self) -> None:
        for key, group in [*self._groups.items()]:
            before = group.index.num_tokens
            group.index.forget_oldest(min(self._num_tokens - self._max_tokens, before))
            self._note_shrunk(key, group, before)
            if self._num_tokens <= self._max_tokens:
                return

    def _note_shrunk(self, key: _Key, group: _Group, before: int) -> None:
        """A group's index held `before` tokens, and may hold fewer now; a group of nothing goes."""
        self._num_tokens -= before - group.index.num_tokens
        if not group.num_running and not group.index.num_tokens:
            del self._groups[key]

    def _draft(self, slot: DraftSlot) -> DraftTree:
        reading = self._readings[slot.request]
        occurrences = reading.group.index.occurrences(reading.sequence, _MAX_OCCURRENCES)
        return draft_tree(occurrences, slot.max_nodes, slot.max_depth)
