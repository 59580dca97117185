"""Where the end of a sequence was seen before, against a search through everything; what is shared is indexed once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.ryanstream.speculative.suffix_entries import MAX_MATCH
from mathlete.ryanstream.speculative.suffix_index import SuffixIndex, num_equal

ALL = 1_000_000
TOKENS = st.sampled_from([0, 1, 2, 151_935])
RUNS = st.lists(TOKENS, max_size=6) | st.builds(lambda token, num: [token] * num, TOKENS, st.integers(30, 70))
CHOICES = st.integers(0, 9)
OPERATIONS = st.lists(st.tuples(st.sampled_from("aeeeett.r"), CHOICES, RUNS, st.integers(0, 80)), max_size=25)


def num_matched(before: Sequence[int], end: Sequence[int]) -> int:
    """The longest common suffix, at most MAX_MATCH, found the slow way."""
    num = 0
    while num < min(len(before), len(end), MAX_MATCH) and before[-1 - num] == end[-1 - num]:
        num += 1
    return num


def seen_before(index: SuffixIndex, sequence: int) -> Counter[tuple[int, int, bool]]:
    """Match length, what followed, and whether it is the sequence's own, of all occurrences."""
    found = index.occurrences(sequence, ALL)
    assert [o.num_matched for o in found] == sorted((o.num_matched for o in found), reverse=True)
    return Counter((o.num_matched, o.token_ids[o.place], o.is_own) for o in found)


def searched(texts: dict[int, list[int]], end: list[int], sequence: int) -> Counter[tuple[int, int, bool]]:
    """The same by looking at every place of every text."""
    places = (
        (num_matched(text[:place], end), text[place], number == sequence)
        for number, text in texts.items()
        for place in range(len(text))
    )
    return Counter(place for place in places if place[0])


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_occurrences_are_those_that_a_search_finds(operations: list[tuple[str, int, list[int], int]]) -> None:
    """Sequences that share nothing because they begin empty grow, go back, end and are removed in any order."""
    index = SuffixIndex(ALL)
    texts: dict[int, list[int]] = {}
    ended: dict[int, list[int]] = {}
    for what, choice, run, num in operations:
        if what == "a" or not texts:
            sequence = index.add([])
            texts[sequence] = []
        else:
            sequence = sorted(texts)[choice % len(texts)]
        if what == "t":
            index.truncate(sequence, num)
            del texts[sequence][num:]
        elif what == ".":
            index.end(sequence)
            ended[sequence] = texts.pop(sequence)
            continue
        elif what == "r":
            index.remove(sequence)
            del texts[sequence]
            continue
        else:
            index.extend(sequence, run)
            texts[sequence] += run
        assert seen_before(index, sequence) == searched(texts | ended, texts[sequence], sequence)
        nearest = index.occurrences(sequence, 3)
        assert [o.num_matched for o in nearest] == [o.num_matched for o in index.occurrences(sequence, ALL)][:3]
        assert index.num_tokens == sum(map(len, texts.values())) + sum(map(len, ended.values()))
    index.check_integrity()


def branches(index: SuffixIndex, texts: dict[int, list[int]], given_ids: list[int]) -> None:
    """Add a sequence; what it shares with one that is known costs nothing."""
    shared = max((num_equal(text, given_ids) for text in texts.values()), default=0)
    before = index.num_tokens
    texts[index.add(given_ids)] = list(given_ids)
    assert index.num_tokens <= before + len(given_ids) - shared


@settings(max_examples=300, deadline=None)
@given(OPERATIONS, st.sampled_from([5, 60, ALL]))
def test_sequences_that_share_what_they_begin_with_stay_whole(
    operations: list[tuple[str, int, list[int], int]], max_tokens: int
) -> None:
    """Each knows its tokens, and all that any has said is found from any, whoever went back or left in between."""
    index = SuffixIndex(max_tokens)
    texts: dict[int, list[int]] = {}
    for what, choice, run, num in operations:
        sequence = sorted(texts)[choice % len(texts)] if texts else None
        if sequence is None or what == "a":
            given_ids = run if sequence is None else texts[sequence][:num] + run
            if max_tokens == ALL:
                branches(index, texts, given_ids)
            else:
                texts[index.add(given_ids)] = list(given_ids)
        elif what == "t":
            index.truncate(sequence, num)
            del texts[sequence][num:]
        elif what in ".r":
            (index.end if what == "." else index.remove)(sequence)
            del texts[sequence]
        else:
            index.extend(sequence, run)
            texts[sequence] += run
        index.check_integrity()
        for number, text in texts.items():
            assert index.tokens(number) == text and index.length(number) == len(text)
            assert index.tokens(number, num) == text[num:]
            seen = seen_before(index, number)
            if max_tokens == ALL:
                own = Counter({place: num for place, num in seen.items() if place[2]})
                assert own == searched({number: text}, text, number)
                lengths_and_followers = {place[:2] for place in seen}
                assert {place[:2] for place in searched(texts, text, number)} <= lengths_and_followers


