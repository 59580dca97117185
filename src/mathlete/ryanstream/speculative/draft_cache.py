"""What a draft model's own KV cache holds of each request: bookkeeping, no tensors.

A *twin* is a request's part of the draft's cache. It follows the request: what the target accepted of a draft is moved
to its place, the rest is forgotten; after a rewind the common start is kept. Whole blocks of known tokens are
registered, so siblings share them. A twin either has blocks for all of its request and a draft, or holds none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mathlete.ryanstream.kv_cache import BLOCK_SIZE, SlotMove, slot_of
from mathlete.ryanstream.kv_manager import KVCacheManager
from mathlete.ryanstream.request import EngineRequest
from mathlete.ryanstream.shared_prefix import common_blocks
from mathlete.ryanstream.speculative.draft_tree import ROOT


@dataclass(slots=True, eq=False)
class Twin:
    """A request's part of the cache.

    Attributes:
        block_ids: its blocks.
        ids: the tokens whose keys and values lie at places 0, 1, ...; all of them known when they were computed.
        num_registered: blocks that others can find.
        num_rewinds: the request's, when it was last looked at.
        node_ids: tokens of the draft that was computed last, node j at place `len(ids) + j`.
        node_parents: of each, an earlier node or `ROOT`.
        nodes_computed: those whose keys and values are there.
    """

    block_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    num_registered: int = 0
    num_rewinds: int = 0
    node_ids: list[int] = field(default_factory=list)
    node_parents: list[int] = field(default_factory=list)
    nodes_computed: set[int] = field(default_factory=set)

    @property
    def holds(self) -> bool:
        """Whether it has blocks."""
        return bool(self.block_ids)

    def note_draft(self, node_ids: Sequence[int], node_parents: Sequence[int], computed: Iterable[int]) -> None:
        """A draft was grown behind its tokens; the keys and values of these nodes are there."""
        self.node_ids, self.node_parents, self.nodes_computed = [*node_ids], [*node_parents], {*computed}


class DraftCache:
    """The twins of all requests over one pool of blocks."""

    def __init__(self, num_blocks: int) -> None:
        """All blocks start empty."""
        self.pool = KVCacheManager(num_blocks)
        self._twins: dict[EngineRequest, Twin] = {}

    def num_held(self, request: EngineRequest, token_ids: Sequence[int]) -> int:
        """How many of these tokens the request's twin will have when it is followed: what it has, or would find."""
        twin = self._twins.get(request)
        if twin is None or not twin.holds:
            return self.pool.match_prefix(token_ids[:-1]).num_tokens
        if twin.num_rewinds != request.num_rewinds:
            return _common_start(twin.ids, token_ids[:-1])
        return min(len(twin.ids), len(token_ids) - 1)

    def holds(self, request: EngineRequest) -> bool:
        """Whether the request's twin has blocks."""
        return request in self._twins and self._twins[request].holds

    def align(self, request: EngineRequest, token_ids: Sequence[int]) -> list[SlotMove]:
        """Keep of the request's twin what agrees with its tokens; what is to be moved for that, before anything else.

        Moves put accepted nodes in their places, and what is kept of a block that others can find into one of its own.
        """
        twin = self._twins.get(request)
        if twin is None:
            return []
        rewound = twin.num_rewinds != request.num_rewinds
        twin.num_rewinds = request.num_rewinds
        moves = [] if rewound else _walk(twin, token_ids)
        twin.note_draft((), (), ())
        num_kept = min(len(twin.ids), len(token_ids) - 1)
        return moves + self._truncate(twin, _common_start(twin.ids, token_ids[:num_kept]) if rewound else num_kept)

    def note_computed(self, twin: Twin, token_ids: Sequence[int]) -> None:
        """These tokens, which follow those it has, are in the cache now; whole blocks can be found from here on."""
        twin.ids += token_ids
        # The last token may have to be computed anew, and nobody writes to a registered block.
        for index in range(twin.num_registered, (len(twin.ids) - 1) // BLOCK_SIZE):
            tokens = twin.ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
            twin.block_ids[index] = self.pool.register(twin.block_ids, index, tokens)
            twin.num_registered = index + 1

    def follow(self, request: EngineRequest, token_ids: Sequence[int], num_nodes: int) -> Twin | None:
        """The request's twin with blocks for its tokens and a draft; `align` comes first.

        Args:
            request: whose twin.
            token_ids: all tokens that it is to hold, the last of which is always computed anew.
            num_nodes: so many places are reserved beyond them.

        Returns:
            None when there is no room: the request has no draft then, and its twin no blocks.
        """
        twin = self._twins.setdefault(request, Twin())
        if not twin.holds:
            self._find_prefix(twin, token_ids)
        if self._reserved(twin, len(token_ids) + num_nodes):
            return twin
        for other in self._resting():
            self.empty(other)
            if self._reserved(twin, len(token_ids) + num_nodes):
                return twin
        self.empty(twin)
        return None

    def is_held(self, request: EngineRequest, token_ids: Sequence[int], starting: Iterable[Sequence[int]]) -> bool:
        """Whether the request's twin is to be started, and one that is `starting` will leave it more than is there."""
        if self.holds(request):
            return False
        num_found = self.num_held(request, token_ids)
        return any(common_blocks(token_ids[:-1], other[:-1]) > num_found for other in starting)

    def empty(self, twin: Twin) -> None:
        """Give a twin's blocks back; what is registered can still be found."""
        self.pool.release(twin.block_ids)
        twin.block_ids, twin.ids, twin.num_registered = [], [], 0
        twin.note_draft((), (), ())

    def forget(self, request: EngineRequest) -> None:
        """The request has ended."""
        twin = self._twins.pop(request, None)
        if twin is not None:
            self.empty(twin)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless pool and twins agree."""
        self.pool.check_integrity([twin.block_ids for twin in self._twins.values()])
        for twin in self._twins.values():
            assert len(twin.ids) <= len(twin.block_ids) * BLOCK_SIZE, "a twin holds more tokens than its blocks"

    def _find_prefix(self, twin: Twin, token_ids: Sequence[int]) -> None:
        match = self.pool.match_prefix(token_ids[:-1])
        self.pool.share(match.block_ids)
        self.pool.note_reference(match.block_ids)
        twin.block_ids, twin.num_registered = list(match.block_ids), len(match.block_ids)
        twin.ids = list(token_ids[: match.num_tokens])

    def _reserved(self, twin: Twin, num_places: int) -> bool:
        return self.pool.reserve(twin.block_ids, len(twin.ids), num_places) is not None

    def _resting(self) -> list[Twin]:
        """Twins of requests that do not run: they will not be asked for soon."""
        return [twin for request, twin in self._twins.items() if twin.holds and not request.is_running]

    def _truncate(self, twin: Twin, num_kept: int) -> list[SlotMove]:
        """Forget all but the first `num_kept` tokens. Nobody writes to a block that others can find: it is left."""
        first = num_kept // BLOCK_SIZE
        if first >= twin.num_registered:
            del twin.ids[num_kept:]
            return []
        old = twin.block_ids[first]
        own = self.pool.allocate(1)  # while the old one is held, so it is another
        self.pool.release(twin.block_ids[first:])
        twin.block_ids[first:] = own or []
        twin.num_registered = first
        num_moved = num_kept % BLOCK_SIZE if own else 0
        del twin.ids[first * BLOCK_SIZE + num_moved :]
        return [SlotMove(old * BLOCK_SIZE + i, own[0] * BLOCK_SIZE + i) for i in range(num_moved)] if own else []


def _common_start(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def _walk(twin: Twin, token_ids: Sequence[int]) -> list[SlotMove]:
    """Go down the last draft as far as it agrees with the tokens that have come; its nodes become the twin's tokens."""
    moves, base, node = [], len(twin.ids), ROOT
    for place in range(base, len(token_ids)):
        child = next(
            (
                at
                for at in sorted(twin.nodes_computed)
                if twin.node_parents[at] == node and twin.node_ids[at] == token_ids[place]
            ),
            None,
        )
        if child is None:
            break
        if base + child != place:  # nodes lie behind those they are children of, so no move's source is a target
            moves.append(SlotMove(slot_of(twin.block_ids, base + child), slot_of(twin.block_ids, place)))
        twin.ids.append(token_ids[place])
        node = child
    return moves
