"""Where the end of a token sequence was seen before, in its own past or in other sequences, and what followed.

Every token has an entry in `suffix_entries.py`. A *text* is what a sequence added: it begins where its sequence leaves
what another one has said, so a prompt that siblings share is indexed once. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mathlete.ryanstream.speculative.suffix_entries import MAX_MATCH, SortedEntries, context_of, context_with

_NUMBER = 1 << 32  # more than a text has tokens


class Occurrence(NamedTuple):
    """A place where the end of a sequence was seen before.

    Attributes:
        token_ids: of a text; not to be changed. It grows while its sequence does.
        place: in it, of the token that followed.
        num_matched: tokens before that place that are those at the end of the sequence, at most `MAX_MATCH`.
        is_own: whether it is in the sequence's own past.
    """

    token_ids: list[int]
    place: int
    num_matched: int
    is_own: bool


@dataclass(slots=True, eq=False)
class _Text:
    """What one sequence added to what another had said before.

    Attributes:
        number: rising with time.
        parent: the text that it goes on from, or None.
        start: tokens of the sequence before this text's own.
        is_open: whether the sequence may grow.
        is_removed: whether no sequence holds it any more, only its children.
        token_ids: its own.
        num_forgotten: of these, from the first on, those that have no entry any more.
        children: texts that go on from it.
    """

    number: int
    parent: _Text | None
    start: int
    is_open: bool = True
    is_removed: bool = False
    token_ids: list[int] = field(default_factory=list)
    num_forgotten: int = 0
    children: set[_Text] = field(default_factory=set)

    @property
    def num_entries(self) -> int:
        return len(self.token_ids) - self.num_forgotten

    @property
    def num_shared(self) -> int:
        """Own tokens that others go on from."""
        return max((child.start for child in self.children), default=self.start) - self.start

    def lineage(self, end: int) -> Iterator[tuple[_Text, int]]:
        """Itself and its ancestors, each with how many of its own tokens are among the sequence's first `end`."""
        text: _Text | None = self
        while text is not None:
            if end > text.start:
                yield text, end - text.start
                end = text.start
            text = text.parent

    def context(self, end: int) -> str:
        """Of the sequence's token `end`."""
        newest: list[int] = []
        for text, num in self.lineage(end):
            missing = MAX_MATCH - len(newest)
            newest += text.token_ids[max(0, num - missing) : num][::-1]
            if len(newest) == MAX_MATCH:
                break
        return context_of(newest)