def test_a_prompt_is_indexed_once_for_all_siblings() -> None:
    prompt = [*range(100, 400)]
    index = SuffixIndex(ALL)
    siblings = [index.add(prompt) for _ in range(32)]
    for sibling in siblings:
        index.extend(sibling, [1, 2, sibling])
    assert index.num_tokens == 300 + 32 * 3
    reader = index.add([*range(150, 160)])
    assert seen_before(index, reader) == {(10, 160, False): 1}
    # What each said at the prompt's end counts for each.
    newest = index.add(prompt)
    assert seen_before(index, newest) == {(MAX_MATCH, 1, False): 32}
    index.check_integrity()


def test_a_prompt_outlives_the_sibling_that_brought_it() -> None:
    index = SuffixIndex(ALL)
    first, second = index.add([7, 8, 9]), index.add([7, 8, 9, 4])
    index.extend(first, [5, 5])
    index.remove(first)
    assert (index.num_tokens, index.tokens(second)) == (4, [7, 8, 9, 4])
    index.remove(second)
    assert index.num_tokens == 0
    index.check_integrity()


def test_a_later_turn_shares_the_turn_that_it_goes_on_from() -> None:
    index = SuffixIndex(ALL)
    index.end(index.add([1, 2, 3, 4]))
    turn = index.add([1, 2, 3, 4, 50, 60])
    index.end(index.add([1, 2, 9]))
    assert index.num_tokens == 7
    index.extend(turn, [3])
    (occurrence,) = index.occurrences(turn, 9)
    assert (occurrence.token_ids[occurrence.place], occurrence.is_own) == (4, True)


def test_going_back_leaves_what_others_share() -> None:
    index = SuffixIndex(ALL)
    first = index.add([1, 2, 3, 4])
    fork = index.add([1, 2, 3, 4, 5])
    index.truncate(first, 2)
    index.extend(first, [8])
    assert index.tokens(first) == [1, 2, 8] and index.tokens(fork) == [1, 2, 3, 4, 5]
    index.check_integrity()
    index.remove(fork)
    assert index.num_tokens == 3  # [1, 2] is still what `first` begins with.
    index.check_integrity()


def test_the_text_that_has_not_grown_for_longest_is_forgotten_first() -> None:
    index = SuffixIndex(9)
    grows, idle = index.add([1, 2, 3]), index.add([5, 6, 7])
    index.extend(grows, [4, 8, 9])
    reader = index.add([6])  # One too many: the 5 goes.
    assert index.num_tokens == 9
    assert seen_before(index, reader) == {(1, 7, False): 1}
    index.extend(grows, [10, 11])  # The 6 and the 7.
    assert seen_before(index, reader) == Counter()
    index.extend(idle, [5])
    assert index.tokens(idle) == [5, 6, 7, 5]
    assert index.num_tokens == 9
    index.check_integrity()


def test_what_was_forgotten_can_be_learnt_again() -> None:
    index = SuffixIndex(6)
    index.add([1, 2, 3])
    index.add([4, 5, 6, 7])  # Takes the 1's place.
    index.forget_oldest(-1)
    assert index.num_tokens == 6
    again = index.add([1, 2, 3, 1])
    assert seen_before(index, again) == {(1, 2, True): 1}
    index.check_integrity()


def test_a_sequence_longer_than_the_ceiling_keeps_its_end() -> None:
    index = SuffixIndex(50)
    sequence = index.add([*range(400), 399])
    assert index.num_tokens == 50
    assert seen_before(index, sequence) == {(1, 399, True): 1}


def test_what_has_ended_cannot_grow() -> None:
    index = SuffixIndex(ALL)
    sequence = index.add([1])
    index.end(sequence)
    for use in (index.end, index.remove, index.length, index.tokens):
        with pytest.raises(KeyError):
            use(sequence)
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        SuffixIndex(0)


def test_time_does_not_grow_with_what_was_said() -> None:
    """One token over and over, all siblings alike: quadratic work would take minutes."""
    start_s = time.process_time()
    index = SuffixIndex(30_000)
    for _ in range(4):
        sequence = index.add([7] * 4_000)
        for _ in range(4_000):
            index.extend(sequence, [7])
            assert len(index.occurrences(sequence, 16)) == 16
        index.truncate(sequence, 6_000)
        index.end(sequence)
    assert time.process_time() - start_s < 10
    assert index.occurrences(index.add([7] * 32), 1)[0].num_matched == MAX_MATCH


@settings(deadline=None)
@given(st.lists(TOKENS), st.lists(TOKENS), st.lists(TOKENS))
def test_num_equal(common: list[int], first: list[int], second: list[int]) -> None:
    first, second = common + first, common + second
    num = num_equal(first, second)
    assert first[:num] == second[:num] and (num == min(len(first), len(second)) or first[num] != second[num])