class SuffixIndex:
    """Token sequences that grow at their ends.

    Adding a token costs a few comparisons of strings, whatever was said before. At most `max_tokens` tokens are
    indexed: beyond, those of the text that has not grown for longest are forgotten, the oldest of it first.
    """

    def __init__(self, max_tokens: int) -> None:
        """An empty index.

        Raises:
            ValueError: if `max_tokens` is below 1.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self._entries = SortedEntries()
        self._texts: dict[int, _Text] = {}  # by number; that which grew last comes last
        self._roots: dict[int, _Text] = {}  # those without a parent
        self._open: dict[int, _Text] = {}  # by sequence
        self._contexts: dict[int, str] = {}  # of each open sequence's next token
        self._next_number = 1

    def add(self, token_ids: Sequence[int]) -> int:
        """A new sequence. What another one also begins with is not indexed again; what comes later always is.

        Returns:
            what to call it by.
        """
        given = list(token_ids)
        parent, num_shared = self._longest_shared(given)
        sequence = self._next_number
        self._open_text(sequence, parent, num_shared)
        self.extend(sequence, given[num_shared:])
        return sequence

    def extend(self, sequence: int, token_ids: Iterable[int]) -> None:
        """Tokens that a sequence has gained.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text, context = self._open[sequence], self._contexts[sequence]
        before = len(text.token_ids)
        code = -(text.number * _NUMBER + before)
        insert = self._entries.insert
        for token_id in token_ids:
            insert(context, code)
            code -= 1
            context = context_with(context, token_id)
            text.token_ids.append(token_id)
        self._contexts[sequence] = context
        self.num_tokens += len(text.token_ids) - before
        self._texts[text.number] = self._texts.pop(text.number)
        self.forget_oldest(self.num_tokens - self.max_tokens)

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Take back all but the first tokens of a sequence. What others share of the rest stays.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text = self._open[sequence]
        if num_tokens >= self.length(sequence):
            return
        if num_tokens >= text.start + text.num_shared:
            self._cut(text, num_tokens - text.start)
            self._contexts[sequence] = text.context(num_tokens)
            return
        parent = next((ancestor for ancestor, _ in text.lineage(num_tokens)), None)
        self._open_text(sequence, parent, num_tokens)
        self._remove_text(text)

    def end(self, sequence: int) -> None:
        """A sequence does not grow any more. It is kept for the others.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text = self._open.pop(sequence)
        del self._contexts[sequence]
        text.is_open = False
        if text.num_entries == 0:
            self._remove_text(text)

    def remove(self, sequence: int) -> None:
        """Forget a sequence, but for what others share of it.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text = self._open.pop(sequence)
        del self._contexts[sequence]
        self._remove_text(text)

    def forget_oldest(self, num_tokens: int) -> None:
        """Forget as many tokens (none if negative), of the texts that have not grown for longest."""
        while num_tokens > 0 and self.num_tokens:
            text = next(text for text in self._texts.values() if text.num_entries)
            num = min(num_tokens, text.num_entries)
            self._delete_entries(text, text.num_forgotten, text.num_forgotten + num)
            text.num_forgotten += num
            num_tokens -= num
            if not text.is_open and text.num_entries == 0:
                self._remove_text(text)

    def length(self, sequence: int) -> int:
        """Tokens of a sequence, those included that are forgotten or shared.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text = self._open[sequence]
        return text.start + len(text.token_ids)

    def tokens(self, sequence: int, start: int = 0) -> list[int]:
        """Of a sequence, those from `start` on.

        Raises:
            KeyError: for a sequence that has ended.
        """
        text = self._open[sequence]
        parts = [(text, len(text.token_ids))]
        if start < text.start:
            parts = [*text.lineage(self.length(sequence))]
        return [
            token_id for part, num in reversed(parts) for token_id in part.token_ids[max(0, start - part.start) : num]
        ]

    def occurrences(self, sequence: int, limit: int) -> list[Occurrence]:
        """Where the end of a sequence was seen before, the longest matches first.

        Args:
            sequence: one that has not ended.
            limit: occurrences at most, >= 1; of equally long matches some, but the newest of those that match in full.

        Raises:
            KeyError: for a sequence that has ended.
        """
        context = self._contexts[sequence]
        text = self._open[sequence]
        own = {part.number: num for part, num in text.lineage(self.length(sequence))}
        occurrences = []
        for num_matched, code in self._entries.nearest(context, limit):
            number, place = divmod(-code, _NUMBER)
            is_own = place < own.get(number, 0)
            occurrences.append(Occurrence(self._texts[number].token_ids, place, num_matched, is_own))
        return occurrences

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless entries and texts belong to each other."""
        assert [*self._entries] == sorted(
            (text.context(text.start + place), -(text.number * _NUMBER + place))
            for text in self._texts.values()
            for place in range(text.num_forgotten, len(text.token_ids))
        )
        assert sum(text.num_entries for text in self._texts.values()) == self.num_tokens <= self.max_tokens
        self._entries.check_integrity()
        assert self._roots == {number: text for number, text in self._texts.items() if text.parent is None}
        for text in self._texts.values():
            assert text.is_open or (text.children if text.is_removed else text.num_entries)
            assert not text.is_removed or len(text.token_ids) == text.num_shared
            assert text.parent is None or (text in text.parent.children and text.parent.start < text.start)
            assert all(text.start < child.start <= text.start + len(text.token_ids) for child in text.children)

    def _longest_shared(self, token_ids: list[int]) -> tuple[_Text | None, int]:
        """The text that begins like these tokens for longest, and for how long. Forgotten ones do not count."""
        best: tuple[_Text | None, int] = (None, 0)
        candidates = [*self._roots.values()]
        while candidates and best[1] < len(token_ids):
            text = candidates.pop()
            if text.num_forgotten:
                continue
            num = text.start + num_equal(token_ids[text.start :], text.token_ids)
            if num > best[1]:
                best = text, num
            candidates += [child for child in text.children if child.start <= num]
        return best

    def _open_text(self, sequence: int, parent: _Text | None, start: int) -> None:
        text = _Text(self._next_number, parent, start)
        self._next_number += 1
        self._texts[text.number] = text
        if parent is None:
            self._roots[text.number] = text
        else:
            parent.children.add(text)
        self._open[sequence] = text
        self._contexts[sequence] = text.context(start)

    def _cut(self, text: _Text, num: int) -> None:
        """Keep the first `num` of a text's own tokens."""
        self._delete_entries(text, max(num, text.num_forgotten), len(text.token_ids))
        del text.token_ids[num:]
        text.num_forgotten = min(text.num_forgotten, num)

    def _delete_entries(self, text: _Text, start: int, end: int) -> None:
        context = text.context(text.start + start) if start < end else ""
        for place in range(start, end):
            self._entries.delete(context, -(text.number * _NUMBER + place))
            context = context_with(context, text.token_ids[place])
        self.num_tokens -= max(0, end - start)

    def _remove_text(self, text: _Text) -> None:
        """Keep of a text only what others go on from; likewise of those that only this one kept."""
        text.is_open, text.is_removed = False, True
        current: _Text | None = text
        while current is not None and current.is_removed:
            self._cut(current, current.num_shared)
            if current.children:
                return
            del self._texts[current.number]
            if current.parent is None:
                del self._roots[current.number]
            else:
                current.parent.children.remove(current)
            current = current.parent


def num_equal(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two lists have in common at their beginning."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:  # The difference is in [low, high).
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
